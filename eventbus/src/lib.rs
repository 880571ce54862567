//! The event bus: one table of subjects, a typed handle, and two backends that keep the same contract.
//!
//! *Only accepted triggers and run logs are durable on the bus; everything else on it is soft and sent again from the log; bytes go to the
//! depot* (RFC 0001).
//!
//! **Invariant:** nothing here knows what a pipeline is.

pub mod bus;
pub mod memory;
pub mod nats;
pub mod role;
pub mod roll;
pub mod signed;
pub mod subject;

pub use bus::{AppendError, Bus, BusError, Message, StoredRecord, Subscription, TriggerDelivery, Triggers};
pub use subject::{Pattern, Subject};
