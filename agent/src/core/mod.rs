//! What the agent promises, as a state machine: which slots are taken, which are promised to whom, and which attempts were here.
//!
//! **Invariant:** no clock, no IO, no `async`: the time is handed in, in milliseconds of a clock that never goes back and that counts while
//! the process or the machine sleeps.

pub(crate) mod pulse;
pub(crate) mod renewals;
pub(crate) mod slots;
