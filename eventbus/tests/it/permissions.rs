//! What the server refuses, whoever asks. The bus's own client would not even try, so a bare one does.

use std::time::Duration;

use async_nats::{Client, ConnectOptions, HeaderMap};
use eventbus::{Pattern, Subject, nats::Identity, subject::Role};
use futures_util::StreamExt as _;
use model::{RunId, StageId, protocol::agent::ReportKind};
use testkit::{NatsServer, TEST_DEADLINE};
use tokio::time::timeout;

use crate::buses::{agent, all_logs, bid_of, bids, run, seen, trigger};

/// A client with this identity's key that does as it likes.
async fn hostile(server: &NatsServer, identity: Identity) -> Client {
    let options = server.options(identity);
    let connect = ConnectOptions::with_credentials(&options.credentials)
        .unwrap()
        .custom_inbox_prefix(options.identity.inbox_prefix())
        .connect(options.urls);
    connect.await.unwrap()
}

async fn send(client: &Client, subject: &str) {
    #[expect(clippy::disallowed_methods, reason = "a hostile client does not use the bus")]
    client.publish(subject.to_owned(), "\"hostile\"".into()).await.unwrap();
}

/// What the server says to a request: nothing at all where it is not allowed, so this is short.
async fn ask(client: &Client, subject: &str) -> Result<async_nats::Message, async_nats::RequestError> {
    let request = async_nats::Request::new().payload("{}".into()).timeout(Some(Duration::from_millis(100)));
    client.send_request(subject.to_owned(), request).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_speaks_only_as_itself_and_only_to_services() {
    let server = NatsServer::start().await;
    let (orchestrator, auctioneer) = (server.bus(Role::Orchestrator).await, server.bus(Role::Auctioneer).await);
    let mut heard = vec![auctioneer.subscribe(bids()).await.unwrap(), orchestrator.subscribe(Pattern::statuses()).await.unwrap()];
    for pattern in Pattern::reports() {
        heard.push(orchestrator.subscribe(pattern).await.unwrap());
    }
    heard.push(orchestrator.subscribe(Pattern::logs()).await.unwrap());
    heard.push(orchestrator.subscribe(Subject::proposed()).await.unwrap());
    let mut triggers = orchestrator.triggers().await.unwrap();
    let mut others_inbox = server.agent_bus(&agent("a2")).await.subscribe(Subject::inbox(&agent("a2"))).await.unwrap();

    let one = hostile(&server, Identity::Agent(agent("a1"))).await;
    let log = |name: &str| Subject::log(&agent(name), &run("1"), &StageId::of("Build"));
    let of = |name: &str| {
        let reports = [ReportKind::Declined, ReportKind::Started, ReportKind::Finished, ReportKind::LogStored, ReportKind::RunRequested];
        let mut subjects = vec![bid_of(name), Subject::status(&agent(name))];
        subjects.extend(reports.map(|kind| Subject::report(&agent(name), kind)));
        subjects.push(log(name));
        subjects
    };
    for forbidden in of("a2").iter().map(Subject::as_str).chain([
        Subject::run(&run("1")).as_str(),
        Subject::trigger(&trigger("1").id).as_str(),
        Subject::proposed().as_str(),
        Subject::for_auction().as_str(),
        Subject::inbox(&agent("a2")).as_str(),
        Subject::auction("default").as_str(),
        "_INBOX_orchestrator.x",
        "$JS.API.STREAM.DELETE.RUNS",
        "$JS.API.STREAM.PURGE.RUNS",
        "$SYS.REQ.SERVER.PING",
    ]) {
        send(&one, forbidden).await;
    }
    // The server takes one client's messages in order: what comes now comes after what was forbidden.
    for allowed in of("a1") {
        send(&one, allowed.as_str()).await;
    }
    for listener in &mut heard[..8] {
        let message = timeout(TEST_DEADLINE, listener.next()).await.unwrap().unwrap();
        assert_eq!(message.subject.agent(), Some(agent("a1")), "{}", message.subject);
    }
    assert!(heard.iter_mut().all(|listener| listener.try_next().is_none()));
    orchestrator.publish(&Subject::inbox(&agent("a2")), &"from its orchestrator").await.unwrap();
    let command = timeout(TEST_DEADLINE, others_inbox.next()).await.unwrap().unwrap();
    assert_eq!(command.read::<String>().unwrap(), "from its orchestrator");
    assert!(all_logs(&orchestrator).await.is_empty());
    assert!(timeout(Duration::from_millis(50), triggers.next()).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_hears_only_its_inbox_and_the_calls() {
    let server = NatsServer::start().await;
    let (orchestrator, auctioneer) = (server.bus(Role::Orchestrator).await, server.bus(Role::Auctioneer).await);
    let one = hostile(&server, Identity::Agent(agent("a1"))).await;
    let mut stolen = Vec::new();
    for pattern in
        ["inbox.a2", "inbox.*", "runs.*", "triggers.*", "tasks.bids.*.*", "logs.>", "_INBOX_orchestrator.>", "_INBOX.>", ">", "$JS.>"]
    {
        stolen.push(one.subscribe(pattern).await.unwrap());
    }
    let mut inbox = one.subscribe("inbox.a1").await.unwrap();
    let mut calls = one.subscribe("tasks.auction.default").await.unwrap();
    seen(&one).await;

    orchestrator.append(&RunId::of(&trigger("1").id), 0, "{}".into()).await.unwrap();
    orchestrator.publish(&Subject::inbox(&agent("a2")), &"secret").await.unwrap();
    orchestrator.publish(&Subject::inbox(&agent("a1")), &"mine").await.unwrap();
    auctioneer.publish(&Subject::auction("default"), &"call").await.unwrap();
    assert_eq!(timeout(TEST_DEADLINE, inbox.next()).await.unwrap().unwrap().payload, "\"mine\"");
    assert_eq!(timeout(TEST_DEADLINE, calls.next()).await.unwrap().unwrap().payload, "\"call\"");
    for mut subscription in stolen {
        let heard = timeout(Duration::from_millis(1), subscription.next()).await;
        assert!(!matches!(heard, Ok(Some(_))), "{heard:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_reaches_no_stream() {
    let server = NatsServer::start().await;
    let one = hostile(&server, Identity::Agent(agent("a1"))).await;
    for call in ["INFO", "STREAM.INFO.RUNS", "STREAM.NAMES", "STREAM.MSG.GET.RUNS", "STREAM.CREATE.MINE", "DIRECT.GET.RUNS"] {
        assert!(ask(&one, &format!("$JS.API.{call}")).await.is_err(), "{call}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_write_only_what_they_own_and_delete_nothing() {
    let server = NatsServer::start().await;
    let orchestrator = server.bus(Role::Orchestrator).await;
    let first = orchestrator.append(&run("1"), 0, "{}".into()).await.unwrap();
    for role in Role::ALL {
        let service = hostile(&server, Identity::Service(role)).await;
        for call in ["DELETE.RUNS", "PURGE.RUNS", "MSG.DELETE.RUNS", "DELETE.TRIGGERS", "PURGE.TRIGGERS"] {
            assert!(ask(&service, &format!("$JS.API.STREAM.{call}")).await.is_err(), "{role} {call}");
        }
        if role != Role::Orchestrator {
            assert!(ask(&service, Subject::run(&run("1")).as_str()).await.is_err(), "{role}");
        }
    }
    let log: Vec<_> = orchestrator.run_log(&run("1")).await.unwrap().into_iter().map(|record| record.sequence).collect();
    assert_eq!(log, [first]);
}

/// Sends a message that is to stand for what is stored at `subject`, or in its whole stream, and gives what the server says.
async fn roll_up(client: &Client, subject: &str, what: &str) -> Option<String> {
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Rollup", what);
    let request = async_nats::Request::new().headers(headers).payload("\"hostile\"".into()).timeout(Some(Duration::from_millis(100)));
    let answer = client.send_request(subject.to_owned(), request).await.ok()?;
    Some(String::from_utf8_lossy(&answer.payload).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_orchestrators_key_rolls_a_log_up_and_no_key_rolls_triggers_up() {
    let server = NatsServer::start().await;
    let (orchestrator, forge) = (server.bus(Role::Orchestrator).await, server.bus(Role::Forge).await);
    let first = orchestrator.append(&run("1"), 0, "{}".into()).await.unwrap();
    orchestrator.append(&run("1"), first, "{}".into()).await.unwrap();
    forge.store_trigger(&trigger("1")).await.unwrap();
    let (log, stored) = (Subject::run(&run("1")), Subject::trigger(&trigger("1").id));
    let others = Role::ALL.into_iter().filter(|role| *role != Role::Orchestrator).map(Identity::Service);
    for identity in others.chain([Identity::Agent(agent("a1"))]) {
        let client = hostile(&server, identity.clone()).await;
        for what in ["sub", "all"] {
            assert_eq!(roll_up(&client, log.as_str(), what).await, None, "{identity} {what}");
            // Who may store triggers is told that it may not do this.
            let told = roll_up(&client, stored.as_str(), what).await;
            assert!(told.is_none_or(|told| told.contains("rollup not permitted")), "{identity} {what}");
        }
    }
    assert_eq!(orchestrator.run_log(&run("1")).await.unwrap().len(), 2);
    let delivery = timeout(TEST_DEADLINE, orchestrator.triggers().await.unwrap().next()).await.unwrap().unwrap();
    assert_eq!(delivery.trigger.as_ref().unwrap().id, trigger("1").id);
    let own = hostile(&server, Identity::Service(Role::Orchestrator)).await;
    assert!(roll_up(&own, log.as_str(), "sub").await.is_some_and(|told| told.contains("seq")));
    assert_eq!(orchestrator.run_log(&run("1")).await.unwrap().len(), 1);
    assert!(roll_up(&own, stored.as_str(), "sub").await.is_some_and(|told| told.contains("rollup not permitted")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_never_answers_where_an_agent_chose() {
    let server = NatsServer::start().await;
    let auctioneer = server.bus(Role::Auctioneer).await;
    let mut bids = auctioneer.subscribe(bids()).await.unwrap();
    let one = hostile(&server, Identity::Agent(agent("a1"))).await;
    let mut answers = one.subscribe("_INBOX_agent_a1.answers").await.unwrap();
    one.publish_with_reply(bid_of("a1").as_str().to_owned(), "_INBOX_agent_a1.answers", "1".into()).await.unwrap();
    timeout(TEST_DEADLINE, bids.next()).await.unwrap().unwrap().reply(&"an answer").await.unwrap();
    assert!(timeout(Duration::from_millis(50), answers.next()).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_listens_in_a_group_listens_in_no_other_way() {
    let server = NatsServer::start().await;
    let orchestrator = server.bus(Role::Orchestrator).await;
    let parser = hostile(&server, Identity::Service(Role::Parser)).await;
    let mut beside = parser.subscribe("parser.plan").await.unwrap();
    let mut other = parser.queue_subscribe("parser.plan", "other".to_owned()).await.unwrap();
    let mut member = parser.queue_subscribe("parser.plan", "parser".to_owned()).await.unwrap();
    seen(&parser).await;
    orchestrator.publish(&Subject::plan(), &"a question").await.unwrap();
    assert_eq!(timeout(TEST_DEADLINE, member.next()).await.unwrap().unwrap().payload, "\"a question\"");
    for refused in [&mut beside, &mut other] {
        let heard = timeout(Duration::from_millis(1), refused.next()).await;
        assert!(!matches!(heard, Ok(Some(_))), "{heard:?}");
    }
}
