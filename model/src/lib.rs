//! The nouns that every part of Otto shares: ids, names, the plan, the events of a run, and what travels between roles.
//!
//! **Invariant:** no IO, no clock, no randomness: a value of this crate is data, and reading one validates it.

pub mod digest;
pub mod id;
pub mod name;
pub mod time;

pub mod access;
pub mod capability;
pub mod context;
pub mod cron;
pub mod diagnostic;
pub mod glob;
pub mod lock;
pub mod manifest;
pub mod outcome;
pub mod plan;
pub mod planning;
pub mod trace;
pub mod trigger;
pub mod version;

pub mod event;
pub mod protocol;

#[cfg(feature = "schema")]
pub mod schema;

pub use digest::Digest;
pub use id::{AttemptId, AuctionId, RunId, StageId, TriggerId};
pub use name::{AgentClass, AgentName, ProjectName, TokenName};
pub use outcome::{RunOutcome, StageOutcome};
pub use time::Timestamp;
