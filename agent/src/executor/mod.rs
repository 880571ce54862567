//! Runs one attempt: work directory, source, steps, output.
//!
//! **Invariant:** when [`execute`] returns, every process of the attempt has ended.

pub(crate) mod archive;
pub(crate) mod environment;
pub(crate) mod halt;
pub(crate) mod output;
pub(crate) mod process;
pub(crate) mod sources;
pub(crate) mod steps;
pub(crate) mod workspace;

use std::io::BufReader;

use blob::Blobs;
use model::{
    Digest, StageOutcome, Timestamp,
    plan::Step,
    protocol::{agent::Assignment, log::Stream},
};
use service::{clock, supervisor::chain};
use tokio_util::sync::CancellationToken;
use tracing::{trace, warn};

use self::{
    environment::Variables,
    halt::{Halt, Stop},
    output::{Output, OutputError},
    process::{Process, ProcessEnd},
    sources::Sources,
    steps::Action,
};
use crate::{
    sandbox::{Confined, Launch, Sandbox},
    spool::{Entry, Line, leftovers},
};

/// What an attempt needs besides its assignment.
#[derive(Debug)]
pub(crate) struct Tools {
    /// Archives that were fetched lately.
    pub(crate) sources: Sources,
    /// The depot, without rights.
    pub(crate) blobs: Blobs,
    /// What stages see of the agent's own environment.
    pub(crate) passthrough: Variables,
    /// Where stages' processes run.
    pub(crate) sandbox: Sandbox,
}

/// How an attempt ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Conclusion {
    pub(crate) end: End,
    /// When the first step started, if one did.
    pub(crate) started_at: Option<Timestamp>,
}

/// What is to be said of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It has a result.
    Result(StageOutcome, Option<String>),
    /// Nobody wants to hear of it.
    Superseded,
    /// It was ended before its lease was over.
    Unrenewed,
    /// It was ended because the agent ends.
    ShuttingDown,
}

/// Why no further step is run.
enum Failure {
    Stopped(Stop),
    Because(String),
}

impl From<OutputError> for Failure {
    fn from(error: OutputError) -> Self {
        Self::Because(chain(&error))
    }
}

/// Runs the attempt to its end.
pub(crate) async fn execute(assignment: &Assignment, tools: &Tools, entry: &Entry, output: &mut Output, halt: &mut Halt) -> Conclusion {
    let confined = tools.sandbox.confine();
    let mut attempt = Attempt { assignment, tools, entry, confined: &confined, output, halt, started_at: None };
    let failure = attempt.run().await.err();
    let started_at = attempt.started_at;
    confined.end().await;
    let end = match failure {
        None => End::Result(StageOutcome::Success, None),
        Some(Failure::Because(reason)) => End::Result(StageOutcome::Failure, Some(reason)),
        Some(Failure::Stopped(Stop::TimedOut)) => {
            End::Result(StageOutcome::Failure, Some(format!("timed out after {}", duration(assignment.stage.timeout_ms))))
        }
        Some(Failure::Stopped(Stop::Cancelled)) => End::Result(StageOutcome::Aborted, Some("cancelled".to_owned())),
        Some(Failure::Stopped(Stop::Superseded)) => End::Superseded,
        Some(Failure::Stopped(Stop::Unrenewed)) => End::Unrenewed,
        Some(Failure::Stopped(Stop::ShuttingDown)) => End::ShuttingDown,
    };
    if let End::Result(_, Some(reason)) = &end
        && let Err(error) = output.say(reason).await
    {
        warn!(lease = ?assignment.lease, error = chain(&error), "the end of an attempt is not in its output");
    }
    Conclusion { end, started_at }
}

struct Attempt<'a> {
    assignment: &'a Assignment,
    tools: &'a Tools,
    entry: &'a Entry,
    confined: &'a Confined,
    output: &'a mut Output,
    halt: &'a mut Halt,
    started_at: Option<Timestamp>,
}

impl Attempt<'_> {
    async fn run(&mut self) -> Result<(), Failure> {
        if let Some(digest) = &self.assignment.source {
            self.unpack(digest).await?;
        }
        let variables = environment::variables(self.assignment, &self.tools.passthrough, self.entry);
        for (number, step) in (0..).zip(&self.assignment.stage.steps) {
            self.step(number, step, &variables).await.map_err(|failure| match failure {
                Failure::Because(reason) => Failure::Because(format!("step {} `{}`: {reason}", number + 1, step.symbol)),
                Failure::Stopped(stop) => Failure::Stopped(stop),
            })?;
        }
        Ok(())
    }

    async fn unpack(&mut self, digest: &Digest) -> Result<(), Failure> {
        let blobs = self.tools.blobs.with_token(&self.assignment.depot_token);
        let archive = tokio::select! {
            archive = self.tools.sources.open(digest, &blobs) => archive.map_err(|error| Failure::Because(chain(&error)))?,
            stop = self.halt.stopped() => return Err(Failure::Stopped(stop)),
        };
        let (root, enough) = (self.entry.workspace().source(), CancellationToken::new());
        let stopped = enough.clone();
        let mut unpacking = tokio::task::spawn_blocking(move || archive::unpack(BufReader::new(archive), &root, &stopped));
        let (unpacked, stop) = tokio::select! {
            unpacked = &mut unpacking => (unpacked, None),
            stop = self.halt.stopped() => {
                // Not left alone: the folder is removed when this returns.
                enough.cancel();
                (unpacking.await, Some(stop))
            }
        };
        match (stop, unpacked) {
            (Some(stop), _) => Err(Failure::Stopped(stop)),
            (None, Ok(Ok(()))) => Ok(()),
            (None, Ok(Err(error))) => Err(Failure::Because(chain(&error))),
            (None, Err(error)) => Err(Failure::Because(chain(&error))),
        }
    }

    async fn step(&mut self, number: u32, step: &Step, variables: &Variables) -> Result<(), Failure> {
        if let Some(stop) = self.halt.now() {
            return Err(Failure::Stopped(stop));
        }
        self.started_at.get_or_insert_with(|| Timestamp(clock::unix_ms()));
        let steps = self.assignment.stage.steps.len();
        let announcement = format!("step {}/{steps}: {}", number + 1, steps::title(step));
        let action = steps::action(step).map_err(Failure::Because);
        if let Ok(Action::Say(message)) = action {
            self.output.announce(number, &announcement).await?;
            return Ok(self.output.write(number, Stream::Out, format!("{message}\n").as_bytes()).await?);
        }
        let started = match action {
            Ok(action) => self.start(number, &action, variables).await,
            Err(failure) => Err(failure),
        };
        // The process is on its way while this is written, and what it says is read only afterwards.
        let announced = self.output.announce(number, &announcement).await;
        let process = started?;
        let (entry, group) = (self.entry.clone(), process.leader());
        let noted = tokio::task::spawn_blocking(move || entry.write(&Line::Spawned { group, start_ticks: leftovers::start_ticks(group) }));
        let end = process.finish(number, self.output, self.halt).await;
        if let Ok(Err(error)) = noted.await {
            warn!(lease = ?self.assignment.lease, %error, "a process group is not in the journal");
        }
        announced?;
        match end {
            ProcessEnd::Exited(status) => steps::complaint(status).map_or(Ok(()), |complaint| Err(Failure::Because(complaint))),
            ProcessEnd::Stopped(stop) => Err(Failure::Stopped(stop)),
            ProcessEnd::Muted(error) => Err(error.into()),
        }
    }

    async fn start(&self, number: u32, action: &Action<'_>, variables: &Variables) -> Result<Process, Failure> {
        let workspace = self.entry.workspace();
        let cannot_start = |error| Failure::Because(format!("cannot start: {error}"));
        let program = action.program(&workspace.script(number)).map_err(cannot_start)?;
        let (program, arguments) = program.expect("what needs no process was done before");
        let launch = Launch { program, arguments, environment: variables.clone(), folder: workspace.source() };
        trace!(target: crate::WATERFALL, point = "step started", lease = ?self.assignment.lease);
        Process::spawn(self.confined, &launch).await.map_err(cannot_start)
    }
}

/// Milliseconds as people say them.
fn duration(ms: u64) -> String {
    match ms {
        ms if ms > 0 && ms % 60_000 == 0 => format!("{}m", ms / 60_000),
        ms if ms > 0 && ms % 1_000 == 0 => format!("{}s", ms / 1_000),
        ms => format!("{ms}ms"),
    }
}
