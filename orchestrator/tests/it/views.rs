//! What is listed of runs, deliveries and deeds, and that it is made anew where it is not there.

use std::{collections::BTreeMap, fs, path::Path};

use model::{
    RunOutcome, StageId, StageOutcome,
    context::{EventKind, TriggerContext},
    event::run::{Answer, Outputs, Question, WaitKey},
    plan::{Deployment, Plan, Stage, Value, Wait},
    trigger::{Claims, Trigger},
};
use orchestrator::{
    Orchestrator,
    views::{Action, AuditFilter, DeliveryFilter, DeliveryStatus, RunFilter, Standing, ViewError, ViewsPlace},
};
use service::Supervisor;
use tokio::{task::yield_now, time::timeout};

use crate::house::{DEADLINE, House, chain, ended, is_asked, on_branch, trigger, until, waiting};

fn hold() -> Plan {
    Plan::new(vec![waiting("Hold", Wait::Pause)])
}

async fn start(house: &House, file: &Path) -> (Orchestrator, Supervisor) {
    house.start_with(|options| orchestrator::engine::EngineOptions { views: ViewsPlace::File(file.to_owned()), ..options }).await
}

async fn finish(orchestrator: &Orchestrator, trigger: &Trigger) {
    until(orchestrator, trigger, "the question", |run| is_asked(run, "Hold")).await;
    orchestrator.answer(&trigger.run(), &StageId::of("Hold"), WaitKey::Itself, Answer::Resumed, Some("ann")).await.unwrap();
    ended(orchestrator, trigger).await;
}

async fn found(orchestrator: &Orchestrator, filter: RunFilter) -> Vec<String> {
    let found = loop {
        match orchestrator.runs.search(filter.clone(), None, 100).await {
            Err(ViewError::NotWhole) => {}
            found => break found.unwrap(),
        }
    };
    found.iter().map(|(_, run)| run.branch.clone()).collect()
}

/// Waits until as many runs are listed.
async fn listed(orchestrator: &Orchestrator, count: usize) {
    let all = async {
        while found(orchestrator, RunFilter::default()).await.len() != count {
            yield_now().await;
        }
    };
    timeout(DEADLINE, all).await.expect("the list is made anew");
}

#[tokio::test]
async fn runs_are_found_by_what_they_are_and_how_they_stand() {
    let house = House::new(hold()).await;
    let (orchestrator, supervisor) = house.start().await;
    let context = |branch: &str, event, commit: &str| TriggerContext {
        branch: branch.to_owned(),
        event,
        commit: commit.to_owned(),
        ..TriggerContext::default()
    };
    let triggers = [
        Trigger { context: context("main", EventKind::Push, "abc123"), ..trigger("1") },
        Trigger { context: context("other", EventKind::Cron, "def456"), project: "second".parse().unwrap(), ..trigger("2") },
        Trigger { context: context("third", EventKind::Push, "abc999"), ..trigger("3") },
    ];
    for trigger in &triggers {
        orchestrator.create(trigger).await.unwrap();
        until(&orchestrator, trigger, "the question", |run| is_asked(run, "Hold")).await;
    }
    finish(&orchestrator, &triggers[0]).await;
    orchestrator.cancel(&triggers[2].run(), "bob", false).await.unwrap();
    ended(&orchestrator, &triggers[2]).await;
    let of = |filter| found(&orchestrator, filter);
    assert_eq!(of(RunFilter::default()).await, ["third", "other", "main"], "the newest first");
    let standing = |standing| RunFilter { standing: Some(standing), ..RunFilter::default() };
    assert_eq!(of(standing(Standing::Open)).await, ["other"]);
    assert_eq!(of(standing(Standing::Ended)).await, ["third", "main"]);
    assert_eq!(of(standing(Standing::As(RunOutcome::Aborted))).await, ["third"]);
    assert_eq!(of(RunFilter { projects: Some(vec!["second".parse().unwrap()]), ..RunFilter::default() }).await, ["other"]);
    assert!(of(RunFilter { projects: Some(vec![]), ..RunFilter::default() }).await.is_empty(), "no project is not every project");
    assert_eq!(of(RunFilter { branch: Some("main".to_owned()), ..RunFilter::default() }).await, ["main"]);
    assert_eq!(of(RunFilter { commit: Some("abc".to_owned()), ..RunFilter::default() }).await, ["third", "main"]);
    assert_eq!(of(RunFilter { event: Some(EventKind::Cron), ..RunFilter::default() }).await, ["other"]);
    let middle = orchestrator.runs.get(&triggers[1].run()).unwrap().run.accepted_at;
    assert!(of(RunFilter { until: Some(middle), ..RunFilter::default() }).await.iter().all(|branch| branch == "main"));
    let newest = orchestrator.runs.search(RunFilter::default(), None, 1).await.unwrap();
    assert_eq!(newest[0].1.id, triggers[2].run());
    let page = orchestrator.runs.search(RunFilter::default(), Some(newest[0].0), 1).await.unwrap();
    assert_eq!(page[0].1.branch, "other");
    supervisor.shut_down().await;
}

#[tokio::test]
async fn lists_that_are_gone_damaged_of_another_version_or_of_another_store_are_made_anew() {
    let house = House::new(hold()).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("views.sqlite");
    let (orchestrator, supervisor) = start(&house, &file).await;
    for number in ["1", "2"] {
        orchestrator.create(&trigger(number)).await.unwrap();
        finish(&orchestrator, &trigger(number)).await;
    }
    listed(&orchestrator, 2).await;
    supervisor.shut_down().await;
    drop(orchestrator);
    let version = |version: i64| rusqlite::Connection::open(&file).unwrap().pragma_update(None, "user_version", version).unwrap();
    let ahead = || {
        let connection = rusqlite::Connection::open(&file).unwrap();
        connection.execute("UPDATE runs SET last = 1000000", []).unwrap();
    };
    let remove = || {
        for name in ["views.sqlite", "views.sqlite-wal", "views.sqlite-shm"] {
            fs::remove_file(folder.path().join(name)).ok();
        }
    };
    let no_database = || {
        remove();
        fs::write(&file, b"this is no database, and has more than a hundred bytes: ".repeat(100)).unwrap();
    };
    let spoil: [(&str, &dyn Fn()); 4] = [
        ("it is gone", &remove),
        ("it is none", &no_database),
        ("it is of another version", &|| version(99)),
        ("it is of another store", &ahead),
    ];
    for (what, spoil) in spoil {
        spoil();
        let (orchestrator, supervisor) = start(&house, &file).await;
        let all = async {
            loop {
                let found = match orchestrator.runs.search(RunFilter::default(), None, 10).await {
                    Err(ViewError::NotWhole) => continue,
                    found => found.unwrap(),
                };
                if found.iter().map(|(_, run)| run.id.clone()).collect::<Vec<_>>() == [trigger("2").run(), trigger("1").run()] {
                    return;
                }
                yield_now().await;
            }
        };
        timeout(DEADLINE, all).await.unwrap_or_else(|_| panic!("{what}"));
        let deeds = orchestrator.runs.views().audit(AuditFilter::default(), None, 10).await.unwrap();
        assert_eq!(deeds.len(), 4, "{what}: two were started, and two resumed");
        supervisor.shut_down().await;
    }
}

#[tokio::test]
async fn an_environment_has_a_history_with_who_approved() {
    let deliver = |path: &str, environment: &str| Stage {
        deployment: Some(Deployment { environment: environment.to_owned(), protected: false, settings: BTreeMap::new() }),
        ..chain(&[path]).stages.remove(0)
    };
    let confirm = Wait::Confirm { message: Value::from("Ship it?"), by: vec![], timeout_ms: None };
    let ship = Stage { enter: vec![confirm], ..deliver("Ship", "production") };
    let house = House::new(Plan::new(vec![deliver("Try", "preprod"), ship])).await;
    let mut inbox = house.inbox().await;
    let (orchestrator, supervisor) = house.start().await;
    let views = orchestrator.runs.views().clone();
    let trigger = Trigger { claims: Claims { actor: Some("ann".to_owned()), ..Claims::own() }, ..on_branch("1", "main") };
    orchestrator.create(&trigger).await.unwrap();
    let tried = inbox.assignment(None).await.lease;
    let history = async |environment: &str| {
        let filter = DeliveryFilter { environment: Some(environment.to_owned()), ..DeliveryFilter::default() };
        // Behind a start the lists are made anew, and are empty meanwhile.
        let found = async {
            loop {
                let found = views.deliveries(filter.clone(), None, 10).await.unwrap();
                if !found.is_empty() {
                    return found;
                }
                yield_now().await;
            }
        };
        timeout(DEADLINE, found).await.expect("there is a delivery")
    };
    let asked = until(&orchestrator, &trigger, "the question", |run| is_asked(run, "Ship")).await;
    assert_eq!(history("preprod").await[0].status, DeliveryStatus::Running);
    assert_eq!(history("production").await[0].status, DeliveryStatus::Waiting);
    inbox.finish(&tried, StageOutcome::Failure, Outputs::default()).await;
    let (_, ship) = asked.run.stage(&StageId::of("Ship")).unwrap();
    let Question::Confirm { delivery, .. } = &ship.open_waits().next().unwrap().1.question else { panic!("{ship:?}") };
    let answer = Answer::Approved { delivery: *delivery };
    orchestrator.answer(&trigger.run(), &StageId::of("Ship"), WaitKey::Enter(0), answer.clone(), Some("bob")).await.unwrap();
    let shipped = inbox.assignment(Some(&tried)).await.lease;
    inbox.succeed(&shipped).await;
    ended(&orchestrator, &trigger).await;
    let production = history("production").await.remove(0);
    assert_eq!(
        (production.status, production.approved_by, production.actor, production.branch),
        (DeliveryStatus::Ended(StageOutcome::Success), vec!["bob".to_owned()], Some("ann".to_owned()), "main".to_owned())
    );
    assert_eq!(history("preprod").await[0].status, DeliveryStatus::Ended(StageOutcome::Failure));
    let newest = views.deliveries(DeliveryFilter { newest_only: true, ..DeliveryFilter::default() }, None, 10).await.unwrap();
    assert_eq!(newest.len(), 2);
    let deeds = views.audit(AuditFilter { actor: Some("bob".to_owned()), ..AuditFilter::default() }, None, 10).await.unwrap();
    assert_eq!((deeds.len(), &deeds[0].action), (1, &Action::Answered { path: "Ship".to_owned(), answer }));
    let older = views.audit(AuditFilter::default(), Some(deeds[0].place), 10).await.unwrap();
    assert!(matches!(&older[..], [started] if started.actor.as_deref() == Some("ann")), "{older:?}");
    supervisor.shut_down().await;
}
