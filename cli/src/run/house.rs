//! All roles in this process: on the bus within it, with the store of the folder, without a server.

use std::{
    env::current_exe,
    net::{Ipv4Addr, TcpListener},
    num::NonZeroU32,
    path::PathBuf,
    time::Duration,
};

use agent::{AgentOptions, Isolation, Level, Nursery, SandboxOptions, Variables, container::Containers};
use anyhow::Context as _;
use auctioneer::AuctioneerOptions;
use blob::Blobs;
use eventbus::memory::Journal;
use orchestrator::{
    Orchestrator,
    callbacks::CallbackKey,
    engine::{self, EngineOptions, Hint},
    http::serve_callbacks,
    traces::{Endpoint, TraceOptions},
    views::ViewsPlace,
};
use parser_service::ParserOptions;
use service::{Supervisor, env, settings::Settings};
use tokio::{task::spawn_blocking, time::timeout};
use tracing::warn;

use super::fit::Fit;
use crate::store::{self, Held};

/// The name of the only agent. It stays: what an earlier process left is found by it.
const AGENT_NAME: &str = "local";
/// What the roles of this process are called in the log.
const NAME: &str = "otto-run";
/// The class of agents that everything is announced to.
const CLASS: &str = "default";
/// How long tasks have when all ends at once.
const FORCED_GRACE: Duration = Duration::from_millis(100);

/// The roles, and the folder in which they work.
pub(super) struct House {
    pub(super) orchestrator: Orchestrator,
    /// Where webhooks are called: the beginning of each address. None where no stage waits for one.
    pub(super) callbacks: Option<String>,
    supervisor: Supervisor,
    workplace: Workplace,
}

/// What stages run with.
pub(super) struct Means {
    /// How many run at once.
    pub(super) slots: NonZeroU32,
    /// What they find here.
    pub(super) fit: Fit,
    /// How far they are kept apart.
    pub(super) isolation: Isolation,
    /// What holds them, if it was forked already.
    pub(super) nursery: Option<Nursery>,
    /// The directory in which they run, instead of one of their own.
    pub(super) in_place: Option<PathBuf>,
    /// How many there are, about.
    pub(super) stages: u32,
    /// Whether one demands that the machine gives it no more than so much.
    pub(super) limits_stages: bool,
    /// The key of webhooks' addresses, where a stage waits for one.
    pub(super) callback_key: Option<CallbackKey>,
}

/// The folder in which stages work. It does not lie in the project: tools that look for their root upwards must not find the project's.
struct Workplace(PathBuf);

impl Workplace {
    /// The one that an earlier process of the run has left, else a new one.
    fn of(held: &Held) -> anyhow::Result<Self> {
        if let Some(left) = held.kept.workplace() {
            return Ok(Self(left));
        }
        let folder = tempfile::Builder::new().prefix("otto-run-").tempdir().context("there is no folder for the run's work")?;
        let path = folder.path().canonicalize()?;
        held.set_workplace(&path)?;
        let _no_longer_removed_by_itself = folder.keep();
        Ok(Self(path))
    }

    fn agent(&self) -> PathBuf {
        self.0.join(store::AGENT)
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        if let Err(error) = agent::remove_tree(&self.0) {
            warn!(folder = %self.0.display(), %error, "the run's work is left behind");
        }
    }
}

impl House {
    /// Starts the roles on what the run's journal has; when this returns they listen to each other.
    /// `hints` are the caches that earlier runs left.
    pub(super) async fn start(blobs: Blobs, held: &Held, journal: Journal, hints: Vec<Hint>, means: Means) -> anyhow::Result<Self> {
        let workplace = Workplace::of(held)?;
        let (bus, supervisor) = (eventbus::memory::bus_with(journal)?, Supervisor::new());
        // The file is the user's own: a mistake of it costs nobody else anything.
        let parser = ParserOptions { libraries: vec![stdlib::library()], isolation: parser_service::Isolation::None, listen: None };
        parser_service::run(parser, bus.clone(), blobs.clone(), &supervisor).await?;
        auctioneer::run(AuctioneerOptions { name: NAME.to_owned(), asks_the_roll: false }, bus.clone(), &supervisor).await?;
        let listener = means.callback_key.is_some().then(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).transpose();
        let listener = listener.context("cannot listen on loopback for the calls of webhooks")?;
        let address = listener.as_ref().map(TcpListener::local_addr).transpose()?;
        let callbacks = address.map(|address| format!("http://{address}"));
        let key = means.callback_key.clone().map_or_else(CallbackKey::generate, Ok)?;
        let options = EngineOptions {
            views: ViewsPlace::Nowhere,
            hints,
            callback_base: callbacks.clone(),
            traces: traces()?,
            ..EngineOptions::new(NAME, key)
        };
        let orchestrator = engine::start(options, bus.clone(), blobs.clone(), &supervisor).await?;
        if let Some(listener) = listener {
            serve_callbacks(listener, orchestrator.clone(), &supervisor)?;
        }
        agent::run(agent_options(means, workplace.agent())?, bus, blobs, &supervisor).await?;
        Ok(Self { orchestrator, callbacks, supervisor, workplace })
    }

    /// Ends the roles and every process of a stage, and removes the folder.
    pub(super) async fn end(self) {
        self.supervisor.shut_down().await;
    }

    /// The same, at once.
    pub(super) async fn end_now(self) -> anyhow::Result<()> {
        self.supervisor.token().cancel();
        let data = self.workplace.agent();
        spawn_blocking(move || agent::end_attempts(&data)).await??;
        let _stuck = timeout(FORCED_GRACE, self.supervisor.wait()).await;
        // What was started while the others were ended.
        let data = self.workplace.agent();
        spawn_blocking(move || agent::end_attempts(&data)).await??;
        Ok(())
    }
}

/// Where the spans of the run go, if anywhere.
fn traces() -> anyhow::Result<Option<TraceOptions>> {
    if [env::OTLP_ENDPOINT, env::OTEL_ENDPOINT].iter().all(|name| std::env::var_os(name).is_none()) {
        return Ok(None);
    }
    let mut settings = Settings::from_environment();
    let endpoint: Option<Endpoint> = settings.optional(env::OTLP_ENDPOINT).or_else(|| settings.optional(env::OTEL_ENDPOINT));
    let headers = settings.optional_file(env::OTLP_HEADERS_FILE);
    settings.check()?;
    let Some(endpoint) = endpoint else { return Ok(None) };
    let endpoint = match headers {
        Some(headers) => endpoint.with_headers(&headers).with_context(|| env::OTLP_HEADERS_FILE)?,
        None => endpoint,
    };
    Ok(Some(TraceOptions { endpoint, state: None }))
}

fn agent_options(means: Means, data: PathBuf) -> anyhow::Result<AgentOptions> {
    let environment: Variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect();
    let sandbox = SandboxOptions::of(means.isolation, current_exe().context("cannot find this program")?, &environment);
    // Who keeps nothing apart does not want to wait for it either.
    let processes = sandbox.processes.filter(|_| means.isolation != Isolation::Level(Level::Group));
    Ok(AgentOptions {
        name: AGENT_NAME.parse()?,
        slots: means.slots.get(),
        data,
        price_micros_per_s: 0,
        commands: None,
        class: CLASS.to_owned(),
        facts: means.fit.facts,
        passthrough: agent::tool_homes(&environment),
        finds_tools: false,
        containers: means.fit.runtime.map_or(Containers::None, Containers::Found),
        disk_reserve_bytes: agent::DISK_RESERVE_BYTES,
        sandbox: SandboxOptions { processes, limits_stages: means.limits_stages, nursery: means.nursery, ..sandbox },
        program: agent::THIS_PROGRAM.into(),
        in_place: means.in_place,
        attempts: means.stages,
    })
}
