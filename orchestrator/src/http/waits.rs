//! What runs wait for, of people and of outside systems, and how it is answered.
//!
//! A callback asks for no token: its address is the right to call it, once. Whoever tries addresses learns nothing.

use actix_web::{HttpResponse, get, post, web};
use apispec::{AnswerCreate, AnswerGiven, OpenWaitView, RunView, WaitList, WaitView};
use model::{
    StageId,
    access::Role,
    event::run::{Answer, Question, WaitKey},
};

use super::{Api, ApiError, access::Caller, body::Body, runs::find, view};
use crate::{CommandError, core::Run};

/// What waits in one answer.
const WAITS_MAX: usize = 500;

/// List what waits for a person now, in all runs of the token's projects, the longest first.
#[utoipa::path(
    tag = "waits",
    operation_id = "wait_list",
    responses((status = 200, description = "what waits for a person", body = WaitList), ApiError),
)]
#[get("/v1/waits")]
pub(super) async fn list(caller: Caller, api: web::Data<Api>) -> web::Json<WaitList> {
    let runs = api.orchestrator.runs.open();
    let mut waits: Vec<OpenWaitView> = runs.iter().filter(|run| caller.sees_run(run)).flat_map(|run| open(run)).collect();
    waits.sort_by(|one, other| (one.wait.since, &one.run, &one.stage.path).cmp(&(other.wait.since, &other.run, &other.stage.path)));
    let more = waits.len() > WAITS_MAX;
    waits.truncate(WAITS_MAX);
    web::Json(WaitList { waits, more })
}

fn open(run: &Run) -> impl Iterator<Item = OpenWaitView> + '_ {
    run.held_up.iter().flat_map(move |at| {
        let is_asked = |wait: &WaitView| wait.answer.is_none() && wait.question.is_for_a_person();
        view::waits(&run.stages[*at]).into_iter().filter(is_asked).map(move |wait| OpenWaitView {
            run: run.id.clone(),
            project: run.trigger.project.clone(),
            branch: run.trigger.context.branch.clone(),
            stage: view::reference(run, *at),
            wait,
        })
    })
}

/// Answer something that a run waits for, as a person: approve, refuse, answer, resume.
///
/// When this is answered, the answer is stored. The same answer again, with its stage and wait, changes nothing; another one to the same question is
/// refused.
#[utoipa::path(
    tag = "waits",
    operation_id = "wait_answer",
    params(("run" = apispec::schema::RunId, Path, description = "the run")),
    request_body = AnswerCreate,
    responses((status = 200, description = "the run, with the answer", body = RunView), ApiError),
)]
#[post("/v1/runs/{run}/answer")]
pub(super) async fn answer(
    caller: Caller,
    api: web::Data<Api>,
    run: web::Path<String>,
    body: Body<AnswerCreate>,
) -> Result<web::Json<RunView>, ApiError> {
    let snapshot = find(&api, &caller, &run).await?;
    let AnswerCreate { stage, wait, answer: given } = body.0;
    let (stage, wait) = pick(&snapshot.run, stage.as_deref(), wait.map(|name| name.0), &given)?;
    check_asked(&api, &caller, &snapshot.run, (&stage, wait))?;
    let said = match given {
        AnswerGiven::Approve { delivery } => Answer::Approved { delivery },
        AnswerGiven::Refuse { reason } => Answer::Refused { reason },
        AnswerGiven::Text { text } => Answer::Text { text },
        AnswerGiven::Resume => Answer::Resumed,
    };
    let after = api.orchestrator.answer(&snapshot.run.id, &stage, wait, said, Some(caller.name().as_str())).await?;
    Ok(web::Json(view::run(&after.run, &api.orchestrator.runs)))
}

/// Refuses an answer of somebody who is not asked. Where the project's configuration names approvers, they alone count; of whom the file
/// names, an administrator may take the place.
fn check_asked(api: &Api, caller: &Caller, run: &Run, (stage, wait): (&StageId, WaitKey)) -> Result<(), ApiError> {
    let Some((planned, stage)) = run.stage(stage) else { return Ok(()) };
    let approvers = api.orchestrator.protections.approvers(&run.trigger.project, planned, wait);
    let asked: &[String] = match stage.waits.get(&wait).and_then(|state| state.opened.as_ref()).map(|opened| &opened.question) {
        _ if !approvers.is_empty() => approvers,
        Some(Question::Confirm { by, .. } | Question::Prompt { by, .. }) if caller.token().role < Role::Admin => by,
        Some(_) | None => &[],
    };
    let name = caller.name().as_str();
    if asked.is_empty() || asked.iter().any(|asked| asked == name) {
        return Ok(());
    }
    Err(ApiError::NotAsked(format!("the stage `{}` asks {}, and not `{name}`", planned.path, asked.join(", "))))
}

/// The one wait that is meant.
fn pick(run: &Run, stage: Option<&str>, wait: Option<WaitKey>, given: &AnswerGiven) -> Result<(StageId, WaitKey), ApiError> {
    let named = match stage {
        Some(name) => {
            let found = (0..run.shape.len()).find(|at| {
                let stage = run.shape.stage(*at);
                stage.path == name || stage.id.as_str() == name
            });
            Some(found.ok_or_else(|| ApiError::UnknownStage { run: run.id.clone(), stage: name.to_owned() })?)
        }
        None => None,
    };
    if let (Some(at), Some(wait)) = (named, wait) {
        return Ok((run.shape.stage(at).id.clone(), wait));
    }
    let asked = |question: &Question| match given {
        AnswerGiven::Approve { .. } | AnswerGiven::Refuse { .. } => matches!(question, Question::Confirm { .. }),
        AnswerGiven::Text { .. } => matches!(question, Question::Prompt { .. }),
        AnswerGiven::Resume => matches!(question, Question::Pause),
    };
    let stages = run.held_up.iter().filter(|at| named.is_none_or(|named| named == **at));
    let mut fitting = stages.flat_map(|at| {
        let open = run.stages[*at].open_waits().filter(|(key, opened)| asked(&opened.question) && wait.is_none_or(|wait| wait == *key));
        open.map(|(key, _)| (run.shape.stage(*at).id.clone(), key))
    });
    match (fitting.next(), fitting.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(ApiError::NoSuchWait("nothing of the run waits for such an answer now")),
        (Some(_), Some(_)) => Err(ApiError::NoSuchWait("several things of the run wait for such an answer: name the stage and the wait")),
    }
}

/// Call back, as the outside system that a webhook waits for.
///
/// The address is all that is needed, and takes one call. What the request carries is not read.
#[utoipa::path(
    tag = "waits",
    operation_id = "callback",
    security(()),
    params(("secret" = String, Path, description = "what the address was made with")),
    responses((status = 204, description = "the call was heard"), ApiError),
)]
#[post("/v1/callbacks/{secret}")]
pub(super) async fn call_back(api: web::Data<Api>, secret: web::Path<String>) -> Result<HttpResponse, ApiError> {
    match api.orchestrator.call_back(&secret).await {
        Ok(()) => Ok(HttpResponse::NoContent().finish()),
        Err(CommandError::Unfit { .. }) => Err(ApiError::CallbackUsed),
        Err(error) => Err(error.into()),
    }
}
