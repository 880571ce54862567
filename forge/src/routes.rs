//! The paths, what they do, and what they answer when they do not do it.

use std::sync::Arc;

use actix_web::{
    Error, HttpRequest, HttpResponse, ResponseError,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    http::{StatusCode, header},
    middleware::Next,
    web,
};
use model::Digest;
use serde::{Deserialize, Serialize};
use service::{host::is_own_host, supervisor::chain};
use std::net::SocketAddr;
use tracing::{debug, warn};

use crate::{
    HOOK_PATH,
    accept::{AcceptError, Acceptor},
    delivery::{DELIVERY_BYTES_MAX, Delivery},
    hook::HookConfig,
};

/// What the handlers share.
pub(crate) struct Forge {
    pub(crate) acceptor: Arc<Acceptor>,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

/// A problem document (RFC 9457) as the forge writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What went wrong, for programs.
    pub code: String,
    /// What went wrong, in general.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What went wrong, this time.
    pub detail: String,
}

/// Why a request is not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("there is no such path")]
    NoSuchPath,
    #[error("the Host header names another machine")]
    ForeignHost,
    #[error("the body is no delivery: {0}")]
    NoDelivery(String),
    #[error("a hook's secret is required: `Authorization: Bearer …`")]
    NoSecret,
    #[error("the secret is not that of the repository's hook")]
    WrongSecret,
    #[error("the repository has no hook of this forge: install it with `otto hook install`")]
    NoHook(#[source] std::io::Error),
    #[error(transparent)]
    Accept(#[from] AcceptError),
}

pub(crate) fn configure(config: &mut web::ServiceConfig) {
    let json =
        web::JsonConfig::default().limit(DELIVERY_BYTES_MAX).error_handler(|error, _| ApiError::NoDelivery(error.to_string()).into());
    config.app_data(json).route(HOOK_PATH, web::post().to(take_delivery)).route("/health", web::get().to(health));
}

async fn health() -> HttpResponse {
    HttpResponse::Ok().json(serde_json::json!({ "status": "ok" }))
}

async fn take_delivery(forge: web::Data<Forge>, request: HttpRequest, delivery: web::Json<Delivery>) -> Result<HttpResponse, ApiError> {
    authorise(&forge.acceptor, &request, &delivery)?;
    let answer = forge.acceptor.accept(&delivery).await?;
    Ok(HttpResponse::Accepted().json(answer))
}

/// Compares the request's secret with that of the repository's hook.
fn authorise(acceptor: &Acceptor, request: &HttpRequest, delivery: &Delivery) -> Result<(), ApiError> {
    let repository = acceptor.repository(&delivery.repository)?;
    let value = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).ok_or(ApiError::NoSecret)?;
    let secret = value.strip_prefix("Bearer ").ok_or(ApiError::NoSecret)?;
    let expected = HookConfig::read(repository).map_err(ApiError::NoHook)?.secret;
    // Digests are compared, so the time it takes tells nothing of the secret.
    if Digest::of(secret.as_bytes()) == Digest::of(expected.as_bytes()) { Ok(()) } else { Err(ApiError::WrongSecret) }
}

pub(crate) async fn no_such_path() -> Result<HttpResponse, ApiError> {
    Err(ApiError::NoSuchPath)
}

/// Refuses requests that were meant for another host; see [`is_own_host`].
pub(crate) async fn check_host(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let forge = request.app_data::<web::Data<Forge>>().expect("run puts it there");
    let host = request.headers().get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !is_own_host(host, forge.address) {
        return Err(ApiError::ForeignHost.into());
    }
    next.call(request).await
}

impl ApiError {
    /// The line of the table: status, code, title.
    fn line(&self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::NoSuchPath => (StatusCode::NOT_FOUND, "no_such_path", "no such path"),
            Self::ForeignHost => (StatusCode::MISDIRECTED_REQUEST, "foreign_host", "asked for another host"),
            Self::NoDelivery(_) => (StatusCode::BAD_REQUEST, "no_delivery", "not a delivery"),
            Self::NoSecret | Self::WrongSecret => (StatusCode::UNAUTHORIZED, "unauthorized", "no valid secret"),
            Self::NoHook(_) => (StatusCode::FORBIDDEN, "no_hook", "no hook is installed"),
            Self::Accept(AcceptError::UnknownRepository(_)) => (StatusCode::NOT_FOUND, "unknown_repository", "no project's repository"),
            Self::Accept(error) if error.is_final() => (StatusCode::BAD_REQUEST, "no_delivery", "not a delivery"),
            Self::Accept(_) => (StatusCode::SERVICE_UNAVAILABLE, "not_now", "cannot be accepted now"),
        }
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.line().0
    }

    fn error_response(&self) -> HttpResponse {
        let (status, code, title) = self.line();
        if status.is_server_error() {
            warn!(code, error = chain(self), "delivery not accepted yet");
        } else {
            debug!(code, error = chain(self), "request refused");
        }
        let mut response = HttpResponse::build(status);
        if status == StatusCode::UNAUTHORIZED {
            response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
        }
        let problem = Problem { code: code.to_owned(), title: title.to_owned(), status: status.as_u16(), detail: self.to_string() };
        response.content_type("application/problem+json").body(serde_json::to_string(&problem).expect("a problem has text keys only"))
    }
}
