//! The time of day as the forge is handed it: that of the machine, or that of a test.

use std::time::Duration;

use service::clock::unix_ms;
use tokio::sync::watch;

/// The longest time between two looks at the clock: it may have been put forward meanwhile.
const LOOK_PAUSE: Duration = Duration::from_secs(10);
/// Milliseconds of a minute.
const MINUTE_MS: u64 = 60_000;

/// Tells the time. Clones tell the same.
#[derive(Debug, Clone, Default)]
pub struct Clock(Option<watch::Receiver<u64>>);

impl Clock {
    /// The clock that shows the milliseconds since 1970 that were sent to it last.
    pub fn shown(by: &watch::Sender<u64>) -> Self {
        Self(Some(by.subscribe()))
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub(crate) fn unix_ms(&self) -> u64 {
        self.0.as_ref().map_or_else(unix_ms, |shown| *shown.borrow())
    }

    /// Minutes since then.
    pub(crate) fn minute(&self) -> u64 {
        self.unix_ms() / MINUTE_MS
    }

    /// Waits until it may be another minute. Cancel safe.
    pub(crate) async fn tick(&mut self) {
        match &mut self.0 {
            // The minute that just begins is not missed by a hair.
            None => tokio::time::sleep(LOOK_PAUSE.min(Duration::from_millis(MINUTE_MS - unix_ms() % MINUTE_MS))).await,
            // Whoever shows the time is gone: it stands still.
            Some(shown) => match shown.changed().await {
                Ok(()) => {}
                Err(_) => std::future::pending().await,
            },
        }
    }
}
