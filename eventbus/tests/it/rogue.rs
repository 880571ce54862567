//! A rogue agent with a key that was really given to it. Each attack is made twice: as somebody whom the operator allowed everything in the services'
//! account, where it succeeds, and as the agent, where it fails.

use std::{collections::BTreeSet, time::Duration};

use async_nats::{Client, ConnectOptions, HeaderMap, Subscriber};
use eventbus::{
    Pattern, Subject,
    nats::Identity,
    subject::{CHANNELS, Role},
};
use futures_util::StreamExt as _;
use testkit::{NatsServer, TEST_DEADLINE, wait_for};
use tokio::time::timeout;

use crate::buses::{agent, all_logs, bid_of, bids, bytes, run, seen, trigger};

/// Subscriptions of a flood: far over what an agent needs.
const FLOOD: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guard {
    Off,
    On,
}

/// The rogue's connection.
async fn rogue(server: &NatsServer, guard: Guard) -> Client {
    let identity = Identity::Agent(agent("a1"));
    let prefix = identity.inbox_prefix();
    let credentials = match guard {
        Guard::Off => server.unguarded(),
        Guard::On => server.options(identity).credentials,
    };
    ConnectOptions::with_credentials(&credentials).unwrap().custom_inbox_prefix(prefix).connect(server.url()).await.unwrap()
}

#[expect(clippy::disallowed_methods, reason = "a rogue does not use the bus")]
async fn send(client: &Client, subject: &str, payload: &'static str) {
    client.publish(subject.to_owned(), payload.into()).await.unwrap();
}

/// Returns when somebody who may hear everything does.
async fn hears(client: &Client, everything: &mut Subscriber) {
    send(client, "its.own", "its own").await;
    timeout(TEST_DEADLINE, everything.next()).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_hears_everything_only_without_the_guard() {
    for guard in [Guard::Off, Guard::On] {
        let server = NatsServer::start().await;
        let orchestrator = server.bus(Role::Orchestrator).await;
        let one = rogue(&server, guard).await;
        let mut everything = one.subscribe(">").await.unwrap();
        match guard {
            Guard::Off => hears(&one, &mut everything).await,
            Guard::On => seen(&one).await,
        }
        orchestrator.append(&run("1"), 0, bytes("secret")).await.unwrap();
        orchestrator.publish(&Subject::inbox(&agent("a2")), &"secret").await.unwrap();
        let wait = if guard == Guard::Off { TEST_DEADLINE } else { Duration::from_millis(20) };
        let heard = timeout(wait, everything.next()).await;
        assert_eq!(matches!(heard, Ok(Some(_))), guard == Guard::Off, "{guard:?}: {heard:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_speaks_as_another_and_writes_run_logs_only_without_the_guard() {
    for guard in [Guard::Off, Guard::On] {
        let server = NatsServer::start().await;
        let orchestrator = server.bus(Role::Orchestrator).await;
        let mut statuses = orchestrator.subscribe(Pattern::statuses()).await.unwrap();
        let mut others_inbox = server.agent_bus(&agent("a2")).await.subscribe(Subject::inbox(&agent("a2"))).await.unwrap();
        let one = rogue(&server, guard).await;
        send(&one, Subject::run(&run("1")).as_str(), "\"forged\"").await;
        send(&one, Subject::inbox(&agent("a2")).as_str(), "\"forged\"").await;
        send(&one, Subject::status(&agent("a2")).as_str(), "\"forged\"").await;
        // What it may say comes after that.
        send(&one, Subject::status(&agent("a1")).as_str(), "\"own\"").await;
        let first = timeout(TEST_DEADLINE, statuses.next()).await.unwrap().unwrap();
        let expected = if guard == Guard::Off { "a2" } else { "a1" };
        assert_eq!(first.subject.agent(), Some(agent(expected)), "{guard:?}");
        match guard {
            // A stream stores in its own time what nobody waits for.
            Guard::Off => {
                wait_for(TEST_DEADLINE, "the forged record", async || (all_logs(&orchestrator).await.len() == 1).then_some(())).await;
            }
            Guard::On => assert_eq!(all_logs(&orchestrator).await, []),
        }
        orchestrator.publish(&Subject::inbox(&agent("a2")), &"own").await.unwrap();
        let command: String = timeout(TEST_DEADLINE, others_inbox.next()).await.unwrap().unwrap().read().unwrap();
        assert_eq!(command, if guard == Guard::Off { "forged" } else { "own" });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_has_a_service_write_where_its_reply_subject_says_only_without_the_guard() {
    let server = NatsServer::start().await;
    let orchestrator = server.bus(Role::Orchestrator).await;
    let forged = Subject::run(&run("1"));
    let one = rogue(&server, Guard::On).await;
    let bid = bid_of("a1");
    let send = async || one.publish_with_reply(bid.as_str().to_owned(), forged.as_str().to_owned(), "{}".into()).await.unwrap();

    // With the guard: the bus answers only what is a question in the table.
    let mut heard = server.bus(Role::Auctioneer).await.subscribe(bids()).await.unwrap();
    send().await;
    let message = timeout(TEST_DEADLINE, heard.next()).await.unwrap().unwrap();
    message.reply(&"answer").await.unwrap();
    assert!(all_logs(&orchestrator).await.is_empty());

    // Without: a service that may write there, and answers whoever asks.
    let naive = ConnectOptions::with_credentials(&server.unguarded()).unwrap().connect(server.url()).await.unwrap();
    let mut heard = naive.subscribe("tasks.bids.>").await.unwrap();
    seen(&naive).await;
    send().await;
    let message = timeout(TEST_DEADLINE, heard.next()).await.unwrap().unwrap();
    #[expect(clippy::disallowed_methods, reason = "so does a service without the guard")]
    naive.publish(message.reply.unwrap(), "\"answer\"".into()).await.unwrap();
    wait_for(TEST_DEADLINE, "the forged record", async || (all_logs(&orchestrator).await.len() == 1).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_takes_the_place_of_a_trigger_or_its_message_id_only_without_the_guard() {
    for guard in [Guard::Off, Guard::On] {
        let server = NatsServer::start().await;
        let (orchestrator, forge) = (server.bus(Role::Orchestrator).await, server.bus(Role::Forge).await);
        let mut triggers = orchestrator.triggers().await.unwrap();
        let one = rogue(&server, guard).await;
        let (wanted, squatted) = (trigger("1"), Subject::trigger(&trigger("1").id));
        let mut headers = HeaderMap::new();
        headers.insert(async_nats::header::NATS_MESSAGE_ID, wanted.id.as_str());
        one.publish_with_headers(squatted.as_str().to_owned(), headers, "\"squatted\"".into()).await.unwrap();
        seen(&one).await;
        let _taken_for_stored = forge.store_trigger(&wanted).await;
        let delivered = timeout(TEST_DEADLINE, triggers.next()).await.unwrap().unwrap();
        assert_eq!(delivered.trigger.is_ok(), guard == Guard::On, "{guard:?}: {delivered:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_puts_a_message_in_the_place_of_a_log_only_without_the_guard() {
    for guard in [Guard::Off, Guard::On] {
        let server = NatsServer::start().await;
        let orchestrator = server.bus(Role::Orchestrator).await;
        let mut last = 0;
        for record in ["a", "b", "c"] {
            last = orchestrator.append(&run("1"), last, bytes(record)).await.unwrap();
        }
        let one = rogue(&server, guard).await;
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Rollup", "sub");
        one.publish_with_headers(Subject::run(&run("1")).as_str().to_owned(), headers, "\"forged\"".into()).await.unwrap();
        seen(&one).await;
        let left = if guard == Guard::Off { 1 } else { 3 };
        wait_for(TEST_DEADLINE, "the log", async || (orchestrator.run_log(&run("1")).await.unwrap().len() == left).then_some(())).await;
        assert_eq!(orchestrator.append(&run("1"), last, bytes("d")).await.is_ok(), guard == Guard::On, "{guard:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_floods_the_server_with_subscriptions_only_without_the_guard() {
    for guard in [Guard::Off, Guard::On] {
        let server = NatsServer::start().await;
        let one = rogue(&server, guard).await;
        // Its own answers need a subscription, too.
        seen(&one).await;
        let mut held = Vec::new();
        for at in 0..FLOOD {
            held.push(one.subscribe(format!("_INBOX_agent_a1.flood.{at}")).await.unwrap());
        }
        send(&one, &format!("_INBOX_agent_a1.flood.{}", FLOOD - 1), "heard").await;
        seen(&one).await;
        let last = timeout(Duration::from_millis(20), held.last_mut().unwrap().next()).await;
        let taken = if guard == Guard::Off { Some(()) } else { None };
        assert_eq!(last.ok().flatten().map(|_| ()), taken, "{guard:?}");
        // Nobody else notices.
        let bus = server.agent_bus(&agent("a2")).await;
        bus.publish(&Subject::status(&agent("a2")), &"here").await.unwrap();
    }
}

/// A subject of each kind of message, as another agent's or a service's.
fn subjects_of_others() -> BTreeSet<String> {
    CHANNELS.iter().map(|channel| channel.pattern_of("a2", "big").replace('*', "x")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_heard_on_every_subject_of_the_table_only_without_the_guard() {
    for guard in [Guard::Off, Guard::On] {
        let server = NatsServer::start().await;
        let (orchestrator, other) = (server.bus(Role::Orchestrator).await, server.agent_bus(&agent("a2")).await);
        let ear = ConnectOptions::with_credentials(&server.unguarded()).unwrap().connect(server.url()).await.unwrap();
        let mut everything = ear.subscribe(">").await.unwrap();
        hears(&ear, &mut everything).await;
        let mut in_its_account = other.subscribe(Subject::inbox(&agent("a2"))).await.unwrap();
        let one = rogue(&server, guard).await;
        for subject in subjects_of_others() {
            send(&one, &subject, "\"rogue\"").await;
        }
        let end = Subject::status(&agent("a1"));
        send(&one, end.as_str(), "\"end\"").await;
        let mut heard = BTreeSet::new();
        loop {
            let message = timeout(TEST_DEADLINE, everything.next()).await.unwrap().unwrap();
            if message.subject.as_str() == end.as_str() {
                break;
            }
            if message.payload == "\"rogue\"" {
                heard.insert(message.subject.to_string());
            }
        }
        assert_eq!(heard, if guard == Guard::Off { subjects_of_others() } else { BTreeSet::new() }, "{guard:?}");
        // Agents share an account: nor does another one of them hear it.
        orchestrator.publish(&Subject::inbox(&agent("a2")), &"own").await.unwrap();
        let first: String = timeout(TEST_DEADLINE, in_its_account.next()).await.unwrap().unwrap().read().unwrap();
        assert_eq!(first, if guard == Guard::Off { "rogue" } else { "own" }, "{guard:?}");
    }
}
