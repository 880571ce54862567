//! The run as a pure state machine: `apply` folds events into a state, `decide` answers an input with events.
//!
//! ```text
//! input ─▶ decide(run, proposals, input, now) ─▶ events ─▶ append to the log ─▶ apply ─▶ run ─▶ effects
//! ```
//!
//! **Invariant:** no clock, no randomness, no IO: the same log gives the same state on every machine.

pub mod shape;
pub mod state;

pub mod decide;
pub mod effects;

#[cfg(test)]
pub(crate) mod tests;

pub use decide::{Answer, Decision, Input, decide};
pub use effects::{Effect, effects};
pub use shape::Shape;
pub use state::{Attempt, AttemptEnd, Illegal, Position, Run, Stage, Status};
