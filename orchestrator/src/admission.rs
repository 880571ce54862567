//! How many runs there may be at once, and whether there is room for more: what is over that is refused before it is accepted.
//!
//! **Invariant:** what was accepted is never refused here. Triggers that were stored elsewhere wait in the stream for their turn.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use blob::Blobs;
use service::supervisor::chain;
use tokio::time::sleep;
use tracing::{info, warn};

/// Runs that have not ended, also those that only wait: each is held in memory, some ten KiB of it.
pub const OPEN_RUNS_MAX: usize = 10_000;
/// Stages of them that wait for an agent or have one: some of the largest plans at once.
pub const ACTIVE_STAGES_MAX: usize = 50_000;
/// Bytes that runs which have begun can still store when new ones are refused.
pub const DEPOT_RESERVE_BYTES: u64 = 256 * 1024 * 1024;
/// How often the depot's room is looked at. What a new run stores meanwhile is far below the reserve.
const LOOK_PAUSE: Duration = Duration::from_secs(2);

/// What may be at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Runs that have not ended.
    pub open_runs: usize,
    /// Stages that wait for an agent or have one.
    pub active_stages: usize,
    /// Bytes that must be free in the depot.
    pub depot_free_bytes: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { open_runs: OPEN_RUNS_MAX, active_stages: ACTIVE_STAGES_MAX, depot_free_bytes: DEPOT_RESERVE_BYTES }
    }
}

/// What there is now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Runs that have not ended.
    pub open_runs: usize,
    /// Stages that wait for an agent or have one.
    pub active_stages: usize,
}

/// Why no run begins now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// Too many runs are open.
    #[error("{open} runs are open, and {max} may be")]
    Runs {
        /// How many there are.
        open: usize,
        /// How many may be.
        max: usize,
    },
    /// Too many stages wait.
    #[error("{active} stages wait for an agent or have one, and {max} may")]
    Stages {
        /// How many there are.
        active: usize,
        /// How many may be.
        max: usize,
    },
    /// The depot's disk is full.
    #[error("less than {reserve} bytes are free on the depot's disk: what has begun needs them")]
    Depot {
        /// How many must be.
        reserve: u64,
    },
}

/// Who is let in; by default, everybody. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Admission {
    bounds: Option<Bounds>,
    is_full: Arc<AtomicBool>,
}

impl Admission {
    pub(crate) fn new(bounds: Option<Bounds>) -> Self {
        Self { bounds, is_full: Arc::default() }
    }

    /// Whether the depot has room.
    pub(crate) fn has_room(&self) -> bool {
        !self.is_full.load(Ordering::Relaxed)
    }

    /// Refuses a new run, beside so many, if there is no room for it.
    pub(crate) fn admit(&self, load: Load) -> Result<(), Full> {
        self.is_below(load)?;
        match self.bounds {
            Some(bounds) if !self.has_room() => Err(Full::Depot { reserve: bounds.depot_free_bytes }),
            Some(_) | None => Ok(()),
        }
    }

    /// The same, of a run whose trigger is stored: the depot's room is not asked for, as it waits for that anyway.
    pub(crate) fn is_below(&self, load: Load) -> Result<(), Full> {
        let Some(bounds) = self.bounds else { return Ok(()) };
        let Load { open_runs: open, active_stages: active } = load;
        if open >= bounds.open_runs {
            return Err(Full::Runs { open, max: bounds.open_runs });
        }
        if active >= bounds.active_stages {
            return Err(Full::Stages { active, max: bounds.active_stages });
        }
        Ok(())
    }

    /// Looks at the depot's room, for ever, if there is a bound. While it does not answer, what was seen last counts.
    pub(crate) async fn watch(self, blobs: Blobs) {
        let Some(bounds) = self.bounds else { return };
        loop {
            match blobs.free_bytes().await {
                Ok(free) => {
                    let is_full = free < bounds.depot_free_bytes;
                    let was_full = self.is_full.swap(is_full, Ordering::Relaxed);
                    if is_full && !was_full {
                        warn!(free, reserve = bounds.depot_free_bytes, "the depot's disk is full: no run begins until there is room");
                    } else if was_full && !is_full {
                        info!(free, "the depot's disk has room again");
                    }
                }
                Err(error) => warn!(error = chain(&error), "the depot does not say how much room it has"),
            }
            sleep(LOOK_PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_at_its_bound_is_named() {
        let admission = Admission::new(Some(Bounds { open_runs: 2, active_stages: 3, depot_free_bytes: 5 }));
        let load = |open_runs, active_stages| Load { open_runs, active_stages };
        assert_eq!(admission.admit(load(1, 2)), Ok(()));
        assert_eq!(admission.admit(load(2, 0)), Err(Full::Runs { open: 2, max: 2 }));
        assert_eq!(admission.admit(load(0, 4)), Err(Full::Stages { active: 4, max: 3 }));
        admission.is_full.store(true, Ordering::Relaxed);
        assert_eq!(admission.admit(load(0, 0)), Err(Full::Depot { reserve: 5 }));
        assert_eq!(admission.is_below(load(0, 0)), Ok(()), "what was accepted waits for room by itself");
    }
}
