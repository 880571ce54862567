//! Logs of ended runs go to the depot, so that the stream keeps its bound: those of runs that leave memory.
//!
//! ```text
//! records ─▶ parts in the depot (fsync) ─▶ one message in their place in the stream, which names them
//! ```
//!
//! **Invariant:** a record leaves the stream in the same write that says where it lies. If anything was appended meanwhile, it does not.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use blob::{BlobError, Blobs};
use bytes::Bytes;
use eventbus::{AppendError, Bus, BusError};
use model::{
    RunId, Timestamp,
    event::archive::{ARCHIVE_SCHEMA, ArchivedLog},
};
use service::{clock, supervisor::chain};
use tokio::{sync::Notify, time::sleep};
use tracing::{debug, warn};

use super::{parts, recovery::Reading};

/// Runs that wait to be put away. Of more, the logs stay in the stream until the next start.
const LEAVING_MAX: usize = 100_000;
/// Before a log is tried again that the depot or the bus did not take.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
/// The same, where the stream lets no log go: whoever sets it up may mend that.
const REFUSED_PAUSE: Duration = Duration::from_mins(1);

/// Ended runs that have left memory. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Leaving(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    runs: Mutex<VecDeque<RunId>>,
    more: Notify,
}

/// Why a log was not put away.
#[derive(Debug, thiserror::Error)]
enum PutAwayError {
    #[error("the log cannot be read")]
    Read(#[from] BusError),
    #[error("the depot does not take the log")]
    Depot(#[from] BlobError),
    #[error("the stream does not take what stands for the log")]
    Append(#[from] AppendError),
}

impl Leaving {
    pub(crate) fn push(&self, run: RunId) {
        let mut runs = self.0.runs.lock().expect("no holder of this lock panics");
        if runs.len() < LEAVING_MAX {
            runs.push_back(run);
            self.0.more.notify_one();
        }
    }

    async fn next(&self) -> RunId {
        loop {
            let run = self.0.runs.lock().expect("no holder of this lock panics").pop_front();
            match run {
                Some(run) => return run,
                None => self.0.more.notified().await,
            }
        }
    }
}

/// Puts away the logs of runs that leave memory, for ever; in the name of the orchestrator `name`.
pub(super) async fn put_all_away(leaving: Leaving, name: String, bus: Bus, blobs: Blobs) {
    let mut was_refused = false;
    loop {
        let run = leaving.next().await;
        while let Err(failure) = put_away(&run, &name, &bus, &blobs).await {
            let is_refused = matches!(failure, PutAwayError::Append(AppendError::Bus(BusError::Refused { .. })));
            if is_refused && !was_refused {
                warn!(error = chain(&failure), "the stream lets no log go, as an older Otto made it: it keeps all of them");
            } else if !is_refused {
                warn!(%run, error = chain(&failure), "the run's log stays in the stream for now");
            }
            was_refused = is_refused;
            sleep(if is_refused { REFUSED_PAUSE } else { RETRY_PAUSE }).await;
        }
    }
}

/// Leaves a log alone that is not sound, has not ended, or lies in the depot.
async fn put_away(run: &RunId, name: &str, bus: &Bus, blobs: &Blobs) -> Result<(), PutAwayError> {
    let records = bus.run_log(run).await?;
    let mut reading = Reading::default();
    for record in &records {
        reading.take(record);
    }
    if let Some(error) = reading.wrong() {
        warn!(%run, error = chain(error), "a log that is damaged stays in the stream");
        return Ok(());
    }
    let (tail, archived) = (reading.tail(), reading.archived());
    let Some(previous) = tail.digest.filter(|_| reading.has_ended() && records.len() > usize::from(archived.is_some())) else {
        return Ok(());
    };
    let (from, mut segments) = archived.map_or_else(Default::default, |(sequence, archived)| (sequence, archived.segments.clone()));
    let late = records.partition_point(|record| record.sequence < from);
    for (part, bytes) in parts::pack(&records[late..]) {
        let stored = blobs.put(bytes).await?;
        if stored != part.bytes {
            return Err(BlobError::Damaged { expected: part.bytes, actual: stored }.into());
        }
        segments.push(part);
    }
    let at = Timestamp(clock::unix_ms());
    let archived = ArchivedLog { schema: ARCHIVE_SCHEMA, previous, actor: name.to_owned(), at, segments };
    let bytes = Bytes::from(serde_json::to_vec(&archived).expect("it has text keys only"));
    match bus.append_instead(run, tail.sequence, bytes).await {
        Ok(_sequence) => {
            debug!(%run, records = records.len(), "the run's log lies in the depot");
            Ok(())
        }
        // Somebody spoke of it after all: it leaves memory once more, later.
        Err(AppendError::Conflict { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
