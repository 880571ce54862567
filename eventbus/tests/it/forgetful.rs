//! A bus that stores, and whose client does not hear that it did.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use eventbus::{
    AppendError, Bus, BusError, Pattern, StoredRecord, Subject, Subscription, Triggers,
    bus::{APPEND_DEADLINE, Backend, Stored},
};
use model::RunId;
use tokio::{sync::mpsc, time::Instant};

use crate::buses::{bytes, run};

/// Loses the first acknowledgements that it gets.
#[derive(Debug)]
pub(crate) struct Forgetful {
    backend: Arc<dyn Backend>,
    left: AtomicU32,
    /// Whether the end of a log cannot be read, either.
    blind: bool,
}

impl Forgetful {
    /// `bus`, with this many acknowledgements lost.
    pub(crate) fn bus(bus: &Bus, losses: u32) -> Bus {
        Bus::new(Self { backend: bus.backend(), left: AtomicU32::new(losses), blind: false })
    }

    /// `bus`, of which nothing is heard any more.
    pub(crate) fn deaf_and_blind(bus: &Bus) -> Bus {
        Bus::new(Self { backend: bus.backend(), left: AtomicU32::new(u32::MAX), blind: true })
    }

    fn forget(&self, stored: Stored) -> Result<Stored, BusError> {
        let lose = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if lose { Err(lost("store")) } else { Ok(stored) }
    }
}

fn lost(doing: &str) -> BusError {
    BusError::Unavailable { doing: doing.to_owned(), source: "lost on purpose".into() }
}

#[async_trait]
impl Backend for Forgetful {
    async fn store(&self, subject: &Subject, payload: Bytes, last: u64) -> Result<Stored, BusError> {
        let stored = self.backend.store(subject, payload, last).await?;
        self.forget(stored)
    }

    async fn store_instead(&self, subject: &Subject, payload: Bytes, last: u64) -> Result<Stored, BusError> {
        let stored = self.backend.store_instead(subject, payload, last).await?;
        self.forget(stored)
    }

    async fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), BusError> {
        self.backend.publish(subject, payload).await
    }

    async fn request(&self, subject: &Subject, payload: Bytes, timeout: Duration) -> Result<Bytes, BusError> {
        self.backend.request(subject, payload, timeout).await
    }

    async fn subscribe(&self, pattern: &Pattern, group: Option<&'static str>) -> Result<Subscription, BusError> {
        self.backend.subscribe(pattern, group).await
    }

    async fn last(&self, subject: &Subject) -> Result<Option<(u64, Bytes)>, BusError> {
        if self.blind { Err(lost("last")) } else { self.backend.last(subject).await }
    }

    async fn run_log(&self, run: &RunId) -> Result<Vec<StoredRecord>, BusError> {
        self.backend.run_log(run).await
    }

    async fn run_logs(&self) -> Result<mpsc::Receiver<Result<StoredRecord, BusError>>, BusError> {
        self.backend.run_logs().await
    }

    async fn run_logs_after(&self, sequence: u64) -> Result<(Vec<StoredRecord>, u64), BusError> {
        self.backend.run_logs_after(sequence).await
    }

    async fn triggers(&self) -> Result<Triggers, BusError> {
        self.backend.triggers().await
    }

    fn is_connected(&self) -> bool {
        self.backend.is_connected()
    }
}

#[tokio::test(start_paused = true)]
async fn an_append_of_which_nothing_is_heard_has_no_known_outcome() {
    let bus = eventbus::memory::bus();
    let run = run("1");
    let begun = Instant::now();
    let appended = Forgetful::deaf_and_blind(&bus).append(&run, 0, bytes("a")).await;
    assert!(matches!(appended, Err(AppendError::Unknown { .. })), "{appended:?}");
    assert!(begun.elapsed() >= APPEND_DEADLINE && begun.elapsed() < APPEND_DEADLINE * 2);
    assert_eq!(bus.run_log(&run).await.unwrap().len(), 1);
}
