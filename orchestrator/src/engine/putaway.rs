//! Logs of ended runs go to the depot, so that the stream keeps its bound: those of runs that leave memory.
//!
//! ```text
//! records ─▶ parts in the depot (fsync) ─▶ one message in their place in the stream, which names them
//! ```
//!
//! Of several orchestrators one puts a log away: the one that works on the partition in which the run itself is, so that they share in it. What is
//! another's is known, as it may be one's own when that is gone.
//!
//! **Invariant:** a record leaves the stream in the same write that says where it lies. If anything was appended meanwhile, it does not.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
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

use super::{
    members::{Partition, partition_of_run},
    parts,
    recovery::Reading,
};

/// Runs that wait to be put away, here or by others. Of more, the logs stay in the stream until the next start.
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
    queue: Mutex<Queue>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    runs: VecDeque<RunId>,
    /// Those that another orchestrator puts away.
    others: BTreeSet<RunId>,
    /// What is worked on here; `None` where nobody else may be there.
    owned: Option<BTreeSet<Partition>>,
}

impl Queue {
    fn is_own(&self, run: &RunId) -> bool {
        self.owned.as_ref().is_none_or(|owned| owned.contains(&partition_of_run(run)))
    }
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
        let mut queue = self.queue();
        if queue.runs.len() + queue.others.len() >= LEAVING_MAX {
            return;
        }
        if queue.is_own(&run) {
            queue.runs.push_back(run);
            self.0.more.notify_one();
        } else {
            queue.others.insert(run);
        }
    }

    /// These partitions are worked on here from now on, and no others.
    pub(crate) fn owns(&self, owned: &BTreeSet<Partition>) {
        let mut queue = self.queue();
        queue.owned = Some(owned.clone());
        let Queue { runs, others, .. } = &mut *queue;
        runs.extend(others.extract_if(.., |run| owned.contains(&partition_of_run(run))));
        self.0.more.notify_one();
    }

    /// The run's log lies in the depot.
    pub(crate) fn is_away(&self, run: &RunId) {
        self.queue().others.remove(run);
    }

    fn is_own(&self, run: &RunId) -> bool {
        self.queue().is_own(run)
    }

    async fn next(&self) -> RunId {
        loop {
            let run = self.queue().runs.pop_front();
            match run {
                Some(run) if self.is_own(&run) => return run,
                // It was its own when it came.
                Some(run) => drop(self.queue().others.insert(run)),
                None => self.0.more.notified().await,
            }
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().expect("no holder of this lock panics")
    }
}

/// Puts away the logs of runs that leave memory, for ever; in the name of the orchestrator `name`.
pub(super) async fn put_all_away(leaving: Leaving, name: String, bus: Bus, blobs: Blobs) {
    let mut was_refused = false;
    loop {
        let run = leaving.next().await;
        while let Err(failure) = put_away(&run, &name, &bus, &blobs).await {
            if !leaving.is_own(&run) {
                leaving.push(run);
                break;
            }
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

#[cfg(test)]
mod tests {
    use model::TriggerId;

    use super::*;

    fn run(number: usize) -> RunId {
        RunId::of(&TriggerId::of("test", &number.to_string()))
    }

    fn waiting(leaving: &Leaving) -> BTreeSet<RunId> {
        leaving.queue().runs.iter().cloned().collect()
    }

    #[test]
    fn of_several_orchestrators_each_puts_a_share_away_and_together_all() {
        let halves: [BTreeSet<Partition>; 2] = [(0..128).collect(), (128..=255).collect()];
        let both = [Leaving::default(), Leaving::default()];
        for (leaving, half) in both.iter().zip(&halves) {
            leaving.owns(half);
            (0..100).for_each(|number| leaving.push(run(number)));
        }
        let [one, other] = both.each_ref().map(waiting);
        assert!(one.is_disjoint(&other) && !one.is_empty() && !other.is_empty());
        assert_eq!(one.len() + other.len(), 100);

        // One is gone, after it has put some away.
        let away: Vec<RunId> = other.iter().take(3).cloned().collect();
        for run in &away {
            both[0].is_away(run);
        }
        both[0].owns(&(0..=255).collect());
        assert_eq!(waiting(&both[0]), (0..100).map(run).filter(|run| !away.contains(run)).collect());
    }

    #[tokio::test]
    async fn what_ceases_to_be_its_own_is_left_to_others() {
        let leaving = Leaving::default();
        (0..100).for_each(|number| leaving.push(run(number)));
        assert_eq!(waiting(&leaving).len(), 100, "alone, it puts all away");
        let half: BTreeSet<Partition> = (0..128).collect();
        leaving.owns(&half);
        let own = (0..100).map(run).filter(|run| half.contains(&partition_of_run(run))).count();
        for _ in 0..own {
            assert!(half.contains(&partition_of_run(&leaving.next().await)));
        }
        assert!(futures_util::FutureExt::now_or_never(leaving.next()).is_none());
        assert_eq!(leaving.queue().others.len(), 100 - own);
    }
}
