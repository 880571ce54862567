//! The state machine under any order of inputs, held against a small independent model.

mod consistency;
mod driven;
mod gates;
mod large;
mod logs;
mod model_of_a_run;
mod once_more;
mod plans;
mod properties;
mod resolving;
mod stories;
mod together;
mod undoing;

pub(crate) use driven::trigger;
