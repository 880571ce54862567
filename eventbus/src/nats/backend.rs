//! What a bus must do, done with nats-server.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_nats::{HeaderMap, Request, connection::State, jetstream::stream::LastRawMessageErrorKind};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use model::RunId;
use serde::Deserialize;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    connection::{CALL_DEADLINE, Connection, refused, unavailable},
    reading::{End, Reading, record},
    triggers,
};
use crate::{
    BusError, Message, Pattern, StoredRecord, Subject, Subscription, Triggers,
    bus::{Backend, Reply, Stored},
    subject::Stream,
};

/// How long a soft message waits for its place before the socket. It is the socket's speed that is waited for, not the server's answer.
const PUBLISH_DEADLINE: Duration = Duration::from_secs(2);
/// Records of run logs that are read ahead of whoever folds them.
const RECORDS_AHEAD_MAX: usize = 1024;
/// How often a log is read that is rolled up while it is read: that is done some times in a run's life.
const RUN_LOG_TRIES_MAX: u32 = 5;
/// How long a stream is waited for that is not there yet: whoever sets the streams up may be starting at the same time.
const STREAM_DEADLINE: Duration = Duration::from_secs(10);
/// Between two looks for it.
const STREAM_PAUSE: Duration = Duration::from_millis(50);

/// The subjects of all run logs.
const ALL_RUNS: &str = "runs.*";

/// "Wrong last sequence": the subject's last sequence is another than the expected one.
const WRONG_LAST_SEQUENCE: u64 = 10_071;
/// The same, from where the server says it without the number.
const WRONG_LAST_SEQUENCE_CONSTANT: u64 = 10_164;
/// The header of a message that stands for all earlier ones of its subject, and what it says then.
const ROLL_UP: &str = "Nats-Rollup";
const ROLL_UP_SUBJECT: &str = "sub";
/// The status of what may succeed later.
const SERVICE_UNAVAILABLE: u64 = 503;

/// The backend on nats-server.
#[derive(Debug)]
pub(super) struct Nats {
    connection: Connection,
    /// Those who read all run logs; they end with the backend.
    readers: Mutex<JoinSet<()>>,
}

/// What the server answers to a message for a stream.
#[derive(Debug, Deserialize)]
struct Acknowledgement {
    seq: Option<u64>,
    error: Option<ApiError>,
}

/// An error of JetStream's API.
#[derive(Debug, Deserialize, thiserror::Error)]
#[error("{description} (error {err_code})")]
struct ApiError {
    code: u64,
    err_code: u64,
    #[serde(default)]
    description: String,
}

impl Nats {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection, readers: Mutex::default() }
    }

    /// The end of all run logs, asked of the stream's leader.
    async fn end_of_runs(connection: &Connection) -> Result<End, BusError> {
        let doing = || "the end of all run logs".to_owned();
        let stream = connection.jetstream.get_stream_no_info(Stream::Runs.name()).await.map_err(|error| refused(doing(), error))?;
        let deadline = Instant::now() + STREAM_DEADLINE;
        loop {
            let failure = match connection.during(doing, CALL_DEADLINE, stream.get_info()).await {
                Ok(Ok(info)) => {
                    let sequence = info.state.last_sequence;
                    return Ok(End { sequence, gone: sequence - info.state.messages });
                }
                Ok(Err(error)) => unavailable(doing(), error),
                Err(error) => error,
            };
            if Instant::now() >= deadline {
                return Err(failure);
            }
            sleep(STREAM_PAUSE).await;
        }
    }
}

#[async_trait]
impl Backend for Nats {
    fn is_connected(&self) -> bool {
        self.connection.client.connection_state() == State::Connected
    }

    async fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), BusError> {
        send(&self.connection, subject.as_str().to_owned(), payload).await
    }

    async fn request(&self, subject: &Subject, payload: Bytes, timeout: Duration) -> Result<Bytes, BusError> {
        let doing = || format!("request to {subject}");
        let answer = self.connection.request(doing, timeout, subject.as_str(), Request::new().payload(payload)).await?;
        answer.ok_or_else(|| BusError::NoResponder { subject: subject.clone() })
    }

    async fn subscribe(&self, pattern: &Pattern, group: Option<&'static str>) -> Result<Subscription, BusError> {
        let doing = || format!("listening to {pattern}");
        let (client, text) = (&self.connection.client, pattern.as_str().to_owned());
        let subscriber = async {
            match group {
                Some(group) => client.queue_subscribe(text, group.to_owned()).await,
                None => client.subscribe(text).await,
            }
        };
        // Also when the connection is away: the client tells the server when it is back.
        let subscriber = tokio::time::timeout(PUBLISH_DEADLINE, subscriber).await.map_err(|elapsed| unavailable(doing(), elapsed))?;
        let subscriber = subscriber.map_err(|error| refused(doing(), error))?;
        // Without it, a message from another connection may overtake the subscription.
        self.connection.barrier().await?;
        let connection = self.connection.clone();
        let messages = subscriber.map(move |message| {
            let subject = Subject::received(message.subject.into_string());
            let reply = message.reply.and_then(|to| reply_to(&connection, &subject, to.into_string()));
            Message { subject, payload: message.payload, reply }
        });
        Ok(Subscription { messages: Box::pin(messages) })
    }

    async fn store(&self, subject: &Subject, payload: Bytes, last: u64) -> Result<Stored, BusError> {
        self.store_with(HeaderMap::new(), subject, payload, last).await
    }

    async fn store_instead(&self, subject: &Subject, payload: Bytes, last: u64) -> Result<Stored, BusError> {
        let mut headers = HeaderMap::new();
        headers.insert(ROLL_UP, ROLL_UP_SUBJECT);
        self.store_with(headers, subject, payload, last).await
    }

    async fn last(&self, subject: &Subject) -> Result<Option<(u64, Bytes)>, BusError> {
        let doing = || format!("the end of {subject}");
        let stream = subject.channel().and_then(|channel| channel.stream).ok_or_else(|| refused(doing(), "no stream keeps it"))?;
        let stream = self.connection.jetstream.get_stream_no_info(stream.name()).await.map_err(|error| refused(doing(), error))?;
        match self.connection.during(doing, CALL_DEADLINE, stream.get_last_raw_message_by_subject(subject.as_str())).await? {
            Ok(message) => Ok(Some((message.sequence, message.payload))),
            Err(error) => match error.kind() {
                LastRawMessageErrorKind::NoMessageFound => Ok(None),
                LastRawMessageErrorKind::JetStream(_) | LastRawMessageErrorKind::Other => Err(unavailable(doing(), error)),
                LastRawMessageErrorKind::InvalidSubject => Err(refused(doing(), error)),
            },
        }
    }

    async fn run_log(&self, run: &RunId) -> Result<Vec<StoredRecord>, BusError> {
        let subject = Subject::run(run);
        for _try in 0..RUN_LOG_TRIES_MAX {
            let end = self.last(&subject).await?.map_or(0, |(sequence, _)| sequence);
            if end == 0 {
                return Ok(Vec::new());
            }
            let mut reading = Reading::begin(&self.connection, subject.as_str(), 0, end).await?;
            let mut records = Vec::new();
            while let Some(batch) = reading.next().await? {
                for message in batch {
                    records.push(record(message)?);
                }
            }
            if records.last().is_some_and(|last| last.sequence == end) {
                return Ok(records);
            }
        }
        Err(unavailable(format!("reading {subject}"), "it is rolled up again and again"))
    }

    async fn run_logs(&self) -> Result<mpsc::Receiver<Result<StoredRecord, BusError>>, BusError> {
        let connection = self.connection.clone();
        let mut end = Self::end_of_runs(&connection).await?;
        let mut reading = Reading::begin(&connection, ALL_RUNS, 0, end.sequence).await?;
        let (sender, receiver) = mpsc::channel(RECORDS_AHEAD_MAX);
        let read = async move {
            loop {
                let batch = match reading.next().await {
                    Ok(Some(batch)) => batch,
                    Ok(None) => match Self::end_of_runs(&connection).await {
                        Ok(now) if now.gone == end.gone => return,
                        Ok(now) => {
                            end = now;
                            reading.read_on_to(now.sequence);
                            continue;
                        }
                        Err(error) => return drop(sender.send(Err(error)).await),
                    },
                    Err(error) => return drop(sender.send(Err(error)).await),
                };
                for message in batch {
                    let record = record(message);
                    let failed = record.is_err();
                    if sender.send(record).await.is_err() || failed {
                        return;
                    }
                }
            }
        };
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        while readers.try_join_next().is_some() {}
        readers.spawn(read);
        Ok(receiver)
    }

    async fn run_logs_after(&self, sequence: u64) -> Result<(Vec<StoredRecord>, u64), BusError> {
        let end = Self::end_of_runs(&self.connection).await?.sequence;
        if sequence >= end {
            return Ok((Vec::new(), end));
        }
        let batch = Reading::begin(&self.connection, ALL_RUNS, sequence, end).await?.next().await?;
        let records = batch.into_iter().flatten().map(record).collect::<Result<_, _>>()?;
        Ok((records, end))
    }

    async fn triggers(&self) -> Result<Triggers, BusError> {
        Ok(triggers::consume(self.connection.clone()))
    }
}

impl Nats {
    async fn store_with(&self, mut headers: HeaderMap, subject: &Subject, payload: Bytes, last: u64) -> Result<Stored, BusError> {
        let doing = || format!("store to {subject}");
        headers.insert(async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, last.to_string());
        let request = Request::new().headers(headers).payload(payload);
        let Some(answer) = self.connection.request(doing, CALL_DEADLINE, subject.as_str(), request).await? else {
            return Err(unavailable(doing(), "no stream takes it: is the bus set up?"));
        };
        let acknowledgement: Acknowledgement = serde_json::from_slice(&answer).map_err(|error| unavailable(doing(), error))?;
        match acknowledgement {
            Acknowledgement { seq: Some(sequence), error: None } => Ok(Stored::At(sequence)),
            Acknowledgement { error: Some(error), .. } => match error.err_code {
                WRONG_LAST_SEQUENCE | WRONG_LAST_SEQUENCE_CONSTANT => Ok(Stored::WrongLastSequence),
                _ if error.code == SERVICE_UNAVAILABLE => Err(unavailable(doing(), error)),
                _ => Err(refused(doing(), error)),
            },
            Acknowledgement { .. } => Err(unavailable(doing(), "the answer is no acknowledgement")),
        }
    }
}

/// How a message is answered, if it is one that is answered: what an agent chose as a reply subject is never used.
fn reply_to(connection: &Connection, subject: &Subject, to: String) -> Option<Reply> {
    subject.channel()?.answer?;
    let connection = connection.clone();
    Some(Box::new(move |answer| Box::pin(async move { send(&connection, to, answer).await })))
}

/// Sends a message that nobody acknowledges.
pub(super) async fn send(connection: &Connection, subject: String, payload: Bytes) -> Result<(), BusError> {
    let doing = || format!("message to {subject}");
    #[expect(clippy::disallowed_methods, reason = "this is the bus")]
    let publish = connection.client.publish(subject.clone(), payload);
    connection.during(doing, PUBLISH_DEADLINE, publish).await?.map_err(|error| unavailable(doing(), error))
}
