//! Logs of ended runs in the depot: nothing of them is lost, and they are named where they are damaged.

use std::slice;

use bytes::Bytes;
use eventbus::Bus;
use model::{
    RunId, StageOutcome,
    event::{
        archive::ArchivedLog,
        run::{Outputs, RunRecord},
    },
    protocol::agent::Report,
    trigger::Trigger,
};
use orchestrator::{
    CommandError, Orchestrator,
    engine::EngineOptions,
    fsck::{Depth, check},
    runs::Snapshot,
    views::{Action, AuditFilter, RunFilter},
};
use serde_json::json;
use service::Supervisor;
use tokio::{task::yield_now, time::timeout};

use crate::house::{DEADLINE, House, Inbox, chain, ended, ended_run, refusal, trigger};

async fn start(house: &House) -> (Orchestrator, Supervisor) {
    house.start_with(|options| EngineOptions { ended_runs_max: 1, puts_away: true, ..options }).await
}

async fn deliver(orchestrator: &Orchestrator, inbox: &mut Inbox, trigger: &Trigger) -> model::protocol::agent::Lease {
    orchestrator.create(trigger).await.unwrap();
    let lease = loop {
        let assignment = inbox.assignment(None).await;
        if assignment.lease.attempt.run == trigger.run() {
            break assignment.lease;
        }
    };
    inbox.finish(&lease, StageOutcome::Success, Outputs::default()).await;
    ended(orchestrator, trigger).await;
    lease
}

/// What stands for the run's log, as soon as something does.
async fn archived(bus: &Bus, run: &RunId) -> ArchivedLog {
    let is_put_away = async {
        loop {
            if let [one] = &bus.run_log(run).await.unwrap()[..]
                && let Ok(archived) = serde_json::from_slice(&one.bytes)
            {
                return archived;
            }
            yield_now().await;
        }
    };
    timeout(DEADLINE, is_put_away).await.expect("the log goes to the depot")
}

#[tokio::test]
async fn a_run_whose_log_was_put_away_is_shown_followed_listed_and_run_again() {
    let house = House::new(chain(&["Build"])).await;
    let mut inbox = house.inbox().await;
    let (orchestrator, supervisor) = start(&house).await;
    let api = house.serve(&orchestrator);
    deliver(&orchestrator, &mut inbox, &trigger("1")).await;
    let run = trigger("1").run();
    let path = format!("/v1/runs/{run}");
    let (_, shown) = api.get(&path).await;
    let (_, events) = api.get(&format!("{path}/events")).await;
    deliver(&orchestrator, &mut inbox, &trigger("2")).await;
    let stands = archived(&house.bus, &run).await;
    assert!(stands.segments.len() == 1 && stands.segments[0].records > 1, "{stands:?}");
    for life in 1..=2 {
        assert!(orchestrator.runs.get(&run).is_none());
        assert_eq!(api.get(&path).await, (200, shown.clone()), "life {life}");
        assert_eq!(api.get(&format!("{path}/events")).await.1, events);
        let (status, text) = api.get(&format!("{path}/events/follow")).await;
        assert!(status == 200 && text.to_string().contains("event: end"), "{text}");
    }
    // The same delivery again is the same run.
    assert_eq!(orchestrator.create(&trigger("1")).await.unwrap(), run);
    supervisor.shut_down().await;

    // The next life finds it, and lists it without a file of lists.
    let (second, supervisor) = start(&house).await;
    let api = house.serve(&second);
    assert_eq!(api.get(&path).await, (200, shown));
    let listed = async {
        while !second.runs.search(RunFilter::default(), None, 10).await.is_ok_and(|found| found.len() == 2) {
            yield_now().await;
        }
    };
    timeout(DEADLINE, listed).await.expect("both are listed");
    let deeds = second.runs.views().audit(AuditFilter { run: Some(run.clone()), ..AuditFilter::default() }, None, 10).await.unwrap();
    assert!(matches!(&deeds[..], [deed] if matches!(deed.action, Action::Started { .. })), "{deeds:?}");
    let (status, again) = api.post(&format!("{path}/rerun"), &json!({})).await;
    assert_eq!(status, 201, "{again}");
    let again: RunId = again["run"].as_str().unwrap().parse().unwrap();
    let lease = loop {
        let assignment = inbox.assignment(None).await;
        if assignment.lease.attempt.run == again {
            break assignment.lease;
        }
    };
    inbox.succeed(&lease).await;
    ended_run(&second, &again).await;
    supervisor.shut_down().await;
}

#[tokio::test]
async fn what_an_agent_says_late_is_appended_behind_what_was_put_away_and_that_is_put_away_again() {
    let house = House::new(chain(&["Build"])).await;
    let mut inbox = house.inbox().await;
    let (orchestrator, supervisor) = start(&house).await;
    let lease = deliver(&orchestrator, &mut inbox, &trigger("1")).await;
    let run = trigger("1").run();
    deliver(&orchestrator, &mut inbox, &trigger("2")).await;
    let first = archived(&house.bus, &run).await;
    let log = model::event::run::StoredLog { segments: vec![], length: 0 };
    let is_again = async {
        loop {
            inbox.report(&lease, Report::LogStored { log: log.clone() }).await;
            match &house.bus.run_log(&run).await.unwrap()[..] {
                [one] if serde_json::from_slice::<ArchivedLog>(&one.bytes).is_ok_and(|archived| archived != first) => return,
                _ => yield_now().await,
            }
        }
    };
    timeout(DEADLINE, is_again).await.expect("it is put away again");
    let second = archived(&house.bus, &run).await;
    assert_eq!(second.segments[..1], first.segments, "what lies in the depot stays there");
    assert_eq!(second.segments[1].records, 2, "what stood for it, and the late word");
    let found = orchestrator.find(&run).await.unwrap().unwrap();
    assert_eq!(found.run.stages[0].attempts[0].log, Some(log));
    supervisor.shut_down().await;
}

/// Another bus, with these messages as the log of a run; the depot is the same.
async fn elsewhere(house: &House, run: &RunId, log: &[Bytes]) -> House {
    let bus = eventbus::memory::bus();
    let mut last = 0;
    for bytes in log {
        last = bus.append(run, last, bytes.clone()).await.unwrap();
    }
    let mut elsewhere = House::on(bus, chain(&["Build"])).await;
    elsewhere.blobs = house.blobs.clone();
    elsewhere
}

fn records_of(snapshot: &Snapshot) -> Vec<RunRecord> {
    snapshot.records.iter().map(|appended| appended.record.clone()).collect()
}

#[tokio::test]
async fn after_a_crash_at_any_point_of_it_the_run_is_whole_and_is_put_away() {
    let house = House::new(chain(&["Build"])).await;
    let mut inbox = house.inbox().await;
    let (orchestrator, supervisor) = house.start().await;
    deliver(&orchestrator, &mut inbox, &trigger("1")).await;
    let run = trigger("1").run();
    let expected = records_of(&orchestrator.runs.get(&run).unwrap());
    supervisor.shut_down().await;
    let log: Vec<_> = house.bus.run_log(&run).await.unwrap().into_iter().map(|record| record.bytes).collect();
    let (_, supervisor) = house.start_with(|options| EngineOptions { ended_runs_max: 0, puts_away: true, ..options }).await;
    archived(&house.bus, &run).await;
    supervisor.shut_down().await;
    let stands = house.bus.run_log(&run).await.unwrap().pop().unwrap();

    // The parts are stored and nothing else; what stands for the log is stored and the log is not gone; or not all of it is.
    assert!(log.len() > 2, "{}", log.len());
    let remnants = [&log[..0], &log[..1], &log[1..], &log[1..2], &log[..log.len() - 1], &log[log.len() - 1..], &log[..]];
    let with_remnants = remnants.map(|left| [left, slice::from_ref(&stands.bytes)].concat());
    for left in [log.clone()].into_iter().chain(with_remnants) {
        let after = elsewhere(&house, &run, &left).await;
        let report = check(&after.bus, &after.blobs, Depth::Bytes).await.unwrap();
        assert!(report.is_sound() && report.runs == 1 && report.open == 0, "{report:?}");
        let (orchestrator, supervisor) = after.start().await;
        assert_eq!(records_of(&orchestrator.find(&run).await.unwrap().unwrap()), expected);
        assert_eq!(orchestrator.create(&trigger("1")).await.unwrap(), run);
        supervisor.shut_down().await;
        let (orchestrator, supervisor) = after.start_with(|options| EngineOptions { ended_runs_max: 0, puts_away: true, ..options }).await;
        archived(&after.bus, &run).await;
        assert_eq!(records_of(&orchestrator.find(&run).await.unwrap().unwrap()), expected);
        supervisor.shut_down().await;
        let report = check(&after.bus, &after.blobs, Depth::Bytes).await.unwrap();
        assert!(report.is_sound() && report.archived == 1, "{report:?}");
    }
}

#[tokio::test]
async fn of_two_orchestrators_that_put_the_same_logs_away_each_is_put_away_once_and_found_all_the_time() {
    const RUNS: usize = 6;
    let house = House::new(chain(&["Build"])).await;
    let mut inbox = house.inbox().await;
    let (orchestrator, supervisor) = house.start().await;
    let triggers: Vec<_> = (0..RUNS).map(|number| trigger(&number.to_string())).collect();
    for trigger in &triggers {
        deliver(&orchestrator, &mut inbox, trigger).await;
    }
    supervisor.shut_down().await;
    let none_stays = |options| EngineOptions { ended_runs_max: 0, puts_away: true, ..options };
    let ((one, first), (other, second)) = tokio::join!(house.start_with(none_stays), house.start_with(none_stays));
    let (reader, third) = house.start_with(|options| EngineOptions { ended_runs_max: 0, ..options }).await;
    for run in triggers.iter().map(Trigger::run) {
        let is_found = async {
            loop {
                let found = reader.find(&run).await.unwrap().unwrap();
                assert!(found.run.ended.is_some(), "{run}");
                yield_now().await;
            }
        };
        let stands = tokio::select! {
            stands = archived(&house.bus, &run) => stands,
            () = is_found => unreachable!("it is looked for all the time"),
        };
        assert_eq!(stands.segments.len(), 1, "{stands:?}");
        for orchestrator in [&one, &other] {
            assert!(orchestrator.find(&run).await.unwrap().unwrap().run.ended.is_some());
        }
    }
    for supervisor in [first, second, third] {
        supervisor.shut_down().await;
    }
    let report = check(&house.bus, &house.blobs, Depth::Bytes).await.unwrap();
    assert!(report.is_sound() && report.archived == RUNS, "{report:?}");
}

#[tokio::test]
async fn a_log_whose_part_the_depot_has_lost_is_named() {
    let house = House::new(chain(&["Build"])).await;
    let mut inbox = house.inbox().await;
    let (orchestrator, supervisor) = start(&house).await;
    let api = house.serve(&orchestrator);
    for number in ["1", "2"] {
        deliver(&orchestrator, &mut inbox, &trigger(number)).await;
    }
    let run = trigger("1").run();
    let part = archived(&house.bus, &run).await.segments.remove(0).bytes;
    house.lose(&part);
    let lost = orchestrator.find(&run).await.unwrap_err();
    assert!(matches!(&lost, CommandError::Damaged { damage, .. } if damage.why.contains(&part.to_string())), "{lost:?}");
    assert_eq!(refusal(api.get(&format!("/v1/runs/{run}")).await), (409, "run_damaged".to_owned()));
    supervisor.shut_down().await;
}

#[tokio::test]
async fn who_was_away_while_a_log_was_put_away_is_told_of_each_of_its_events_once() {
    let house = House::new(chain(&["Build"])).await;
    let mut inbox = house.inbox().await;
    let (orchestrator, supervisor) = start(&house).await;
    let api = house.serve(&orchestrator);
    for delivery in ["1", "2"] {
        deliver(&orchestrator, &mut inbox, &trigger(delivery)).await;
    }
    let run = trigger("1").run();
    archived(&house.bus, &run).await;
    let (_, events) = api.get(&format!("/v1/runs/{run}/events")).await;
    let places = |events: Vec<serde_json::Value>| -> Vec<_> {
        events.iter().map(|event| (event["sequence"].as_u64().unwrap(), event["index"].as_u64().unwrap())).collect()
    };
    let wanted = places(events.as_array().unwrap().clone());
    // From before the first, and from within the first record, until all was told that there is.
    for (from, known) in [("0.0", 0), ("1.0", 1)] {
        let mut told = Vec::new();
        let mut response =
            api.ask("/v1/events/follow").header("Last-Event-ID", from).header("Accept", "text/event-stream").send().await.unwrap();
        let (mut text, mut others) = (String::new(), 0);
        while told.len() + known < wanted.len() || others == 0 {
            text.push_str(std::str::from_utf8(&response.chunk().await.unwrap().expect("there is no end")).unwrap());
            while let Some((message, rest)) = text.split_once("\n\n") {
                let data = message.lines().find_map(|line| line.strip_prefix("data: ")).unwrap_or("null");
                let view: serde_json::Value = serde_json::from_str(data).unwrap();
                if view["run"] == run.as_str() {
                    told.push(view);
                } else {
                    others += usize::from(view["run"].is_string());
                }
                text = rest.to_owned();
            }
        }
        assert_eq!(places(told), wanted[known..], "{from}");
    }
    supervisor.shut_down().await;
}
