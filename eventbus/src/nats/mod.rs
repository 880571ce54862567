//! The bus on nats-server with JetStream.
//!
//! ```text
//! permissions ─▶ keys, enrolment (JWTs) ─▶ server (configuration)      setup (streams, checks) ◀─ role
//! connection ─▶ backend ─▶ reading, triggers
//! ```

mod accounts;
mod backend;
mod connection;
pub mod enrolment;
pub mod jwt;
mod keys;
mod monitor;
mod permissions;
mod reading;
pub mod server;
pub mod setup;
mod triggers;

pub use self::{
    accounts::{Accounts, AccountsError},
    connection::{Identity, NatsOptions, connect},
    enrolment::{Enrolment, EnrolmentError},
    keys::{Account, KeyError, Keys, UserKey},
};
