//! One run that is not over: its state, the inputs that wait for it, and what was said for it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use model::{
    AgentName, StageOutcome,
    event::run::WaitKey,
    protocol::{
        agent::{Lease, RESEND_MS, Report, ReportKind},
        auction::{OFFER_VALID_MS, Proposal, Reservation},
    },
};
use tokio::time::Instant;

use super::log::Tail;
use crate::core::{
    AttemptEnd, Effect, Input, Run,
    decide::Proposals,
    effects::{AHEAD_MAX, effects, effects_of},
    shape::Index,
};

/// How long what nobody waits for (a stage has begun, its output is stored) waits for company in its record.
pub(crate) const LAZY: Duration = Duration::from_millis(100);
/// Inputs that one record takes together.
pub(crate) const INPUTS_MAX: usize = 64;
/// Before an append is tried again that the bus did not take.
pub(crate) const APPEND_PAUSE: Duration = Duration::from_millis(500);
/// How long an ended run waits in memory for the outputs of its stages.
const LINGER: Duration = Duration::from_mins(1);
/// Before an auction that found nobody is held again, if no slot became free in the meantime.
pub(crate) const AUCTION_PAUSE: Duration = Duration::from_secs(1);
/// Before offers for a stage that cannot start yet are asked for again.
const AHEAD_PAUSE: Duration = Duration::from_secs(5);
/// Before who turned an attempt down is asked again. It doubles with each time: an agent that was slow once, or whose slot had just gone,
/// may be the only one there is.
const DECLINED_PAUSE: Duration = Duration::from_secs(1);
/// How often [`DECLINED_PAUSE`] doubles at most.
const DECLINED_DOUBLINGS_MAX: usize = 6;
/// How often the pause before an agent is told the same again doubles at most: one that has much to do is not given more by being asked.
const RESEND_DOUBLINGS_MAX: u32 = 3;
/// Between two looks at all that stands of a run.
const LOOK_PAUSE: Duration = Duration::from_millis(RESEND_MS);
/// Inputs of a run that wait. Reports beyond are dropped, as their agents say them again; the rest is few.
const WAITING_MAX: usize = 8 * 1024;
/// How much earlier than its agent the orchestrator holds an offer to be over: its way back takes time.
const OFFER_MARGIN: Duration = Duration::from_millis(300);
/// How long the winner has to say that it began. By then, by its own clock, its offer is over, and it never will.
pub(crate) const TAKE_UP: Duration = Duration::from_millis(OFFER_VALID_MS + 500);

/// A run, and all that is soft about it.
#[derive(Debug)]
pub(crate) struct OpenRun {
    pub(crate) run: Run,
    pub(crate) tail: Tail,
    /// How many records its log has.
    pub(crate) records: usize,
    /// By whom.
    pub(crate) worked_on: WorkedOn,
    /// A record is on its way to the log, or the log is being read again.
    pub(crate) busy: bool,
    /// What is known is not the log's end: it is replaced by what is read.
    pub(crate) reloading: bool,
    pub(crate) proposals: Proposals,
    inputs: VecDeque<Input>,
    /// What waits about each lease.
    about: BTreeMap<Lease, BTreeSet<About>>,
    waiting_since: Option<Instant>,
    urgent: bool,
    retry_at: Option<Instant>,
    stale_at: BTreeMap<Index, Instant>,
    /// By what there is one of at a time: the placement of a stage, or one of its waits.
    said: BTreeMap<(Index, Option<WaitKey>), Said>,
    rounds: BTreeMap<Index, u32>,
    ended_since: Option<Instant>,
    /// Inputs that the next record takes together, at most.
    together: usize,
    /// When everything that stands is looked at again.
    look_at: Option<Instant>,
}

/// Which orchestrator works on a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WorkedOn {
    /// This one.
    Here,
    /// Another, and the run's log is followed.
    Elsewhere,
}

/// Inputs about a lease, of which one at a time waits: whoever says something else says it again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum About {
    Report(AgentName, ReportKind),
    Lapsed,
    NotTakenUp,
}

/// An effect, and when it was said.
#[derive(Debug)]
struct Said {
    effect: Effect,
    first: Instant,
    last: Instant,
    /// How often.
    times: u32,
}

impl OpenRun {
    pub(crate) fn new(run: Run, tail: Tail) -> Self {
        Self {
            run,
            tail,
            records: 1,
            worked_on: WorkedOn::Elsewhere,
            busy: false,
            reloading: false,
            proposals: Proposals::new(),
            inputs: VecDeque::new(),
            about: BTreeMap::new(),
            waiting_since: None,
            urgent: false,
            retry_at: None,
            stale_at: BTreeMap::new(),
            said: BTreeMap::new(),
            rounds: BTreeMap::new(),
            ended_since: None,
            together: INPUTS_MAX,
            look_at: None,
        }
    }

    /// Whether this orchestrator works on it.
    pub(crate) fn is_own(&self) -> bool {
        self.worked_on == WorkedOn::Here
    }

    /// Another orchestrator works on it from now on: what is soft is forgotten.
    pub(crate) fn follow_only(&mut self) {
        let followed = Self::new(self.run.clone(), self.tail);
        *self = Self { reloading: self.reloading, ended_since: self.ended_since, records: self.records, ..followed };
    }

    /// Puts an input behind those that wait, unless it is among them: while the log cannot be written, everybody repeats itself.
    pub(crate) fn push(&mut self, input: Input, now: Instant) {
        let dropped = self.inputs.len() >= WAITING_MAX && matches!(input, Input::Report { .. });
        if dropped || self.waits_already(&input) {
            return;
        }
        self.urgent |= !self.is_lazy(&input);
        self.waiting_since.get_or_insert(now);
        self.inputs.push_back(input);
    }

    /// Whether such an input waits; if not, it is noted that it does from now on.
    fn waits_already(&mut self, input: &Input) -> bool {
        match about(input) {
            Some((lease, what)) => !self.about.entry(lease.clone()).or_default().insert(what),
            None => self.inputs.contains(input),
        }
    }

    /// The inputs that are to be decided now: all, as soon as one cannot wait.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Vec<Input>> {
        let waited = self.waiting_since.is_some_and(|since| now >= since + LAZY);
        if self.busy || self.retry_at.is_some_and(|at| now < at) || !(self.urgent || waited) {
            return None;
        }
        let inputs: Vec<Input> = self.inputs.drain(..self.inputs.len().min(self.together)).collect();
        for (lease, what) in inputs.iter().filter_map(about) {
            if let Some(waits) = self.about.get_mut(lease) {
                waits.remove(&what);
                if waits.is_empty() {
                    self.about.remove(lease);
                }
            }
        }
        if self.inputs.is_empty() {
            self.waiting_since = None;
            self.urgent = false;
        }
        self.retry_at = None;
        let stale = self.stale_at.extract_if(.., |_, at| now >= *at);
        for (at, _) in stale {
            self.proposals.remove(&at);
        }
        Some(inputs)
    }

    /// Puts inputs back that could not be decided, to be tried again after a pause.
    pub(crate) fn put_back(&mut self, inputs: Vec<Input>, now: Instant, pause: Duration) {
        self.retry_at = Some(now + pause);
        self.waiting_since.get_or_insert(now);
        self.urgent |= inputs.iter().any(|input| !self.is_lazy(input));
        for input in inputs.into_iter().rev() {
            // What was said again meanwhile waits in its later place.
            if !self.waits_already(&input) {
                self.inputs.push_front(input);
            }
        }
    }

    /// A record was stored.
    pub(crate) fn stored(&mut self, tail: Tail) {
        self.tail = tail;
        self.records += 1;
        self.busy = false;
        self.together = INPUTS_MAX;
    }

    /// What follows from these inputs together is too large for one record: they are taken in smaller parts. Gives the input that is too
    /// large by itself, which nothing can come of.
    pub(crate) fn divide(&mut self, mut inputs: Vec<Input>, now: Instant) -> Option<Input> {
        self.busy = false;
        if inputs.len() <= 1 {
            return inputs.pop();
        }
        self.together = inputs.len() / 2;
        self.put_back(inputs, now, Duration::ZERO);
        None
    }

    /// Takes a proposal for the stage at `at`; `true` if the stage waits for one, and this is none.
    pub(crate) fn propose(&mut self, at: Index, proposal: Proposal, now: Instant) -> bool {
        let reserved = proposal.offers.iter().any(|ranked| ranked.offer.reservation == Reservation::Slot);
        if reserved {
            self.stale_at.insert(at, now + Duration::from_millis(OFFER_VALID_MS) - OFFER_MARGIN);
        } else {
            self.stale_at.remove(&at);
        }
        let found = !proposal.offers.is_empty();
        self.proposals.insert(at, proposal);
        if found {
            self.push(Input::Proposed(at), now);
        }
        matches!(self.run.stages[at].status, crate::core::Status::Ready { .. }) && !found
    }

    /// What was not answered in time, and is to be said again now. All that stands is looked through for that, so not each time.
    pub(crate) fn unsaid_again(&mut self, now: Instant) -> Vec<(Effect, u32)> {
        if self.look_at.is_some_and(|at| now < at) {
            return Vec::new();
        }
        self.look_at = Some(now + LOOK_PAUSE);
        self.unsaid(now)
    }

    /// What is to be said now: what is new, and what was not answered in time. What has no cause any more is forgotten.
    pub(crate) fn unsaid(&mut self, now: Instant) -> Vec<(Effect, u32)> {
        let standing: BTreeMap<_, Effect> = effects(&self.run).into_iter().map(|effect| (effect.key(), effect)).collect();
        self.said.retain(|key, _| standing.contains_key(key));
        standing.into_values().filter_map(|effect| self.due_now(effect, now)).collect()
    }

    /// The same, of these stages alone: a run of thousands of stages is not looked through for each record.
    pub(crate) fn unsaid_of(&mut self, stages: &BTreeSet<Index>, now: Instant) -> Vec<(Effect, u32)> {
        let mut unsaid = Vec::new();
        let mut ahead = self.said.values().filter(|said| said.effect.is_ahead()).count();
        for &at in stages {
            let effects = effects_of(&self.run, at);
            let stale = self.said.range((at, None)..(at + 1, None)).map(|(key, _)| *key);
            let stale: Vec<_> = stale.filter(|key| effects.iter().all(|effect| effect.key() != *key)).collect();
            for key in stale {
                self.said.remove(&key);
            }
            for effect in effects {
                let is_another = effect.is_ahead() && !self.said.contains_key(&effect.key());
                // Otherwise its turn comes when all are looked at.
                if !is_another || ahead < AHEAD_MAX {
                    ahead += usize::from(is_another);
                    unsaid.extend(self.due_now(effect, now));
                }
            }
        }
        unsaid
    }

    fn due_now(&mut self, effect: Effect, now: Instant) -> Option<(Effect, u32)> {
        let key = effect.key();
        let said = self.said.get(&key).filter(|said| said.effect == effect);
        if said.is_some_and(|said| pause_of(&effect, said.times).is_none_or(|pause| now < said.last + pause)) || self.is_answered(&effect) {
            return None;
        }
        let (first, times) = said.map_or((now, 0), |said| (said.first, said.times));
        self.said.insert(key, Said { effect: effect.clone(), first, last: now, times: times + 1 });
        let round = match effect {
            Effect::Auction { at, .. } => self.next_round(at),
            Effect::Assign { .. } | Effect::Cancel { .. } | Effect::Poll { .. } => 0,
        };
        Some((asked(effect, now - first), round))
    }

    /// The auction of the stage at `at`, to be held again at once; `None` if the stage waits for none.
    pub(crate) fn auction_again(&mut self, at: Index, now: Instant) -> Option<(Effect, u32)> {
        let said =
            self.said.get_mut(&(at, None)).filter(|said| matches!(said.effect, Effect::Auction { .. }) && !said.effect.is_ahead())?;
        said.last = now;
        let effect = asked(said.effect.clone(), now - said.first);
        let round = self.next_round(at);
        Some((effect, round))
    }

    /// Leases whose award was said long ago and not taken up.
    pub(crate) fn not_taken_up(&self, now: Instant) -> Vec<Input> {
        let late = self.said.values().filter(|said| now >= said.first + TAKE_UP);
        late.filter_map(|said| match &said.effect {
            Effect::Assign { lease, .. } if !self.about.contains_key(lease) => Some(Input::NotTakenUp(lease.clone())),
            Effect::Assign { .. } | Effect::Auction { .. } | Effect::Cancel { .. } | Effect::Poll { .. } => None,
        })
        .collect()
    }

    /// The bus was away: nobody could answer, so the waiting begins anew.
    pub(crate) fn excuse(&mut self, now: Instant) {
        for said in self.said.values_mut() {
            said.first = now;
        }
    }

    /// Whether an answer to what the effect says waits already.
    fn is_answered(&self, effect: &Effect) -> bool {
        match effect {
            Effect::Assign { lease, .. } => self.about.contains_key(lease),
            Effect::Auction { .. } | Effect::Cancel { .. } | Effect::Poll { .. } => false,
        }
    }

    /// Whether nothing will come of looking at the run before something happens to it: it only waits.
    pub(crate) fn is_idle(&self) -> bool {
        let waits = self.run.ended.is_none() && self.run.active.is_empty();
        let asks_addresses_only = self.said.values().all(|said| matches!(said.effect, Effect::Poll { .. }));
        waits && asks_addresses_only && self.inputs.is_empty() && !self.busy && !self.reloading
    }

    /// Whether the run can leave memory: it has ended, its outputs are stored or late, and nothing is under way.
    pub(crate) fn is_done(&mut self, now: Instant) -> bool {
        if self.run.ended.is_none() || self.busy || !self.inputs.is_empty() {
            return false;
        }
        let since = *self.ended_since.get_or_insert(now);
        let stored = self.run.stages.iter().flat_map(|stage| &stage.attempts).all(|attempt| match &attempt.end {
            Some(AttemptEnd::Finished {
                outcome: StageOutcome::Success | StageOutcome::Unstable | StageOutcome::Failure | StageOutcome::Aborted,
                ..
            }) => attempt.log.is_some(),
            Some(AttemptEnd::Declined { .. } | AttemptEnd::Lost { .. }) | None => true,
        });
        stored || now >= since + LINGER
    }

    /// Whether nobody waits for what follows from the input. Who follows an ended run waits for the place of its output.
    fn is_lazy(&self, input: &Input) -> bool {
        match input {
            Input::Report { report, .. } => match report.report {
                Report::Started { .. } => true,
                Report::LogStored { .. } => self.run.ended.is_none(),
                Report::Declined { .. } | Report::Finished { .. } | Report::Lost { .. } | Report::RunRequested { .. } => false,
            },
            Input::Proposed(_)
            | Input::Cancel { .. }
            | Input::LeaseLapsed(_)
            | Input::AgentRevoked(_)
            | Input::NotTakenUp(_)
            | Input::Answered { .. }
            | Input::LockGranted(_)
            | Input::Held(_)
            | Input::Released
            | Input::TimePassed => false,
        }
    }

    fn next_round(&mut self, at: Index) -> u32 {
        let round = self.rounds.entry(at).or_default();
        *round += 1;
        *round
    }
}

/// The effect as it is said when it has stood for `stood`: who turned an attempt down is passed over for a while, and not for ever.
fn asked(effect: Effect, stood: Duration) -> Effect {
    let Effect::Auction { at, attempt, after, except } = effect else { return effect };
    let doublings = except.len().saturating_sub(1).min(DECLINED_DOUBLINGS_MAX);
    let except = if stood >= DECLINED_PAUSE * (1 << doublings) {
        Vec::new()
    } else {
        except.into_iter().collect::<BTreeSet<_>>().into_iter().collect()
    };
    Effect::Auction { at, attempt, after, except }
}

/// What an input is about, where it is about a lease.
fn about(input: &Input) -> Option<(&Lease, About)> {
    match input {
        Input::Report { agent, report } => Some((&report.lease, About::Report(agent.clone(), report.report.kind()))),
        Input::LeaseLapsed(lease) | Input::AgentRevoked(lease) => Some((lease, About::Lapsed)),
        Input::NotTakenUp(lease) => Some((lease, About::NotTakenUp)),
        Input::Proposed(_)
        | Input::Cancel { .. }
        | Input::Answered { .. }
        | Input::LockGranted(_)
        | Input::Held(_)
        | Input::Released
        | Input::TimePassed => None,
    }
}

/// Before the effect, which was said so many times, is said again; never, where who was told asks by itself.
fn pause_of(effect: &Effect, times: u32) -> Option<Duration> {
    match effect {
        Effect::Auction { after, .. } if after.is_empty() => Some(AUCTION_PAUSE),
        Effect::Auction { .. } => Some(AHEAD_PAUSE),
        Effect::Assign { .. } | Effect::Cancel { .. } => {
            let doublings = times.saturating_sub(1).min(RESEND_DOUBLINGS_MAX);
            Some(Duration::from_millis(RESEND_MS) * 2_u32.pow(doublings))
        }
        Effect::Poll { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::{
        Digest, Timestamp,
        event::run::{CancelReason, Planned},
        plan::Plan,
    };

    use super::*;
    use crate::core::{Position, Shape};

    fn open() -> OpenRun {
        let trigger = crate::core::tests::trigger();
        let shape = Arc::new(Shape::new(Plan::new(Vec::new())));
        let position = Position { sequence: 1, at: Timestamp(0) };
        OpenRun::new(Run::accepted(trigger.run(), trigger, Planned::plan(Digest::of(b"")), shape, position), Tail::default())
    }

    #[test]
    fn inputs_that_are_too_large_together_are_taken_in_smaller_parts_and_in_their_order() {
        let (mut open, now) = (open(), Instant::now());
        let inputs: Vec<Input> = (0..5).map(Input::Proposed).collect();
        for input in &inputs {
            open.push(input.clone(), now);
        }
        let together = open.due(now).unwrap();
        assert_eq!(together, inputs);
        assert_eq!(open.divide(together, now), None);
        let part = open.due(now).unwrap();
        assert_eq!(part, inputs[..2]);
        assert_eq!(open.divide(part, now), None);
        let one = open.due(now).unwrap();
        assert_eq!(open.divide(one, now), Some(Input::Proposed(0)), "nothing can come of it");
        open.stored(Tail::default());
        assert_eq!(open.due(now).unwrap(), inputs[1..]);
    }

    #[test]
    fn what_is_said_again_while_the_log_cannot_be_written_waits_once() {
        let (mut open, now) = (open(), Instant::now());
        for _ in 0..100 {
            open.push(Input::Cancel { by: "ann".to_owned(), reason: CancelReason::Person, force: false }, now);
        }
        assert_eq!(open.due(now).unwrap().len(), 1);
    }
}
