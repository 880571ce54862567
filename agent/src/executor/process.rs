//! One process of a step, the leader of a group of its own, from its start to the end of the whole group.

use std::{
    fs::File,
    future::pending,
    io::{self, Read as _},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use model::protocol::log::{CHUNK_BYTES_MAX, Stream};
use nix::{
    errno::Errno,
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    net::unix::pipe::Receiver,
    process::{Child, Command},
    time::{Instant, sleep, sleep_until},
};
use tracing::warn;

use super::{
    halt::{Halt, Stop},
    output::{Output, OutputError},
};

/// How long a process has between SIGTERM and SIGKILL. With what comes before and after, a cancel takes effect well within ten seconds.
pub(crate) const KILL_GRACE: Duration = Duration::from_secs(4);
/// The same where the agent itself is ending, whose own supervisor waits five seconds.
const KILL_GRACE_SHUTDOWN: Duration = Duration::from_secs(1);
/// How long is waited for the killed processes of a group to be gone. A process that nobody waits for stays a zombie in a container
/// without an init; it holds nothing any more.
const GONE_WAIT: Duration = Duration::from_millis(200);
/// Between two looks whether they are gone.
const GONE_PAUSE: Duration = Duration::from_millis(1);
/// The most that is read after a process's end, for each stream: the largest pipe that an ordinary user can have (`man 7 pipe`).
/// Whoever still writes has left the group, and is not waited for.
const DRAIN_BYTES_MAX: usize = 1024 * 1024;
/// Tries to start a script that was just written. While another thread starts a process, that process holds the file open for writing for an
/// instant, and the kernel says ETXTBSY.
const BUSY_TRIES_MAX: u32 = 50;
/// Between two of them.
const BUSY_PAUSE: Duration = Duration::from_millis(2);

/// How a process ended.
#[derive(Debug)]
pub(crate) enum ProcessEnd {
    /// By itself.
    Exited(ExitStatus),
    /// It was ended.
    Stopped(Stop),
    /// It was ended, because its output could not be kept.
    Muted(OutputError),
}

/// A started process.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    group: Pid,
    pipes: [Pipe; 2],
}

#[derive(Debug)]
struct Pipe {
    stream: Stream,
    /// `None` when it has ended.
    receiver: Option<Receiver>,
}

impl Process {
    /// Starts it, with nothing on its standard input.
    pub(crate) async fn spawn(mut command: Command) -> io::Result<Self> {
        let (out, out_writer) = io::pipe()?;
        let (err, err_writer) = io::pipe()?;
        command.stdin(Stdio::null()).stdout(out_writer).stderr(err_writer).process_group(0).kill_on_drop(true);
        let mut tries = 1;
        let child = loop {
            match command.spawn() {
                Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && tries < BUSY_TRIES_MAX => {
                    tries += 1;
                    sleep(BUSY_PAUSE).await;
                }
                result => break result?,
            }
        };
        // With the command, the agent's own copies of the pipes' other ends go.
        drop(command);
        let id = child.id().expect("it was not waited for yet");
        let group = Pid::from_raw(i32::try_from(id).expect("process ids fit into pid_t"));
        let pipe =
            |stream, reader: io::PipeReader| Ok::<_, io::Error>(Pipe { stream, receiver: Some(Receiver::from_owned_fd(reader.into())?) });
        Ok(Self { child, group, pipes: [pipe(Stream::Out, out)?, pipe(Stream::Err, err)?] })
    }

    /// The id of its group, which is its own.
    pub(crate) fn group(&self) -> i32 {
        self.group.as_raw()
    }

    /// Takes its output until it ends or is to be ended; then ends every process of its group.
    pub(crate) async fn finish(mut self, step: u32, output: &mut Output, halt: &mut Halt) -> ProcessEnd {
        let mut buffer = vec![0; CHUNK_BYTES_MAX];
        let [out, err] = &mut self.pipes;
        let mut stop = None;
        let mut muted = None;
        let mut kill_at = None;
        let status = loop {
            let pipe = tokio::select! {
                status = self.child.wait() => break status,
                () = out.readable() => &mut *out,
                () = err.readable() => &mut *err,
                why = halt.stopped(), if stop.is_none() => {
                    stop = Some(why);
                    signal(self.group, Signal::SIGTERM);
                    let grace = if why == Stop::ShuttingDown { KILL_GRACE_SHUTDOWN } else { KILL_GRACE };
                    kill_at = Some(Instant::now() + grace);
                    continue;
                }
                () = due(kill_at) => {
                    kill_at = None;
                    signal(self.group, Signal::SIGKILL);
                    continue;
                }
            };
            if let Err(error) = pipe.read(&mut buffer, step, output).await {
                muted = Some(error);
                signal(self.group, Signal::SIGKILL);
                break self.child.wait().await;
            }
        };
        end_group(self.group).await;
        for pipe in &mut self.pipes {
            if let (None, Err(error)) = (&muted, pipe.drain(&mut buffer, step, output).await) {
                muted = Some(error);
            }
        }
        match (muted, stop, status) {
            (Some(error), ..) => ProcessEnd::Muted(error),
            (None, Some(stop), _) => ProcessEnd::Stopped(stop),
            (None, None, Ok(status)) => ProcessEnd::Exited(status),
            (None, None, Err(error)) => ProcessEnd::Muted(OutputError::Disk(error)),
        }
    }
}

impl Pipe {
    /// Something can be read, perhaps. Never returns for a pipe that has ended.
    async fn readable(&self) {
        match &self.receiver {
            Some(receiver) => {
                let _read_tells_the_error = receiver.readable().await;
            }
            None => pending().await,
        }
    }

    /// Reads once, if it can, and passes it on.
    async fn read(&mut self, buffer: &mut [u8], step: u32, output: &mut Output) -> Result<(), OutputError> {
        let Some(receiver) = &self.receiver else { return Ok(()) };
        match receiver.try_read(buffer) {
            Ok(0) => self.receiver = None,
            Ok(count) => output.write(step, self.stream, buffer.get(..count).unwrap_or_default()).await?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Passes on what is there already. The pipe itself is asked: what tokio knows of its readiness may be older than the end of the process.
    async fn drain(&mut self, buffer: &mut [u8], step: u32, output: &mut Output) -> Result<(), OutputError> {
        let Some(receiver) = self.receiver.take() else { return Ok(()) };
        let mut pipe = File::from(receiver.into_nonblocking_fd()?);
        let mut drained = 0;
        while drained < DRAIN_BYTES_MAX {
            match pipe.read(buffer) {
                Ok(0) => break,
                Ok(count) => {
                    output.write(step, self.stream, buffer.get(..count).unwrap_or_default()).await?;
                    drained += count;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Somebody outside the group still holds the other end.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

async fn due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}

fn signal(group: Pid, signal: Signal) {
    match killpg(group, signal) {
        // ESRCH: nobody is left; EPERM: on some systems the answer for a group of zombies.
        Ok(()) | Err(Errno::ESRCH | Errno::EPERM) => {}
        Err(error) => warn!(%group, %signal, %error, "a process group cannot be ended"),
    }
}

/// Ends what is left of a group whose leader has ended. The leader's id cannot be given to another process while the group has members, and
/// where it has none, ids would have to wrap around in the instant since the leader was waited for.
async fn end_group(group: Pid) {
    if killpg(group, Signal::SIGKILL).is_err() {
        return;
    }
    let deadline = Instant::now() + GONE_WAIT;
    while killpg(group, None).is_ok() && Instant::now() < deadline {
        sleep(GONE_PAUSE).await;
    }
}
