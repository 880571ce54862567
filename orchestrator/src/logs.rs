//! The output of running attempts: a bounded buffer for whoever comes late, and a live feed. The whole output is in the depot afterwards.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
};

use eventbus::{Bus, BusError, Pattern, Subscription};
use model::{
    AgentName,
    protocol::{agent::Lease, log::LogChunk},
};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tracing::{debug, trace, warn};

use crate::{engine::WATERFALL, runs::Runs};

/// Bytes of one attempt's output that are kept for late followers, with [`CHUNK_BYTES`] for each chunk. What came before is a marked gap
/// until the log is stored.
pub const BUFFER_BYTES_MAX: usize = 1024 * 1024;
/// What a chunk takes beside its bytes, about: output that comes byte by byte would fill memory otherwise.
pub const CHUNK_BYTES: usize = 256;
/// Attempts whose output is buffered at once; the one whose output began first makes room.
pub const BUFFERED_ATTEMPTS_MAX: usize = 256;
/// Chunks that a slow follower may be behind before it sees a gap.
const FOLLOWED_CHUNKS_MAX: usize = 8_192;

/// Output as it comes. Clones share it.
#[derive(Debug, Clone)]
pub struct LogHub {
    buffers: Arc<Mutex<Buffers>>,
    live: broadcast::Sender<Arc<LogChunk>>,
}

#[derive(Debug, Default)]
struct Buffers {
    by_lease: BTreeMap<Lease, Buffer>,
    oldest_first: VecDeque<Lease>,
}

#[derive(Debug, Default)]
struct Buffer {
    chunks: VecDeque<Arc<LogChunk>>,
    bytes: usize,
}

impl Default for LogHub {
    fn default() -> Self {
        Self { buffers: Arc::default(), live: broadcast::channel(FOLLOWED_CHUNKS_MAX).0 }
    }
}

impl LogHub {
    /// The chunks of an attempt that are still buffered, oldest first. The first one's offset says how much is missing before it.
    pub fn buffered(&self, lease: &Lease) -> Vec<Arc<LogChunk>> {
        let buffers = self.buffers.lock().expect("no holder of this lock panics");
        buffers.by_lease.get(lease).map_or_else(Vec::new, |buffer| buffer.chunks.iter().cloned().collect())
    }

    /// The chunks of all attempts from now on.
    pub fn follow(&self) -> broadcast::Receiver<Arc<LogChunk>> {
        self.live.subscribe()
    }

    /// Takes chunks from the bus until `token` is cancelled. Only what the holder of the attempt says counts.
    pub async fn collect(self, mut subscription: Subscription, runs: Runs, token: CancellationToken) -> Result<(), BusError> {
        loop {
            let message = tokio::select! {
                () = token.cancelled() => return Ok(()),
                message = subscription.next() => message.ok_or(BusError::Closed)?,
            };
            match LogChunk::decode(&message.payload) {
                Ok(chunk) if speaks_for(&runs, message.subject.agent().as_ref(), &chunk.header.lease) => self.take(chunk),
                Ok(chunk) => {
                    let attempt = &chunk.header.lease.attempt;
                    debug!(subject = %message.subject, %attempt, "output of an attempt that its sender does not hold");
                }
                Err(error) => warn!(subject = %message.subject, %error, "not a chunk of output"),
            }
        }
    }

    /// Listens to the agents' output.
    pub async fn subscribe(bus: &Bus) -> Result<Subscription, BusError> {
        bus.subscribe(Pattern::logs()).await
    }

    pub(crate) fn take(&self, chunk: LogChunk) {
        trace!(target: WATERFALL, point = "output heard", attempt = %chunk.header.lease.attempt, stream = ?chunk.header.mark.stream);
        let chunk = Arc::new(chunk);
        self.buffers.lock().expect("no holder of this lock panics").push(chunk.clone());
        let _nobody_follows = self.live.send(chunk);
    }
}

impl Buffers {
    fn push(&mut self, chunk: Arc<LogChunk>) {
        let lease = chunk.header.lease.clone();
        if !self.by_lease.contains_key(&lease) {
            self.oldest_first.push_back(lease.clone());
            if self.oldest_first.len() > BUFFERED_ATTEMPTS_MAX
                && let Some(oldest) = self.oldest_first.pop_front()
            {
                self.by_lease.remove(&oldest);
            }
        }
        let buffer = self.by_lease.entry(lease).or_default();
        buffer.bytes += chunk.bytes.len() + CHUNK_BYTES;
        buffer.chunks.push_back(chunk);
        while buffer.bytes > BUFFER_BYTES_MAX
            && let Some(dropped) = buffer.chunks.pop_front()
        {
            buffer.bytes -= dropped.bytes.len() + CHUNK_BYTES;
        }
    }
}

fn speaks_for(runs: &Runs, agent: Option<&AgentName>, lease: &Lease) -> bool {
    let Some(snapshot) = runs.get(&lease.attempt.run) else { return false };
    snapshot.run.attempt_of(lease).is_some_and(|(_, attempt)| Some(&attempt.agent) == agent)
}
