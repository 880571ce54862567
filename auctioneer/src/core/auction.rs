//! One open auction: who was asked, who answered, and whether that is enough.

use std::{collections::BTreeMap, time::Duration};

use model::{
    AgentName, Timestamp,
    protocol::auction::{AuctionRequest, Bid, Declined, Offer, Proposal, RankedOffer, Reservation},
};

use super::{
    rank::rank,
    roster::{Asked, Audience},
    times::Times,
};

/// Bids that one auction takes; with so many it closes. More than [`WHOLE_MAX`](super::roster::WHOLE_MAX) come only where an auctioneer
/// does not know its fleet yet, and calls the whole class.
pub(super) const BIDS_MAX: usize = 1_024;
/// Offers in a proposal. They are kept with the award, in a record that may hold some dozens of awards and has less than 1 MiB.
pub(super) const OFFERS_MAX: usize = 64;
/// Agents in a proposal that could not, and why: more than a person reads.
pub(super) const DECLINED_MAX: usize = 64;
/// Characters of an agent's reason. It is a sentence for a person, and comes from outside.
pub(super) const REASON_CHARACTERS_MAX: usize = 200;

const NO_ANSWER: &str = "did not answer in time";
const SILENT: &str = "not asked: it did not answer the last time, and has said nothing since";
const NOT_ASKED: &str = "not asked: it turned this attempt down, or lost it";

/// An auction that is open.
#[derive(Debug)]
pub(super) struct Auction {
    pub(super) request: AuctionRequest,
    pub(super) opened_at: Duration,
    /// Where the roster's voices stood when it began.
    pub(super) opened_turn: u64,
    /// It closes then, whatever comes.
    pub(super) closes_at: Duration,
    /// Those asked that have not answered yet.
    pub(super) missing: Asked,
    /// Somebody was asked whose answer means that all that answer have answered.
    expects: bool,
    /// Somebody was asked at all.
    knows: bool,
    bids: BTreeMap<AgentName, Bid>,
    offers: usize,
    reserved: bool,
}

/// What a bid means to its auction.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It does not count: the agent was not asked, or has bid already.
    Ignored,
    /// It counts.
    Taken,
    /// It counts, and is the first offer with something reserved: the wait for better ones begins.
    FirstGood,
}

impl Auction {
    pub(super) fn new(request: AuctionRequest, asked: Asked, opened_at: Duration, opened_turn: u64, longest: Duration) -> Self {
        Self {
            request,
            opened_at,
            opened_turn,
            closes_at: opened_at.saturating_add(longest),
            expects: !asked.expected.is_empty(),
            knows: !asked.expected.is_empty() || !asked.silent.is_empty(),
            missing: asked,
            bids: BTreeMap::new(),
            offers: 0,
            reserved: false,
        }
    }

    /// Whether a bid of the agent would count: it was asked, and has not answered yet.
    pub(super) fn waits_for(&self, agent: &AgentName) -> bool {
        self.has_asked(agent) && self.bids.len() < BIDS_MAX && !self.bids.contains_key(agent)
    }

    fn has_asked(&self, agent: &AgentName) -> bool {
        match &self.missing.audience {
            Audience::Class => !self.request.except.contains(agent),
            Audience::Agents(agents) => agents.contains(agent),
        }
    }

    /// Takes the first bid of an agent that was asked.
    pub(super) fn bid(&mut self, agent: &AgentName, bid: Bid) -> Standing {
        if !self.waits_for(agent) {
            return Standing::Ignored;
        }
        let bid = match bid {
            Bid::Offer(offer) => match offer.absurd(&self.request) {
                None => Bid::Offer(offer),
                Some(why) => Bid::Decline { reason: why.to_owned() },
            },
            Bid::Decline { reason } => Bid::Decline { reason: reason.chars().take(REASON_CHARACTERS_MAX).collect() },
        };
        let good = matches!(&bid, Bid::Offer(Offer { reservation: Reservation::Slot | Reservation::Handover, .. }));
        self.offers += usize::from(matches!(bid, Bid::Offer(_)));
        self.bids.insert(agent.clone(), bid);
        self.missing.expected.remove(agent);
        self.missing.silent.remove(agent);
        if good && !self.reserved {
            self.reserved = true;
            return Standing::FirstGood;
        }
        Standing::Taken
    }

    /// Whether nothing is left to wait for: all that were expected have answered, and one of them with an offer, or those that had fallen
    /// silent and were asked all the same have answered too. Where nobody is known, whoever answers may not be the last.
    pub(super) fn is_complete(&self) -> bool {
        let all_expected = self.missing.expected.is_empty();
        let offered = self.expects && self.offers > 0;
        let all_known = self.knows && !self.missing.silent.iter().any(|agent| self.has_asked(agent));
        (all_expected && (offered || all_known)) || self.bids.len() >= BIDS_MAX
    }

    /// What the orchestrator is told, but for what no agent has.
    pub(super) fn close(&self, times: &Times, closed_at: Timestamp) -> Proposal {
        let mut offers = Vec::new();
        let mut declined = Vec::new();
        for (agent, bid) in &self.bids {
            match bid {
                Bid::Offer(offer) => offers.push(RankedOffer { agent: agent.clone(), offer: offer.clone() }),
                Bid::Decline { reason } => declined.push(Declined { agent: agent.clone(), reason: reason.clone() }),
            }
        }
        let mut because = |agents: &mut dyn Iterator<Item = &AgentName>, reason: &str| {
            declined.extend(agents.map(|agent| Declined { agent: agent.clone(), reason: reason.to_owned() }));
        };
        let (asked, silent): (Vec<_>, Vec<_>) = self.missing.silent.iter().partition(|agent| self.has_asked(agent));
        because(&mut self.missing.expected.iter().chain(asked), NO_ANSWER);
        because(&mut silent.into_iter(), SILENT);
        because(&mut self.request.except.iter(), NOT_ASKED);
        declined.truncate(DECLINED_MAX);
        let mut offers = rank(offers, &self.request, times);
        offers.truncate(OFFERS_MAX);
        let AuctionRequest { auction, attempt, .. } = self.request.clone();
        Proposal { auction, attempt, offers, declined, unmet: Vec::new(), closed_at }
    }
}
