//! What the engine says: assignments, cancels and acknowledgements to agents, requests to the auctioneer.

use eventbus::Subject;
use model::{
    AgentName, RunId,
    protocol::{
        agent::{AgentCommand, AgentStatus, Lease},
        auction::AuctionRequest,
    },
};
use tokio::time::Instant;
use tracing::{debug, error};

use super::{Engine, WOKEN_MAX, outbox::Letter};
use crate::core::{Answer, AttemptEnd, Effect, resolve};

impl Engine {
    /// Says what the state of the run demands and was not said lately.
    pub(super) fn speak(&mut self, run: &RunId) {
        let Some(open) = self.open.get_mut(run) else { return };
        let unsaid = open.unsaid(Instant::now());
        self.say_all(run, unsaid);
    }

    /// Says again what was not answered.
    pub(super) fn speak_again(&mut self, run: &RunId) {
        let Some(open) = self.open.get_mut(run) else { return };
        let unsaid = open.unsaid_again(Instant::now());
        self.say_all(run, unsaid);
    }

    pub(super) fn say_all(&mut self, run: &RunId, unsaid: Vec<(Effect, u32)>) {
        for (effect, round) in unsaid {
            self.say(run, effect, round);
        }
    }

    fn say(&mut self, id: &RunId, effect: Effect, round: u32) {
        let Some(run) = self.open.get(id).map(|open| &open.run) else { return };
        match effect {
            Effect::Auction { at, attempt, after, except } => {
                let auction = model::AuctionId::of(&attempt, round);
                match resolve::stage(run, at) {
                    Ok(stage) => {
                        let requires = stage.demands();
                        let request = AuctionRequest { auction, attempt, requires, source: run.trigger.source, after, except };
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

    pub(super) fn answer(&self, answers: Vec<Answer>) {
        for answer in answers {
            match answer {
                Answer::Acknowledge { agent, lease, report } => self.command(&agent, AgentCommand::Acknowledge { lease, report }),
                Answer::Fence { agent, lease } => self.command(&agent, AgentCommand::Cancel { lease, force: false }),
            }
        }
    }

    pub(super) fn command(&self, agent: &AgentName, command: AgentCommand) {
        self.outbox.send(Letter::Command(Subject::inbox(agent), command));
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
            }
            // Also of a run that has ended: its agent may come back long after.
            let superseded = self.runs.get(&lease.attempt.run).is_some_and(|snapshot| {
                let known = snapshot.run.attempt_of(lease);
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

    fn holds_a_lock(&self, lease: &Lease) -> bool {
        let stage = self.open.get(&lease.attempt.run).and_then(|open| open.run.stage(&lease.attempt.stage));
        stage.is_some_and(|(_, stage)| stage.lock.is_some())
    }

    /// Holds the auctions of the longest waiting stages again, as `freed` slots may be free now.
    pub(super) fn wake(&mut self, freed: usize) {
        let now = Instant::now();
        let mut woken = 0;
        while woken < freed.min(WOKEN_MAX)
            && let Some((run, at)) = self.starving.pop()
        {
            let again = self.open.get_mut(&run).and_then(|open| open.auction_again(at, now));
            if let Some((effect, round)) = again {
                self.say(&run, effect, round);
                woken += 1;
            }
        }
    }
}
