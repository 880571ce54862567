//! The run as a pure state machine: `apply` folds events into a state, `decide` answers an input with events.
//!
//! ```text
//! input ─▶ decide(run, context, input, now) ─▶ events ─▶ append to the log ─▶ apply ─▶ run ─▶ effects
//!                                                                                       └──▶ next_due ─▶ input
//! ```
//!
//! **Invariant:** no clock, no randomness, no IO: the same log gives the same state on every machine. What an input costs does not grow
//! with what was decided before, but for the copy of one pointer for each stage.

pub mod shape;
pub mod stage;
pub mod state;

pub mod found;
pub mod rerun;
pub mod resolve;
pub mod wait;
pub mod work;

pub mod decide;
pub mod effects;

pub(crate) mod kept;

mod condition;
mod written;

#[cfg(test)]
#[expect(clippy::wildcard_enum_match_arm, reason = "a test looks at the events and states that it is about")]
pub(crate) mod tests;

pub use decide::{Answer, Beginning, Context, Decision, Input, decide};
pub use effects::{Effect, effects};
pub use found::Found;
pub use shape::Shape;
pub use stage::{Attempt, AttemptEnd, OpenedWait, Stage, Status, WaitState};
pub use state::{Cancelled, Ending, Illegal, Position, Run};
