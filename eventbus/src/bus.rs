//! The handle of the bus, and what a backend must do.

use std::{fmt, pin::Pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{FutureExt as _, Stream, StreamExt as _};
use model::{Digest, RunId, Timestamp, trigger::Trigger};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{sync::mpsc, time::Instant};

use crate::{Pattern, Subject};

/// The most bytes of one message: nats-server's `max_payload` of 1 MiB, less room for the headers, which it counts, too.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024 - 1024;
/// The most bytes of a trigger: the first record of its run carries it, with more beside it.
pub const TRIGGER_BYTES_MAX: usize = MESSAGE_BYTES_MAX / 2;
/// Messages that wait in one subscription. What comes when it is full is dropped: it is soft, and sent again.
pub const SUBSCRIPTION_MESSAGES_MAX: usize = 16 * 1024;
/// How long an append is tried before the caller is told that its outcome is unknown.
pub const APPEND_DEADLINE: Duration = Duration::from_secs(10);
/// When a trigger is delivered again whose consumer is gone without a word: a killed orchestrator's triggers must go on within 10 s.
/// A delivery that is still held does not come again, however long it takes.
pub const TRIGGER_ACK_WAIT: Duration = Duration::from_secs(6);
/// When a trigger is delivered again that its consumer dropped undone: soon, but not in a hot loop where it fails each time.
pub const TRIGGER_RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Why the bus did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The bus is not there, or does not answer. The same may succeed later.
    #[error("the bus does not answer: {doing}")]
    Unavailable {
        /// What was tried.
        doing: String,
        /// What the backend says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The bus answered, and refused.
    #[error("the bus refused: {doing}")]
    Refused {
        /// What was tried.
        doing: String,
        /// What the backend says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Larger than the bus takes: it belongs into the depot.
    #[error("a message of {bytes} bytes for {subject} is over the bus's {limit}")]
    TooLarge {
        /// Where it was to go.
        subject: Subject,
        /// How large it is.
        bytes: usize,
        /// How large it may be.
        limit: usize,
    },
    /// A message does not read as what its subject carries.
    #[error("a message on {subject} does not read as what it should be")]
    Malformed {
        /// Where it came from.
        subject: Subject,
        /// What serde says.
        #[source]
        source: serde_json::Error,
    },
    /// Nobody answers this request.
    #[error("nobody answers on {subject}")]
    NoResponder {
        /// Where it was asked.
        subject: Subject,
    },
    /// The bus is shutting down.
    #[error("the bus is closed")]
    Closed,
}

/// Why a record was not appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Somebody else appended first: read the log again.
    #[error("the log of {run} has grown: it ends at sequence {last}, not {expected}")]
    Conflict {
        /// The run.
        run: RunId,
        /// The sequence that the caller knew.
        expected: u64,
        /// The sequence of the last record.
        last: u64,
    },
    /// Whether it was stored is not known; read the log before deciding anything else.
    #[error("the append to the log of {run} has no known outcome")]
    Unknown {
        /// The run.
        run: RunId,
        /// The last error.
        #[source]
        source: BusError,
    },
    /// It was not stored, and will not be.
    #[error(transparent)]
    Bus(#[from] BusError),
}

/// A message that arrived.
pub struct Message {
    /// Where it was published.
    pub subject: Subject,
    /// The bytes.
    pub payload: Bytes,
    pub(crate) reply: Option<Reply>,
}

pub(crate) type Reply = Box<dyn FnOnce(Bytes) -> futures_util::future::BoxFuture<'static, Result<(), BusError>> + Send + Sync>;

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message").field("subject", &self.subject).field("bytes", &self.payload.len()).finish_non_exhaustive()
    }
}

impl Message {
    /// Reads the payload.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, BusError> {
        serde_json::from_slice(&self.payload).map_err(|source| BusError::Malformed { subject: self.subject.clone(), source })
    }

    /// Answers a request. Does nothing if the message is none.
    pub async fn reply<T: Serialize>(self, answer: &T) -> Result<(), BusError> {
        let Some(reply) = self.reply else { return Ok(()) };
        reply(encode(&self.subject, answer)?).await
    }
}

/// What arrives, polled by whoever waits for it: no task of its own stands between.
pub(crate) type Arriving<T> = Pin<Box<dyn Stream<Item = T> + Send + Sync>>;

/// Messages of one pattern, in the order in which each publisher sent them.
pub struct Subscription {
    pub(crate) messages: Arriving<Message>,
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").finish_non_exhaustive()
    }
}

impl Subscription {
    /// The next message; `None` when the bus is closed. Cancel safe.
    pub async fn next(&mut self) -> Option<Message> {
        self.messages.next().await
    }

    /// A message that is already here.
    pub fn try_next(&mut self) -> Option<Message> {
        self.messages.next().now_or_never().flatten()
    }
}

/// One record of a run's log, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// The run.
    pub run: RunId,
    /// Its place in the stream of all run logs.
    pub sequence: u64,
    /// The JSON of a [`model::event::run::RunRecord`].
    pub bytes: Bytes,
}

/// A trigger that is stored and not done with.
#[async_trait]
pub trait TriggerAck: Send + Sync {
    /// The run exists: do not deliver the trigger again.
    async fn done(self: Box<Self>) -> Result<(), BusError>;
}

/// A trigger, delivered until it is said to be [`TriggerDelivery::done`].
pub struct TriggerDelivery {
    /// The trigger, or why the stored bytes are none.
    pub trigger: Result<Trigger, BusError>,
    /// When it was stored, where that is known.
    pub stored_at: Option<Timestamp>,
    pub(crate) ack: Box<dyn TriggerAck>,
}

impl fmt::Debug for TriggerDelivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TriggerDelivery").field("trigger", &self.trigger).finish_non_exhaustive()
    }
}

/// Nobody waits for the word.
struct NoAck;

#[async_trait]
impl TriggerAck for NoAck {
    async fn done(self: Box<Self>) -> Result<(), BusError> {
        Ok(())
    }
}

impl TriggerDelivery {
    /// A trigger that somebody else was delivered, and says again until its run exists.
    pub fn passed_on(trigger: Trigger) -> Self {
        Self { trigger: Ok(trigger), stored_at: None, ack: Box::new(NoAck) }
    }

    /// The run exists: do not deliver the trigger again.
    pub async fn done(self) -> Result<(), BusError> {
        self.ack.done().await
    }
}

/// Stored triggers as they come, each to one orchestrator; what is not done with is delivered again: [`TRIGGER_RETRY_PAUSE`] after a
/// delivery was dropped, at most [`TRIGGER_ACK_WAIT`] after all of this was dropped.
pub struct Triggers {
    pub(crate) deliveries: Arriving<TriggerDelivery>,
}

impl fmt::Debug for Triggers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Triggers").finish_non_exhaustive()
    }
}

impl Triggers {
    /// The next trigger; `None` when the bus is closed. Cancel safe.
    pub async fn next(&mut self) -> Option<TriggerDelivery> {
        self.deliveries.next().await
    }
}

/// What storing one message once came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// It is stored at this sequence.
    At(u64),
    /// It is not stored: the subject's last sequence is not the one that was expected.
    WrongLastSequence,
}

/// What a kind of bus must do. The contract is the test suite in `tests/it/contract.rs`.
#[async_trait]
pub trait Backend: fmt::Debug + Send + Sync {
    /// Sends a soft message.
    async fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), BusError>;
    /// Asks and waits for one answer.
    async fn request(&self, subject: &Subject, payload: Bytes, timeout: Duration) -> Result<Bytes, BusError>;
    /// Listens from now on: a message that is published after this returns arrives. In a `group` each message goes to one member.
    async fn subscribe(&self, pattern: &Pattern, group: Option<&'static str>) -> Result<Subscription, BusError>;
    /// Stores a message if the last sequence of its subject is `last` (0: there is none yet). One try: an error leaves open whether it was stored.
    async fn store(&self, subject: &Subject, payload: Bytes, last: u64) -> Result<Stored, BusError>;
    /// The same, and all earlier messages of its subject are gone: the message stands for them. If the bus ends abruptly, some of them may be
    /// there again; never are they gone without it.
    async fn store_instead(&self, subject: &Subject, _payload: Bytes, _last: u64) -> Result<Stored, BusError> {
        Err(BusError::Refused { doing: format!("store to {subject}"), source: "this bus keeps everything".into() })
    }
    /// The last message of a durable subject, asked of the stream's leader.
    async fn last(&self, subject: &Subject) -> Result<Option<(u64, Bytes)>, BusError>;
    /// All records of one run.
    async fn run_log(&self, run: &RunId) -> Result<Vec<StoredRecord>, BusError>;
    /// All records of all runs that are stored now, oldest first; the channel closes after the last, or after an error. Of a log that is rolled up
    /// meanwhile, what stands for it is read, and before that perhaps its beginning; some of what is stored meanwhile is read, too.
    async fn run_logs(&self) -> Result<mpsc::Receiver<Result<StoredRecord, BusError>>, BusError>;
    /// The next records of all runs after a sequence, oldest first, as many as come at once, and the sequence of the last one that there is.
    async fn run_logs_after(&self, sequence: u64) -> Result<(Vec<StoredRecord>, u64), BusError>;
    /// Stored triggers.
    async fn triggers(&self) -> Result<Triggers, BusError>;
    /// Whether the bus is there now, as far as this end knows.
    fn is_connected(&self) -> bool;
}

/// The bus. Clones share one connection.
#[derive(Debug, Clone)]
pub struct Bus(Arc<dyn Backend>);

fn encode<T: Serialize>(subject: &Subject, message: &T) -> Result<Bytes, BusError> {
    let bytes = serde_json::to_vec(message).expect("messages have text keys only");
    within_limit(subject, Bytes::from(bytes))
}

fn within_limit(subject: &Subject, bytes: Bytes) -> Result<Bytes, BusError> {
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(BusError::TooLarge { subject: subject.clone(), bytes: bytes.len(), limit: MESSAGE_BYTES_MAX });
    }
    Ok(bytes)
}

impl Bus {
    /// The bus of this backend.
    pub fn new(backend: impl Backend + 'static) -> Self {
        Self(Arc::new(backend))
    }

    /// What does the work, for a backend that wraps another: failures are injected so.
    pub fn backend(&self) -> Arc<dyn Backend> {
        Arc::clone(&self.0)
    }

    /// Sends a soft message.
    pub async fn publish<T: Serialize + Sync>(&self, subject: &Subject, message: &T) -> Result<(), BusError> {
        self.0.publish(subject, encode(subject, message)?).await
    }

    /// Sends the same soft message to each of these subjects.
    pub async fn publish_to_each<T: Serialize + Sync>(&self, subjects: &[Subject], message: &T) -> Result<(), BusError> {
        let Some(first) = subjects.first() else { return Ok(()) };
        let payload = encode(first, message)?;
        for subject in subjects {
            self.0.publish(subject, payload.clone()).await?;
        }
        Ok(())
    }

    /// Sends a soft message that is no JSON.
    pub async fn publish_bytes(&self, subject: &Subject, payload: Bytes) -> Result<(), BusError> {
        self.0.publish(subject, within_limit(subject, payload)?).await
    }

    /// Asks and waits for one answer.
    pub async fn request<Q: Serialize + Sync, A: DeserializeOwned>(
        &self,
        subject: &Subject,
        question: &Q,
        timeout: Duration,
    ) -> Result<A, BusError> {
        let answer = self.0.request(subject, encode(subject, question)?, timeout).await?;
        serde_json::from_slice(&answer).map_err(|source| BusError::Malformed { subject: subject.clone(), source })
    }

    /// Listens from now on; every listener gets every message.
    pub async fn subscribe(&self, pattern: impl Into<Pattern> + Send) -> Result<Subscription, BusError> {
        self.0.subscribe(&pattern.into(), None).await
    }

    /// Listens from now on in the group that the table has for what is listened to; each message goes to one member.
    pub async fn subscribe_group(&self, pattern: impl Into<Pattern> + Send) -> Result<Subscription, BusError> {
        let pattern = pattern.into();
        let group = pattern.channel().and_then(|channel| channel.group).expect("whoever listens in a group has one in the table");
        self.0.subscribe(&pattern, Some(group)).await
    }

    /// Stores a trigger. Storing it again, however much later, changes nothing.
    pub async fn store_trigger(&self, trigger: &Trigger) -> Result<(), BusError> {
        let subject = Subject::trigger(&trigger.id);
        let payload = encode(&subject, trigger)?;
        if payload.len() > TRIGGER_BYTES_MAX {
            return Err(BusError::TooLarge { subject, bytes: payload.len(), limit: TRIGGER_BYTES_MAX });
        }
        let deadline = Instant::now() + APPEND_DEADLINE;
        loop {
            match self.0.store(&subject, payload.clone(), 0).await {
                Ok(Stored::At(_) | Stored::WrongLastSequence) => return Ok(()),
                Err(error @ BusError::Unavailable { .. }) if Instant::now() >= deadline => return Err(error),
                Err(BusError::Unavailable { .. }) => tokio::time::sleep(RETRY_PAUSE).await,
                Err(error) => return Err(error),
            }
        }
    }

    /// Appends a record to a run's log, after the record at sequence `last` (0: it is the first), and gives its sequence.
    ///
    /// This is the only way to append. Where the outcome of a try is not known, the log's tail is read back and compared, so the record is
    /// stored once, or the caller learns that it must read the log again.
    pub async fn append(&self, run: &RunId, last: u64, record: Bytes) -> Result<u64, AppendError> {
        self.store_record(run, last, record, false).await
    }

    /// The same, with a record that stands for all before it: those are gone from the log when this returns. After a crash of the bus some of them
    /// may be before it once more, so who reads a log passes over what is before such a record.
    pub async fn append_instead(&self, run: &RunId, last: u64, record: Bytes) -> Result<u64, AppendError> {
        self.store_record(run, last, record, true).await
    }

    async fn store_record(&self, run: &RunId, last: u64, record: Bytes, is_instead: bool) -> Result<u64, AppendError> {
        let subject = Subject::run(run);
        let record = within_limit(&subject, record)?;
        let digest = Digest::of(&record);
        let deadline = Instant::now() + APPEND_DEADLINE;
        loop {
            let stored = if is_instead {
                self.0.store_instead(&subject, record.clone(), last).await
            } else {
                self.0.store(&subject, record.clone(), last).await
            };
            let failure = match stored {
                Ok(Stored::At(sequence)) => return Ok(sequence),
                Ok(Stored::WrongLastSequence) => None,
                Err(error @ BusError::Unavailable { .. }) => Some(error),
                Err(error) => return Err(error.into()),
            };
            // An earlier try of this very append may have been stored without our hearing of it.
            let failure = match (self.0.last(&subject).await, failure) {
                (Ok(Some((sequence, bytes))), _) if sequence > last && Digest::of(&bytes) == digest => return Ok(sequence),
                (Ok(tail), failure) => {
                    let tail = tail.map_or(0, |(sequence, _)| sequence);
                    match failure {
                        Some(failure) if tail == last => failure,
                        _ => return Err(AppendError::Conflict { run: run.clone(), expected: last, last: tail }),
                    }
                }
                (Err(error), _) => error,
            };
            if Instant::now() >= deadline {
                return Err(AppendError::Unknown { run: run.clone(), source: failure });
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// All records of one run, oldest first.
    pub async fn run_log(&self, run: &RunId) -> Result<Vec<StoredRecord>, BusError> {
        self.0.run_log(run).await
    }

    /// All records of all runs that are stored now, oldest first; the channel closes after the last, or after an error. Of a log that is rolled up
    /// meanwhile, what stands for it is read, and before that perhaps its beginning; some of what is stored meanwhile is read, too.
    pub async fn run_logs(&self) -> Result<mpsc::Receiver<Result<StoredRecord, BusError>>, BusError> {
        self.0.run_logs().await
    }

    /// The next records of all runs after a sequence, oldest first, as many as come at once, and the sequence of the last one that there is.
    pub async fn run_logs_after(&self, sequence: u64) -> Result<(Vec<StoredRecord>, u64), BusError> {
        self.0.run_logs_after(sequence).await
    }

    /// Whether the bus is there now, as far as this end knows.
    pub fn is_connected(&self) -> bool {
        self.0.is_connected()
    }

    /// Stored triggers.
    pub async fn triggers(&self) -> Result<Triggers, BusError> {
        self.0.triggers().await
    }
}

/// Between two tries of one append.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
