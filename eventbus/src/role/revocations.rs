//! Who was revoked lately, told to the orchestrators: at once, and again for a while, as an orchestrator may not be there just then.

use std::{sync::Arc, time::Duration};

use model::{AgentName, Timestamp, protocol::agent::Revoked};
use service::{clock, supervisor::chain};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::{
    Bus, Subject,
    nats::{Account, Enrolment},
};

/// How long it is said that an agent was revoked: an orchestrator that was away longer counts leases from its return, and they are over by themselves.
const SAID_FOR: Duration = Duration::from_mins(1);
/// Agents of one message: names of at most 64 bytes, far below what a message may have.
const AGENTS_AT_ONCE: usize = 1_000;

/// What was said of whom.
#[derive(Debug)]
pub(super) struct Revocations {
    enrolment: Arc<Enrolment>,
    bus: Bus,
    /// What the operator said of the agents' account at the last look. Nobody is revoked without its changing.
    seen: Option<String>,
    /// Until when there may be something to say.
    until: Instant,
}

impl Revocations {
    pub(super) fn new(enrolment: Arc<Enrolment>, bus: Bus) -> Self {
        Self { enrolment, bus, seen: None, until: Instant::now() }
    }

    /// Says who was revoked lately, if anybody was. What cannot be said now is said at the next look.
    pub(super) async fn tell(&mut self) {
        let said = self.enrolment.account_jwt(Account::Agents);
        if self.seen != said {
            self.seen = said;
            self.until = Instant::now() + SAID_FOR;
        }
        if Instant::now() > self.until {
            return;
        }
        let since = clock::unix_ms().saturating_sub(u64::try_from(SAID_FOR.as_millis()).unwrap_or(u64::MAX));
        let agents: Vec<AgentName> = match self.enrolment.revoked_since(Timestamp(since)) {
            Ok(agents) => agents.into_iter().collect(),
            Err(error) => {
                warn!(error = chain(&error), "it cannot be read who was revoked");
                return;
            }
        };
        for agents in agents.chunks(AGENTS_AT_ONCE) {
            info!(?agents, "it is told that these agents were revoked");
            if let Err(error) = self.bus.publish(&Subject::revoked(), &Revoked { agents: agents.iter().cloned().collect() }).await {
                warn!(error = chain(&error), "it cannot be told now who was revoked");
            }
        }
    }
}
