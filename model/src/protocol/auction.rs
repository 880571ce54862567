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

use crate::{AgentName, AttemptId, AuctionId, Digest, ProjectName, Timestamp, plan::Requirements, trigger::Trust};

/// Asks the auctioneer who should run an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AuctionRequest {
    /// Derived from the attempt and the round.
    pub auction: AuctionId,
    /// What is to be placed.
    pub attempt: AttemptId,
    /// Whether the code of the run is its project's: it goes to agents that take such runs.
    #[serde(default)]
    pub trust: Trust,
    /// What an agent must be able to do.
    pub requires: Requirements,
    /// The stage as it comes back from run to run; `None` where nothing is to be learned of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routine: Option<Routine>,
    /// What the attempt is given, for agents that have it already: its source, caches and libraries; at most [`WANTED_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wants: Vec<Wanted>,
    /// The running attempts after which this one can start; empty if it can start now.
    pub after: Vec<AttemptId>,
    /// Agents that are not asked, because they declined or lost this attempt.
    pub except: Vec<AgentName>,
}

impl AuctionRequest {
    /// Of an attempt of an untrusted run that can start now, demands nothing and is given nothing.
    pub fn new(auction: AuctionId, attempt: AttemptId) -> Self {
        let (trust, requires, routine) = (Trust::default(), Requirements::new(), None);
        Self { auction, attempt, trust, requires, routine, wants: Vec::new(), after: Vec::new(), except: Vec::new() }
    }
}

/// A stage as it comes back from run to run: what was learned of one run is taken to hold for the next.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Routine {
    /// The project.
    pub project: ProjectName,
    /// The path of its pipeline.
    pub pipeline: String,
    /// The stage's path.
    pub stage: String,
}

/// What is learned from the attempts that ended together, orchestrator to auctioneers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Experience {
    /// Each of them.
    pub ran: Vec<Ran>,
}

/// How long an attempt took on its agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Ran {
    /// What was run.
    pub routine: Routine,
    /// Where.
    pub agent: AgentName,
    /// From its award to its end, in milliseconds, by the orchestrator's clock: what an agent says of itself has no part in it. `None` where
    /// the attempt did not succeed: that teaches nothing but that the agent has a slot again.
    pub took_ms: Option<u64>,
}

/// How many things an attempt is said to be given, at most: one bit of [`Offer::has`] for each.
pub const WANTED_MAX: usize = 64;

/// Bytes that an attempt is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Wanted {
    /// Which.
    pub digest: Digest,
    /// How many; `None` where the orchestrator does not know.
    pub bytes: Option<u64>,
}

/// Asks agents for offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Announcement {
    /// What the orchestrator asked.
    pub request: AuctionRequest,
}

/// An agent's answer to an announcement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Offer {
    /// The price of a second of the agent, in millionths of the installation's currency unit; 0 for one's own laptop.
    pub price_micros_per_s: u64,
    /// How long until the first step would start, in milliseconds.
    pub start_ms: u64,
    /// What is kept for the winner.
    pub reservation: Reservation,
    /// Of [`AuctionRequest::wants`], which it has already: the lowest bit stands for the first.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub has: u64,
    /// How much of the agent others have, in thousandths of its slots.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub load_permille: u64,
}

impl Offer {
    /// Of an agent that has nothing and is idle.
    pub fn new(price_micros_per_s: u64, start_ms: u64, reservation: Reservation) -> Self {
        Self { price_micros_per_s, start_ms, reservation, has: 0, load_permille: 0 }
    }

    /// What makes no sense of it as an answer to this request, for people; `None` if it may be true.
    pub fn absurd(&self, request: &AuctionRequest) -> Option<&'static str> {
        let wanted = u32::try_from(request.wants.len()).unwrap_or(u32::MAX);
        let beyond = self.has.checked_shr(wanted).unwrap_or_default();
        if self.start_ms > START_MS_MAX {
            Some("its offer would begin in more than a day")
        } else if self.load_permille > 1_000 {
            Some("its offer says that more than all of it is busy")
        } else if beyond > 0 {
            Some("its offer has what was not asked for")
        } else if self.reservation == Reservation::Handover && request.after.is_empty() {
            Some("its offer hands over a slot, and the attempt comes after none")
        } else {
            None
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What an offer keeps free.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Reservation {
    /// A free slot, for [`OFFER_VALID_MS`] from the offer.
    Slot,
    /// The slot of an attempt that this one comes after: from that attempt's end it is kept for [`OFFER_VALID_MS`].
    Handover,
    /// Nothing: a quote for an attempt that cannot start yet. The award may be declined.
    Quote,
}

/// The longest until a first step that an offer may name, in milliseconds: a day. What takes longer is no offer.
pub const START_MS_MAX: u64 = 24 * 60 * 60 * 1_000;

/// How long an agent keeps a slot for an offer, in milliseconds, by its own clock. A winner that has not taken the award
/// up when this long has passed since the award has, by its own clock, given the slot free: the attempt can be placed elsewhere.
pub const OFFER_VALID_MS: u64 = 2_000;

/// An offer as it is kept with the award.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RankedOffer {
    /// Who made it.
    pub agent: AgentName,
    /// The offer.
    pub offer: Offer,
}

/// What the auctioneer answers the orchestrator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Proposal {
    /// The auction.
    pub auction: AuctionId,
    /// What is to be placed.
    pub attempt: AttemptId,
    /// The offers, the best first; empty if there is none.
    pub offers: Vec<RankedOffer>,
    /// Agents that could not, and why: the answer to "why is this still waiting?".
    pub declined: Vec<Declined>,
    /// What no agent has, for people, where there is no offer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unmet: Vec<String>,
    /// When the auction closed.
    pub closed_at: Timestamp,
}

/// An agent that made no offer, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Declined {
    /// The agent.
    pub agent: AgentName,
    /// What is missing, for people.
    pub reason: String,
}
