//! The one place where the time of day is read. Cores are handed the time instead.

use std::time::SystemTime;

/// Milliseconds since 1970-01-01T00:00:00Z by this machine's clock; 0 before that.
#[expect(clippy::disallowed_methods, reason = "this is the one source of the time")]
pub fn unix_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}
