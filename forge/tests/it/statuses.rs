//! What forges are told of runs, by a server that answers as their documentation says.

use std::{
    collections::VecDeque,
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, http::StatusCode, web};
use eventbus::Bus;
use model::{
    Digest, ProjectName, RunId, RunOutcome, Timestamp, TriggerId,
    context::{EventKind, PullRequest, TriggerContext},
    event::run::{Planned, RECORD_SCHEMA, RunEvent, RunRecord},
    planning::Text,
    trigger::{Claims, Rerun, RerunStages, Trigger},
};
use serde_json::{Value, json};
use service::{OnError, Supervisor};
use tokio::sync::watch;

use crate::world::{World, wait_for};

const COMMIT: &str = "c0ffee0123456789c0ffee0123456789c0ffee01";
const TOKEN: &str = "a-token-of-the-tests";
/// 2026-11-21T00:00Z.
const NOW: u64 = 1_795_219_200_000;

/// A request that came.
#[derive(Debug, Clone)]
struct Came {
    path: String,
    headers: Vec<(String, String)>,
    body: Value,
}

impl Came {
    fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    fn state(&self) -> &str {
        self.body["state"].as_str().unwrap()
    }
}

/// What is answered: a status, headers, a body.
type Answer = (u16, Vec<(&'static str, String)>, &'static str);

#[derive(Clone, Default)]
struct Shared {
    /// Whether nothing is taken, nor counted.
    down: Arc<AtomicBool>,
    /// Whether what comes is counted, and has no answer yet.
    held: Arc<watch::Sender<bool>>,
    came: Arc<Mutex<Vec<Came>>>,
    /// Once each; then 201.
    answers: Arc<Mutex<VecDeque<Answer>>>,
}

/// The API of a forge on loopback, until it is dropped.
struct Api {
    address: SocketAddr,
    shared: Shared,
    supervisor: Supervisor,
}

impl Drop for Api {
    fn drop(&mut self) {
        self.supervisor.token().cancel();
    }
}

impl Api {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (supervisor, shared, address) = (Supervisor::new(), Shared::default(), listener.local_addr().unwrap());
        let state = shared.clone();
        let server = HttpServer::new(move || App::new().app_data(web::Data::new(state.clone())).default_service(web::to(answer)));
        let server = server.workers(1).shutdown_signal(supervisor.token().clone().cancelled_owned()).listen(listener).unwrap().run();
        supervisor.spawn("a forge's API", OnError::Shutdown, async move { Ok(server.await?) });
        Self { address, shared, supervisor }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn came(&self) -> Vec<Came> {
        self.shared.came.lock().unwrap().clone()
    }

    fn states(&self) -> Vec<String> {
        self.came().iter().map(|came| came.state().to_owned()).collect()
    }

    async fn wait(&self, states: &[&str]) {
        wait_for("the forge is told", || self.came().len() >= states.len()).await;
        assert_eq!(self.states(), states);
    }

    fn answers(&self, answers: impl IntoIterator<Item = Answer>) {
        self.shared.answers.lock().unwrap().extend(answers);
    }
}

async fn answer(shared: web::Data<Shared>, request: HttpRequest, body: web::Bytes) -> HttpResponse {
    if shared.down.load(Ordering::Relaxed) {
        return HttpResponse::BadGateway().body("down");
    }
    let headers = request.headers().iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    let body = serde_json::from_slice(&body).unwrap();
    shared.came.lock().unwrap().push(Came { path: request.uri().to_string(), headers, body });
    shared.held.subscribe().wait_for(|held| !held).await.unwrap();
    let (status, headers, body) = shared.answers.lock().unwrap().pop_front().unwrap_or((201, vec![], "{}"));
    let mut response = HttpResponse::build(StatusCode::from_u16(status).unwrap());
    for header in headers {
        response.insert_header(header);
    }
    response.body(body)
}

/// A world whose project `shop` has its statuses shown there; no forge runs yet.
fn world(api: &str, forge: &str, more: &str) -> World {
    let world = World::new();
    fs::write(world.path("token"), format!("{TOKEN}\n")).unwrap();
    let statuses = format!(
        "statuses: {{ forge: {forge}, api: '{api}', repository: octo/shop, token_file: {}, {more} }}\n",
        world.path("token").display()
    );
    world.add_project("shop", &statuses);
    world.clock.send_replace(NOW);
    world
}

/// A run as the orchestrator writes its log.
struct Written {
    bus: Bus,
    run: RunId,
    last: u64,
}

impl Written {
    async fn begin(world: &World, trigger: &Trigger) -> Self {
        Self::begin_as(world, trigger, Planned::plan(Digest::of(b"a plan"))).await
    }

    async fn begin_as(world: &World, trigger: &Trigger, planned: Planned) -> Self {
        let mut written = Self { bus: world.bus.clone(), run: trigger.run(), last: 0 };
        written.write(RunEvent::RunAccepted { trigger: trigger.clone(), planned }, NOW).await;
        written
    }

    async fn write(&mut self, event: RunEvent, at: u64) {
        let record = RunRecord { schema: RECORD_SCHEMA, previous: None, actor: "o1".to_owned(), at: Timestamp(at), events: vec![event] };
        let bytes = serde_json::to_vec(&record).unwrap();
        self.last = self.bus.append(&self.run, self.last, bytes.into()).await.unwrap();
    }

    async fn end(mut self, outcome: RunOutcome) {
        self.write(RunEvent::RunFinished { outcome }, NOW).await;
    }
}

/// A trusted push; the delivery tells one from another.
fn push(delivery: &str) -> Trigger {
    let context =
        TriggerContext { event: EventKind::Push, branch: "main".to_owned(), commit: COMMIT.to_owned(), ..TriggerContext::default() };
    let id = TriggerId::of("git", delivery);
    Trigger { context, claims: Claims::own(), ..Trigger::new(id, project("shop"), "Ottofile", Text::Inline(String::new())) }
}

fn project(name: &str) -> ProjectName {
    name.parse().unwrap()
}

/// A forge that has begun to read.
async fn start(world: &World) {
    world.start().await;
    wait_for("statuses begin", || world.path("data/statuses/cursor").exists()).await;
}

fn kept(world: &World) -> usize {
    let files = fs::read_dir(world.path("data/statuses")).unwrap();
    files.filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "json")).count()
}

#[tokio::test]
async fn each_kind_of_forge_is_told_as_its_api_wants_it() {
    for (forge, path, header, value, name, failed) in [
        ("github", "/repos/octo/shop/statuses/", "authorization", "Bearer ", "context", "failure"),
        ("gitlab", "/projects/octo%2Fshop/statuses/", "private-token", "", "name", "failed"),
        ("gitea", "/repos/octo/shop/statuses/", "authorization", "token ", "context", "failure"),
        ("forgejo", "/repos/octo/shop/statuses/", "authorization", "token ", "context", "failure"),
    ] {
        let api = Api::start();
        let world = world(&api.url(), forge, "private_network: true");
        start(&world).await;
        let run = Written::begin(&world, &push("1")).await;
        api.wait(&["pending"]).await;
        let id = run.run.to_string();
        run.end(RunOutcome::Failure).await;
        api.wait(&["pending", failed]).await;
        for came in api.came() {
            assert_eq!((came.path.as_str(), came.header(header)), (format!("{path}{COMMIT}").as_str(), format!("{value}{TOKEN}").as_str()));
            assert_eq!(came.body[name], json!("otto/shop/push"));
            assert_eq!(came.body["target_url"], json!(format!("https://otto.example.org/v1/runs/{id}")));
            assert!(came.body["description"].as_str().unwrap().starts_with("the run "), "{came:?}");
        }
        wait_for("nothing is kept", || kept(&world) == 0).await;
        world.end().await;
    }
}

#[tokio::test]
async fn what_a_forge_that_is_down_was_not_told_is_told_after_a_restart_and_no_beginning_after_the_end() {
    let api = Api::start();
    api.shared.down.store(true, Ordering::Relaxed);
    let mut world = world(&api.url(), "github", "private_network: true");
    start(&world).await;
    let run = Written::begin(&world, &push("1")).await;
    wait_for("it is written down", || kept(&world) == 1).await;
    world.restart().await;
    run.end(RunOutcome::Success).await;
    let is_final = || {
        let mut files = fs::read_dir(world.path("data/statuses")).unwrap();
        files.any(|entry| fs::read_to_string(entry.unwrap().path()).is_ok_and(|text| text.contains("\"outcome\":\"success\"")))
    };
    wait_for("its end is written down", is_final).await;
    let text: Vec<String> =
        fs::read_dir(world.path("data/statuses")).unwrap().map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap()).collect();
    assert!(!text.concat().contains(TOKEN));
    assert!(api.came().is_empty());
    api.shared.down.store(false, Ordering::Relaxed);
    world.restart().await;
    wait_for("its end is told, and the answer taken", || kept(&world) == 0).await;
    // A beginning that was on its way when the forge came back may still have arrived, before the end.
    let mut states = api.states();
    assert!(states == ["success"] || states == ["pending", "success"], "{states:?}");
    // Nothing of it comes again: what comes next is of another run.
    world.restart().await;
    let _next = Written::begin(&world, &push("2")).await;
    states.push("pending".to_owned());
    api.wait(&states.iter().map(String::as_str).collect::<Vec<_>>()).await;
    world.end().await;
}

#[tokio::test]
async fn who_ends_in_order_hears_the_answer_to_what_it_has_just_said() {
    let api = Api::start();
    let mut world = world(&api.url(), "github", "private_network: true");
    start(&world).await;
    api.shared.held.send_replace(true);
    let run = Written::begin(&world, &push("1")).await;
    api.wait(&["pending"]).await;
    let address = world.address;
    let answered_at_its_end = async {
        wait_for("the role ends", || TcpStream::connect(address).is_err()).await;
        api.shared.held.send_replace(false);
    };
    tokio::join!(world.restart(), answered_at_its_end);
    run.end(RunOutcome::Success).await;
    api.wait(&["pending", "success"]).await;
    world.end().await;
}

#[tokio::test]
async fn a_pause_that_the_forge_asks_for_is_kept_and_what_it_cannot_take_is_not_said_again() {
    let api = Api::start();
    api.answers([
        (503, vec![], "down"),
        (429, vec![("retry-after", "1".to_owned())], "slow down"),
        (403, vec![("x-ratelimit-remaining", "0".to_owned()), ("x-ratelimit-reset", (NOW / 1000 + 1).to_string())], "rate limit"),
        (201, vec![], "{}"),
        (422, vec![], "{\"message\":\"No commit found for SHA\"}"),
    ]);
    let world = world(&api.url(), "github", "private_network: true");
    start(&world).await;
    let run = Written::begin(&world, &push("1")).await;
    api.wait(&["pending"; 4]).await;
    run.end(RunOutcome::Aborted).await;
    api.wait(&["pending", "pending", "pending", "pending", "error"]).await;
    wait_for("it is given up", || kept(&world) == 0).await;
    Written::begin(&world, &push("2")).await.end(RunOutcome::Unstable).await;
    wait_for("the next one is told", || api.states().last().is_some_and(|last| last == "failure")).await;
    assert_eq!(api.states().iter().filter(|state| *state == "error").count(), 1);
    world.end().await;
}

#[tokio::test]
async fn a_beginning_that_the_forge_did_not_take_is_overtaken_by_the_end() {
    let api = Api::start();
    // So long that the end comes first, and the restart makes it be said.
    api.answers([(503, vec![("retry-after", "3600".to_owned())], "down")]);
    let mut world = world(&api.url(), "gitlab", "private_network: true");
    start(&world).await;
    let run = Written::begin(&world, &push("1")).await;
    api.wait(&["pending"]).await;
    run.end(RunOutcome::Success).await;
    world.restart().await;
    wait_for("the end is told", || api.states().last().is_some_and(|last| last == "success")).await;
    let states = api.states();
    assert!(states == ["pending", "success"] || states == ["pending", "pending", "success"], "{states:?}");
    wait_for("nothing is left to say", || kept(&world) == 0).await;
    world.end().await;
}

#[tokio::test]
async fn a_later_run_of_the_commit_takes_the_place_of_an_earlier_one() {
    let api = Api::start();
    let world = world(&api.url(), "gitea", "private_network: true");
    start(&world).await;
    let first = Written::begin(&world, &push("1")).await;
    api.wait(&["pending"]).await;
    let second = Written::begin(&world, &push("2")).await;
    api.wait(&["pending", "pending"]).await;
    first.end(RunOutcome::Failure).await;
    second.end(RunOutcome::Success).await;
    api.wait(&["pending", "pending", "success"]).await;
    wait_for("nothing is left to say", || kept(&world) == 0).await;
    world.end().await;
}

#[tokio::test]
async fn nobody_but_a_forge_makes_a_commit_look_good() {
    let api = Api::start();
    let world = world(&api.url(), "forgejo", "private_network: true");
    start(&world).await;
    let typed = Trigger { claims: Claims::default(), ..push("typed") };
    let child = Trigger { generation: 1, ..push("child") };
    let elsewhere = Trigger { project: project("other"), ..push("elsewhere") };
    let nowhere = Trigger { context: TriggerContext { commit: "../../x".to_owned(), ..push("").context }, ..push("nowhere") };
    let pull_request = PullRequest { number: 7, target: "main".to_owned(), source: "fix".to_owned(), fork: true };
    let context = TriggerContext {
        event: EventKind::PullRequest,
        pull_request: Some(pull_request),
        commit: COMMIT.to_owned(),
        ..TriggerContext::default()
    };
    let claims = Claims { actor: Some("eve".to_owned()), ..Claims::default() };
    let typed_request = Trigger { context: context.clone(), claims: claims.clone(), ..push("typed too") };
    for trigger in [&typed, &child, &elsewhere, &nowhere, &typed_request] {
        Written::begin(&world, trigger).await.end(RunOutcome::Success).await;
    }
    let not_triggered = Planned::NotTriggered { reason: "the branch is `x`".to_owned() };
    Written::begin_as(&world, &push("not triggered"), not_triggered).await.end(RunOutcome::Skipped).await;
    // As the forge makes it of a webhook.
    let id = TriggerId::of("forge", &format!("shop pull_request 7 {COMMIT}"));
    let told = Trigger { id, context, claims, ..push("") };
    let run = Written::begin(&world, &told).await;
    api.wait(&["pending"]).await;
    let of = run.run.clone();
    run.end(RunOutcome::Failure).await;
    let again = Trigger { id: TriggerId::of("rerun", "1"), rerun: Some(Rerun { of, stages: RerunStages::All }), ..told };
    api.wait(&["pending", "failure"]).await;
    Written::begin(&world, &again).await;
    api.wait(&["pending", "failure", "pending"]).await;
    assert!(api.came().iter().all(|came| came.body["context"] == json!("otto/shop/pull_request")));
    world.end().await;
}

#[tokio::test]
async fn a_project_of_which_nothing_is_trusted_has_statuses_of_what_its_forge_told() {
    let api = Api::start();
    let world = world(&api.url(), "github", "private_network: true");
    start(&world).await;
    let untrusted = |id, trigger: Trigger| Trigger { id, claims: Claims::default(), ..trigger };
    let tag = TriggerContext { event: EventKind::Tag, tag: "v1".to_owned(), branch: String::new(), ..push("").context };
    let tagged = Trigger { context: tag, ..push("") };
    // Somebody typed these.
    for typed in [untrusted(TriggerId::of("api", "1"), push("")), untrusted(TriggerId::of("api", "2"), tagged.clone())] {
        Written::begin(&world, &typed).await.end(RunOutcome::Success).await;
    }
    // As the forge makes them of webhooks and of what it finds.
    let pushed = untrusted(TriggerId::of("forge", &format!("shop push refs/heads/main {COMMIT}")), push(""));
    let tagged = untrusted(TriggerId::of("forge", &format!("shop tag refs/tags/v1 {COMMIT}")), tagged);
    Written::begin(&world, &pushed).await;
    api.wait(&["pending"]).await;
    Written::begin(&world, &tagged).await.end(RunOutcome::Success).await;
    wait_for("the end of the second is told", || api.states().last().is_some_and(|last| last == "success")).await;
    let names: Vec<_> = api.came().iter().map(|came| came.body["context"].as_str().unwrap().to_owned()).collect();
    assert_eq!((names[0].as_str(), names.last().unwrap().as_str()), ("otto/shop/push", "otto/shop/tag"));
    assert_eq!(names.iter().filter(|name| *name == "otto/shop/push").count(), 1);
    world.end().await;
}

#[tokio::test]
async fn no_redirect_is_followed_and_the_token_is_read_each_time() {
    let (api, elsewhere) = (Api::start(), Api::start());
    api.answers([(307, vec![("location", format!("{}/x", elsewhere.url()))], ""), (401, vec![], "bad credentials")]);
    let world = world(&api.url(), "github", "private_network: true");
    start(&world).await;
    let run = Written::begin(&world, &push("1")).await;
    wait_for("it was sent elsewhere", || !api.came().is_empty()).await;
    replace(&world.path("token"), "another-token");
    wait_for("it is told", || api.came().len() >= 3).await;
    assert!(elsewhere.came().is_empty(), "no redirect is followed");
    assert_eq!(api.came().last().unwrap().header("authorization"), "Bearer another-token");
    run.end(RunOutcome::Success).await;
    wait_for("its end is told", || api.states().last().is_some_and(|last| last == "success")).await;
    world.end().await;
}

/// A file changes at once, as somebody may be reading it.
fn replace(path: &Path, text: &str) {
    fs::write(path.with_extension("new"), text).unwrap();
    fs::rename(path.with_extension("new"), path).unwrap();
}

#[tokio::test]
async fn what_is_a_day_old_is_no_news() {
    let api = Api::start();
    let world = world(&api.url(), "github", "private_network: true");
    start(&world).await;
    world.clock.send_replace(NOW + 25 * 60 * 60 * 1000);
    Written::begin(&world, &push("old")).await.end(RunOutcome::Success).await;
    let mut new = Written { bus: world.bus.clone(), run: push("new").run(), last: 0 };
    let planned = Planned::plan(Digest::of(b"a plan"));
    new.write(RunEvent::RunAccepted { trigger: push("new"), planned }, NOW + 25 * 60 * 60 * 1000).await;
    api.wait(&["pending"]).await;
    world.end().await;
}
