//! The forge: everything that speaks to a forge. Hooks of git tell of pushes, and webhooks of GitHub, GitLab, Gitea and Forgejo of pushes,
//! tags, pull requests and merge queues; what nobody tells of is found by polling. The commit's tree goes to the depot, and a trigger onto
//! the bus.
//!
//! ```text
//! git push ─▶ post-receive ─▶ otto/pending/<id>.json ─▶ POST /v1/hooks/git ─▶ tree ─▶ depot
//!                                       └── found again by the forge ──┘    └─▶ trigger ─▶ bus ─▶ 2xx
//! webhook of a forge ─▶ POST /v1/hooks/projects/<project> ─▶ signature ────┴─▶ mirror (if it lies elsewhere)
//! ```
//!
//! A team without a forge pushes to `/git/<project>.git`; lines of `cron` are fired; what somebody who may asks for is run; and forges are
//! told how the runs of their commits go.
//!
//! **Invariant:** what is answered with 202 is on the bus; the same thing, told again, is the same runs; no step is run here, and of what is
//! pushed or told, only object ids become arguments of a program.

pub mod delivery;
pub mod git;
pub mod hook;
pub mod library;
pub mod source;

mod accept;
mod asked;
mod clock;
mod cron;
mod happened;
mod pending;
mod poll;
mod routes;
mod served;
mod status;
mod webhook;

use std::{
    collections::BTreeMap,
    fmt, io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
};

use actix_web::{App, HttpServer, middleware, web};
use blob::Blobs;
use config::Project;
use eventbus::{Bus, BusError, Subject};
use model::ProjectName;
use service::{OnError, Supervisor, supervisor::chain};
use tracing::{info, warn};

use webhook::Hook;

pub use clock::Clock;
pub use routes::Problem;
pub use webhook::SecretError;

/// Where deliveries of hooks are taken.
pub const HOOK_PATH: &str = "/v1/hooks/git";
/// Where webhooks of forges are taken: this, a slash, and the project's name.
pub const WEBHOOK_PATH: &str = "/v1/hooks/projects";
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
    /// The folder of mirrors, and of large archives that are not stored yet, this forge's own; it is created if it is missing.
    pub data: PathBuf,
    /// What time it is; by default the machine's.
    pub clock: Clock,
    /// Where people reach the API of the runs that statuses are of; without it, statuses have no links.
    pub public: Option<String>,
    /// The file of the API's tokens, by which repositories are served; without it, to nobody.
    pub tokens: Option<PathBuf>,
}

/// Why a forge does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Some projects are wrong.
    #[error(transparent)]
    Projects(#[from] config::project::WrongProjects),
    /// The secrets of some projects' webhooks are wrong.
    #[error(transparent)]
    Webhooks(#[from] WrongWebhooks),
    /// The data folder cannot be used.
    #[error("cannot use the folder {}", path.display())]
    Data {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The bus does not carry requests.
    #[error("cannot listen to requests for runs")]
    Bus(#[source] BusError),
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

/// Every project whose webhooks cannot be taken.
#[derive(Debug, thiserror::Error)]
pub struct WrongWebhooks(Vec<(ProjectName, SecretError)>);

impl fmt::Display for WrongWebhooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} wrong webhook(s):", self.0.len())?;
        self.0.iter().try_for_each(|(project, error)| write!(f, "\n  {project}: webhook.secret_file: {}", chain(error)))
    }
}

fn read_hooks(projects: &[Project]) -> Result<BTreeMap<ProjectName, Hook>, WrongWebhooks> {
    let (mut hooks, mut wrong) = (BTreeMap::new(), Vec::new());
    for project in projects {
        match Hook::of(project) {
            Ok(Some(hook)) => drop(hooks.insert(project.name.clone(), hook)),
            Ok(None) => {}
            Err(error) => wrong.push((project.name.clone(), error)),
        }
    }
    if wrong.is_empty() { Ok(hooks) } else { Err(WrongWebhooks(wrong)) }
}

/// Starts a forge as tasks of the supervisor, and gives the address on which it listens.
pub async fn run(options: ForgeOptions, bus: Bus, blobs: Blobs, supervisor: &Supervisor) -> Result<SocketAddr, StartError> {
    let ForgeOptions { listen, projects, data, clock, public, tokens } = options;
    let prepared = tokio::task::spawn_blocking(move || {
        let projects = config::load(&projects)?;
        let hooks = read_hooks(&projects)?;
        let cleaned = std::fs::create_dir_all(&data).and_then(|()| accept::remove_leftovers(&data));
        let shown = projects.iter().filter_map(|project| Some((project.name.clone(), project.statuses.clone()?)));
        let board = cleaned.and_then(|()| status::Board::open(data.join("statuses"), shown));
        let board = board.map_err(|source| StartError::Data { path: data.clone(), source })?;
        Ok::<_, StartError>((projects, hooks, data, Arc::new(board)))
    });
    let (projects, hooks, data, board) = prepared.await.expect("reading files does not panic")?;
    let count = projects.len();
    let acceptor = Arc::new(accept::Acceptor::new(projects, hooks, bus.clone(), blobs, data));
    let repositories = web::Data::new(served::Repositories::new(acceptor.projects(), tokens, supervisor.clone()));
    for (project, _) in repositories.bells() {
        // Before the first push can come.
        if let Err(error) = poll::begin(&acceptor, project).await {
            warn!(%project, error = chain(&*error), "cannot look at the repository");
        }
    }
    let failed = |source| StartError::Listen { address: listen, source };
    let listener = TcpListener::bind(listen).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let forge = web::Data::new(routes::Forge::new(acceptor.clone(), address, supervisor.clone()));
    let served = repositories.clone();
    let server = HttpServer::new(move || {
        App::new()
            .app_data(forge.clone())
            .app_data(served.clone())
            .wrap(middleware::from_fn(routes::check_host))
            .configure(routes::configure)
            .default_service(web::to(routes::no_such_path))
    })
    .workers(WORKERS)
    .tcp_nodelay(true)
    .max_connections(CONNECTIONS_MAX)
    .shutdown_timeout(SHUTDOWN_SECONDS)
    .shutdown_signal(supervisor.token().clone().cancelled_owned())
    .listen(listener)
    .map_err(failed)?
    .run();
    supervisor.spawn("forge: http", OnError::Shutdown, async move { Ok(server.await?) });
    watch(&acceptor, &repositories, &clock, supervisor);
    let requests = bus.subscribe_group(Subject::project_run()).await.map_err(StartError::Bus)?;
    supervisor.spawn(
        "forge: runs that are asked for",
        OnError::Shutdown,
        asked::serve(requests, acceptor.clone(), supervisor.token().clone()),
    );
    if !board.is_empty() {
        let token = || supervisor.token().clone();
        for project in board.projects() {
            let say = status::say(board.clone(), project.clone(), public.clone(), clock.clone(), token());
            supervisor.spawn(format!("forge: statuses of {project}"), OnError::Shutdown, say);
        }
        supervisor.spawn("forge: statuses", OnError::Shutdown, status::read(board, bus, token()));
    }
    supervisor.spawn("forge: pending deliveries", OnError::Shutdown, pending::watch(acceptor, supervisor.token().clone()));
    info!(%address, projects = count, "forge listens");
    Ok(address)
}

/// Looks at repositories that say nothing themselves, and at the clock.
fn watch(acceptor: &Arc<accept::Acceptor>, repositories: &served::Repositories, clock: &Clock, supervisor: &Supervisor) {
    for (project, pause) in acceptor.polled() {
        let watch = poll::watch(acceptor.clone(), project.clone(), pause, Arc::default(), supervisor.token().clone());
        supervisor.spawn(format!("forge: polls {project}"), OnError::Log, watch);
    }
    for (project, bell) in repositories.bells() {
        let watch = poll::watch(acceptor.clone(), project.clone(), poll::SERVED_PAUSE, bell.clone(), supervisor.token().clone());
        supervisor.spawn(format!("forge: pushes to {project}"), OnError::Log, watch);
    }
    for project in acceptor.names() {
        let watch = cron::watch(acceptor.clone(), project.clone(), clock.clone(), supervisor.token().clone());
        supervisor.spawn(format!("forge: cron of {project}"), OnError::Log, watch);
    }
}
