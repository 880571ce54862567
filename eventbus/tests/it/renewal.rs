//! The user of an agent ends; before that it has another, if it is still enrolled.

use std::{fs, time::Duration};

use async_nats::ConnectOptions;
use eventbus::{
    Bus, Subject,
    nats::{
        Identity, NatsOptions, connect_agent,
        enrolment::EnrolmentError,
        jwt::{self, Life},
    },
    role,
    subject::Role,
};
use futures_util::StreamExt as _;
use model::protocol::enrolment::{RenewalReply, RenewalRequest};
use serde_json::Value;
use service::{OnError, Supervisor, clock, supervisor::Ended};
use testkit::{NatsServer, TEST_DEADLINE, wait_for};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{
    buses::{agent, seen},
    office::options,
};

const HOUR_S: u64 = 3_600;

fn now_s() -> u64 {
    clock::unix_ms() / 1_000
}

/// How `a1` connects, with a user of this life.
fn aged(server: &NatsServer, life: Life) -> NatsOptions {
    let options = server.options(Identity::Agent(agent("a1")));
    NatsOptions { credentials: server.aged(&options.credentials, life), ..options }
}

/// A life of which more than half is over, and an hour is left.
fn nearly_over() -> Life {
    Life { from_s: now_s() - 100 * HOUR_S, until_s: Some(now_s() + HOUR_S) }
}

/// Until when the user holds with whom the server knows `a1` to be connected; `None` while it is not.
async fn until_s(server: &NatsServer) -> Option<u64> {
    let url = format!("http://{}/connz?auth=1", server.monitor());
    let told: Value = testkit::http_get(url).await.ok()?.json().await.ok()?;
    let connections = told["connections"].as_array()?.clone();
    let own = connections.into_iter().find(|connection| connection["name"] == "otto agent a1")?;
    jwt::life(own["jwt"].as_str()?)?.until_s
}

async fn is_renewed(server: &NatsServer, before: Life) {
    let later = async || until_s(server).await.filter(|until_s| Some(*until_s) > before.until_s);
    wait_for(TEST_DEADLINE, "a connection as the renewed user", later).await;
}

async fn hears(server: &NatsServer, inbox: &mut eventbus::Subscription) {
    let orchestrator: Bus = server.bus(Role::Orchestrator).await;
    let heard = wait_for(TEST_DEADLINE, "the command", async || {
        // It may be about to come back.
        orchestrator.publish(&Subject::inbox(&agent("a1")), &"a command").await.unwrap();
        timeout(Duration::from_millis(50), inbox.next()).await.ok().flatten()
    });
    assert_eq!(heard.await.read::<String>().unwrap(), "a command");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_renews_its_user_before_it_ends_and_each_later_connection_is_as_that_one() {
    let (mut server, supervisor) = (NatsServer::start_bare(|config| config).await, Supervisor::new());
    let (data, life) = (tempfile::tempdir().unwrap(), nearly_over());
    let (bus, renewal) = connect_agent(&agent("a1"), &aged(&server, life), data.path()).await.unwrap();
    let mut inbox = bus.subscribe(Subject::inbox(&agent("a1"))).await.unwrap();
    assert_eq!(until_s(&server).await, life.until_s);
    let token = supervisor.token().clone();
    supervisor.spawn("renewal", OnError::Log, async move { Ok(renewal.work(token).await?) });
    role::run(options(&server), &supervisor).await.unwrap();
    is_renewed(&server, life).await;
    hears(&server, &mut inbox).await;

    server.restart().await;
    is_renewed(&server, life).await;
    hears(&server, &mut inbox).await;
    assert_eq!(supervisor.shut_down().await, Ended::InOrder);

    // It is used after a restart of the agent, also when that of its credentials has ended.
    let over = Life { from_s: now_s() - 2 * HOUR_S, until_s: Some(now_s() - HOUR_S) };
    connect_agent(&agent("a1"), &aged(&server, over), data.path()).await.unwrap();
    // Not in its own data folder.
    let elsewhere = tempfile::tempdir().unwrap();
    assert!(connect_agent(&agent("a1"), &aged(&server, over), elsewhere.path()).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_closes_the_connection_of_a_user_that_has_ended_and_it_is_said_what_to_do() {
    let server = NatsServer::start().await;
    let data = tempfile::tempdir().unwrap();
    // Nobody renews: the role is not there.
    let options = aged(&server, Life { from_s: now_s() - HOUR_S, until_s: Some(now_s() + 5) });
    // A slow machine may come too late for its first connection.
    if let Ok((_bus, renewal)) = connect_agent(&agent("a1"), &options, data.path()).await {
        let ended = timeout(TEST_DEADLINE, renewal.work(CancellationToken::new())).await.unwrap().unwrap_err();
        assert!(ended.to_string().contains("`otto agent enrol a1`"), "{ended}");
    }
    let again = connect_agent(&agent("a1"), &options, data.path()).await.unwrap_err();
    let why = service::supervisor::chain(&again);
    assert!(why.contains("has ended") && why.contains("`otto agent enrol a1`") && why.contains("`otto agent join`"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_enrolled_agent_is_renewed_and_a_revoked_one_or_a_stranger_is_not() {
    let (server, supervisor) = (NatsServer::start_bare(|config| config).await, Supervisor::new());
    role::run(options(&server), &supervisor).await.unwrap();
    // The server is not told: it is the role that refuses.
    server.keys().revoke(&agent("a2")).unwrap();
    let ear = ConnectOptions::with_credentials(&server.unguarded()).unwrap().connect(server.url()).await.unwrap();
    for (name, is_signed) in [("a1", true), ("a2", false), ("stranger", false)] {
        let mut answers = ear.subscribe(Subject::renewed(&agent(name)).as_str().to_owned()).await.unwrap();
        seen(&ear).await;
        let question = serde_json::to_vec(&RenewalRequest {}).unwrap();
        #[expect(clippy::disallowed_methods, reason = "it speaks as others")]
        ear.publish(Subject::renew(&agent(name)).as_str().to_owned(), question.into()).await.unwrap();
        let answer = timeout(TEST_DEADLINE, answers.next()).await.unwrap().unwrap();
        match serde_json::from_slice(&answer.payload).unwrap() {
            RenewalReply::Signed { jwt } => {
                assert!(is_signed, "{name}");
                let credentials = server.options(Identity::Agent(agent(name))).credentials;
                let (before, _) = jwt::read_credentials(&credentials).unwrap();
                // The same in everything but its time.
                assert_eq!(jwt::statement(&jwt), jwt::statement(before));
            }
            RenewalReply::Refused { .. } => assert!(!is_signed, "{name}"),
        }
    }
    assert_eq!(supervisor.shut_down().await, Ended::InOrder);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_user_lives_as_long_as_it_is_set_and_no_longer_than_its_agent_is_enrolled() {
    let server = NatsServer::start().await;
    let enrolment = server.enrolment().with_user_life(Duration::from_secs(HOUR_S));
    let life = jwt::life(&enrolment.renew(&agent("a1")).unwrap()).unwrap();
    assert_eq!(life.until_s, Some(life.from_s + HOUR_S));

    // Signed before it was revoked, and used after.
    let (user, options) = (enrolment.renew(&agent("a1")).unwrap(), server.options(Identity::Agent(agent("a1"))));
    let credentials = jwt::credentials(&user, jwt::read_credentials(&options.credentials).unwrap().1);
    assert!(ConnectOptions::with_credentials(&credentials).unwrap().connect(server.url()).await.is_ok());
    server.keys().revoke(&agent("a1")).unwrap();
    server.push_agents().await;
    assert!(ConnectOptions::with_credentials(&credentials).unwrap().connect(server.url()).await.is_err());
    assert!(matches!(enrolment.renew(&agent("a1")), Err(EnrolmentError::Unknown(_))));

    // `otto up` signs anew what is half over, and leaves what is not.
    let (name, file) = (agent("a2"), server.keys().agent_credentials_file(&agent("a2")));
    let fresh = fs::read_to_string(&file).unwrap();
    let enrol = || server.keys().enrol(&name, &model::AgentClass::default(), model::protocol::enrolment::AgentTrust::Trusted).unwrap();
    enrol();
    assert_eq!(fs::read_to_string(&file).unwrap(), fresh);
    for old in [nearly_over(), Life { from_s: now_s(), until_s: None }] {
        fs::write(&file, server.aged(&fresh, old)).unwrap();
        enrol();
        let signed = fs::read_to_string(&file).unwrap();
        let life = jwt::life(jwt::read_credentials(&signed).unwrap().0).unwrap();
        assert!(life.until_s > Some(now_s() + HOUR_S), "{life:?}");
    }
}
