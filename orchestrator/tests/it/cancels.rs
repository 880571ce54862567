//! The end of a run by force, and by its own time, with a stage in every state that a stage can be in.

use model::{
    RunOutcome, StageId, StageOutcome, Timestamp,
    event::run::{Outputs, SkipReason},
    plan::{Effect, Plan, Retry, RetryReason, Stage, Value, Wait},
    protocol::agent::{AgentCommand, Lease, Report, ReportKind},
    trigger::Trigger,
};
use orchestrator::{
    Orchestrator,
    core::{Run, Status},
};

use crate::house::{House, Inbox, NOBODY, after, chain, ended, outcome, trigger, until, waiting};

const LOCK: &str = "production";
/// Of a run whose time is over: longer than it takes to get every stage where it should be.
const TIME_MS: u64 = 20_000;

fn work(path: &str) -> Stage {
    chain(&[path]).stages.remove(0)
}

/// A stage for each state.
fn all_states() -> Plan {
    let backoff = Retry { attempts: 2, backoff_ms: 3_600_000, on: vec![RetryReason::Failed] };
    Plan::new(vec![
        Stage { lock: Some(LOCK.to_owned()), ..work("Queued") },
        Stage { enter: vec![Wait::Pause], ..work("Gated") },
        Stage { requires: [(NOBODY.to_owned(), Value::Boolean(true))].into(), ..work("Ready") },
        work("Awarded"),
        work("Running"),
        Stage { retry: Some(backoff), ..work("Pausing") },
        Stage { exit: vec![Wait::Pause], ..work("Exiting") },
        after(work("Waiting"), "Awarded"),
        waiting("Timed", Wait::Time { ms: 3_600_000 }),
        work("Done"),
    ])
}

fn status<'a>(run: &'a Run, path: &str) -> &'a Status {
    &run.stage(&StageId::of(path)).unwrap().1.status
}

fn is_placed(run: &Run) -> bool {
    let is = |path: &str| {
        matches!(
            (path, status(run, path)),
            ("Queued", Status::Queued { .. })
                | ("Gated" | "Timed", Status::Gated { .. })
                | ("Ready", Status::Ready { .. })
                | ("Awarded", Status::Awarded)
                | ("Running", Status::Running)
                | ("Pausing", Status::Pausing { .. })
                | ("Exiting", Status::Exiting { .. })
                | ("Waiting", Status::Waiting)
                | ("Done", Status::Ended(StageOutcome::Success))
        )
    };
    ["Queued", "Gated", "Ready", "Awarded", "Running", "Pausing", "Exiting", "Waiting", "Timed", "Done"].into_iter().all(is)
}

/// Brings a run's stages where their names say; gives the lease of the one that runs.
async fn place(orchestrator: &Orchestrator, inbox: &mut Inbox, trigger: &Trigger) -> Lease {
    orchestrator.create(trigger).await.unwrap();
    let mut running = None;
    let mut open = 5;
    let mut seen = Vec::new();
    while open > 0 {
        let lease = inbox.assignment(None).await.lease;
        if lease.attempt.run != trigger.run() || seen.contains(&lease) {
            continue;
        }
        seen.push(lease.clone());
        open -= 1;
        let stage = &lease.attempt.stage;
        if *stage == StageId::of("Running") {
            inbox.report(&lease, Report::Started { at: Timestamp(1) }).await;
            running = Some(lease);
        } else if *stage == StageId::of("Pausing") {
            inbox.finish(&lease, StageOutcome::Failure, Outputs::default()).await;
        } else if *stage != StageId::of("Awarded") {
            inbox.succeed(&lease).await;
        }
    }
    until(orchestrator, trigger, "every state", is_placed).await;
    running.unwrap()
}

/// A run that has the lock, and keeps it.
async fn holder(orchestrator: &Orchestrator) -> Trigger {
    let holder = Trigger { pipeline_path: "holder".to_owned(), ..trigger("holder") };
    orchestrator.create(&holder).await.unwrap();
    until(orchestrator, &holder, "the lock", |run| run.holder_of(LOCK).is_some()).await;
    holder
}

async fn house() -> House {
    let house = House::without_parser(eventbus::memory::bus()).await;
    let locked = Plan::new(vec![Stage { lock: Some(LOCK.to_owned()), exit: vec![Wait::Pause], ..Stage::new("Hold") }]);
    let answer = move |path: &str| crate::house::planned(if path == "holder" { locked.clone() } else { all_states() }, None);
    house.play_parser_with(move |request| answer(&request.path)).await;
    house
}

#[tokio::test]
async fn a_run_is_ended_by_force_whatever_its_stages_do_and_whether_or_not_an_agent_answers() {
    let house = house().await;
    let mut inbox = house.inbox().await;
    let (orchestrator, supervisor) = house.start().await;
    holder(&orchestrator).await;
    let trigger = trigger("1");
    let running = place(&orchestrator, &mut inbox, &trigger).await;
    orchestrator.cancel(&trigger.run(), "ann", true).await.unwrap();
    // Nobody answers.
    let run = ended(&orchestrator, &trigger).await;
    assert_eq!(outcome(&run), Some(RunOutcome::Aborted));
    for path in ["Queued", "Gated", "Ready", "Pausing", "Waiting", "Timed"] {
        assert_eq!(status(&run, path), &Status::Skipped(SkipReason::Cancelled), "{path}");
    }
    for path in ["Awarded", "Running"] {
        assert_eq!(status(&run, path), &Status::Lost, "{path}");
    }
    assert_eq!(status(&run, "Exiting"), &Status::Ended(StageOutcome::Aborted));
    assert_eq!(status(&run, "Done"), &Status::Ended(StageOutcome::Success));
    // The agent comes back: what it says changes nothing, and it can forget it.
    inbox.succeed(&running).await;
    inbox.acknowledged(ReportKind::Finished).await;
    assert_eq!(outcome(&orchestrator.runs.get(&run.id).unwrap().run), Some(RunOutcome::Aborted));
    supervisor.shut_down().await;
}

#[tokio::test]
async fn an_end_by_force_goes_on_after_a_restart() {
    let house = house().await;
    let mut inbox = house.inbox().await;
    let (first, supervisor) = house.start().await;
    holder(&first).await;
    let trigger = trigger("1");
    place(&first, &mut inbox, &trigger).await;
    first.cancel(&trigger.run(), "ann", false).await.unwrap();
    first.cancel(&trigger.run(), "ann", true).await.unwrap();
    supervisor.shut_down().await;
    let (second, supervisor) = house.start().await;
    assert_eq!(outcome(&*ended(&second, &trigger).await), Some(RunOutcome::Aborted));
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_stage_that_must_not_start_twice_is_unknown_when_nobody_confirms_its_end() {
    let house = House::new(Plan::new(vec![Stage { effect: Effect::Once, ..work("Deploy") }])).await;
    let mut inbox = house.inbox().await;
    let (orchestrator, supervisor) = house.start().await;
    let trigger = trigger("1");
    orchestrator.create(&trigger).await.unwrap();
    let lease = inbox.assignment(None).await.lease;
    inbox.report(&lease, Report::Started { at: Timestamp(1) }).await;
    until(&orchestrator, &trigger, "its start", |run| *status(run, "Deploy") == Status::Running).await;
    orchestrator.cancel(&trigger.run(), "ann", true).await.unwrap();
    while !matches!(inbox.next().await, AgentCommand::Cancel { force: true, .. }) {}
    assert_eq!(outcome(&*ended(&orchestrator, &trigger).await), Some(RunOutcome::Unknown));
    supervisor.shut_down().await;
}

#[tokio::test]
async fn the_end_of_its_time_ends_a_run_whatever_its_stages_do() {
    let house = house().await;
    let mut inbox = house.inbox().await;
    let (orchestrator, supervisor) = house.start().await;
    let holder = holder(&orchestrator).await;
    let trigger = Trigger { timeout_ms: Some(TIME_MS), ..trigger("1") };
    place(&orchestrator, &mut inbox, &trigger).await;
    // In order: who has a stage is told to end it, and does. What was awarded and not taken up may have been awarded again.
    let obeys = async {
        loop {
            if let AgentCommand::Cancel { lease, force: false } = inbox.next().await {
                inbox.finish(&lease, StageOutcome::Aborted, Outputs::default()).await;
            }
        }
    };
    let run = tokio::select! {
        run = ended(&orchestrator, &trigger) => run,
        () = obeys => unreachable!("it obeys for ever"),
    };
    assert_eq!(outcome(&run), Some(RunOutcome::Failure));
    for path in ["Queued", "Gated", "Ready", "Pausing", "Waiting", "Timed"] {
        assert_eq!(status(&run, path), &Status::Skipped(SkipReason::Cancelled), "{path}");
    }
    for path in ["Running", "Exiting"] {
        assert_eq!(status(&run, path), &Status::Ended(StageOutcome::Aborted), "{path}");
    }
    assert!(matches!(status(&run, "Awarded"), Status::Ended(StageOutcome::Aborted) | Status::Skipped(SkipReason::Cancelled)));
    let held = orchestrator.runs.get(&holder.run()).unwrap().run;
    assert!(held.ended.is_none() && held.holder_of(LOCK).is_some(), "another run's lock is its own");
    supervisor.shut_down().await;
}

#[tokio::test]
async fn the_end_of_its_time_counts_while_no_orchestrator_lives() {
    let house = House::new(Plan::new(vec![waiting("Hold", Wait::Pause)])).await;
    let (first, supervisor) = house.start().await;
    let trigger = Trigger { timeout_ms: Some(1_000), ..trigger("1") };
    first.create(&trigger).await.unwrap();
    until(&first, &trigger, "its begin", |_| true).await;
    supervisor.shut_down().await;
    let (second, supervisor) = house.start().await;
    assert_eq!(outcome(&*ended(&second, &trigger).await), Some(RunOutcome::Failure));
    supervisor.shut_down().await;
}
