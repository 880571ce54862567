//! Who holds which lock of which project, and who waits for it: first come, first served.
//!
//! The table is derived from the logs: a stage queues at the place of its [`RunEvent::LockQueued`], and leaves when it is over. Only that a
//! lock was granted is known here before the log says so.
//!
//! **Invariant:** one stage of all runs of a project holds a lock, or nobody.

use std::collections::{BTreeMap, BTreeSet};

use model::{ProjectName, RunId, StageId, event::run::RunEvent};

use crate::{core::Run, runs::Appended};

/// A lock: its project, and its name there.
type Name = (ProjectName, String);
/// Where a stage stands in a queue: the sequence of the record that put it there, and its place in that.
type Place = (u64, usize);
/// A stage of a run.
type Claim = (RunId, StageId);

/// All locks that somebody holds or waits for.
#[derive(Debug, Default)]
pub(super) struct Locks {
    by_name: BTreeMap<Name, Lock>,
    claims: BTreeMap<Claim, (Name, Place)>,
    /// Locks that nobody holds and somebody waits for.
    free: BTreeSet<Name>,
}

#[derive(Debug, Default)]
struct Lock {
    holder: Option<Claim>,
    waiting: BTreeMap<Place, Claim>,
}

impl Locks {
    /// Takes up what a record says, after it was folded into `run`.
    pub(super) fn follow(&mut self, run: &Run, appended: &Appended) {
        for (index, event) in appended.record.events.iter().enumerate() {
            let Some(stage) = event.stage() else { continue };
            let claim = (run.id.clone(), stage.clone());
            let over = run.stage(stage).is_none_or(|(_, stage)| stage.is_over());
            if over {
                self.leave(&claim);
                continue;
            }
            if let RunEvent::LockQueued { lock, .. } | RunEvent::LockAcquired { lock, .. } = event {
                let name = (run.trigger.project.clone(), lock.clone());
                self.queue(&claim, &name, (appended.sequence, index));
                if let RunEvent::LockAcquired { .. } = event {
                    self.hold(&name, claim);
                }
            }
        }
        if run.ended.is_some() {
            self.forget(&run.id);
        }
    }

    fn queue(&mut self, claim: &Claim, name: &Name, place: Place) {
        if self.claims.contains_key(claim) {
            return;
        }
        self.claims.insert(claim.clone(), (name.clone(), place));
        let lock = self.by_name.entry(name.clone()).or_default();
        lock.waiting.insert(place, claim.clone());
        if lock.holder.is_none() {
            self.free.insert(name.clone());
        }
    }

    fn hold(&mut self, name: &Name, claim: Claim) {
        let Some((_, place)) = self.claims.get(&claim) else { return };
        let lock = self.by_name.entry(name.clone()).or_default();
        lock.waiting.remove(place);
        lock.holder = Some(claim);
        self.free.remove(name);
    }

    fn leave(&mut self, claim: &Claim) {
        let Some((name, place)) = self.claims.remove(claim) else { return };
        let Some(lock) = self.by_name.get_mut(&name) else { return };
        lock.waiting.remove(&place);
        lock.holder.take_if(|holder| holder == claim);
        match (&lock.holder, lock.waiting.is_empty()) {
            (Some(_), _) => {}
            (None, false) => drop(self.free.insert(name)),
            (None, true) => {
                self.free.remove(&name);
                self.by_name.remove(&name);
            }
        }
    }

    /// The run is over, or must not be run upon: nothing of it holds or waits.
    pub(super) fn forget(&mut self, run: &RunId) {
        let of_run: Vec<Claim> = self.claims.keys().filter(|(of, _)| of == run).cloned().collect();
        for claim in of_run {
            self.leave(&claim);
        }
    }

    /// The run must not be run upon: it waits for nothing any more. What it holds, it holds until it is forgotten.
    pub(super) fn stop_waiting(&mut self, run: &RunId) {
        let is_waiting = |claim: &Claim, (name, place): &(Name, Place)| {
            claim.0 == *run && self.by_name.get(name).is_some_and(|lock| lock.waiting.contains_key(place))
        };
        let waiting: Vec<Claim> = self.claims.iter().filter(|(claim, at)| is_waiting(claim, at)).map(|(claim, _)| claim.clone()).collect();
        for claim in waiting {
            self.leave(&claim);
        }
    }

    /// Gives every free lock of these projects to the stage that has waited longest for it; says to whom.
    pub(super) fn grant(&mut self, is_of: impl Fn(&ProjectName) -> bool) -> Vec<Claim> {
        let mut granted = Vec::new();
        let free: Vec<Name> = self.free.extract_if(.., |(project, _)| is_of(project)).collect();
        for name in free {
            let Some(lock) = self.by_name.get_mut(&name).filter(|lock| lock.holder.is_none()) else { continue };
            if let Some((_, claim)) = lock.waiting.pop_first() {
                lock.holder = Some(claim.clone());
                granted.push(claim);
            }
        }
        granted
    }
}
