//! The agent's end of the nursery: has inits made, and a new nursery if that was killed.

use std::{
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::{Arc, Mutex},
    thread::sleep,
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use rustix::process::{PidfdFlags, pidfd_open};

use super::{
    nursery::{self, STAGE_INIT},
    sys::fork_alone,
    wire::{self, Birth, Born},
};
use crate::spool::leftovers::NURSERY_MARK;

/// How long a nursery may take to make an init, which takes a millisecond, before another takes its place.
const BIRTH_DEADLINE: Duration = Duration::from_secs(10);
/// How long the agent's end waits for the nursery's.
const END_DEADLINE: Duration = Duration::from_millis(500);
/// Between two looks whether it has ended, where the system cannot tell.
const END_PAUSE: Duration = Duration::from_millis(1);

/// The nursery, as its agent has it.
#[derive(Debug)]
pub(super) struct Parent {
    otto: PathBuf,
    /// What the nurseries that are programs of their own have in their environment, and so their inits.
    mark: String,
    nursery: Mutex<Option<Alive>>,
}

/// A nursery that was forked from this process, which costs much less than the start of a program. The first sandbox that is opened with
/// it has it.
#[derive(Debug, Clone)]
pub struct Nursery(Arc<Mutex<Option<Alive>>>);

/// Forks the nursery of this process; the outer error is of the child, which has been the nursery and is to end now. To be called before
/// the process has a second thread, and only where stages may know the environment of this process.
pub fn fork_nursery() -> Result<io::Result<Nursery>, ExitCode> {
    let forked = UnixStream::pair().and_then(|(ours, theirs)| Ok((ours, theirs, fork_alone()?)));
    match forked {
        Ok((ours, theirs, None)) => {
            drop(ours);
            Err(nursery::live(&theirs))
        }
        Ok((ours, _, Some(process))) => Ok(Alive::new(ours, process).map(|alive| Nursery(Arc::new(Mutex::new(Some(alive)))))),
        Err(error) => Ok(Err(error)),
    }
}

#[derive(Debug)]
struct Alive {
    /// `None` only while it is dropped.
    socket: Option<UnixStream>,
    process: Pid,
}

impl Parent {
    /// Has the nursery that is there, or one of the program that has the hidden command.
    pub(super) fn start(otto: &Path, mark: String, nursery: Option<&Nursery>) -> io::Result<Self> {
        let forked = nursery.and_then(|nursery| nursery.0.lock().expect("no holder of this lock panics").take());
        let nursery = forked.map_or_else(|| Alive::start(otto, &mark), Ok)?;
        Ok(Self { otto: otto.to_owned(), mark, nursery: Mutex::new(Some(nursery)) })
    }

    /// Makes an init; its process and its socket.
    pub(super) fn bear(&self, birth: &Birth) -> io::Result<(i32, UnixStream)> {
        let mut nursery = self.nursery.lock().expect("no holder of this lock panics");
        if let Some(alive) = &*nursery {
            match alive.bear(birth) {
                // What the nursery says is not its own trouble.
                Ok(born) => return born,
                Err(_) => *nursery = None,
            }
        }
        nursery.insert(Alive::start(&self.otto, &self.mark)?).bear(birth)?
    }
}

impl Alive {
    fn new(socket: UnixStream, process: Pid) -> io::Result<Self> {
        socket.set_read_timeout(Some(BIRTH_DEADLINE))?;
        Ok(Self { socket: Some(socket), process })
    }

    fn start(otto: &Path, mark: &str) -> io::Result<Self> {
        let (socket, theirs) = UnixStream::pair()?;
        let mut command = Command::new(otto);
        command.arg(STAGE_INIT).env_clear().env(NURSERY_MARK, mark).stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null());
        let process = command.spawn()?.id();
        Self::new(socket, Pid::from_raw(i32::try_from(process).expect("process ids fit into pid_t")))
    }

    /// The outer error is the nursery's own.
    fn bear(&self, birth: &Birth) -> io::Result<io::Result<(i32, UnixStream)>> {
        let socket = self.socket.as_ref().expect("it is not dropped yet");
        let (ours, theirs) = UnixStream::pair()?;
        wire::send(socket, birth, &[theirs.as_fd()])?;
        drop(theirs);
        match wire::receive(socket)? {
            Some((Born::Init { pid }, _)) => Ok(Ok((pid, ours))),
            Some((Born::Failed { reason }, _)) => Ok(Err(io::Error::other(reason))),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl Alive {
    /// Waits until the process has ended, or a while; not past the deadline.
    fn wait_for_end(&self, deadline: Instant) {
        let process = rustix::process::Pid::from_raw(self.process.as_raw());
        let Some(Ok(ended)) = process.map(|process| pidfd_open(process, PidfdFlags::empty())) else {
            // A kernel before 5.3.
            return sleep(END_PAUSE);
        };
        let left = PollTimeout::try_from(deadline.saturating_duration_since(Instant::now())).unwrap_or(PollTimeout::MAX);
        // Whether it has ended is asked again in any case.
        let _ended_or_interrupted = poll(&mut [PollFd::new(ended.as_fd(), PollFlags::POLLIN)], left);
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        // It ends with its socket, when the inits have; and a step that runs as the same user can have made it stand still.
        self.socket = None;
        let _gone = kill(self.process, Signal::SIGCONT);
        let deadline = Instant::now() + END_DEADLINE;
        while waitpid(self.process, Some(WaitPidFlag::WNOHANG)) == Ok(WaitStatus::StillAlive) && Instant::now() < deadline {
            self.wait_for_end(deadline);
        }
    }
}
