//! The paths, and what they do.

use actix_web::{
    HttpRequest, HttpResponse,
    body::SizedStream,
    http::header::{self, Header as _},
    web,
};
use blob::BlobError;
use futures_util::{StreamExt as _, TryStreamExt as _};
use model::Digest;
use service::metrics::{CONTENT_TYPE, Exposition};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;
use tracing::info;

use crate::{BLOB_BYTES_MAX, BODY_IDLE_TIMEOUT, Depot, access::Holder, problem::ApiError};

/// Bytes that are read from disk and sent at once.
const SEND_BYTES: usize = 64 * 1024;

pub(crate) fn configure(config: &mut web::ServiceConfig) {
    let blobs = web::resource("/v1/blobs/{digest}").route(web::put().to(put)).route(web::get().to(get)).route(web::head().to(head));
    config
        .service(blobs)
        .route("/v1/unused", web::delete().to(remove_unused))
        .route("/health", web::get().to(health))
        .route("/metrics", web::get().to(metrics));
}

async fn health(depot: web::Data<Depot>) -> Result<HttpResponse, ApiError> {
    Ok(HttpResponse::Ok().json(serde_json::json!({ "status": "ok", "free_bytes": depot.store.free_bytes().await? })))
}

/// For Prometheus.
async fn metrics(depot: web::Data<Depot>) -> Result<HttpResponse, ApiError> {
    let mut told = Exposition::new("depot");
    #[expect(clippy::cast_precision_loss, reason = "of so many bytes, some more or less are nothing")]
    told.gauge("otto_depot_free_bytes", "Bytes that are free on the depot's disk", depot.store.free_bytes().await? as f64);
    Ok(HttpResponse::Ok().content_type(CONTENT_TYPE).body(told.text()))
}

/// Removes what nobody has used for long.
async fn remove_unused(depot: web::Data<Depot>, holder: Holder) -> Result<HttpResponse, ApiError> {
    holder.removes()?;
    let removed = depot.store.remove_unused().await?;
    info!(blobs = removed.blobs, bytes = removed.bytes, "what nobody uses was removed");
    Ok(HttpResponse::Ok().json(removed))
}

async fn put(
    depot: web::Data<Depot>,
    path: web::Path<String>,
    holder: Holder,
    request: HttpRequest,
    mut body: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let digest = digest(path)?;
    holder.writes()?;
    if let Ok(header::ContentLength(length)) = header::ContentLength::parse(&request) {
        within_limit(length as u64)?;
    }
    let mut writer = depot.store.writer();
    loop {
        let piece = tokio::time::timeout(BODY_IDLE_TIMEOUT, body.next()).await.map_err(|_| ApiError::SlowBody(BODY_IDLE_TIMEOUT))?;
        let Some(piece) = piece.transpose().map_err(ApiError::BrokenBody)? else { break };
        within_limit(writer.length() + piece.len() as u64)?;
        writer.write(&piece).await?;
    }
    writer.finish(digest).await?;
    Ok(HttpResponse::Created().finish())
}

async fn get(depot: web::Data<Depot>, path: web::Path<String>, holder: Holder, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let digest = digest(path)?;
    holder.reads(&digest)?;
    let found = depot.store.open_blob(&digest).await?;
    let mut response = HttpResponse::Ok();
    let (first, count) = match range(&request, found.length)? {
        None => (0, found.length),
        Some((first, last)) => {
            response = HttpResponse::PartialContent();
            response.insert_header((header::CONTENT_RANGE, format!("bytes {first}-{last}/{}", found.length)));
            (first, last - first + 1)
        }
    };
    let mut file = tokio::fs::File::from_std(found.file);
    if first > 0 {
        let failed = |source| BlobError::Disk { doing: "seek in", path: digest.hex().into(), source };
        file.seek(std::io::SeekFrom::Start(first)).await.map_err(failed)?;
    }
    let pieces = ReaderStream::with_capacity(file.take(count), SEND_BYTES).map_err(actix_web::Error::from);
    describe(&mut response, &digest);
    Ok(response.body(SizedStream::new(count, pieces)))
}

async fn head(depot: web::Data<Depot>, path: web::Path<String>, holder: Holder) -> Result<HttpResponse, ApiError> {
    let digest = digest(path)?;
    holder.reads(&digest)?;
    let found = depot.store.open_blob(&digest).await?;
    let mut response = HttpResponse::Ok();
    describe(&mut response, &digest);
    let nothing = futures_util::stream::empty::<Result<web::Bytes, actix_web::Error>>();
    Ok(response.body(SizedStream::new(found.length, nothing)))
}

/// What is told of bytes that never change.
fn describe(response: &mut actix_web::HttpResponseBuilder, digest: &Digest) {
    response
        .content_type("application/octet-stream")
        .insert_header((header::ACCEPT_RANGES, "bytes"))
        .insert_header((header::ETAG, format!("\"{digest}\"")))
        .insert_header((header::CACHE_CONTROL, "private, immutable, max-age=31536000"))
        // A browser that is led here takes the bytes for nothing but bytes.
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"));
}

fn digest(path: web::Path<String>) -> Result<Digest, ApiError> {
    let text = path.into_inner();
    text.parse().map_err(|_| ApiError::NoDigest(text))
}

fn within_limit(length: u64) -> Result<(), ApiError> {
    if length > BLOB_BYTES_MAX { Err(ApiError::TooLarge { length }) } else { Ok(()) }
}

/// The first and last byte that are asked for. What is no single range of bytes is passed over, as RFC 9110 (14.2) allows.
fn range(request: &HttpRequest, length: u64) -> Result<Option<(u64, u64)>, ApiError> {
    if !request.headers().contains_key(header::RANGE) {
        return Ok(None);
    }
    match header::Range::parse(request) {
        Ok(header::Range::Bytes(ranges)) if ranges.len() == 1 => {
            let range = ranges[0].to_satisfiable_range(length);
            range.map(Some).ok_or(ApiError::OutOfRange { length })
        }
        _ => Ok(None),
    }
}
