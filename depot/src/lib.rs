//! The depot: content-addressed bytes over HTTP, with a token for each role and each attempt.
//!
//! ```text
//! PUT  /v1/blobs/<digest>   stores the body if its digest is this one       201
//! GET  /v1/blobs/<digest>   the bytes, or one range of them                 200, 206
//! HEAD /v1/blobs/<digest>   whether they are there, and how many            200
//! DELETE /v1/unused          removes what nobody has used for 31 days         200
//! GET  /health              without a token: how many bytes are free        200
//! GET  /metrics             the same, for Prometheus                        200
//! ```
//!
//! Errors are problem documents (RFC 9457).
//!
//! **Invariant:** the depot knows no run and no plan; it can mint no token; a body never lies in memory, and what is answered with 2xx is on
//! disk.

pub mod access;
pub mod problem;
mod routes;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    time::Duration,
};

use actix_web::{App, HttpServer, middleware, web};
use blob::{BlobError, DiskStore, Durability, token::Verifier};
use service::{OnError, Supervisor, threads::request_threads};
use tracing::info;

pub use problem::Problem;

/// The most bytes of one blob. What is larger (an artifact, a log) is stored in pieces.
pub const BLOB_BYTES_MAX: u64 = 8 * 1024 * 1024 * 1024;
/// How long a sender may be silent within a body before its upload is given up.
pub const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections at a time; more wait in the system's queue. Each may hold a few buffers of 64 KiB, so all hold below 1 GiB.
const CONNECTIONS_MAX: usize = 2048;
/// How long requests may go on after the depot was told to end, in seconds: less than the supervisor's grace, so that it ends in order.
const SHUTDOWN_SECONDS: u64 = 3;

/// What a depot is told.
#[derive(Debug, Clone)]
pub struct DepotOptions {
    /// Where to listen; port 0 is any free one.
    pub listen: SocketAddr,
    /// The folder of the blobs; it is created if it is missing.
    pub data: PathBuf,
    /// Checks the tokens.
    pub verifier: Verifier,
    /// The name of a host under which it is reached from elsewhere: that of a proxy that passes requests on, say.
    pub host: Option<String>,
}

/// Why a depot does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be opened.
    #[error("cannot open the depot's store")]
    Store(#[source] BlobError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// What the handlers share.
#[derive(Debug)]
pub(crate) struct Depot {
    pub(crate) store: DiskStore,
    pub(crate) verifier: Verifier,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    pub(crate) host: Option<String>,
}

/// Starts a depot as a task of the supervisor, and gives the address on which it listens.
pub async fn run(options: DepotOptions, supervisor: &Supervisor) -> Result<SocketAddr, StartError> {
    let DepotOptions { listen, data, verifier, host } = options;
    let store = tokio::task::spawn_blocking(move || DiskStore::open(&data, Durability::Fsync));
    let store = store.await.expect("opening a store does not panic").map_err(StartError::Store)?;
    let failed = |source| StartError::Listen { address: listen, source };
    let listener = TcpListener::bind(listen).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let depot = web::Data::new(Depot { store, verifier, address, host });
    let server = HttpServer::new(move || {
        App::new()
            .app_data(depot.clone())
            .wrap(middleware::from_fn(access::check_host))
            .configure(routes::configure)
            .default_service(web::to(problem::no_such_path))
    })
    .workers(request_threads())
    // A blob goes out in pieces: the second would wait until the first is acknowledged, which clients put off for 40 ms (RFC 896, RFC 1122 4.2.3.2).
    .tcp_nodelay(true)
    .max_connections(CONNECTIONS_MAX)
    .shutdown_timeout(SHUTDOWN_SECONDS)
    .shutdown_signal(supervisor.token().clone().cancelled_owned())
    .listen(listener)
    .map_err(failed)?
    .run();
    supervisor.spawn("depot: http", OnError::Shutdown, async move { Ok(server.await?) });
    info!(%address, "depot listens");
    Ok(address)
}
