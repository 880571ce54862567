//! One process of a step, from its start to the end of all that it started, with what it says.

use std::{
    fs::File,
    future::pending,
    io::{self, Read as _},
    process::ExitStatus,
    time::Duration,
};

use model::protocol::log::{CHUNK_BYTES_MAX, Stream};
use nix::sys::signal::Signal;
use tokio::{
    net::unix::pipe::Receiver,
    time::{Instant, sleep_until},
};

use super::{
    halt::{Halt, Stop},
    output::OutputError,
    sink::StepSink,
};
use crate::sandbox::{Confined, Launch, Outlets, Running};

/// How long a process has between SIGTERM and SIGKILL. With what comes before and after, a cancel takes effect well within ten seconds.
pub(crate) const KILL_GRACE: Duration = Duration::from_secs(4);
/// The same where the agent itself is ending, whose own supervisor waits five seconds.
const KILL_GRACE_SHUTDOWN: Duration = Duration::from_secs(1);
/// The most that is read after a process's end, for each stream: the largest pipe that an ordinary user can have (`man 7 pipe`).
/// Whoever still writes has left the group, and is not waited for.
const DRAIN_BYTES_MAX: usize = 1024 * 1024;

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
    running: Running,
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
    pub(crate) async fn spawn(confined: &Confined, launch: &Launch) -> io::Result<Self> {
        let (out, out_writer) = io::pipe()?;
        let (err, err_writer) = io::pipe()?;
        let running = confined.spawn(launch, Outlets { out: out_writer, err: err_writer }).await?;
        let pipe =
            |stream, reader: io::PipeReader| Ok::<_, io::Error>(Pipe { stream, receiver: Some(Receiver::from_owned_fd(reader.into())?) });
        Ok(Self { running, pipes: [pipe(Stream::Out, out)?, pipe(Stream::Err, err)?] })
    }

    /// The process that the journal names, so that a later life of the agent finds what is left.
    pub(crate) fn leader(&self) -> i32 {
        self.running.leader()
    }

    /// Takes its output until it ends or is to be ended; then ends every process that it left.
    pub(crate) async fn finish(mut self, sink: &mut StepSink<'_>, halt: &mut Halt) -> ProcessEnd {
        let mut buffer = vec![0; CHUNK_BYTES_MAX];
        let [out, err] = &mut self.pipes;
        let mut stop = None;
        let mut muted = None;
        let mut kill_at = None;
        let status = loop {
            let pipe = tokio::select! {
                status = self.running.wait() => break status,
                () = out.readable() => &mut *out,
                () = err.readable() => &mut *err,
                why = halt.news(stop) => {
                    stop = Some(why);
                    if why.is_at_once() {
                        kill_at = None;
                        self.running.signal(Signal::SIGKILL).await;
                        continue;
                    }
                    self.running.signal(Signal::SIGTERM).await;
                    let grace = if why == Stop::ShuttingDown { KILL_GRACE_SHUTDOWN } else { KILL_GRACE };
                    kill_at = Some(Instant::now() + grace);
                    continue;
                }
                () = due(kill_at) => {
                    kill_at = None;
                    self.running.signal(Signal::SIGKILL).await;
                    continue;
                }
                note = sink.note() => {
                    if let Err(error) = sink.say(&note).await {
                        muted = Some(error);
                        self.running.signal(Signal::SIGKILL).await;
                        break self.running.wait().await;
                    }
                    continue;
                }
            };
            if let Err(error) = pipe.read(&mut buffer, sink).await {
                muted = Some(error);
                self.running.signal(Signal::SIGKILL).await;
                break self.running.wait().await;
            }
        };
        self.running.clear().await;
        for pipe in &mut self.pipes {
            if let (None, Err(error)) = (&muted, pipe.drain(&mut buffer, sink).await) {
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
    async fn read(&mut self, buffer: &mut [u8], sink: &mut StepSink<'_>) -> Result<(), OutputError> {
        let Some(receiver) = &self.receiver else { return Ok(()) };
        match receiver.try_read(buffer) {
            Ok(0) => self.receiver = None,
            Ok(count) => sink.write(self.stream, buffer.get(..count).unwrap_or_default()).await?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Passes on what is there already. The pipe itself is asked: what tokio knows of its readiness may be older than the end of the process.
    async fn drain(&mut self, buffer: &mut [u8], sink: &mut StepSink<'_>) -> Result<(), OutputError> {
        let Some(receiver) = self.receiver.take() else { return Ok(()) };
        let mut pipe = File::from(receiver.into_nonblocking_fd()?);
        let mut drained = 0;
        while drained < DRAIN_BYTES_MAX {
            match pipe.read(buffer) {
                Ok(0) => break,
                Ok(count) => {
                    sink.write(self.stream, buffer.get(..count).unwrap_or_default()).await?;
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
