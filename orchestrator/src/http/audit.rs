//! Who did what to the runs of all projects, out of the read models: also to runs that have left memory.

use actix_web::{get, web};
use apispec::{ActionView, AnswerView, AuditList, AuditView, CancelReasonView};
use model::{ProjectName, RunId, event::run::CancelReason};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{Api, ApiError, access::Caller, runs};
use crate::views::{Action, AuditEntry, AuditFilter};

/// Entries in one answer, where the request does not say how many.
const ENTRIES_DEFAULT: usize = 100;
/// The most entries in one answer.
const ENTRIES_MAX: usize = 1_000;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct AuditQuery {
    /// How many entries at most.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// The `cursor` of the answer before.
    #[param(value_type = Option<apispec::schema::Cursor>)]
    cursor: Option<String>,
    /// Of this project only.
    #[param(value_type = Option<apispec::schema::ProjectName>)]
    project: Option<ProjectName>,
    /// Of this person or program only.
    actor: Option<String>,
    /// Of this run only.
    #[param(value_type = Option<apispec::schema::RunId>)]
    run: Option<RunId>,
    /// At this time or later.
    #[param(value_type = Option<apispec::schema::Timestamp>)]
    since: Option<u64>,
    /// Before this time.
    #[param(value_type = Option<apispec::schema::Timestamp>)]
    until: Option<u64>,
}

/// List what people and programs did: who made runs start, asked for their end, approved, refused, answered. The newest first.
///
/// Each entry is derived from the run's log, which has the whole of it and cannot be changed without a trace.
#[utoipa::path(
    tag = "audit",
    operation_id = "audit_list",
    params(AuditQuery),
    responses((status = 200, description = "what was done, and where to go on", body = AuditList), ApiError),
)]
#[get("/v1/audit")]
pub(super) async fn list(caller: Caller, api: web::Data<Api>, query: web::Query<AuditQuery>) -> Result<web::Json<AuditList>, ApiError> {
    let AuditQuery { limit, cursor, project, actor, run, since, until } = query.into_inner();
    let limit = limit.unwrap_or(ENTRIES_DEFAULT);
    if !(1..=ENTRIES_MAX).contains(&limit) {
        return Err(ApiError::InvalidQuery(format!("`limit` is {limit}, and must be 1 to {ENTRIES_MAX}")));
    }
    let before = cursor.as_deref().map(runs::cursor).transpose()?;
    let filter = AuditFilter {
        projects: caller.projects(project),
        actor,
        run,
        since: runs::time("since", since)?,
        until: runs::time("until", until)?,
    };
    let mut found = api.orchestrator.runs.views().audit(filter, before, limit + 1).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    let cursor = found.last().filter(|_| more).map(|entry| entry.place.to_string());
    Ok(web::Json(AuditList { entries: found.into_iter().map(view).collect(), cursor }))
}

fn view(entry: AuditEntry) -> AuditView {
    let AuditEntry { place: _, at, run, project, actor, action } = entry;
    let action = match action {
        Action::Started { event, rerun_of } => ActionView::Started { event, rerun_of },
        Action::Cancelled { reason, force } => {
            let reason = match reason {
                CancelReason::Person => CancelReasonView::Person,
                CancelReason::Newer { run } => CancelReasonView::Newer { run },
                CancelReason::TimedOut => CancelReasonView::TimedOut,
            };
            ActionView::Cancelled { reason, force }
        }
        Action::Answered { path, answer } => ActionView::Answered { stage: path, answer: AnswerView::new(&answer, actor.as_ref()) },
    };
    AuditView { at, run, project, actor, action }
}
