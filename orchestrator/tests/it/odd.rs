//! A bus that counts, and does what a bus may do.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use eventbus::{
    Bus, BusError, Pattern, StoredRecord, Subject, Subscription, Triggers,
    bus::{Backend, Stored},
};
use model::RunId;
use tokio::sync::mpsc;

/// How an append fails.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fails {
    /// It is refused.
    Before,
    /// It is stored, and said to be refused.
    After,
    /// It is not taken, as the store has lost the record before it.
    RolledBack,
}

/// A bus that counts, and on which one append to a run's log may fail.
#[derive(Debug)]
pub(crate) struct Odd {
    inner: Arc<dyn Backend>,
    fails: Option<(Fails, usize)>,
    counts: Counts,
}

/// What went over the bus.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    appends: Arc<AtomicUsize>,
    published: Arc<AtomicUsize>,
}

impl Counts {
    /// Records that were to be appended.
    pub(crate) fn appends(&self) -> usize {
        self.appends.load(Ordering::Relaxed)
    }

    /// Soft messages.
    pub(crate) fn published(&self) -> usize {
        self.published.load(Ordering::Relaxed)
    }
}

impl Odd {
    /// One whose `n`th append fails so, if that is asked for.
    pub(crate) fn bus(fails: Option<(Fails, usize)>) -> (Bus, Counts) {
        let counts = Counts::default();
        (Bus::new(Self { inner: eventbus::memory::bus().backend(), fails, counts: counts.clone() }), counts)
    }

    fn has_lost_the_last(&self) -> bool {
        self.fails.is_some_and(|(fails, at)| matches!(fails, Fails::RolledBack) && self.counts.appends() >= at)
    }
}

#[async_trait]
impl Backend for Odd {
    async fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), BusError> {
        self.counts.published.fetch_add(1, Ordering::Relaxed);
        self.inner.publish(subject, payload).await
    }

    async fn request(&self, subject: &Subject, payload: Bytes, limit: Duration) -> Result<Bytes, BusError> {
        self.inner.request(subject, payload, limit).await
    }

    async fn subscribe(&self, pattern: &Pattern, group: Option<&'static str>) -> Result<Subscription, BusError> {
        self.inner.subscribe(pattern, group).await
    }

    async fn store(&self, subject: &Subject, payload: Bytes, last: u64) -> Result<Stored, BusError> {
        if subject.run_id().is_none() {
            return self.inner.store(subject, payload, last).await;
        }
        let count = self.counts.appends.fetch_add(1, Ordering::Relaxed) + 1;
        match self.fails {
            Some((Fails::Before, at)) if at == count => {}
            Some((Fails::After, at)) if at == count => drop(self.inner.store(subject, payload, last).await?),
            Some((Fails::RolledBack, at)) if at <= count => return Ok(Stored::WrongLastSequence),
            Some(_) | None => return self.inner.store(subject, payload, last).await,
        }
        Err(BusError::Refused { doing: "a test".to_owned(), source: "it is this one's turn".into() })
    }

    async fn last(&self, subject: &Subject) -> Result<Option<(u64, Bytes)>, BusError> {
        self.inner.last(subject).await
    }

    async fn run_log(&self, run: &RunId) -> Result<Vec<StoredRecord>, BusError> {
        let mut log = self.inner.run_log(run).await?;
        if self.has_lost_the_last() {
            log.pop();
        }
        Ok(log)
    }

    async fn run_logs(&self) -> Result<mpsc::Receiver<Result<StoredRecord, BusError>>, BusError> {
        self.inner.run_logs().await
    }

    async fn run_logs_after(&self, sequence: u64) -> Result<(Vec<StoredRecord>, u64), BusError> {
        self.inner.run_logs_after(sequence).await
    }

    async fn triggers(&self) -> Result<Triggers, BusError> {
        self.inner.triggers().await
    }

    fn is_connected(&self) -> bool {
        self.inner.is_connected()
    }
}
