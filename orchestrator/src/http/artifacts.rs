//! Artifacts: what stages have left to people, listed, and brought out of the depot.
//!
//! The bytes go through a file of this machine, in which they are checked against their digest before any of them is sent.

use actix_web::{HttpResponse, body::SizedStream, get, http::header, web};
use apispec::{ArtifactList, ArtifactView};
use blob::BlobError;
use futures_util::TryStreamExt as _;
use model::event::run::StoredTree;
use serde::Deserialize;
use tokio::fs::File;
use tokio_util::io::ReaderStream;
use utoipa::IntoParams;

use super::{Api, ApiError, access::Caller, logs, runs::find, view};
use crate::core::{Run, shape::Index};

/// Artifacts that are brought out at once: each may take its length of this machine's disk.
pub(super) const DOWNLOADS_MAX: usize = 8;
/// Bytes that are read from disk and sent at once.
const SEND_BYTES: usize = 64 * 1024;

/// List the artifacts of a run, stage by stage.
#[utoipa::path(
    tag = "artifacts",
    operation_id = "artifact_list",
    params(("run" = apispec::schema::RunId, Path, description = "the run")),
    responses((status = 200, description = "what its stages have left so far", body = ArtifactList), ApiError),
)]
#[get("/v1/runs/{run}/artifacts")]
pub(super) async fn list(caller: Caller, api: web::Data<Api>, run: web::Path<String>) -> Result<web::Json<ArtifactList>, ApiError> {
    let run = find(&api, &caller, &run).await?.run;
    let artifacts = all(&run).map(|(at, name, tree)| ArtifactView {
        stage: view::reference(&run, at),
        name: name.clone(),
        archive: tree.archive,
        bytes: tree.bytes,
        entries: tree.entries,
    });
    Ok(web::Json(ArtifactList { artifacts: artifacts.collect() }))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ArtifactQuery {
    /// The artifact's name.
    name: String,
    /// The stage that has left it, by its path, the last part of that, or its id. Without one, the last stage, in the order of the plan, that has left
    /// one of this name.
    stage: Option<String>,
}

/// Get an artifact: a tar archive of its files.
#[utoipa::path(
    tag = "artifacts",
    operation_id = "artifact_show",
    params(("run" = apispec::schema::RunId, Path, description = "the run"), ArtifactQuery),
    responses((status = 200, description = "a tar archive", body = apispec::schema::AnyBytes, content_type = "application/x-tar"), ApiError),
)]
#[get("/v1/runs/{run}/artifact")]
pub(super) async fn show(
    caller: Caller,
    api: web::Data<Api>,
    run: web::Path<String>,
    query: web::Query<ArtifactQuery>,
) -> Result<HttpResponse, ApiError> {
    let run = find(&api, &caller, &run).await?.run;
    let stage = query.stage.as_deref().map(|wanted| logs::stage(&run, wanted)).transpose()?;
    let fits = |at: Index, name: &str| name == query.name && stage.is_none_or(|stage| stage == at);
    let found = all(&run).filter(|(at, name, _)| fits(*at, name)).last();
    let unknown = || ApiError::UnknownArtifact { run: run.id.clone(), name: query.name.clone() };
    let archive = found.map(|(_, _, tree)| tree.archive).ok_or_else(unknown)?;
    let seat = api.downloads.take(caller.name()).ok_or(ApiError::TooManyDownloads)?;
    let disk = |doing| move |source| BlobError::Disk { doing, path: std::env::temp_dir(), source };
    let folder = tempfile::tempdir().map_err(disk("create a folder in"))?;
    let path = folder.path().join("artifact");
    api.orchestrator.blobs.get_file(&archive, &path).await?;
    let file = File::open(&path).await.map_err(disk("read a file in"))?;
    // Nobody else is to see it, and nothing is to be removed when it was sent.
    drop(folder);
    let length = file.metadata().await.map_err(disk("look at a file in"))?.len();
    let pieces = seat.serve(ReaderStream::with_capacity(file, SEND_BYTES));
    Ok(HttpResponse::Ok()
        .content_type("application/x-tar")
        .insert_header((header::ETAG, format!("\"{archive}\"")))
        .insert_header((header::CONTENT_DISPOSITION, "attachment"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .body(SizedStream::new(length, pieces.map_err(actix_web::Error::from))))
}

/// Every artifact, in the order of the plan.
fn all(run: &Run) -> impl Iterator<Item = (Index, &String, &StoredTree)> {
    let stages = run.stages.iter().enumerate();
    stages.flat_map(|(at, stage)| stage.outputs.artifacts.iter().map(move |(name, tree)| (at, name, tree)))
}
