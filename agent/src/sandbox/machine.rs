//! The agent's sandbox: what the machine offers, tried out once when the agent starts, and inits that are made ahead.

use std::{
    collections::BTreeMap,
    io,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use model::{
    Digest,
    plan::{Requirements, Value},
};
use tracing::{info, warn};

use super::{
    Confined, Held, Isolation, Level, Limits, Overlay, SandboxOptions, StageUsers, User, Users,
    cgroup::{Base, Controller, Group, Version},
    doctor::offers_of,
    landlock::Rules,
    link::Link,
    parent::Parent,
    subtree::Obstacle,
    trial,
    view::View,
    wire::{self, Beginning, Birth, Order, Word},
};
use crate::{LIBRARIES, executor::workspace::Workspace, spool::leftovers};

/// How long a work directory may take to be mounted; it takes less than a millisecond.
const MOUNT_DEADLINE: Duration = Duration::from_secs(10);
/// Folders that no stage needs to see: doors to services, and what people keep.
const HIDDEN: [&str; 3] = ["/run", "/home", "/root"];
/// The facts of which a stage gets no more than it demands: its memory in bytes, and its cores.
pub const LIMITED_FACTS: [&str; 2] = [MEMORY, CORES];
const MEMORY: &str = "memory";
const CORES: &str = "cores";
/// Characters of the name of an agent's control groups: 32 bits of a SHA-256 of its data folder.
const PREFIX_CHARACTERS: usize = 8;

/// Why stages cannot be isolated as the operator wants.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The level is not there.
    #[error("this machine does not offer the isolation `{level}`: {reason}; see `otto agent doctor`, or choose `auto`")]
    NotOffered {
        /// What is wanted.
        level: Level,
        /// What was missing when it was tried.
        reason: String,
    },
    /// Attempts cannot have these users.
    #[error("this agent cannot run stages as the users {users}: {reason}; see `otto agent doctor`, or choose `auto`")]
    NoUsers {
        /// Those that are wanted.
        users: StageUsers,
        /// What was missing when it was tried.
        reason: String,
    },
    /// The process from which all inits are forked does not start.
    #[error("cannot start {} to hold the processes of stages", otto.display())]
    Nursery {
        /// The program.
        otto: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// The agent's way to confine attempts.
#[derive(Debug)]
pub(crate) struct Sandbox {
    /// `None`: processes are the agent's own children.
    holder: Option<Holder>,
}

#[derive(Debug)]
pub(super) struct Holder {
    pub(super) level: Level,
    /// Those of the attempts, if they have their own.
    users: Option<Arc<Users>>,
    /// The agent's data folder.
    data: PathBuf,
    /// Why work directories cannot be mounted, if they cannot; empty until somebody asked.
    overlays: OnceLock<Result<(), String>>,
    /// Of a stage that demands nothing.
    pub(super) limits: Limits,
    parent: Parent,
    /// What the names of its control groups begin with.
    group_prefix: String,
    /// Its control groups; not looked for before something is to be limited.
    base: OnceLock<Base>,
    /// The view of every stage, but for what is its own.
    view: View,
    ready: Mutex<BTreeMap<PathBuf, Prepared>>,
    next: AtomicU64,
}

/// What one attempt has besides its own folder.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places {
    /// The work directory, where it is a snapshot.
    pub(crate) overlay: Option<Overlay>,
    /// Folders that its steps keep between their calls, to be written. They are there.
    pub(crate) kept: Vec<PathBuf>,
    /// The table of names that its processes see as the machine's.
    pub(crate) hosts: Option<PathBuf>,
}

/// An init that does not know its attempt yet.
#[derive(Debug)]
pub(super) struct Prepared {
    init: i32,
    user: Option<u32>,
    start_ticks: Option<u64>,
    pub(super) socket: UnixStream,
    pub(super) group: Group,
}

impl Sandbox {
    /// Finds out what the machine offers and takes the best of it, or what is wanted. `data` is the agent's data folder.
    pub(crate) fn open(options: &SandboxOptions, data: &Path) -> Result<Self, SandboxError> {
        let Some(otto) = &options.otto else {
            return match options.isolation {
                Isolation::Auto | Isolation::Level(Level::Group) => Ok(Self { holder: None }),
                Isolation::Level(level) => Err(SandboxError::NotOffered { level, reason: "the program `otto` is not named".to_owned() }),
            };
        };
        let mut holder = Holder::start(options, otto, data)?;
        match options.isolation {
            // Kernels have nothing to refuse about it, and trying costs what a short run takes.
            Isolation::Level(Level::Group) => {}
            Isolation::Level(level) => {
                holder.try_level(level).map_err(|reason| SandboxError::NotOffered { level, reason })?;
            }
            Isolation::Auto => {
                for level in Level::ALL.into_iter().rev() {
                    match holder.try_level(level) {
                        Ok(()) => break,
                        Err(reason) => info!(%level, reason, "this machine does not offer an isolation"),
                    }
                }
            }
        }
        match options.users {
            StageUsers::Same => {}
            StageUsers::Auto => {
                if let Err(reason) = holder.take_users(options) {
                    info!(reason, "stages run as the agent's own user");
                }
            }
            users @ StageUsers::Range(_) => holder.take_users(options).map_err(|reason| SandboxError::NoUsers { users, reason })?,
        }
        info!(level = %holder.level, own_users = holder.users.is_some(), "stages are isolated");
        Ok(Self { holder: Some(holder) })
    }

    /// The users of attempts, if those have their own.
    pub(crate) fn users(&self) -> Option<Arc<Users>> {
        self.holder.as_ref()?.users.clone()
    }

    /// What it offers, for stages' requirements.
    pub(crate) fn facts(&self) -> BTreeMap<String, Value> {
        self.holder.as_ref().map(|holder| offers_of(holder.level)).unwrap_or_default()
    }

    /// Makes what the attempt of this workspace needs, ahead. That it fails will be noticed when it is needed.
    pub(crate) fn prepare(&self, workspace: &Workspace) {
        let Some(holder) = &self.holder else { return };
        match holder.prepare(workspace) {
            Ok(prepared) => {
                holder.ready.lock().expect("no holder of this lock panics").insert(workspace.root().to_owned(), prepared);
            }
            Err(error) => warn!(%error, "nothing could be made ahead to hold the next attempt"),
        }
    }

    /// A place for the processes of the attempt of this workspace.
    pub(crate) async fn confine(self: &Arc<Self>, workspace: &Workspace, requires: &Requirements, places: Places) -> io::Result<Confined> {
        let Some(holder) = &self.holder else { return Ok(Confined::Direct) };
        let (sandbox, workspace, user) = (self.clone(), workspace.clone(), workspace.shared_user());
        let limits = Limits {
            memory_bytes: demand(requires, MEMORY).or(holder.limits.memory_bytes),
            cores: demand(requires, CORES),
            ..holder.limits
        };
        let limited = limits.clone();
        let (prepared, beginning, mounted) = tokio::task::spawn_blocking(move || {
            let holder = sandbox.holder.as_ref().expect("it was there a moment ago");
            let ready = holder.ready.lock().expect("no holder of this lock panics").remove(workspace.root());
            // One that was made for a user is not for a stage that shall have none.
            let (ready, other) = match ready {
                Some(ready) if ready.user == workspace.user().map(User::id) => (Some(ready), None),
                other => (None, other),
            };
            if let Some(other) = other {
                other.end();
            }
            let mut prepared = ready.map_or_else(|| holder.prepare(&workspace), Ok)?;
            holder.limit(&mut prepared, &limited)?;
            let beginning = holder.beginning(&workspace, &limited, places);
            // Who has nothing mounted need not wait for the init.
            if beginning.overlay.is_none() {
                return Ok((prepared, Some(beginning), None));
            }
            let mounted = begin(&prepared.socket, beginning)?;
            Ok::<_, io::Error>((prepared, None, mounted.map(Arc::new)))
        })
        .await
        .map_err(io::Error::other)??;
        let Prepared { init, start_ticks, socket, group, user: _ } = prepared;
        let link = Link::new(socket)?;
        if let Some(beginning) = beginning {
            link.send(&Order::Begin(Box::new(beginning)), &[]).await?;
        }
        Ok(Confined::Held(Held { link: Arc::new(link), init, start_ticks, group, limits, mounted, user, neighbours: None }))
    }

    /// Whether a work directory can be mounted; the error says why it cannot. It is tried once, which takes some milliseconds.
    pub(crate) async fn overlays(self: &Arc<Self>) -> bool {
        let Some(holder) = &self.holder else { return false };
        if let Some(known) = holder.overlays.get() {
            return known.is_ok();
        }
        let sandbox = self.clone();
        let tried = tokio::task::spawn_blocking(move || sandbox.holder.as_ref().is_some_and(|holder| holder.overlays().is_ok()));
        tried.await.unwrap_or(false)
    }
}

/// Tells an init whom it is for, and waits until the work directory is mounted.
pub(super) fn begin(socket: &UnixStream, beginning: Beginning) -> io::Result<Option<OwnedFd>> {
    let is_mounted = beginning.overlay.is_some();
    wire::send(socket, &Order::Begin(Box::new(beginning)), &[])?;
    if !is_mounted {
        return Ok(None);
    }
    socket.set_read_timeout(Some(MOUNT_DEADLINE))?;
    let (word, descriptors) =
        wire::receive::<Word>(socket)?.ok_or_else(|| io::Error::other("what was to hold its processes was killed"))?;
    match word {
        Word::Mounted => Ok(descriptors.into_iter().next()),
        Word::Failed { reason } => Err(io::Error::other(reason)),
        Word::Started { .. } | Word::NotStarted { .. } | Word::Ended { .. } | Word::Cleared => {
            Err(io::Error::other("what is to hold its processes says what nobody asked"))
        }
    }
}

impl Holder {
    /// At the least level.
    pub(super) fn start(options: &SandboxOptions, otto: &Path, data: &Path) -> Result<Self, SandboxError> {
        let prefix = prefix(data);
        let parent = Parent::start(otto, prefix.clone(), options.nursery.as_ref())
            .map_err(|source| SandboxError::Nursery { otto: otto.to_owned(), source })?;
        let view = view(options, otto, data);
        let limits = Limits { memory_bytes: options.memory_bytes, processes: options.processes, cores: None };
        let holder = Self {
            level: Level::Group,
            limits,
            users: None,
            data: data.to_owned(),
            overlays: OnceLock::new(),
            parent,
            group_prefix: format!("otto-{prefix}-"),
            base: OnceLock::new(),
            view,
            ready: Mutex::default(),
            next: AtomicU64::new(0),
        };
        if options.limits_stages || options.processes.is_some() || options.memory_bytes.is_some() {
            holder.base();
        }
        Ok(holder)
    }

    /// The control groups below which attempts have theirs. When they are found, what an earlier life left in them is ended. What is to be
    /// limited is known before the first init is made ([`SandboxOptions::limits_stages`]), as that one's nursery removes its groups with it.
    pub(super) fn base(&self) -> &Base {
        self.base.get_or_init(|| Base::find(self.group_prefix.clone()))
    }

    /// Which version of control groups limits this, if one does.
    pub(super) fn limits(&self, controller: Controller) -> Option<Version> {
        self.base().limits(controller)
    }

    /// Why none does.
    pub(super) fn obstacle(&self, controller: Controller) -> Option<Obstacle> {
        self.base().obstacle(controller)
    }

    /// Changes the level, and starts something at it, as an attempt would.
    pub(super) fn try_level(&mut self, level: Level) -> Result<(), String> {
        self.level = level;
        self.overlays = OnceLock::new();
        trial::of_level(self, &self.data)
    }

    /// Gives attempts users of their own at the level; the error says why that cannot be.
    pub(super) fn take_users(&mut self, options: &SandboxOptions) -> Result<(), String> {
        let Some(range) = options.users.range() else { return Err("`same` is set".to_owned()) };
        self.users = Some(trial::of_users(self, range, &self.data, options)?);
        self.overlays = OnceLock::new();
        Ok(())
    }

    /// Whether a work directory can be mounted at the level; the error says why it cannot.
    pub(super) fn overlays(&self) -> &Result<(), String> {
        self.overlays.get_or_init(|| {
            let tried = trial::of_overlay(self, &self.data, self.users.as_deref());
            if let Err(reason) = &tried {
                info!(reason, "work directories are copies of the source, which takes longer than to mount them");
            }
            tried
        })
    }

    pub(super) fn prepare(&self, workspace: &Workspace) -> io::Result<Prepared> {
        let view =
            View { workspace: workspace.root().to_owned(), temporary: workspace.temporary(), home: workspace.home(), ..self.view.clone() };
        let user = workspace.user().map(User::id);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let groups = self.base.get().map(|base| base.folders(number)).unwrap_or_default();
        let (init, socket) = self.parent.bear(&Birth { level: self.level, user, view, groups })?;
        let mut prepared = Prepared { init, user, start_ticks: leftovers::start_ticks(init), socket, group: Base::group(number) };
        // What every attempt is limited in.
        self.limit(&mut prepared, &self.limits.clone())?;
        Ok(prepared)
    }

    /// Limits what an init will start. What is half done ends with the init.
    fn limit(&self, prepared: &mut Prepared, limits: &Limits) -> io::Result<()> {
        let wanted = [
            limits.processes.map(|_| Controller::Pids),
            limits.memory_bytes.map(|_| Controller::Memory),
            limits.cores.map(|_| Controller::Cpu),
        ];
        let wanted: Vec<_> = wanted.into_iter().flatten().collect();
        if wanted.is_empty() {
            return Ok(());
        }
        self.base().limit(&mut prepared.group, &wanted, prepared.init)?;
        prepared.group.set(limits)
    }

    pub(super) fn beginning(&self, workspace: &Workspace, limits: &Limits, places: Places) -> Beginning {
        let Places { overlay, kept, hosts } = places;
        let writable = || [workspace.root()].into_iter().chain(self.view.writable.iter().chain(&kept).map(PathBuf::as_path));
        let unlimited = |controller| self.base().limits(controller).is_none();
        Beginning {
            overlay,
            data_bytes_max: limits.memory_bytes.filter(|_| unlimited(Controller::Memory)),
            // Outside of namespaces all processes of a user count that is not the attempt's own, wherever they come from.
            processes_max: limits
                .processes
                .filter(|_| (self.level == Level::Namespaces || self.users.is_some()) && unlimited(Controller::Pids)),
            rules: (self.level == Level::Landlock).then(|| Rules { writable: writable().map(Path::to_owned).collect() }),
            kept,
            hosts,
        }
    }
}

impl Prepared {
    /// Ends it unused.
    fn end(self) {
        drop(self.socket);
        self.group.end();
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let ready = std::mem::take(&mut *self.ready.lock().expect("no holder of this lock panics"));
        // All inits first: each ends with its socket.
        let groups: Vec<_> = ready.into_values().map(|prepared| prepared.group).collect();
        groups.into_iter().for_each(Group::end);
    }
}

/// Ends the nurseries and the inits that an earlier life with this data folder has left, if they do not end by themselves.
pub(crate) fn end_nurseries(data: &Path) {
    leftovers::end_nurseries(&prefix(data));
}

/// What is of the agent with this data folder, in names and marks.
fn prefix(data: &Path) -> String {
    let mut prefix = Digest::of(data.as_os_str().as_encoded_bytes()).hex();
    prefix.truncate(PREFIX_CHARACTERS);
    prefix
}

/// The view of every stage, but for what is its own.
fn view(options: &SandboxOptions, otto: &Path, data: &Path) -> View {
    let (folders, secret): (Vec<_>, Vec<_>) = options.hidden.iter().cloned().partition(|path| path.is_dir());
    let hidden = HIDDEN.iter().map(PathBuf::from).chain(folders).chain([data.to_owned()]).collect();
    let shown = options.shown.iter().cloned().chain([otto.to_owned(), data.join(LIBRARIES)]).collect();
    let writable = options.writable.clone();
    View { workspace: PathBuf::new(), temporary: PathBuf::new(), home: PathBuf::new(), hidden, secret, shown, writable }
}

/// The number that a stage demands of a fact.
fn demand(requires: &Requirements, fact: &str) -> Option<u64> {
    match requires.get(fact) {
        Some(Value::Integer(number)) => u64::try_from(*number).ok().filter(|number| *number > 0),
        _ => None,
    }
}
