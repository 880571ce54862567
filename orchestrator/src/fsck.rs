//! Looks whether all that runs are made of is there and as it was: the chains of their logs, the parts of those that lie in the depot, their plans,
//! and the bytes that they name. Nothing is changed.

use std::collections::BTreeMap;

use blob::{BlobError, Blobs};
use eventbus::{Bus, BusError};
use model::{
    Digest, RunId,
    event::run::{Outputs, Planned, RunEvent, StoredLog},
    planning::Text,
    trigger::Trigger,
};
use serde::Serialize;
use service::supervisor::chain;

use crate::{
    engine::{
        LogError, PlanningError,
        plans::Plans,
        recovery::{LaterReason, Reading, Reloaded},
    },
    runs::Appended,
};

/// Findings that are told one by one; all are counted.
const FINDINGS_MAX: usize = 1_000;

/// How closely bytes are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Whether they are there.
    Named,
    /// Whether they are what their digest says: each is read.
    Bytes,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Runs that were looked at.
    pub runs: usize,
    /// Those of them that have not ended.
    pub open: usize,
    /// Those whose log lies in the depot.
    pub archived: usize,
    /// Records of all their logs.
    pub records: usize,
    /// Different bytes in the depot that they name.
    pub blobs: usize,
    /// Logs that must not be run upon.
    pub damaged: usize,
    /// Bytes that are gone or damaged.
    pub missing: usize,
    /// What could not be looked at now.
    pub unchecked: usize,
    /// The first of it.
    pub findings: Vec<Finding>,
}

/// Something that is not as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Whose it is.
    pub run: RunId,
    /// What it is.
    pub kind: Kind,
    /// What is wrong with it.
    pub why: String,
    /// What can be done about it.
    pub help: String,
}

/// What is not as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The run's log.
    Log,
    /// Bytes that it names.
    Bytes {
        /// What they are to the run.
        what: &'static str,
        /// Which.
        digest: Digest,
    },
    /// Not known: it could not be looked at.
    Unchecked,
}

impl Report {
    /// Whether all is there and as it was.
    pub fn is_sound(&self) -> bool {
        self.damaged + self.missing + self.unchecked == 0
    }

    fn add(&mut self, finding: Finding) {
        match finding.kind {
            Kind::Log => self.damaged += 1,
            Kind::Bytes { .. } => self.missing += 1,
            Kind::Unchecked => self.unchecked += 1,
        }
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }
}

/// Looks at every run that the bus has.
pub async fn check(bus: &Bus, blobs: &Blobs, depth: Depth) -> Result<Report, BusError> {
    let mut checker = Checker { plans: Plans::new(bus.clone(), blobs.clone()), depth, report: Report::default(), seen: BTreeMap::new() };
    let mut stored = bus.run_logs().await?;
    let mut readings: BTreeMap<RunId, Reading> = BTreeMap::new();
    // Of those that have ended, no more than the end of the chain stays in memory.
    let mut late: BTreeMap<RunId, Reading> = BTreeMap::new();
    while let Some(record) = stored.recv().await {
        let record = record?;
        if let Some(reading) = late.get_mut(&record.run) {
            reading.take(&record);
            continue;
        }
        let reading = readings.entry(record.run.clone()).or_default();
        reading.take(&record);
        if reading.has_ended() && reading.wrong().is_none() {
            let reading = readings.remove(&record.run).unwrap_or_default();
            let tail = reading.tail();
            checker.run(&record.run, reading).await;
            late.insert(record.run, Reading::after(tail));
        }
    }
    for (run, reading) in readings {
        checker.report.open += usize::from(reading.wrong().is_none());
        checker.run(&run, reading).await;
    }
    for (run, reading) in late {
        checker.late(&run, reading).await;
    }
    checker.report.blobs = checker.seen.len();
    Ok(checker.report)
}

struct Checker {
    plans: Plans,
    depth: Depth,
    report: Report,
    /// What was found of bytes that were looked at.
    seen: BTreeMap<Digest, Result<(), String>>,
}

impl Checker {
    async fn run(&mut self, run: &RunId, reading: Reading) {
        self.report.runs += 1;
        self.report.archived += usize::from(reading.is_put_away());
        self.whole(run, reading).await;
    }

    /// What was said of a run after its end, or stands for all of it by now.
    async fn late(&mut self, run: &RunId, reading: Reading) {
        if reading.is_put_away() {
            return self.whole(run, reading).await;
        }
        self.parts(run, &reading).await;
        if let Some(error) = reading.wrong() {
            self.damaged(run, error);
        }
        self.records(run, &reading.into_records()).await;
    }

    async fn parts(&mut self, run: &RunId, reading: &Reading) {
        let parts = reading.archived().map(|(_, archived)| archived.segments.clone()).unwrap_or_default();
        for part in parts {
            self.bytes(run, "a part of its log", &part.bytes).await;
        }
    }

    async fn whole(&mut self, run: &RunId, reading: Reading) {
        self.parts(run, &reading).await;
        match reading.finish(run, &self.plans).await {
            Reloaded::Run(loaded) => self.records(run, &loaded.into_parts().1).await,
            Reloaded::Damaged(damaged) => self.damaged(run, &damaged.error),
            Reloaded::Missing => {}
            Reloaded::Later(later) => match later.reason {
                LaterReason::Plan(PlanningError::Blob(error @ (BlobError::Missing(_) | BlobError::Damaged { .. }))) => {
                    let (BlobError::Missing(digest) | BlobError::Damaged { expected: digest, .. }) = error else { return };
                    self.bytes(run, "its plan", &digest).await;
                }
                reason @ (LaterReason::Bus(_) | LaterReason::Plan(_) | LaterReason::Depot(_)) => {
                    let help = "start what does not answer, and look again".to_owned();
                    self.report.add(Finding { run: run.clone(), kind: Kind::Unchecked, why: chain(&reason), help });
                }
            },
        }
    }

    fn damaged(&mut self, run: &RunId, error: &LogError) {
        self.report.add(Finding { run: run.clone(), kind: Kind::Log, why: chain(error), help: error.help().to_owned() });
    }

    async fn records(&mut self, run: &RunId, records: &[std::sync::Arc<Appended>]) {
        self.report.records += records.len();
        for event in records.iter().flat_map(|appended| &appended.record.events) {
            for (what, digest) in named(event) {
                self.bytes(run, what, &digest).await;
            }
        }
    }

    async fn bytes(&mut self, run: &RunId, what: &'static str, digest: &Digest) {
        let found = if let Some(found) = self.seen.get(digest) {
            found.clone()
        } else {
            let found = self.look(run, digest).await;
            self.seen.insert(*digest, found.clone());
            found
        };
        if let Err(why) = found {
            let help = "bring the depot's bytes back from a copy".to_owned();
            let kind = Kind::Bytes { what, digest: *digest };
            self.report.add(Finding { run: run.clone(), kind, why: format!("{what}: {why}"), help });
        }
    }

    async fn look(&mut self, run: &RunId, digest: &Digest) -> Result<(), String> {
        let blobs = self.plans.blobs();
        let looked = match self.depth {
            Depth::Named => blobs.has(digest).await.and_then(|is_there| if is_there { Ok(()) } else { Err(BlobError::Missing(*digest)) }),
            Depth::Bytes => read(blobs, digest).await,
        };
        match looked {
            Ok(()) => Ok(()),
            Err(error @ (BlobError::Missing(_) | BlobError::Damaged { .. })) => Err(chain(&error)),
            Err(error) => {
                let help = "start what does not answer, and look again".to_owned();
                self.report.add(Finding { run: run.clone(), kind: Kind::Unchecked, why: chain(&error), help });
                Ok(())
            }
        }
    }
}

/// Reads bytes of any size, which checks them.
async fn read(blobs: &Blobs, digest: &Digest) -> Result<(), BlobError> {
    let folder = tempfile::tempdir();
    let folder = folder.map_err(|source| BlobError::Disk { doing: "make", path: std::env::temp_dir(), source })?;
    blobs.get_file(digest, &folder.path().join("bytes")).await
}

/// What a run cannot be shown or run without. Caches are not among it: they may go at any time.
#[expect(clippy::wildcard_enum_match_arm, reason = "other events name no bytes; a kind that does is found when it is missing")]
fn named(event: &RunEvent) -> Vec<(&'static str, Digest)> {
    match event {
        RunEvent::RunAccepted { trigger, planned } => {
            let Trigger { pipeline, source, listing, changed, lock, .. } = trigger;
            let text = |text: &Text| match text {
                Text::Depot(digest) => Some(*digest),
                Text::Inline(_) => None,
            };
            let mut named = vec![
                ("its pipeline file", text(pipeline)),
                ("its source", *source),
                ("the list of its files", *listing),
                ("the list of what changed", *changed),
                ("its lock file", lock.as_ref().and_then(text)),
            ];
            if let Planned::Plan { digest, libraries, .. } = planned {
                named.push(("its plan", Some(*digest)));
                named.extend(libraries.values().map(|library| ("a step library", Some(*library))));
            }
            named.into_iter().filter_map(|(what, digest)| Some((what, digest?))).collect()
        }
        RunEvent::StageFinished { outputs, .. } | RunEvent::StageReused { outputs, .. } => {
            let Outputs { artifacts, .. } = outputs;
            artifacts.values().map(|tree| ("an artifact", tree.archive)).collect()
        }
        RunEvent::StageLogStored { log: StoredLog { segments, .. }, .. } => {
            segments.iter().flat_map(|segment| [("output", segment.bytes), ("the index of output", segment.index)]).collect()
        }
        _ => Vec::new(),
    }
}
