//! The read side: the newest state of every run that is kept in memory, and what is appended from now on.

use std::{
    collections::BTreeMap,
    sync::{Arc, RwLock},
    time::Duration,
};

use apispec::{RunStatus, RunView};
use model::{
    RunId, StageId,
    event::run::{RunEvent, RunRecord},
    protocol::auction::Declined,
};
use tokio::{sync::broadcast, time::timeout};

use crate::{
    admission::Load,
    agents::Agents,
    auctions::Auctions,
    core::Run,
    engine::putaway::Leaving,
    metrics::Metrics,
    views::{RunFilter, ViewError, Views},
};

/// Ended runs that stay in memory unless told otherwise. Older ones are in the log, and read from there.
pub const ENDED_RUNS_MAX: usize = 2_000;
/// Appended records that a slow follower may be behind before it must read the log again.
const FOLLOWED_RECORDS_MAX: usize = 1_024;

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

/// Why a run is not run upon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// What is wrong with its log.
    pub why: String,
    /// What can be done about it.
    pub help: String,
}

/// All runs that are in memory. Clones share them; the engine writes, everybody reads.
#[derive(Debug, Clone)]
pub struct Runs {
    kept: Arc<RwLock<Kept>>,
    /// What is listed and searched of all runs.
    views: Views,
    auctions: Auctions,
    agents: Agents,
    /// Ended runs that have left.
    leaving: Leaving,
    ended_max: usize,
    metrics: Metrics,
    appended: broadcast::Sender<Arc<Appended>>,
}

#[derive(Debug, Default)]
struct Kept {
    runs: BTreeMap<RunId, Snapshot>,
    /// The sequence of a run's first record, which orders runs by age.
    by_age: BTreeMap<u64, RunId>,
    /// The sequence of the record that ended a run, which orders ended runs: the one that ended first leaves first.
    by_end: BTreeMap<u64, RunId>,
    /// Why a ready stage found no agent in its last auction. Soft: it is asked anew all the time.
    unplaced: BTreeMap<(RunId, StageId), Vec<Declined>>,
    /// Open runs, with how many of their stages wait for an agent or have one.
    open: BTreeMap<RunId, usize>,
    /// All those stages.
    active: usize,
    /// Runs whose log must not be run upon; of those that are shown, as far as it could be read.
    damaged: BTreeMap<RunId, Damage>,
}

impl Default for Runs {
    fn default() -> Self {
        Self::new(Views::in_memory(), ENDED_RUNS_MAX)
    }
}

impl Runs {
    /// Without a run yet. What happens to runs is taken up in the views; of ended ones, so many stay.
    pub fn new(views: Views, ended_max: usize) -> Self {
        Self {
            kept: Arc::default(),
            views,
            leaving: Leaving::default(),
            ended_max,
            auctions: Auctions::default(),
            agents: Agents::default(),
            metrics: Metrics::default(),
            appended: broadcast::channel(FOLLOWED_RECORDS_MAX).0,
        }
    }

    /// Ended runs that stay in memory.
    pub(crate) fn ended_max(&self) -> usize {
        self.ended_max
    }

    /// Ended runs that have left memory.
    pub(crate) fn leaving(&self) -> &Leaving {
        &self.leaving
    }

    /// What is counted.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// How much is under way.
    pub(crate) fn load_now(&self) -> Load {
        let kept = self.kept.read().expect("no holder of this lock panics");
        Load { open_runs: kept.open.len(), active_stages: kept.active }
    }

    /// How many runs are damaged.
    pub(crate) fn damaged(&self) -> usize {
        self.kept.read().expect("no holder of this lock panics").damaged.len()
    }

    /// The read models.
    pub fn views(&self) -> &Views {
        &self.views
    }

    /// Runs that fit, the one that was taken up last first, at most `limit`, older than the place `before` where one is given; also those that
    /// have left memory. Each with its place, the sequence of its first record.
    pub async fn search(&self, filter: RunFilter, before: Option<u64>, limit: usize) -> Result<Vec<(u64, RunView)>, ViewError> {
        let mut found = self.views.runs(filter, before, limit).await?;
        for (_, run) in &mut found {
            if let Some(Damage { why, help }) = self.damage(&run.id) {
                run.status = RunStatus::Damaged { why, help };
            }
        }
        Ok(found)
    }

    /// Gives the views all that is in memory, where they were made anew while something happened.
    pub(crate) fn show_again(&self) {
        let kept = self.kept.read().expect("no holder of this lock panics");
        for (id, snapshot) in &kept.runs {
            if kept.damaged.contains_key(id) {
                self.views.set_damaged(&snapshot.run, &snapshot.records, true);
            } else {
                self.views.take(&snapshot.run, &snapshot.records);
            }
        }
    }

    /// The run's newest state.
    pub fn get(&self, run: &RunId) -> Option<Snapshot> {
        self.kept.read().expect("no holder of this lock panics").runs.get(run).cloned()
    }

    /// The last auctions of the runs.
    pub fn auctions(&self) -> &Auctions {
        &self.auctions
    }

    /// The agents, as they last told of themselves.
    pub fn agents(&self) -> &Agents {
        &self.agents
    }

    /// The sequence of the run's first record.
    pub(crate) fn first_sequence(&self, run: &RunId) -> Option<u64> {
        self.kept.read().expect("no holder of this lock panics").runs.get(run).and_then(Snapshot::first_sequence)
    }

    /// Runs that have not ended, and go on.
    pub fn open(&self) -> Vec<Arc<Run>> {
        let kept = self.kept.read().expect("no holder of this lock panics");
        let open = kept.runs.values().filter(|snapshot| snapshot.run.ended.is_none() && !kept.damaged.contains_key(&snapshot.run.id));
        open.map(|snapshot| snapshot.run.clone()).collect()
    }

    /// Why the run is not run upon; `None` of one that is sound, or not known.
    pub fn damage(&self, run: &RunId) -> Option<Damage> {
        self.kept.read().expect("no holder of this lock panics").damaged.get(run).cloned()
    }

    /// The run is not run upon any more, or is after all. Who follows it is woken by its last record.
    pub(crate) fn set_damage(&self, run: &RunId, damage: Option<Damage>) {
        let last = {
            let mut kept = self.kept.write().expect("no holder of this lock panics");
            let is_damaged = damage.is_some();
            if is_damaged {
                kept.count(run, None);
            }
            match damage {
                Some(damage) => kept.damaged.insert(run.clone(), damage),
                None => kept.damaged.remove(run),
            };
            if let Some(snapshot) = kept.runs.get(run) {
                self.views.set_damaged(&snapshot.run, &snapshot.records, is_damaged);
            }
            kept.runs.get(run).and_then(|snapshot| snapshot.records.last().cloned())
        };
        if let Some(last) = last {
            let _nobody_follows = self.appended.send(last);
        }
    }

    /// Runs that are `wanted`, the newest first, at most `limit`, that began before the sequence `before` where one is given; each with the
    /// sequence of its first record.
    pub fn list(&self, before: Option<u64>, limit: usize, wanted: impl Fn(&Run) -> bool) -> Vec<(u64, Arc<Run>)> {
        let kept = self.kept.read().expect("no holder of this lock panics");
        let older = kept.by_age.range(..before.unwrap_or(u64::MAX)).rev();
        let runs = older.filter_map(|(sequence, run)| Some((*sequence, kept.runs.get(run)?.run.clone())));
        runs.filter(|(_, run)| wanted(run)).take(limit).collect()
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

    /// Puts a run into memory, as it was read from the log, and tells the followers what they have not heard of.
    pub(crate) fn load(&self, run: Run, records: Vec<Arc<Appended>>) {
        let news = {
            let mut kept = self.kept.write().expect("no holder of this lock panics");
            let known = kept.runs.get(&run.id).and_then(|snapshot| snapshot.records.last()).map_or(0, |last| last.sequence);
            let news: Vec<_> = records.iter().filter(|record| record.sequence > known).cloned().collect();
            let run = Arc::new(run);
            self.views.take(&run, &records);
            self.put(&mut kept, Snapshot { run, records: Arc::new(records) });
            news
        };
        for appended in news {
            let _nobody_follows = self.appended.send(appended);
        }
    }

    /// Shows the state after `appended`, then tells the followers. Gives both back, as they are shared. What another orchestrator appended is not
    /// counted here.
    pub(crate) fn publish(&self, run: &Run, appended: Appended, is_own: bool) -> (Arc<Run>, Arc<Appended>) {
        let (run, appended) = (Arc::new(run.clone()), Arc::new(appended));
        self.views.take(&run, std::slice::from_ref(&appended));
        {
            let mut kept = self.kept.write().expect("no holder of this lock panics");
            let known = kept.runs.remove(&run.id);
            if is_own {
                self.metrics.count(known.as_ref().map(|snapshot| &*snapshot.run), &appended);
            }
            let known = known.map(|snapshot| snapshot.records);
            // An ended run may have left memory: its log is not shown in part.
            if known.is_some() || appended.record.previous.is_none() {
                let mut records = known.unwrap_or_default();
                Arc::make_mut(&mut records).push(appended.clone());
                self.put(&mut kept, Snapshot { run: run.clone(), records });
            } else {
                self.leaving.push(run.id.clone());
            }
        }
        let _nobody_follows = self.appended.send(appended.clone());
        (run, appended)
    }

    fn put(&self, kept: &mut Kept, snapshot: Snapshot) {
        kept.put(snapshot);
        while let Some(oldest) = kept.leave(self.ended_max) {
            self.leaving.push(oldest);
        }
    }
}

impl Snapshot {
    fn first_sequence(&self) -> Option<u64> {
        self.records.first().map(|record| record.sequence)
    }

    fn end_sequence(&self) -> Option<u64> {
        self.run.ended?;
        let ends = |record: &&Arc<Appended>| record.record.events.iter().any(|event| matches!(event, RunEvent::RunFinished { .. }));
        self.records.iter().rev().find(ends).map(|record| record.sequence)
    }
}

impl Kept {
    fn put(&mut self, snapshot: Snapshot) {
        let Some(first) = snapshot.first_sequence() else { return };
        let id = snapshot.run.id.clone();
        let is_open = snapshot.run.ended.is_none() && !self.damaged.contains_key(&id);
        self.count(&id, is_open.then_some(snapshot.run.active.len()));
        self.by_age.insert(first, id.clone());
        if let Some(end) = snapshot.end_sequence() {
            self.by_end.insert(end, id.clone());
            // Nothing of it waits for an agent any more.
            self.unplaced.retain(|(run, _), _| *run != id);
        }
        self.runs.insert(id, snapshot);
    }

    /// Notes how many stages of the open run wait for an agent or have one; `None` of one that is not open any more.
    fn count(&mut self, run: &RunId, active: Option<usize>) {
        let before = match active {
            Some(active) => self.open.insert(run.clone(), active),
            None => self.open.remove(run),
        };
        self.active = self.active + active.unwrap_or(0) - before.unwrap_or(0);
    }

    /// The run that ended first leaves, if there are more than so many.
    fn leave(&mut self, ended_max: usize) -> Option<RunId> {
        if self.by_end.len() <= ended_max {
            return None;
        }
        let (_, oldest) = self.by_end.pop_first()?;
        if let Some(first) = self.runs.remove(&oldest).as_ref().and_then(Snapshot::first_sequence) {
            self.by_age.remove(&first);
        }
        Some(oldest)
    }
}

#[cfg(test)]
mod tests {
    use model::{
        Digest, RunOutcome, Timestamp, TriggerId,
        event::run::{Planned, RECORD_SCHEMA},
        plan::Plan,
        trigger::Trigger,
    };

    use super::*;
    use crate::core::{Position, Shape};

    fn run(number: usize) -> Run {
        let trigger = Trigger { id: TriggerId::of("test", &number.to_string()), ..crate::core::tests::trigger() };
        let shape = Arc::new(Shape::new(Plan::new(Vec::new())));
        let position = Position { sequence: number as u64, at: Timestamp(0) };
        Run::accepted(trigger.run(), trigger, Planned::plan(Digest::of(b"")), shape, position)
    }

    fn appended(run: &Run, sequence: u64, previous: Option<Digest>, event: RunEvent) -> Appended {
        let record = RunRecord { schema: RECORD_SCHEMA, previous, actor: "test".to_owned(), at: Timestamp(0), events: vec![event] };
        Appended { run: run.id.clone(), sequence, record }
    }

    fn begin(runs: &Runs, number: usize) -> Run {
        let run = run(number);
        let accepted = RunEvent::RunAccepted { trigger: Trigger::clone(&run.trigger), planned: run.planned.clone() };
        runs.publish(&run, appended(&run, number as u64, None, accepted), true);
        run
    }

    fn end(runs: &Runs, mut run: Run, sequence: u64) {
        run.ended = Some((RunOutcome::Success, Timestamp(0)));
        let finished = RunEvent::RunFinished { outcome: RunOutcome::Success };
        runs.publish(&run, appended(&run, sequence, Some(Digest::of(b"")), finished), true);
    }

    #[test]
    fn a_run_that_outlasts_thousands_of_others_is_seen_to_end() {
        let runs = Runs::default();
        let long = begin(&runs, 1);
        for number in 2..ENDED_RUNS_MAX + 10 {
            let short = begin(&runs, number);
            end(&runs, short, 1_000_000 + number as u64);
        }
        let id = long.id.clone();
        runs.set_unplaced(&id, &StageId::of("a"), Some(Vec::new()));
        end(&runs, long, 2_000_000);
        assert!(runs.get(&id).is_some_and(|snapshot| snapshot.run.ended.is_some()));
        assert_eq!(runs.unplaced(&id, &StageId::of("a")), None);
        let kept = runs.kept.read().unwrap();
        assert_eq!((kept.runs.len(), kept.by_age.len(), kept.by_end.len()), (ENDED_RUNS_MAX, ENDED_RUNS_MAX, ENDED_RUNS_MAX));
    }
}
