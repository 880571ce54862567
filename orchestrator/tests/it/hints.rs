//! What stages find of the caches of earlier runs.

use model::{
    Digest, StageOutcome,
    context::{EventKind, PullRequest, TriggerContext},
    event::run::{Outputs, StoredTree},
    plan::{CacheDefinition, Value},
    protocol::agent::CacheRestore,
    trigger::Trigger,
};
use orchestrator::Orchestrator;

use crate::house::{House, Inbox, chain, ended, trigger};

fn tree(text: &str) -> StoredTree {
    StoredTree { archive: Digest::of(text.as_bytes()), bytes: 1, entries: 1 }
}

fn context(event: EventKind, branch: &str) -> TriggerContext {
    TriggerContext { event, branch: branch.to_owned(), ..TriggerContext::default() }
}

/// A run whose stage leaves this cache; gives what it found.
async fn run(orchestrator: &Orchestrator, inbox: &mut Inbox, context: TriggerContext, leaves: &str) -> Option<CacheRestore> {
    let trigger = Trigger { context, ..trigger(leaves) };
    orchestrator.create(&trigger).await.unwrap();
    let assignment = loop {
        let assignment = inbox.assignment(None).await;
        if assignment.lease.attempt.run == trigger.run() {
            break assignment;
        }
    };
    let outputs = Outputs { caches: [("cargo".to_owned(), tree(leaves))].into(), ..Outputs::default() };
    inbox.finish(&assignment.lease, StageOutcome::Success, outputs).await;
    ended(orchestrator, &trigger).await;
    assignment.caches.get("cargo").cloned()
}

fn hint(text: &str) -> CacheRestore {
    CacheRestore { tree: tree(text), required: false }
}

#[tokio::test]
async fn a_stage_finds_the_newest_cache_of_its_branch_also_after_a_restart_and_none_of_a_pull_request() {
    let mut plan = chain(&["Build"]);
    let definition = CacheDefinition { paths: vec![Value::from("target")], key: None };
    plan.stages[0].caches = [("cargo".to_owned(), definition)].into();
    let house = House::new(plan).await;
    let mut inbox = house.inbox().await;
    let (first, supervisor) = house.start().await;
    let main = || context(EventKind::Push, "main");
    assert_eq!(run(&first, &mut inbox, main(), "first").await, None);
    assert_eq!(run(&first, &mut inbox, main(), "second").await, Some(hint("first")));
    let pull_request = PullRequest { number: 7, target: "main".to_owned(), source: "topic".to_owned(), fork: true };
    let proposed = || TriggerContext { pull_request: Some(pull_request.clone()), ..context(EventKind::PullRequest, "") };
    assert_eq!(run(&first, &mut inbox, proposed(), "of the proposal").await, Some(hint("second")));
    assert_eq!(run(&first, &mut inbox, proposed(), "again").await, Some(hint("of the proposal")));
    supervisor.shut_down().await;
    let (second, supervisor) = house.start().await;
    assert_eq!(run(&second, &mut inbox, main(), "third").await, Some(hint("second")), "a branch reads none of a pull request");
    assert_eq!(run(&second, &mut inbox, context(EventKind::Push, "topic"), "topic").await, Some(hint("third")));
    supervisor.shut_down().await;
}
