//! What the HTTP API, and a command in the same process, can ask of the orchestrator.

use std::time::Duration;

use blob::Blobs;
use eventbus::{Bus, BusError};
use model::{RunId, trigger::Trigger};
use tokio::{
    sync::{broadcast::error::RecvError, mpsc, oneshot},
    time::timeout,
};

use crate::{
    logs::LogHub,
    runs::{Runs, Snapshot},
};

/// Commands that wait for the engine. It takes one in microseconds; what finds the queue full waits.
pub(crate) const COMMANDS_MAX: usize = 1_024;
/// How long a caller waits for a command's outcome.
const COMMAND_DEADLINE: Duration = Duration::from_secs(15);

/// The orchestrator of this process. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Orchestrator {
    /// The read side.
    pub runs: Runs,
    /// Output of running attempts.
    pub logs: LogHub,
    /// Where plans, sources and stored output lie.
    pub blobs: Blobs,
    pub(crate) bus: Bus,
    pub(crate) commands: mpsc::Sender<Command>,
}

/// Why a command had no effect.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// There is no such run.
    #[error("there is no run {0}")]
    UnknownRun(RunId),
    /// The run has ended.
    #[error("the run {0} has ended")]
    Ended(RunId),
    /// Whether it took effect is not known yet.
    #[error("the orchestrator did not answer in time about {0}")]
    Late(RunId),
    /// The bus did not take it.
    #[error(transparent)]
    Bus(#[from] BusError),
}

pub(crate) enum Command {
    Cancel { run: RunId, by: String, done: oneshot::Sender<Result<(), CommandError>> },
}

impl Orchestrator {
    /// Stores the trigger; when this returns, its run exists or will. The same trigger again is the same run.
    pub async fn create(&self, trigger: &Trigger) -> Result<RunId, CommandError> {
        self.bus.store_trigger(trigger).await?;
        Ok(trigger.run())
    }

    /// Asks for the end of a run. The request is in the log when this returns; it has taken effect when the run has ended.
    pub async fn cancel(&self, run: &RunId, by: &str) -> Result<Snapshot, CommandError> {
        let late = || CommandError::Late(run.clone());
        timeout(COMMAND_DEADLINE, self.cancel_and_see(run, by)).await.map_err(|_| late())?
    }

    async fn cancel_and_see(&self, run: &RunId, by: &str) -> Result<Snapshot, CommandError> {
        let late = || CommandError::Late(run.clone());
        // Follow first, then ask: the record that says so is not missed.
        let mut appended = self.runs.follow();
        let (done, outcome) = oneshot::channel();
        let command = Command::Cancel { run: run.clone(), by: by.to_owned(), done };
        self.commands.send(command).await.map_err(|_| late())?;
        outcome.await.map_err(|_| late())??;
        loop {
            let snapshot = self.runs.get(run).ok_or_else(|| CommandError::UnknownRun(run.clone()))?;
            if snapshot.run.cancelled.is_some() || snapshot.run.ended.is_some() {
                return Ok(snapshot);
            }
            if let Err(RecvError::Closed) = appended.recv().await {
                return Err(late());
            }
        }
    }
}
