//! The client against the real API, with all roles behind it in this process.

use std::{io, net::SocketAddr, time::Duration};

use apispec::{EventView, RunStatus};
use blob::{Blobs, DiskStore, disk::Durability};
use futures_util::StreamExt as _;
use model::RunOutcome;
use orchestrator::{
    callbacks::CallbackKey,
    engine::{self, EngineOptions},
    http::{self, ApiToken, HttpOptions, Projects, Tokens},
};
use parser_service::{Isolation, ParserOptions};
use service::Supervisor;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    time::timeout,
};

use super::*;
use crate::command::log::follow;

const TOKEN: &str = "a token for tests";
/// More than anything here takes.
const DEADLINE: Duration = Duration::from_mins(1);

/// Every role but the agent, unless a test starts one.
struct House {
    client: Client,
    bus: eventbus::Bus,
    blobs: Blobs,
    supervisor: Supervisor,
    folder: TempDir,
}

impl House {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::Disk(DiskStore::open(&folder.path().join("depot"), Durability::None).unwrap());
        let (bus, supervisor) = (eventbus::memory::bus(), Supervisor::new());
        let options = ParserOptions { libraries: vec![stdlib::library()], isolation: Isolation::None, listen: None };
        parser_service::run(options, bus.clone(), blobs.clone(), &supervisor).await.unwrap();
        auctioneer::run(auctioneer::AuctioneerOptions { name: "test".to_owned(), asks_the_roll: false }, bus.clone(), &supervisor)
            .await
            .unwrap();
        let options = EngineOptions::new("test", CallbackKey::generate().unwrap());
        let orchestrator = engine::start(options, bus.clone(), blobs.clone(), &supervisor).await.unwrap();
        let listen: SocketAddr = ([127, 0, 0, 1], 0).into();
        let options = HttpOptions {
            listen,
            token: ApiToken::new(TOKEN),
            tokens: Tokens::default(),
            projects: Projects::default(),
            requests_per_s: None,
            hosts: Vec::new(),
            origins: Vec::new(),
        };
        let address = http::serve(options, orchestrator, &supervisor).unwrap();
        let client = Client::new(Connection::new(&format!("http://{address}/"), TOKEN)).unwrap();
        Self { client, bus, blobs, supervisor, folder }
    }

    async fn agent(&self) {
        let options = agent::AgentOptions {
            name: "a1".parse().unwrap(),
            slots: 2,
            data: self.folder.path().join("agent"),
            price_micros_per_s: 0,
            commands: None,
            class: "default".to_owned(),
            facts: agent::machine_facts(),
            passthrough: agent::tool_homes(&std::collections::BTreeMap::new()),
            finds_tools: false,
            containers: agent::container::Containers::None,
            disk_reserve_bytes: agent::DISK_RESERVE_BYTES,
            sandbox: agent::SandboxOptions::none(),
            program: agent::THIS_PROGRAM.into(),
            in_place: None,
            attempts: u32::MAX,
        };
        agent::run(options, self.bus.clone(), self.blobs.clone(), &self.supervisor).await.unwrap();
    }

    async fn create(&self, pipeline: &str) -> RunId {
        let create = serde_json::from_value(serde_json::json!({ "pipeline": pipeline })).unwrap();
        self.client.create(&create, None).await.unwrap()
    }
}

const TWO_STAGES: &str = "pipeline { stage 'Build' { steps { sh 'echo one; echo two >&2' } } stage 'Test' { steps { echo 'three' } } }";

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_created_followed_and_read_again() {
    let house = House::start().await;
    house.agent().await;
    let run = house.create(TWO_STAGES).await;
    let mut printed = Vec::new();
    let outcome = timeout(DEADLINE, follow(&house.client, &run, None, &mut printed, false)).await.unwrap().unwrap();
    let printed = String::from_utf8(printed).unwrap();
    assert_eq!(outcome, RunOutcome::Success, "{printed}");
    for line in ["Build ▶ on a1", "Build │ one", "Build │ two", "Build ✔ success in ", "Test  │ three", "run: success in "] {
        assert!(printed.lines().any(|printed| printed.starts_with(line)), "no `{line}` in\n{printed}");
    }

    let events = house.client.events(&run).await.unwrap();
    assert_eq!(events.first().map(EventView::id).as_deref(), Some("1.0"));
    let detail = house.client.show(&house.client.pick("latest").await.unwrap()).await.unwrap();
    assert!(matches!(detail.run.status, RunStatus::Ended { outcome: RunOutcome::Success, .. }), "{:?}", detail.run);
    let pieces: Vec<Bytes> = house.client.log(&run, Some("Test")).await.unwrap().map(Result::unwrap).collect().await;
    assert!(String::from_utf8(pieces.concat()).unwrap().contains("three\n"));
    house.supervisor.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_has_ended_is_followed_with_the_output_before_the_end() {
    let house = House::start().await;
    house.agent().await;
    let run = house.create(TWO_STAGES).await;
    timeout(DEADLINE, follow(&house.client, &run, None, io::sink(), false)).await.unwrap().unwrap();
    let mut printed = Vec::new();
    timeout(DEADLINE, follow(&house.client, &run, None, &mut printed, false)).await.unwrap().unwrap();
    let printed = String::from_utf8(printed).unwrap();
    let at =
        |line: &str| printed.lines().position(|printed| printed.starts_with(line)).unwrap_or_else(|| panic!("no `{line}`:\n{printed}"));
    let order = ["Build ▶", "Build │ one", "Build ✔", "Test  ▶", "Test  │ three", "Test  ✔", "run: success"].map(at);
    assert!(order.is_sorted(), "{printed}");
    assert!(at("Build │ two") < at("Build ✔"), "{printed}");
    house.supervisor.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_nobody_takes_says_so_and_can_be_cancelled() {
    let house = House::start().await;
    let run = house.create(TWO_STAGES).await;
    let mut events = house.client.follow_events(&run);
    let Some(EventMessage::Event(first)) = events.next().await.unwrap() else { panic!("a run has events") };
    assert_eq!(first.event.kind(), "run_accepted");
    let cancelling = house.client.cancel(&run, false).await.unwrap();
    assert!(matches!(cancelling.status, RunStatus::Cancelling { .. } | RunStatus::Ended { .. }));
    let ended = timeout(DEADLINE, async {
        loop {
            match events.next().await.unwrap() {
                Some(EventMessage::End(end)) => return end,
                Some(EventMessage::Event(_)) => {}
                None => panic!("a stream ends with its end"),
            }
        }
    });
    assert_eq!(ended.await.unwrap().outcome, RunOutcome::Aborted);
    assert_eq!(events.next().await.unwrap(), None);
    assert!(matches!(house.client.cancel(&run, false).await.unwrap().status, RunStatus::Ended { .. }), "the same request again");
    let again = house.client.cancel(&run, true).await.unwrap_err();
    assert!(matches!(&again, ClientError::Refused(problem) if problem.code == Code::RunEnded), "{again}");
    house.supervisor.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_says_what_where_and_how_to_mend_it() {
    let house = House::start().await;
    let url = house.client.url().to_owned();
    let wrong = Client::new(Connection::new(&url, "wrong")).unwrap();
    let error = wrong.list(1, None).await.unwrap_err().to_string();
    assert!(error.contains("no valid token") && error.contains("(unauthorized)") && error.contains("OTTO_API_TOKEN_FILE"), "{error}");
    assert!(matches!(house.client.pick("latest").await, Err(PickError::NoRuns)));
    house.supervisor.shut_down().await;

    let error = house.client.list(1, None).await.unwrap_err().to_string();
    assert!(error.contains(&url) && error.contains("otto up"), "{error}");
    for address in ["", "127.0.0.1:7480", "wss://otto.test", "http://", "https://"] {
        assert!(matches!(Client::new(Connection::new(address, TOKEN)), Err(ClientError::Address(_))), "{address}");
    }
}

/// Some server, and a client that takes it for an orchestrator.
async fn a_server() -> (Client, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (Client::new(Connection::new(&url, TOKEN)).unwrap(), listener)
}

/// Answers one request, and gives what was asked.
async fn answer(listener: TcpListener, answer: String) -> String {
    let (mut connection, _) = listener.accept().await.unwrap();
    let mut asked = Vec::new();
    while !asked.windows(4).any(|end| end == b"\r\n\r\n") {
        connection.read_buf(&mut asked).await.unwrap();
    }
    connection.write_all(answer.as_bytes()).await.unwrap();
    String::from_utf8(asked).unwrap()
}

#[tokio::test]
async fn a_server_that_sends_its_callers_elsewhere_is_not_followed_there() {
    let (client, listener) = a_server().await;
    let moved = "HTTP/1.1 308 Permanent Redirect\r\nLocation: https://otto.test/v1/runs\r\nContent-Length: 0\r\n\r\n";
    let (listed, _) = tokio::join!(client.list(1, None), answer(listener, moved.to_owned()));
    let error = listed.unwrap_err().to_string();
    assert!(error.contains(client.url()) && error.contains("to https://otto.test/v1/runs"), "{error}");
}

#[tokio::test]
async fn a_server_that_is_older_is_named_as_such() {
    let (client, listener) = a_server().await;
    let problem = serde_json::to_string(&Code::UnknownPath.problem("there is no path `/v1/sources`")).unwrap();
    let head = format!("HTTP/1.1 404 Not Found\r\nContent-Type: application/problem+json\r\nContent-Length: {}", problem.len());
    let (brought, _) = tokio::join!(client.bring(""), answer(listener, format!("{head}\r\n\r\n{problem}")));
    let error = brought.unwrap_err().to_string();
    assert!(error.contains("/v1/sources") && error.contains("the server is older than this otto"), "{error}");
    // What an older server would not read is not sent where it is not needed.
    let create: RunCreate = serde_json::from_value(serde_json::json!({ "pipeline": "" })).unwrap();
    let sent = serde_json::to_value(create).unwrap();
    assert!(sent.get("listing").is_none() && sent.get("changed").is_none(), "{sent}");
}
