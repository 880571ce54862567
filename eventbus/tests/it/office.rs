//! The role over HTTP: who shows a token of the administrator is admitted once, and anybody sees how the bus is.

use std::{fs, net::SocketAddr};

use eventbus::{
    Pattern, Subject,
    nats::{Identity, NatsOptions, connect, jwt},
    role::{self, Directions, EnrolmentAnswer, EventbusOptions},
    subject::Role,
};
use model::{AgentName, protocol::enrolment::AgentTrust};
use nkeys::KeyPair;
use serde_json::{Value, json};
use service::Supervisor;
use testkit::{NatsServer, TEST_DEADLINE};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::timeout};

use crate::buses::agent;

/// The role beside its server.
struct Office {
    server: NatsServer,
    address: SocketAddr,
    _supervisor: Supervisor,
}

pub(crate) fn options(server: &NatsServer) -> EventbusOptions {
    EventbusOptions {
        nats: server.options(Identity::Service(Role::Eventbus)),
        servers: server.monitor().into(),
        enrolment: server.enrolment(),
        listen: ([127, 0, 0, 1], 0).into(),
        directions: Directions {
            commands_key: "the key".to_owned(),
            bus_urls: vec![server.url()],
            depot_url: "http://127.0.0.1:1".to_owned(),
        },
    }
}

impl Office {
    async fn open() -> Self {
        let (server, supervisor) = (NatsServer::start_bare(|config| config).await, Supervisor::new());
        let address = role::run(options(&server), &supervisor).await.unwrap();
        Self { server, address, _supervisor: supervisor }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn invite(&self, name: &AgentName) -> String {
        self.server.keys().invite(name, &"small".parse().unwrap(), AgentTrust::Untrusted).unwrap().as_str().to_owned()
    }

    async fn post(&self, body: String) -> reqwest::Response {
        let request = testkit::http_client().post(self.url("/v1/enrolments")).header("content-type", "application/json");
        request.body(body).send().await.unwrap()
    }

    /// Status and detail of a refusal, or 200.
    async fn enrol(&self, token: &str, user: &KeyPair) -> (u16, String) {
        let answer = self.post(json!({ "token": token, "public_key": user.public_key() }).to_string()).await;
        let status = answer.status().as_u16();
        if status != 200 {
            assert_eq!(answer.headers()["content-type"], "application/problem+json");
        }
        (status, answer.json::<Value>().await.unwrap()["detail"].as_str().unwrap_or_default().to_owned())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_with_a_token_is_admitted_as_the_administrator_said_and_speaks_on_the_bus() {
    let office = Office::open().await;
    let (name, user) = (agent("far"), KeyPair::new_user());
    let token = office.invite(&name);
    let answer = office.post(json!({ "token": token, "public_key": user.public_key() }).to_string()).await;
    assert_eq!(answer.status(), 200);
    let text = answer.text().await.unwrap();
    assert!(!text.contains(&token), "{text}");
    let answer: EnrolmentAnswer = serde_json::from_str(&text).unwrap();
    assert_eq!((&answer.agent, answer.class.as_str()), (&name, "small"));
    let credentials = jwt::credentials(&answer.jwt, &user.seed().unwrap());
    let mut statuses = office.server.bus(Role::Orchestrator).await.subscribe(Pattern::statuses()).await.unwrap();
    let options = NatsOptions { urls: answer.bus_urls, credentials, identity: Identity::Agent(name.clone()) };
    let bus = connect(&options).await.unwrap();
    bus.publish(&Subject::status(&name), &"here").await.unwrap();
    let heard = timeout(TEST_DEADLINE, statuses.next()).await.unwrap().unwrap();
    assert_eq!(heard.subject.agent(), Some(name));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_missing_wrong_used_expired_or_taken_back_admits_nobody_and_all_are_told_the_same() {
    let office = Office::open().await;
    let (name, user) = (agent("far"), KeyPair::new_user());
    let refused = office.enrol("", &user).await;
    assert_eq!(refused.0, 403);
    assert_eq!(office.enrol("otto-enrol-1.far.AAAA", &user).await, refused, "nobody was invited");
    let token = office.invite(&name);
    assert_eq!(office.enrol("otto-enrol-1.far.AAAA", &user).await, refused, "wrong");

    assert_eq!(office.enrol(&token, &user).await.0, 200);
    assert_eq!(office.enrol(&token, &user).await.0, 200, "the answer may have been lost");
    assert_eq!(office.enrol(&token, &KeyPair::new_user()).await, refused, "used");

    let late = agent("late");
    let token = office.invite(&late);
    let file = office.server.keys_folder().join("enrolment/agents/late.json");
    let mut record: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    record["standing"]["expires_at"] = 1.into();
    fs::write(&file, record.to_string()).unwrap();
    assert_eq!(office.enrol(&token, &KeyPair::new_user()).await, refused, "expired");

    let token = office.invite(&late);
    office.server.keys().revoke(&late).unwrap();
    assert_eq!(office.enrol(&token, &KeyPair::new_user()).await, refused, "taken back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_that_show_one_token_at_once_one_is_admitted() {
    let office = Office::open().await;
    let token = office.invite(&agent("far"));
    let users: Vec<_> = (0..16).map(|_| KeyPair::new_user()).collect();
    let asked = futures_util::future::join_all(users.iter().map(|user| office.enrol(&token, user))).await;
    assert_eq!(asked.iter().filter(|(status, _)| *status == 200).count(), 1, "{asked:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_request_is_told_so_and_the_role_says_how_the_bus_is() {
    let office = Office::open().await;
    let account = KeyPair::new_account();
    assert_eq!(office.enrol(&office.invite(&agent("far")), &account).await.0, 400, "no user's key");
    for (body, status) in [("", 400), ("{}", 400), (r#"{"token":"","public_key":"","class":"big"}"#, 400), (&"x".repeat(100_000), 413)] {
        let answer = office.post(body.to_owned()).await;
        assert_eq!(answer.status(), status, "{body:.40}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
    }
    let client = testkit::http_client();
    assert_eq!(client.post(office.url("/v1/enrolments")).body("{}").send().await.unwrap().status(), 400);
    assert_eq!(client.get(office.url("/v1/enrolments")).send().await.unwrap().status(), 405);
    assert_eq!(client.get(office.url("/v2")).send().await.unwrap().status(), 404);
    let health = client.get(office.url("/health")).send().await.unwrap();
    assert_eq!(health.status(), 200);
    assert_eq!(health.json::<Value>().await.unwrap()["status"], "ok");
    let metrics = client.get(office.url("/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("otto_build_info{role=\"eventbus\"") && metrics.contains("otto_bus_is_well 1"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_do_not_send_what_they_began_keep_nobody_else_out() {
    let office = Office::open().await;
    let mut silent = Vec::new();
    // More than the connections that it takes at once.
    for _ in 0..70 {
        let mut stream = TcpStream::connect(office.address).await.unwrap();
        let head = b"POST /v1/enrolments HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{";
        stream.write_all(head).await.unwrap();
        silent.push(stream);
    }
    let (name, user) = (agent("far"), KeyPair::new_user());
    let token = office.invite(&name);
    let enrolled = timeout(TEST_DEADLINE, office.enrol(&token, &user)).await.expect("there is a place for it");
    assert_eq!(enrolled.0, 200);
    drop(silent);
}
