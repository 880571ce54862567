//! nats-server is killed and comes back.

use std::time::Duration;

use bytes::Bytes;
use eventbus::{AppendError, Bus, BusError, Subject, subject::Role};
use model::RunId;
use testkit::{NatsServer, TEST_DEADLINE, wait_for};
use tokio::time::timeout;

use crate::buses::{agent, all_logs, bid_of, bids, bytes, run, trigger};

/// Appends records `0..count` one after the other, whatever happens to the bus, as an orchestrator does: after an unknown outcome it
/// reads the log. Tells of each that is acknowledged.
async fn append_all(bus: &Bus, run: &RunId, count: u32, mut acknowledged: impl FnMut(u32)) -> Vec<(u64, Bytes)> {
    let (mut last, mut log) = (0, Vec::new());
    for number in 0..count {
        let record = bytes(number.to_string());
        loop {
            match bus.append(run, last, record.clone()).await {
                Ok(sequence) => {
                    last = sequence;
                    log.push((sequence, record));
                    acknowledged(number);
                    break;
                }
                Err(AppendError::Unknown { .. } | AppendError::Bus(BusError::Unavailable { .. })) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
    }
    log
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kills_and_everything_goes_on() {
    const RECORDS: u32 = 300;
    let mut server = NatsServer::start().await;
    let (orchestrator, forge) = (server.bus(Role::Orchestrator).await, server.bus(Role::Forge).await);
    let (auctioneer, agent) = (server.bus(Role::Auctioneer).await, server.agent_bus(&agent("a1")).await);
    let mut heard = auctioneer.subscribe(bids()).await.unwrap();
    let mut triggers = orchestrator.triggers().await.unwrap();
    forge.store_trigger(&trigger("before")).await.unwrap();
    timeout(TEST_DEADLINE, triggers.next()).await.unwrap().unwrap().done().await.unwrap();

    let (sender, mut progress) = tokio::sync::watch::channel(0);
    let run = run("1");
    let appending = append_all(&orchestrator, &run, RECORDS, |number| {
        sender.send_replace(number);
    });
    let killing = async {
        for kill_at in [RECORDS / 4, RECORDS / 2] {
            progress.wait_for(|number| *number >= kill_at).await.unwrap();
            server.kill();
            server.restart().await;
        }
    };
    let (log, ()) = timeout(TEST_DEADLINE * 2, async { tokio::join!(appending, killing) }).await.unwrap();
    let read: Vec<_> = orchestrator.run_log(&run).await.unwrap().into_iter().map(|record| (record.sequence, record.bytes)).collect();
    assert_eq!(read, log);
    assert_eq!(all_logs(&orchestrator).await.len(), log.len());

    // Subscriptions and the consumer of triggers are back by themselves.
    wait_for(TEST_DEADLINE, "a bid after the restart", async || {
        let _sent_again_if_lost = agent.publish(&bid_of("a1"), &1).await;
        timeout(Duration::from_millis(20), heard.next()).await.ok().flatten()
    })
    .await;
    forge.store_trigger(&trigger("after")).await.unwrap();
    let delivery = timeout(TEST_DEADLINE, triggers.next()).await.unwrap().unwrap();
    assert_eq!(delivery.trigger.as_ref().unwrap().id, trigger("after").id);
    delivery.done().await.unwrap();
}

/// Each record stands for all before it, and is their number.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_whose_server_is_killed_while_it_is_rolled_up_is_never_gone() {
    const RECORDS: u32 = 200;
    let mut server = NatsServer::start().await;
    let (orchestrator, reader) = (server.bus(Role::Orchestrator).await, server.bus(Role::Orchestrator).await);
    let (sender, mut progress) = tokio::sync::watch::channel(0);
    let run = run("1");
    let writing = async {
        let mut last = 0;
        for number in 1..=RECORDS {
            last = loop {
                match orchestrator.append_instead(&run, last, bytes(number.to_string())).await {
                    Ok(sequence) => break sequence,
                    Err(AppendError::Unknown { .. } | AppendError::Bus(BusError::Unavailable { .. })) => {}
                    Err(error) => panic!("{error:?}"),
                }
            };
            sender.send_replace(number);
        }
    };
    let killing = async {
        for kill_at in [RECORDS / 4, RECORDS / 2, RECORDS * 3 / 4] {
            let known = *progress.wait_for(|number| *number >= kill_at).await.unwrap();
            server.kill();
            server.restart().await;
            let log = wait_for(TEST_DEADLINE, "the log to be read", async || reader.run_log(&run).await.ok()).await;
            let last = log.last().map(|record| str::from_utf8(&record.bytes).unwrap().parse::<u32>().unwrap());
            assert!(last.is_some_and(|last| last >= known), "{last:?} {known}");
        }
    };
    timeout(TEST_DEADLINE * 2, async { tokio::join!(writing, killing) }).await.unwrap();
    let log: Vec<_> = reader.run_log(&run).await.unwrap().into_iter().map(|record| record.bytes).collect();
    assert_eq!(log, [bytes(RECORDS.to_string())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn during_an_outage_nothing_hangs_and_nothing_is_kept() {
    let mut server = NatsServer::start().await;
    let (orchestrator, auctioneer) = (server.bus(Role::Orchestrator).await, server.bus(Role::Auctioneer).await);
    let mut heard = orchestrator.subscribe(Subject::proposed()).await.unwrap();
    server.kill();
    wait_for(TEST_DEADLINE, "the loss to be noticed", async || (!auctioneer.is_connected() && !orchestrator.is_connected()).then_some(()))
        .await;
    for _ in 0..10_000 {
        let published = auctioneer.publish(&Subject::proposed(), &"kept").await;
        assert!(matches!(published, Err(BusError::Unavailable { .. })), "{published:?}");
    }
    let asked = orchestrator.request::<_, String>(&Subject::plan(), &"", TEST_DEADLINE * 100).await;
    assert!(matches!(asked, Err(BusError::Unavailable { .. })), "{asked:?}");
    assert!(matches!(orchestrator.run_log(&run("1")).await, Err(BusError::Unavailable { .. })));
    let stored = orchestrator.backend().store(&Subject::run(&run("1")), bytes("a"), 0).await;
    assert!(matches!(stored, Err(BusError::Unavailable { .. })), "{stored:?}");

    server.restart().await;
    wait_for(TEST_DEADLINE, "both to be back", async || (auctioneer.is_connected() && orchestrator.is_connected()).then_some(())).await;
    wait_for(TEST_DEADLINE, "a message after the outage", async || {
        auctioneer.publish(&Subject::proposed(), &"new").await.unwrap();
        let message = timeout(Duration::from_millis(20), heard.next()).await.ok().flatten()?;
        assert_eq!(message.read::<String>().unwrap(), "new");
        Some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_in_flight_when_the_server_dies_ends_once_it_is_back() {
    let mut server = NatsServer::start().await;
    let orchestrator = server.bus(Role::Orchestrator).await;
    let run = run("1");
    let first = orchestrator.append(&run, 0, bytes("a")).await.unwrap();
    server.kill();
    let record = bytes("b");
    let appending = orchestrator.append(&run, first, record);
    let (second, ()) = tokio::join!(appending, server.restart());
    let second = second.unwrap();
    assert!(second > first);
    assert_eq!(orchestrator.run_log(&run).await.unwrap().len(), 2);
}
