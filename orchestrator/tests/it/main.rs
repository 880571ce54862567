//! The orchestrator from outside.

#[cfg(test)]
mod engine;
#[cfg(test)]
mod openapi;
