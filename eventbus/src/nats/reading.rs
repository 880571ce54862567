//! Reads stored messages in batches, from the first to one whose sequence is known.
//!
//! A batch is one request that the server answers with many messages (direct get, since nats-server 2.11): no consumer is made, nothing is
//! left over, and the end is exact. Direct gets may be answered by a replica that is behind; the end was asked of the leader, so a reading
//! that stops short of it is an error and never a shorter log.
//!
//! A log that is rolled up while it is read is gone from where it was, and what stands for it comes later than all of it. So who reads one log
//! begins again unless it had the last message, and who reads all of them reads on until no log was rolled up meanwhile.

use std::time::Duration;

use async_nats::{Message, StatusCode, Subscriber, header::HeaderName};
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::Serialize;

use super::connection::{Connection, refused, unavailable};
use crate::{BusError, StoredRecord, Subject, subject::Stream};

/// Messages of one batch: enough that the way to the server and back does not count, far below what a subscription holds.
const BATCH_MESSAGES: u32 = 1024;
/// Payload bytes after which the server ends a batch.
const BATCH_BYTES: u32 = 8 * 1024 * 1024;
/// How long one batch is waited for: it is read from the disk's cache, or at 1 MiB a second from a poor disk.
const BATCH_DEADLINE: Duration = Duration::from_secs(10);

/// The status of the message that ends a batch.
const END_OF_BATCH: u16 = 204;

/// One stored message.
pub(super) struct StoredMessage {
    subject: Subject,
    sequence: u64,
    payload: Bytes,
}

/// Where the stream of run logs ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    /// The last sequence; 0 if there is none.
    pub(super) sequence: u64,
    /// How many messages have left the stream.
    pub(super) gone: u64,
}

/// JetStream's request for a batch.
#[derive(Debug, Serialize)]
struct BatchRequest<'a> {
    seq: u64,
    next_by_subj: &'a str,
    batch: u32,
    max_bytes: u32,
}

/// A reading of the stream of run logs.
pub(super) struct Reading {
    connection: Connection,
    filter: String,
    inbox: String,
    answers: Subscriber,
    next: u64,
    end: u64,
}

impl Reading {
    /// Begins to read what `filter` stands for after the sequence `after` and up to `end`, which must be or have been one of `filter`'s (0: there is
    /// nothing to read).
    pub(super) async fn begin(connection: &Connection, filter: &str, after: u64, end: u64) -> Result<Self, BusError> {
        let inbox = connection.client.new_inbox();
        let subscribe = connection.client.subscribe(inbox.clone());
        let doing = || format!("reading {filter}");
        let answers = connection.during(doing, BATCH_DEADLINE, subscribe).await?.map_err(|error| refused(doing(), error))?;
        Ok(Self { connection: connection.clone(), filter: filter.to_owned(), inbox, answers, next: after + 1, end })
    }

    fn doing(&self) -> String {
        format!("reading {} from sequence {} to {}", self.filter, self.next, self.end)
    }

    /// From now on, reads up to a later end.
    pub(super) fn read_on_to(&mut self, end: u64) {
        self.end = end;
    }

    /// The next messages; `None` after the last.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<StoredMessage>>, BusError> {
        if self.next > self.end {
            return Ok(None);
        }
        let doing = self.doing();
        let connection = self.connection.clone();
        let mut batch = connection.during(|| doing.clone(), BATCH_DEADLINE, self.batch()).await??;
        let Some(last) = batch.last() else {
            return Err(unavailable(doing, "the stream ends before the sequence that its leader named"));
        };
        // What was stored since the reading began is the next reading's. Where it comes next, what was to be read before it is gone.
        self.next = last.sequence.min(self.end) + 1;
        batch.retain(|message| message.sequence <= self.end);
        Ok(Some(batch))
    }

    async fn batch(&mut self) -> Result<Vec<StoredMessage>, BusError> {
        let request = BatchRequest { seq: self.next, next_by_subj: &self.filter, batch: BATCH_MESSAGES, max_bytes: BATCH_BYTES };
        let request = serde_json::to_vec(&request).expect("numbers and a text are JSON");
        let subject = format!("$JS.API.DIRECT.GET.{}", Stream::Runs.name());
        let ask = self.connection.client.publish_with_reply(subject, self.inbox.clone(), request.into());
        ask.await.map_err(|error| unavailable(self.doing(), error))?;
        let mut batch = Vec::new();
        loop {
            let message = self.answers.next().await.ok_or(BusError::Closed)?;
            match message.status {
                None => batch.push(stored(message).ok_or_else(|| refused(self.doing(), "an answer without subject or sequence"))?),
                // The end of the batch, or no message at all.
                Some(status) if status.as_u16() == END_OF_BATCH || status == StatusCode::NOT_FOUND => return Ok(batch),
                Some(status) => {
                    return Err(unavailable(self.doing(), format!("{status} {}", message.description.unwrap_or_default())));
                }
            }
        }
    }
}

fn stored(message: Message) -> Option<StoredMessage> {
    let headers = message.headers?;
    let header = |name: HeaderName| headers.get_last(name).map(async_nats::HeaderValue::as_str);
    let subject = Subject::received(header(async_nats::header::NATS_SUBJECT)?.to_owned());
    let sequence = header(async_nats::header::NATS_SEQUENCE)?.parse().ok()?;
    Some(StoredMessage { subject, sequence, payload: message.payload })
}

/// A message of the stream of run logs as a record.
pub(super) fn record(message: StoredMessage) -> Result<StoredRecord, BusError> {
    let StoredMessage { subject, sequence, payload } = message;
    let run = subject.run_id().ok_or_else(|| refused(format!("reading {subject}"), "the subject names no run"))?;
    Ok(StoredRecord { run, sequence, bytes: payload })
}
