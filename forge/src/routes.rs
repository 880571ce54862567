//! The paths, what they do, and what they answer when they do not do it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use actix_web::{
    Error, FromRequest as _, HttpMessage as _, HttpRequest, HttpResponse, ResponseError,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    http::{StatusCode, header},
    middleware::Next,
    web,
};
use model::{Digest, ProjectName};
use serde::{Deserialize, Serialize};
use service::{
    OnError, Supervisor,
    host::is_own_host,
    metrics::{CONTENT_TYPE, Exposition},
    supervisor::chain,
};
use tokio::{
    sync::{Semaphore, oneshot},
    time::timeout,
};
use tracing::{debug, warn};

use crate::{
    HOOK_PATH, WEBHOOK_PATH,
    accept::{AcceptError, Acceptor},
    delivery::{Answer, DELIVERY_BYTES_MAX, Delivery},
    hook::HookConfig,
    served::{self, ServeError},
    webhook::{Told, Unsigned, WEBHOOK_BYTES_MAX, WebhookError},
};

/// Bodies of webhooks that are read at once: 160 MiB, whoever sends them.
const BODIES_MAX: usize = 32;
/// How long the body of a webhook, or of a hook's delivery, may take to arrive. Forges themselves give up after 10 s.
const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// Webhooks that are accepted at once, each a task.
const ACCEPTING_MAX: usize = 256;
/// How long a webhook waits for its answer: forges hang up after 10 s.
const ANSWER_DEADLINE: Duration = Duration::from_secs(8);

/// What the handlers share.
pub(crate) struct Forge {
    pub(crate) acceptor: Arc<Acceptor>,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Held while a webhook's body is in memory.
    bodies: Semaphore,
    /// Held while what it told is accepted.
    accepting: Arc<Semaphore>,
    supervisor: Supervisor,
}

impl Forge {
    pub(crate) fn new(acceptor: Arc<Acceptor>, address: SocketAddr, supervisor: Supervisor) -> Self {
        let accepting = Arc::new(Semaphore::new(ACCEPTING_MAX));
        Self { acceptor, address, bodies: Semaphore::new(BODIES_MAX), accepting, supervisor }
    }
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
    #[error("no project of this name takes webhooks: its file in `projects.d` names the forge as `webhook`")]
    NoWebhook,
    #[error("the webhook is sent as {0}: choose the content type application/json")]
    NoJson(String),
    #[error("a webhook has at most {WEBHOOK_BYTES_MAX} bytes")]
    TooLarge,
    #[error("the body did not arrive within {} s", BODY_DEADLINE.as_secs())]
    Slow,
    #[error("the body did not arrive: {0}")]
    Cut(String),
    #[error("over {ACCEPTING_MAX} webhooks are being accepted: send it again")]
    Busy,
    #[error("the source is still being fetched: nothing is promised yet; send it again to be sure")]
    Later,
    #[error("the signature is missing")]
    NoSignature,
    #[error(transparent)]
    Unsigned(#[from] Unsigned),
    #[error("the webhook is not understood: {}", chain(.0))]
    Webhook(#[from] WebhookError),
    #[error(transparent)]
    Accept(#[from] AcceptError),
}

pub(crate) fn configure(config: &mut web::ServiceConfig) {
    let json =
        web::JsonConfig::default().limit(DELIVERY_BYTES_MAX).error_handler(|error, _| ApiError::NoDelivery(error.to_string()).into());
    config
        .app_data(json)
        .route(HOOK_PATH, web::post().to(take_delivery))
        .route(&format!("{WEBHOOK_PATH}/{{project}}"), web::post().to(take_webhook))
        .service(web::resource(format!("{}/{{repository}}/{{tail:.*}}", served::PATH)).route(web::route().to(served::serve)))
        .route("/health", web::get().to(health))
        .route("/metrics", web::get().to(metrics));
}

/// For Prometheus.
async fn metrics(forge: web::Data<Forge>) -> HttpResponse {
    let mut told = Exposition::new("forge");
    told.gauge("otto_bus_connected", "Whether the bus is there", f64::from(u8::from(forge.acceptor.bus().is_connected())));
    HttpResponse::Ok().content_type(CONTENT_TYPE).body(told.text())
}

async fn health() -> HttpResponse {
    HttpResponse::Ok().json(serde_json::json!({ "status": "ok" }))
}

async fn take_delivery(forge: web::Data<Forge>, request: HttpRequest, body: web::Payload) -> Result<HttpResponse, Error> {
    let mut body = body.into_inner();
    let read = timeout(BODY_DEADLINE, web::Json::<Delivery>::from_request(&request, &mut body)).await;
    let delivery = read.map_err(|_| ApiError::Slow)??.into_inner();
    authorise(&forge.acceptor, &request, &delivery)?;
    let answer = forge.acceptor.accept(&delivery).await.map_err(ApiError::from)?;
    Ok(HttpResponse::Accepted().json(answer))
}

/// 202 if it starts a run, whose trigger is stored; 200 if it starts none.
async fn take_webhook(
    forge: web::Data<Forge>,
    request: HttpRequest,
    name: web::Path<String>,
    body: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let (project, hook) = forge.acceptor.hook(&name).ok_or(ApiError::NoWebhook)?;
    if request.content_type() != "application/json" {
        return Err(ApiError::NoJson(request.content_type().chars().take(80).collect()));
    }
    if !hook.is_signed(request.headers()) {
        return Err(ApiError::NoSignature);
    }
    let told = {
        let _body = forge.bodies.acquire().await.expect("it is never closed");
        let body = timeout(BODY_DEADLINE, body.to_bytes_limited(WEBHOOK_BYTES_MAX)).await.map_err(|_| ApiError::Slow)?;
        let body = body.map_err(|_| ApiError::TooLarge)?.map_err(|error| ApiError::Cut(error.to_string()))?;
        hook.verify(request.headers(), &body)?;
        hook.read(request.headers(), &body)?
    };
    let answer = accept(&forge, project.name.clone(), told).await?;
    let status = if answer.runs.is_empty() { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok(HttpResponse::build(status).json(answer))
}

/// Accepts what was told, and goes on with it if the forge that told has hung up: fetching may take longer than forges wait.
async fn accept(forge: &Forge, project: ProjectName, told: Told) -> Result<Answer, ApiError> {
    let permit = forge.accepting.clone().try_acquire_owned().map_err(|_| ApiError::Busy)?;
    let (sender, answer) = oneshot::channel();
    let (acceptor, token) = (forge.acceptor.clone(), forge.supervisor.token().clone());
    forge.supervisor.spawn(format!("forge: webhook of {project}"), OnError::Log, async move {
        let _permit = permit;
        tokio::select! {
            () = token.cancelled() => {}
            accepted = acceptor.accept_told(&project, told) => {
                if let Err(Err(error)) = sender.send(accepted) {
                    warn!(%project, error = chain(&error), "what a webhook told is not accepted, and its forge has hung up");
                }
            }
        }
        Ok(())
    });
    match timeout(ANSWER_DEADLINE, answer).await {
        Ok(Ok(accepted)) => Ok(accepted?),
        Ok(Err(_)) | Err(_) => Err(ApiError::Later),
    }
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

/// Refuses requests that were meant for another host; see [`is_own_host`]. Webhooks come under the name that the forge knows, and no web page
/// can sign one.
pub(crate) async fn check_host(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let forge = request.app_data::<web::Data<Forge>>().expect("run puts it there");
    let host = request.headers().get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_webhook = request.path().strip_prefix(WEBHOOK_PATH).is_some_and(|rest| rest.starts_with('/'));
    // Repositories are cloned under whatever name a proxy has; no web page has a token.
    if !is_webhook && !served::is_served(request.path()) && !is_own_host(host, forge.address) {
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
            Self::NoWebhook => (StatusCode::NOT_FOUND, "no_webhook", "no webhooks are taken"),
            Self::NoJson(_) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "no_json", "not sent as JSON"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large", "too large"),
            Self::Slow | Self::Cut(_) => (StatusCode::REQUEST_TIMEOUT, "incomplete", "the body did not arrive"),
            Self::NoSignature | Self::Unsigned(_) => (StatusCode::UNAUTHORIZED, "unsigned", "no valid signature"),
            Self::Webhook(_) => (StatusCode::BAD_REQUEST, "no_webhook_body", "not a webhook of this forge"),
            Self::Accept(AcceptError::UnknownRepository(_)) => (StatusCode::NOT_FOUND, "unknown_repository", "no project's repository"),
            Self::Accept(error) if error.is_final() => (StatusCode::BAD_REQUEST, "no_delivery", "not a delivery"),
            Self::Busy | Self::Later | Self::Accept(_) => (StatusCode::SERVICE_UNAVAILABLE, "not_now", "cannot be accepted now"),
        }
    }
}

impl ResponseError for ServeError {
    fn status_code(&self) -> StatusCode {
        self.line().0
    }

    fn error_response(&self) -> HttpResponse {
        let (status, code, title) = self.line();
        debug!(code, error = chain(self), "git is not served");
        problem(status, code, title, self.to_string(), matches!(self, Self::NoToken).then_some("Basic realm=\"otto\", charset=\"UTF-8\""))
    }
}

fn problem(status: StatusCode, code: &str, title: &str, detail: String, challenge: Option<&'static str>) -> HttpResponse {
    let mut response = HttpResponse::build(status);
    if let Some(challenge) = challenge {
        response.insert_header((header::WWW_AUTHENTICATE, challenge));
    }
    let problem = Problem { code: code.to_owned(), title: title.to_owned(), status: status.as_u16(), detail };
    response.content_type("application/problem+json").body(serde_json::to_string(&problem).expect("a problem has text keys only"))
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
        problem(status, code, title, self.to_string(), matches!(self, Self::NoSecret | Self::WrongSecret).then_some("Bearer"))
    }
}
