//! Several orchestrators on one bus: each run is worked on by one, and all of them know it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use eventbus::{
    Bus, BusError, Pattern, StoredRecord, Subject, Subscription, Triggers,
    bus::{Backend, Stored},
};
use model::{
    RunId, RunOutcome, StageId, Timestamp, TriggerId,
    event::{
        archive::ArchivedLog,
        run::{Answer, RunRecord, WaitKey},
    },
    plan::{Newer, Plan, Stage, Wait},
    protocol::{
        agent::{AgentStatus, Lease},
        log::{LogChunk, LogHeader, LogMark, Stream},
        orchestrator::Asked,
    },
    trigger::Trigger,
};
use orchestrator::{Orchestrator, engine::EngineOptions, logs::Next, runs::Snapshot};
use service::{OnError, Supervisor};
use tokio::sync::{mpsc, watch};

use crate::house::{DEADLINE, House, Inbox, agent, chain, ended, is_asked, on_branch, outcome, trigger, until, waiting};

/// What of a line to the bus is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    Nothing,
    /// Nothing that is said or asked goes through.
    All,
    /// Records wait on their way, and nothing else does.
    Appends,
    /// The other way round.
    AllButAppends,
    /// What others have appended is not read.
    Follows,
}

/// What goes over a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Append,
    Follow,
    Other,
}

impl Hold {
    fn stops(self, kind: Kind) -> bool {
        match self {
            Self::Nothing => false,
            Self::All => true,
            Self::Appends => kind == Kind::Append,
            Self::AllButAppends => kind != Kind::Append,
            Self::Follows => kind == Kind::Follow,
        }
    }
}

/// A line to the bus that can be held, until it is let go.
#[derive(Debug)]
struct Line {
    inner: Arc<dyn Backend>,
    hold: watch::Receiver<Hold>,
    /// Records that wait on their way.
    waiting: watch::Sender<usize>,
}

impl Line {
    fn to(bus: &Bus) -> (Bus, watch::Sender<Hold>, watch::Receiver<usize>) {
        let ((sender, hold), (waiting, appends)) = (watch::channel(Hold::Nothing), watch::channel(0));
        (Bus::new(Self { inner: bus.backend(), hold, waiting }), sender, appends)
    }

    async fn free(&self, kind: Kind) {
        if kind == Kind::Append && self.hold.borrow().stops(kind) {
            self.waiting.send_modify(|waiting| *waiting += 1);
        }
        self.hold.clone().wait_for(|hold| !hold.stops(kind)).await.unwrap();
    }
}

#[async_trait]
impl Backend for Line {
    async fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), BusError> {
        self.free(Kind::Other).await;
        self.inner.publish(subject, payload).await
    }

    async fn request(&self, subject: &Subject, payload: Bytes, limit: Duration) -> Result<Bytes, BusError> {
        self.free(Kind::Other).await;
        self.inner.request(subject, payload, limit).await
    }

    async fn subscribe(&self, pattern: &Pattern, group: Option<&'static str>) -> Result<Subscription, BusError> {
        self.inner.subscribe(pattern, group).await
    }

    async fn store(&self, subject: &Subject, payload: Bytes, last: u64) -> Result<Stored, BusError> {
        self.free(Kind::Append).await;
        self.inner.store(subject, payload, last).await
    }

    async fn store_instead(&self, subject: &Subject, payload: Bytes, last: u64) -> Result<Stored, BusError> {
        self.free(Kind::Append).await;
        self.inner.store_instead(subject, payload, last).await
    }

    async fn last(&self, subject: &Subject) -> Result<Option<(u64, Bytes)>, BusError> {
        self.free(Kind::Other).await;
        self.inner.last(subject).await
    }

    async fn run_log(&self, run: &RunId) -> Result<Vec<StoredRecord>, BusError> {
        self.free(Kind::Other).await;
        self.inner.run_log(run).await
    }

    async fn run_logs(&self) -> Result<mpsc::Receiver<Result<StoredRecord, BusError>>, BusError> {
        self.free(Kind::Other).await;
        self.inner.run_logs().await
    }

    async fn run_logs_after(&self, sequence: u64) -> Result<(Vec<StoredRecord>, u64), BusError> {
        self.free(Kind::Follow).await;
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
    hold: watch::Sender<Hold>,
    /// Records of it that wait on their way.
    waiting: watch::Receiver<usize>,
}

async fn start(house: &House, name: &str) -> One {
    start_with(house, name, |options| options).await
}

async fn start_with(house: &House, name: &str, change: impl FnOnce(EngineOptions) -> EngineOptions) -> One {
    let (bus, hold, waiting) = Line::to(&house.bus);
    let options = |options| change(EngineOptions { name: name.to_owned(), beside_others: true, ..options });
    let (orchestrator, supervisor) = house.start_on(bus, options).await;
    One { orchestrator, supervisor, hold, waiting }
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
    gone.hold.send(Hold::All).unwrap();
    let second = succeed_until_assigned(&mut inbox, &first.lease).await;
    assert_eq!(second.attempt.run, waits.run());
    gone.hold.send(Hold::Nothing).unwrap();
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

/// A run of the branch, so that its orchestrator is known: that one first, and the other.
async fn owner_first<'a>(house: &House, inbox: &mut Inbox, all: &'a [One; 2]) -> (&'a One, &'a One, Lease) {
    let warm = on_branch("warm", "main");
    all[0].orchestrator.create(&warm).await.unwrap();
    let lease = inbox.assignment(None).await.lease;
    inbox.succeed(&lease).await;
    for one in all {
        ended(&one.orchestrator, &warm).await;
    }
    let (one, other) = (&all[0], &all[1]);
    if actors(house, &warm.run()).await.pop().unwrap() == "one" { (one, other, lease) } else { (other, one, lease) }
}

/// Tells the orchestrators of a trigger that no stream delivers, until there is a run.
async fn hand_in(house: &House, trigger: &Trigger) {
    let is_begun = async {
        while house.bus.run_log(&trigger.run()).await.unwrap().is_empty() {
            let asked = Asked::Trigger { trigger: Box::new(trigger.clone()) };
            house.bus.publish(&Subject::orchestrators_asked(), &asked).await.unwrap();
            let _again = tokio::time::timeout(Duration::from_millis(200), std::future::pending::<()>()).await;
        }
    };
    tokio::time::timeout(DEADLINE, is_begun).await.expect("the run begins");
}

/// Has the owner take up the trigger, and cuts it off before its first record is stored.
async fn cut_off_with(house: &House, owner: &One, trigger: &Trigger) {
    owner.hold.send(Hold::Appends).unwrap();
    let asked = Asked::Trigger { trigger: Box::new(trigger.clone()) };
    house.bus.publish(&Subject::orchestrators_asked(), &asked).await.unwrap();
    tokio::time::timeout(DEADLINE, owner.waiting.clone().wait_for(|waiting| *waiting > 0)).await.unwrap().unwrap();
    owner.hold.send(Hold::All).unwrap();
}

/// Where the kind of event stands in the stream, each time.
async fn places(house: &House, run: &RunId, kind: &str) -> Vec<u64> {
    let mut places = Vec::new();
    for stored in house.bus.run_log(run).await.unwrap() {
        let record: RunRecord = serde_json::from_slice(&stored.bytes).unwrap();
        places.extend(record.events.iter().filter(|event| event.kind() == kind).map(|_| stored.sequence));
    }
    places
}

/// The agent goes on to say that it has the attempt, as agents do.
fn keep(house: &House, lease: &Lease) {
    let (bus, leases) = (house.bus.clone(), vec![lease.clone()]);
    house.others.spawn("status", OnError::Log, async move {
        let mut beats = tokio::time::interval(Duration::from_secs(1));
        for number in 1.. {
            beats.tick().await;
            let status = AgentStatus {
                agent: agent(),
                slots: 2,
                slots_free: 1,
                price_micros_per_s: 0,
                facts: [].into(),
                leases: leases.clone(),
                number,
            };
            bus.publish(&Subject::status(&agent()), &status).await?;
        }
        Ok(())
    });
}

/// Both runs end, and nothing of the newer one began before the older one's end.
async fn end_in_a_row(house: &House, inbox: &mut Inbox, all: &[One; 2], (older, first): (&Trigger, Lease), newer: &Trigger) {
    let second = succeed_until_assigned(inbox, &first).await;
    assert_eq!(second.attempt.run, newer.run());
    for one in all {
        while outcome(&until(&one.orchestrator, newer, "the run", |_| true).await.run).is_none() {
            inbox.succeed(&second).await;
            let _it_ends = tokio::time::timeout(Duration::from_millis(500), ended(&one.orchestrator, newer)).await;
        }
    }
    let over = places(house, &older.run(), "run_finished").await;
    assert_eq!(places(house, &newer.run(), "run_held").await.len(), 1);
    let begun = places(house, &newer.run(), "stage_ready").await;
    assert!(begun.iter().all(|begun| *begun > over[0]), "{begun:?} {over:?}");
    for run in [older.run(), newer.run()] {
        actors(house, &run).await;
    }
}

#[tokio::test]
async fn a_first_record_that_comes_late_does_not_begin_a_run_beside_one_that_it_must_wait_for() {
    let house = House::new(Plan { newer: Some(Newer::Wait), ..chain(&["a"]) }).await;
    let mut inbox = house.inbox().await;
    let all = [start(&house, "one").await, start(&house, "two").await];
    let (gone, left, warm) = owner_first(&house, &mut inbox, &all).await;
    let (late, first) = (on_branch("late", "main"), on_branch("first", "main"));
    cut_off_with(&house, gone, &late).await;
    // The other one takes over, and begins a run of the same branch: it knows of none.
    hand_in(&house, &first).await;
    let lease = inbox.assignment(Some(&warm)).await.lease;
    assert_eq!(lease.attempt.run, first.run());
    keep(&house, &lease);
    gone.hold.send(Hold::Nothing).unwrap();
    until(&left.orchestrator, &late, "that it waits", |run| run.held == Some(first.run())).await;
    end_in_a_row(&house, &mut inbox, &all, (&first, lease), &late).await;
    for one in all {
        one.supervisor.shut_down().await;
    }
}

#[tokio::test]
async fn a_run_does_not_begin_before_it_is_known_which_were_begun_before_it() {
    let house = House::new(Plan { newer: Some(Newer::Wait), ..chain(&["a"]) }).await;
    let mut inbox = house.inbox().await;
    let all = [start(&house, "one").await, start(&house, "two").await];
    let (gone, left, warm) = owner_first(&house, &mut inbox, &all).await;
    let (late, next) = (on_branch("late", "main"), on_branch("next", "main"));
    cut_off_with(&house, gone, &late).await;
    // The other one works on the project as soon as it takes up runs of it.
    let other = on_branch("other", "another");
    hand_in(&house, &other).await;
    let lease = inbox.assignment(Some(&warm)).await.lease;
    assert_eq!(lease.attempt.run, other.run());
    keep(&house, &lease);
    // From now on it does not see what the former one appends, and what it has on its way is stored.
    left.hold.send(Hold::Follows).unwrap();
    gone.hold.send(Hold::AllButAppends).unwrap();
    let is_stored = async {
        while house.bus.run_log(&late.run()).await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, is_stored).await.unwrap();
    hand_in(&house, &next).await;
    left.hold.send(Hold::Nothing).unwrap();
    until(&left.orchestrator, &next, "that it waits", |run| run.held == Some(late.run())).await;
    let first = succeed_until_assigned(&mut inbox, &lease).await;
    assert_eq!(first.attempt.run, late.run());
    keep(&house, &first);
    gone.hold.send(Hold::Nothing).unwrap();
    end_in_a_row(&house, &mut inbox, &all, (&late, first), &next).await;
    for one in all {
        one.supervisor.shut_down().await;
    }
}

#[tokio::test]
async fn output_that_comes_before_its_award_was_read_is_there_as_soon_as_it_is() {
    let house = House::new(chain(&["a"])).await;
    let mut inbox = house.inbox().await;
    let all = [start(&house, "one").await, start(&house, "two").await];
    let (_, follower, warm) = owner_first(&house, &mut inbox, &all).await;
    follower.hold.send(Hold::Follows).unwrap();
    let run = on_branch("said", "main");
    hand_in(&house, &run).await;
    let lease = inbox.assignment(Some(&warm)).await.lease;
    // It says it once.
    let mark = LogMark { offset: 0, length: 6, step: 0, stream: Stream::Out, at: Timestamp(1), lines_before: 0 };
    let chunk = LogChunk { header: LogHeader { lease: lease.clone(), mark, segments: vec![] }, bytes: b"hello\n".to_vec() };
    let subject = Subject::log(&agent(), &lease.attempt.run, &lease.attempt.stage);
    house.bus.publish_bytes(&subject, chunk.encode().into()).await.unwrap();
    follower.hold.send(Hold::Nothing).unwrap();
    let mut news = follower.orchestrator.logs.follow();
    let is_heard = async {
        while follower.orchestrator.logs.next(&lease, 0) == Next::Nothing {
            let _news = tokio::time::timeout(Duration::from_millis(50), news.recv()).await;
        }
    };
    tokio::time::timeout(DEADLINE, is_heard).await.expect("what was said once is shown");
    let Next::Chunks(chunks) = follower.orchestrator.logs.next(&lease, 0) else { panic!("it was heard") };
    assert_eq!(chunks[0].bytes, b"hello\n");
    // What another says of it does not count, before or after.
    let stranger = Subject::log(&"two".parse().unwrap(), &lease.attempt.run, &lease.attempt.stage);
    let forged =
        LogChunk { header: LogHeader { mark: LogMark { offset: 6, ..chunk.header.mark.clone() }, ..chunk.header.clone() }, ..chunk };
    house.bus.publish_bytes(&stranger, forged.encode().into()).await.unwrap();
    inbox.succeed(&lease).await;
    ended(&follower.orchestrator, &run).await;
    assert_eq!(follower.orchestrator.logs.next(&lease, 6), Next::Nothing);
    for one in all {
        one.supervisor.shut_down().await;
    }
}

#[tokio::test]
async fn logs_of_ended_runs_are_put_away_also_those_that_one_that_is_gone_would_have() {
    const RUNS: usize = 24;
    let house = House::new(chain(&["a"])).await;
    house.with_an_agent().await;
    let puts_away = |options| EngineOptions { ended_runs_max: 1, puts_away: true, ..options };
    let [one, two] = [start_with(&house, "one", puts_away).await, start_with(&house, "two", puts_away).await];
    for number in 0..RUNS {
        one.orchestrator.create(&of_project(number)).await.unwrap();
    }
    let log = async |number: usize| house.bus.run_log(&of_project(number).run()).await.unwrap();
    let is_away = |log: &[StoredRecord]| matches!(log, [one] if serde_json::from_slice::<ArchivedLog>(&one.bytes).is_ok());
    let ends = |record: &StoredRecord| String::from_utf8_lossy(&record.bytes).contains("run_finished");
    let all = async |is: &dyn Fn(&[StoredRecord]) -> bool, but: usize| {
        let mut left = RUNS;
        while left > but {
            left = 0;
            for number in 0..RUNS {
                left += usize::from(!is(&log(number).await));
            }
            let _again = tokio::time::timeout(Duration::from_millis(50), std::future::pending::<()>()).await;
        }
    };
    tokio::time::timeout(DEADLINE, all(&|log| is_away(log) || log.iter().any(ends), 0)).await.expect("all runs end");
    one.supervisor.shut_down().await;
    // The newest one stays in memory, and in the stream.
    tokio::time::timeout(DEADLINE, all(&is_away, 1)).await.expect("their logs go to the depot");
    two.supervisor.shut_down().await;
}
