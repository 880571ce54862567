//! The bus within one process, for `otto run` and for tests of roles.
//!
//! One lock guards it all and is never held across an await. Nothing polls, no task runs, and no timer is set but for requests and for
//! triggers that were dropped undone. What is stored ends with the process, unless a [`Journal`] keeps it.

mod journal;
mod listeners;
mod stream;
mod triggers;

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use model::RunId;
use tokio::{
    sync::{Notify, mpsc},
    time::timeout,
};

pub use self::journal::{Journal, JournalError};

use self::{journal::Kept, listeners::Listeners, stream::Stream, triggers::TriggerQueue};
use crate::{
    Bus, BusError, Pattern, StoredRecord, Subject, Subscription, Triggers,
    bus::{Backend, Stored},
};

/// A bus that only this process sees.
pub fn bus() -> Bus {
    Bus::new(Memory::default())
}

/// A bus that has what the journal has, and writes there what it stores. Triggers of the journal are delivered again.
pub fn bus_with(mut journal: Journal) -> Result<Bus, BusError> {
    let mut state = State::default();
    state.fill(journal.take_kept())?;
    state.journal = Some(journal);
    Ok(Bus::new(Memory { shared: Arc::new(Shared { state: Mutex::new(state), trigger_ready: Arc::default() }) }))
}

/// The backend of [`bus`].
#[derive(Debug, Default)]
pub struct Memory {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Somebody who waits for a trigger should look again.
    trigger_ready: Arc<Notify>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Whoever waits for a trigger learns that the bus is gone.
        self.trigger_ready.notify_waiters();
    }
}

#[derive(Debug, Default)]
struct State {
    listeners: Listeners,
    triggers: Stream,
    runs: Stream,
    queue: TriggerQueue,
    /// Where what is stored is written first.
    journal: Option<Journal>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    /// The journal keeps also what a message stands for: it is read as if that were there.
    fn store(&self, subject: &Subject, payload: Bytes, last: u64, is_instead: bool) -> Result<Stored, BusError> {
        let mut state = self.lock();
        if !state.stream_of(subject)?.takes(subject, &payload, last)? {
            return Ok(Stored::WrongLastSequence);
        }
        if let Some(journal) = &mut state.journal {
            let unavailable =
                |source| BusError::Unavailable { doing: format!("keep what is stored to {subject}"), source: Box::new(source) };
            journal.append(subject, &payload).map_err(unavailable)?;
        }
        let stored = state.stream_of(subject)?.store(subject, payload, last)?;
        if is_instead && let Stored::At(sequence) = stored {
            state.stream_of(subject)?.forget_before(subject, sequence);
        }
        if let Stored::At(sequence) = stored
            && state.was_stored(subject, sequence)
        {
            drop(state);
            self.trigger_ready.notify_one();
        }
        Ok(stored)
    }
}

fn refused(doing: impl Into<String>, why: &'static str) -> BusError {
    BusError::Refused { doing: doing.into(), source: why.into() }
}

fn unavailable(subject: &Subject, why: &'static str) -> BusError {
    BusError::Unavailable { doing: format!("request to {subject}"), source: why.into() }
}

impl State {
    /// Stores what a journal has kept.
    fn fill(&mut self, kept: Vec<Kept>) -> Result<(), BusError> {
        for (subject, payload) in kept {
            let stream = self.stream_of(&subject)?;
            let last = stream.last(&subject).map_or(0, |(sequence, _)| sequence);
            if let Stored::At(sequence) = stream.store(&subject, payload, last)? {
                self.was_stored(&subject, sequence);
            }
        }
        Ok(())
    }

    /// Whether somebody waits for it.
    fn was_stored(&mut self, subject: &Subject, sequence: u64) -> bool {
        let is_trigger = subject.as_str().starts_with("triggers.");
        if is_trigger {
            self.queue.push(sequence);
        }
        is_trigger
    }

    fn stream_of(&mut self, subject: &Subject) -> Result<&mut Stream, BusError> {
        match subject.as_str().split_once('.') {
            Some(("triggers", _)) => Ok(&mut self.triggers),
            Some(("runs", _)) => Ok(&mut self.runs),
            _ => Err(refused(format!("store to {subject}"), "no stream keeps this subject")),
        }
    }
}

#[async_trait]
impl Backend for Memory {
    fn is_connected(&self) -> bool {
        true
    }

    async fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), BusError> {
        self.shared.lock().listeners.deliver(subject, &payload, None);
        Ok(())
    }

    async fn request(&self, subject: &Subject, payload: Bytes, limit: Duration) -> Result<Bytes, BusError> {
        // The first answer counts; there is room for one.
        let (answer, mut answers) = mpsc::channel(1);
        let heard = self.shared.lock().listeners.deliver(subject, &payload, Some(&answer));
        drop(answer);
        if heard == 0 {
            return Err(BusError::NoResponder { subject: subject.clone() });
        }
        match timeout(limit, answers.recv()).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(unavailable(subject, "the question was dropped without an answer")),
            Err(_elapsed) => Err(unavailable(subject, "no answer in time")),
        }
    }

    async fn subscribe(&self, pattern: &Pattern, group: Option<&'static str>) -> Result<Subscription, BusError> {
        let mut messages = self.shared.lock().listeners.add(pattern.clone(), group);
        let messages = futures_util::stream::poll_fn(move |context| messages.poll_recv(context));
        Ok(Subscription { messages: Box::pin(messages) })
    }

    async fn store(&self, subject: &Subject, payload: Bytes, last: u64) -> Result<Stored, BusError> {
        self.shared.store(subject, payload, last, false)
    }

    async fn store_instead(&self, subject: &Subject, payload: Bytes, last: u64) -> Result<Stored, BusError> {
        self.shared.store(subject, payload, last, true)
    }

    async fn last(&self, subject: &Subject) -> Result<Option<(u64, Bytes)>, BusError> {
        Ok(self.shared.lock().stream_of(subject)?.last(subject))
    }

    async fn run_log(&self, run: &RunId) -> Result<Vec<StoredRecord>, BusError> {
        let subject = Subject::run(run);
        let records = self.shared.lock().runs.of_subject(&subject);
        Ok(records.into_iter().map(|(sequence, bytes)| StoredRecord { run: run.clone(), sequence, bytes }).collect())
    }

    async fn run_logs(&self) -> Result<mpsc::Receiver<Result<StoredRecord, BusError>>, BusError> {
        let records = self.shared.lock().runs.all();
        let (sender, receiver) = mpsc::channel(records.len().max(1));
        for (sequence, subject, bytes) in records {
            let run = subject.run_id().ok_or_else(|| refused(format!("read of {subject}"), "the subject names no run"))?;
            sender.try_send(Ok(StoredRecord { run, sequence, bytes })).expect("the channel has room for all");
        }
        Ok(receiver)
    }

    async fn run_logs_after(&self, sequence: u64) -> Result<(Vec<StoredRecord>, u64), BusError> {
        let (records, end) = self.shared.lock().runs.after(sequence);
        let record = |(sequence, subject, bytes): (u64, Subject, Bytes)| {
            let run = subject.run_id().ok_or_else(|| refused(format!("read of {subject}"), "the subject names no run"))?;
            Ok(StoredRecord { run, sequence, bytes })
        };
        Ok((records.into_iter().map(record).collect::<Result<_, BusError>>()?, end))
    }

    async fn triggers(&self) -> Result<Triggers, BusError> {
        Ok(triggers::consume(&self.shared))
    }
}
