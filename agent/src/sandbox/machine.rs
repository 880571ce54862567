//! The agent's sandbox: what the machine offers, tried out once when the agent starts, and inits that are made ahead.

use std::{
    collections::BTreeMap,
    io::{self, Read as _},
    os::{fd::AsFd as _, unix::net::UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
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
    Confined, Held, Isolation, Launch, Level, Limits, Mount, SandboxOptions,
    cgroup::{Base, Controller, Group, Version},
    landlock::{self, Rules},
    link::Link,
    parent::Parent,
    view::View,
    wire::{self, Beginning, Birth, Order, Word},
};
use crate::{LIBRARIES, STEPS, executor::workspace::Workspace, spool::leftovers};

/// How long the trial of a level may take; it takes some milliseconds.
const TRIAL_DEADLINE: Duration = Duration::from_secs(10);
/// What the trial starts.
const TRIAL_PROGRAM: &str = "/bin/sh";
/// Folders that no stage needs to see: doors to services, and what people keep.
const HIDDEN: [&str; 3] = ["/run", "/home", "/root"];
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
    memory_bytes: Option<u64>,
    processes: u64,
}

#[derive(Debug)]
pub(super) struct Holder {
    level: Level,
    parent: Parent,
    base: Base,
    /// The view of every stage, but for what is its own.
    view: View,
    ready: Mutex<BTreeMap<PathBuf, Prepared>>,
    next: AtomicU64,
}

/// An init that does not know its attempt yet.
#[derive(Debug)]
struct Prepared {
    init: i32,
    start_ticks: Option<u64>,
    socket: UnixStream,
    group: Option<Group>,
}

impl Sandbox {
    /// Finds out what the machine offers and takes the best of it, or what is wanted. `data` is the agent's data folder.
    pub(crate) fn open(options: &SandboxOptions, data: &Path) -> Result<Self, SandboxError> {
        let Some(otto) = &options.otto else {
            return match options.isolation {
                Isolation::Auto | Isolation::Level(Level::Group) => {
                    Ok(Self { holder: None, memory_bytes: options.memory_bytes, processes: options.processes })
                }
                Isolation::Level(level) => Err(SandboxError::NotOffered { level, reason: "the program `otto` is not named".to_owned() }),
            };
        };
        let mut holder = Holder::start(options, otto, data)?;
        match options.isolation {
            // Kernels have nothing to refuse about it, and trying costs what a short run takes.
            Isolation::Level(Level::Group) => {}
            Isolation::Level(level) => {
                holder.try_level(level, data).map_err(|reason| SandboxError::NotOffered { level, reason })?;
            }
            Isolation::Auto => {
                for level in Level::ALL.into_iter().rev() {
                    match holder.try_level(level, data) {
                        Ok(()) => break,
                        Err(reason) => info!(%level, reason, "this machine does not offer an isolation"),
                    }
                }
            }
        }
        info!(level = %holder.level, "stages are isolated");
        Ok(Self { holder: Some(holder), memory_bytes: options.memory_bytes, processes: options.processes })
    }

    /// What it offers, for stages' requirements.
    pub(crate) fn facts(&self) -> BTreeMap<String, Value> {
        let offered = self.holder.as_ref().map(|holder| Level::ALL.into_iter().filter(|level| *level <= holder.level));
        let levels: Vec<Value> = offered.into_iter().flatten().map(|level| Value::Text(level.name().to_owned())).collect();
        if levels.is_empty() { BTreeMap::new() } else { BTreeMap::from([("isolation".to_owned(), Value::List(levels))]) }
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
    pub(crate) async fn confine(
        self: &Arc<Self>,
        workspace: &Workspace,
        requires: &Requirements,
        mounts: Vec<Mount>,
    ) -> io::Result<Confined> {
        if self.holder.is_none() {
            return Ok(Confined::Direct);
        }
        let (sandbox, workspace) = (self.clone(), workspace.clone());
        let limits = Limits {
            memory_bytes: demand(requires, "memory").or(self.memory_bytes),
            processes: self.processes,
            cores: demand(requires, "cores"),
        };
        let limited = limits.clone();
        let (prepared, beginning) = tokio::task::spawn_blocking(move || {
            let holder = sandbox.holder.as_ref().expect("it was there a moment ago");
            let ready = holder.ready.lock().expect("no holder of this lock panics").remove(workspace.root());
            let prepared = ready.map_or_else(|| holder.prepare(&workspace), Ok)?;
            if let Some(group) = &prepared.group {
                group.limit(&limited)?;
            }
            Ok::<_, io::Error>((prepared, holder.beginning(&workspace, &limited, mounts)))
        })
        .await
        .map_err(io::Error::other)??;
        let Prepared { init, start_ticks, socket, group } = prepared;
        let link = Link::new(socket)?;
        link.send(&Order::Begin(Box::new(beginning)), &[]).await?;
        Ok(Confined::Held(Held { link: Arc::new(link), init, start_ticks, group, limits }))
    }
}

impl Holder {
    /// At the least level.
    pub(super) fn start(options: &SandboxOptions, otto: &Path, data: &Path) -> Result<Self, SandboxError> {
        let parent = Parent::start(otto).map_err(|source| SandboxError::Nursery { otto: otto.to_owned(), source })?;
        let mut prefix = Digest::of(data.as_os_str().as_encoded_bytes()).hex();
        prefix.truncate(PREFIX_CHARACTERS);
        let base = Base::find(format!("otto-{prefix}-"));
        let view = view(options, otto, data);
        Ok(Self { level: Level::Group, parent, base, view, ready: Mutex::default(), next: AtomicU64::new(0) })
    }

    /// Which version of control groups limits this, if one does.
    pub(super) fn limits(&self, controller: Controller) -> Option<Version> {
        self.base.limits(controller)
    }

    /// Changes the level, and starts something at it, as an attempt would.
    pub(super) fn try_level(&mut self, level: Level, data: &Path) -> Result<(), String> {
        self.level = level;
        self.trial(data)
    }

    fn prepare(&self, workspace: &Workspace) -> io::Result<Prepared> {
        let view = View { workspace: workspace.root().to_owned(), temporary: workspace.temporary(), ..self.view.clone() };
        let group = self.base.make(self.next.fetch_add(1, Ordering::Relaxed))?;
        let groups = group.as_ref().map(Group::folders).unwrap_or_default();
        let born = self.parent.bear(&Birth { level: self.level, view, groups }).and_then(|(init, socket)| {
            group.as_ref().map_or(Ok(()), |group| group.add(init))?;
            Ok((init, socket))
        });
        match born {
            Ok((init, socket)) => Ok(Prepared { init, start_ticks: leftovers::start_ticks(init), socket, group }),
            Err(error) => {
                if let Some(group) = group {
                    group.end();
                }
                Err(error)
            }
        }
    }

    fn beginning(&self, workspace: &Workspace, limits: &Limits, mounts: Vec<Mount>) -> Beginning {
        let writable = || [workspace.root().to_owned()].into_iter().chain(self.view.writable.iter().cloned()).collect();
        let unlimited = |controller| self.base.limits(controller).is_none();
        Beginning {
            mounts,
            data_bytes_max: limits.memory_bytes.filter(|_| unlimited(Controller::Memory)),
            // Outside of namespaces all processes of the user count, wherever they come from.
            processes_max: (self.level == Level::Namespaces && unlimited(Controller::Pids)).then_some(limits.processes),
            rules: (self.level == Level::Landlock).then(|| Rules { writable: writable() }),
        }
    }

    fn trial(&self, data: &Path) -> Result<(), String> {
        if self.level == Level::Landlock && !landlock::is_there() {
            return Err("the kernel has no landlock, or it is switched off".to_owned());
        }
        let workspace = Workspace::at(data.join("trial"));
        let tried = workspace.remove().and_then(|()| workspace.create()).and_then(|()| self.start_trial(&workspace));
        let removed = workspace.remove();
        tried.and(removed).map_err(|error| error.to_string())
    }

    fn start_trial(&self, workspace: &Workspace) -> io::Result<()> {
        let Prepared { socket, group, .. } = self.prepare(workspace)?;
        let limits = Limits { memory_bytes: None, processes: super::PROCESSES_MAX, cores: None };
        let result = try_out(&socket, self.beginning(workspace, &limits, Vec::new()), &workspace.source());
        drop(socket);
        if let Some(group) = group {
            group.end();
        }
        result
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let ready = std::mem::take(&mut *self.ready.lock().expect("no holder of this lock panics"));
        // All inits first: each ends with its socket.
        let groups: Vec<_> = ready.into_values().filter_map(|prepared| prepared.group).collect();
        groups.into_iter().for_each(Group::end);
    }
}

/// Has an init start a program in `folder`, and waits for that to end well.
fn try_out(socket: &UnixStream, beginning: Beginning, folder: &Path) -> io::Result<()> {
    socket.set_read_timeout(Some(TRIAL_DEADLINE))?;
    wire::send(socket, &Order::Begin(Box::new(beginning)), &[])?;
    let launch = Launch {
        program: TRIAL_PROGRAM.into(),
        arguments: vec!["-c".to_owned(), "exec 2>&1; : >written && test -d /proc/self".to_owned()],
        environment: BTreeMap::new(),
        folder: folder.to_owned(),
    };
    let (mut said, out) = io::pipe()?;
    wire::send(socket, &Order::Start { number: 0, launch }, &[out.as_fd(), out.as_fd()])?;
    drop(out);
    loop {
        match wire::receive::<Word>(socket)?.map(|(word, _)| word) {
            Some(Word::Started { .. } | Word::Cleared) => {}
            Some(Word::Ended { status: 0, .. }) => return Ok(()),
            Some(Word::Ended { .. }) => {
                let mut complaint = String::new();
                said.read_to_string(&mut complaint)?;
                return Err(io::Error::other(format!("a shell does not work in it: {}", complaint.trim())));
            }
            Some(Word::NotStarted { reason, .. } | Word::Failed { reason }) => return Err(io::Error::other(reason)),
            None => return Err(io::Error::other("the process that was to hold it has ended")),
        }
    }
}

/// The view of every stage, but for what is its own.
fn view(options: &SandboxOptions, otto: &Path, data: &Path) -> View {
    let (folders, secret): (Vec<_>, Vec<_>) = options.hidden.iter().cloned().partition(|path| path.is_dir());
    let hidden = HIDDEN.iter().map(PathBuf::from).chain(folders).chain([data.to_owned()]).collect();
    let shown = options.shown.iter().cloned().chain([otto.to_owned(), data.join(LIBRARIES)]).collect();
    let writable = options.writable.iter().cloned().chain([data.join(STEPS)]).collect();
    View { workspace: PathBuf::new(), temporary: PathBuf::new(), hidden, secret, shown, writable }
}

/// The number that a stage demands of a fact.
fn demand(requires: &Requirements, fact: &str) -> Option<u64> {
    match requires.get(fact) {
        Some(Value::Integer(number)) => u64::try_from(*number).ok().filter(|number| *number > 0),
        _ => None,
    }
}
