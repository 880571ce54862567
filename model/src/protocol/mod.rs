//! What roles say to each other. All of it is soft: it may be lost, doubled or late, and is sent again from the log.

pub mod agent;
pub mod auction;
pub mod enrolment;
pub mod forge;
pub mod log;
pub mod orchestrator;
pub mod step;
