//! From a stored trigger to the first record of its run.
//!
//! ```text
//! trigger ─▶ prepare (plan it, or read the run that is run again) ─▶ its turn among the runs of its branch ─▶ append ─▶ begin
//! ```

use std::{collections::BTreeMap, sync::Arc};

use eventbus::{AppendError, TriggerDelivery, bus::MESSAGE_BYTES_MAX};
use model::{
    Digest, RunId, Timestamp,
    event::run::{Planned, RunRecord},
    trigger::{Rerun, Trigger},
};
use service::clock;
use tracing::{error, info, warn};

use super::{
    Done, Engine,
    log::{self, Tail},
    open::{OpenRun, WorkedOn},
    plans::{PlanningError, Plans, empty_shape},
    recovery,
    refusal::{NO_RERUN, NO_SUPPLY, REQUEST_TOO_LARGE, diagnostic},
    series::Key,
};
use crate::{
    core::{
        Beginning, Context, Position, Run, Shape,
        decide::{Proposals, accept, before},
        rerun::{self, Reused},
        shape::Index,
    },
    runs::Appended,
    traces::TakenUp,
};

/// What a trigger's run begins with.
pub(super) struct Prepared {
    trigger: Trigger,
    planned: Planned,
    shape: Arc<Shape>,
    reused: BTreeMap<Index, Reused>,
}

/// What became of a trigger.
pub(super) enum TakenIn {
    /// Its run has begun with this record.
    Begun { run: Box<Run>, record: RunRecord, sequence: u64, digest: Digest },
    /// Its run was there before.
    Known,
    /// It begins at another orchestrator.
    Others(Box<Trigger>),
    /// Not now: the trigger is delivered again.
    Later(LaterReason),
}

/// Why a trigger could not become a run now.
#[derive(Debug, thiserror::Error)]
pub(super) enum LaterReason {
    #[error("its plan cannot be made now")]
    Plan(#[from] PlanningError),
    #[error("the run that it runs again cannot be read now")]
    Rerun(#[from] recovery::LaterReason),
    #[error("its first record cannot be stored now")]
    Append(#[from] AppendError),
}

impl LaterReason {
    /// Whether it is likely to be so for ever.
    fn is_lasting(&self) -> bool {
        match self {
            Self::Plan(error) => error.is_lasting(),
            Self::Rerun(error) => error.is_lasting(),
            Self::Append(_) => false,
        }
    }
}

/// How often a trigger is delivered whose plan is not to be had before its run ends without one: some seconds, in which a depot that is
/// being brought back has time.
const DELIVERIES_MAX: u32 = 6;

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
        if !self.owns(&trigger.project) {
            self.pass_on(delivery, trigger);
            return;
        }
        if !self.intake.insert(id) {
            // Delivered again while it is being taken in; if that fails, it comes once more.
            return;
        }
        if let Some(beginnings) = &self.beginnings {
            beginnings.note(&trigger.run(), TakenUp { stored_at: delivery.stored_at, at: Timestamp(clock::unix_ms()) });
        }
        let (plans, bus) = (self.plans.clone(), self.bus.clone());
        let old = trigger.rerun.as_ref().and_then(|rerun| self.runs.get(&rerun.of)).map(|snapshot| snapshot.run);
        self.work.push(Box::pin(async move {
            let outcome = prepare(trigger, old, &bus, &plans).await;
            Done::Prepared { delivery, outcome }
        }));
    }

    /// The plan is there: the run begins when it is its turn.
    pub(super) fn prepared(&mut self, delivery: TriggerDelivery, outcome: Result<Prepared, LaterReason>) {
        let prepared = match outcome {
            Ok(prepared) => prepared,
            Err(reason) => match self.given_up(&delivery, &reason) {
                Some(refused) => refused,
                None => return self.taken_in(delivery, TakenIn::Later(reason)),
            },
        };
        let Some(key) = Key::of(&prepared.trigger) else { return self.accept(delivery, prepared, None) };
        if self.series.may_begin(&key, &prepared.trigger.run()) {
            self.accept(delivery, prepared, Some(&key));
        } else {
            // They are few: INTAKE_MAX bounds all that are taken in.
            self.turns.entry(key).or_default().push_back((delivery, prepared));
        }
    }

    /// What the run begins and ends with that cannot be planned, if that was seen often enough.
    fn given_up(&mut self, delivery: &TriggerDelivery, reason: &LaterReason) -> Option<Prepared> {
        let trigger = delivery.trigger.as_ref().ok().filter(|_| reason.is_lasting())?;
        let tries = self.tries.entry(trigger.run()).or_default();
        *tries += 1;
        (*tries >= DELIVERIES_MAX).then(|| {
            let code = if trigger.rerun.is_some() { NO_RERUN } else { NO_SUPPLY };
            refused(trigger.clone(), code, service::supervisor::chain(reason))
        })
    }

    fn accept(&mut self, delivery: TriggerDelivery, prepared: Prepared, key: Option<&Key>) {
        let Some(delivery) = self.is_passed_on(delivery, &prepared.trigger) else { return };
        let Prepared { trigger, planned, shape, reused } = prepared;
        let held = key.filter(|_| matches!(planned, Planned::Plan { .. })).and_then(|key| self.series.older(key));
        let at = Timestamp(clock::unix_ms());
        let first = before(&trigger, planned, shape, Position { sequence: 0, at });
        let (proposals, secrets) = (Proposals::new(), self.secrets());
        let context = Context { proposals: &proposals, may_have: &|_, _, _| false, callback_secrets: &secrets };
        let events = accept(&first, &context, &Beginning { reused, held, is_later: key.is_some() && self.begins_in_two() }, at);
        let (record, bytes) = log::encode(Tail::default(), &self.name, at, events);
        if bytes.len() > MESSAGE_BYTES_MAX && matches!(first.planned, Planned::Plan { .. }) {
            // It would be delivered for ever, and never stored. Without a plan, nothing is left but the trigger, which was stored.
            return self.accept(delivery, too_large(Trigger::clone(&first.trigger), bytes.len()), None);
        }
        let digest = Digest::of(&bytes);
        let bus = self.bus.clone();
        self.work.push(Box::pin(async move {
            let outcome = match bus.append(&first.id, 0, bytes).await {
                Ok(sequence) => TakenIn::Begun { run: Box::new(first), record, sequence, digest },
                Err(AppendError::Conflict { .. }) => TakenIn::Known,
                Err(error) => TakenIn::Later(error.into()),
            };
            Done::TakenIn { delivery, outcome }
        }));
    }

    pub(super) fn taken_in(&mut self, delivery: TriggerDelivery, outcome: TakenIn) {
        let key = delivery.trigger.as_ref().ok().and_then(Key::of);
        let id = delivery.trigger.as_ref().ok().map(Trigger::run);
        if let Some(id) = &id {
            self.intake.remove(id);
            if !matches!(outcome, TakenIn::Later(_)) {
                self.tries.remove(id);
            }
        }
        match outcome {
            TakenIn::Begun { run, record, sequence, digest } => {
                self.arrived(&run.id);
                self.begin(*run, record, sequence, digest);
                self.dismiss(delivery);
            }
            TakenIn::Known => {
                if let Some((id, trigger)) = id.as_ref().zip(delivery.trigger.as_ref().ok()) {
                    // Wherever it stands, it is before what begins from now on.
                    self.arrives(id, 0, trigger);
                    self.reload(id.clone(), None);
                }
                self.dismiss(delivery);
            }
            TakenIn::Others(trigger) => {
                self.read_arriving(&trigger.run());
                self.pass_on(delivery, *trigger);
            }
            TakenIn::Later(reason) => {
                warn!(error = service::supervisor::chain(&reason), "a trigger waits");
                if let Some(id) = &id {
                    self.read_arriving(id);
                }
            }
        }
        if let (Some(key), Some(id)) = (key, id) {
            self.next_turn(&key, &id);
        }
        self.begin_placed();
    }

    /// The run of this series has begun, or will not now: the next one may.
    fn next_turn(&mut self, key: &Key, run: &RunId) {
        if !self.series.begun(key, run) {
            return;
        }
        let Some(waiting) = self.turns.get_mut(key) else { return };
        let next = waiting.pop_front();
        if waiting.is_empty() {
            self.turns.remove(key);
        }
        if let Some((delivery, prepared)) = next {
            self.prepared(delivery, Ok(prepared));
        }
    }

    fn begin(&mut self, mut run: Run, record: RunRecord, sequence: u64, digest: Digest) {
        let id = run.id.clone();
        info!(run = %id, project = %run.trigger.project, "the run begins");
        self.tell_appended(sequence);
        if self.open.contains_key(&id) || self.runs.get(&id).is_some() {
            // It was read from the log meanwhile.
            return;
        }
        let is_own = self.owns(&run.trigger.project);
        let appended = Appended { run: id.clone(), sequence, record };
        if let Err(error) = log::apply(&mut run, &appended, 1) {
            self.set_aside(&id, recovery::Damaged { error: error.into(), seen: None });
            return;
        }
        let (_, appended) = self.runs.publish(&run, appended, true);
        self.took(&run, &appended);
        let mut open = OpenRun::new(run, Tail { sequence, digest: Some(digest) });
        open.worked_on = if is_own { WorkedOn::Here } else { WorkedOn::Elsewhere };
        self.open.insert(id.clone(), open);
        if is_own {
            self.begin_in_turn(&id);
        }
        self.settle_others();
    }

    /// Tells the bus that the trigger need not be delivered again.
    pub(super) fn dismiss(&self, delivery: TriggerDelivery) {
        self.work.push(Box::pin(async move {
            if let Err(error) = delivery.done().await {
                warn!(error = service::supervisor::chain(&error), "a trigger that is done with will be delivered again");
            }
            Done::Dismissed
        }));
    }
}

/// Plans the trigger's pipeline, or takes the plan of the run that it runs again: `old`, where that is in memory.
async fn prepare(trigger: Trigger, old: Option<Arc<Run>>, bus: &eventbus::Bus, plans: &Plans) -> Result<Prepared, LaterReason> {
    let Some(Rerun { of, stages }) = trigger.rerun.clone() else {
        let (planned, shape) = plans.plan(&trigger).await?;
        return Ok(Prepared { trigger, planned, shape, reused: BTreeMap::new() });
    };
    let old = match old {
        Some(old) => Some(old),
        None => recovery::read_run(&of, bus, plans).await?.map(Arc::new),
    };
    let refused = |why: String| refused(trigger.clone(), NO_RERUN, why);
    Ok(match old {
        None => refused(format!("there is no run {of}, or its log is damaged")),
        Some(old) if old.ended.is_none() => refused(format!("the run {of} has not ended")),
        Some(old) if !matches!(old.planned, Planned::Plan { .. }) => refused(format!("the run {of} has no plan")),
        Some(old) => {
            let diagnostics = plans.refuses_rerun(&trigger, old.shape.plan());
            if !diagnostics.is_empty() {
                return Ok(Prepared { trigger, planned: Planned::Refused { diagnostics }, shape: empty_shape(), reused: BTreeMap::new() });
            }
            let reused = rerun::reused(&old, &stages);
            Prepared { planned: old.planned.clone(), shape: old.shape.clone(), reused, trigger }
        }
    })
}

/// A run that does not begin, and why.
fn refused(trigger: Trigger, code: &str, why: String) -> Prepared {
    let help = if code == REQUEST_TOO_LARGE { "make the pipeline file smaller" } else { "run the pipeline anew" };
    let diagnostics = vec![diagnostic(code, &trigger.pipeline_path, why, help)];
    Prepared { trigger, planned: Planned::Refused { diagnostics }, shape: empty_shape(), reused: BTreeMap::new() }
}

/// A run whose first record would have so many bytes.
fn too_large(trigger: Trigger, bytes: usize) -> Prepared {
    let record = format!("the run's first record has {bytes} bytes, over the limit of {MESSAGE_BYTES_MAX}");
    if trigger.rerun.is_some() {
        return refused(trigger, NO_RERUN, format!("{record}, with all that those stages have left that are not run again"));
    }
    refused(trigger, REQUEST_TOO_LARGE, record)
}

/// Keeps the record's type in one place for the readers of a log.
pub(super) fn appended(run: &RunId, sequence: u64, record: RunRecord) -> Arc<Appended> {
    Arc::new(Appended { run: run.clone(), sequence, record })
}
