//! What the engine says: assignments, cancels and acknowledgements to agents, requests to the auctioneer.

use model::{
    AgentName, RunId, StageOutcome,
    event::run::RunEvent,
    protocol::{
        agent::{AgentCommand, AgentStatus, Lease},
        auction::{AuctionRequest, Experience, Ran, Routine},
    },
};
use tokio::time::Instant;
use tracing::{debug, error, info};

use super::{Engine, WOKEN_MAX, open::AUCTION_PAUSE, outbox::Letter, starving::Starving};
use crate::{
    core::{Answer, AttemptEnd, Effect, Input, Run, resolve, shape::Index},
    runs::Appended,
};

impl Engine {
    /// Says what the state of the run demands and was not said lately.
    pub(super) fn speak(&mut self, run: &RunId) {
        let Some(open) = self.open.get_mut(run).filter(|open| open.is_own()) else { return };
        let unsaid = open.unsaid(Instant::now());
        self.say_all(run, unsaid);
    }

    /// Says again what was not answered.
    pub(super) fn speak_again(&mut self, run: &RunId) {
        let Some(open) = self.open.get_mut(run).filter(|open| open.is_own()) else { return };
        let unsaid = open.unsaid_again(Instant::now());
        self.say_all(run, unsaid);
    }

    pub(super) fn say_all(&mut self, run: &RunId, unsaid: Vec<(Effect, u32)>) {
        for (effect, round) in unsaid {
            // A stage that waits for its turn does not ask out of it.
            let waits = matches!(&effect, Effect::Auction { at, .. } if !effect.is_ahead() && self.starving.has(run, *at));
            if !waits {
                self.say(run, effect, round);
            }
        }
    }

    fn say(&mut self, id: &RunId, effect: Effect, round: u32) {
        let Some(run) = self.open.get(id).map(|open| &open.run) else { return };
        match effect {
            Effect::Auction { at, attempt, after, except } => {
                let auction = model::AuctionId::of(&attempt, round);
                let found = run.found(at);
                match resolve::stage_with(run, at, &found) {
                    Ok(stage) => {
                        let (requires, wants) = (stage.demands(), self.wants(run, &stage, &found));
                        let routine = Some(routine(run, at));
                        let trust = run.trigger.claims.trust;
                        let request = AuctionRequest { auction, attempt, trust, requires, routine, wants, after, except };
                        self.outbox.send(Letter::Auction(request));
                    }
                    // It ends as soon as it is ready.
                    Err(unset) => debug!(%attempt, %unset, "no agent is asked for a stage"),
                }
            }
            Effect::Assign { at, agent, lease } => match self.assignment(run, at, lease) {
                Ok(assignment) => self.command(&agent, AgentCommand::Assign(Box::new(assignment))),
                Err(unset) => error!(run = %id, %unset, "a stage that was placed cannot be assigned"),
            },
            Effect::Cancel { agent, lease, force, .. } => self.command(&agent, AgentCommand::Cancel { lease, force }),
            Effect::Poll { at, wait, .. } => self.poll((id.clone(), at, wait)),
        }
    }

    /// Tells the auctioneers what was learned of the attempts that have ended.
    pub(super) fn teach(&self, run: &Run, appended: &Appended) {
        let mut ran = Vec::new();
        for event in &appended.record.events {
            let (id, number, succeeded) = if let RunEvent::StageFinished { stage, attempt, outcome, .. } = event {
                (stage, *attempt, matches!(outcome, StageOutcome::Success | StageOutcome::Unstable))
            } else if let RunEvent::StageLost { stage, attempt, .. } = event {
                (stage, *attempt, false)
            } else {
                continue;
            };
            let Some(at) = run.shape.find(id) else { continue };
            let Some(attempt) = run.stages[at].attempts.iter().rev().find(|known| known.number == number) else { continue };
            let took = appended.record.at.since(attempt.awarded_at);
            let took_ms = succeeded.then(|| u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
            ran.push(Ran { routine: routine(run, at), agent: attempt.agent.clone(), took_ms });
        }
        if !ran.is_empty() {
            self.outbox.send(Letter::Ran(Experience { ran }));
        }
    }

    pub(super) fn answer(&self, answers: Vec<Answer>) {
        for answer in answers {
            match answer {
                Answer::Acknowledge { agent, lease, report } => self.command(&agent, AgentCommand::Acknowledge { lease, report }),
                Answer::Fence { agent, lease } => self.command(&agent, AgentCommand::Cancel { lease, force: false }),
            }
        }
    }

    pub(super) fn command(&self, agent: &AgentName, command: AgentCommand) {
        self.outbox.send(Letter::Command(agent.clone(), command));
    }

    /// An agent is there: its leases are renewed, what it should not be doing any more is ended, and where the output lies that nobody here has
    /// heard is asked.
    pub(super) fn status(&mut self, agent: &AgentName, status: &AgentStatus) {
        let now = Instant::now();
        let mut locked = Vec::new();
        for lease in &status.leases {
            if self.leases.renew(lease, agent, now) {
                if self.holds_a_lock(lease) {
                    locked.push(lease.clone());
                }
                if self.logs.lacks(lease) {
                    self.command(agent, AgentCommand::TellOutput { lease: lease.clone() });
                }
            } else if self.is_held_elsewhere(lease) && self.logs.lacks(lease) {
                self.command(agent, AgentCommand::TellOutput { lease: lease.clone() });
            }
            // Also of a run that has ended: its agent may come back long after.
            let superseded = self.runs.get(&lease.attempt.run).is_some_and(|snapshot| {
                let known = snapshot.run.attempt_of(lease).filter(|_| self.owns(&snapshot.run.trigger.project));
                known.is_some_and(|(_, attempt)| attempt.agent == *agent && matches!(attempt.end, Some(AttemptEnd::Lost { .. })))
            });
            if superseded {
                self.command(agent, AgentCommand::Cancel { lease: lease.clone(), force: false });
            }
        }
        if !locked.is_empty() && status.number > 0 {
            self.command(agent, AgentCommand::Renewed { status: status.number, leases: locked });
        }
        let is_new = self.agents.insert(agent.clone());
        if is_new || status.slots_free > 0 {
            self.wake(if is_new { WOKEN_MAX } else { 1 });
        }
    }

    /// An agent is cut off for good. What it runs goes elsewhere at once, but for what holds a lock: the agent may run that until its lease is over,
    /// and nobody else must meanwhile.
    pub(super) fn revoked(&mut self, agent: &AgentName) {
        self.agents.remove(agent);
        self.runs.agents().forget(agent);
        for lease in self.leases.of(agent) {
            if !self.holds_a_lock(&lease) {
                info!(%agent, attempt = %lease.attempt, "its agent was revoked");
                self.input(&lease.attempt.run.clone(), Input::AgentRevoked(lease));
            }
        }
    }

    fn holds_a_lock(&self, lease: &Lease) -> bool {
        let stage = self.open.get(&lease.attempt.run).and_then(|open| open.run.stage(&lease.attempt.stage));
        stage.is_some_and(|(_, stage)| stage.lock.is_some())
    }

    /// Holds the auctions of waiting stages again, as `freed` slots may be free now.
    pub(super) fn wake(&mut self, freed: usize) {
        self.hold_again(freed.min(WOKEN_MAX), Starving::pop);
    }

    /// Holds the auctions of stages again that have waited for a while: a slot may be free without a word of its agent.
    pub(super) fn wake_waited(&mut self) {
        let now = Instant::now();
        self.hold_again(WOKEN_MAX, |starving| starving.pop_waited(AUCTION_PAUSE, now));
    }

    fn hold_again(&mut self, count: usize, mut next: impl FnMut(&mut Starving) -> Option<(RunId, Index)>) {
        let now = Instant::now();
        let mut held = 0;
        while held < count
            && let Some((run, at)) = next(&mut self.starving)
        {
            let again = self.open.get_mut(&run).filter(|open| open.is_own()).and_then(|open| open.auction_again(at, now));
            if let Some((effect, round)) = again {
                self.say(&run, effect, round);
                held += 1;
            }
        }
    }
}

/// The stage as it comes back from run to run.
pub(super) fn routine(run: &Run, at: Index) -> Routine {
    let trigger = &run.trigger;
    Routine { project: trigger.project.clone(), pipeline: trigger.pipeline_path.clone(), stage: run.shape.stage(at).path.clone() }
}
