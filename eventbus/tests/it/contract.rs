//! What every bus promises.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use eventbus::{
    AppendError, BusError, Subject,
    bus::{MESSAGE_BYTES_MAX, TRIGGER_ACK_WAIT},
};
use testkit::TEST_DEADLINE;
use tokio::{task::JoinSet, time::timeout};

use crate::{
    buses::{Buses, agent, all_logs, bid_of, bids, bytes, run, trigger},
    forgetful::Forgetful,
};

pub(crate) async fn messages_of_one_publisher_arrive_in_order(buses: Buses) {
    const MESSAGES: u32 = 2_000;
    let mut bids = buses.auctioneer.subscribe(bids()).await.unwrap();
    for number in 0..MESSAGES {
        buses.agent.publish(&bid_of("a1"), &number).await.unwrap();
    }
    for number in 0..MESSAGES {
        let bid = timeout(TEST_DEADLINE, bids.next()).await.unwrap().unwrap();
        assert_eq!((bid.read::<u32>().unwrap(), bid.subject.agent()), (number, Some(agent("a1"))));
    }
    assert!(bids.try_next().is_none());
}

pub(crate) async fn every_listener_hears_a_message_and_one_of_each_group(buses: Buses) {
    const MESSAGES: usize = 50;
    let mut alone = buses.orchestrator.subscribe(Subject::proposed()).await.unwrap();
    let mut members = Vec::new();
    for bus in [&buses.orchestrator, &buses.other_orchestrator] {
        members.push(bus.backend().subscribe(&Subject::proposed().into(), Some("orchestrators")).await.unwrap());
    }
    for number in 0..MESSAGES {
        buses.auctioneer.publish(&Subject::proposed(), &number).await.unwrap();
    }
    for number in 0..MESSAGES {
        assert_eq!(timeout(TEST_DEADLINE, alone.next()).await.unwrap().unwrap().read::<usize>().unwrap(), number);
    }
    let mut heard = BTreeSet::new();
    let [one, other] = &mut members[..] else { unreachable!("there are two") };
    for _ in 0..MESSAGES {
        let message = timeout(TEST_DEADLINE, async {
            tokio::select! { message = one.next() => message, message = other.next() => message }
        });
        assert!(heard.insert(message.await.unwrap().unwrap().read::<usize>().unwrap()), "a message came to both members");
    }
    assert!(one.try_next().is_none() && other.try_next().is_none());
}

pub(crate) async fn a_question_is_answered_once(buses: Buses) {
    let mut questions = buses.parser.subscribe_group(Subject::plan()).await.unwrap();
    let answering = async {
        let question = questions.next().await.unwrap();
        let text: String = question.read().unwrap();
        question.reply(&format!("{text}!")).await.unwrap();
    };
    let plan = Subject::plan();
    let asking = buses.orchestrator.request::<_, String>(&plan, &"why", TEST_DEADLINE);
    let (answer, ()) = tokio::join!(asking, answering);
    assert_eq!(answer.unwrap(), "why!");

    let unanswered = buses.orchestrator.request::<_, String>(&plan, &"and now", Duration::from_millis(50)).await;
    assert!(matches!(unanswered, Err(BusError::Unavailable { .. })), "{unanswered:?}");
}

pub(crate) async fn a_question_that_nobody_hears_fails_at_once(buses: Buses) {
    let plan = Subject::plan();
    let asking = buses.orchestrator.request::<_, String>(&plan, &"anybody", Duration::from_hours(1));
    assert!(matches!(timeout(TEST_DEADLINE, asking).await.unwrap(), Err(BusError::NoResponder { .. })));
}

pub(crate) async fn an_append_after_the_wrong_sequence_is_a_conflict(buses: Buses) {
    let (one, other) = (run("1"), run("2"));
    let first = buses.orchestrator.append(&one, 0, bytes("a")).await.unwrap();
    let elsewhere = buses.orchestrator.append(&other, 0, bytes("x")).await.unwrap();
    assert!(elsewhere > first, "all runs share one counter");
    for wrong in [0, elsewhere, elsewhere + 7] {
        match buses.other_orchestrator.append(&one, wrong, bytes("b")).await {
            Err(AppendError::Conflict { run, expected, last }) => assert_eq!((run, expected, last), (one.clone(), wrong, first)),
            result => panic!("after {wrong}: {result:?}"),
        }
    }
    let second = buses.other_orchestrator.append(&one, first, bytes("b")).await.unwrap();
    let log: Vec<_> = buses.orchestrator.run_log(&one).await.unwrap().into_iter().map(|record| (record.sequence, record.bytes)).collect();
    assert_eq!(log, [(first, bytes("a")), (second, bytes("b"))]);
}

pub(crate) async fn an_append_whose_acknowledgement_is_lost_is_stored_once(buses: Buses) {
    let run = run("1");
    let forgetful = Forgetful::bus(&buses.orchestrator, 2);
    let first = forgetful.append(&run, 0, bytes("a")).await.unwrap();
    let second = forgetful.append(&run, first, bytes("b")).await.unwrap();
    let log: Vec<_> = buses.orchestrator.run_log(&run).await.unwrap().into_iter().map(|record| (record.sequence, record.bytes)).collect();
    assert_eq!(log, [(first, bytes("a")), (second, bytes("b"))]);

    Forgetful::bus(&buses.forge, 1).store_trigger(&trigger("1")).await.unwrap();
    let mut triggers = buses.orchestrator.triggers().await.unwrap();
    let delivery = timeout(TEST_DEADLINE, triggers.next()).await.unwrap().unwrap();
    assert_eq!(*delivery.trigger.as_ref().unwrap(), trigger("1"));
    delivery.done().await.unwrap();
}

pub(crate) async fn of_concurrent_appends_one_wins_at_each_sequence(buses: Buses) {
    const APPENDS: usize = 20;
    let run = run("1");
    let mut appenders = JoinSet::new();
    for (name, bus) in [("a", buses.orchestrator.clone()), ("b", buses.other_orchestrator.clone()), ("c", buses.orchestrator.clone())] {
        let run = run.clone();
        appenders.spawn(async move {
            let (mut last, mut won) = (0, Vec::new());
            while won.len() < APPENDS {
                let record = bytes(format!("{name}{}", won.len()));
                match bus.append(&run, last, record.clone()).await {
                    Ok(sequence) => {
                        assert!(sequence > last);
                        last = sequence;
                        won.push((sequence, record));
                    }
                    Err(AppendError::Conflict { last: end, .. }) => last = end,
                    Err(error) => panic!("{error:?}"),
                }
            }
            won
        });
    }
    let mut won: Vec<_> = appenders.join_all().await.concat();
    won.sort();
    let log: Vec<_> = buses.orchestrator.run_log(&run).await.unwrap().into_iter().map(|record| (record.sequence, record.bytes)).collect();
    assert_eq!(log, won);
}

pub(crate) async fn a_trigger_that_is_stored_a_hundred_times_is_delivered_once(buses: Buses) {
    let mut triggers = buses.orchestrator.triggers().await.unwrap();
    for _ in 0..50 {
        let (one, other) = (trigger("1"), trigger("1"));
        let (one, other) = tokio::join!(buses.forge.store_trigger(&one), buses.orchestrator.store_trigger(&other));
        one.and(other).unwrap();
    }
    let delivery = timeout(TEST_DEADLINE, triggers.next()).await.unwrap().unwrap();
    assert_eq!(*delivery.trigger.as_ref().unwrap(), trigger("1"));
    delivery.done().await.unwrap();
    buses.forge.store_trigger(&trigger("1")).await.unwrap();
    buses.forge.store_trigger(&trigger("2")).await.unwrap();
    let delivery = timeout(TEST_DEADLINE, triggers.next()).await.unwrap().unwrap();
    assert_eq!(*delivery.trigger.as_ref().unwrap(), trigger("2"));
    delivery.done().await.unwrap();
}

pub(crate) async fn a_trigger_that_is_dropped_undone_comes_again(buses: Buses) {
    let mut triggers = buses.orchestrator.triggers().await.unwrap();
    buses.forge.store_trigger(&trigger("1")).await.unwrap();
    for _ in 0..2 {
        let delivery = timeout(TEST_DEADLINE, triggers.next()).await.unwrap().unwrap();
        assert_eq!(*delivery.trigger.as_ref().unwrap(), trigger("1"));
        drop(delivery);
    }
    timeout(TEST_DEADLINE, triggers.next()).await.unwrap().unwrap().done().await.unwrap();
}

pub(crate) async fn a_trigger_of_a_consumer_that_is_gone_comes_to_another(buses: Buses) {
    buses.forge.store_trigger(&trigger("1")).await.unwrap();
    let mut triggers = buses.orchestrator.triggers().await.unwrap();
    let held = timeout(TEST_DEADLINE, triggers.next()).await.unwrap().unwrap();
    drop(triggers);
    let mut triggers = buses.other_orchestrator.triggers().await.unwrap();
    let delivery = timeout(TEST_DEADLINE, triggers.next()).await.unwrap().unwrap();
    assert_eq!(*delivery.trigger.as_ref().unwrap(), trigger("1"));
    delivery.done().await.unwrap();
    drop(held);
}

pub(crate) async fn a_trigger_that_is_held_does_not_come_again(buses: Buses) {
    let mut triggers = buses.orchestrator.triggers().await.unwrap();
    buses.forge.store_trigger(&trigger("1")).await.unwrap();
    let held = timeout(TEST_DEADLINE, triggers.next()).await.unwrap().unwrap();
    let again = timeout(TRIGGER_ACK_WAIT * 4 / 3, triggers.next()).await;
    assert!(again.is_err(), "{again:?}");
    held.done().await.unwrap();
}

pub(crate) async fn a_message_may_be_as_large_as_the_limit_and_no_larger(buses: Buses) {
    let (run, full) = (run("1"), bytes("x".repeat(MESSAGE_BYTES_MAX)));
    buses.orchestrator.append(&run, 0, full.clone()).await.unwrap();
    assert_eq!(buses.orchestrator.run_log(&run).await.unwrap()[0].bytes, full);

    let larger = bytes("x".repeat(MESSAGE_BYTES_MAX + 1));
    let appended = buses.orchestrator.append(&run, 1, larger.clone()).await;
    assert!(matches!(appended, Err(AppendError::Bus(BusError::TooLarge { bytes, .. })) if bytes == larger.len()), "{appended:?}");
    assert!(matches!(buses.agent.publish_bytes(&bid_of("a1"), larger).await, Err(BusError::TooLarge { .. })));
}

pub(crate) async fn reading_all_logs_ends_with_the_last_record(buses: Buses) {
    const RUNS: u64 = 7;
    /// More than the server sends in one batch.
    const RECORDS: u64 = 2_500;
    let (mut lasts, mut stored) = (vec![0; 7], Vec::new());
    for (number, index) in (0..RECORDS).zip((0..7).cycle()) {
        let (run, record) = (run(&format!("{}", number % RUNS)), bytes(number.to_string()));
        lasts[index] = buses.orchestrator.append(&run, lasts[index], record.clone()).await.unwrap();
        stored.push((run, lasts[index], record));
    }
    let reading = buses.orchestrator.run_logs().await.unwrap();
    // Neither missing nor awaited.
    buses.other_orchestrator.append(&run("later"), 0, bytes("later")).await.unwrap();
    let mut reading = reading;
    let mut read = Vec::new();
    while let Some(record) = timeout(TEST_DEADLINE, reading.recv()).await.unwrap() {
        let record = record.unwrap();
        read.push((record.run, record.sequence, record.bytes));
    }
    assert_eq!(read, stored);
    let of_one: Vec<_> = buses.orchestrator.run_log(&run("3")).await.unwrap().into_iter().map(|record| record.bytes).collect();
    assert_eq!(of_one, stored.iter().filter(|(of, ..)| *of == run("3")).map(|(.., record)| record.clone()).collect::<Vec<_>>());
    assert_eq!(all_logs(&buses.orchestrator).await.len(), stored.len() + 1);

    let (mut followed, mut last) = (Vec::new(), 0);
    loop {
        let (records, end) = buses.forge.run_logs_after(last).await.unwrap();
        let Some(next) = records.last() else {
            assert_eq!(end, last, "nothing is left out");
            break;
        };
        last = next.sequence;
        followed.extend(records.into_iter().map(|record| (record.run, record.sequence, record.bytes)));
    }
    assert_eq!(followed, all_logs(&buses.orchestrator).await);
    assert_eq!(buses.forge.run_logs_after(u64::MAX).await.unwrap(), (vec![], last));
}

pub(crate) async fn what_stands_for_a_log_is_all_that_is_left_of_it(buses: Buses) {
    let (one, other) = (run("1"), run("2"));
    let first = buses.orchestrator.append(&one, 0, bytes("a")).await.unwrap();
    let of_other = buses.orchestrator.append(&other, 0, bytes("b")).await.unwrap();
    let second = buses.orchestrator.append(&one, first, bytes("c")).await.unwrap();
    let late = buses.other_orchestrator.append_instead(&one, first, bytes("too late")).await;
    assert!(matches!(late, Err(AppendError::Conflict { last, .. }) if last == second), "{late:?}");
    let stands = buses.orchestrator.append_instead(&one, second, bytes("a and c")).await.unwrap();
    let next = buses.other_orchestrator.append(&one, stands, bytes("d")).await.unwrap();
    let log: Vec<_> = buses.orchestrator.run_log(&one).await.unwrap().into_iter().map(|record| (record.sequence, record.bytes)).collect();
    assert_eq!(log, [(stands, bytes("a and c")), (next, bytes("d"))]);
    let all: Vec<_> = all_logs(&buses.orchestrator).await.into_iter().map(|(_, sequence, _)| sequence).collect();
    assert_eq!(all, [of_other, stands, next]);
    // As of any log that has begun.
    let begun = buses.orchestrator.append(&one, 0, bytes("again")).await;
    assert!(matches!(begun, Err(AppendError::Conflict { .. })), "{begun:?}");
}

pub(crate) async fn of_concurrent_roll_ups_one_wins(buses: Buses) {
    let run = run("1");
    let last = buses.orchestrator.append(&run, 0, bytes("a")).await.unwrap();
    let (one, other) = tokio::join!(
        buses.orchestrator.append_instead(&run, last, bytes("one")),
        buses.other_orchestrator.append_instead(&run, last, bytes("other")),
    );
    assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
    let winner = if one.is_ok() { "one" } else { "other" };
    let log: Vec<_> = buses.orchestrator.run_log(&run).await.unwrap().into_iter().map(|record| record.bytes).collect();
    assert_eq!(log, [bytes(winner)]);
}

pub(crate) async fn a_roll_up_whose_acknowledgement_is_lost_is_stored_once(buses: Buses) {
    let run = run("1");
    let first = buses.orchestrator.append(&run, 0, bytes("a")).await.unwrap();
    let stands = Forgetful::bus(&buses.orchestrator, 1).append_instead(&run, first, bytes("b")).await.unwrap();
    let log: Vec<_> = buses.orchestrator.run_log(&run).await.unwrap().into_iter().map(|record| (record.sequence, record.bytes)).collect();
    assert_eq!(log, [(stands, bytes("b"))]);
}

/// Records are numbers, in order; one that stands for those before it is the next number.
pub(crate) async fn a_log_that_is_rolled_up_while_it_is_read_is_never_read_as_nothing(buses: Buses) {
    const ROUNDS: u32 = 60;
    let (still, busy) = (run("still"), run("busy"));
    buses.orchestrator.append(&still, 0, bytes("0")).await.unwrap();
    let (done, mut is_done) = tokio::sync::watch::channel(false);
    let mut last = buses.orchestrator.append(&busy, 0, bytes("0")).await.unwrap();
    let writing = async {
        for number in 1..ROUNDS {
            let record = bytes(number.to_string());
            last = match number % 3 {
                0 => buses.orchestrator.append_instead(&busy, last, record).await.unwrap(),
                _ => buses.orchestrator.append(&busy, last, record).await.unwrap(),
            };
        }
        done.send_replace(true);
    };
    let number = |bytes: &Bytes| str::from_utf8(bytes).unwrap().parse::<u32>().unwrap();
    let reading = async {
        while !*is_done.borrow_and_update() {
            let log = buses.other_orchestrator.run_log(&busy).await.unwrap();
            let numbers: Vec<_> = log.iter().map(|record| number(&record.bytes)).collect();
            assert!(!numbers.is_empty() && numbers.iter().zip(&numbers[1..]).all(|(one, next)| one + 1 == *next), "{numbers:?}");
            assert!(numbers[0] % 3 == 0, "{numbers:?}");
            let all = all_logs(&buses.other_orchestrator).await;
            assert!(all.iter().any(|(run, ..)| *run == still) && all.iter().any(|(run, ..)| *run == busy), "{all:?}");
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(writing, reading);
}

pub(crate) async fn reading_no_log_ends_at_once(buses: Buses) {
    assert!(all_logs(&buses.orchestrator).await.is_empty());
    assert!(buses.orchestrator.run_log(&run("1")).await.unwrap().is_empty());
    buses.orchestrator.append(&run("2"), 0, bytes("a")).await.unwrap();
    assert!(buses.orchestrator.run_log(&run("1")).await.unwrap().is_empty());
}
