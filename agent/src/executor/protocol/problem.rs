//! What a step's program is told that did not work: a problem document (RFC 9457).

use bytes::Bytes;
use hyper::{
    Response, StatusCode,
    header::{CONTENT_TYPE, HeaderValue},
};
use service::supervisor::chain;
use tracing::warn;

use super::{super::gathered::GatherError, body::Body};

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    /// The secret is missing, or of another call.
    #[error("the secret is not that of this call: send `Authorization: Bearer ` and the `secret` of the invocation file's `endpoints`")]
    Secret,
    /// There is no such resource.
    #[error("there is nothing at this path")]
    Path,
    /// It is there, and cannot be asked this way.
    #[error("this path does not take this method")]
    Method,
    /// The body is no JSON of what is expected.
    #[error("the body is not what is expected here: {0}")]
    Body(String),
    /// The body is too long.
    #[error("the body has more than {limit} bytes")]
    TooLong {
        /// The most that is taken.
        limit: u64,
    },
    /// What it is about is not there.
    #[error("{0}")]
    Missing(String),
    /// It is not kept.
    #[error(transparent)]
    Refused(#[from] GatherError),
    /// The depot or the orchestrator says no.
    #[error("{0}")]
    Upstream(String),
    /// The agent cannot.
    #[error("the agent's disk does not take it")]
    Disk(#[from] std::io::Error),
}

impl Problem {
    fn status(&self) -> StatusCode {
        match self {
            Self::Secret => StatusCode::UNAUTHORIZED,
            Self::Path | Self::Missing(_) => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Body(_) => StatusCode::BAD_REQUEST,
            Self::TooLong { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Refused(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Upstream(_) => StatusCode::BAD_GATEWAY,
            Self::Disk(_) => StatusCode::INSUFFICIENT_STORAGE,
        }
    }

    /// The document.
    pub(super) fn response(&self) -> Response<Body> {
        if let Self::Disk(error) = self {
            warn!(error = chain(error), "a step's request was not done");
        }
        let status = self.status();
        let title = status.canonical_reason().unwrap_or_default();
        let document = serde_json::json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "detail": self.to_string() });
        let mut response = Response::new(Body::whole(Bytes::from(document.to_string())));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response
    }
}
