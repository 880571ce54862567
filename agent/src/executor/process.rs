//! One process of a step, from its start to the end of all that it started, with what it says.
//!
//! What it says is passed on as it comes, also half a line, but that only when there is nothing else just now: what comes on the other stream after
//! it was written after it, and the rest of the line before that. So a program that says a line in two writes, as `sh -x` does, has its lines whole.
//! Of whole lines on both streams nobody knows which was written first; standard error comes first, so that what `sh -x` says of a command stands
//! before what the command says.

use std::{future::pending, io, process::ExitStatus, time::Duration};

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
/// How long a process runs before it comes after what begins: the start of a step, and a short one, are not held up by those that compute.
const YIELD_AFTER: Duration = Duration::from_millis(200);
/// How often both streams are read before something else is looked at. After the process's end that is the largest pipe that an ordinary user can
/// have, 1 MiB (`man 7 pipe`): whoever still writes has left the group, and is not waited for.
const ROUNDS_MAX: usize = 1024 * 1024 / CHUNK_BYTES_MAX;

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
    /// What was passed on last has no end of its line.
    is_amid_line: bool,
    /// What was read and not passed on: the beginning of a line.
    held: usize,
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
        let mut yield_at = Some(Instant::now() + YIELD_AFTER);
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
                () = due(yield_at) => {
                    yield_at = None;
                    self.running.yield_to_others().await;
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
            if let Err(error) = pipe.pass_on(other, Pipe::read, sink).await {
                muted = Some(error);
                self.running.signal(Signal::SIGKILL).await;
                break self.running.wait().await;
            }
        };
        self.running.clear().await;
        // The pipes themselves are asked: what tokio knows of their readiness may be older than the end of the process.
        if let (None, Err(error)) = (&muted, out.pass_on(err, Pipe::read_now, sink).await) {
            muted = Some(error);
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
        Ok(Self { stream, receiver, is_amid_line: false, held: 0, buffer: vec![0; CHUNK_BYTES_MAX] })
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

    /// Passes on what both have, until they have nothing more just now; this one is read by `read`.
    async fn pass_on(
        &mut self,
        other: &mut Self,
        read: fn(&mut Self) -> io::Result<usize>,
        sink: &mut StepSink<'_>,
    ) -> Result<(), OutputError> {
        for _ in 0..ROUNDS_MAX {
            // Who is passed on first is read last, so that it has what was written before what the other one has.
            let first = self.first(other);
            let count = match first {
                Which::Own => {
                    let own = read(self)?;
                    let others = other.read_now()?;
                    own + others + self.read_now()?
                }
                Which::Other => {
                    let own = read(self)?;
                    other.read_now()? + own
                }
            };
            if count == 0 {
                break;
            }
            match first {
                Which::Own => {
                    self.write_lines(sink).await?;
                    other.write_lines(sink).await?;
                }
                Which::Other => {
                    other.write_lines(sink).await?;
                    self.write_lines(sink).await?;
                }
            }
        }
        self.write(self.held, sink).await?;
        other.write(other.held, sink).await
    }

    /// Where a line was begun, it goes on; else standard error comes first.
    fn first(&self, other: &Self) -> Which {
        match (self.is_amid_line, other.is_amid_line) {
            (true, _) => Which::Own,
            (false, false) if self.stream == Stream::Err => Which::Own,
            (false, true | false) => Which::Other,
        }
    }

    /// Passes on what is whole lines, or fills the buffer.
    async fn write_lines(&mut self, sink: &mut StepSink<'_>) -> Result<(), OutputError> {
        let held = self.buffer.get(..self.held).unwrap_or_default();
        let lines = memchr::memrchr(b'\n', held).map_or(0, |last| last + 1);
        let is_full = self.held == self.buffer.len();
        self.write(if is_full && lines == 0 { self.held } else { lines }, sink).await
    }

    /// Passes on so many bytes of what is held.
    async fn write(&mut self, count: usize, sink: &mut StepSink<'_>) -> Result<(), OutputError> {
        let bytes = self.buffer.get(..count).unwrap_or_default();
        let Some(last) = bytes.last() else { return Ok(()) };
        self.is_amid_line = *last != b'\n';
        sink.write(self.stream, bytes).await?;
        self.buffer.copy_within(count..self.held, 0);
        self.held -= count;
        Ok(())
    }

    /// Reads once, if it can; gives how many bytes that were.
    fn read(&mut self) -> io::Result<usize> {
        let room = self.buffer.get_mut(self.held..).unwrap_or_default();
        let read = self.receiver.as_ref().map(|receiver| receiver.try_read(room));
        self.was_read(read)
    }

    /// The same, of the pipe itself.
    fn read_now(&mut self) -> io::Result<usize> {
        let room = self.buffer.get_mut(self.held..).unwrap_or_default();
        // Nothing that is read into no room is no end.
        let receiver = self.receiver.as_ref().filter(|_| !room.is_empty());
        let read = receiver.map(|receiver| nix::unistd::read(receiver, room).map_err(io::Error::from));
        self.was_read(read)
    }

    fn was_read(&mut self, read: Option<io::Result<usize>>) -> io::Result<usize> {
        match read {
            None => Ok(0),
            Some(Ok(count)) => {
                if count == 0 {
                    self.receiver = None;
                }
                self.held += count;
                Ok(count)
            }
            // Somebody outside the group may still hold the other end.
            Some(Err(error)) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(0),
            Some(Err(error)) => Err(error),
        }
    }
}

/// Which of two pipes.
enum Which {
    Own,
    Other,
}

async fn due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}
