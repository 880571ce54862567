//! Plans: what a run would do, and what one does.
//!
//! The pipeline file is read by the parser's own process; here its plan is shown, as `otto explain` shows it.

use actix_web::{get, post, web};
use apispec::{PlanCreate, PlanDetail, PlanView, PullRequestView, RunCreate};
use config::trust::Protection;
use model::{
    context::{EventKind, PullRequest, TriggerContext},
    event::run::Planned,
    plan::PlanDocument,
    trigger::Trigger,
};
use parser::explain::{Explained, diff, explain};

use super::{
    Api, ApiError,
    access::Caller,
    body::Body,
    runs::{self, find},
    view,
};
use crate::core::Run;

/// The largest number of a pull request: the largest that every JSON reader keeps (RFC 8259, section 6).
const NUMBER_MAX: u64 = (1 << 53) - 1;

/// Say what a run would do: whether the pipeline file is accepted, its plan, and what would be different from an earlier run.
///
/// Nothing is started. The plan is the one that the same trigger would get, digest for digest.
#[utoipa::path(
    tag = "plans",
    operation_id = "plan_create",
    request_body = PlanCreate,
    responses((status = 200, description = "the plan, or why there is none", body = PlanDetail), ApiError),
)]
#[post("/v1/plans")]
pub(super) async fn create(caller: Caller, api: web::Data<Api>, body: Body<PlanCreate>) -> Result<web::Json<PlanDetail>, ApiError> {
    let mut wanted = body.0;
    caller.check_sees(&wanted.project)?;
    let before = match wanted.compare_with.take() {
        Some(run) => document_of(&api, &find(&api, &caller, run.as_str()).await?.run).await?,
        None => None,
    };
    let trigger = trigger(&api, &caller, wanted).await?;
    let (planned, stages) = api.orchestrator.plan(&trigger).await?;
    let document = match &planned {
        Planned::Plan { digest, .. } => Some(api.orchestrator.document(digest).await?),
        Planned::Refused { .. } | Planned::NotTriggered { .. } => None,
    };
    let told = document
        .as_ref()
        .map(|document| explain(&Explained { context: Some(&trigger.context), ..Explained::new(&trigger.pipeline_path, document) }));
    let difference = before.zip(document.as_ref()).map(|(before, document)| diff(&before, document, false));
    Ok(web::Json(detail(view::planned(&planned, stages), document.as_ref(), told, difference)))
}

/// Show the plan of a run: the one that was approved and is run, digest for digest.
#[utoipa::path(
    tag = "plans",
    operation_id = "run_plan",
    params(("run" = apispec::schema::RunId, Path, description = "the run")),
    responses((status = 200, description = "the plan, or why there is none", body = PlanDetail), ApiError),
)]
#[get("/v1/runs/{run}/plan")]
pub(super) async fn show(caller: Caller, api: web::Data<Api>, run: web::Path<String>) -> Result<web::Json<PlanDetail>, ApiError> {
    let run = find(&api, &caller, &run).await?.run;
    let document = document_of(&api, &run).await?;
    let told = document.as_ref().map(|document| {
        explain(&Explained { context: Some(&run.trigger.context), ..Explained::new(&run.trigger.pipeline_path, document) })
    });
    Ok(web::Json(detail(view::planned(&run.planned, run.shape.len()), document.as_ref(), told, None)))
}

async fn document_of(api: &Api, run: &Run) -> Result<Option<PlanDocument>, ApiError> {
    match &run.planned {
        Planned::Plan { digest, .. } => Ok(Some(api.orchestrator.document_of(&run.id, digest).await?)),
        Planned::Refused { .. } | Planned::NotTriggered { .. } => Ok(None),
    }
}

fn detail(plan: PlanView, document: Option<&PlanDocument>, explain: Option<String>, diff: Option<String>) -> PlanDetail {
    let document = document.map(|document| serde_json::from_slice(document.bytes()).expect("a plan is JSON"));
    PlanDetail { plan, document, explain, diff }
}

async fn trigger(api: &Api, caller: &Caller, wanted: PlanCreate) -> Result<Trigger, ApiError> {
    let PlanCreate { project, pipeline, pipeline_path, event, branch, tag, pull_request, commit, source, parameters, compare_with: _ } =
        wanted;
    runs::check_branch("tag", &tag)?;
    let event = if pull_request.is_some() { EventKind::PullRequest } else { event };
    let pull_request = match pull_request {
        Some(PullRequestView { number, target, source, fork }) => {
            runs::check_branch("target", &target)?;
            runs::check_branch("source", &source)?;
            if number > NUMBER_MAX {
                return Err(ApiError::InvalidBody(format!("`number` is {number}, and must be at most {NUMBER_MAX}")));
            }
            Some(PullRequest { number, target, source, fork })
        }
        None => None,
    };
    let run = RunCreate {
        project,
        pipeline,
        pipeline_path,
        branch,
        commit,
        source,
        listing: None,
        changed: None,
        parameters,
        stage: None,
        timeout_ms: None,
    };
    let trigger = runs::trigger(api, caller, "plan", run).await?;
    let context = TriggerContext { event, tag, pull_request, ..trigger.context };
    let actor = trigger.claims.actor.clone();
    let protection = api.projects.get(&trigger.project).map_or_else(Protection::default, |project| project.protection.clone());
    // Whoever asks for a run by hand vouches for nothing.
    let claims = if event == EventKind::Manual { trigger.claims } else { protection.claims(&context, actor) };
    Ok(Trigger { claims, context, ..trigger })
}
