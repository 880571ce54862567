//! One process of a step, from its start to the end of all that it started, with what it says.
//!
//! What it says is passed on as it comes, also half a line. But where one of its streams stands in the middle of a line, the rest of that line goes
//! before what came on the other one: a program that says a line in two writes, as `sh -x` does, has its lines whole.

use std::{
    fs::File,
    future::pending,
    io::{self, Read as _},
    ops::Range,
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
    /// What was last read of it has no end of its line.
    is_amid_line: bool,
    buffer: Vec<u8>,
}

impl Process {
    /// Starts it, with nothing on its standard input.
    pub(crate) async fn spawn(confined: &Confined, launch: &Launch) -> io::Result<Self> {
        let (out, out_writer) = io::pipe()?;
        let (err, err_writer) = io::pipe()?;
        let running = confined.spawn(launch, Outlets { out: out_writer, err: err_writer }).await?;
        Ok(Self { running, pipes: [Pipe::new(Stream::Out, out)?, Pipe::new(Stream::Err, err)?] })
    }

    /// The process that the journal names, so that a later life of the agent finds what is left.
    pub(crate) fn leader(&self) -> i32 {
        self.running.leader()
    }

    /// Takes its output until it ends or is to be ended; then ends every process that it left.
    pub(crate) async fn finish(mut self, sink: &mut StepSink<'_>, halt: &mut Halt) -> ProcessEnd {
        let [out, err] = &mut self.pipes;
        let mut stop = None;
        let mut muted = None;
        let mut kill_at = None;
        let status = loop {
            let (pipe, other) = tokio::select! {
                status = self.running.wait() => break status,
                () = out.readable() => (&mut *out, &mut *err),
                () = err.readable() => (&mut *err, &mut *out),
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
            if let Err(error) = pipe.pass_on(other, sink).await {
                muted = Some(error);
                self.running.signal(Signal::SIGKILL).await;
                break self.running.wait().await;
            }
        };
        self.running.clear().await;
        // What is in the middle of a line first.
        self.pipes.sort_by_key(|pipe| !pipe.is_amid_line);
        for pipe in &mut self.pipes {
            if let (None, Err(error)) = (&muted, pipe.drain(sink).await) {
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
    fn new(stream: Stream, reader: io::PipeReader) -> io::Result<Self> {
        let receiver = Some(Receiver::from_owned_fd(reader.into())?);
        Ok(Self { stream, receiver, is_amid_line: false, buffer: vec![0; CHUNK_BYTES_MAX] })
    }

    /// Something can be read, perhaps. Never returns for a pipe that has ended.
    async fn readable(&self) {
        match &self.receiver {
            Some(receiver) => {
                let _read_tells_the_error = receiver.readable().await;
            }
            None => pending().await,
        }
    }

    /// Reads once, if it can, and passes it on: behind the rest of the other one's line, if that is there.
    async fn pass_on(&mut self, other: &mut Self, sink: &mut StepSink<'_>) -> Result<(), OutputError> {
        let count = self.read()?;
        if count == 0 {
            return Ok(());
        }
        // Read later than the above, so that it has what the process wrote before that.
        let more = if other.is_amid_line { other.read_now()? } else { 0 };
        let rest = memchr::memrchr(b'\n', other.buffer.get(..more).unwrap_or_default()).map_or(more, |last| last + 1);
        other.write(0..rest, sink).await?;
        self.write(0..count, sink).await?;
        other.write(rest..more, sink).await
    }

    async fn write(&mut self, part: Range<usize>, sink: &mut StepSink<'_>) -> Result<(), OutputError> {
        let bytes = self.buffer.get(part).unwrap_or_default();
        if let Some(last) = bytes.last() {
            self.is_amid_line = *last != b'\n';
            sink.write(self.stream, bytes).await?;
        }
        Ok(())
    }

    /// Reads once, if it can; gives how many bytes that were.
    fn read(&mut self) -> io::Result<usize> {
        let read = self.receiver.as_ref().map(|receiver| receiver.try_read(&mut self.buffer));
        self.was_read(read)
    }

    /// The same, of the pipe itself: what tokio knows of its readiness may be older than what is there.
    fn read_now(&mut self) -> io::Result<usize> {
        let read = self.receiver.as_ref().map(|receiver| nix::unistd::read(receiver, &mut self.buffer).map_err(io::Error::from));
        self.was_read(read)
    }

    fn was_read(&mut self, read: Option<io::Result<usize>>) -> io::Result<usize> {
        match read {
            None => Ok(0),
            Some(Ok(count)) => {
                if count == 0 {
                    self.receiver = None;
                }
                Ok(count)
            }
            Some(Err(error)) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(0),
            Some(Err(error)) => Err(error),
        }
    }

    /// Passes on what is there already. The pipe itself is asked: what tokio knows of its readiness may be older than the end of the process.
    async fn drain(&mut self, sink: &mut StepSink<'_>) -> Result<(), OutputError> {
        let Some(receiver) = self.receiver.take() else { return Ok(()) };
        let mut pipe = File::from(receiver.into_nonblocking_fd()?);
        let mut drained = 0;
        while drained < DRAIN_BYTES_MAX {
            match pipe.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(count) => {
                    self.write(0..count, sink).await?;
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
