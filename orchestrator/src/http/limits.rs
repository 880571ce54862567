//! How often may be asked: so many requests a second for each token, and for each address that shows none (generic cell rate algorithm, ITU-T I.371).

use std::{net::IpAddr, num::NonZeroU32, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, MonotonicClock},
    state::keyed::HashMapStateStore,
};
use model::TokenName;

/// Requests that one token may make in a second, where no setting says otherwise: more than a dashboard of a team, less than what one core answers.
pub const REQUESTS_PER_S_DEFAULT: u32 = 200;
/// What may come at once after a quiet time, in seconds of the rate: a script that lists all runs of a day.
const BURST_S: u32 = 5;
/// How often those are forgotten that ask no more.
pub(super) const FORGET_PERIOD: Duration = Duration::from_mins(1);

/// Whose requests are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Asker {
    /// Whoever shows this token.
    Token(TokenName),
    /// Whoever asks from there without one.
    Address(IpAddr),
}

/// Counts requests.
#[derive(Debug)]
pub(super) struct Limits {
    clock: MonotonicClock,
    limiter: Option<RateLimiter<Asker, HashMapStateStore<Asker>, MonotonicClock>>,
}

impl Limits {
    /// At most so many requests a second of each; without a number, as many as come.
    pub(super) fn new(per_s: Option<NonZeroU32>) -> Self {
        let limiter = |per_s: NonZeroU32| {
            let burst = per_s.saturating_mul(NonZeroU32::new(BURST_S).expect("it is not zero"));
            RateLimiter::new(Quota::per_second(per_s).allow_burst(burst), HashMapStateStore::default(), MonotonicClock)
        };
        Self { clock: MonotonicClock, limiter: per_s.map(limiter) }
    }

    /// Counts a request; if it is one too many, after how long it is none.
    pub(super) fn count(&self, asker: &Asker) -> Result<(), Duration> {
        let Some(limiter) = &self.limiter else { return Ok(()) };
        limiter.check_key(asker).map_err(|until| until.wait_time_from(self.clock.now()))
    }

    /// Forgets those that have asked nothing for so long that it does not matter.
    pub(super) fn forget(&self) {
        if let Some(limiter) = &self.limiter {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_rate_of_its_own() {
        let limits = Limits::new(NonZeroU32::new(1));
        let [one, other] = ["one", "other"].map(|name| Asker::Token(name.parse().unwrap()));
        for _ in 0..BURST_S {
            assert_eq!(limits.count(&one), Ok(()));
        }
        let wait = limits.count(&one).unwrap_err();
        assert!(wait <= Duration::from_secs(1), "{wait:?}");
        assert_eq!(limits.count(&other), Ok(()));
        assert_eq!(limits.count(&Asker::Address([127, 0, 0, 1].into())), Ok(()));
        limits.forget();
        assert!(limits.count(&one).is_err(), "it is not forgotten before its time");
    }

    #[test]
    fn without_a_number_all_are_answered() {
        let limits = Limits::new(None);
        let asker = Asker::Address([127, 0, 0, 1].into());
        assert!((0..10_000).all(|_| limits.count(&asker).is_ok()));
    }
}
