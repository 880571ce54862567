//! The role over HTTP, for programs that have a file and no repository.
//!
//! ```text
//! POST /v1/parse   the body is a pipeline file; the query its context: branch, tag, event, commit, base, pr, path, param.NAME
//!                  200 {digest, plan, notes, warnings}, 400 with `diagnostics`, 413, 415, 422 for what is not UTF-8; 408, 503 come again
//! GET  /health     whether the process answers
//! GET  /metrics    for Prometheus
//! ```
//!
//! It asks for no token: it reads nothing but the request, keeps nothing, and listens on loopback unless told otherwise. No other file is
//! there for the pipeline, and nothing is known of what changed. Errors are problem documents (RFC 9457).

use std::{
    future::{Ready, ready},
    io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use actix_web::{
    App, Error, HttpRequest, HttpResponse, HttpServer, ResponseError,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    http::{StatusCode, header},
    middleware::{self, Next},
    web,
};
use bytes::Bytes;
use futures_util::StreamExt as _;
use model::{
    context::{EventKind, PullRequest, TriggerContext},
    diagnostic::Diagnostic,
};
use parser::limits::SOURCE_BYTES_MAX;
use serde::Serialize;
use service::{
    OnError, Supervisor,
    host::is_own_host,
    metrics::{CONTENT_TYPE, Exposition},
    supervisor::chain,
};
use tokio::{sync::Semaphore, time::timeout};
use tracing::{debug, info, warn};

use crate::{
    answer::answer_alone,
    makers::{Makers, PLANS_MAX},
    material::{Made, Outcome},
};

/// Connections at a time. A plan has up to 32 MiB, and a slow reader keeps it in memory.
const CONNECTIONS_MAX: usize = 32;
/// Plans that are made at once for requests over HTTP: the rest of the makers is the bus's.
const HTTP_PLANS_MAX: usize = PLANS_MAX / 2;
/// How long a request waits for others before it is told to come again.
const TURN_DEADLINE: Duration = Duration::from_secs(20);
/// How long a body may take: 1 MiB over a slow line. Who sends it slower would keep a connection from others.
const BODY_DEADLINE: Duration = Duration::from_secs(10);
/// Threads that serve connections. The work is the makers'.
const WORKERS: usize = 1;
/// How long requests may go on after the role was told to end, in seconds: less than the supervisor's grace.
const SHUTDOWN_SECONDS: u64 = 3;
/// The path of a file that has none.
const PATH_DEFAULT: &str = "Ottofile";

/// What the handlers share.
#[derive(Debug)]
struct Parser {
    makers: Makers,
    turns: Semaphore,
    address: SocketAddr,
}

/// Serves requests as a task of the supervisor, and gives the address on which it listens.
pub(crate) fn serve(listen: SocketAddr, makers: Makers, supervisor: &Supervisor) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(listen)?;
    let address = listener.local_addr()?;
    let parser = web::Data::new(Parser { makers, turns: Semaphore::new(HTTP_PLANS_MAX), address });
    let server = HttpServer::new(move || {
        App::new()
            .app_data(parser.clone())
            .wrap(middleware::from_fn(check_names))
            .service(web::resource("/v1/parse").route(web::post().to(parse)).default_service(web::to(|| not_allowed("POST"))))
            .service(
                web::resource("/health")
                    .route(web::get().to(health))
                    .route(web::head().to(health))
                    .default_service(web::to(|| not_allowed("GET, HEAD"))),
            )
            .service(
                web::resource("/metrics")
                    .route(web::get().to(metrics))
                    .route(web::head().to(metrics))
                    .default_service(web::to(|| not_allowed("GET, HEAD"))),
            )
            .default_service(web::to(no_such_path))
    })
    .workers(WORKERS)
    .max_connections(CONNECTIONS_MAX)
    .shutdown_timeout(SHUTDOWN_SECONDS)
    .shutdown_signal(supervisor.token().clone().cancelled_owned())
    .listen(listener)?
    .run();
    supervisor.spawn("parser: http", OnError::Shutdown, async move { Ok(server.await?) });
    info!(%address, "parser listens");
    Ok(address)
}

/// Why a request has no plan.
#[derive(Debug, thiserror::Error)]
enum ApiError {
    #[error("there is no such path")]
    NoSuchPath,
    #[error("this path takes {allow} only")]
    MethodNotAllowed { allow: &'static str },
    #[error("the Host header names another machine")]
    ForeignHost,
    #[error("the Origin header names a page of another site")]
    ForeignOrigin,
    #[error("the body has the type `{0}`; send text/plain")]
    NoText(String),
    #[error("the body has over {SOURCE_BYTES_MAX} bytes")]
    TooLarge,
    #[error("the body ended early")]
    BrokenBody(#[source] actix_web::error::PayloadError),
    #[error("the body did not come within {} s", BODY_DEADLINE.as_secs())]
    SlowBody,
    #[error("other requests are before this one")]
    Busy,
    #[error("{0}")]
    BadQuery(String),
    #[error("the pipeline file is not UTF-8")]
    NotUtf8(Vec<Diagnostic>),
    #[error("the pipeline file has mistakes: see `diagnostics`")]
    Refused(Vec<Diagnostic>),
    #[error("{0}")]
    Unavailable(String),
}

/// A problem document (RFC 9457).
#[derive(Debug, Serialize)]
struct Problem<'a> {
    code: &'a str,
    title: &'a str,
    status: u16,
    detail: String,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    diagnostics: &'a [Diagnostic],
}

async fn health() -> HttpResponse {
    HttpResponse::Ok().json(serde_json::json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") }))
}

/// For Prometheus.
async fn metrics() -> HttpResponse {
    HttpResponse::Ok().content_type(CONTENT_TYPE).body(Exposition::new("parser").text())
}

async fn no_such_path() -> Result<HttpResponse, ApiError> {
    Err(ApiError::NoSuchPath)
}

fn not_allowed(allow: &'static str) -> Ready<Result<HttpResponse, ApiError>> {
    ready(Err(ApiError::MethodNotAllowed { allow }))
}

async fn parse(
    parser: web::Data<Parser>,
    request: HttpRequest,
    query: web::Query<Vec<(String, String)>>,
    body: web::Payload,
) -> Result<HttpResponse, ApiError> {
    if let Some(kind) = request.headers().get(header::CONTENT_TYPE) {
        let kind = String::from_utf8_lossy(kind.as_bytes());
        let essence = kind.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("text/plain") {
            return Err(ApiError::NoText(essence.to_owned()));
        }
    }
    let (path, context) = context(query.into_inner())?;
    let source = timeout(BODY_DEADLINE, collect(body)).await.map_err(|_| ApiError::SlowBody)??;
    let is_text = str::from_utf8(&source).is_ok();
    let turn = timeout(TURN_DEADLINE, parser.turns.acquire()).await.map_err(|_| ApiError::Busy)?;
    let _turn = turn.expect("it is never closed");
    match answer_alone(&path, source, context, &parser.makers).await {
        Outcome::Made(made) => Ok(HttpResponse::Ok().content_type(header::ContentType::json()).body(document(*made))),
        Outcome::Refused(diagnostics) if is_text => Err(ApiError::Refused(diagnostics)),
        Outcome::Refused(diagnostics) => Err(ApiError::NotUtf8(diagnostics)),
        Outcome::Broken(message) => Err(ApiError::Unavailable(message)),
        Outcome::Needs(_) => unreachable!("it was given all that there is"),
        Outcome::Triggers(_) => unreachable!("it was asked for a plan"),
    }
}

/// The body, which is given up as soon as it is too large.
async fn collect(mut body: web::Payload) -> Result<Bytes, ApiError> {
    let mut source = Vec::new();
    while let Some(chunk) = body.next().await {
        source.extend_from_slice(&chunk.map_err(ApiError::BrokenBody)?);
        if source.len() > SOURCE_BYTES_MAX {
            return Err(ApiError::TooLarge);
        }
    }
    Ok(source.into())
}

/// The answer, with the plan's own bytes in it.
fn document(made: Made) -> String {
    let Made { digest, plan, notes, warnings } = made;
    let plan = String::from_utf8(plan).expect("JSON is UTF-8");
    let json = |value: Result<String, serde_json::Error>| value.expect("notes and diagnostics have text keys only");
    let (notes, warnings) = (json(serde_json::to_string(&notes)), json(serde_json::to_string(&warnings)));
    format!("{{\"digest\":\"{digest}\",\"plan\":{plan},\"notes\":{notes},\"warnings\":{warnings}}}")
}

/// The file's path and its context.
fn context(query: Vec<(String, String)>) -> Result<(String, TriggerContext), ApiError> {
    let (mut path, mut context) = (PATH_DEFAULT.to_owned(), TriggerContext::default());
    let mut event = None;
    for (name, value) in query {
        match name.as_str() {
            "path" => path = value,
            "branch" => context.branch = value,
            "tag" => context.tag = value,
            "commit" => context.commit = value,
            "base" => context.base = value,
            "event" => {
                let known = EventKind::ALL.into_iter().find(|kind| kind.as_str() == value);
                event = Some(known.ok_or_else(|| ApiError::BadQuery(format!("`{value}` is no event")))?);
            }
            "pr" => context.pull_request = Some(pull_request(&value)?),
            other => match other.strip_prefix("param.").filter(|name| !name.is_empty()) {
                Some(name) => drop(context.parameters.insert(name.to_owned(), value)),
                None => return Err(ApiError::BadQuery(format!("there is no query parameter `{other}`"))),
            },
        }
    }
    let implied = match (&context.pull_request, context.tag.is_empty()) {
        (Some(_), _) => EventKind::PullRequest,
        (None, false) => EventKind::Tag,
        (None, true) => EventKind::Manual,
    };
    context.event = event.unwrap_or(implied);
    Ok((path, context))
}

fn pull_request(text: &str) -> Result<PullRequest, ApiError> {
    let (source, target, fork) = match *text.split(':').collect::<Vec<_>>().as_slice() {
        [source, target] if !source.is_empty() && !target.is_empty() => (source, target, false),
        [source, target, "fork"] if !source.is_empty() && !target.is_empty() => (source, target, true),
        _ => return Err(ApiError::BadQuery("`pr` is SOURCE:TARGET or SOURCE:TARGET:fork".to_owned())),
    };
    Ok(PullRequest { number: 0, target: target.to_owned(), source: source.to_owned(), fork })
}

/// Refuses requests that were meant for another host (see [`is_own_host`]), and those of pages of other sites: they may send plain text
/// without asking, and would have plans made in their visitors' names.
async fn check_names(request: ServiceRequest, next: Next<impl MessageBody + 'static>) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let parser = request.app_data::<web::Data<Parser>>().expect("serve puts it there");
    let host = request.headers().get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !is_own_host(host, parser.address) {
        return Err(ApiError::ForeignHost.into());
    }
    if let Some(origin) = request.headers().get(header::ORIGIN) {
        let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
        if authority.is_none_or(|authority| !authority.eq_ignore_ascii_case(host)) {
            return Err(ApiError::ForeignOrigin.into());
        }
    }
    next.call(request).await
}

impl ApiError {
    /// The line of the table: status, code, title.
    fn line(&self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::NoSuchPath => (StatusCode::NOT_FOUND, "no_such_path", "no such path"),
            Self::ForeignHost => (StatusCode::MISDIRECTED_REQUEST, "foreign_host", "asked for another host"),
            Self::MethodNotAllowed { .. } => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "method not allowed"),
            Self::ForeignOrigin => (StatusCode::FORBIDDEN, "foreign_origin", "asked by a page of another site"),
            Self::SlowBody => (StatusCode::REQUEST_TIMEOUT, "slow_body", "the body is too slow"),
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy", "busy"),
            Self::NoText(_) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "no_text", "not plain text"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large", "too large"),
            Self::BrokenBody(_) => (StatusCode::BAD_REQUEST, "broken_body", "the body is not whole"),
            Self::BadQuery(_) => (StatusCode::BAD_REQUEST, "bad_query", "not a context"),
            Self::NotUtf8(_) => (StatusCode::UNPROCESSABLE_ENTITY, "not_utf8", "not UTF-8"),
            Self::Refused(_) => (StatusCode::BAD_REQUEST, "refused", "the pipeline file is refused"),
            Self::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "not_now", "cannot be planned now"),
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
            warn!(code, error = chain(self), "no plan");
        } else {
            debug!(code, error = chain(self), "request refused");
        }
        let diagnostics = match self {
            Self::Refused(diagnostics) | Self::NotUtf8(diagnostics) => diagnostics.as_slice(),
            Self::NoSuchPath
            | Self::MethodNotAllowed { .. }
            | Self::ForeignHost
            | Self::ForeignOrigin
            | Self::SlowBody
            | Self::Busy
            | Self::NoText(_)
            | Self::TooLarge
            | Self::BrokenBody(_)
            | Self::BadQuery(_)
            | Self::Unavailable(_) => &[],
        };
        let problem = Problem { code, title, status: status.as_u16(), detail: self.to_string(), diagnostics };
        let body = serde_json::to_string(&problem).expect("a problem has text keys only");
        let mut response = HttpResponse::build(status);
        if let Self::MethodNotAllowed { allow } = self {
            response.insert_header((header::ALLOW, *allow));
        }
        response.content_type("application/problem+json").body(body)
    }
}
