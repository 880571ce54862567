//! Logs that another process writes, or that nobody writes any more, read for showing: nothing here decides, and nothing is appended.

use std::{collections::BTreeMap, sync::Arc};

use blob::Blobs;
use eventbus::StoredRecord;
use model::{RunId, protocol::log::LogChunk};
use tokio::sync::mpsc;

use crate::{
    Orchestrator,
    admission::Admission,
    engine::{
        LogError, PlanningError, Protections,
        plans::Plans,
        recovery::{Damaged, LaterReason, Reading, Reloaded},
    },
    logs::LogHub,
    runs::Runs,
};

/// Why a run is not shown.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// Its log is damaged.
    #[error(transparent)]
    Damaged(#[from] Box<LogError>),
    /// Its plan cannot be had.
    #[error("its plan cannot be read")]
    Plan(#[from] PlanningError),
}

/// Runs that are read. Their orchestrator answers questions, and does nothing that it is told to.
#[derive(Debug)]
pub struct Archive {
    /// The read side.
    pub orchestrator: Orchestrator,
    /// Runs that are not shown, and why.
    pub unreadable: BTreeMap<RunId, Unreadable>,
    /// How many records of each run are shown.
    known: BTreeMap<RunId, usize>,
}

impl Archive {
    /// Without a run yet; `blobs` has what their logs refer to.
    pub fn new(blobs: Blobs) -> Self {
        let (commands, _nobody_listens) = mpsc::channel(1);
        let bus = eventbus::memory::bus();
        let orchestrator = Orchestrator {
            runs: Runs::default(),
            logs: LogHub::default(),
            plans: Plans::new(bus.clone(), blobs.clone()),
            protections: Protections::default(),
            blobs,
            bus,
            commands,
            callback_key: None,
            hints: Arc::default(),
            admission: Admission::default(),
        };
        Self { orchestrator, unreadable: BTreeMap::new(), known: BTreeMap::new() }
    }

    /// Takes in a run's log as it is now; who follows the run learns what is new. Sequences are unique among all runs, and those of a run
    /// stay.
    pub async fn take(&mut self, run: &RunId, records: &[StoredRecord]) {
        if self.known.get(run).is_some_and(|known| *known >= records.len()) {
            return;
        }
        match self.load(run, records).await {
            Ok(()) => {
                if self.unreadable.remove(run).is_some() {
                    self.orchestrator.runs.set_damage(run, None);
                }
                self.known.insert(run.clone(), records.len());
            }
            Err(why) => {
                self.unreadable.insert(run.clone(), why);
            }
        }
    }

    /// Takes in output of an attempt whose output is not stored yet.
    pub fn output(&self, chunk: LogChunk) {
        self.orchestrator.logs.take(chunk);
    }

    async fn load(&self, run: &RunId, records: &[StoredRecord]) -> Result<(), Unreadable> {
        let plans = &self.orchestrator.plans;
        let mut reading = Reading::default();
        for record in records {
            reading.take(record);
        }
        let outcome = reading.finish(run, plans).await;
        let runs = &self.orchestrator.runs;
        match outcome {
            Reloaded::Run(loaded) => {
                let (state, records) = loaded.into_parts();
                runs.load(state, records);
                Ok(())
            }
            Reloaded::Missing => Ok(()),
            Reloaded::Damaged(damaged) => {
                let damage = damaged.damage();
                let Damaged { error, seen } = *damaged;
                if let Some((state, records)) = seen {
                    runs.load(state, records);
                }
                runs.set_damage(run, Some(damage));
                Err(Box::new(error).into())
            }
            Reloaded::Later(later) => match later.reason {
                LaterReason::Plan(error) => Err(error.into()),
                LaterReason::Depot(error) => Err(PlanningError::from(error).into()),
                LaterReason::Bus(_) => unreachable!("only a plan is waited for"),
            },
        }
    }
}
