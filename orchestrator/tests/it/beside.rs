//! Several orchestrators on one bus: each run is worked on by one, and all of them know it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use eventbus::{
    Bus, BusError, Pattern, StoredRecord, Subject, Subscription, Triggers,
    bus::{Backend, Stored},
};
use model::{
    RunId, RunOutcome, StageId, TriggerId,
    event::run::{Answer, RunRecord, WaitKey},
    plan::{Plan, Stage, Wait},
    protocol::agent::Lease,
    trigger::Trigger,
};
use orchestrator::{Orchestrator, engine::EngineOptions, runs::Snapshot};
use service::Supervisor;
use tokio::sync::{mpsc, watch};

use crate::house::{House, Inbox, chain, ended, is_asked, outcome, trigger, until, waiting};

/// A line to the bus that can be held: nothing that is said or asked goes through until it is let go.
#[derive(Debug)]
struct Line {
    inner: Arc<dyn Backend>,
    is_held: watch::Receiver<bool>,
}

impl Line {
    fn to(bus: &Bus) -> (Bus, watch::Sender<bool>) {
        let (hold, is_held) = watch::channel(false);
        (Bus::new(Self { inner: bus.backend(), is_held }), hold)
    }

    async fn free(&self) {
        self.is_held.clone().wait_for(|is_held| !is_held).await.unwrap();
    }
}

#[async_trait]
impl Backend for Line {
    async fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), BusError> {
        self.free().await;
        self.inner.publish(subject, payload).await
    }

    async fn request(&self, subject: &Subject, payload: Bytes, limit: Duration) -> Result<Bytes, BusError> {
        self.free().await;
        self.inner.request(subject, payload, limit).await
    }

    async fn subscribe(&self, pattern: &Pattern, group: Option<&'static str>) -> Result<Subscription, BusError> {
        self.inner.subscribe(pattern, group).await
    }

    async fn store(&self, subject: &Subject, payload: Bytes, last: u64) -> Result<Stored, BusError> {
        self.free().await;
        self.inner.store(subject, payload, last).await
    }

    async fn last(&self, subject: &Subject) -> Result<Option<(u64, Bytes)>, BusError> {
        self.free().await;
        self.inner.last(subject).await
    }

    async fn run_log(&self, run: &RunId) -> Result<Vec<StoredRecord>, BusError> {
        self.free().await;
        self.inner.run_log(run).await
    }

    async fn run_logs(&self) -> Result<mpsc::Receiver<Result<StoredRecord, BusError>>, BusError> {
        self.free().await;
        self.inner.run_logs().await
    }

    async fn run_logs_after(&self, sequence: u64) -> Result<(Vec<StoredRecord>, u64), BusError> {
        self.free().await;
        self.inner.run_logs_after(sequence).await
    }

    async fn triggers(&self) -> Result<Triggers, BusError> {
        self.inner.triggers().await
    }

    fn is_connected(&self) -> bool {
        self.inner.is_connected()
    }
}

/// One of several.
struct One {
    orchestrator: Orchestrator,
    supervisor: Supervisor,
    hold: watch::Sender<bool>,
}

async fn start(house: &House, name: &str) -> One {
    let (bus, hold) = Line::to(&house.bus);
    let options = |options| EngineOptions { name: name.to_owned(), beside_others: true, ..options };
    let (orchestrator, supervisor) = house.start_on(bus, options).await;
    One { orchestrator, supervisor, hold }
}

fn of_project(number: usize) -> Trigger {
    Trigger { project: format!("project-{number}").parse().unwrap(), ..trigger(&format!("of {number}")) }
}

/// The log as the bus has it: who wrote each record. Its chain is whole.
async fn actors(house: &House, run: &RunId) -> Vec<String> {
    let mut previous = None;
    let mut actors = Vec::new();
    for stored in house.bus.run_log(run).await.unwrap() {
        let record: RunRecord = serde_json::from_slice(&stored.bytes).unwrap();
        assert_eq!(record.previous, previous, "the chain of {run} is whole");
        previous = Some(model::Digest::of(&stored.bytes));
        actors.push(record.actor);
    }
    actors
}

/// All of them show the run as it ended, with the log of the bus.
async fn all_show(house: &House, all: &[&One], trigger: &Trigger) -> Snapshot {
    let stored = house.bus.run_log(&trigger.run()).await.unwrap();
    let sequences: Vec<u64> = stored.iter().map(|record| record.sequence).collect();
    let mut shown = None;
    for one in all {
        let snapshot = until(&one.orchestrator, trigger, "all records", |_| {
            one.orchestrator.runs.get(&trigger.run()).is_some_and(|snapshot| snapshot.records.len() >= sequences.len())
        })
        .await;
        assert!(snapshot.records.iter().map(|record| record.sequence).eq(sequences.iter().copied()));
        let records = shown.get_or_insert(snapshot.clone());
        assert_eq!((&records.run, &records.records), (&snapshot.run, &snapshot.records));
    }
    shown.unwrap()
}

#[tokio::test]
async fn three_orchestrators_work_on_a_share_each_and_show_all_of_it() {
    const RUNS: usize = 24;
    let house = House::new(chain(&["a", "b"])).await;
    house.with_an_agent().await;
    let all = [start(&house, "one").await, start(&house, "two").await, start(&house, "three").await];
    // What comes while they are still finding each other is theirs, too.
    for number in 0..RUNS {
        all[number % 3].orchestrator.create(&of_project(number)).await.unwrap();
    }
    let mut worked = BTreeSet::new();
    for number in 0..RUNS {
        for one in &all {
            assert_eq!(outcome(&*ended(&one.orchestrator, &of_project(number)).await), Some(RunOutcome::Success));
        }
        all_show(&house, &all.each_ref(), &of_project(number)).await;
        worked.extend(actors(&house, &of_project(number).run()).await);
    }
    assert!(worked.len() > 1, "more than one has worked: {worked:?}");
    for one in all {
        one.supervisor.shut_down().await;
    }
}

#[tokio::test]
async fn whichever_is_asked_the_owner_does_it() {
    let house = House::new(Plan::new(vec![waiting("Ask", Wait::Pause)])).await;
    let all = [start(&house, "one").await, start(&house, "two").await];
    let (answered, cancelled): (Vec<Trigger>, Vec<Trigger>) = ((0..4).map(of_project).collect(), (4..8).map(of_project).collect());
    for trigger in answered.iter().chain(&cancelled) {
        all[0].orchestrator.create(trigger).await.unwrap();
    }
    for (at, trigger) in answered.iter().enumerate() {
        let asked = &all[at % 2].orchestrator;
        until(asked, trigger, "the question", |run| is_asked(run, "Ask")).await;
        asked.answer(&trigger.run(), &StageId::of("Ask"), WaitKey::Itself, Answer::Resumed, Some("ann")).await.unwrap();
    }
    for (at, trigger) in cancelled.iter().enumerate() {
        let asked = &all[at % 2].orchestrator;
        until(asked, trigger, "the question", |run| is_asked(run, "Ask")).await;
        asked.cancel(&trigger.run(), "ann", false).await.unwrap();
    }
    for one in &all {
        for (triggers, end) in [(&answered, RunOutcome::Success), (&cancelled, RunOutcome::Aborted)] {
            for trigger in triggers {
                assert_eq!(outcome(&*ended(&one.orchestrator, trigger).await), Some(end));
            }
        }
    }
    for one in all {
        one.supervisor.shut_down().await;
    }
}

#[tokio::test]
async fn one_that_ends_in_order_leaves_its_runs_to_the_others() {
    let house = House::new(chain(&["a", "b"])).await;
    let inbox = house.inbox().await;
    let (one, two) = (start(&house, "one").await, start(&house, "two").await);
    let all: Vec<Trigger> = (0..8).map(of_project).collect();
    for trigger in &all {
        one.orchestrator.create(trigger).await.unwrap();
        let known = until(&two.orchestrator, trigger, "the run", |_| true).await;
        assert_eq!(known.run.ended, None);
    }
    one.supervisor.shut_down().await;
    house.have_it_done(inbox);
    for trigger in &all {
        assert_eq!(outcome(&*ended(&two.orchestrator, trigger).await), Some(RunOutcome::Success));
        all_show(&house, &[&two], trigger).await;
        actors(&house, &trigger.run()).await;
    }
    two.supervisor.shut_down().await;
}

/// Says that the stage succeeded until another is assigned, as agents do.
async fn succeed_until_assigned(inbox: &mut Inbox, lease: &Lease) -> Lease {
    loop {
        inbox.succeed(lease).await;
        let assigned = tokio::time::timeout(Duration::from_millis(500), inbox.assignment(Some(lease))).await;
        if let Ok(assignment) = assigned {
            return assignment.lease;
        }
    }
}

#[tokio::test]
async fn what_one_that_was_cut_off_had_on_its_way_loses_and_its_locks_are_held_by_one() {
    let house = House::new(Plan::new(vec![Stage { lock: Some("production".to_owned()), ..chain(&["a"]).stages.remove(0) }])).await;
    let mut inbox = house.inbox().await;
    let all = [start(&house, "one").await, start(&house, "two").await];
    let (holds, waits) = (trigger("holds"), trigger("waits"));
    all[0].orchestrator.create(&holds).await.unwrap();
    let first = inbox.assignment(None).await;
    all[0].orchestrator.create(&waits).await.unwrap();
    let is_queued = |run: &orchestrator::core::Run| matches!(run.stages[0].status, orchestrator::core::Status::Queued { .. });
    for one in &all {
        until(&one.orchestrator, &waits, "the run to queue", is_queued).await;
    }
    // Nothing of what it says goes out any more; what it decides waits on its way.
    let owner = actors(&house, &waits.run()).await.pop().unwrap();
    let (gone, left) = if owner == "one" { (&all[0], &all[1]) } else { (&all[1], &all[0]) };
    gone.hold.send(true).unwrap();
    let second = succeed_until_assigned(&mut inbox, &first.lease).await;
    assert_eq!(second.attempt.run, waits.run());
    gone.hold.send(false).unwrap();
    // Whose run it is may change just now: an agent says it until it is acknowledged.
    while outcome(&until(&left.orchestrator, &waits, "the run", |_| true).await.run).is_none() {
        inbox.succeed(&second).await;
        let _it_ends = tokio::time::timeout(Duration::from_millis(500), ended(&left.orchestrator, &waits)).await;
    }
    for trigger in [&holds, &waits] {
        assert_eq!(outcome(&*ended(&gone.orchestrator, trigger).await), Some(RunOutcome::Success));
        assert_eq!(outcome(&*ended(&left.orchestrator, trigger).await), Some(RunOutcome::Success));
        let snapshot = all_show(&house, &[gone, left], trigger).await;
        let kinds = snapshot.records.iter().flat_map(|record| &record.record.events).map(model::event::run::RunEvent::kind);
        let kinds: Vec<&str> = kinds.collect();
        for kind in ["lock_acquired", "stage_finished", "run_finished"] {
            assert_eq!(kinds.iter().filter(|known| **known == kind).count(), 1, "{kind}: {kinds:?}");
        }
        actors(&house, &trigger.run()).await;
    }
    let empty = all_show(&house, &[gone, left], &waits).await.records.iter().filter(|record| record.record.events.is_empty()).count();
    assert_eq!(empty, 1, "who took over has said so where a stage waited for a lock");
    for one in all {
        one.supervisor.shut_down().await;
    }
}

#[tokio::test]
async fn the_same_trigger_at_each_of_them_is_one_run() {
    let house = House::new(chain(&["a"])).await;
    house.with_an_agent().await;
    let all = [start(&house, "one").await, start(&house, "two").await];
    let trigger = Trigger { id: TriggerId::of("test", "again"), ..of_project(1) };
    for at in 0..20 {
        all[at % 2].orchestrator.create(&trigger).await.unwrap();
    }
    for one in &all {
        ended(&one.orchestrator, &trigger).await;
        assert_eq!(one.orchestrator.runs.list(None, 10, |_| true).len(), 1);
    }
    for one in all {
        one.supervisor.shut_down().await;
    }
}
