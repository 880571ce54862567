//! What runs wait for without an agent: people, the outside, time, locks and other runs; also over a restart.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use model::{
    RunOutcome, StageId, StageOutcome, Timestamp,
    event::run::{Answer, RunEvent, WaitKey},
    plan::{Newer, Plan, Value, Wait},
    protocol::agent::{AgentCommand, AgentStatus, Report},
    trigger::Trigger,
};
use orchestrator::{CommandError, Orchestrator, runs::Snapshot};

use crate::house::{House, after, agent, chain, ended, ended_within, is_asked, on_branch, outcome, trigger, until, waiting};

fn confirm() -> Wait {
    Wait::Confirm { message: Value::from("Ship it?"), by: Vec::new(), timeout_ms: None }
}

fn webhook() -> Wait {
    Wait::Webhook { description: Value::from("the scanner"), timeout_ms: None }
}

fn delivery(snapshot: &Snapshot, stage: &str) -> model::Digest {
    let at = snapshot.run.shape.find(&StageId::of(stage)).unwrap();
    orchestrator::core::wait::delivery(&snapshot.run, at, WaitKey::Itself)
}

#[tokio::test]
async fn a_person_approves_this_delivery_and_no_other() {
    let house = House::new(Plan::new(vec![waiting("Ship", confirm())])).await;
    let (first, supervisor) = house.start().await;
    let trigger = trigger("1");
    first.create(&trigger).await.unwrap();
    let snapshot = until(&first, &trigger, "the question", |run| is_asked(run, "Ship")).await;
    supervisor.shut_down().await;
    let (second, supervisor) = house.start().await;
    let (run, stage) = (trigger.run(), StageId::of("Ship"));
    let approve = |delivery| Answer::Approved { delivery };
    let other = second.answer(&run, &stage, WaitKey::Itself, approve(model::Digest::of(b"another")), Some("ann")).await;
    assert!(matches!(other, Err(CommandError::Unfit { .. })), "{other:?}");
    let delivery = delivery(&snapshot, "Ship");
    second.answer(&run, &stage, WaitKey::Itself, approve(delivery), Some("ann")).await.unwrap();
    assert_eq!(outcome(&*ended(&second, &trigger).await), Some(RunOutcome::Success));
    let again = async |by| second.answer(&run, &stage, WaitKey::Itself, approve(delivery), Some(by)).await;
    assert!(again("ann").await.is_ok(), "the word that it was taken may have been lost");
    let late = again("bob").await;
    assert!(matches!(late, Err(CommandError::Unfit { .. })), "{late:?}");
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_thousand_gates_and_timers_survive_a_restart_and_fire_once() {
    const EACH: usize = 500;
    // Longer than both lives of the engine take to begin.
    let timer = |number: usize| waiting(&format!("timer {number}"), Wait::Time { ms: 8_000 + (number as u64 % 10) * 100 });
    let gate = |number: usize| waiting(&format!("gate {number}"), Wait::Pause);
    let plan = Plan::new((0..EACH).map(timer).chain((0..EACH).map(gate)).collect());
    let house = House::new(plan).await;
    let (first, supervisor) = house.start().await;
    let trigger = trigger("1");
    first.create(&trigger).await.unwrap();
    until(&first, &trigger, "a thousand waits", |run| run.held_up.len() == 2 * EACH).await;
    supervisor.shut_down().await;
    let (second, supervisor) = house.start().await;
    let run = trigger.run();
    for number in 0..EACH {
        let stage = StageId::of(&format!("gate {number}"));
        second.answer(&run, &stage, WaitKey::Itself, Answer::Resumed, Some("ann")).await.unwrap();
    }
    let run = ended_within(&second, &trigger, Duration::from_mins(2)).await;
    assert_eq!(outcome(&run), Some(RunOutcome::Success));
    let records = second.runs.get(&run.id).unwrap().records;
    let events = || records.iter().flat_map(|record| &record.record.events);
    let count = |is: fn(&RunEvent) -> bool| events().filter(|event| is(event)).count();
    assert_eq!(count(|event| matches!(event, RunEvent::WaitOpened { .. })), 2 * EACH);
    assert_eq!(count(|event| matches!(event, RunEvent::WaitAnswered { answer: Answer::Elapsed, .. })), EACH);
    assert_eq!(count(|event| matches!(event, RunEvent::WaitAnswered { answer: Answer::Resumed, .. })), EACH);
    let early =
        records.iter().flat_map(|record| record.record.events.iter().map(|event| (record.record.at, event))).filter(|(at, event)| {
            let RunEvent::WaitAnswered { stage, answer: Answer::Elapsed, .. } = event else { return false };
            let (_, stage) = run.stage(stage).unwrap();
            stage.waits[&WaitKey::Itself].opened.as_ref().unwrap().due_at.is_none_or(|due| *at < due)
        });
    assert_eq!(early.count(), 0, "none fires before its time");
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_webhook_is_called_once_also_before_it_is_waited_for_and_after_a_restart() {
    let mut plan = chain(&["Build"]);
    plan.stages.push(after(waiting("Scan", webhook()), "Build"));
    let house = House::new(plan).await;
    let mut inbox = house.inbox().await;
    let with_base = |options| orchestrator::engine::EngineOptions { callback_base: Some("https://otto.test/".to_owned()), ..options };
    let (first, supervisor) = house.start_with(with_base).await;
    let trigger = trigger("1");
    first.create(&trigger).await.unwrap();
    let build = inbox.assignment(None).await;
    let [callback] = build.callbacks.as_slice() else { panic!("{:?}", build.callbacks) };
    assert_eq!(callback.description, "the scanner");
    let secret = callback.url.strip_prefix("https://otto.test/v1/callbacks/").unwrap();
    supervisor.shut_down().await;
    let (second, supervisor) = house.start_with(with_base).await;
    assert!(matches!(second.call_back(&format!("{secret}0")).await, Err(CommandError::UnknownCallback)));
    second.call_back(secret).await.unwrap();
    assert!(matches!(second.call_back(secret).await, Err(CommandError::Unfit { .. })), "once");
    inbox.succeed(&build.lease).await;
    assert_eq!(outcome(&*ended(&second, &trigger).await), Some(RunOutcome::Success));
    supervisor.shut_down().await;
}

/// Answers 503 some times, and then 200; counts the questions.
fn server(unready: usize) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/health", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _request = stream.read(&mut [0; 1024]);
            let status = if count.fetch_add(1, Ordering::Relaxed) < unready { "503 Service Unavailable" } else { "200 OK" };
            let _closed = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    (url, asked)
}

fn poll(url: &str, timeout_ms: u64) -> Wait {
    Wait::Poll { url: Value::from(url), status: 200, every_ms: 100, timeout_ms }
}

#[tokio::test]
async fn an_address_is_asked_until_it_answers_as_expected() {
    let (url, asked) = server(3);
    let house = House::new(Plan::new(vec![waiting("Up", poll(&url, 60_000))])).await;
    let (orchestrator, supervisor) = house.start().await;
    let trigger = trigger("1");
    orchestrator.create(&trigger).await.unwrap();
    assert_eq!(outcome(&*ended(&orchestrator, &trigger).await), Some(RunOutcome::Success));
    assert_eq!(asked.load(Ordering::Relaxed), 4);
    supervisor.shut_down().await;
}

#[tokio::test]
async fn an_address_that_may_not_be_asked_is_not_and_its_time_ends() {
    let (url, asked) = server(0);
    let house = House::new(Plan::new(vec![waiting("Up", poll(&url, 500))])).await;
    let reach = orchestrator::engine::Reach::Public;
    let (orchestrator, supervisor) = house.start_with(|options| orchestrator::engine::EngineOptions { reach, ..options }).await;
    let trigger = trigger("1");
    orchestrator.create(&trigger).await.unwrap();
    assert_eq!(outcome(&*ended(&orchestrator, &trigger).await), Some(RunOutcome::Failure));
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    supervisor.shut_down().await;
}

fn locked() -> Plan {
    let mut plan = chain(&["Deploy"]);
    plan.stages[0].lock = Some("production".to_owned());
    plan
}

#[tokio::test]
async fn a_lock_is_held_by_one_and_goes_to_who_came_first_also_after_a_restart() {
    let house = House::new(locked()).await;
    let mut inbox = house.inbox().await;
    let (mut engine, mut supervisor) = house.start().await;
    let triggers: Vec<Trigger> = (0..4).map(|number| trigger(&number.to_string())).collect();
    for trigger in &triggers {
        engine.create(trigger).await.unwrap();
        until(&engine, trigger, "its place", |run| !run.held_up.is_empty() || !run.active.is_empty()).await;
    }
    let mut before = None;
    for (number, trigger) in triggers.iter().enumerate() {
        let assignment = inbox.assignment(before.as_ref()).await;
        assert_eq!(assignment.lease.attempt.run, trigger.run(), "the {number}th");
        let active: usize = engine.runs.open().iter().map(|run| run.active.len()).sum();
        assert_eq!(active, 1);
        if number == 1 {
            supervisor.shut_down().await;
            (engine, supervisor) = house.start().await;
        }
        inbox.succeed(&assignment.lease).await;
        ended(&engine, trigger).await;
        before = Some(assignment.lease);
    }
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_holder_of_a_lock_is_told_which_status_renewed_it() {
    let house = House::new(locked()).await;
    let mut inbox = house.inbox().await;
    let (orchestrator, supervisor) = house.start().await;
    orchestrator.create(&trigger("1")).await.unwrap();
    let lease = inbox.assignment(None).await.lease;
    inbox.report(&lease, Report::Started { at: Timestamp(1) }).await;
    let leases = vec![lease.clone()];
    let status =
        AgentStatus { agent: agent(), slots: 1, slots_free: 0, price_micros_per_s: 0, facts: [].into(), leases: leases.clone(), number: 7 };
    house.bus.publish(&eventbus::Subject::status(&agent()), &status).await.unwrap();
    loop {
        if let AgentCommand::Renewed { status, leases: renewed } = inbox.next().await {
            assert_eq!((status, renewed), (7, leases));
            break;
        }
    }
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_newer_run_takes_the_place_of_older_ones_of_its_branch() {
    let house = House::new(Plan { newer: Some(Newer::Cancel), ..Plan::new(vec![waiting("Hold", Wait::Pause)]) }).await;
    let (orchestrator, supervisor) = house.start().await;
    let (older, newer) = (on_branch("1", "main"), on_branch("2", "main"));
    let other = on_branch("3", "topic");
    for trigger in [&other, &older, &newer] {
        orchestrator.create(trigger).await.unwrap();
        until(&orchestrator, trigger, "its begin", |run| is_asked(run, "Hold")).await;
    }
    assert_eq!(outcome(&*ended(&orchestrator, &older).await), Some(RunOutcome::Aborted));
    for trigger in [&other, &newer] {
        assert!(orchestrator.runs.get(&trigger.run()).unwrap().run.cancelled.is_none());
    }
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_newer_run_takes_the_place_of_an_older_one_that_began_in_an_earlier_life() {
    let house = House::new(Plan { newer: Some(Newer::Cancel), ..Plan::new(vec![waiting("Hold", Wait::Pause)]) }).await;
    let (first, supervisor) = house.start().await;
    let (older, newer) = (on_branch("1", "main"), on_branch("2", "main"));
    first.create(&older).await.unwrap();
    until(&first, &older, "its begin", |run| is_asked(run, "Hold")).await;
    supervisor.shut_down().await;
    house.bus.store_trigger(&newer).await.unwrap();
    let (second, supervisor) = house.start().await;
    assert_eq!(outcome(&*ended(&second, &older).await), Some(RunOutcome::Aborted));
    until(&second, &newer, "its begin", |run| is_asked(run, "Hold")).await;
    supervisor.shut_down().await;
    // What was decided is not decided again.
    let (third, supervisor) = house.start().await;
    let records = house.bus.run_log(&older.run()).await.unwrap().len();
    third.answer(&newer.run(), &StageId::of("Hold"), WaitKey::Itself, Answer::Resumed, None).await.unwrap();
    assert_eq!(outcome(&*ended(&third, &newer).await), Some(RunOutcome::Success));
    assert_eq!(house.bus.run_log(&older.run()).await.unwrap().len(), records);
    supervisor.shut_down().await;
}

#[tokio::test]
async fn newer_runs_that_wait_go_on_one_after_the_other_also_after_a_restart() {
    let house = House::new(Plan { newer: Some(Newer::Wait), ..Plan::new(vec![waiting("Hold", Wait::Pause)]) }).await;
    let (first, supervisor) = house.start().await;
    let triggers: Vec<Trigger> = (0..3).map(|number| on_branch(&number.to_string(), "main")).collect();
    for trigger in &triggers {
        first.create(trigger).await.unwrap();
        until(&first, trigger, "its begin", |_| true).await;
    }
    let resume = async |engine: &Orchestrator, trigger: &Trigger| {
        until(engine, trigger, "its turn", |run| is_asked(run, "Hold")).await;
        engine.answer(&trigger.run(), &StageId::of("Hold"), WaitKey::Itself, Answer::Resumed, None).await.unwrap();
        ended(engine, trigger).await;
    };
    assert_eq!(first.runs.get(&triggers[2].run()).unwrap().run.held, Some(triggers[1].run()));
    resume(&first, &triggers[0]).await;
    supervisor.shut_down().await;
    let (second, supervisor) = house.start().await;
    until(&second, &triggers[1], "its turn", |run| is_asked(run, "Hold")).await;
    assert!(second.runs.get(&triggers[2].run()).unwrap().run.held.is_some());
    resume(&second, &triggers[1]).await;
    resume(&second, &triggers[2]).await;
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_failed_stage_is_started_again_after_its_pause() {
    let mut plan = chain(&["Flaky"]);
    let on = vec![model::plan::RetryReason::Failed];
    plan.stages[0].retry = Some(model::plan::Retry { attempts: 2, backoff_ms: 300, on });
    let house = House::new(plan).await;
    let mut inbox = house.inbox().await;
    let (orchestrator, supervisor) = house.start().await;
    let trigger = trigger("1");
    orchestrator.create(&trigger).await.unwrap();
    let first = inbox.assignment(None).await;
    let failed = Report::Finished {
        outcome: StageOutcome::Failure,
        reason: None,
        started_at: None,
        finished_at: Timestamp(2),
        outputs: model::event::run::Outputs::default(),
    };
    inbox.report(&first.lease, failed).await;
    let second = inbox.assignment(Some(&first.lease)).await;
    assert_eq!(second.lease.attempt.attempt, 2);
    inbox.succeed(&second.lease).await;
    assert_eq!(outcome(&*ended(&orchestrator, &trigger).await), Some(RunOutcome::Success));
    supervisor.shut_down().await;
}
