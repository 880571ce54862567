//! The bus on nats-server with JetStream.
//!
//! ```text
//! keys ─▶ permissions ─▶ server (configuration)      setup (streams, checks) ◀─ role
//! connection ─▶ backend ─▶ reading, triggers
//! ```

mod backend;
mod connection;
mod keys;
mod monitor;
mod permissions;
mod reading;
pub mod server;
pub mod setup;
mod triggers;

pub use self::{
    connection::{Identity, NatsOptions, connect},
    keys::{KeyError, Keys},
};
