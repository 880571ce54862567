//! Slots, offers and leases.
//!
//! A slot is free, reserved for an offer, running an attempt, or *kept*: after the end of an attempt, for the winner of an auction that came
//! after it.
//!
//! ```text
//!          offer              accept              finished
//!   free ─────────▶ reserved ─────────▶ running ───────────▶ kept (if an offer waits for it) ─▶ running
//!    ▲                 │ OFFER_VALID_MS                │        │ OFFER_VALID_MS
//!    └─────────────────┴───────────────────────────────┴────────┘
//! ```
//!
//! **Invariant:** reserved + running + kept slots are never more than there are, and no lease is started twice.
//!
//! **Why a late award is never taken up.** The orchestrator places an attempt anew once [`OFFER_VALID_MS`] and a margin have passed since the
//! award without a word of the winner, so what is taken up must be younger than that. An agent cannot see the time of an award; it
//! knows two times that are not later than it: that of its offer, and the end of an attempt that the awarded one comes after and that ran
//! here. Within [`OFFER_VALID_MS`] of the later of the two (by a clock that counts through SIGSTOP and suspension) every award is young
//! enough, whatever happened to the process or to the bus in between. Past that, a stage that must not start twice (`once`) is always
//! declined. One that is `safe`, whose predecessor may have ended elsewhere a moment ago, is taken up while a slot is free and
//! the process has not been standing still ([`super::pulse`]): if the award is old all the same, because the bus held it back, its fence is
//! superseded, its results change nothing, and a cancel follows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use model::{
    AgentName, AttemptId, AuctionId,
    capability::{Facts, missing},
    plan::Effect,
    protocol::{
        agent::Lease,
        auction::{AuctionRequest, Bid, OFFER_VALID_MS, Offer, Reservation},
    },
};

use super::pulse::Pulse;

/// Offers that are remembered at once: far more than an agent wins, and about a megabyte. The oldest gives way; its award would be declined.
const OFFERS_MAX: usize = 4096;
/// How long an offer without a reserved slot is remembered, in milliseconds: an hour. What it waits for takes longer only seldom, and then
/// the award is declined and the stage auctioned again.
const OFFER_MEMORY_MS: u64 = 60 * 60 * 1000;
/// Attempts that are remembered after their end, so that a late copy of their assignment starts nothing.
const ATTEMPTS_MAX: usize = 4096;
/// How often offers that nobody can win any more are looked for, in milliseconds.
const SWEEP_MS: u64 = 1_000;

/// What an agent says of itself.
#[derive(Debug)]
pub(crate) struct Terms {
    /// Its name.
    pub(crate) agent: AgentName,
    /// How many stages it runs at once.
    pub(crate) slots: u32,
    /// The price of a second, in millionths of the currency unit.
    pub(crate) price_micros_per_s: u64,
    /// What it is and has. It becomes more while it looks around, and never less.
    pub(crate) facts: Facts,
}

/// What becomes of an assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Start it. What ran under an older fence is to be ended without a word.
    Start {
        /// That older lease.
        superseded: Option<Lease>,
    },
    /// This very lease runs or has run: send its report again.
    Again,
    /// A newer fence of the attempt is known: say nothing.
    Outdated,
    /// It is not taken up, and never will be under this fence.
    Decline {
        /// Why.
        reason: String,
        /// What ran under an older fence is to be ended all the same.
        superseded: Option<Lease>,
    },
}

#[derive(Debug)]
struct OfferMade {
    auction: AuctionId,
    at: u64,
    reservation: Reservation,
    after: Vec<AttemptId>,
}

#[derive(Debug)]
struct Known {
    fence: u64,
    fate: Fate,
}

#[derive(Debug)]
enum Fate {
    Running,
    Ended { at: u64 },
    Declined { reason: String },
}

/// The state.
#[derive(Debug)]
pub(crate) struct Slots {
    terms: Terms,
    pulse: Pulse,
    offers: BTreeMap<AttemptId, OfferMade>,
    /// Until when a slot is reserved for an attempt.
    reserved: BTreeMap<AttemptId, u64>,
    running: BTreeSet<Lease>,
    /// Until when the slot of an ended attempt is kept for one that comes after it.
    kept: BTreeMap<AttemptId, u64>,
    attempts: BTreeMap<AttemptId, Known>,
    /// The keys of `attempts`, the oldest first.
    order: VecDeque<AttemptId>,
    sweep_at: u64,
    /// Nothing new is taken up.
    leaving: bool,
}

/// Why an agent that is about to end takes nothing.
const LEAVING: &str = "this agent is about to end";

impl Slots {
    /// All free.
    pub(crate) fn new(terms: Terms, now: u64) -> Self {
        Self {
            terms,
            pulse: Pulse::new(now),
            offers: BTreeMap::new(),
            reserved: BTreeMap::new(),
            running: BTreeSet::new(),
            kept: BTreeMap::new(),
            attempts: BTreeMap::new(),
            order: VecDeque::new(),
            sweep_at: now,
            leaving: false,
        }
    }

    /// From now on nothing is offered or taken up.
    pub(crate) fn leave(&mut self) {
        self.leaving = true;
    }

    /// From now on this is also so.
    pub(crate) fn learn(&mut self, facts: Facts) {
        self.terms.facts.extend(facts);
    }

    /// What does not change.
    pub(crate) fn terms(&self) -> &Terms {
        &self.terms
    }

    /// To be called whenever the agent wakes, before anything else.
    pub(crate) fn wake(&mut self, now: u64) {
        self.pulse.observe(now);
        self.expire(now);
    }

    /// To be called before the agent sleeps. Gives back whether it must wake again within [`super::pulse::PULSE_MS`].
    pub(crate) fn rest(&mut self) -> bool {
        let beating = !self.offers.is_empty();
        self.pulse.rest(beating);
        beating
    }

    /// Slots that nobody has a claim on.
    pub(crate) fn free(&self) -> u32 {
        if self.leaving {
            return 0;
        }
        let taken = self.reserved.len() + self.running.len() + self.kept.len();
        self.terms.slots.saturating_sub(u32::try_from(taken).unwrap_or(u32::MAX))
    }

    /// Answers an auction. The same question, asked again while its offer stands, gets the same answer, and no more time.
    pub(crate) fn offer(&mut self, request: &AuctionRequest, now: u64) -> Bid {
        self.expire(now);
        if self.pulse.is_suspect(now) && self.offers.contains_key(&request.attempt) {
            // An award for the offer before may stand behind this announcement in the inbox: a fresh offer would make it look young.
            return Bid::Decline { reason: "this agent stood still for a while".to_owned() };
        }
        match self.reserve(request, now) {
            Ok(reservation) => {
                let start_ms = u64::from(reservation == Reservation::Quote);
                let load_permille = self.load_permille(&reservation);
                Bid::Offer(Offer { load_permille, ..Offer::new(self.terms.price_micros_per_s, start_ms, reservation) })
            }
            Err(reason) => {
                self.withdraw(&request.attempt);
                Bid::Decline { reason }
            }
        }
    }

    /// How much of the agent others have while an attempt with this reservation runs, in thousandths.
    fn load_permille(&self, reservation: &Reservation) -> u64 {
        let own = match reservation {
            // Its own slot is among those that are taken, or that of the attempt before it is.
            Reservation::Slot | Reservation::Handover => 1,
            Reservation::Quote => 0,
        };
        let others = self.terms.slots.saturating_sub(self.free()).saturating_sub(own);
        u64::from(others) * 1_000 / u64::from(self.terms.slots.max(1))
    }

    fn reserve(&mut self, request: &AuctionRequest, now: u64) -> Result<Reservation, String> {
        let attempt = &request.attempt;
        if self.leaving {
            return Err(LEAVING.to_owned());
        }
        if request.except.contains(&self.terms.agent) {
            return Err("it has declined or lost this attempt".to_owned());
        }
        if let Some(missing) = missing(&request.requires, &self.terms.facts) {
            return Err(missing);
        }
        if self.running.iter().any(|lease| &lease.attempt == attempt) {
            return Err("this attempt runs here already".to_owned());
        }
        if let Some(before) = self.offers.get(attempt) {
            let same = before.auction == request.auction && before.after == request.after;
            if same && now < self.valid_until(before) {
                return Ok(before.reservation.clone());
            }
            self.withdraw(attempt);
        }
        let reservation = self.choose(request, now)?;
        if reservation == Reservation::Slot {
            self.reserved.insert(attempt.clone(), now + OFFER_VALID_MS);
        }
        self.remember_offer(request, reservation.clone(), now);
        Ok(reservation)
    }

    fn choose(&mut self, request: &AuctionRequest, now: u64) -> Result<Reservation, String> {
        let busy = || format!("all {} slots are busy", self.terms.slots);
        if request.after.is_empty() {
            return if self.free() > 0 { Ok(Reservation::Slot) } else { Err(busy()) };
        }
        if request.after.iter().any(|before| self.running.iter().any(|lease| &lease.attempt == before)) {
            return Ok(Reservation::Handover);
        }
        // It has ended here, and whoever asked did not know yet.
        let ended = request.after.iter().find(|before| self.ended_at(before).is_some_and(|at| now < at + OFFER_VALID_MS));
        if let Some(ended) = ended
            && (self.free() > 0 || self.kept.contains_key(ended))
        {
            self.kept.insert(ended.clone(), now + OFFER_VALID_MS);
            return Ok(Reservation::Handover);
        }
        if self.free() > 0 { Ok(Reservation::Quote) } else { Err(busy()) }
    }

    /// Decides about an assignment. What is accepted runs from now on.
    pub(crate) fn accept(&mut self, lease: &Lease, effect: Effect, now: u64) -> Verdict {
        self.expire(now);
        let mut superseded = None;
        if let Some(known) = self.attempts.get(&lease.attempt) {
            if lease.fence < known.fence {
                return Verdict::Outdated;
            }
            if lease.fence == known.fence {
                return match &known.fate {
                    Fate::Running | Fate::Ended { .. } => Verdict::Again,
                    Fate::Declined { reason } => Verdict::Decline { reason: reason.clone(), superseded: None },
                };
            }
            let older = Lease { attempt: lease.attempt.clone(), fence: known.fence };
            superseded = Some(older).filter(|older| self.running.contains(older));
        }
        match self.place(lease, effect, now) {
            Ok(()) => {
                self.running.insert(lease.clone());
                self.remember(lease, Fate::Running);
                Verdict::Start { superseded }
            }
            Err(reason) => {
                self.remember(lease, Fate::Declined { reason: reason.clone() });
                Verdict::Decline { reason, superseded }
            }
        }
    }

    fn place(&mut self, lease: &Lease, effect: Effect, now: u64) -> Result<(), String> {
        if self.leaving {
            self.reserved.remove(&lease.attempt);
            self.withdraw(&lease.attempt);
            return Err(LEAVING.to_owned());
        }
        let offer = self.offers.get(&lease.attempt).ok_or("this agent has made no offer for it since it started")?;
        let fresh = now < self.basis(offer) + OFFER_VALID_MS;
        let slot = offer.reservation == Reservation::Slot;
        let kept = offer.after.iter().find(|before| self.kept.contains_key(*before)).cloned();
        self.reserved.remove(&lease.attempt);
        if !fresh && (slot || effect == Effect::Once || self.pulse.is_suspect(now)) {
            self.withdraw(&lease.attempt);
            return Err("the award came after the offer's time".to_owned());
        }
        if let Some(kept) = kept {
            self.kept.remove(&kept);
        }
        self.withdraw(&lease.attempt);
        if self.free() == 0 {
            return Err(format!("all {} slots are busy", self.terms.slots));
        }
        Ok(())
    }

    /// Every process of an attempt has ended: its slot is free, or kept for those that come after it.
    pub(crate) fn finished(&mut self, lease: &Lease, now: u64) {
        self.expire(now);
        if !self.running.remove(lease) {
            return;
        }
        let Some(known) = self.attempts.get_mut(&lease.attempt).filter(|known| known.fence == lease.fence) else { return };
        known.fate = Fate::Ended { at: now };
        if self.is_wanted(&lease.attempt) {
            self.kept.insert(lease.attempt.clone(), now + OFFER_VALID_MS);
        }
    }

    /// An accepted attempt could not even be written down; nothing of it was started.
    pub(crate) fn refuse(&mut self, lease: &Lease, reason: &str) {
        self.running.remove(lease);
        self.remember(lease, Fate::Declined { reason: reason.to_owned() });
    }

    /// An attempt of an earlier life of the agent, whose processes have all ended.
    pub(crate) fn recover(&mut self, lease: &Lease, now: u64) {
        if self.attempts.get(&lease.attempt).is_none_or(|known| known.fence < lease.fence) {
            self.remember(lease, Fate::Ended { at: now });
        }
    }

    /// Somebody wants the end of a lease that was never taken up: neither is it later. Gives the reason for a report, if one is due.
    pub(crate) fn cancel_unknown(&mut self, lease: &Lease) -> Option<String> {
        let reason = "nothing of it runs here".to_owned();
        match self.attempts.get(&lease.attempt) {
            Some(known) if known.fence == lease.fence => match &known.fate {
                Fate::Declined { reason } => Some(reason.clone()),
                Fate::Running | Fate::Ended { .. } => None,
            },
            Some(known) if known.fence > lease.fence => Some(reason),
            Some(_) | None => {
                self.withdraw(&lease.attempt);
                self.remember(lease, Fate::Declined { reason: reason.clone() });
                Some(reason)
            }
        }
    }

    /// Lets go of what nobody can claim any more.
    fn expire(&mut self, now: u64) {
        self.reserved.retain(|_, until| now < *until);
        self.kept.retain(|_, until| now < *until);
        if now < self.sweep_at || self.pulse.is_suspect(now) {
            return; // What was offered before a standstill is not forgotten before its awards were read.
        }
        self.sweep_at = now + SWEEP_MS;
        let old: Vec<AttemptId> =
            self.offers.iter().filter(|(_, offer)| now >= self.forget_at(offer)).map(|(attempt, _)| attempt.clone()).collect();
        for attempt in old {
            self.withdraw(&attempt);
        }
    }

    /// A time that is not later than any award of this offer; see the module's first words.
    fn basis(&self, offer: &OfferMade) -> u64 {
        offer.after.iter().filter_map(|before| self.ended_at(before)).max().unwrap_or(0).max(offer.at)
    }

    fn valid_until(&self, offer: &OfferMade) -> u64 {
        if self.waits_here(offer) { u64::MAX } else { self.basis(offer) + OFFER_VALID_MS }
    }

    fn forget_at(&self, offer: &OfferMade) -> u64 {
        let valid_until = self.valid_until(offer);
        // A lapsed reservation is remembered a while for the answer to a late award, and to keep the pulse beating that long.
        valid_until.saturating_add(if offer.reservation == Reservation::Slot { OFFER_VALID_MS } else { OFFER_MEMORY_MS })
    }

    fn waits_here(&self, offer: &OfferMade) -> bool {
        offer.reservation == Reservation::Handover
            && offer.after.iter().any(|before| self.running.iter().any(|lease| &lease.attempt == before))
    }

    fn ended_at(&self, attempt: &AttemptId) -> Option<u64> {
        match self.attempts.get(attempt)?.fate {
            Fate::Ended { at } => Some(at),
            Fate::Running | Fate::Declined { .. } => None,
        }
    }

    fn is_wanted(&self, attempt: &AttemptId) -> bool {
        self.offers.values().any(|offer| offer.reservation == Reservation::Handover && offer.after.contains(attempt))
    }

    /// Takes an offer back, and the slots that were kept for nobody else.
    fn withdraw(&mut self, attempt: &AttemptId) {
        self.reserved.remove(attempt);
        let Some(offer) = self.offers.remove(attempt) else { return };
        for before in offer.after {
            if self.kept.contains_key(&before) && !self.is_wanted(&before) {
                self.kept.remove(&before);
            }
        }
    }

    fn remember_offer(&mut self, request: &AuctionRequest, reservation: Reservation, now: u64) {
        if self.offers.len() >= OFFERS_MAX
            && let Some(oldest) = self.offers.iter().min_by_key(|(_, offer)| offer.at).map(|(attempt, _)| attempt.clone())
        {
            self.withdraw(&oldest);
        }
        let made = OfferMade { auction: request.auction.clone(), at: now, reservation, after: request.after.clone() };
        self.offers.insert(request.attempt.clone(), made);
    }

    fn remember(&mut self, lease: &Lease, fate: Fate) {
        if self.attempts.insert(lease.attempt.clone(), Known { fence: lease.fence, fate }).is_some() {
            return;
        }
        self.order.push_back(lease.attempt.clone());
        if self.order.len() > ATTEMPTS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            if matches!(self.attempts.get(&oldest), Some(Known { fate: Fate::Running, .. })) {
                self.order.push_back(oldest);
            } else {
                self.attempts.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests;
