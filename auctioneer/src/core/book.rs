//! The book of auctions: those that are open, and the last ones that were closed.
//!
//! An auction closes
//! - when all agents that are expected have answered, and somebody offers (or nobody is left who was asked);
//! - else a short while after the first offer that reserves something: about as long as this fleet's answers take;
//! - else after [`LONGEST_WAIT`];
//! - and at once, where no agent that is known could run the attempt, and the fleet is too large to be called as a whole.
//!
//! Auctions for attempts that cannot start yet close by the same rule: a stage may be over before a slower rule had its answer.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use model::{
    AgentName, AuctionId, Timestamp,
    protocol::{
        agent::AgentStatus,
        auction::{Announcement, AuctionRequest, Bid, OFFER_VALID_MS, Offer, Proposal, Ran, Reservation},
        enrolment::RollPage,
    },
};

use super::{
    auction::{Auction, Standing},
    roster::{Audience, Roster},
    times::Times,
};

/// How long an auction without an offer that reserves something stays open. A stage that nobody can run now loses nothing by it, and an
/// agent on the other side of the world has its answer here.
pub const LONGEST_WAIT: Duration = Duration::from_millis(250);
/// Auctions that are open at once: what an orchestrator asks for in one breath. One more is not held; it is asked for again.
pub const OPEN_MAX: usize = 1_024;
/// Closed auctions that are remembered, for requests that come twice and bids that come late.
pub const CLOSED_MAX: usize = 1_024;
/// Agents that an auction names which it did not ask, as they lack something, where nobody answered.
const LACKING_MAX: usize = 16;
/// A request that comes again has the same proposal for this long. Afterwards the offers would be over before the award arrives.
pub const FRESH: Duration = Duration::from_millis(OFFER_VALID_MS / 2);

/// The time, as it is handed in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Now {
    /// Since some fixed point, by a clock that never goes back.
    pub elapsed: Duration,
    /// The time of day.
    pub at: Timestamp,
}

/// What the book is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// An attempt is to be placed.
    Requested(AuctionRequest),
    /// An agent answered.
    Bid {
        /// Who: taken from the subject, never from the message.
        agent: AgentName,
        /// Which auction: taken from the subject.
        auction: AuctionId,
        /// What.
        bid: Bid,
    },
    /// An agent answered what it was not asked, or has answered already, or too late, or what nobody can read.
    Late {
        /// Who: taken from the subject, never from the message.
        agent: AgentName,
        /// Which auction: taken from the subject.
        auction: AuctionId,
    },
    /// An agent said what it is and has.
    Showed {
        /// Who: taken from the subject, never from the message.
        agent: AgentName,
        /// What.
        status: Box<AgentStatus>,
    },
    /// An agent said something else.
    Heard(AgentName),
    /// It was said who is enrolled.
    Enrolled(RollPage),
    /// An attempt has ended.
    Ran(Ran),
    /// [`Book::deadline`] has come.
    TimePassed,
}

/// What is to be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// To the agents.
    Announce {
        /// What.
        announcement: Announcement,
        /// To which of them.
        to: Audience,
    },
    /// To the orchestrator.
    Propose(Proposal),
    /// To nobody: [`OPEN_MAX`] auctions are open, and this one is not held.
    Refuse(AuctionId),
}

/// All auctions.
#[derive(Debug, Default)]
pub struct Book {
    roster: Roster,
    times: Times,
    open: BTreeMap<AuctionId, Auction>,
    /// When each open auction closes at the latest.
    deadlines: BTreeSet<(Duration, AuctionId)>,
    closed: BTreeMap<AuctionId, Closed>,
    /// The keys of `closed`, the oldest first; one that was opened again stands here twice, and goes with the first.
    closed_order: VecDeque<AuctionId>,
}

#[derive(Debug)]
struct Closed {
    request: AuctionRequest,
    proposal: Proposal,
    opened_at: Duration,
    ended_at: Duration,
}

impl Book {
    /// Of agents that get only what they were enrolled for; they get nothing until it is said what that is.
    pub fn with_roll() -> Self {
        Self { roster: Roster::with_roll(), ..Self::default() }
    }

    /// Whether a bid of the agent in this auction counts. If not, it need not be read.
    pub fn waits_for(&self, agent: &AgentName, id: &AuctionId) -> bool {
        let open = self.open.get(id).filter(|auction| auction.waits_for(agent));
        open.is_some_and(|auction| self.roster.may_have(agent, &auction.request))
    }

    /// Takes an input, and gives what is to be said, in this order. `now.elapsed` never goes back.
    pub fn take(&mut self, input: Input, now: Now) -> Vec<Effect> {
        match input {
            Input::Requested(request) => self.requested(request, now),
            Input::Bid { agent, auction, bid } => self.bid(&agent, &auction, bid, now),
            Input::Late { agent, auction } => {
                self.roster.heard(&agent, now.elapsed);
                self.late(&auction, now);
                vec![]
            }
            Input::Heard(agent) => {
                self.roster.heard(&agent, now.elapsed);
                vec![]
            }
            Input::Showed { agent, status } => {
                self.roster.showed(&status, &agent, now.elapsed);
                vec![]
            }
            Input::Enrolled(page) => {
                self.roster.enrolled(page);
                vec![]
            }
            Input::Ran(ran) => {
                self.roster.is_full(&ran.agent, false);
                self.times.learn(&ran);
                vec![]
            }
            Input::TimePassed => self.time_passed(now),
        }
    }

    /// When [`Input::TimePassed`] is due; `None` if no auction is open.
    pub fn deadline(&self) -> Option<Duration> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    fn requested(&mut self, request: AuctionRequest, now: Now) -> Vec<Effect> {
        if let Some(open) = self.open.get(&request.auction) {
            if open.request == request {
                return vec![];
            }
            // An orchestrator that was restarted counts its rounds anew: what it asks now is what counts.
            self.remove(&request.auction);
        }
        if let Some(closed) = self.closed.get(&request.auction)
            && closed.request == request
            && !closed.proposal.offers.is_empty()
            && now.elapsed.saturating_sub(closed.ended_at) < FRESH
        {
            return vec![Effect::Propose(closed.proposal.clone())];
        }
        if self.open.len() >= OPEN_MAX {
            return vec![Effect::Refuse(request.auction)];
        }
        // What it was answered before is over: the one who asks has seen it.
        self.closed.remove(&request.auction);
        let asked = self.roster.ask(&request, &self.times, now.elapsed);
        let to = asked.audience.clone();
        let auction = Auction::new(request.clone(), asked, now.elapsed, self.roster.turn(), LONGEST_WAIT);
        self.deadlines.insert((auction.closes_at, request.auction.clone()));
        self.open.insert(request.auction.clone(), auction);
        if matches!(&to, Audience::Agents(agents) if agents.is_empty()) {
            return self.close(&request.auction, now).into_iter().collect();
        }
        vec![Effect::Announce { announcement: Announcement { request }, to }]
    }

    fn bid(&mut self, agent: &AgentName, id: &AuctionId, bid: Bid, now: Now) -> Vec<Effect> {
        self.roster.heard(agent, now.elapsed);
        if !self.waits_for(agent, id) {
            self.late(id, now);
            return vec![];
        }
        let Some(auction) = self.open.get_mut(id) else { return vec![] };
        let lacks = if matches!(bid, Bid::Offer(_)) { self.roster.lacks(agent, &auction.request.requires) } else { None };
        let bid = lacks.map_or(bid, |lacks| Bid::Decline { reason: format!("its offer is not what it says of itself: {lacks}") });
        let full = match &bid {
            Bid::Offer(Offer { reservation: Reservation::Slot | Reservation::Quote, .. }) => Some(false),
            Bid::Offer(Offer { reservation: Reservation::Handover, .. }) => None,
            Bid::Decline { .. } => Some(true),
        };
        let standing = auction.bid(agent, bid);
        if standing == Standing::Ignored {
            return vec![];
        }
        if let Some(full) = full {
            self.roster.is_full(agent, full);
        }
        self.roster.answered(now.elapsed.saturating_sub(auction.opened_at));
        if auction.is_complete() {
            return self.close(id, now).into_iter().collect();
        }
        if standing == Standing::FirstGood {
            self.deadlines.remove(&(auction.closes_at, id.clone()));
            auction.closes_at = auction.closes_at.min(now.elapsed.saturating_add(self.roster.wait()));
            self.deadlines.insert((auction.closes_at, id.clone()));
        }
        vec![]
    }

    /// A bid after its auction: it counts only for how long answers take, or the slow would never be seen. What took longer than an auction
    /// can says nothing of the next one: the agent was stopped, or the message lay somewhere.
    fn late(&mut self, id: &AuctionId, now: Now) {
        let took = self.closed.get(id).map(|closed| now.elapsed.saturating_sub(closed.opened_at));
        if let Some(took) = took.filter(|took| *took <= LONGEST_WAIT) {
            self.roster.answered(took);
        }
    }

    fn time_passed(&mut self, now: Now) -> Vec<Effect> {
        let mut effects = Vec::new();
        while let Some((at, id)) = self.deadlines.first().cloned()
            && at <= now.elapsed
        {
            effects.extend(self.close(&id, now));
        }
        effects
    }

    fn close(&mut self, id: &AuctionId, now: Now) -> Option<Effect> {
        let auction = self.remove(id)?;
        for agent in &auction.missing.expected {
            self.roster.missed(agent, auction.opened_turn);
        }
        let mut proposal = auction.close(&self.times, now.at);
        if proposal.offers.is_empty() {
            proposal.unmet = self.roster.unmet(&auction.request);
            if proposal.declined.is_empty() {
                proposal.declined = self.roster.lacking(&auction.request).take(LACKING_MAX).collect();
            }
        }
        let opened_at = auction.opened_at;
        let closed = Closed { request: auction.request, proposal: proposal.clone(), opened_at, ended_at: now.elapsed };
        if self.closed.insert(id.clone(), closed).is_none() {
            self.closed_order.push_back(id.clone());
        }
        if self.closed_order.len() > CLOSED_MAX
            && let Some(oldest) = self.closed_order.pop_front()
        {
            self.closed.remove(&oldest);
        }
        Some(Effect::Propose(proposal))
    }

    fn remove(&mut self, id: &AuctionId) -> Option<Auction> {
        let auction = self.open.remove(id)?;
        self.deadlines.remove(&(auction.closes_at, id.clone()));
        Some(auction)
    }
}

#[cfg(test)]
mod tests;
