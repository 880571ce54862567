//! How long a process that crashed stays down.

use std::time::Duration;

/// After the first crash.
pub(super) const PAUSE_MIN: Duration = Duration::from_millis(100);
/// After many: long enough to cost nothing, short enough that what was repaired is back before one looks.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Whoever ran as long as this was healthy; its next crash is a first one.
pub(super) const HEALTHY: Duration = Duration::from_secs(30);

/// Pauses that double.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: PAUSE_MIN }
    }
}

impl Backoff {
    /// The pause before the next start of a process that crashed after it ran for `ran`.
    pub(super) fn pause_after(&mut self, ran: Duration) -> Duration {
        if ran >= HEALTHY {
            self.next = PAUSE_MIN;
        }
        let pause = self.next;
        self.next = (pause * 2).min(PAUSE_MAX);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew_after_health() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..8).map(|_| backoff.pause_after(HEALTHY / 2).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
        assert_eq!(backoff.pause_after(HEALTHY), PAUSE_MIN);
        assert_eq!(backoff.pause_after(Duration::ZERO), PAUSE_MIN * 2);
    }
}
