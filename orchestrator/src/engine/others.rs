//! What runs mean to each other: locks that one holds and others wait for, and newer runs of the same branch or pull request.
//!
//! Both are derived from the logs. What follows is given to the runs as inputs, and is given again after a restart if the log has no word of it.

use model::{
    ProjectName, RunId,
    event::run::{CancelReason, RunEvent},
};
use tracing::{debug, info};

use super::{
    Engine,
    series::{Consequence, Key, Seen},
};
use crate::{
    core::{Input, Run},
    runs::Appended,
};

/// Who asks for the end of a run that a newer one replaces.
const NEWER: &str = "a newer run";

impl Engine {
    /// Takes up what a record says of locks and of older runs, after it was folded into its run.
    pub(super) fn follow_others(&mut self, run: &Run, appended: &Appended) {
        self.locks.follow(run, appended);
        let changes = |event: &RunEvent| {
            matches!(
                event,
                RunEvent::RunAccepted { .. }
                    | RunEvent::RunHeld { .. }
                    | RunEvent::RunReleased
                    | RunEvent::CancelRequested { .. }
                    | RunEvent::RunFinished { .. }
            )
        };
        if appended.record.events.iter().any(changes) {
            self.see(run);
        }
    }

    /// Puts the run in its place among those of its branch or pull request.
    pub(super) fn see(&mut self, run: &Run) {
        let Some(key) = Key::of(&run.trigger) else { return };
        let Some(first) = self.runs.first_sequence(&run.id) else { return };
        let seen = Seen { run: &run.id, first, newer: run.shape.plan().newer, held: run.held.is_some(), ended: run.ended.is_some() };
        self.series.see(&key, &seen);
        self.unsettled.insert(key);
    }

    /// Tells runs what follows for them.
    pub(super) fn settle_others(&mut self) {
        // Whose log is not folded yet may hold a lock.
        if self.recovering || !self.unread.is_empty() {
            return;
        }
        let unfenced = self.projects_unfenced();
        loop {
            let beside = self.beside.as_ref();
            let owns = |project: &ProjectName| beside.is_none_or(|beside| beside.owns(project));
            let granted = self.locks.grant(|project| owns(project) && !unfenced.contains(project));
            if granted.is_empty() {
                break;
            }
            for (run, stage) in granted {
                debug!(%run, %stage, "a lock is free");
                match self.open.get(&run).and_then(|open| open.run.shape.find(&stage)) {
                    Some(at) => self.input(&run, Input::LockGranted(at)),
                    None => self.locks.forget(&run),
                }
            }
        }
        while let Some(key) = self.unsettled.pop_first() {
            // Who takes over looks at all of them.
            if !self.owns(key.project()) {
                continue;
            }
            for consequence in self.series.consequences(&key) {
                match consequence {
                    Consequence::Cancel { run, newer } => {
                        info!(%run, %newer, "a newer run takes its place");
                        let reason = CancelReason::Newer { run: newer };
                        self.input(&run, Input::Cancel { by: NEWER.to_owned(), reason, force: false });
                    }
                    Consequence::Release { run } => self.input(&run, Input::Released),
                }
            }
        }
    }

    /// The run is not run upon any more, although it has not ended: none waits for it.
    pub(super) fn leave_series(&mut self, run: &Run) {
        let key = Key::of(&run.trigger).zip(self.runs.first_sequence(&run.id));
        if let Some((key, first)) = key {
            self.series.see(&key, &Seen { run: &run.id, first, newer: None, held: false, ended: true });
            self.unsettled.insert(key);
        }
    }

    /// The run is over.
    pub(super) fn forget_among_others(&mut self, run: &RunId) {
        self.locks.forget(run);
        self.agenda.set(run, None);
        self.awake.remove(run);
    }
}
