//! The forge: everything that speaks to a forge. So far that is git itself: a hook tells of each push, the commit's tree goes to the depot,
//! and a trigger onto the bus.
//!
//! ```text
//! git push ─▶ post-receive ─▶ otto/pending/<id>.json ─▶ POST /v1/hooks/git ─▶ tree ─▶ depot
//!                                       └── found again by the forge ──┘    └─▶ trigger ─▶ bus ─▶ 2xx
//! ```
//!
//! **Invariant:** what is answered with 2xx is on the bus; the same delivery, told again, is the same runs; no step is run here, and no text
//! of a push becomes an argument of a program.

pub mod delivery;
pub mod git;
pub mod hook;
pub mod library;
pub mod source;

mod accept;
mod pending;
mod routes;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
};

use actix_web::{App, HttpServer, middleware, web};
use blob::Blobs;
use eventbus::Bus;
use service::{OnError, Supervisor};
use tracing::info;

pub use routes::Problem;

/// Where deliveries of hooks are taken.
pub const HOOK_PATH: &str = "/v1/hooks/git";
/// Connections at a time: hooks of pushes, each of which waits for its answer.
const CONNECTIONS_MAX: usize = 512;
/// Threads that serve connections. The work is git's.
const WORKERS: usize = 1;
/// How long requests may go on after the forge was told to end, in seconds: less than the supervisor's grace, so that it ends in order.
const SHUTDOWN_SECONDS: u64 = 3;

/// What a forge is told.
#[derive(Debug, Clone)]
pub struct ForgeOptions {
    /// Where to listen; port 0 is any free one.
    pub listen: SocketAddr,
    /// The folder of the projects' files; see [`project`].
    pub projects: PathBuf,
    /// The folder of large archives that are not stored yet, this forge's own; it is created if it is missing.
    pub data: PathBuf,
}

/// Why a forge does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Some projects are wrong.
    #[error(transparent)]
    Projects(#[from] config::project::WrongProjects),
    /// The data folder cannot be used.
    #[error("cannot use the folder {}", path.display())]
    Data {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
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

/// Starts a forge as tasks of the supervisor, and gives the address on which it listens.
pub async fn run(options: ForgeOptions, bus: Bus, blobs: Blobs, supervisor: &Supervisor) -> Result<SocketAddr, StartError> {
    let ForgeOptions { listen, projects, data } = options;
    let prepared = tokio::task::spawn_blocking(move || {
        let projects = config::load(&projects)?;
        let cleaned = std::fs::create_dir_all(&data).and_then(|()| accept::remove_leftovers(&data));
        cleaned.map_err(|source| StartError::Data { path: data.clone(), source })?;
        Ok::<_, StartError>((projects, data))
    });
    let (projects, data) = prepared.await.expect("reading files does not panic")?;
    let count = projects.len();
    let acceptor = Arc::new(accept::Acceptor::new(projects, bus, blobs, data));
    let failed = |source| StartError::Listen { address: listen, source };
    let listener = TcpListener::bind(listen).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let forge = web::Data::new(routes::Forge { acceptor: acceptor.clone(), address });
    let server = HttpServer::new(move || {
        App::new()
            .app_data(forge.clone())
            .wrap(middleware::from_fn(routes::check_host))
            .configure(routes::configure)
            .default_service(web::to(routes::no_such_path))
    })
    .workers(WORKERS)
    .max_connections(CONNECTIONS_MAX)
    .shutdown_timeout(SHUTDOWN_SECONDS)
    .shutdown_signal(supervisor.token().clone().cancelled_owned())
    .listen(listener)
    .map_err(failed)?
    .run();
    supervisor.spawn("forge: http", OnError::Shutdown, async move { Ok(server.await?) });
    supervisor.spawn("forge: pending deliveries", OnError::Shutdown, pending::watch(acceptor, supervisor.token().clone()));
    info!(%address, projects = count, "forge listens");
    Ok(address)
}
