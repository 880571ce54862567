//! The orchestrator: the state machine of runs, the only writer of their logs, and the HTTP API.
//!
//! **Invariant:** it executes nothing and holds no secret.

pub mod admission;
pub mod agents;
pub mod archive;
pub mod auctions;
pub mod callbacks;
pub mod core;
pub mod engine;
pub mod fsck;
pub mod handle;
pub mod http;
pub mod logs;
pub mod metrics;
pub mod output;
pub mod runs;
pub mod traces;
pub mod views;

pub use handle::{CommandError, Orchestrator};
