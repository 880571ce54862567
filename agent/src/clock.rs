//! The agent's own clock: it never goes back, and it goes on while the process is stopped and while the machine sleeps.

use nix::time::{ClockId, clock_gettime};

/// Counts through suspension; on other systems `CLOCK_MONOTONIC` does.
#[cfg(any(target_os = "linux", target_os = "android"))]
const CLOCK: ClockId = ClockId::CLOCK_BOOTTIME;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const CLOCK: ClockId = ClockId::CLOCK_MONOTONIC;

/// Milliseconds since some point in the past that is the same as long as the machine runs.
pub(crate) fn now_ms() -> u64 {
    let time = clock_gettime(CLOCK).expect("every supported system has this clock");
    u64::try_from(time.tv_sec() * 1_000 + time.tv_nsec() / 1_000_000).unwrap_or_default()
}
