//! What the engine says: assignments, cancels and acknowledgements to agents, requests to the auctioneer.

use std::{collections::BTreeSet, time::Duration};

use blob::token::{Claims, Read};
use eventbus::Subject;
use model::{
    AgentName, RunId, Timestamp,
    protocol::{
        agent::{AgentCommand, AgentStatus, Assignment, Lease},
        auction::AuctionRequest,
    },
};
use service::clock;
use tokio::time::Instant;

use super::{Engine, WOKEN_MAX, outbox::Letter};
use crate::core::{Answer, AttemptEnd, Effect, Run, shape::Index};

/// How long after a stage's time is up its agent may still store output: a bus or depot that was away comes back in that time.
const STORE_OUTPUT: Duration = Duration::from_hours(24);

impl Engine {
    /// Says what the state of the run demands and was not said lately.
    pub(super) fn speak(&mut self, run: &RunId) {
        let Some(open) = self.open.get_mut(run) else { return };
        let unsaid = open.unsaid(Instant::now());
        self.say_all(run, unsaid);
    }

    pub(super) fn say_all(&self, run: &RunId, unsaid: Vec<(Effect, u32)>) {
        for (effect, round) in unsaid {
            self.say(run, effect, round);
        }
    }

    fn say(&self, run: &RunId, effect: Effect, round: u32) {
        let Some(run) = self.open.get(run).map(|open| &open.run) else { return };
        match effect {
            Effect::Auction { at, attempt, after, except } => {
                let auction = model::AuctionId::of(&attempt, round);
                let requires = run.shape.stage(at).demands();
                let request = AuctionRequest { auction, attempt, requires, source: run.trigger.source, after, except };
                self.outbox.send(Letter::Auction(request));
            }
            Effect::Assign { at, agent, lease } => {
                let assignment = self.assignment(run, at, lease);
                self.command(&agent, AgentCommand::Assign(Box::new(assignment)));
            }
            Effect::Cancel { agent, lease, force, .. } => self.command(&agent, AgentCommand::Cancel { lease, force }),
            // Plans with a poll are refused so far.
            Effect::Poll { .. } => {}
        }
    }

    fn assignment(&self, run: &Run, at: Index, lease: Lease) -> Assignment {
        let stage = run.shape.stage(at).clone();
        let libraries = run.planned.libraries_of(&stage);
        let depot_token = self.signer.as_ref().map(|signer| {
            let lives = Duration::from_millis(stage.timeout_ms) + STORE_OUTPUT;
            signer.mint(&Claims {
                holder: lease.attempt.to_string(),
                read: Read::Only(run.trigger.source.into_iter().chain(libraries.values().copied()).collect::<BTreeSet<_>>()),
                write: true,
                expires_at: Timestamp(clock::unix_ms()) + lives,
            })
        });
        Assignment {
            branch: run.trigger.context.branch.clone(),
            commit: run.trigger.context.commit.clone(),
            source: run.trigger.source,
            depot_token: depot_token.unwrap_or_default(),
            libraries,
            ..Assignment::new(lease, stage, run.trigger.project.to_string())
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

    /// An agent is there: its leases are renewed, and what it should not be doing any more is ended.
    pub(super) fn status(&mut self, agent: &AgentName, status: &AgentStatus) {
        let now = Instant::now();
        for lease in &status.leases {
            self.leases.renew(lease, agent, now);
            // Also of a run that has ended: its agent may come back long after.
            let superseded = self.runs.get(&lease.attempt.run).is_some_and(|snapshot| {
                let known = snapshot.run.attempt_of(lease);
                known.is_some_and(|(_, attempt)| attempt.agent == *agent && matches!(attempt.end, Some(AttemptEnd::Lost { .. })))
            });
            if superseded {
                self.command(agent, AgentCommand::Cancel { lease: lease.clone(), force: false });
            }
        }
        let is_new = self.agents.insert(agent.clone());
        if is_new || status.slots_free > 0 {
            self.wake(if is_new { WOKEN_MAX } else { 1 });
        }
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
