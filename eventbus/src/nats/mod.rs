//! The bus on nats-server with JetStream.
//!
//! ```text
//! permissions ─▶ keys, enrolment (JWTs) ─▶ server (configuration)      setup (streams, checks) ◀─ role
//! connection, renewal ─▶ backend ─▶ reading, triggers
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
mod renewal;
pub mod server;
pub mod setup;
mod triggers;

pub use self::{
    accounts::{Accounts, AccountsError},
    connection::{Identity, NatsOptions, UserEnded, connect, is_websocket},
    enrolment::{Enrolment, EnrolmentError},
    keys::{Account, KeyError, Keys, UserKey},
    renewal::{Renewal, connect_agent},
};
