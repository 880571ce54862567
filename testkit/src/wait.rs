//! Waiting for something to become true, with a deadline and a name for what did not come.

use std::time::{Duration, Instant};

/// Enough for anything that a test waits for on a machine that is busy with other tests.
pub const TEST_DEADLINE: Duration = Duration::from_secs(30);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// Returns what `condition` gives as soon as it gives something, and panics after `deadline`, naming `what` did not come.
pub async fn wait_for<T>(deadline: Duration, what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(Instant::now() < end, "waited {deadline:?} in vain for: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}
