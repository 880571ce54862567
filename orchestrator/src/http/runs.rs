//! Runs: create one, show it, list them, ask for its end, run it again.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, get, http::header, post, web};
use apispec::{RUN_TIMEOUT_MS_MAX, RerunCreate, RerunStages, RunCreate, RunCreated, RunDetail, RunList, RunView, StatusName};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use model::{
    ProjectName, RunId, RunOutcome, StageId, Timestamp, TriggerId,
    context::{EventKind, TriggerContext},
    planning::{INLINE_BYTES_MAX, Text},
    trigger::{self, Claims, Trigger},
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{Api, ApiError, access::Caller, body::Body, sources, view};
use crate::{
    CommandError,
    runs::Snapshot,
    views::{RunFilter, Standing},
};

/// How long a request for an unknown run waits for it to appear: a trigger that was just stored is a run as soon as its pipeline is
/// planned, which takes milliseconds.
const APPEARS_WAIT: Duration = Duration::from_millis(500);
/// Runs in one answer, where the request does not say how many.
const LIST_DEFAULT: usize = 50;
/// The most runs in one answer.
const LIST_MAX: usize = 500;
/// The longest idempotency key, in bytes.
const KEY_BYTES_MAX: usize = 255;
/// The longest path of a pipeline file, in characters, which are at most the 4096 bytes that Linux takes as a path.
const PATH_CHARS_MAX: usize = 1024;
/// The longest branch name, in characters; git's own limit is that of a file name for each of its parts.
const BRANCH_CHARS_MAX: usize = 1024;
/// The longest commit id, in characters: twice that of SHA-256.
const COMMIT_CHARS_MAX: usize = 128;
/// The longest cursor, in digits: sequences are far from it.
const CURSOR_DIGITS_MAX: usize = 18;
/// The header that makes the same request, sent again, the same run.
const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

/// The run that a path names, where the caller's token is for its project.
pub(super) async fn find(api: &Api, caller: &Caller, id: &str) -> Result<Snapshot, ApiError> {
    let unknown = || ApiError::UnknownRun(id.to_owned());
    let run: RunId = id.parse().map_err(|_| unknown())?;
    let found = match api.orchestrator.find(&run).await {
        // Nobody knows any more whose it was.
        Err(CommandError::Damaged { .. }) if !caller.sees_all() => None,
        found => match found? {
            Some(snapshot) => Some(snapshot),
            None => api.orchestrator.runs.get_soon(&run, APPEARS_WAIT).await,
        },
    };
    found.filter(|snapshot| caller.sees_run(&snapshot.run)).ok_or_else(unknown)
}

/// The run that a path names, to be followed to its end: one that is damaged comes to none.
pub(super) async fn find_sound(api: &Api, caller: &Caller, id: &str) -> Result<Snapshot, ApiError> {
    let snapshot = find(api, caller, id).await?;
    api.orchestrator.is_sound(&snapshot.run.id)?;
    Ok(snapshot)
}

/// Create a run.
///
/// When this is answered, the request is stored, and its run exists or will. The same `Idempotency-Key` again is the same run; of two
/// different requests with one key, the first counts.
#[utoipa::path(
    tag = "runs",
    operation_id = "run_create",
    params(("Idempotency-Key" = Option<apispec::schema::IdempotencyKey>, Header, description = "makes the same request, sent again, the same run")),
    request_body = RunCreate,
    responses(
        (status = 201, description = "the run", body = RunCreated,
            headers(("Location" = String, description = "where the run is shown"))),
        ApiError,
    ),
)]
#[post("/v1/runs")]
pub(super) async fn create(
    caller: Caller,
    api: web::Data<Api>,
    request: HttpRequest,
    body: Body<RunCreate>,
) -> Result<HttpResponse, ApiError> {
    let delivery = caller.delivery(&delivery(&request)?);
    let wanted = body.0;
    caller.check_sees(&wanted.project)?;
    let trigger = trigger(&api, &caller, &delivery, wanted).await?;
    let run = api.orchestrator.create(&trigger).await?;
    let location = (header::LOCATION, format!("/v1/runs/{run}"));
    Ok(HttpResponse::Created().insert_header(location).json(RunCreated { run }))
}

/// What makes this request the same as another.
pub(super) fn delivery(request: &HttpRequest) -> Result<String, ApiError> {
    let Some(key) = request.headers().get(IDEMPOTENCY_KEY) else {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(ApiError::Randomness)?;
        return Ok(HEXLOWER.encode(&random));
    };
    let invalid = |why| ApiError::InvalidHeader { name: IDEMPOTENCY_KEY, why };
    let key = key.to_str().ok().filter(|key| key.bytes().all(|byte| byte.is_ascii_graphic()));
    let key = key.ok_or_else(|| invalid("has other than visible ASCII characters"))?;
    match key.len() {
        0 => Err(invalid("is empty")),
        1..=KEY_BYTES_MAX => Ok(key.to_owned()),
        _ => Err(invalid("is longer than 255 characters")),
    }
}

pub(super) async fn trigger(api: &Api, caller: &Caller, delivery: &str, wanted: RunCreate) -> Result<Trigger, ApiError> {
    check_text("pipeline_path", &wanted.pipeline_path, PATH_CHARS_MAX)?;
    check_branch("branch", &wanted.branch)?;
    check_text("commit", &wanted.commit, COMMIT_CHARS_MAX)?;
    check_timeout(wanted.timeout_ms)?;
    let blobs = &api.orchestrator.blobs;
    for digest in [wanted.source, wanted.listing, wanted.changed].into_iter().flatten() {
        if !sources::may_be_named(api, caller, &digest).await? {
            return Err(ApiError::UnknownSource(digest));
        }
    }
    let pipeline = if wanted.pipeline.len() <= INLINE_BYTES_MAX {
        Text::Inline(wanted.pipeline)
    } else {
        Text::Depot(blobs.put(Bytes::from(wanted.pipeline)).await?)
    };
    let context = TriggerContext {
        event: EventKind::Manual,
        branch: wanted.branch,
        commit: wanted.commit,
        parameters: wanted.parameters,
        ..TriggerContext::default()
    };
    Ok(Trigger {
        context,
        source: wanted.source,
        listing: wanted.listing,
        changed: wanted.changed,
        timeout_ms: wanted.timeout_ms,
        only: wanted.stage.as_deref().map(StageId::of),
        // Whoever asks may have written it: nobody vouches for more than who asked.
        claims: Claims { actor: Some(caller.name().to_string()), ..Claims::default() },
        ..Trigger::new(TriggerId::of("api", delivery), wanted.project, &wanted.pipeline_path, pipeline)
    })
}

/// Refuses what can be the time of no run.
pub(super) fn check_timeout(timeout_ms: Option<u64>) -> Result<(), ApiError> {
    if timeout_ms.is_none_or(|ms| (1..=RUN_TIMEOUT_MS_MAX).contains(&ms)) {
        return Ok(());
    }
    let why = format!("`timeout_ms` must be 1 to {RUN_TIMEOUT_MS_MAX}: leave it out, and the run takes as long as its stages");
    Err(ApiError::InvalidBody(why))
}

/// Refuses what can be the name of no branch and no tag.
pub(super) fn check_branch(name: &str, text: &str) -> Result<(), ApiError> {
    check_text(name, text, BRANCH_CHARS_MAX)
}

fn check_text(name: &str, text: &str, chars_max: usize) -> Result<(), ApiError> {
    let chars = text.chars().count();
    if chars > chars_max {
        return Err(ApiError::InvalidBody(format!("`{name}` has {chars} characters, over the limit of {chars_max}")));
    }
    if text.chars().any(char::is_control) {
        return Err(ApiError::InvalidBody(format!("`{name}` has a control character")));
    }
    Ok(())
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// How many runs at most.
    #[param(minimum = 1, maximum = 500, default = 50)]
    limit: Option<usize>,
    /// The `cursor` of the answer before.
    #[param(value_type = Option<apispec::schema::Cursor>)]
    cursor: Option<String>,
    /// Of this project only.
    #[param(value_type = Option<apispec::schema::ProjectName>)]
    project: Option<ProjectName>,
    /// Of this branch only, without `refs/heads/`.
    branch: Option<String>,
    /// Of this commit only, by its id or the beginning of it.
    commit: Option<String>,
    /// Only those that this made start.
    #[param(value_type = Option<apispec::schema::TriggerKind>)]
    event: Option<EventKind>,
    /// Only those that stand so.
    status: Option<StatusName>,
    /// Only those that have ended so.
    #[param(value_type = Option<apispec::schema::RunOutcome>)]
    outcome: Option<RunOutcome>,
    /// Only those that were taken up then or later.
    #[param(value_type = Option<apispec::schema::Timestamp>)]
    since: Option<u64>,
}

impl ListQuery {
    /// Which runs are asked for, of those that the caller sees; `None` if nothing can be both.
    fn filter(self, caller: &Caller) -> Result<Option<RunFilter>, ApiError> {
        let standing = match (self.status, self.outcome) {
            (None | Some(StatusName::Ended), Some(outcome)) => Some(Standing::As(outcome)),
            (Some(_), Some(_)) => return Ok(None),
            (None, None) => None,
            (Some(StatusName::Running), None) => Some(Standing::Running),
            (Some(StatusName::Held), None) => Some(Standing::Held),
            (Some(StatusName::Cancelling), None) => Some(Standing::Cancelling),
            (Some(StatusName::Damaged), None) => Some(Standing::Damaged),
            (Some(StatusName::Ended), None) => Some(Standing::Ended),
        };
        let projects = caller.projects(self.project);
        Ok(Some(RunFilter {
            projects,
            standing,
            branch: self.branch,
            commit: self.commit,
            event: self.event,
            since: time("since", self.since)?,
            until: None,
        }))
    }
}

/// A time of a query, where one is given.
pub(super) fn time(name: &str, given: Option<u64>) -> Result<Option<Timestamp>, ApiError> {
    let too_late = |ms| ApiError::InvalidQuery(format!("`{name}` is {ms}, and must be at most {}", i64::MAX));
    given.map(|ms| if i64::try_from(ms).is_ok() { Ok(Timestamp(ms)) } else { Err(too_late(ms)) }).transpose()
}

/// The sequence that a cursor names. One is good for as long as there are runs, also when the run that it was made of is gone.
pub(super) fn cursor(text: &str) -> Result<u64, ApiError> {
    let is_one = (1..=CURSOR_DIGITS_MAX).contains(&text.len()) && text.bytes().all(|digit| digit.is_ascii_digit());
    let sequence = text.parse().ok().filter(|_| is_one);
    sequence.ok_or_else(|| ApiError::InvalidQuery(format!("`cursor` is `{text}`, and is none that a list has given")))
}

/// List runs, the newest first, also those that ended long ago.
#[utoipa::path(
    tag = "runs",
    operation_id = "run_list",
    params(ListQuery),
    responses((status = 200, description = "some runs, and where to go on", body = RunList), ApiError),
)]
#[get("/v1/runs")]
pub(super) async fn list(caller: Caller, api: web::Data<Api>, query: web::Query<ListQuery>) -> Result<web::Json<RunList>, ApiError> {
    let limit = query.limit.unwrap_or(LIST_DEFAULT);
    if !(1..=LIST_MAX).contains(&limit) {
        return Err(ApiError::InvalidQuery(format!("`limit` is {limit}, and must be 1 to {LIST_MAX}")));
    }
    let before = query.cursor.as_deref().map(cursor).transpose()?;
    let mut found = match query.into_inner().filter(&caller)? {
        Some(filter) => api.orchestrator.runs.search(filter, before, limit + 1).await?,
        None => Vec::new(),
    };
    let more = found.len() > limit;
    found.truncate(limit);
    let cursor = found.last().filter(|_| more).map(|(sequence, _)| sequence.to_string());
    Ok(web::Json(RunList { runs: found.into_iter().map(|(_, run)| run).collect(), cursor }))
}

/// Show a run with its stages, their attempts, and the offers that decided where they ran.
#[utoipa::path(
    tag = "runs",
    operation_id = "run_show",
    params(("run" = apispec::schema::RunId, Path, description = "the run")),
    responses((status = 200, description = "the run", body = RunDetail), ApiError),
)]
#[get("/v1/runs/{run}")]
pub(super) async fn show(caller: Caller, api: web::Data<Api>, run: web::Path<String>) -> Result<web::Json<RunDetail>, ApiError> {
    let snapshot = find(&api, &caller, &run).await?;
    let run = &snapshot.run;
    Ok(web::Json(view::detail(run, &api.orchestrator.runs)))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct CancelQuery {
    /// At once: nothing that runs is left time to clear up, and what cannot be reached counts as ended.
    #[serde(default)]
    #[param(default = false)]
    force: bool,
}

/// Ask for the end of a run.
///
/// When this is answered, the request is stored; it has taken effect when the run has ended. The same request again changes nothing.
#[utoipa::path(
    tag = "runs",
    operation_id = "run_cancel",
    params(("run" = apispec::schema::RunId, Path, description = "the run"), CancelQuery),
    responses((status = 202, description = "the run, whose end was asked for", body = RunView), ApiError),
)]
#[post("/v1/runs/{run}/cancel")]
pub(super) async fn cancel(
    caller: Caller,
    api: web::Data<Api>,
    run: web::Path<String>,
    query: web::Query<CancelQuery>,
) -> Result<HttpResponse, ApiError> {
    let snapshot = find(&api, &caller, &run).await?;
    let state = api.orchestrator.cancel(&snapshot.run.id, caller.name().as_str(), query.force).await?.run;
    Ok(HttpResponse::Accepted().json(view::run(&state, &api.orchestrator.runs)))
}

/// Run an ended run again: the same plan, digest for digest, on the same source.
///
/// What is not run again keeps its outcome and what it has left. The same `Idempotency-Key` again is the same new run.
#[utoipa::path(
    tag = "runs",
    operation_id = "run_rerun",
    params(
        ("run" = apispec::schema::RunId, Path, description = "the run"),
        ("Idempotency-Key" = Option<apispec::schema::IdempotencyKey>, Header, description = "makes the same request, sent again, the same run"),
    ),
    request_body = RerunCreate,
    responses(
        (status = 201, description = "the new run", body = RunCreated,
            headers(("Location" = String, description = "where the run is shown"))),
        ApiError,
    ),
)]
#[post("/v1/runs/{run}/rerun")]
pub(super) async fn rerun(
    caller: Caller,
    api: web::Data<Api>,
    request: HttpRequest,
    run: web::Path<String>,
    body: Body<RerunCreate>,
) -> Result<HttpResponse, ApiError> {
    let delivery = caller.delivery(&delivery(&request)?);
    let old = find(&api, &caller, &run).await?.run;
    let stages = match body.0.stages {
        RerunStages::All => trigger::RerunStages::All,
        RerunStages::Failed => trigger::RerunStages::Failed,
        RerunStages::Stage { stage: name } => {
            let stages = old.shape.plan().stages.iter();
            let found = stages.filter(|stage| stage.path == name || stage.id.as_str() == name).map(|stage| stage.id.clone()).next();
            trigger::RerunStages::Stage(found.ok_or_else(|| ApiError::UnknownStage { run: old.id.clone(), stage: name })?)
        }
    };
    let run = api.orchestrator.rerun(&old.id, stages, &delivery, Some(caller.name().as_str())).await?;
    let location = (header::LOCATION, format!("/v1/runs/{run}"));
    Ok(HttpResponse::Created().insert_header(location).json(RunCreated { run }))
}
