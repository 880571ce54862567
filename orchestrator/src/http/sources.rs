//! Sources: bytes that a run is made of, brought by whoever asks for it, through this process into the depot.
//!
//! The depot's own address and its tokens are not for people. A body lies in a file of this machine until all of it is there, never in memory.
//!
//! **Invariant:** to know the digest of bytes is no right to them. A run is made only of what the same token has brought; that it has is noted in the
//! depot itself, by bytes that nobody else can have written, so that every orchestrator knows of it, and it ends when the depot is swept.

use std::{io, time::Duration};

use actix_web::{HttpResponse, post, web};
use apispec::{SOURCE_BYTES_MAX, SourceCreated};
use blob::BlobError;
use bytes::Bytes;
use futures_util::StreamExt as _;
use model::Digest;
use tempfile::NamedTempFile;
use tokio::{fs::File, io::AsyncWriteExt as _, time::timeout};

use super::{Api, ApiError, access::Caller};
use crate::{CommandError, Orchestrator};

/// Sources that are brought at once: each may take its length of this machine's disk. One token has at most half of them, as of streams.
pub(super) const UPLOADS_MAX: usize = 8;
/// How long a sender may be silent within a body, as at the depot.
const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Bring bytes that a run is made of into the depot: its source tree as a tar archive, or a list of files.
///
/// The answer names them by their digest, for `POST /v1/runs`. The same bytes again are the same source. They stay as long as the depot keeps
/// sources; a run can be asked for before anything is brought, and is refused with `unknown_source` only if that is missing, or if the token is one
/// of some projects alone and has not brought it.
#[utoipa::path(
    tag = "sources",
    operation_id = "source_create",
    request_body(content = Option<apispec::schema::AnyBytes>, content_type = "application/octet-stream", description = "the bytes, at most 4 GiB"),
    responses((status = 201, description = "the bytes are in the depot", body = SourceCreated), ApiError),
)]
#[post("/v1/sources")]
pub(super) async fn create(caller: Caller, api: web::Data<Api>, body: web::Payload) -> Result<HttpResponse, ApiError> {
    let orchestrator = &api.orchestrator;
    // What no run may use now is not brought either.
    orchestrator.admission.admit(orchestrator.runs.load_now()).map_err(CommandError::from)?;
    let _seat = api.uploads.take(caller.name()).ok_or(ApiError::TooManyUploads)?;
    let file = received(body).await?;
    let digest = orchestrator.blobs.put_file(file.path()).await?;
    if let Some(key) = &orchestrator.callback_key {
        orchestrator.blobs.put(Bytes::from(key.receipt(caller.name(), &digest))).await?;
    }
    tracing::debug!(by = %caller.name(), %digest, "a source was brought");
    Ok(HttpResponse::Created().json(SourceCreated { digest }))
}

/// Whether a run that is asked for may be made of these bytes: they are there, and the caller has brought them, or may see all that there is.
pub(super) async fn may_be_named(api: &Api, caller: &Caller, digest: &Digest) -> Result<bool, BlobError> {
    let Orchestrator { blobs, callback_key, .. } = &api.orchestrator;
    let was_brought = match callback_key {
        _ if caller.sees_all() => true,
        Some(key) => blobs.has(&Digest::of(&key.receipt(caller.name(), digest))).await?,
        None => false,
    };
    Ok(was_brought && blobs.has(digest).await?)
}

/// The body in a file, which is gone when it is dropped.
async fn received(mut body: web::Payload) -> Result<NamedTempFile, ApiError> {
    let file = NamedTempFile::new().map_err(|source| spooling("create", source))?;
    let mut writer = File::from_std(file.reopen().map_err(|source| spooling("open", source))?);
    let mut length = 0;
    while let Some(piece) = timeout(BODY_IDLE_TIMEOUT, body.next()).await.map_err(|_| ApiError::SlowBody(BODY_IDLE_TIMEOUT))? {
        let piece = piece.map_err(|error| ApiError::InvalidBody(format!("the body ended early: {error}")))?;
        length += piece.len() as u64;
        if length > SOURCE_BYTES_MAX {
            return Err(ApiError::SourceTooLarge);
        }
        writer.write_all(&piece).await.map_err(|source| spooling("write", source))?;
    }
    writer.flush().await.map_err(|source| spooling("write", source))?;
    Ok(file)
}

/// The disk on which a body waits for the depot is part of the way there.
fn spooling(doing: &'static str, source: io::Error) -> ApiError {
    BlobError::Disk { doing, path: std::env::temp_dir(), source }.into()
}
