//! Until when stages that hold a lock may run, as far as this agent knows.
//!
//! A lease is renewed by a status that the orchestrator hears, and the orchestrator says which it heard. A holder of a lock is ended while
//! its last confirmed lease still has time for the end: after that the lock may be another's. Whatever time a message takes is counted
//! against the holder.

use std::collections::BTreeMap;

use model::protocol::{
    agent::{LEASE_MS, Lease, RENEW_MS},
    auction::OFFER_VALID_MS,
};

/// How often a lease is renewed while a lock is held, in milliseconds: some statuses may be lost before a stage is.
const RENEW_LOCKED_MS: u64 = 2_000;
/// What the end of a stage takes at most, in milliseconds: the time between SIGTERM and SIGKILL, and what comes before and after.
const END_MS: u64 = 6_000;
/// So long before the end of its lease nothing of a stage runs, in milliseconds, even if its agent stands still: the clock is looked at four
/// times a second, and a kill takes some more.
const OVER_MS: u64 = 1_000;
/// Statuses whose confirmation may still come.
const SENT_MAX: usize = 16;

/// The statuses that were sent, and the holders of locks.
#[derive(Debug, Default)]
pub(crate) struct Renewals {
    number: u64,
    sent: BTreeMap<u64, u64>,
    /// When what last renewed the lease was said.
    held: BTreeMap<Lease, u64>,
}

impl Renewals {
    /// The number of the status that is sent now.
    pub(crate) fn next(&mut self, now: u64) -> u64 {
        self.number += 1;
        self.sent.insert(self.number, now);
        if self.sent.len() > SENT_MAX {
            self.sent.pop_first();
        }
        self.number
    }

    /// How long until the next status.
    pub(crate) fn pause_ms(&self) -> u64 {
        if self.held.is_empty() { RENEW_MS } else { RENEW_LOCKED_MS }
    }

    /// The agent takes up a stage that holds a lock. It was awarded after the agent's offer.
    pub(crate) fn hold(&mut self, lease: &Lease, now: u64) {
        self.held.insert(lease.clone(), now.saturating_sub(OFFER_VALID_MS));
    }

    /// The stage has ended.
    pub(crate) fn release(&mut self, lease: &Lease) {
        self.held.remove(lease);
    }

    /// The orchestrator has heard a status, and these leases were renewed by it.
    pub(crate) fn confirmed(&mut self, status: u64, leases: &[Lease]) {
        let Some(sent) = self.sent.get(&status) else { return };
        for lease in leases {
            if let Some(since) = self.held.get_mut(lease) {
                *since = (*since).max(*sent);
            }
        }
    }

    /// When the last process of a stage must have ended, whatever becomes of the agent; none of one that holds no lock.
    pub(crate) fn over_at(&self, lease: &Lease) -> Option<u64> {
        self.held.get(lease).map(|since| since + LEASE_MS - OVER_MS)
    }

    /// Takes out the stages that must end now.
    pub(crate) fn lapsed(&mut self, now: u64) -> Vec<Lease> {
        self.held.extract_if(.., |_, since| now >= end_of(*since)).map(|(lease, _)| lease).collect()
    }

    /// When the next stage must end, if nothing is confirmed.
    pub(crate) fn due_at(&self) -> Option<u64> {
        self.held.values().copied().min().map(end_of)
    }
}

fn end_of(since: u64) -> u64 {
    since + LEASE_MS - END_MS
}

#[cfg(test)]
mod tests {
    use model::{AttemptId, RunId, StageId, TriggerId};

    use super::*;

    fn lease(stage: &str) -> Lease {
        Lease { attempt: AttemptId { run: RunId::of(&TriggerId::of("t", "1")), stage: StageId::of(stage), attempt: 1 }, fence: 3 }
    }

    const WINDOW: u64 = LEASE_MS - END_MS;

    #[test]
    fn a_holder_ends_before_its_lease_unless_it_is_confirmed() {
        let mut renewals = Renewals::default();
        assert_eq!((renewals.pause_ms(), renewals.due_at()), (RENEW_MS, None));
        renewals.hold(&lease("a"), 10_000);
        renewals.hold(&lease("b"), 10_000);
        assert_eq!(renewals.pause_ms(), RENEW_LOCKED_MS);
        let number = renewals.next(12_000);
        renewals.confirmed(number, &[lease("a"), lease("c")]);
        let until = 10_000 - OFFER_VALID_MS + WINDOW;
        assert_eq!((renewals.due_at(), renewals.lapsed(until - 1)), (Some(until), vec![]));
        assert_eq!(renewals.lapsed(until), [lease("b")]);
        assert_eq!(renewals.lapsed(12_000 + WINDOW - 1), []);
        assert_eq!(renewals.lapsed(12_000 + WINDOW), [lease("a")]);
        assert_eq!(renewals.due_at(), None);
    }

    #[test]
    fn a_confirmation_counts_from_when_its_status_was_said() {
        let mut renewals = Renewals::default();
        renewals.hold(&lease("a"), 10_000);
        let old = renewals.next(11_000);
        let new = renewals.next(13_000);
        renewals.confirmed(new, &[lease("a")]);
        renewals.confirmed(old, &[lease("a")]);
        renewals.confirmed(99, &[lease("a")]);
        assert_eq!(renewals.due_at(), Some(13_000 + WINDOW));
        assert_eq!(renewals.over_at(&lease("a")), Some(13_000 + LEASE_MS - OVER_MS));
        renewals.release(&lease("a"));
        assert_eq!((renewals.due_at(), renewals.over_at(&lease("a"))), (None, None));
    }

    #[test]
    fn one_lost_status_ends_no_stage() {
        const { assert!(3 * RENEW_LOCKED_MS < WINDOW && OVER_MS < END_MS) };
    }
}
