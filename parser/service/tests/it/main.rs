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
    planning::{INLINE_BYTES_MAX, PlanReply, PlanRequest, Text},
};
use parser::{PlanInput, Planning};
use parser_service::{answer, run};
use service::{Supervisor, supervisor::Ended};
use tempfile::TempDir;

/// More than any plan takes on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(30);

struct Role {
    bus: Bus,
    blobs: Blobs,
    supervisor: Supervisor,
    _folder: TempDir,
}

impl Role {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::Disk(DiskStore::open(folder.path(), Durability::None).unwrap());
        let (bus, supervisor) = (eventbus::memory::bus(), Supervisor::new());
        run(bus.clone(), blobs.clone(), vec![stdlib::library()], &supervisor).await.unwrap();
        Self { bus, blobs, supervisor, _folder: folder }
    }

    async fn ask(&self, request: &PlanRequest) -> PlanReply {
        self.bus.request(&Subject::plan(), request, TIMEOUT).await.unwrap()
    }

    async fn ask_about(&self, source: &str) -> PlanReply {
        self.ask(&request(Text::Inline(source.to_owned()))).await
    }
}

fn request(source: Text) -> PlanRequest {
    PlanRequest {
        path: "Ottofile".to_owned(),
        source,
        context: TriggerContext::default(),
        files: BTreeMap::new(),
        listing: None,
        changed: None,
    }
}

/// The plan that the parser itself makes.
fn planned(source: &str) -> PlanDocument {
    let (context, files, libraries) = (TriggerContext::default(), BTreeMap::new(), [stdlib::library()]);
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
    let PlanReply::Planned { digest, plan: Text::Inline(plan), .. } = role.ask_about(SOURCE).await else { panic!("no plan") };
    assert_eq!(digest, expected.digest());
    assert_eq!(plan.as_bytes(), expected.bytes());
    let direct = answer(&request(Text::Inline(SOURCE.to_owned())), &role.blobs, &[stdlib::library()]).await;
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
