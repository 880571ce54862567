//! Agents come and go while the server runs, and without its being told to read anything again.

use std::time::Duration;

use async_nats::{Client, ConnectOptions};
use eventbus::{
    Pattern, Subject, Subscription,
    nats::{Account, Accounts, Identity, NatsOptions, connect, jwt},
    role, roll,
    subject::Role,
};
use futures_util::StreamExt as _;
use model::{
    AgentClass, AgentName,
    protocol::{
        agent::Revoked,
        enrolment::{AgentTrust, DrainReply, DrainRequest, Roll, RollPage},
    },
};
use nkeys::KeyPair;
use service::{Supervisor, supervisor::Ended};
use testkit::{NatsServer, TEST_DEADLINE, wait_for};
use tokio::time::timeout;

use crate::{
    buses::{agent, seen},
    office::options,
};

/// Credentials of an agent that enrols itself as one on another machine does.
fn enrol(server: &NatsServer, name: &AgentName, class: &str) -> String {
    let token = server.keys().invite(name, &class.parse().unwrap(), AgentTrust::Untrusted).unwrap();
    let user = KeyPair::new_user();
    let admission = server.enrolment().redeem(token.as_str(), &user.public_key()).unwrap();
    jwt::credentials(&admission.jwt, &user.seed().unwrap())
}

async fn hostile(server: &NatsServer, name: &AgentName, credentials: &str) -> Client {
    let prefix = Identity::Agent(name.clone()).inbox_prefix();
    ConnectOptions::with_credentials(credentials).unwrap().custom_inbox_prefix(prefix).connect(server.url()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_enrols_while_the_server_runs_is_heard_at_once() {
    let server = NatsServer::start().await;
    let mut statuses = server.bus(Role::Orchestrator).await.subscribe(Pattern::statuses()).await.unwrap();
    let name = agent("late");
    let options =
        NatsOptions { urls: vec![server.url()], credentials: enrol(&server, &name, "default"), identity: Identity::Agent(name.clone()) };
    let bus = connect(&options).await.unwrap();
    bus.publish(&Subject::status(&name), &"here").await.unwrap();
    let heard = timeout(TEST_DEADLINE, statuses.next()).await.unwrap().unwrap();
    assert_eq!(heard.subject.agent(), Some(name));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_hears_the_calls_of_the_class_that_the_administrator_gave_it_and_no_others() {
    let server = NatsServer::start().await;
    let auctioneer = server.bus(Role::Auctioneer).await;
    let name = agent("late");
    let one = hostile(&server, &name, &enrol(&server, &name, "small")).await;
    let (mut own, mut others) = (one.subscribe("tasks.auction.small").await.unwrap(), one.subscribe("tasks.auction.big").await.unwrap());
    let mut all = one.subscribe("tasks.auction.*").await.unwrap();
    seen(&one).await;
    auctioneer.publish(&Subject::auction("big"), &"for others").await.unwrap();
    auctioneer.publish(&Subject::auction("small"), &"for it").await.unwrap();
    assert_eq!(timeout(TEST_DEADLINE, own.next()).await.unwrap().unwrap().payload, "\"for it\"");
    for stolen in [&mut others, &mut all] {
        let heard = timeout(Duration::from_millis(1), stolen.next()).await;
        assert!(!matches!(heard, Ok(Some(_))), "{heard:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_agent_is_cut_off_at_once_and_does_not_come_back_after_a_restart() {
    let mut server = NatsServer::start().await;
    let name = agent("late");
    let credentials = enrol(&server, &name, "default");
    let one = hostile(&server, &name, &credentials).await;
    let mut statuses = server.bus(Role::Orchestrator).await.subscribe(Pattern::statuses()).await.unwrap();
    server.keys().revoke(&name).unwrap();
    server.push_agents().await;
    wait_for(TEST_DEADLINE, "the connection to be cut", async || {
        (one.connection_state() != async_nats::connection::State::Connected).then_some(())
    })
    .await;
    let again = ConnectOptions::with_credentials(&credentials).unwrap().connect(server.url()).await;
    assert!(again.is_err(), "a revoked agent is connected again");
    assert!(statuses.try_next().is_none());

    // Its configuration is the one of before; the role's look mends that.
    server.restart().await;
    server.set_up().await;
    assert!(ConnectOptions::with_credentials(&credentials).unwrap().connect(server.url()).await.is_err());
    let other = enrol(&server, &agent("a9"), "default");
    assert!(ConnectOptions::with_credentials(&other).unwrap().connect(server.url()).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_that_enrols_agents_can_allow_nothing_that_agents_may_not() {
    let server = NatsServer::start().await;
    let seed = std::fs::read_to_string(server.keys_folder().join("enrolment/signing.seed")).unwrap();
    let (signer, user) = (KeyPair::from_seed(&seed).unwrap(), KeyPair::new_user());
    let account = server.keys().public(Account::Agents);
    let everything = serde_json::json!({ "issuer_account": account, "tags": ["class:default"], "pub": { "allow": [">"] }, "sub": { "allow": [">"] },
        "subs": -1, "data": -1, "payload": -1 });
    let forged = jwt::Statement::new("user", &user.public_key(), "a1", everything).sign(&signer, 1).unwrap();
    let forged = jwt::credentials(&forged, &user.seed().unwrap());
    assert!(ConnectOptions::with_credentials(&forged).unwrap().connect(server.url()).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_the_operator_did_not_sign_is_refused() {
    let server = NatsServer::start().await;
    let elsewhere = tempfile::tempdir().unwrap();
    eventbus::nats::Keys::open(elsewhere.path()).unwrap();
    let strangers = eventbus::nats::Enrolment::open(&elsewhere.path().join("enrolment")).unwrap();
    std::fs::copy(server.enrolment().system_credentials_file(), strangers.system_credentials_file()).unwrap();
    let accounts = Accounts::connect(&[server.url()], strangers.into()).await.unwrap();
    assert!(accounts.push(Account::Agents).await.is_err(), "an account of another operator");

    let operator = KeyPair::from_seed(&std::fs::read_to_string(elsewhere.path().join("operator.seed")).unwrap()).unwrap();
    let anything = serde_json::json!({ "limits": { "subs": -1, "data": -1, "payload": -1, "conn": -1, "wildcards": true } });
    let ours = jwt::Statement::new("account", &server.keys().public(Account::Agents), "AGENTS", anything);
    std::fs::write(elsewhere.path().join("enrolment/accounts/AGENTS.jwt"), ours.sign(&operator, 1).unwrap()).unwrap();
    assert!(accounts.push(Account::Agents).await.is_err(), "another operator's word on our account");
    // Ours still holds.
    assert!(connect(&server.options(Identity::Agent(agent("a1")))).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_tells_the_server_of_an_account_is_heard_by_the_role_at_once() {
    let server = NatsServer::start().await;
    let accounts = Accounts::connect(&[server.url()], server.enrolment().into()).await.unwrap();
    let mut changes = accounts.changes(Account::Agents).await.unwrap();
    server.push_agents().await;
    assert_eq!(timeout(TEST_DEADLINE, changes.next()).await.unwrap(), Some(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_role_tells_the_orchestrator_who_was_revoked_and_of_nobody_who_came_back() {
    let (server, supervisor) = (NatsServer::start_bare(|config| config).await, Supervisor::new());
    role::run(options(&server), &supervisor).await.unwrap();
    let mut revoked = server.bus(Role::Orchestrator).await.subscribe(Subject::revoked()).await.unwrap();
    let names = [agent("a1"), agent("a2")];
    for name in &names {
        server.keys().revoke(name).unwrap();
        server.push_agents().await;
    }
    let told =
        async |revoked: &mut Subscription| -> Revoked { timeout(TEST_DEADLINE, revoked.next()).await.unwrap().unwrap().read().unwrap() };
    while told(&mut revoked).await.agents != names.clone().into() {}
    let token = server.keys().invite(&names[0], &AgentClass::default(), AgentTrust::Trusted).unwrap();
    server.enrolment().redeem(token.as_str(), &KeyPair::new_user().public_key()).unwrap();
    server.push_agents().await;
    while told(&mut revoked).await.agents != [names[1].clone()].into() {}
    assert_eq!(supervisor.shut_down().await, Ended::InOrder);
}

/// The role beside its server.
async fn with_role() -> (NatsServer, Supervisor) {
    let (server, supervisor) = (NatsServer::start_bare(|config| config).await, Supervisor::new());
    role::run(options(&server), &supervisor).await.unwrap();
    (server, supervisor)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_place_work_are_told_who_is_enrolled_and_as_what_the_administrator_said() {
    let (server, supervisor) = with_role().await;
    for who in [Role::Orchestrator, Role::Auctioneer] {
        let mut pages = roll::follow(&server.bus(who).await, &supervisor).await.unwrap();
        let mut known = Roll::default();
        let is = |known: &Roll, name: &str| known.get(&agent(name)).map(|enrolled| (enrolled.trust, enrolled.class.to_string()));
        let class = "default".to_owned();
        while is(&known, "a3").is_none() {
            known.take(timeout(TEST_DEADLINE, pages.recv()).await.unwrap().unwrap());
        }
        assert_eq!(is(&known, "a1"), Some((AgentTrust::Trusted, class)));
        // Who was invited only is nobody; who has come is told without being asked for.
        let name = agent(who.name());
        let credentials = enrol(&server, &name, "small");
        server.push_agents().await;
        while is(&known, who.name()).is_none() {
            known.take(timeout(TEST_DEADLINE, pages.recv()).await.unwrap().unwrap());
        }
        assert_eq!(is(&known, who.name()), Some((AgentTrust::Untrusted, "small".to_owned())));
        // What it says of itself is not listened to, and it cannot say it where the role does.
        let rogue = hostile(&server, &name, &credentials).await;
        #[expect(clippy::disallowed_methods, reason = "a rogue does not use the bus")]
        rogue.publish(Subject::enrolled().as_str().to_owned(), "{}".into()).await.unwrap();
        seen(&rogue).await;
        server.keys().revoke(&name).unwrap();
        server.push_agents().await;
        while is(&known, who.name()).is_some() {
            known.take(timeout(TEST_DEADLINE, pages.recv()).await.unwrap().unwrap());
        }
    }
    assert_eq!(supervisor.shut_down().await, Ended::InOrder);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_an_agent_drains_is_written_down_and_told_and_undone_only_on_purpose() {
    let (server, supervisor) = with_role().await;
    let orchestrator = server.bus(Role::Orchestrator).await;
    let mut told = orchestrator.subscribe(Subject::enrolled()).await.unwrap();
    let drain = async |name: &str, draining| -> DrainReply {
        orchestrator.request(&Subject::drain(), &DrainRequest { agent: agent(name), draining }, TEST_DEADLINE).await.unwrap()
    };
    assert_eq!(drain("nobody", true).await, DrainReply::Unknown);
    for draining in [true, false] {
        let DrainReply::Done { enrolled } = drain("a1", draining).await else { panic!("it is enrolled") };
        assert_eq!(enrolled.draining, draining);
        loop {
            let page: RollPage = timeout(TEST_DEADLINE, told.next()).await.unwrap().unwrap().read().unwrap();
            if page.agents[&agent("a1")] == enrolled {
                break;
            }
        }
        // `otto up` enrols its agents at each start.
        server.keys().enrol(&agent("a1"), &AgentClass::default(), AgentTrust::Trusted).unwrap();
        assert_eq!(server.enrolment().enrolled().unwrap()[&agent("a1")].draining, draining);
    }
    assert_eq!(supervisor.shut_down().await, Ended::InOrder);
}
