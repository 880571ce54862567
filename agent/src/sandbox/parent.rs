//! The agent's end of the nursery: has inits made, and a new nursery if that was killed.

use std::{
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
    thread::sleep,
    time::{Duration, Instant},
};

use super::{
    nursery::STAGE_INIT,
    wire::{self, Birth, Born},
};

/// How long a nursery may take to make an init, which takes a millisecond, before another takes its place.
const BIRTH_DEADLINE: Duration = Duration::from_secs(10);
/// How long the agent's end waits for the nursery's.
const END_DEADLINE: Duration = Duration::from_millis(500);
/// Between two looks whether it has ended.
const END_PAUSE: Duration = Duration::from_millis(1);

/// The nursery, as its agent has it.
#[derive(Debug)]
pub(super) struct Parent {
    otto: PathBuf,
    nursery: Mutex<Option<Nursery>>,
}

#[derive(Debug)]
struct Nursery {
    /// `None` only while it is dropped.
    socket: Option<UnixStream>,
    process: Child,
}

impl Parent {
    /// Has a nursery, of the program that has the hidden command.
    pub(super) fn start(otto: &Path) -> io::Result<Self> {
        let nursery = Mutex::new(Some(Nursery::start(otto)?));
        Ok(Self { otto: otto.to_owned(), nursery })
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
        nursery.insert(Nursery::start(&self.otto)?).bear(birth)?
    }
}

impl Nursery {
    fn start(otto: &Path) -> io::Result<Self> {
        let (socket, theirs) = UnixStream::pair()?;
        socket.set_read_timeout(Some(BIRTH_DEADLINE))?;
        let mut command = Command::new(otto);
        command.arg(STAGE_INIT).env_clear().stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null());
        Ok(Self { socket: Some(socket), process: command.spawn()? })
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

impl Drop for Nursery {
    fn drop(&mut self) {
        // It ends with its socket, when the inits have.
        self.socket = None;
        let deadline = Instant::now() + END_DEADLINE;
        while matches!(self.process.try_wait(), Ok(None)) && Instant::now() < deadline {
            sleep(END_PAUSE);
        }
    }
}
