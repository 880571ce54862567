//! The orchestrator from outside.

mod engine;
mod openapi;
