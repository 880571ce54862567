//! The orchestrator from outside.

mod engine;
