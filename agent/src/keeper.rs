//! Looks after one attempt under one fence: from its first line in the journal until everything about it was heard and stored.
//!
//! ```text
//! begin ─▶ execute (saying Started) ─▶ say Finished ─▶ store the output ─▶ say LogStored ─▶ forget
//!                                         ▲    └ the work directory goes meanwhile
//!             an earlier life's attempt ──┘ (Lost, or the result that was not heard yet)
//! ```

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use eventbus::signed::CommandVerifier;
use eventbus::{Bus, Subject};
use model::{
    AgentName, Timestamp,
    capability::Facts,
    event::run::LogSegment,
    protocol::agent::{Assignment, Lease, Report},
};
use service::{
    clock,
    supervisor::{TaskError, chain},
};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::spawn_blocking,
    time::Instant,
};
use tracing::{error, info, trace, warn};

use crate::{
    disk::DiskWatch,
    executor::{
        Conclusion, End, Outside, Tools, execute,
        halt::{Halt, Stop},
        output::{Live, Output},
    },
    reports::{Reported, Reporter},
    spool::{Entry, Line, Recovered, Spool, parts::Parts},
    storing::Storing,
};

/// Runs that steps ask for and that were not said yet. A step that asks for more waits.
const ASKS_MAX: usize = 16;

/// What all keepers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) agent: AgentName,
    /// Knows which commands are the orchestrator's, where others may write to the inbox.
    pub(crate) commands: Option<CommandVerifier>,
    pub(crate) bus: Bus,
    pub(crate) spool: Spool,
    pub(crate) tools: Tools,
    pub(crate) disk: DiskWatch,
}

/// What the desk is told, mostly by keepers.
#[derive(Debug)]
pub(crate) enum Happened {
    /// The agent can do more than it knew.
    Learned { facts: Facts },
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
    /// The other end of `stop`, for what ends the attempt beside the desk.
    pub(crate) stopper: watch::Sender<Option<Stop>>,
    /// Somebody wants to know where the output lies that there is so far.
    pub(crate) asked: Arc<Notify>,
    /// When its processes must have ended, by [`crate::clock`], if it holds a lock.
    pub(crate) lives_until: watch::Receiver<Option<u64>>,
    pub(crate) happened: mpsc::Sender<Happened>,
}

/// How far an attempt was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closed {
    /// Nobody needs anything of it any more.
    Whole,
    /// A later life of the agent goes on with it: the spool has it all.
    Later,
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
        let disk = self.shared.clone();
        let watched = disk.disk.begin(lease.clone(), entry.workspace().trees(), self.stopper.clone());
        let refilled = spawn_blocking(move || shared.spool.make_ready(|workspace| shared.tools.sandbox.prepare(workspace)));
        let mut storing = self.storing(&entry, &assignment.depot_token, BTreeMap::new());
        let conclusion = self.execute(&assignment, &entry, Parts::new(entry.clone(), files), &mut storing).await;
        trace!(target: crate::WATERFALL, point = "step ended", ?lease);
        info!(?lease, end = ?conclusion.end, "ended");
        self.tell(Happened::Ended { lease: lease.clone() }).await;
        let report = match conclusion.end {
            End::Superseded => {
                info!(?lease, "a superseded attempt was ended");
                spawn_blocking(move || entry.remove()).await?;
                return Ok(refilled.await?);
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
        let noted = spawn_blocking(move || (noting.write(&note), noting.workspace().clone().renew()));
        let reported = self.reporter.report(report).await;
        let closed = self.close(storing, reported).await?;
        let (written, renewed) = noted.await?;
        refilled.await?;
        drop(watched);
        for problem in [written.as_ref().err(), renewed.as_ref().err()].into_iter().flatten() {
            warn!(?lease, error = %problem, "an attempt's end was not cleared up");
        }
        let shared = self.shared.clone();
        match (closed, renewed) {
            (Closed::Whole, Ok(renewed)) => spawn_blocking(move || shared.spool.forget(entry, renewed)).await?,
            (Closed::Whole, Err(_)) => spawn_blocking(move || entry.remove()).await?,
            (Closed::Later, _) => {}
        }
        Ok(())
    }

    /// Goes on with what an earlier life of the agent has left.
    pub(crate) async fn go_on(mut self, recovered: Recovered) -> Result<(), TaskError> {
        let _gone = Gone(self.happened.clone(), self.lease());
        let reported = self.reporter.report(recovered.report).await;
        let storing = self.storing(&recovered.entry, &recovered.depot_token, recovered.stored);
        match self.close(storing, reported).await? {
            Closed::Whole => Ok(spawn_blocking(move || recovered.entry.remove()).await?),
            Closed::Later => Ok(()),
        }
    }

    fn live(&self) -> Live {
        let (lease, bus) = (self.lease(), self.shared.bus.clone());
        Live::new(bus, Subject::log(&self.shared.agent, &lease.attempt.run, &lease.attempt.stage), lease)
    }

    fn storing(&self, entry: &Entry, depot_token: &str, stored: BTreeMap<u32, LogSegment>) -> Storing {
        Storing::new(self.shared.tools.blobs.with_token(depot_token), entry.clone(), self.live(), stored)
    }

    async fn execute(&mut self, assignment: &Assignment, entry: &Entry, parts: Parts, storing: &mut Storing) -> Conclusion {
        let mut output = Output::new(parts.clone(), self.live(), self.shared.tools.live.share());
        let deadline = Instant::now().checked_add(Duration::from_millis(assignment.stage.timeout_ms));
        let mut halt = Halt::new(deadline, self.stop.clone());
        // Said now, and not after the source is unpacked: whoever waits for it places the attempt elsewhere after a while.
        let started = Report::Started { at: Timestamp(clock::unix_ms()) };
        let (asks, runs_asked) = mpsc::channel(ASKS_MAX);
        let asked = self.asked.clone();
        let outside = Outside { asks, lives_until: self.lives_until.clone() };
        tokio::select! {
            biased;
            () = self.reporter.begun(started, runs_asked) => unreachable!("it waits for ever"),
            never = storing.follow(&parts, &asked) => match never {},
            conclusion = execute(assignment, &self.shared.tools, entry, &mut output, &mut halt, outside) => conclusion,
        }
    }

    /// Stores the output, if the result was heard.
    async fn close(&mut self, mut storing: Storing, reported: Reported) -> Result<Closed, TaskError> {
        let lease = self.lease();
        if reported == Reported::ShuttingDown {
            return Ok(Closed::Later);
        }
        self.tell(Happened::Heard { lease: lease.clone() }).await;
        let token = self.reporter.token.clone();
        let stored = tokio::select! {
            stored = storing.finish() => stored,
            () = token.cancelled() => return Ok(Closed::Later),
        };
        match stored {
            Ok(log) => {
                if self.reporter.report(Report::LogStored { log }).await == Reported::ShuttingDown {
                    return Ok(Closed::Later);
                }
            }
            Err(problem) => error!(?lease, error = chain(&*problem), "an attempt's output is given up: its log will show a gap"),
        }
        Ok(Closed::Whole)
    }

    async fn tell(&self, happened: Happened) {
        // Closed only when the agent ends.
        let _closed = self.happened.send(happened).await;
    }
}
