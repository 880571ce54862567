//! Runs of a project's own code: the forge looks where the branch or tag is, and says what it is worth.

use actix_web::{HttpRequest, HttpResponse, http::header, post, web};
use apispec::{ProjectRunCreate, RevisionCreate, RunCreated};
use eventbus::BusError;
use model::{
    TriggerId,
    protocol::forge::{ProjectRunReply, ProjectRunRequest, Revision},
};
use service::supervisor::chain;

use super::{Api, ApiError, access::Caller, body::Body, runs};
use crate::CommandError;

/// Create a run of a project's own code, as its source has it now.
///
/// It is as trusted as a push of the same branch or tag, and starts what the pipeline's `triggers` let be started by hand. When this is answered, the
/// request is stored, and its run exists or will. While the source is still being fetched, the answer is `source_unavailable`: ask again with
/// the same `Idempotency-Key`.
#[utoipa::path(
    tag = "projects",
    operation_id = "project_run",
    params(
        ("project" = apispec::schema::ProjectName, Path, description = "the project"),
        ("Idempotency-Key" = Option<apispec::schema::IdempotencyKey>, Header, description = "makes the same request, sent again, the same run"),
    ),
    request_body = ProjectRunCreate,
    responses(
        (status = 201, description = "the run", body = RunCreated,
            headers(("Location" = String, description = "where the run is shown"))),
        ApiError,
    ),
)]
#[post("/v1/projects/{project}/runs")]
pub(super) async fn create(
    caller: Caller,
    api: web::Data<Api>,
    request: HttpRequest,
    project: web::Path<String>,
    body: Body<ProjectRunCreate>,
) -> Result<HttpResponse, ApiError> {
    let found = api.projects.seen_by(&caller).find(|known| known.name.as_str() == *project);
    let project = found.ok_or_else(|| ApiError::UnknownProject(project.into_inner()))?;
    let delivery = caller.delivery(&runs::delivery(&request)?);
    let ProjectRunCreate { revision, parameters, timeout_ms } = body.0;
    runs::check_timeout(timeout_ms)?;
    let revision = match revision {
        RevisionCreate::DefaultBranch => Revision::DefaultBranch,
        RevisionCreate::Branch { name } => Revision::Branch { name },
        RevisionCreate::Tag { name } => Revision::Tag { name },
    };
    let id = TriggerId::of("api", &delivery);
    let asked = ProjectRunRequest { id, project: project.name.clone(), revision, parameters, timeout_ms, actor: caller.name().to_string() };
    let run = match api.orchestrator.create_of_project(&asked).await {
        Ok(ProjectRunReply::Accepted { run }) => run,
        Ok(ProjectRunReply::Refused { message }) => return Err(ApiError::NothingToRun(message)),
        Ok(ProjectRunReply::Unavailable { message }) => return Err(ApiError::Source(message)),
        // The bus is there, and the forge is not, or is not done in time.
        Err(CommandError::Bus(error @ (BusError::NoResponder { .. } | BusError::Unavailable { .. })))
            if api.orchestrator.bus.is_connected() =>
        {
            return Err(ApiError::Source(format!("the forge has not answered: {}", chain(&error))));
        }
        Err(error) => return Err(error.into()),
    };
    let location = (header::LOCATION, format!("/v1/runs/{run}"));
    Ok(HttpResponse::Created().insert_header(location).json(RunCreated { run }))
}
