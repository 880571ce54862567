//! A run's log: how a record is written after its predecessor, and how a whole log is read back and checked.

use std::sync::Arc;

use blob::BlobError;
use bytes::Bytes;
use eventbus::StoredRecord;
use model::{
    Digest, RunId, Timestamp,
    event::{
        archive::{ARCHIVE_SCHEMA, ArchivedLog},
        run::{Planned, RECORD_SCHEMA, RunEvent, RunRecord},
    },
    plan::PlanError,
};
use serde::Deserialize;

use super::{plans::PlanningError, snapshots::Snapshot};
use crate::{
    core::{Illegal, Position, Run, Shape, decide::before},
    runs::Appended,
};

/// The end of a log: what the next record names as its predecessor. The default is a log without a record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tail {
    /// The last record's sequence; 0 if there is none.
    pub(crate) sequence: u64,
    /// The digest of the last record's bytes.
    pub(crate) digest: Option<Digest>,
}

/// Why a log must not be run upon.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The bytes are no record.
    #[error("the record of {run} at sequence {sequence} does not read as one")]
    Malformed {
        /// The run.
        run: RunId,
        /// The record.
        sequence: u64,
        /// What serde says.
        #[source]
        source: serde_json::Error,
    },
    /// A newer Otto wrote it.
    #[error("the record of {run} at sequence {sequence} has schema {schema}, and this Otto reads up to {ARCHIVE_SCHEMA}: update it")]
    TooNew {
        /// The run.
        run: RunId,
        /// The record.
        sequence: u64,
        /// What it says.
        schema: u32,
    },
    /// The chain of hashes is broken: records were lost, changed or exchanged.
    #[error("the log of {run} is damaged before sequence {sequence}: the record names {named:?} as its predecessor, which is {actual:?}")]
    Broken {
        /// The run.
        run: RunId,
        /// The record.
        sequence: u64,
        /// The digest it names.
        named: Option<Digest>,
        /// The digest of what stands before it.
        actual: Option<Digest>,
    },
    /// The first event is not the acceptance of this very run.
    #[error("the log of {0} does not begin with its acceptance")]
    NoBeginning(RunId),
    /// The plan that was accepted cannot be read.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The plan that was accepted cannot be had.
    #[error("the plan of {run} cannot be had")]
    NoPlan {
        /// The run.
        run: RunId,
        /// Why.
        #[source]
        source: Box<PlanningError>,
    },
    /// The log ends before a record that was stored.
    #[error("the log of {run} has lost records: the one at sequence {known} was stored, and is not there as it was")]
    Shortened {
        /// The run.
        run: RunId,
        /// The last record that is known.
        known: u64,
    },
    /// A part of the log that was put away is not what it was.
    #[error("a part of the log of {run} that lies in the depot cannot be had")]
    Part {
        /// The run.
        run: RunId,
        /// Why.
        #[source]
        source: BlobError,
    },
    /// A part of the log that was put away has other lines than records.
    #[error("the part {part} of the log of {run} has a line that is no record")]
    MalformedPart {
        /// The run.
        run: RunId,
        /// The part.
        part: Digest,
    },
    /// An event cannot follow.
    #[error(transparent)]
    Illegal(#[from] Illegal),
}

impl LogError {
    /// What can be done about it.
    pub fn help(&self) -> &'static str {
        match self {
            Self::TooNew { .. } => "update this Otto to the version that wrote the log, and start it again",
            Self::Plan(_) | Self::NoPlan { .. } | Self::Part { .. } | Self::MalformedPart { .. } => {
                "bring the depot's bytes back from a copy and start the orchestrator again: the run goes on; or run the pipeline anew"
            }
            Self::Malformed { .. } | Self::Broken { .. } | Self::NoBeginning(_) | Self::Illegal(_) | Self::Shortened { .. } => {
                "bring the log back from a copy and start the orchestrator again, or look at what its stages did and run the pipeline anew"
            }
        }
    }
}

/// The bytes of the record that follows `tail`.
pub(crate) fn encode(tail: Tail, actor: &str, at: Timestamp, events: Vec<RunEvent>) -> (RunRecord, Bytes) {
    let record = RunRecord { schema: RECORD_SCHEMA, previous: tail.digest, actor: actor.to_owned(), at, events };
    let bytes = serde_json::to_vec(&record).expect("a record has text keys only");
    (record, Bytes::from(bytes))
}

/// A message of a log.
#[derive(Debug)]
pub(crate) enum Decoded {
    /// A record.
    Record(RunRecord),
    /// It stands for all before it.
    Archived(ArchivedLog),
}

/// Reads a message.
pub(crate) fn decode(stored: &StoredRecord) -> Result<Decoded, LogError> {
    #[derive(Deserialize)]
    struct Versioned {
        schema: u32,
    }
    let (run, sequence) = (&stored.run, stored.sequence);
    let malformed = |source| LogError::Malformed { run: run.clone(), sequence, source };
    let Versioned { schema } = serde_json::from_slice(&stored.bytes).map_err(malformed)?;
    match schema {
        ..=RECORD_SCHEMA => serde_json::from_slice(&stored.bytes).map(Decoded::Record).map_err(malformed),
        ARCHIVE_SCHEMA => serde_json::from_slice(&stored.bytes).map(Decoded::Archived).map_err(malformed),
        _ => Err(LogError::TooNew { run: run.clone(), sequence, schema }),
    }
}

/// Checks that a record follows `tail`.
pub(crate) fn follows(tail: Tail, stored: &StoredRecord, record: &RunRecord) -> Result<(), LogError> {
    let (named, actual) = (record.previous, tail.digest);
    if named == actual { Ok(()) } else { Err(LogError::Broken { run: stored.run.clone(), sequence: stored.sequence, named, actual }) }
}

/// What a run's first record accepted.
pub(crate) fn planned_by(run: &RunId, first: &RunRecord) -> Result<Planned, LogError> {
    match first.events.first() {
        Some(RunEvent::RunAccepted { trigger, planned }) if trigger.run() == *run => Ok(planned.clone()),
        _ => Err(LogError::NoBeginning(run.clone())),
    }
}

/// A run as its log has it.
pub(crate) fn replay(run: &RunId, shape: Arc<Shape>, records: &[Arc<Appended>]) -> Result<Run, LogError> {
    let no_beginning = || LogError::NoBeginning(run.clone());
    let first = records.first().ok_or_else(no_beginning)?;
    let Some(RunEvent::RunAccepted { trigger, planned }) = first.record.events.first() else { return Err(no_beginning()) };
    let mut state = before(trigger, planned.clone(), shape, position(first));
    for (at, appended) in records.iter().enumerate() {
        let accepted = usize::from(at == 0);
        apply(&mut state, appended, accepted)?;
    }
    Ok(state)
}

/// The same, from a snapshot of it; `None` where that does not lead to its end.
pub(crate) fn replay_from(snapshot: Snapshot, shape: Arc<Shape>, records: &[Arc<Appended>]) -> Option<Run> {
    let (first, from) = (records.first()?, snapshot.tail().sequence);
    let Some(RunEvent::RunAccepted { trigger, planned }) = first.record.events.first() else { return None };
    let mut state = Run::of_kept(snapshot.state, trigger, planned.clone(), shape, position(first))?;
    let after = records.partition_point(|record| record.sequence <= from);
    records[after..].iter().try_for_each(|appended| apply(&mut state, appended, 0)).ok()?;
    Some(state)
}

/// As much of a run as can be shown of a log that must not be run upon.
pub(crate) fn glimpse(run: &RunId, shape: Arc<Shape>, records: &[Arc<Appended>]) -> Option<Run> {
    let first = records.first()?;
    let planned = planned_by(run, &first.record).ok()?;
    let RunEvent::RunAccepted { trigger, .. } = first.record.events.first()? else { return None };
    let mut state = before(trigger, planned, shape, position(first));
    let _the_rest_cannot_follow =
        records.iter().enumerate().try_for_each(|(at, appended)| apply(&mut state, appended, usize::from(at == 0)));
    Some(state)
}

/// Folds the events of a record into the state, but for the first `skipped`.
pub(crate) fn apply(run: &mut Run, appended: &Appended, skipped: usize) -> Result<(), Illegal> {
    appended.record.events.iter().skip(skipped).try_for_each(|event| run.apply(position(appended), event))
}

fn position(appended: &Appended) -> Position {
    Position { sequence: appended.sequence, at: appended.record.at }
}
