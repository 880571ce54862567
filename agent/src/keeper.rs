//! Looks after one attempt under one fence: from its first line in the journal until everything about it was heard and stored.
//!
//! ```text
//! begin ─▶ execute (saying Started) ─▶ say Finished ─▶ store the output ─▶ say LogStored ─▶ forget
//!                                         ▲    └ the work directory goes meanwhile
//!             an earlier life's attempt ──┘ (Lost, or the result that was not heard yet)
//! ```

use std::{io, path::Path, sync::Arc, time::Duration};

use blob::{BlobError, Blobs};
use eventbus::{Bus, Subject};
use model::{
    AgentName, Digest, Timestamp,
    event::run::StoredLog,
    protocol::agent::{Assignment, Lease, Report},
};
use service::{
    clock,
    supervisor::{TaskError, chain},
};
use tokio::{
    sync::{mpsc, watch},
    task::spawn_blocking,
    time::{Instant, sleep},
};
use tracing::{error, info, trace, warn};

use crate::{
    executor::{
        Conclusion, End, Tools, execute,
        halt::{Halt, Stop},
        output::Output,
    },
    reports::{Reported, Reporter},
    spool::{Entry, Line, OutputFiles, Recovered, Spool},
};

/// Tries to store an attempt's output: with the pauses about a day, in which its rights in the depot end.
const STORE_TRIES_MAX: u32 = 1_500;
/// The pause after the first try; it doubles each time.
const STORE_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause.
const STORE_PAUSE_MAX: Duration = Duration::from_mins(1);

/// Runs that steps ask for and that were not said yet. A step that asks for more waits.
const ASKS_MAX: usize = 16;

/// What all keepers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) agent: AgentName,
    pub(crate) bus: Bus,
    pub(crate) spool: Spool,
    pub(crate) tools: Tools,
}

/// What a keeper tells the desk.
#[derive(Debug)]
pub(crate) enum Happened {
    /// The attempt could not be written down; nothing of it was started.
    Refused { lease: Lease, reason: String },
    /// Every process of the attempt has ended.
    Ended { lease: Lease },
    /// Its result was heard.
    Heard { lease: Lease },
    /// Nothing is left to do.
    Gone { lease: Lease },
}

/// The keeper.
#[derive(Debug)]
pub(crate) struct Keeper {
    pub(crate) shared: Arc<Shared>,
    pub(crate) reporter: Reporter,
    pub(crate) stop: watch::Receiver<Option<Stop>>,
    pub(crate) happened: mpsc::Sender<Happened>,
}

/// Says that the keeper is gone, even where it panics.
struct Gone(mpsc::Sender<Happened>, Lease);

impl Drop for Gone {
    fn drop(&mut self) {
        // Closed: the desk has gone first. Full it never is: see the desk's HAPPENED_MAX.
        let _closed = self.0.try_send(Happened::Gone { lease: self.1.clone() });
    }
}

impl Keeper {
    fn lease(&self) -> Lease {
        self.reporter.lease.clone()
    }

    /// Takes up a new attempt.
    pub(crate) async fn take_up(mut self, assignment: Box<Assignment>) -> Result<(), TaskError> {
        let lease = self.lease();
        let _gone = Gone(self.happened.clone(), lease.clone());
        let begun = {
            let (shared, lease, token) = (self.shared.clone(), lease.clone(), assignment.depot_token.clone());
            spawn_blocking(move || shared.spool.begin(&lease, &token)).await?
        };
        let (entry, files) = match begun {
            // What begins empty does not begin with a person's files.
            Ok((entry, files)) => match self.shared.tools.in_place.clone().filter(|_| !assignment.stage.bare) {
                Some(directory) => (entry.in_place(directory), files),
                None => (entry, files),
            },
            Err(error) => {
                let reason = format!("the agent cannot write it down: {error}");
                self.tell(Happened::Refused { lease, reason }).await;
                return Err(error.into());
            }
        };
        let shared = self.shared.clone();
        let refilled = spawn_blocking(move || shared.spool.make_ready());
        let conclusion = self.execute(&assignment, &entry, files).await;
        trace!(target: crate::WATERFALL, point = "step ended", ?lease);
        refilled.await?;
        info!(?lease, end = ?conclusion.end, "ended");
        self.tell(Happened::Ended { lease: lease.clone() }).await;
        let report = match conclusion.end {
            End::Superseded => {
                info!(?lease, "a superseded attempt was ended");
                spawn_blocking(move || entry.remove()).await?;
                return Ok(());
            }
            End::Unrenewed => Report::Lost { reason: "it held a lock, and its lease was not confirmed in time".to_owned() },
            End::ShuttingDown => Report::Lost { reason: "its agent was stopped".to_owned() },
            End::Result(outcome, reason) => {
                let finished_at = Timestamp(clock::unix_ms());
                Report::Finished { outcome, reason, started_at: conclusion.started_at, finished_at, outputs: conclusion.outputs }
            }
        };
        let note = Line::Ended { report: report.clone() };
        let noting = entry.clone();
        // Neither the note nor the removal of a large tree delays the report.
        let noted = spawn_blocking(move || (noting.write(&note), noting.workspace().remove()));
        let reported = self.reporter.report(report).await;
        self.close(entry.clone(), &assignment.depot_token, reported).await?;
        let (written, removed) = noted.await?;
        for problem in [written.err(), removed.err()].into_iter().flatten() {
            warn!(?lease, error = %problem, "an attempt's end was not cleared up");
        }
        Ok(())
    }

    /// Goes on with what an earlier life of the agent has left.
    pub(crate) async fn go_on(mut self, recovered: Recovered) -> Result<(), TaskError> {
        let _gone = Gone(self.happened.clone(), self.lease());
        let reported = self.reporter.report(recovered.report).await;
        self.close(recovered.entry, &recovered.depot_token, reported).await
    }

    async fn execute(&mut self, assignment: &Assignment, entry: &Entry, files: OutputFiles) -> Conclusion {
        let attempt = &assignment.lease.attempt;
        let subject = Subject::log(&self.shared.agent, &attempt.run, &attempt.stage);
        let mut output = Output::new(self.shared.bus.clone(), subject, assignment.lease.clone(), files);
        let deadline = Instant::now().checked_add(Duration::from_millis(assignment.stage.timeout_ms));
        let mut halt = Halt::new(deadline, self.stop.clone());
        // Said now, and not after the source is unpacked: whoever waits for it places the attempt elsewhere after a while.
        let started = Report::Started { at: Timestamp(clock::unix_ms()) };
        let (asks, asked) = mpsc::channel(ASKS_MAX);
        tokio::select! {
            biased;
            () = self.reporter.begun(started, asked) => unreachable!("it waits for ever"),
            conclusion = execute(assignment, &self.shared.tools, entry, &mut output, &mut halt, asks) => conclusion,
        }
    }

    /// Stores the output and forgets the attempt, if its result was heard.
    async fn close(&mut self, entry: Entry, depot_token: &str, reported: Reported) -> Result<(), TaskError> {
        let lease = self.lease();
        if reported == Reported::ShuttingDown {
            return Ok(()); // The spool has it all.
        }
        self.tell(Happened::Heard { lease: lease.clone() }).await;
        let blobs = self.shared.tools.blobs.with_token(depot_token);
        let token = self.reporter.token.clone();
        let stored = tokio::select! {
            stored = store(&blobs, &entry) => stored,
            () = token.cancelled() => return Ok(()),
        };
        match stored {
            Ok(log) => {
                if self.reporter.report(Report::LogStored { log }).await == Reported::ShuttingDown {
                    return Ok(());
                }
            }
            Err(problem) => error!(?lease, error = chain(&*problem), "an attempt's output is given up: its log will show a gap"),
        }
        Ok(spawn_blocking(move || entry.remove()).await?)
    }

    async fn tell(&self, happened: Happened) {
        // Closed only when the agent ends.
        let _closed = self.happened.send(happened).await;
    }
}

async fn store(blobs: &Blobs, entry: &Entry) -> Result<StoredLog, TaskError> {
    let (output, index) = (entry.output(), entry.index());
    let repairing = entry.clone();
    spawn_blocking(move || repairing.repair()).await??;
    let bytes = store_file(blobs, &output).await?;
    let length = tokio::fs::metadata(&output).await?.len();
    Ok(StoredLog::whole(bytes, length, store_file(blobs, &index).await?))
}

async fn store_file(blobs: &Blobs, path: &Path) -> Result<Digest, TaskError> {
    let mut pause = STORE_PAUSE;
    for _ in 0..STORE_TRIES_MAX {
        match blobs.put_file(path).await {
            Ok(digest) => return Ok(digest),
            Err(error @ (BlobError::Refused { .. } | BlobError::TooLarge { .. })) => return Err(error.into()),
            Err(BlobError::Disk { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Err(source.into()),
            Err(error) => warn!(path = %path.display(), error = chain(&error), "output is not stored yet"),
        }
        sleep(pause).await;
        pause = (2 * pause).min(STORE_PAUSE_MAX);
    }
    Err("the depot never took it".into())
}
