//! What the depot answers when it does not do what it was asked: one table of errors, statuses and codes.

use std::{io, time::Duration};

use actix_web::{HttpResponse, ResponseError, http::StatusCode, http::header};
use blob::{BlobError, token::TokenError};
use model::Digest;
use serde::{Deserialize, Serialize};
use service::supervisor::chain;
use tracing::{debug, error};

use crate::BLOB_BYTES_MAX;

/// A problem document (RFC 9457) as the depot writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What went wrong, for programs: one word for each line of the table.
    pub code: String,
    /// What went wrong, in general.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What went wrong, this time.
    pub detail: String,
    /// `blob_differs`: the digest of what was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actual: Option<Digest>,
    /// `blob_too_large`: how many bytes it has, as far as that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    /// `blob_too_large`: how many it may have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// Why a request is not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("there is no such path")]
    NoSuchPath,
    #[error("`{0}` is no digest: expected `sha256:` and 64 lower-case hexadecimal digits")]
    NoDigest(String),
    #[error("the Host header names another machine")]
    ForeignHost,
    #[error("a token is required: `Authorization: Bearer …`")]
    NoToken,
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("the token of {holder} does not allow it to {what}")]
    Forbidden { holder: String, what: &'static str },
    #[error("the body has over {BLOB_BYTES_MAX} bytes")]
    TooLarge { length: u64 },
    #[error("the body ended early")]
    BrokenBody(#[source] actix_web::error::PayloadError),
    #[error("nothing of the body came for {} s", .0.as_secs())]
    SlowBody(Duration),
    #[error("the range lies outside of the {length} bytes")]
    OutOfRange { length: u64 },
    #[error(transparent)]
    Blob(#[from] BlobError),
}

/// The line of the table: status, code, title.
type Line = (StatusCode, &'static str, &'static str);

impl ApiError {
    fn line(&self) -> Line {
        match self {
            Self::NoSuchPath => (StatusCode::NOT_FOUND, "no_such_path", "no such path"),
            Self::NoDigest(_) => (StatusCode::BAD_REQUEST, "no_digest", "not a digest"),
            Self::ForeignHost => (StatusCode::MISDIRECTED_REQUEST, "foreign_host", "asked for another host"),
            Self::NoToken | Self::Token(_) => (StatusCode::UNAUTHORIZED, "unauthorized", "no valid token"),
            Self::Forbidden { .. } => (StatusCode::FORBIDDEN, "forbidden", "the token does not allow it"),
            Self::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "blob_too_large", "too large"),
            Self::BrokenBody(_) => (StatusCode::BAD_REQUEST, "broken_body", "the body is not whole"),
            Self::SlowBody(_) => (StatusCode::REQUEST_TIMEOUT, "slow_body", "the body came too slowly"),
            Self::OutOfRange { .. } => (StatusCode::RANGE_NOT_SATISFIABLE, "out_of_range", "no such range"),
            Self::Blob(error) => blob_line(error),
        }
    }
}

fn blob_line(error: &BlobError) -> Line {
    match error {
        BlobError::Missing(_) => (StatusCode::NOT_FOUND, "blob_missing", "nothing is stored under this digest"),
        BlobError::Damaged { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "blob_differs", "the body is not what its digest names"),
        BlobError::Refused { .. } => (StatusCode::FORBIDDEN, "forbidden", "the token does not allow it"),
        BlobError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "blob_too_large", "too large"),
        BlobError::Disk { source, .. } if is_full(source) => (StatusCode::INSUFFICIENT_STORAGE, "disk_full", "the depot's disk is full"),
        BlobError::Disk { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "disk_failed", "the depot's disk fails"),
        BlobError::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "not now"),
    }
}

fn is_full(error: &io::Error) -> bool {
    [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded].contains(&error.kind())
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.line().0
    }

    fn error_response(&self) -> HttpResponse {
        let (status, code, title) = self.line();
        if status.is_server_error() {
            error!(code, error = chain(self), "request failed");
        } else {
            debug!(code, error = chain(self), "request refused");
        }
        let mut response = HttpResponse::build(status);
        if status == StatusCode::UNAUTHORIZED {
            response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
        }
        if let Self::OutOfRange { length } = self {
            response.insert_header((header::CONTENT_RANGE, format!("bytes */{length}")));
        }
        let length = if let Self::TooLarge { length } = self { Some(*length) } else { None };
        let limit = length.is_some().then_some(BLOB_BYTES_MAX);
        let actual = if let Self::Blob(BlobError::Damaged { actual, .. }) = self { Some(*actual) } else { None };
        let problem = Problem {
            code: code.to_owned(),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: self.detail(),
            actual,
            length,
            limit,
        };
        response.content_type("application/problem+json").body(serde_json::to_string(&problem).expect("a problem has text keys only"))
    }
}

impl ApiError {
    /// What the sender is told. Where the depot's files lie is none of its business.
    fn detail(&self) -> String {
        if let Self::Blob(BlobError::Disk { doing, source, .. }) = self {
            return format!("the depot cannot {doing} a file: {}", source.kind());
        }
        self.to_string()
    }
}

pub(crate) async fn no_such_path() -> Result<HttpResponse, ApiError> {
    Err(ApiError::NoSuchPath)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_a_broken_one_and_no_path_is_shown() {
        let error = |kind: io::ErrorKind| {
            ApiError::from(BlobError::Disk { doing: "write", path: "/secret/place".into(), source: io::Error::from(kind) })
        };
        assert_eq!(error(io::ErrorKind::StorageFull).status_code(), StatusCode::INSUFFICIENT_STORAGE);
        assert_eq!(error(io::ErrorKind::QuotaExceeded).status_code(), StatusCode::INSUFFICIENT_STORAGE);
        assert_eq!(error(io::ErrorKind::PermissionDenied).status_code(), StatusCode::INTERNAL_SERVER_ERROR);
        let detail = error(io::ErrorKind::StorageFull).detail();
        assert!(detail.contains("write") && !detail.contains("secret"), "{detail}");
    }
}
