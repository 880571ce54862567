//! The auctioneer: asks the agents who would run an attempt, collects their offers, and proposes the best.
//!
//! ```text
//! AuctionRequest ──▶ ┌─────────┐ ──▶ Announcement
//! Bid ─────────────▶ │  Book   │
//! AgentStatus ─────▶ └─────────┘ ──▶ Proposal
//! ```
//!
//! **Invariant:** it holds no truth: whatever it forgets is asked again, and only an agent's own word gives away a slot.

pub mod core;

mod service;

pub use self::service::{AuctioneerOptions, StartError, run};
