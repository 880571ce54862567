//! Runs one attempt: work directory, source, steps, output.
//!
//! ```text
//! execute ─▶ attempt (steps, one after the other; then those of `notify`)
//!              ├─ floor, ground: the work directory before the first step, and what is kept of it after the last
//!              ├─ steps: the table of what each step is
//!              ├─ process ── sink (output, captured variables)
//!              └─ protocol: what a step's program asks for while it runs ── gathered (what is left to others)
//! ```
//!
//! **Invariant:** when [`execute`] returns, every process of the attempt has ended.

pub(crate) mod archives;
mod attempt;
mod confinement;
pub(crate) mod environment;
mod floor;
mod folder;
mod gathered;
mod ground;
pub(crate) mod halt;
mod late_folder;
pub(crate) mod library;
pub(crate) mod output;
pub(crate) mod process;
mod protocol;
mod sink;
pub(crate) mod sources;
pub(crate) mod stamp;
pub(crate) mod steps;
pub(crate) mod workspace;

use std::{
    convert::Infallible,
    future::pending,
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use blob::Blobs;
use model::{
    StageOutcome, Timestamp,
    event::run::Outputs,
    protocol::{
        agent::{Assignment, StartedRun},
        auction::{WANTED_MAX, Wanted},
        step::RunRequest,
    },
};
use service::supervisor::chain;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::warn;

use self::{
    archives::Archives,
    attempt::Attempt,
    environment::Variables,
    floor::Floor,
    halt::Halt,
    library::Libraries,
    output::{LiveBudget, Output},
    sources::Sources,
};
use crate::{
    container::Runtime,
    sandbox::{Confined, Sandbox},
    spool::Entry,
};

/// What attempts need besides their assignments.
#[derive(Debug)]
pub(crate) struct Tools {
    /// Archives that were fetched lately.
    pub(crate) archives: Archives,
    /// Sources that are unpacked.
    pub(crate) sources: Sources,
    /// Step libraries that are unpacked.
    pub(crate) libraries: Libraries,
    /// Where steps have folders that are kept between their calls.
    pub(crate) step_caches: PathBuf,
    /// The program that has the standard steps.
    pub(crate) program: PathBuf,
    /// The depot, without rights.
    pub(crate) blobs: Blobs,
    /// What stages see of the agent's own environment.
    pub(crate) passthrough: Variables,
    /// A person's own directory, in which stages run instead of one of their own.
    pub(crate) in_place: Option<PathBuf>,
    /// What runs the containers of stages with an image, once it is found.
    pub(crate) containers: Arc<OnceLock<Arc<Runtime>>>,
    /// Where stages' processes run.
    pub(crate) sandbox: Arc<Sandbox>,
    /// What attempts may say live.
    pub(crate) live: LiveBudget,
}

impl Tools {
    /// Which of these things this agent has already: the lowest bit stands for the first.
    pub(crate) fn has(&self, wants: &[Wanted]) -> u64 {
        let here = |wanted: &Wanted| self.archives.is_known(&wanted.digest) || self.libraries.has(&wanted.digest);
        wants.iter().take(WANTED_MAX).enumerate().filter(|(_, wanted)| here(wanted)).fold(0, |has, (bit, _)| has | 1 << bit)
    }
}

/// A step asks for a run, or how that run is.
#[derive(Debug)]
pub(crate) struct Ask {
    /// The request's number; the same number is the same run.
    pub(crate) number: u32,
    /// What is asked for.
    pub(crate) request: RunRequest,
    /// Where the answer goes.
    pub(crate) answer: oneshot::Sender<Result<StartedRun, String>>,
}

/// How an attempt ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Conclusion {
    pub(crate) end: End,
    /// When the first step started, if one did.
    pub(crate) started_at: Option<Timestamp>,
    /// What it leaves to others.
    pub(crate) outputs: Outputs,
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

/// What an attempt is run with.
#[derive(Debug)]
struct Means<'a> {
    tools: &'a Tools,
    entry: &'a Entry,
    confined: &'a Confined,
    output: &'a mut Output,
    asks: mpsc::Sender<Ask>,
}

/// What an attempt has to do with those outside while it runs.
#[derive(Debug)]
pub(crate) struct Outside {
    /// Where its steps ask for runs.
    pub(crate) asks: mpsc::Sender<Ask>,
    /// When its processes must have ended, by [`crate::clock`], as far as is known: it holds a lock.
    pub(crate) lives_until: watch::Receiver<Option<u64>>,
}

/// Runs the attempt to its end.
pub(crate) async fn execute(
    assignment: &Assignment,
    tools: &Tools,
    entry: &Entry,
    output: &mut Output,
    halt: &mut Halt,
    outside: Outside,
) -> Conclusion {
    let Outside { asks, lives_until } = outside;
    // The processes of a container are the superuser's in it.
    let taken_back = match assignment.stage.container.is_some().then(|| entry.clone().taken_back()).transpose() {
        Ok(taken_back) => taken_back,
        Err(error) => {
            let end = End::Result(StageOutcome::Failure, Some(format!("cannot prepare the work directory: {error}")));
            return conclude(end, None, Outputs::default(), assignment, output).await;
        }
    };
    let entry = taken_back.as_ref().unwrap_or(entry);
    let mut floor = Floor::find(assignment, tools, entry, halt).await;
    let confined = match confinement::confine(assignment, tools, entry, output, &floor, halt).await {
        Ok(confined) => confined,
        Err(end) => return conclude(end, None, Outputs::default(), assignment, output).await,
    };
    let mut attempt = Attempt::new(assignment, Means { tools, entry, confined: &confined, output, asks }, &mut floor);
    let end = tokio::select! {
        end = attempt.run(halt) => end,
        never = tell_time(&confined, lives_until) => match never {},
    };
    let (started_at, outputs) = attempt.dissolve();
    confined.end(entry.mark(&assignment.lease)).await;
    drop(floor);
    conclude(end, started_at, outputs, assignment, output).await
}

/// Tells what holds the processes until when they may live.
async fn tell_time(confined: &Confined, mut lives_until: watch::Receiver<Option<u64>>) -> Infallible {
    loop {
        let until = *lives_until.borrow_and_update();
        if let Some(ms) = until {
            confined.live_until(ms).await;
        }
        if lives_until.changed().await.is_err() {
            // The desk is gone, and so is the agent soon.
            return pending().await;
        }
    }
}

async fn conclude(end: End, started_at: Option<Timestamp>, outputs: Outputs, assignment: &Assignment, output: &mut Output) -> Conclusion {
    if let End::Result(_, Some(reason)) = &end
        && let Err(error) = output.say(reason).await
    {
        warn!(lease = ?assignment.lease, error = chain(&error), "the end of an attempt is not in its output");
    }
    Conclusion { end, started_at, outputs }
}
