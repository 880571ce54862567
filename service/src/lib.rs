//! What every process of Otto does: it reads its settings, says what it does, supervises its tasks, and ends in order.
//!
//! **Invariant:** nothing here knows a run, an agent or a plan.

pub mod clock;
pub mod env;
pub mod file;
pub mod host;
pub mod metrics;
pub mod settings;
pub mod signals;
pub mod supervisor;
pub mod telemetry;
pub mod threads;
pub mod tool;
pub mod web;

pub use supervisor::{OnError, Supervisor};
