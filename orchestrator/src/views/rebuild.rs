//! The views made anew from all logs, also of runs that are not in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use blob::Blobs;
use eventbus::{Bus, BusError};
use model::RunId;
use service::supervisor::chain;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::{
    ViewError, Views,
    database::{Database, Place},
};
use crate::{
    Orchestrator,
    engine::{
        plans::Plans,
        recovery::{Reading, Reloaded},
    },
};

/// Why the views were not made anew.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The logs cannot be read.
    #[error("the logs cannot be read")]
    Bus(#[from] BusError),
    /// What the logs name cannot be read now.
    #[error("what the logs name cannot be read now")]
    Named(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The views cannot be written.
    #[error(transparent)]
    Views(#[from] ViewError),
}

/// Between two tries to read the logs.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
/// How often it is looked whether the views are to be made anew.
const LOOK_PAUSE: Duration = Duration::from_secs(10);

/// Makes the views of a file anew, and gives how many runs there are; `None` where an orchestrator has them, which does it itself within some
/// seconds.
pub async fn rebuild_file(file: &Path, bus: &Bus, blobs: &Blobs) -> Result<Option<usize>, RebuildError> {
    let place = Place::File(file.to_owned());
    let Some(opened) = Database::open_alone(&place) else {
        Database::ask_anew(&place).map_err(ViewError::from)?;
        return Ok(None);
    };
    drop(opened.map_err(ViewError::from)?);
    let views = Views::open(file.to_owned());
    Ok(Some(rebuild(&views, bus, &Plans::new(bus.clone(), blobs.clone())).await?))
}

/// Keeps the views whole: they are made anew where they are not what the logs say up to `end`, and whenever something was not taken up.
pub(crate) async fn keep(orchestrator: &Orchestrator, end: u64) {
    let views = orchestrator.runs.views();
    let mut is_whole = views.is_whole(end).await.unwrap_or(false);
    loop {
        views.say_whole(is_whole);
        while !is_whole {
            match rebuild(views, &orchestrator.bus, &orchestrator.plans).await {
                Ok(runs) => {
                    info!(runs, "the lists of runs are made anew");
                    orchestrator.runs.show_again();
                    is_whole = true;
                    views.say_whole(true);
                }
                Err(error) => {
                    warn!(error = service::supervisor::chain(&error), "the lists of runs cannot be made anew, and will be later");
                    sleep(RETRY_PAUSE).await;
                }
            }
        }
        // Another process may have asked for it.
        is_whole = match timeout(LOOK_PAUSE, views.stale()).await {
            Ok(()) => false,
            Err(_elapsed) => views.is_whole(u64::MAX).await.unwrap_or(true),
        };
    }
}

/// Reads all logs, and gives how many runs there are. What happens meanwhile is taken up by whoever appends it.
pub(crate) async fn rebuild(views: &Views, bus: &Bus, plans: &Plans) -> Result<usize, RebuildError> {
    views.clear().await?;
    let mut stored = bus.run_logs().await?;
    let mut readings: BTreeMap<RunId, Reading> = BTreeMap::new();
    // Nothing that is listed comes after a run's end.
    let mut over: BTreeSet<RunId> = BTreeSet::new();
    let mut count = 0;
    while let Some(record) = stored.recv().await {
        let record = record?;
        if over.contains(&record.run) {
            continue;
        }
        let reading = readings.entry(record.run.clone()).or_default();
        reading.take(&record);
        if reading.has_ended() {
            let reading = readings.remove(&record.run).unwrap_or_default();
            let outcome = reading.finish(&record.run, plans).await;
            count += 1;
            show(views, &record.run, outcome).await?;
            over.insert(record.run);
        }
    }
    for (run, reading) in readings {
        let outcome = reading.finish(&run, plans).await;
        count += 1;
        show(views, &run, outcome).await?;
    }
    views.set_whole().await?;
    Ok(count)
}

async fn show(views: &Views, run: &RunId, outcome: Reloaded) -> Result<(), RebuildError> {
    let (state, records, damaged) = match outcome {
        Reloaded::Run(loaded) => {
            let (state, records) = loaded.into_parts();
            (state, records, false)
        }
        Reloaded::Damaged(damaged) => match damaged.seen {
            Some((state, records)) => (state, records, true),
            None => return Ok(()),
        },
        Reloaded::Missing => return Ok(()),
        Reloaded::Later(later) if later.reason.is_lasting() => {
            warn!(%run, error = chain(&later.reason), "the run is not listed");
            return Ok(());
        }
        Reloaded::Later(later) => return Err(RebuildError::Named(Box::new(later.reason))),
    };
    Ok(views.take_waiting(Arc::new(state), records, damaged).await?)
}
