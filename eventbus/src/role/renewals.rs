//! Agents' users end, and are renewed for whoever is still enrolled.
//!
//! **Invariant:** what is signed is for the agent of the subject, and for the key of its record; nothing that the agent says is looked at.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use model::{AgentName, protocol::enrolment::RenewalReply};
use service::{Supervisor, supervisor::chain};
use tokio::{task::spawn_blocking, time::Instant};
use tracing::{info, warn};

use crate::{
    Bus, BusError, Pattern, Subject, Subscription,
    nats::{Enrolment, EnrolmentError},
};

/// An agent that asks again sooner is not answered: each answer costs a signature and a look at the disk.
const ANSWER_PAUSE: Duration = Duration::from_secs(2);
/// Agents of whom it is remembered that they were answered. Of more that ask within the pause it is not, and they are answered each time.
const REMEMBERED_MAX: usize = 16 * 1024;

/// Who was answered when.
#[derive(Debug, Default)]
struct Answered(BTreeMap<AgentName, Instant>);

impl Answered {
    /// Whether the agent is to be answered now.
    fn take(&mut self, agent: &AgentName, now: Instant) -> bool {
        if self.0.get(agent).is_some_and(|at| now.duration_since(*at) < ANSWER_PAUSE) {
            return false;
        }
        if self.0.len() >= REMEMBERED_MAX {
            self.0.retain(|_, at| now.duration_since(*at) < ANSWER_PAUSE);
        }
        if self.0.len() < REMEMBERED_MAX {
            self.0.insert(agent.clone(), now);
        }
        true
    }
}

/// Renews.
#[derive(Debug)]
pub(super) struct Renewals {
    enrolment: Arc<Enrolment>,
    bus: Bus,
    asked: Subscription,
    answered: Answered,
}

impl Renewals {
    /// Listens.
    pub(super) async fn open(enrolment: Arc<Enrolment>, bus: Bus) -> Result<Self, BusError> {
        let asked = bus.subscribe_group(Pattern::renewals()).await?;
        Ok(Self { enrolment, bus, asked, answered: Answered::default() })
    }

    /// Works until the supervisor ends it.
    pub(super) async fn work(mut self, supervisor: &Supervisor) -> Result<(), BusError> {
        let token = supervisor.token();
        while let Some(asked) = token.run_until_cancelled(self.asked.next()).await {
            let Some(message) = asked else { return if token.is_cancelled() { Ok(()) } else { Err(BusError::Closed) } };
            let Some(agent) = message.subject.agent() else { continue };
            if self.answered.take(&agent, Instant::now()) {
                self.answer(agent).await;
            }
        }
        Ok(())
    }

    async fn answer(&self, agent: AgentName) {
        let (enrolment, of) = (self.enrolment.clone(), agent.clone());
        // It waits for the disk, and for whoever changes a record just now.
        let Ok(renewed) = spawn_blocking(move || enrolment.renew(&of)).await else { return };
        let answer = match renewed {
            Ok(jwt) => RenewalReply::Signed { jwt },
            Err(error @ EnrolmentError::Unknown(_)) => RenewalReply::Refused { message: error.to_string() },
            Err(error) => {
                warn!(error = chain(&error), %agent, "an agent's user could not be renewed: it asks again");
                return;
            }
        };
        info!(%agent, is_signed = matches!(answer, RenewalReply::Signed { .. }), "an agent has asked for its renewal");
        if let Err(error) = self.bus.publish(&Subject::renewed(&agent), &answer).await {
            warn!(error = chain(&error), %agent, "an agent's renewal was not sent: it asks again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_floods_is_answered_once_in_a_while_and_others_meanwhile() {
        let (mut answered, now) = (Answered::default(), Instant::now());
        let agent = |number: usize| -> AgentName { format!("a{number}").parse().unwrap() };
        assert!(answered.take(&agent(0), now) && !answered.take(&agent(0), now));
        assert!((1..2 * REMEMBERED_MAX).all(|number| answered.take(&agent(number), now)));
        assert_eq!(answered.0.len(), REMEMBERED_MAX);
        assert!(!answered.take(&agent(0), now));
        let later = now + ANSWER_PAUSE;
        assert!(answered.take(&agent(0), later) && answered.take(&agent(3 * REMEMBERED_MAX), later));
        assert!(answered.0.len() <= REMEMBERED_MAX);
    }
}
