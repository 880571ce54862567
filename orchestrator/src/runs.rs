//! The read side: the newest state of every run that is kept in memory, and what is appended from now on.

use std::{
    collections::BTreeMap,
    sync::{Arc, RwLock},
    time::Duration,
};

use model::{RunId, StageId, event::run::RunRecord, protocol::auction::Declined};
use tokio::{sync::broadcast, time::timeout};

use crate::core::Run;

/// Ended runs that stay in memory. Older ones are in the log, and read from there.
pub const ENDED_RUNS_MAX: usize = 2_000;
/// Appended records that a slow follower may be behind before it must read the log again.
const FOLLOWED_RECORDS_MAX: usize = 4_096;

/// A record that was just appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// The run.
    pub run: RunId,
    /// Its place in the stream of run logs.
    pub sequence: u64,
    /// The record.
    pub record: RunRecord,
}

/// A run as readers see it: its state, and its log so far. The two belong together.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The state.
    pub run: Arc<Run>,
    /// Its records, oldest first.
    pub records: Arc<Vec<Arc<Appended>>>,
}

/// All runs that are in memory. Clones share them; the engine writes, everybody reads.
#[derive(Debug, Clone)]
pub struct Runs {
    kept: Arc<RwLock<Kept>>,
    appended: broadcast::Sender<Arc<Appended>>,
}

#[derive(Debug, Default)]
struct Kept {
    runs: BTreeMap<RunId, Snapshot>,
    /// The sequence of a run's first record, which orders runs by age.
    by_age: BTreeMap<u64, RunId>,
    /// Why a ready stage found no agent in its last auction. Soft: it is asked anew all the time.
    unplaced: BTreeMap<(RunId, StageId), Vec<Declined>>,
}

impl Default for Runs {
    fn default() -> Self {
        Self { kept: Arc::default(), appended: broadcast::channel(FOLLOWED_RECORDS_MAX).0 }
    }
}

impl Runs {
    /// The run's newest state.
    pub fn get(&self, run: &RunId) -> Option<Snapshot> {
        self.kept.read().expect("no holder of this lock panics").runs.get(run).cloned()
    }

    /// Runs, the newest first, at most `limit`, older than the run `before` where one is given.
    pub fn list(&self, before: Option<&RunId>, limit: usize) -> Vec<Arc<Run>> {
        let kept = self.kept.read().expect("no holder of this lock panics");
        let end = before.and_then(|run| kept.runs.get(run)).and_then(Snapshot::first_sequence).unwrap_or(u64::MAX);
        kept.by_age.range(..end).rev().take(limit).filter_map(|(_, run)| Some(kept.runs.get(run)?.run.clone())).collect()
    }

    /// What is appended from now on, of all runs. A receiver that lags reads [`Runs::get`] again.
    pub fn follow(&self) -> broadcast::Receiver<Arc<Appended>> {
        self.appended.subscribe()
    }

    /// The run as soon as it is there, at most after `wait`: a trigger that was just accepted becomes a run some milliseconds later.
    pub async fn get_soon(&self, run: &RunId, wait: Duration) -> Option<Snapshot> {
        let mut appended = self.follow();
        let appears = async {
            loop {
                if let Some(snapshot) = self.get(run) {
                    return Some(snapshot);
                }
                if let Err(broadcast::error::RecvError::Closed) = appended.recv().await {
                    return None;
                }
            }
        };
        timeout(wait, appears).await.ok().flatten()
    }

    /// Why the ready stage found no agent when it was last auctioned; `None` if it was not auctioned in vain.
    pub fn unplaced(&self, run: &RunId, stage: &StageId) -> Option<Vec<Declined>> {
        self.kept.read().expect("no holder of this lock panics").unplaced.get(&(run.clone(), stage.clone())).cloned()
    }

    /// Remembers why a stage found no agent, or that it did.
    pub(crate) fn set_unplaced(&self, run: &RunId, stage: &StageId, declined: Option<Vec<Declined>>) {
        let mut kept = self.kept.write().expect("no holder of this lock panics");
        let key = (run.clone(), stage.clone());
        match declined {
            Some(declined) => kept.unplaced.insert(key, declined),
            None => kept.unplaced.remove(&key),
        };
    }

    /// Puts a run into memory, as it was read from the log.
    pub(crate) fn load(&self, run: Run, records: Vec<Arc<Appended>>) {
        let mut kept = self.kept.write().expect("no holder of this lock panics");
        kept.put(Snapshot { run: Arc::new(run), records: Arc::new(records) });
    }

    /// Shows the state after `appended`, then tells the followers.
    pub(crate) fn publish(&self, run: &Run, appended: Appended) {
        let appended = Arc::new(appended);
        {
            let mut kept = self.kept.write().expect("no holder of this lock panics");
            let mut records = kept.runs.remove(&run.id).map_or_else(Arc::default, |snapshot| snapshot.records);
            Arc::make_mut(&mut records).push(appended.clone());
            kept.put(Snapshot { run: Arc::new(run.clone()), records });
        }
        let _nobody_follows = self.appended.send(appended);
    }
}

impl Snapshot {
    fn first_sequence(&self) -> Option<u64> {
        self.records.first().map(|record| record.sequence)
    }
}

impl Kept {
    fn put(&mut self, snapshot: Snapshot) {
        let Some(first) = snapshot.first_sequence() else { return };
        self.by_age.insert(first, snapshot.run.id.clone());
        self.runs.insert(snapshot.run.id.clone(), snapshot);
        if self.runs.len() > ENDED_RUNS_MAX {
            let oldest_ended = self.by_age.iter().find(|(_, run)| self.runs.get(*run).is_none_or(|kept| kept.run.ended.is_some()));
            if let Some((sequence, run)) = oldest_ended.map(|(sequence, run)| (*sequence, run.clone())) {
                self.by_age.remove(&sequence);
                self.runs.remove(&run);
            }
        }
    }
}
