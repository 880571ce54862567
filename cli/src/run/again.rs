//! Runs that stand on an earlier one: what failed is run again, or what was interrupted goes on.

use blob::Blobs;
use eventbus::memory::Journal;
use model::{
    Digest, RunOutcome, TriggerId,
    event::run::{Planned, RunEvent, RunRecord},
    trigger::{Rerun, RerunStages, Trigger},
};
use orchestrator::{archive::Archive, runs::Snapshot};
use service::supervisor::chain;

use crate::store::{Kept, Store};

/// Why a run does not stand on an earlier one. Each says what to do instead.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfit {
    /// There is no earlier run.
    #[error("no earlier run of {0} is kept here: run it without --from-failed")]
    None(String),
    /// It has not ended.
    #[error("{0} has not ended: `otto run --resume {0}` goes on with it")]
    Open(model::RunId),
    /// Nothing failed.
    #[error("{0} has ended as {1}: there is nothing to run again")]
    Succeeded(model::RunId, RunOutcome),
    /// Nothing was planned.
    #[error("{0} had no plan: run the pipeline without --from-failed")]
    NoPlan(model::RunId),
    /// The plan is another one.
    #[error("the plan is another one than that of {0}: run the pipeline without --from-failed (`otto explain` shows the plan)")]
    Plan(model::RunId),
    /// The files are others.
    #[error("the files have changed since {0}, and what succeeded then may fail now: run the pipeline without --from-failed")]
    Source(model::RunId),
    /// Its log cannot be used.
    #[error("the log of {run} is not run upon: {why}")]
    Damaged {
        /// The run.
        run: model::RunId,
        /// What is wrong with it.
        why: String,
    },
}

/// The run whose failed stages are to run again.
pub(super) struct Earlier {
    pub(super) kept: Kept,
    trigger: Trigger,
    plan: Digest,
}

impl Earlier {
    /// The newest run of the pipeline file at `path`.
    pub(super) fn find(store: &Store, path: &str) -> Result<Self, Unfit> {
        for kept in store.kept().into_iter().rev() {
            let Some(first) = first_record(&kept)? else { continue };
            let Some(RunEvent::RunAccepted { trigger, planned }) = first.events.into_iter().next() else { continue };
            if trigger.pipeline_path != path {
                continue;
            }
            return match (kept.outcome(), planned) {
                (None, _) => Err(Unfit::Open(kept.run)),
                (Some(outcome @ (RunOutcome::Success | RunOutcome::Skipped)), _) => Err(Unfit::Succeeded(kept.run, outcome)),
                (Some(_), Planned::Plan { digest, .. }) => Ok(Self { kept, trigger, plan: digest }),
                (Some(_), Planned::Refused { .. } | Planned::NotTriggered { .. }) => Err(Unfit::NoPlan(kept.run)),
            };
        }
        Err(Unfit::None(path.to_owned()))
    }

    /// The trigger that runs its failed stages again, if nothing has changed since.
    pub(super) fn again(&self, id: TriggerId, plan: Digest, source: Digest) -> Result<Trigger, Unfit> {
        if self.plan != plan {
            return Err(Unfit::Plan(self.kept.run.clone()));
        }
        if self.trigger.source != Some(source) {
            return Err(Unfit::Source(self.kept.run.clone()));
        }
        let rerun = Some(Rerun { of: self.kept.run.clone(), stages: RerunStages::Failed });
        Ok(Trigger { id, rerun, ..self.trigger.clone() })
    }
}

/// The first record of a run; `None` if it has none yet.
fn first_record(kept: &Kept) -> Result<Option<RunRecord>, Unfit> {
    let damaged = |why: String| Unfit::Damaged { run: kept.run.clone(), why };
    let records = Journal::records(&kept.journal()).map_err(|error| damaged(chain(&error)))?;
    let Some(first) = records.into_iter().find(|record| record.run == kept.run) else { return Ok(None) };
    serde_json::from_slice(&first.bytes).map(Some).map_err(|error| damaged(error.to_string()))
}

/// The run as its log has it, if it has begun. A log that is damaged is named: nothing is run upon it.
pub(super) async fn read(kept: &Kept, blobs: Blobs) -> Result<Option<Snapshot>, Unfit> {
    let damaged = |why: String| Unfit::Damaged { run: kept.run.clone(), why };
    let mut records = Journal::records(&kept.journal()).map_err(|error| damaged(chain(&error)))?;
    records.retain(|record| record.run == kept.run);
    let mut archive = Archive::new(blobs);
    archive.take(&kept.run, &records).await;
    match archive.unreadable.get(&kept.run) {
        Some(error) => Err(damaged(chain(error))),
        None => Ok(archive.orchestrator.runs.get(&kept.run)),
    }
}
