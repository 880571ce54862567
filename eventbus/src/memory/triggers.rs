//! The one consumer of triggers: each is held by one consumer until it is done, and comes again when it is dropped undone.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Weak},
};

use async_trait::async_trait;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{Shared, State};
use crate::{
    BusError, Subject, TriggerDelivery, Triggers,
    bus::{TRIGGER_RETRY_PAUSE, TriggerAck},
};

/// Stored triggers that are not done with; each is in exactly one of the three places.
#[derive(Debug, Default)]
pub(super) struct TriggerQueue {
    /// To be delivered now.
    ready: VecDeque<u64>,
    /// With a consumer, by sequence: which one.
    held: BTreeMap<u64, u64>,
    /// To be delivered later, as they were dropped.
    dropped: BTreeSet<(Instant, u64)>,
    /// The next consumer's number.
    next: u64,
}

/// What somebody who wants a trigger finds.
enum Found {
    Trigger(Box<TriggerDelivery>),
    /// None now, and one to come again at this time, if any.
    Nothing(Option<Instant>),
}

impl TriggerQueue {
    pub(super) fn push(&mut self, sequence: u64) {
        self.ready.push_back(sequence);
    }

    fn take(&mut self, consumer: u64) -> Result<u64, Option<Instant>> {
        if let Some(sequence) = self.ready.pop_front() {
            self.held.insert(sequence, consumer);
            return Ok(sequence);
        }
        let Some((due, sequence)) = self.dropped.first().copied() else { return Err(None) };
        if due > Instant::now() {
            return Err(Some(due));
        }
        self.dropped.remove(&(due, sequence));
        self.held.insert(sequence, consumer);
        Ok(sequence)
    }

    /// Gives back what a consumer held that is gone.
    fn release(&mut self, consumer: u64) {
        let released: Vec<u64> = self.held.iter().filter(|(_, holder)| **holder == consumer).map(|(sequence, _)| *sequence).collect();
        for sequence in released {
            self.held.remove(&sequence);
            self.ready.push_back(sequence);
        }
    }
}

/// One that takes triggers; what it holds is released when it is dropped.
struct Consumer {
    shared: Weak<Shared>,
    ready: Arc<Notify>,
    number: u64,
}

impl Drop for Consumer {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.lock().queue.release(self.number);
            // Whoever takes one of them wakes the next.
            self.ready.notify_one();
        }
    }
}

pub(super) fn consume(shared: &Arc<Shared>) -> Triggers {
    let number = {
        let mut state = shared.lock();
        state.queue.next += 1;
        state.queue.next
    };
    let consumer = Consumer { shared: Arc::downgrade(shared), ready: Arc::clone(&shared.trigger_ready), number };
    let deliveries = futures_util::stream::unfold(consumer, |consumer| async move {
        let delivery = consumer.next().await?;
        Some((delivery, consumer))
    });
    Triggers { deliveries: Box::pin(deliveries) }
}

impl Consumer {
    /// The next trigger; `None` when the bus is gone.
    async fn next(&self) -> Option<TriggerDelivery> {
        loop {
            let shared = self.shared.upgrade()?;
            let ready = self.ready.notified();
            let found = self.find(&mut shared.lock());
            // Not kept across the wait: it must not keep the bus alive.
            drop(shared);
            match found {
                Found::Trigger(delivery) => {
                    // One wake-up may stand for several triggers: pass it on.
                    self.ready.notify_one();
                    return Some(*delivery);
                }
                Found::Nothing(None) => ready.await,
                Found::Nothing(Some(due)) => tokio::select! {
                    () = ready => {}
                    () = sleep_until(due) => {}
                },
            }
        }
    }

    fn find(&self, state: &mut State) -> Found {
        let sequence = match state.queue.take(self.number) {
            Ok(sequence) => sequence,
            Err(due) => return Found::Nothing(due),
        };
        let (subject, bytes) = state.triggers.at(sequence);
        let trigger = read(subject, bytes);
        let ack = Ack { shared: self.shared.clone(), sequence, consumer: self.number };
        Found::Trigger(Box::new(TriggerDelivery { trigger, stored_at: None, ack: Box::new(ack) }))
    }
}

fn read(subject: &Subject, bytes: &[u8]) -> Result<model::trigger::Trigger, BusError> {
    serde_json::from_slice(bytes).map_err(|source| BusError::Malformed { subject: subject.clone(), source })
}

struct Ack {
    shared: Weak<Shared>,
    sequence: u64,
    consumer: u64,
}

#[async_trait]
impl TriggerAck for Ack {
    async fn done(self: Box<Self>) -> Result<(), BusError> {
        let shared = self.shared.upgrade().ok_or(BusError::Closed)?;
        let mut state = shared.lock();
        // Where the consumer is gone, the trigger is ready again: done is done all the same.
        state.queue.held.remove(&self.sequence);
        state.queue.ready.retain(|sequence| *sequence != self.sequence);
        // The lock is free again before `self` goes, whose drop takes it.
        drop(state);
        Ok(())
    }
}

impl Drop for Ack {
    fn drop(&mut self) {
        let Some(shared) = self.shared.upgrade() else { return };
        let mut state = shared.lock();
        if state.queue.held.get(&self.sequence) != Some(&self.consumer) {
            return;
        }
        state.queue.held.remove(&self.sequence);
        state.queue.dropped.insert((Instant::now() + TRIGGER_RETRY_PAUSE, self.sequence));
        drop(state);
        shared.trigger_ready.notify_one();
    }
}
