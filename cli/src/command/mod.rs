//! Commands that ask the API, or look at a pipeline file. Each is its arguments and what is printed; standard output is data, standard
//! error is talk.

pub mod agent;
mod agent_join;
pub mod agents;
pub mod answer;
pub mod artifacts;
pub mod cancel;
pub mod check;
pub mod config;
pub mod events;
pub mod explain;
pub mod explain_error;
pub mod fmt;
pub mod follow;
pub mod fsck;
pub mod lock;
pub mod log;
pub mod login;
pub mod lsp;
pub mod projects;
pub mod rerun;
pub mod runs;
pub mod show;
pub mod start;
mod timing;
pub mod token;
pub mod waits;
pub mod why;

mod terminal;
pub(crate) mod text;
pub(crate) mod words;

pub use terminal::{Terminal, Unheard, complain};
