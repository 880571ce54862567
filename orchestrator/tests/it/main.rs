//! The orchestrator from outside.

#[cfg(test)]
mod engine;
#[cfg(test)]
mod house;
#[cfg(test)]
mod libraries;
#[cfg(test)]
mod openapi;
#[cfg(test)]
mod planning;
#[cfg(test)]
mod trouble;
#[cfg(test)]
mod waits;
