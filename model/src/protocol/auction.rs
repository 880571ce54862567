//! The auction: a request, an announcement to the agents, their sealed offers, and a proposal.
//!
//! ```text
//! orchestrator ── AuctionRequest ──▶ auctioneer ── Announcement ──▶ agents
//!      ▲                                 ▲  │                         │
//!      └────────── Proposal ─────────────┼──┘ ◀──── Bid ──────────────┘
//! ```
//!
//! Only an agent owns its slots. An offer is a promise that the agent keeps by its own clock: an award that comes later is declined.

use serde::{Deserialize, Serialize};

use crate::{AgentName, AttemptId, AuctionId, Digest, Timestamp, plan::Requirements};

/// Asks the auctioneer who should run an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuctionRequest {
    /// Derived from the attempt and the round.
    pub auction: AuctionId,
    /// What is to be placed.
    pub attempt: AttemptId,
    /// What an agent must be able to do.
    pub requires: Requirements,
    /// The source tree, for agents that have it already.
    pub source: Option<Digest>,
    /// The running attempts after which this one can start; empty if it can start now.
    pub after: Vec<AttemptId>,
    /// Agents that are not asked, because they declined or lost this attempt.
    pub except: Vec<AgentName>,
}

/// Asks agents for offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// What the orchestrator asked.
    pub request: AuctionRequest,
}

/// An agent's answer to an announcement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Bid {
    /// It would run the attempt.
    Offer(Offer),
    /// It would not, now.
    Decline {
        /// What is missing, for people.
        reason: String,
    },
}

/// What an agent would run an attempt for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The price of a second of the agent, in millionths of the installation's currency unit; 0 for one's own laptop.
    pub price_micros_per_s: u64,
    /// How long until the first step would start, in milliseconds.
    pub start_ms: u64,
    /// What is kept for the winner.
    pub reservation: Reservation,
}

/// What an offer keeps free.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Reservation {
    /// A free slot, for [`OFFER_VALID_MS`] from the offer.
    Slot,
    /// The slot of an attempt that this one comes after: from that attempt's end it is kept for [`OFFER_VALID_MS`].
    Handover,
    /// Nothing: a quote for an attempt that cannot start yet. The award may be declined.
    Quote,
}

/// How long an agent keeps a slot for an offer, in milliseconds, by its own clock. A winner that has not taken the award
/// up when this long has passed since the award has, by its own clock, given the slot free: the attempt can be placed elsewhere.
pub const OFFER_VALID_MS: u64 = 2_000;

/// An offer as it is kept with the award.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RankedOffer {
    /// Who made it.
    pub agent: AgentName,
    /// The offer.
    pub offer: Offer,
}

/// What the auctioneer answers the orchestrator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// The auction.
    pub auction: AuctionId,
    /// What is to be placed.
    pub attempt: AttemptId,
    /// The offers, the best first; empty if there is none.
    pub offers: Vec<RankedOffer>,
    /// Agents that could not, and why: the answer to "why is this still waiting?".
    pub declined: Vec<Declined>,
    /// When the auction closed.
    pub closed_at: Timestamp,
}

/// An agent that made no offer, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declined {
    /// The agent.
    pub agent: AgentName,
    /// What is missing, for people.
    pub reason: String,
}
