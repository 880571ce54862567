//! The agent role: makes offers, runs stages, streams their output, reports how they ended. It owns its slots.
//!
//! ```text
//! desk ── core::slots (pure: offers, reservations, leases)
//!   └─▶ keeper of each attempt ── executor (work directory, steps, output)
//!                              └─ spool (what outlives a kill), reports (said until heard)
//! ```
//!
//! **Invariants:** an attempt is started at most once under one fence, even if the agent is killed at any instruction; no process of an
//! attempt is left when its end is reported; what ended is told until somebody says that it was heard.
//!
//! It must never see another agent's work, or hold a secret value.

mod clock;
pub mod container;
mod core;
mod desk;
mod disk;
mod executor;
mod keeper;
mod process_file;
mod reports;
mod sandbox;
mod spool;
mod storing;
mod tools;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    thread::available_parallelism,
};

use blob::Blobs;
use eventbus::{Bus, BusError, Subject, signed::CommandVerifier};
use model::{AgentName, plan::Value, protocol::enrolment::CLASS};
use service::{OnError, Supervisor};
use tokio::{sync::mpsc, task::spawn_blocking};
use tracing::info;

pub use disk::DISK_RESERVE_BYTES;
pub use executor::{
    environment::{Variables, tool_homes},
    workspace::remove_tree,
};
pub use sandbox::doctor::{Finding, examine, offers, offers_of};
pub use sandbox::{
    Isolation, LIMITED_FACTS, Level, Nursery, PROCESSES_MAX, STAGE_INIT, SandboxError, SandboxOptions, StageUsers, UnknownIsolation,
    UnknownUsers, fork_nursery, stage_init,
};
pub use spool::SpoolError;
pub use tools::{ALL_TOOLS, find_tools, tool_facts};

use self::{
    container::{ContainerOptions, Containers, Runtime},
    core::slots::{Slots, Terms},
    desk::Desk,
    executor::{Tools, archives::Archives, library::Libraries, output::LiveBudget, sources::Sources},
    keeper::{Happened, Shared},
    sandbox::{Sandbox, end_nurseries},
    spool::{Recovered, Spool},
};

/// The target of the log lines from which the benchmark draws where the time of a stage goes.
pub(crate) const WATERFALL: &str = "waterfall";

/// The program that is running: `otto` has the standard steps itself.
pub const THIS_PROGRAM: &str = "/proc/self/exe";

/// In an agent's data folder: step libraries, which stages read.
const LIBRARIES: &str = "libraries";
/// In an agent's data folder: what steps keep between their calls, which they write.
const STEPS: &str = "steps";

/// How an agent is set up.
#[derive(Debug, Clone)]
pub struct AgentOptions {
    /// Its name, unique on its bus.
    pub name: AgentName,
    /// How many stages it runs at once.
    pub slots: u32,
    /// The folder of its data; no other agent may use it. Work directories lie there, so a short path is a good one.
    pub data: PathBuf,
    /// The price of a second, in millionths of the installation's currency unit.
    pub price_micros_per_s: u64,
    /// Whose commands it obeys: the orchestrator's key, learned at the enrolment; none where they are in one process.
    pub commands: Option<CommandVerifier>,
    /// The class whose auctions it hears.
    pub class: String,
    /// What it is and has, for stages' requirements; see [`machine_facts`].
    pub facts: BTreeMap<String, Value>,
    /// What stages see of the agent's own environment; see [`tool_homes`].
    pub passthrough: Variables,
    /// How stages are isolated.
    pub sandbox: SandboxOptions,
    /// The program that runs standard steps: `PROGRAM step-exec SYMBOL INVOCATION`; see [`THIS_PROGRAM`].
    pub program: PathBuf,
    /// A person's own directory: stages run in it as it is, one at a time, and nothing in it is put there or removed by the agent. Without
    /// one, each stage has a directory of its own.
    pub in_place: Option<PathBuf>,
    /// Whether it looks behind its start for the tools that stages ask for, as a service does.
    pub finds_tools: bool,
    /// What runs the containers of stages with an image, if anything does.
    pub containers: Containers,
    /// When less than so many bytes of the disk with its data are free, the stage that has written the most is ended.
    pub disk_reserve_bytes: u64,
    /// How many attempts there will be, about: what an attempt needs is made ahead for no more. [`u32::MAX`] for a service.
    pub attempts: u32,
}

/// Why an agent does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its data folder cannot be used.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// What it keeps there cannot be read.
    #[error("cannot take stock of the agent's data folder {}", path.display())]
    Stock {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Stages cannot be isolated.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// It cannot listen.
    #[error("the agent cannot listen to the bus")]
    Bus(#[from] BusError),
}

/// What a stage demands that a machine of these facts does not have, for people; `None` if it could run there.
pub fn lacks(requires: &model::plan::Requirements, facts: &BTreeMap<String, Value>) -> Option<String> {
    model::capability::missing(requires, facts)
}

/// `arch`, `os`, `cores`, and `memory` in bytes, of this machine. What it offers to isolate stages, an agent finds out by itself.
pub fn machine_facts() -> BTreeMap<String, Value> {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        arch => arch,
    };
    let cores = available_parallelism().map_or(1, |cores| i64::try_from(cores.get()).unwrap_or(i64::MAX));
    let mut facts = BTreeMap::from([
        ("arch".to_owned(), Value::Text(arch.to_owned())),
        ("os".to_owned(), Value::Text(std::env::consts::OS.to_owned())),
        ("cores".to_owned(), Value::Integer(cores)),
    ]);
    facts.extend(memory().map(|bytes| ("memory".to_owned(), Value::Integer(bytes))));
    facts
}

/// Of `/proc/meminfo` (`man 5 proc_meminfo`), which counts in KiB.
fn memory() -> Option<i64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    total.trim().strip_suffix("kB")?.trim().parse::<i64>().ok()?.checked_mul(1024)
}

/// Ends every process of every attempt of the agent that works in this folder, at once and without a word to anybody. For a process that
/// ends with its agent in it.
pub fn end_attempts(data: &Path) -> io::Result<()> {
    match spool::end_attempts(data) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        ended => ended,
    }
}

/// What an agent has in its data folder.
struct Stock {
    spool: Spool,
    /// What an earlier life left.
    recovered: Vec<Recovered>,
    archives: Archives,
    sources: Sources,
    libraries: Libraries,
    step_caches: PathBuf,
    sandbox: Sandbox,
}

impl Stock {
    /// Ends what an earlier life left running. `ahead`: folders of attempts that are made before they are needed.
    fn open(data: &Path, isolate: &SandboxOptions, ahead: u32) -> Result<Self, Error> {
        let stock = |source| Error::Stock { path: data.to_path_buf(), source };
        let spool = Spool::open(data, ahead)?;
        // As the spool has it, so that no path changes its meaning with the folder that the agent was started in.
        let data = data.canonicalize().map_err(stock)?;
        if spool.is_used() {
            // They clear up what their stages left better than anybody who comes later.
            end_nurseries(&data);
        }
        let recovered = spool.recover().map_err(stock)?;
        let archives = Archives::create(data.join("archives")).map_err(stock)?;
        let sources = Sources::create(data.join("sources")).map_err(stock)?;
        let libraries = Libraries::create(data.join(LIBRARIES)).map_err(stock)?;
        let step_caches = data.join(STEPS);
        let sandbox = Sandbox::open(isolate, &data)?;
        let spool = spool.of(sandbox.users()).map_err(stock)?;
        Ok(Self { spool, recovered, archives, sources, libraries, step_caches, sandbox })
    }
}

/// Lets stages have containers, and gives what the agent says of itself then.
async fn set_containers(containers: &OnceLock<Arc<Runtime>>, runtime: Runtime) -> BTreeMap<String, Value> {
    container::remove_leftovers(&runtime).await;
    let facts = runtime.facts();
    containers.get_or_init(|| Arc::new(runtime));
    facts
}

/// Looks for what runs containers on this machine, which may take seconds, and tells the desk what it finds.
async fn look_for_containers(search: ContainerOptions, containers: &OnceLock<Arc<Runtime>>, told: mpsc::Sender<Happened>) {
    match container::probe(&search).await {
        Ok(runtime) => {
            info!(runtime = runtime.name(), "stages with an image can run here");
            let facts = set_containers(containers, runtime).await;
            // The desk is gone when the agent ends.
            let _ended = told.send(Happened::Learned { facts }).await;
        }
        Err(why) => info!(%why, "no containers run here: stages with an image go to other agents"),
    }
}

/// Starts an agent on `supervisor`. When this returns it listens: an announcement that is published afterwards is answered.
///
/// What an earlier life with the same data folder left running is ended first, and reported as lost.
pub async fn run(options: AgentOptions, bus: Bus, blobs: Blobs, supervisor: &Supervisor) -> Result<(), Error> {
    // Nobody but its owner puts a link there.
    let in_place = options.in_place.map(|folder| folder.canonicalize().unwrap_or(folder));
    let (data, mut isolate, ahead) = (options.data.clone(), options.sandbox.clone(), options.attempts);
    isolate.writable.extend(in_place.clone());
    let opened = spawn_blocking(move || Stock::open(&data, &isolate, ahead)).await;
    let Stock { spool, recovered, archives, sources, libraries, step_caches, sandbox } =
        opened.map_err(|error| Error::Stock { path: options.data.clone(), source: io::Error::other(error) })??;
    let (containers, mut facts) = (Arc::new(OnceLock::new()), options.facts);
    let search = match options.containers {
        Containers::None => None,
        Containers::Found(runtime) => {
            facts.extend(set_containers(&containers, runtime).await);
            None
        }
        Containers::Search(search) => Some(search),
    };
    let calls = bus.subscribe(Subject::call(&options.name)).await?;
    let ears = (bus.subscribe(Subject::inbox(&options.name)).await?, bus.subscribe(Subject::auction(&options.class)).await?, calls);
    let tools = Tools {
        archives,
        sources,
        libraries,
        step_caches,
        program: options.program,
        blobs,
        passthrough: options.passthrough,
        in_place: in_place.clone(),
        containers: containers.clone(),
        sandbox: Arc::new(sandbox),
        live: LiveBudget::default(),
    };
    let disk = disk::DiskWatch::new(options.data.clone(), options.disk_reserve_bytes);
    let shared = Arc::new(Shared { agent: options.name.clone(), commands: options.commands, bus, spool, tools, disk });
    let now = clock::now_ms();
    // Two stages in one directory would not know whose files they find.
    let slots = if in_place.is_some() { 1 } else { options.slots };
    facts.extend(shared.tools.sandbox.facts());
    facts.insert(CLASS.to_owned(), Value::Text(options.class));
    let terms = Terms { agent: options.name, slots, price_micros_per_s: options.price_micros_per_s, facts };
    let (mut desk, ears) = Desk::new(shared.clone(), Slots::new(terms, now), supervisor.clone(), ears);
    for recovered in recovered {
        desk.go_on(recovered, now);
    }
    if let Some(search) = search {
        let (told, token) = (desk.ear(), supervisor.token().clone());
        supervisor.spawn("agent containers", OnError::Log, async move {
            tokio::select! { () = look_for_containers(search, &containers, told) => {} () = token.cancelled() => {} }
            Ok(())
        });
    }
    if options.finds_tools {
        let (told, token) = (desk.ear(), supervisor.token().clone());
        supervisor.spawn("agent tools", OnError::Log, async move {
            if let Some(tools) = token.run_until_cancelled(find_tools(1)).await {
                info!(?tools, "these tools are here");
                // The desk is gone when the agent ends.
                let _ended = told.send(Happened::Learned { facts: tool_facts(&tools) }).await;
            }
            Ok(())
        });
    }
    let (ahead, watching, token) = (shared.clone(), shared, supervisor.token().clone());
    supervisor.spawn("agent disk", OnError::Log, async move {
        tokio::select! { () = watching.disk.look() => {} () = token.cancelled() => {} }
        Ok(())
    });
    supervisor.spawn("agent folders", OnError::Log, async move {
        Ok(spawn_blocking(move || ahead.spool.make_ready(|workspace| ahead.tools.sandbox.prepare(workspace))).await?)
    });
    supervisor.spawn("agent desk", OnError::Shutdown, desk.work(ears));
    Ok(())
}
