//! The role on the bus in memory: every request has an answer.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers, too")]

use std::{collections::BTreeMap, time::Duration};

use blob::{Blobs, DiskStore, Durability};
use eventbus::{Bus, Subject};
use futures_util::future::join_all;
use model::{
    Digest,
    context::TriggerContext,
    plan::PlanDocument,
    planning::{INLINE_BYTES_MAX, LOCK_FILE, PlanReply, PlanRequest, Text, TriggersReply, TriggersRequest},
};
use parser::{PlanInput, Planning};
use parser_service::{Isolation, Makers, ParserOptions, answer, run};
use service::{Supervisor, supervisor::Ended};
use tempfile::TempDir;

/// More than any plan takes on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(30);

struct Role {
    bus: Bus,
    blobs: Blobs,
    address: std::net::SocketAddr,
    supervisor: Supervisor,
    _folder: TempDir,
}

impl Role {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::Disk(DiskStore::open(folder.path(), Durability::None).unwrap());
        let (bus, supervisor) = (eventbus::memory::bus(), Supervisor::new());
        let listen = Some("127.0.0.1:0".parse().unwrap());
        let options = ParserOptions { libraries: vec![stdlib::library()], isolation: Isolation::None, listen };
        let address = run(options, bus.clone(), blobs.clone(), &supervisor).await.unwrap().unwrap();
        Self { bus, blobs, address, supervisor, _folder: folder }
    }

    async fn ask(&self, request: &PlanRequest) -> PlanReply {
        self.bus.request(&Subject::plan(), request, TIMEOUT).await.unwrap()
    }

    async fn ask_about(&self, source: &str) -> PlanReply {
        self.ask(&request(Text::Inline(source.to_owned()))).await
    }
}

/// The one file that every pipeline asks for: there is none.
fn no_lock<T>() -> BTreeMap<String, Option<T>> {
    BTreeMap::from([(LOCK_FILE.to_owned(), None)])
}

fn request(source: Text) -> PlanRequest {
    PlanRequest { path: "Ottofile".to_owned(), source, context: TriggerContext::default(), files: no_lock(), listing: None, changed: None }
}

/// The plan that the parser itself makes.
fn planned(source: &str) -> PlanDocument {
    let (context, files, libraries) = (TriggerContext::default(), no_lock(), [stdlib::library()]);
    let (listing, changed) = (None, None);
    let input =
        PlanInput { path: "x", source: source.as_bytes(), context: &context, files: &files, listing, changed, libraries: &libraries };
    match parser::plan(&input) {
        Planning::Plan { document, .. } => document,
        other @ (Planning::Refused(_) | Planning::Needs(_)) => panic!("no plan: {other:?}"),
    }
}

const SOURCE: &str = "pipeline { stage 'Build' { steps { sh 'make' } } }";

#[tokio::test]
async fn a_file_is_answered_with_the_plan_that_the_parser_makes() {
    let role = Role::start().await;
    let expected = planned(SOURCE);
    let reply = role.ask_about(SOURCE).await;
    let PlanReply::Planned { digest, plan: Text::Inline(plan), .. } = reply else { panic!("{reply:?}") };
    assert_eq!(digest, expected.digest());
    assert_eq!(plan.as_bytes(), expected.bytes());
    let direct =
        answer(&request(Text::Inline(SOURCE.to_owned())), &role.blobs, &Makers::new(Isolation::None, vec![stdlib::library()])).await;
    assert_eq!(direct, PlanReply::Planned { digest, plan: Text::Inline(plan), warnings: vec![], not_triggered: None });
}

#[tokio::test]
async fn large_sources_and_plans_go_through_the_depot() {
    let role = Role::start().await;
    let source = format!("pipeline {{ stage 'Build' {{ steps {{ sh '{}' }} }} }}", "x".repeat(INLINE_BYTES_MAX));
    let stored = role.blobs.put(source.clone().into()).await.unwrap();
    let reply = role.ask(&request(Text::Depot(stored))).await;
    let PlanReply::Planned { digest, plan: Text::Depot(plan), .. } = reply else { panic!("{reply:?}") };
    let bytes = role.blobs.get(&plan).await.unwrap();
    assert_eq!(PlanDocument::read(&bytes).unwrap(), planned(&source));
    assert_eq!(digest, plan);
}

#[tokio::test]
async fn a_wrong_file_is_answered_with_what_is_wrong() {
    let role = Role::start().await;
    let PlanReply::Refused { diagnostics } = role.ask_about("pipeline { steps { ehco 'a' } }").await else { panic!("not refused") };
    assert_eq!((diagnostics[0].code.as_str(), diagnostics[0].file.as_str()), ("E0401", "Ottofile"));
}

#[tokio::test]
async fn what_starts_runs_of_a_file_is_told_without_all_that_its_plan_needs() {
    let role = Role::start().await;
    let ask = async |source: &str| {
        let request = TriggersRequest { path: "Ottofile".to_owned(), source: Text::Inline(source.to_owned()) };
        role.bus.request::<_, TriggersReply>(&Subject::triggers(), &request, TIMEOUT).await.unwrap()
    };
    let lines = "triggers { push 'main' cron '0 3 * * *', '5  4 * * mon' }";
    let TriggersReply::Read { rules } = ask(&format!("{lines}\npipeline {{ from 'not-here' nonsense }}")).await else { panic!("no rules") };
    let cron: Vec<_> = rules.iter().map(|rule| rule.cron.as_str()).collect();
    assert_eq!(cron, ["", "0 3 * * *", "5 4 * * mon"]);
    for (source, code) in [("triggers { cron 'daily' }", "E0231"), ("triggers { cron '0 3 * * *'", "E0105"), ("triggers 'x'", "E0205")] {
        let TriggersReply::Refused { diagnostics } = ask(source).await else { panic!("{source} is not refused") };
        assert_eq!(diagnostics[0].code, code, "{source}");
    }
    let many: Vec<String> = (0..20).flat_map(|hour| (0..60).map(move |minute| format!("'{minute} {hour} * * *'"))).collect();
    let TriggersReply::Refused { diagnostics } = ask(&format!("triggers {{ cron {} }}", many.join(", "))).await else { panic!("too many") };
    assert!(diagnostics[0].message.contains("1000 lines"), "{diagnostics:?}");
    role.supervisor.shut_down().await;
}

#[tokio::test]
async fn mistakes_fit_into_a_message_whatever_the_path() {
    let role = Role::start().await;
    let source = Text::Inline(format!("pipeline {{ steps {{ {} }} }}", "ehco ".repeat(1000)));
    let with_path = |path: String| PlanRequest { path, ..request(source.clone()) };
    let PlanReply::Refused { diagnostics } = role.ask(&with_path("long/".repeat(4000))).await else { panic!("not refused") };
    assert!(!diagnostics.is_empty());
    assert!(matches!(role.ask(&with_path("\u{1}".repeat(150_000))).await, PlanReply::Refused { .. } | PlanReply::Unavailable { .. }));
}

#[tokio::test]
async fn what_the_depot_does_not_have_is_asked_for_again_later() {
    let role = Role::start().await;
    let missing = Digest::of(b"nobody stored this");
    let reply = role.ask(&request(Text::Depot(missing))).await;
    assert!(matches!(&reply, PlanReply::Unavailable { message } if message.contains(&missing.to_string())), "{reply:?}");
    let files = BTreeMap::from([("list.json".to_owned(), Some(Text::Depot(missing)))]);
    let reply = role.ask(&PlanRequest { files, ..request(Text::Inline(SOURCE.to_owned())) }).await;
    assert!(matches!(&reply, PlanReply::Unavailable { message } if message.contains("list.json")), "{reply:?}");
}

#[tokio::test]
async fn a_request_that_is_none_has_an_answer_and_harms_no_other() {
    let role = Role::start().await;
    for nonsense in ["", "{}", "null"] {
        let reply: PlanReply = role.bus.request(&Subject::plan(), &nonsense, TIMEOUT).await.unwrap();
        assert!(matches!(reply, PlanReply::Unavailable { .. }), "{reply:?}");
    }
    assert!(matches!(role.ask_about(SOURCE).await, PlanReply::Planned { .. }));
}

#[tokio::test]
async fn more_requests_than_are_worked_on_at_once_are_all_answered() {
    let role = Role::start().await;
    let replies = join_all((0..40).map(|_| role.ask_about(SOURCE))).await;
    assert!(replies.iter().all(|reply| matches!(reply, PlanReply::Planned { .. })));
}

#[tokio::test]
async fn the_role_ends_when_it_is_told_to() {
    let role = Role::start().await;
    assert!(matches!(role.ask_about(SOURCE).await, PlanReply::Planned { .. }));
    assert_eq!(role.supervisor.shut_down().await, Ended::InOrder);
}

/// A request over HTTP: its status and the JSON of its answer.
async fn parse(role: &Role, query: &str, kind: Option<&str>, body: impl Into<reqwest::Body>) -> (u16, serde_json::Value) {
    let request = testkit::http_client().post(format!("http://{}/v1/parse{query}", role.address)).body(body);
    let request = if let Some(kind) = kind { request.header("content-type", kind) } else { request };
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test]
async fn a_file_is_planned_over_http_as_over_the_bus() {
    let role = Role::start().await;
    let (status, answer) = parse(&role, "", Some("text/plain; charset=utf-8"), SOURCE).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["digest"], planned(SOURCE).digest().to_string());
    let plan: serde_json::Value = serde_json::from_slice(planned(SOURCE).bytes()).unwrap();
    assert_eq!(answer["plan"], plan);
    let health = testkit::http_get(format!("http://{}/health", role.address)).await.unwrap();
    assert_eq!(health.status(), 200);
}

#[tokio::test]
async fn the_query_is_the_context() {
    let role = Role::start().await;
    let source = "pipeline { stage 'A' { when { branch == 'main' } steps [ sh 'make' ] } }";
    let (_, on_main) = parse(&role, "?branch=main&event=push", None, source).await;
    let (_, elsewhere) = parse(&role, "?branch=topic", None, source).await;
    let skipped = |answer: &serde_json::Value| answer["plan"]["stages"][0]["skipped"].is_object();
    assert!(!skipped(&on_main) && skipped(&elsewhere), "{on_main} {elsewhere}");
    for query in ["?brnach=main", "?event=never", "?pr=main", "?param.=x"] {
        let (status, problem) = parse(&role, query, None, source).await;
        assert_eq!((status, problem["code"].as_str()), (400, Some("bad_query")), "{query}");
    }
}

#[tokio::test]
async fn what_is_no_pipeline_file_is_told_by_its_status() {
    let role = Role::start().await;
    let (status, problem) = parse(&role, "", None, "pipeline { steps { ehco 'a' } }").await;
    assert_eq!((status, problem["diagnostics"][0]["code"].as_str()), (400, Some("E0401")), "{problem}");
    let (status, problem) = parse(&role, "", None, b"pipeline { \xff }".to_vec()).await;
    assert_eq!((status, problem["diagnostics"][0]["code"].as_str()), (422, Some("E0101")), "{problem}");
    let (status, problem) = parse(&role, "", None, vec![b' '; 1024 * 1024 + 1]).await;
    assert_eq!((status, problem["code"].as_str()), (413, Some("too_large")), "{problem}");
    let (status, problem) = parse(&role, "", Some("application/json"), "{}").await;
    assert_eq!((status, problem["code"].as_str()), (415, Some("no_text")), "{problem}");
    let foreign = testkit::http_client().get(format!("http://{}/health", role.address)).header("host", "example.org").send().await.unwrap();
    assert_eq!(foreign.status(), 421);
}

#[tokio::test]
async fn other_methods_and_pages_of_other_sites_are_refused() {
    let role = Role::start().await;
    let client = testkit::http_client();
    let url = |path: &str| format!("http://{}{path}", role.address);
    for (method, path, allow) in [("GET", "/v1/parse", "POST"), ("DELETE", "/v1/parse", "POST"), ("POST", "/health", "GET, HEAD")] {
        let response = client.request(method.parse().unwrap(), url(path)).send().await.unwrap();
        assert_eq!((response.status().as_u16(), response.headers()["allow"].to_str().unwrap()), (405, allow), "{method} {path}");
        let problem: serde_json::Value = response.json().await.unwrap();
        assert_eq!(problem["code"], "method_not_allowed");
    }
    assert_eq!(client.head(url("/health")).send().await.unwrap().status(), 200);
    let metrics = client.get(url("/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("otto_build_info{role=\"parser\""), "{metrics}");
    let from = |origin: String| client.post(url("/v1/parse")).header("origin", origin).body(SOURCE).send();
    assert_eq!(from(format!("http://{}", role.address)).await.unwrap().status(), 200);
    for origin in ["http://example.org", "null", "", "http://127.0.0.1:1"] {
        assert_eq!(from(origin.to_owned()).await.unwrap().status(), 403, "{origin}");
    }
}

#[tokio::test]
async fn what_cannot_be_read_for_its_size_is_refused_and_not_tried_for_ever() {
    let role = Role::start().await;
    let listing = role.blobs.put(vec![b' '; 64 * 1024 * 1024 + 1].into()).await.unwrap();
    let source = "pipeline { stage 'A' { when { exists('a') } steps [ sh 'a' ] } }";
    let many = PlanRequest { listing: Some(listing), ..request(Text::Inline(source.to_owned())) };
    let large = role.blobs.put(vec![b' '; 16 * 1024 * 1024].into()).await.unwrap();
    let files = ["a", "b"].map(|path| (path.to_owned(), Some(Text::Depot(large))));
    let much = PlanRequest { files: files.into(), ..request(Text::Inline(SOURCE.to_owned())) };
    for request in [many, much] {
        let PlanReply::Refused { diagnostics } = role.ask(&request).await else { panic!("no refusal") };
        assert_eq!(diagnostics[0].code, "E0904");
    }
}

#[tokio::test]
async fn what_the_file_asks_for_is_asked_of_the_depot_or_of_who_asks() {
    let role = Role::start().await;
    let listing = role.blobs.put(r#"{"Cargo.toml":"0123"}"#.into()).await.unwrap();
    let changed = role.blobs.put(r#"["docs/a.md"]"#.into()).await.unwrap();
    let source = "pipeline { stage 'A' { when { exists('Cargo.toml') && changed('docs/**') } steps [ sh 'a' ] } }";
    let with = PlanRequest { listing: Some(listing), changed: Some(changed), ..request(Text::Inline(source.to_owned())) };
    let PlanReply::Planned { plan: Text::Inline(plan), .. } = role.ask(&with).await else { panic!("no plan") };
    assert!(!plan.contains("skipped"), "{plan}");
    let PlanReply::Planned { plan: Text::Inline(plan), .. } = role.ask(&request(Text::Inline(source.to_owned()))).await else {
        panic!("no plan")
    };
    assert!(plan.contains("skipped"), "without a list the commit has no files: {plan}");
    let asks = PlanRequest { files: BTreeMap::new(), ..request(Text::Inline(SOURCE.to_owned())) };
    assert_eq!(role.ask(&asks).await, PlanReply::Needs { files: vec![LOCK_FILE.to_owned()] });
}
