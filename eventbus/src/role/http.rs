//! The role over HTTP: agents enrol themselves, and operators see how it is.
//!
//! ```text
//! POST /v1/enrolments   {token, public_key}; 200 with what the agent needs, 403 if the token admits nobody, 400, 405, 408, 413
//! GET  /health          200, or 503 with what is wrong
//! GET  /metrics         for Prometheus
//! ```
//!
//! It asks for no other token: that of the enrolment is 256 random bits. Errors are problem documents (RFC 9457).

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use actix_web::{App, FromRequest as _, HttpRequest, HttpResponse, HttpServer, http::StatusCode, web};
use model::{AgentClass, AgentName};
use serde::{Deserialize, Serialize};
use service::{
    OnError, Supervisor,
    metrics::{CONTENT_TYPE, Exposition},
    supervisor::chain,
};
use tokio::{sync::Notify, time::timeout};
use tracing::{info, warn};

use crate::nats::{Enrolment, enrolment::EnrolmentError};

/// Connections at a time: a whole fleet does not enrol itself in one second.
const CONNECTIONS_MAX: usize = 64;
/// The most bytes of a request: a token and a key.
const BODY_BYTES_MAX: usize = 4 * 1024;
/// How long a body may take. No token is asked for before it is read, and who sends it slower would keep a connection from others.
const BODY_DEADLINE: Duration = Duration::from_secs(5);
/// How long requests may go on after the role was told to end, in seconds: less than the supervisor's grace.
const SHUTDOWN_SECONDS: u64 = 3;

/// What an agent sends: its private key stays where it is.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolmentRequest {
    /// What the administrator gave it.
    pub token: String,
    /// The public key of its user.
    pub public_key: String,
}

/// What an agent needs from then on.
#[derive(Debug, Serialize, Deserialize)]
pub struct EnrolmentAnswer {
    /// Its name.
    pub agent: AgentName,
    /// Its class.
    pub class: AgentClass,
    /// The JWT of its user.
    pub jwt: String,
    /// Whose commands it obeys.
    pub commands_key: String,
    /// The bus.
    pub bus_urls: Vec<String>,
    /// The depot.
    pub depot_url: String,
}

/// What every agent is told.
#[derive(Debug, Clone)]
pub struct Directions {
    /// The key of the orchestrator's commands.
    pub commands_key: String,
    /// The bus.
    pub bus_urls: Vec<String>,
    /// The depot.
    pub depot_url: String,
}

/// What is wrong, if anything; told by `/health`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Health(Arc<Mutex<Option<String>>>);

impl Health {
    pub(crate) fn set(&self, problem: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }

    pub(crate) fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What requests are answered with.
#[derive(Debug)]
pub(crate) struct Office {
    pub(crate) enrolment: Arc<Enrolment>,
    pub(crate) directions: Directions,
    pub(crate) health: Health,
    /// Told of each agent that is admitted.
    pub(crate) admitted: Arc<Notify>,
}

/// A problem document (RFC 9457).
#[derive(Debug, Serialize)]
struct Problem {
    title: &'static str,
    status: u16,
    detail: String,
}

pub(crate) fn serve(listen: SocketAddr, office: Office, supervisor: &Supervisor) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(listen)?;
    let address = listener.local_addr()?;
    let office = web::Data::new(office);
    let server = HttpServer::new(move || {
        let json = web::JsonConfig::default().limit(BODY_BYTES_MAX).error_handler(|error, _| {
            let status = actix_web::ResponseError::status_code(&error);
            actix_web::error::InternalError::from_response("", problem(status, "the request does not read as one", error.to_string()))
                .into()
        });
        App::new()
            .app_data(office.clone())
            .app_data(json)
            .service(web::resource("/v1/enrolments").route(web::post().to(enrol)).default_service(web::to(not_allowed)))
            .service(web::resource("/health").route(web::get().to(tell)).default_service(web::to(not_allowed)))
            .service(web::resource("/metrics").route(web::get().to(metrics)).default_service(web::to(not_allowed)))
            .default_service(web::to(no_such_path))
    })
    .workers(1)
    .tcp_nodelay(true)
    .max_connections(CONNECTIONS_MAX)
    .shutdown_timeout(SHUTDOWN_SECONDS)
    .shutdown_signal(supervisor.token().clone().cancelled_owned())
    .listen(listener)?
    .run();
    supervisor.spawn("eventbus: http", OnError::Shutdown, async move { Ok(server.await?) });
    Ok(address)
}

async fn enrol(office: web::Data<Office>, request: HttpRequest, body: web::Payload) -> actix_web::Result<HttpResponse> {
    let mut body = body.into_inner();
    let Ok(read) = timeout(BODY_DEADLINE, web::Json::<EnrolmentRequest>::from_request(&request, &mut body)).await else {
        let detail = format!("the body did not come within {} s", BODY_DEADLINE.as_secs());
        return Ok(problem(StatusCode::REQUEST_TIMEOUT, "the body stopped coming", detail));
    };
    Ok(admit(&office, read?.into_inner()).await)
}

async fn admit(office: &Office, request: EnrolmentRequest) -> HttpResponse {
    let EnrolmentRequest { token, public_key } = request;
    let enrolment = office.enrolment.clone();
    // It waits for the disk, and for whoever changes a record just now.
    let Ok(admitted) = web::block(move || enrolment.redeem(&token, &public_key)).await else {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "the role ends", "come again".to_owned());
    };
    match admitted {
        Ok(admission) => {
            // Those who place work know of it before the agent has its answer, or soon after.
            office.admitted.notify_one();
            info!(agent = %admission.agent, class = %admission.class, "an agent has enrolled itself");
            let Directions { commands_key, bus_urls, depot_url } = office.directions.clone();
            let (agent, class, jwt) = (admission.agent, admission.class, admission.jwt);
            HttpResponse::Ok().json(EnrolmentAnswer { agent, class, jwt, commands_key, bus_urls, depot_url })
        }
        Err(error @ EnrolmentError::Token) => problem(StatusCode::FORBIDDEN, "nobody is admitted", error.to_string()),
        Err(error @ EnrolmentError::PublicKey) => problem(StatusCode::BAD_REQUEST, "nobody is admitted", error.to_string()),
        Err(error) => {
            warn!(error = chain(&error), "an agent could not be enrolled");
            problem(StatusCode::SERVICE_UNAVAILABLE, "the record cannot be kept now", "come again".to_owned())
        }
    }
}

async fn tell(office: web::Data<Office>) -> HttpResponse {
    match office.health.get() {
        None => HttpResponse::Ok().json(serde_json::json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") })),
        Some(detail) => problem(StatusCode::SERVICE_UNAVAILABLE, "the bus is not well", detail),
    }
}

/// For Prometheus.
async fn metrics(office: web::Data<Office>) -> HttpResponse {
    let mut told = Exposition::new("eventbus");
    told.gauge("otto_bus_is_well", "Whether the last look found the bus well", f64::from(u8::from(office.health.get().is_none())));
    HttpResponse::Ok().content_type(CONTENT_TYPE).body(told.text())
}

async fn not_allowed() -> HttpResponse {
    problem(StatusCode::METHOD_NOT_ALLOWED, "this path does not take that", "see the documentation".to_owned())
}

async fn no_such_path() -> HttpResponse {
    problem(StatusCode::NOT_FOUND, "there is no such path", "/v1/enrolments, /health and /metrics are there".to_owned())
}

fn problem(status: StatusCode, title: &'static str, detail: String) -> HttpResponse {
    HttpResponse::build(status).content_type("application/problem+json").json(Problem { title, status: status.as_u16(), detail })
}
