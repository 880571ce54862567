//! What holds the processes of an attempt together and apart from all others.
//!
//! A [`Sandbox`] is the agent's; a [`Confined`] is one attempt's: everything that the attempt starts is started by it, and when
//! [`Confined::end`] returns nothing of it runs any more.
//!
//! **Invariant:** nobody else in this crate starts a process of a stage.

mod direct;

use std::{io, path::PathBuf, process::ExitStatus};

use nix::sys::signal::Signal;

use crate::{
    container::{self, Place},
    executor::environment::Variables,
};

/// What is to be started.
#[derive(Debug, Clone)]
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

/// The agent's way to confine attempts.
#[derive(Debug, Default)]
pub(crate) struct Sandbox {}

impl Sandbox {
    /// A place for the processes of one attempt.
    #[expect(clippy::unused_self, reason = "what the machine offers will be known to it")]
    pub(crate) fn confine(&self) -> Confined {
        Confined::Direct
    }
}

/// The place of one attempt's processes.
#[derive(Debug)]
pub(crate) enum Confined {
    /// Processes are the agent's own children, each the leader of a group.
    Direct,
    /// Processes run in a container, but those of this program, which run beside it.
    Container {
        /// The container.
        place: Box<Place>,
        /// This program.
        otto: PathBuf,
    },
}

impl Confined {
    /// Starts a process with nothing on its standard input, the leader of a group of its own.
    pub(crate) async fn spawn(&self, launch: &Launch, outlets: Outlets) -> io::Result<Running> {
        match self {
            Self::Container { place, otto } if launch.program != *otto => Ok(Running::Container(Box::new(place.spawn(launch, outlets)?))),
            Self::Direct | Self::Container { .. } => Ok(Running::Direct(direct::spawn(launch, outlets).await?)),
        }
    }

    /// Ends everything that is left of the attempt.
    pub(crate) async fn end(self) {
        match self {
            Self::Direct => {}
            Self::Container { place, .. } => place.end().await,
        }
    }
}

/// A process that was started. Dropped before its end, it is killed.
#[derive(Debug)]
pub(crate) enum Running {
    Direct(direct::Running),
    Container(Box<container::Running>),
}

impl Running {
    /// The process by which all of its kind are found again after a kill of the agent: a leader of a group.
    pub(crate) fn leader(&self) -> i32 {
        match self {
            Self::Direct(running) => running.group().as_raw(),
            Self::Container(running) => running.leader(),
        }
    }

    /// How it ended, when it has. Cancel safe.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        match self {
            Self::Direct(running) => running.wait().await,
            Self::Container(running) => running.wait().await,
        }
    }

    /// To it and its group.
    pub(crate) fn signal(&mut self, signal: Signal) {
        match self {
            Self::Direct(running) => running.signal(signal),
            Self::Container(running) => running.signal(signal),
        }
    }

    /// Ends what it has left behind. To be called after its own end.
    pub(crate) async fn clear(&mut self) {
        match self {
            Self::Direct(running) => running.clear().await,
            Self::Container(running) => running.clear(),
        }
    }
}
