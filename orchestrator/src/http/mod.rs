//! The HTTP API: create, show, list, cancel and rerun runs, answer what they wait for, follow their events and their output.
//!
//! A request is authorised by [`access::guard`] as the table [`rights`] says, read by extractors, becomes one call into the [`Orchestrator`], and its
//! result a view of `apispec`. What can be followed has two paths: the thing as it is now, and beside it `…/follow`, the same as a stream
//! of server-sent events that ends with an event `end`: a client that knows no streams needs only the first.
//!
//! **Invariant:** no decision about a run is made here, and no subject of the bus is known here.

mod access;
mod agents;
mod artifacts;
mod auctions;
mod audit;
mod body;
mod docs;
mod environments;
mod error;
mod events;
mod everything;
mod limits;
mod logs;
mod plans;
mod project_runs;
mod projects;
mod rights;
mod runs;
mod seats;
mod sources;
mod spec;
mod sse;
mod token;
mod tokens;
pub mod view;
mod view_waits;
mod waits;

#[cfg(test)]
mod tests;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    num::NonZeroU32,
    sync::Arc,
};

use actix_web::{App, HttpServer, middleware::from_fn, web};
use service::{OnError, Supervisor, threads::request_threads};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use utoipa_actix_web::{AppExt as _, service_config::ServiceConfig};

pub use access::ApiToken;
pub use error::ApiError;
pub use limits::REQUESTS_PER_S_DEFAULT;
pub use projects::Projects;
pub use spec::openapi;
pub use tokens::Tokens;

use self::{
    access::Caller,
    limits::{FORGET_PERIOD, Limits},
    seats::{Seat, Seats},
};
use crate::Orchestrator;

/// The largest body of a request, in bytes: a pipeline file of 1 MiB, escaped, with room for the rest.
const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Streams that are served at once; each costs a few receivers and at most one temporary file.
const FOLLOWERS_MAX: usize = 256;
/// How long requests have to end at a shutdown, in seconds; less than [`service::supervisor::GRACE`]. Streams end at once.
const SHUTDOWN_S: u64 = 2;

/// What the API is told at its start.
#[derive(Debug)]
pub struct HttpOptions {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The token of whoever started this: it may do everything.
    pub token: ApiToken,
    /// Other tokens.
    pub tokens: Tokens,
    /// The projects that the administrator has configured.
    pub projects: Projects,
    /// Requests that each token may make in a second, and each address without one; `None` for as many as come.
    pub requests_per_s: Option<NonZeroU32>,
    /// Names, besides those of the loopback, under which the API may be called: hosts without a port.
    pub hosts: Vec<String>,
    /// Origins, besides the API's own, whose pages may call it, such as `https://otto.example.org`.
    pub origins: Vec<String>,
}

/// Why the API is not served.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {listen}")]
pub struct HttpError {
    listen: SocketAddr,
    #[source]
    source: io::Error,
}

/// What the handlers of all threads share.
pub(crate) struct Api {
    orchestrator: Orchestrator,
    projects: Projects,
    access: access::Access,
    followers: Arc<Seats>,
    uploads: Arc<Seats>,
    downloads: Arc<Seats>,
    /// Cancelled when streams are to end.
    token: CancellationToken,
    document: String,
    routes: spec::Routes,
}

impl Api {
    fn new(
        access: access::Access,
        projects: Projects,
        document: &utoipa::openapi::OpenApi,
        orchestrator: Orchestrator,
        token: CancellationToken,
    ) -> Self {
        Self {
            orchestrator,
            projects,
            access,
            followers: Seats::new(FOLLOWERS_MAX),
            uploads: Seats::new(sources::UPLOADS_MAX),
            downloads: Seats::new(artifacts::DOWNLOADS_MAX),
            token,
            routes: spec::Routes::of(document),
            document: spec::text(document),
        }
    }
}

impl Api {
    /// What ends a stream that the caller follows.
    fn ends(&self, caller: &Caller) -> [CancellationToken; 2] {
        [self.token.clone(), caller.ended().clone()]
    }

    /// The right to be served a stream.
    fn seat(&self, caller: &Caller) -> Result<Seat, ApiError> {
        self.followers.take(caller.name()).ok_or(ApiError::TooManyFollowers)
    }
}

/// Serves the API under `supervisor` until that ends; gives the address on which it listens.
pub fn serve(options: HttpOptions, orchestrator: Orchestrator, supervisor: &Supervisor) -> Result<SocketAddr, HttpError> {
    let listen = options.listen;
    let failed = |source| HttpError { listen, source };
    let token = supervisor.token().clone();
    let limits = Limits::new(options.requests_per_s);
    let access =
        access::Access { token: options.token, tokens: options.tokens.clone(), limits, hosts: options.hosts, origins: options.origins };
    let api = web::Data::new(Api::new(access, options.projects, &openapi(), orchestrator, token.clone()));
    let counted = api.clone();
    let server = HttpServer::new(move || {
        let app = App::new().wrap(from_fn(access::guard)).into_utoipa_app().configure(|config| configure(config, &api));
        app.into_app()
    })
    .workers(request_threads())
    .tcp_nodelay(true)
    .shutdown_signal(token.cancelled_owned())
    .shutdown_timeout(SHUTDOWN_S)
    .bind(listen)
    .map_err(failed)?;
    let address = server.addrs().first().copied().ok_or_else(|| failed(io::ErrorKind::AddrNotAvailable.into()))?;
    let server = server.run();
    supervisor.spawn("http", OnError::Shutdown, async move { Ok(server.await?) });
    let (tokens, ended) = (options.tokens, supervisor.token().clone());
    supervisor.spawn("tokens", OnError::Log, async move {
        tokio::select! {
            () = ended.cancelled() => {}
            () = tokens.watch() => {}
        }
        Ok(())
    });
    let ended = supervisor.token().clone();
    supervisor.spawn("limits", OnError::Log, async move {
        while ended.run_until_cancelled(sleep(FORGET_PERIOD)).await.is_some() {
            counted.access.limits.forget();
        }
        Ok(())
    });
    Ok(address)
}

/// Serves the addresses of callbacks alone, and nothing else of the API, under `supervisor` until that ends.
pub fn serve_callbacks(listener: TcpListener, orchestrator: Orchestrator, supervisor: &Supervisor) -> Result<(), HttpError> {
    let token = supervisor.token().clone();
    let listen = listener.local_addr().unwrap_or(SocketAddr::from(([0; 4], 0)));
    let access = access::Access {
        token: ApiToken::nobodys(),
        tokens: Tokens::default(),
        limits: Limits::new(None),
        hosts: Vec::new(),
        origins: Vec::new(),
    };
    let api = web::Data::new(Api::new(access, Projects::default(), &spec::openapi_of_callbacks(), orchestrator, token.clone()));
    let server = HttpServer::new(move || {
        let app = App::new().wrap(from_fn(access::guard)).into_utoipa_app().configure(|config| {
            config.app_data(api.clone()).configure(callback_routes).default_service(web::to(spec::unknown_path));
        });
        app.into_app()
    })
    .workers(1)
    .shutdown_signal(token.cancelled_owned())
    .shutdown_timeout(SHUTDOWN_S)
    .listen(listener)
    .map_err(|source| HttpError { listen, source })?;
    let server = server.run();
    supervisor.spawn("callbacks", OnError::Shutdown, async move { Ok(server.await?) });
    Ok(())
}

fn configure(config: &mut ServiceConfig<'_>, api: &web::Data<Api>) {
    let json = web::JsonConfig::default().limit(BODY_BYTES_MAX).error_handler(|error, _| ApiError::of_json(&error).into());
    let query = web::QueryConfig::default().error_handler(|error, _| ApiError::InvalidQuery(error.to_string()).into());
    config.app_data(api.clone()).app_data(json).app_data(query);
    config.configure(routes).configure(docs::routes).default_service(web::to(spec::unknown_path));
}

/// Every path of the API.
fn routes(config: &mut ServiceConfig<'_>) {
    config
        .service(token::show)
        .service(runs::create)
        .service(runs::list)
        .service(runs::show)
        .service(runs::cancel)
        .service(runs::rerun)
        .service(artifacts::list)
        .service(artifacts::show)
        .service(agents::list)
        .service(agents::drain)
        .service(audit::list)
        .service(auctions::why)
        .service(auctions::list)
        .service(plans::create)
        .service(plans::show)
        .service(projects::list)
        .service(projects::show)
        .service(project_runs::create)
        .service(environments::list)
        .service(environments::show)
        .service(waits::list)
        .service(waits::answer)
        .configure(callback_routes)
        .service(events::list)
        .service(events::follow)
        .service(everything::follow)
        .service(sources::create)
        .service(logs::whole)
        .service(logs::follow)
        .service(logs::part)
        .service(spec::health)
        .service(spec::metrics)
        .service(spec::openapi_json);
}

/// What outside systems call.
fn callback_routes(config: &mut ServiceConfig<'_>) {
    config.service(waits::call_back);
}
