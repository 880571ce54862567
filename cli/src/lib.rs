//! The command line: the one place where roles, bus and depot are put together.
//!
//! It is a library with a program of a few lines, so that tests and benchmarks can start the same processes.

pub mod client;
pub mod command;
mod config_file;
pub mod demo;
pub mod exit;
pub mod home;
pub mod hook;
mod machine;
pub mod otto;
pub mod pipeline;
pub mod provision;
pub mod repo;
pub mod run;
pub mod serve;
pub mod step;
pub mod store;
pub mod up;
