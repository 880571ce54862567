//! From a stored trigger to the first record of its run.

use std::sync::Arc;

use eventbus::{AppendError, TriggerDelivery};
use model::{
    Digest, RunId, StageId, Timestamp,
    event::run::{RunRecord, WaitKey},
};
use service::clock;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::{
    Done, Engine,
    log::{self, Tail},
    open::OpenRun,
    plans::PlanningError,
};
use crate::{
    core::{
        Beginning, Context, Position, Run,
        decide::{Proposals, accept, before},
    },
    runs::Appended,
};

/// What became of a trigger.
pub(super) enum TakenIn {
    /// Its run has begun with this record.
    Begun { run: Box<Run>, record: RunRecord, sequence: u64, digest: Digest },
    /// Its run was there before.
    Known,
    /// Not now: the trigger is delivered again.
    Later(LaterReason),
}

/// Why a trigger could not become a run now.
#[derive(Debug, thiserror::Error)]
pub(super) enum LaterReason {
    #[error("its plan cannot be made now")]
    Plan(#[from] PlanningError),
    #[error("its first record cannot be stored now")]
    Append(#[from] AppendError),
}

impl Engine {
    pub(super) fn take_in(&mut self, delivery: TriggerDelivery) {
        let trigger = match &delivery.trigger {
            Ok(trigger) => trigger.clone(),
            Err(error) => {
                error!(error = service::supervisor::chain(error), "a stored trigger cannot be read, and is skipped");
                self.dismiss(delivery);
                return;
            }
        };
        let id = trigger.run();
        if self.runs.get(&id).is_some() || self.damaged.contains(&id) {
            self.dismiss(delivery);
            return;
        }
        if !self.intake.insert(id) {
            // Delivered again while it is being taken in; if that fails, it comes once more.
            return;
        }
        let (plans, bus, name) = (self.plans.clone(), self.bus.clone(), self.name.clone());
        self.work.push(Box::pin(async move {
            let begin = async {
                let (planned, shape) = plans.plan(&trigger).await?;
                let at = Timestamp(clock::unix_ms());
                let first = before(&trigger, planned, shape, Position { sequence: 0, at });
                let proposals = Proposals::new();
                let events = accept(&first, &Context { proposals: &proposals, callback_secrets: &no_secrets }, &Beginning::default(), at);
                let (record, bytes) = log::encode(Tail::default(), &name, at, events);
                let digest = Digest::of(&bytes);
                let sequence = bus.append(&first.id, 0, bytes).await?;
                Ok(TakenIn::Begun { run: Box::new(first), record, sequence, digest })
            };
            let outcome = match begin.await {
                Ok(begun) => begun,
                Err(LaterReason::Append(AppendError::Conflict { .. })) => TakenIn::Known,
                Err(reason) => TakenIn::Later(reason),
            };
            Done::TakenIn { delivery, outcome }
        }));
    }

    pub(super) fn taken_in(&mut self, delivery: TriggerDelivery, outcome: TakenIn) {
        if let Ok(trigger) = &delivery.trigger {
            self.intake.remove(&trigger.run());
        }
        match outcome {
            TakenIn::Begun { run, record, sequence, digest } => {
                self.begin(*run, record, sequence, digest);
                self.dismiss(delivery);
            }
            TakenIn::Known => {
                if let Ok(trigger) = &delivery.trigger {
                    self.reload(trigger.run(), None);
                }
                self.dismiss(delivery);
            }
            TakenIn::Later(reason) => warn!(error = service::supervisor::chain(&reason), "a trigger waits"),
        }
    }

    fn begin(&mut self, mut run: Run, record: RunRecord, sequence: u64, digest: Digest) {
        let id = run.id.clone();
        info!(run = %id, project = %run.trigger.project, "the run begins");
        let appended = Appended { run: id.clone(), sequence, record };
        if let Err(error) = log::apply(&mut run, &appended, 1) {
            error!(run = %id, error = service::supervisor::chain(&error), "the run is set aside");
            self.damaged.insert(id);
            return;
        }
        self.leases.follow(&run, Instant::now());
        self.runs.publish(&run, appended);
        self.open.insert(id.clone(), OpenRun::new(run, Tail { sequence, digest: Some(digest) }));
        self.speak(&id);
    }

    /// Tells the bus that the trigger need not be delivered again.
    fn dismiss(&self, delivery: TriggerDelivery) {
        self.work.push(Box::pin(async move {
            if let Err(error) = delivery.done().await {
                warn!(error = service::supervisor::chain(&error), "a trigger that is done with will be delivered again");
            }
            Done::Dismissed
        }));
    }
}

/// Plans with a webhook are refused so far.
pub(super) fn no_secrets(_: &RunId, stage: &StageId, _: WaitKey) -> Digest {
    Digest::of(stage.as_str().as_bytes())
}

/// Keeps the record's type in one place for the readers of a log.
pub(super) fn appended(run: &model::RunId, sequence: u64, record: RunRecord) -> Arc<Appended> {
    Arc::new(Appended { run: run.clone(), sequence, record })
}
