//! Notices that the process stood still (SIGSTOP, a suspended laptop, a starved machine): what then lies in the inbox may be old.

use model::protocol::auction::OFFER_VALID_MS;

/// How often the agent must look at the clock while offers of it are about, in milliseconds.
pub(crate) const PULSE_MS: u64 = 500;
/// A gap between two looks that counts as standing still, in milliseconds: two missed pulses. It is half of [`OFFER_VALID_MS`], so whoever
/// was away for long enough to make an offer stale was noticed.
const STALL_MS: u64 = 2 * PULSE_MS;

/// The agent's own heartbeat.
#[derive(Debug)]
pub(crate) struct Pulse {
    last: u64,
    beating: bool,
    suspect_until: u64,
}

impl Pulse {
    /// Seen at `now` for the first time.
    pub(crate) fn new(now: u64) -> Self {
        Self { last: now, beating: false, suspect_until: 0 }
    }

    /// To be called whenever the agent wakes, before anything else is looked at.
    pub(crate) fn observe(&mut self, now: u64) {
        if self.beating && now.saturating_sub(self.last) > STALL_MS {
            self.suspect_until = now + OFFER_VALID_MS;
        }
        self.last = now;
    }

    /// To be called before the agent sleeps. `beating` says whether it wakes again within [`PULSE_MS`]: only then does a gap tell something.
    pub(crate) fn rest(&mut self, beating: bool) {
        self.beating = beating;
    }

    /// Whether a message that is read at `now` may have waited since before a standstill.
    pub(crate) fn is_suspect(&self, now: u64) -> bool {
        now < self.suspect_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_between_beats_makes_the_inbox_suspect_for_a_while() {
        let mut pulse = Pulse::new(0);
        pulse.observe(60_000);
        assert!(!pulse.is_suspect(60_000), "nothing was to beat before");
        pulse.rest(true);
        pulse.observe(60_600);
        assert!(!pulse.is_suspect(60_600));
        pulse.observe(63_000);
        assert!(pulse.is_suspect(63_000) && pulse.is_suspect(63_000 + OFFER_VALID_MS - 1));
        assert!(!pulse.is_suspect(63_000 + OFFER_VALID_MS));
    }
}
