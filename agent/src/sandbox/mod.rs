//! What holds the processes of an attempt together and apart from all others (RFC 0010).
//!
//! A [`Sandbox`] is the agent's; a [`Confined`] is one attempt's: everything that the attempt starts is started by it, and when
//! [`Confined::end`] returns nothing of it runs any more.
//!
//! ```text
//! agent ── Sandbox ─▶ nursery (one process) ──fork──▶ init (one for each attempt, made ahead)
//!            └─ Confined ◀── socket ──▶ init ──▶ processes of the stage, in a control group with limits
//! ```
//!
//! **Invariant:** nobody else in this crate starts a process of a stage.

mod cgroup;
mod direct;
pub(crate) mod doctor;
mod init;
mod isolation;
mod kin;
mod landlock;
mod link;
mod machine;
mod names;
mod nursery;
mod options;
mod overlay;
mod parent;
mod subtree;
mod sys;
mod trial;
mod users;
mod view;
mod wire;

use std::{
    io,
    os::{fd::OwnedFd, unix::fs::fchown},
    path::PathBuf,
    process::ExitStatus,
    sync::Arc,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use tracing::warn;

use self::{cgroup::Group, link::Link};
pub use self::{
    isolation::{Isolation, Level, UnknownIsolation},
    machine::{LIMITED_FACTS, SandboxError},
    nursery::{STAGE_INIT, stage_init},
    options::{PROCESSES_MAX, SandboxOptions},
    parent::{Nursery, fork_nursery},
    users::{StageUsers, UnknownUsers},
};
pub(crate) use self::{
    machine::{Places, Sandbox, end_nurseries},
    overlay::{LOWER, Overlay, UPPER, WORK},
    users::{User, Users, of_process},
};
use crate::{
    container::{self, Neighbours, Place},
    executor::environment::Variables,
    spool::leftovers,
};

/// Tries to start a script that was just written. While another thread starts a process, that process holds the file open for writing for an
/// instant, and the kernel says ETXTBSY.
const BUSY_TRIES_MAX: u32 = 50;
/// Between two of them.
const BUSY_PAUSE: Duration = Duration::from_millis(2);

/// What is to be started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    /// The whole environment.
    pub(crate) environment: Variables,
    /// Where it runs.
    pub(crate) folder: PathBuf,
}

/// The two ends of a process's output that are its own.
#[derive(Debug)]
pub(crate) struct Outlets {
    pub(crate) out: io::PipeWriter,
    pub(crate) err: io::PipeWriter,
}

/// How much of the machine an attempt may have; without a number, all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Bytes of memory, all its processes together.
    pub(crate) memory_bytes: Option<u64>,
    /// Processes and threads at once.
    pub(crate) processes: Option<u64>,
    /// Processor time, in cores.
    pub(crate) cores: Option<u64>,
}

/// The place of one attempt's processes.
#[derive(Debug)]
pub(crate) enum Confined {
    /// Processes are the agent's own children, each the leader of a group.
    Direct,
    /// Processes are an init's.
    Held(Held),
    /// Processes run in a container, but those of this program, which run beside it.
    Container {
        /// The container.
        place: Box<Place>,
        /// This program.
        otto: PathBuf,
        /// What holds its processes; without it, their group does.
        beside: Option<Held>,
    },
}

/// What holds an attempt's processes.
#[derive(Debug)]
pub(crate) struct Held {
    link: Arc<Link>,
    init: i32,
    /// Tells it from a later process of the same id.
    start_ticks: Option<u64>,
    group: Group,
    limits: Limits,
    /// The work directory, where only the attempt's processes see it at its path.
    mounted: Option<Arc<OwnedFd>>,
    /// Whose the processes are, if not the agent's own user's.
    user: Option<Arc<User>>,
    /// What runs beside them, and ends after them.
    neighbours: Option<Neighbours>,
}

impl Confined {
    /// Lets containers end with the attempt.
    pub(crate) fn beside(self, neighbours: Option<Neighbours>) -> Self {
        match self {
            Self::Held(held) => Self::Held(Held { neighbours, ..held }),
            Self::Direct | Self::Container { .. } => self,
        }
    }

    /// The work directory, where only the attempt's processes see it at its path.
    pub(crate) fn mounted(&self) -> Option<Arc<OwnedFd>> {
        match self {
            Self::Held(held) => held.mounted.clone(),
            // A container does not see what only an init has.
            Self::Direct | Self::Container { .. } => None,
        }
    }

    /// Starts a process with nothing on its standard input, the leader of a group of its own.
    pub(crate) async fn spawn(&self, launch: &Launch, outlets: Outlets) -> io::Result<Running> {
        match self {
            Self::Container { place, otto, .. } if launch.program != *otto => {
                Ok(Running::Container(Box::new(place.spawn(launch, outlets)?)))
            }
            Self::Direct | Self::Container { beside: None, .. } => Ok(Running::Direct(direct::spawn(launch, outlets).await?)),
            Self::Held(held) | Self::Container { beside: Some(held), .. } => {
                if let Some(user) = &held.user {
                    // What writes to `/dev/stdout` opens it anew.
                    for pipe in [&outlets.out, &outlets.err] {
                        fchown(pipe, Some(user.id()), Some(user.id()))?;
                    }
                }
                Ok(Running::Held { running: held.link.spawn(launch, outlets).await?, init: held.init })
            }
        }
    }

    /// Everything ends at this time, by [`crate::clock`], whatever becomes of the agent, unless it is told another before. Of a container, only
    /// what runs beside it does.
    pub(crate) async fn live_until(&self, ms: u64) {
        if let Self::Held(held) | Self::Container { beside: Some(held), .. } = self {
            // If the init is gone, so is what it held.
            let _gone = held.link.send(&wire::Order::LiveUntil { ms }, &[]).await;
        }
    }

    /// Why something of the attempt failed, with the limit that it has met with, if there is one.
    pub(crate) fn explain(&self, reason: String) -> String {
        match self.exceeded() {
            Some(limit) => format!("{reason}; {limit}"),
            None => reason,
        }
    }

    fn exceeded(&self) -> Option<String> {
        let Self::Held(Held { group, limits, .. }) = self else { return None };
        let reached = group.reached();
        if reached.memory {
            return Some(format!("ended by the memory limit of {}", size(limits.memory_bytes?)));
        }
        let processes = limits.processes.filter(|_| reached.processes)?;
        Some(format!("stopped by the limit of {} processes", thousands(processes)))
    }

    /// Ends everything that is left of the attempt, whose processes have `mark` in their environment.
    pub(crate) async fn end(self, mark: String) {
        match self {
            Self::Direct => {}
            Self::Container { place, beside, .. } => {
                place.end().await;
                if let Some(held) = beside {
                    held.end(mark).await;
                }
            }
            Self::Held(held) => held.end(mark).await,
        }
    }
}

impl Held {
    async fn end(self, mark: String) {
        let cleared = self.link.clear().await;
        drop(self.link);
        let group = self.group;
        if let Some(user) = self.user {
            user.end();
        }
        if let Err(error) = cleared {
            warn!(init = self.init, %error, "an attempt's processes are ended from outside");
            let ended = spawn_blocking(move || {
                if leftovers::start_ticks(self.init) == self.start_ticks {
                    let _gone = kill(Pid::from_raw(self.init), Signal::SIGKILL);
                }
                group.end();
                leftovers::end_marked(&mark);
            });
            let _panicked = ended.await;
        } else {
            // Only the init is left in it. Nobody waits for its end.
            drop(spawn_blocking(move || group.end()));
        }
        if let Some(neighbours) = self.neighbours {
            neighbours.end().await;
        }
    }
}

/// A process that was started. Its confinement's end is its own at the latest.
#[derive(Debug)]
pub(crate) enum Running {
    Direct(direct::Running),
    Container(Box<container::Running>),
    Held { running: link::Running, init: i32 },
}

impl Running {
    /// The process by which all of its kind are found again after a kill of the agent: a leader of a group.
    pub(crate) fn leader(&self) -> i32 {
        match self {
            Self::Direct(running) => running.group().as_raw(),
            Self::Container(running) => running.leader(),
            Self::Held { init, .. } => *init,
        }
    }

    /// How it ended, when it has. Cancel safe.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        match self {
            Self::Direct(running) => running.wait().await,
            Self::Container(running) => running.wait().await,
            Self::Held { running, .. } => running.wait().await,
        }
    }

    /// It and its group come after what begins, from now on. Of a container, the runtime decides.
    pub(crate) async fn yield_to_others(&self) {
        match self {
            Self::Direct(running) => direct::yield_to_others(running.group()),
            Self::Container(_) => {}
            Self::Held { running, .. } => running.yield_to_others().await,
        }
    }

    /// To it and its group; SIGKILL to everything of the attempt.
    pub(crate) async fn signal(&mut self, signal: Signal) {
        match self {
            Self::Direct(running) => running.signal(signal),
            Self::Container(running) => running.signal(signal),
            Self::Held { running, .. } => running.signal(signal).await,
        }
    }

    /// Ends what it has left behind. To be called after its own end.
    pub(crate) async fn clear(&mut self) {
        match self {
            Self::Direct(running) => running.clear().await,
            Self::Container(running) => running.clear(),
            // The init has done so before it said that the process has ended.
            Self::Held { .. } => {}
        }
    }
}

/// Bytes as people say them.
fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.into_iter().find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{} {name}", bytes / unit),
        None => format!("{} bytes", thousands(bytes)),
    }
}

/// A number with its thousands apart.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let groups = (0..digits.len()).filter(|place| *place > 0 && place % 3 == first);
    let mut apart = digits.clone();
    for place in groups.collect::<Vec<_>>().into_iter().rev() {
        apart.insert(place, ',');
    }
    apart
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_said_as_people_say_them() {
        let said = [1 << 30, 64 << 20, 3 << 10, 1_500, 999].map(size);
        assert_eq!(said, ["1 GiB", "64 MiB", "3 KiB", "1,500 bytes", "999 bytes"]);
        assert_eq!([0, 100, 4_096, 123_456, 1_234_567].map(thousands), ["0", "100", "4,096", "123,456", "1,234,567"]);
    }
}
