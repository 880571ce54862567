//! The agent on the memory bus. Each test plays the orchestrator and the auctioneer.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers, too")]
#![expect(clippy::print_stdout, reason = "a test that this machine does not allow says so")]

mod office;

mod containers;
mod ground;
mod hostile;
mod isolation;
mod life;
mod output;
mod promises;
mod protocol;

mod signed;
mod snapshots;
mod stages;
mod steps;
mod users;
