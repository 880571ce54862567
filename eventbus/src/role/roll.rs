//! The roll: answers who is enrolled, tells of changes, and writes down who takes no new work.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::Arc,
    time::{Duration, SystemTime},
};

use model::{
    AgentName,
    protocol::enrolment::{DrainReply, DrainRequest, Enrolled, PAGE_AGENTS_MAX, RollPage, RollRequest},
};
use serde::{Serialize, de::DeserializeOwned};
use service::{Supervisor, supervisor::chain};
use tokio::{
    sync::Notify,
    time::{MissedTickBehavior, interval},
};
use tracing::{info, warn};

use crate::{
    Bus, BusError, Message, Subject, Subscription,
    nats::{Enrolment, EnrolmentError},
};

/// Between two looks at the records that nobody has called for: another role of this kind, or the administrator, may have changed one.
const LOOK_PERIOD: Duration = Duration::from_secs(5);
/// A folder that was changed so lately may change again without its time's showing it.
const STAMP_SETTLES: Duration = Duration::from_secs(2);

/// What the role knows of its records.
#[derive(Debug)]
pub(super) struct RollKeeper {
    enrolment: Arc<Enrolment>,
    bus: Bus,
    agents: BTreeMap<AgentName, Enrolled>,
    /// When the folder had changed, as it was read; `None` where it must be read again.
    stamp: Option<SystemTime>,
    questions: Subscription,
    drains: Subscription,
    changed: Arc<Notify>,
}

impl RollKeeper {
    /// Reads the records and listens.
    pub(super) async fn open(enrolment: Arc<Enrolment>, bus: Bus, changed: Arc<Notify>) -> Result<Self, BusError> {
        let questions = bus.subscribe_group(Subject::roll()).await?;
        let drains = bus.subscribe_group(Subject::drain()).await?;
        Ok(Self { enrolment, bus, agents: BTreeMap::new(), stamp: None, questions, drains, changed })
    }

    /// Works until the supervisor ends it.
    pub(super) async fn work(mut self, supervisor: &Supervisor) -> Result<(), BusError> {
        let token = supervisor.token();
        let changed = self.changed.clone();
        let mut looks = interval(LOOK_PERIOD);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = token.cancelled() => return Ok(()),
                () = changed.notified() => self.look_and_tell().await,
                _ = looks.tick() => self.look_and_tell().await,
                message = self.questions.next() => match message {
                    Some(message) => self.answer(message).await,
                    None => return closed(token.is_cancelled()),
                },
                message = self.drains.next() => match message {
                    Some(message) => self.drain(message).await,
                    None => return closed(token.is_cancelled()),
                },
            }
        }
    }

    /// Reads the records if they may have changed; `true` if they have.
    fn look(&mut self) -> bool {
        let stamp = self.enrolment.changed_at();
        if self.stamp.is_some() && self.stamp == stamp {
            return false;
        }
        match self.enrolment.enrolled() {
            Ok(agents) => {
                let is_settled = |at: &SystemTime| at.elapsed().is_ok_and(|age| age >= STAMP_SETTLES);
                self.stamp = stamp.filter(is_settled);
                let is_new = self.agents != agents;
                self.agents = agents;
                is_new
            }
            Err(error) => {
                warn!(error = chain(&error), "it cannot be read who is enrolled");
                false
            }
        }
    }

    async fn look_and_tell(&mut self) {
        if !self.look() {
            return;
        }
        info!(agents = self.agents.len(), "it is told who is enrolled");
        let mut after = None;
        loop {
            let page = page(&self.agents, after.as_ref());
            after.clone_from(&page.through);
            if let Err(error) = self.bus.publish(&Subject::enrolled(), &page).await {
                warn!(error = chain(&error), "it cannot be told now who is enrolled");
            }
            if after.is_none() {
                return;
            }
        }
    }

    async fn answer(&mut self, message: Message) {
        if let Some(RollRequest { after }) = read(&message) {
            self.look_and_tell().await;
            reply(message, &page(&self.agents, after.as_ref())).await;
        }
    }

    async fn drain(&mut self, message: Message) {
        let Some(DrainRequest { agent, draining }) = read(&message) else { return };
        let answer = match self.enrolment.drain(&agent, draining) {
            Ok(enrolled) => {
                info!(%agent, draining, "whether an agent takes new work was changed");
                self.look_and_tell().await;
                DrainReply::Done { enrolled }
            }
            Err(EnrolmentError::Unknown(_)) => DrainReply::Unknown,
            Err(error) => DrainReply::Unavailable { message: chain(&error) },
        };
        reply(message, &answer).await;
    }
}

fn closed(is_told: bool) -> Result<(), BusError> {
    if is_told { Ok(()) } else { Err(BusError::Closed) }
}

/// The agents behind this one, as many as a message takes.
fn page(agents: &BTreeMap<AgentName, Enrolled>, after: Option<&AgentName>) -> RollPage {
    let start = after.map_or(Bound::Unbounded, Bound::Excluded);
    let mut rest = agents.range::<AgentName, _>((start, Bound::Unbounded));
    let agents: BTreeMap<_, _> = rest.by_ref().take(PAGE_AGENTS_MAX).map(|(agent, enrolled)| (agent.clone(), enrolled.clone())).collect();
    let through = rest.next().and_then(|_| agents.keys().next_back().cloned());
    RollPage { after: after.cloned(), through, agents }
}

fn read<T: DeserializeOwned>(message: &Message) -> Option<T> {
    message.read().inspect_err(|error| warn!(error = chain(error), "a question was left unread")).ok()
}

async fn reply(message: Message, answer: &(impl Serialize + Sync)) {
    if let Err(error) = message.reply(answer).await {
        warn!(error = chain(&error), "a question was not answered: it will be asked again");
    }
}

#[cfg(test)]
mod tests {
    use model::protocol::enrolment::{AgentTrust, Roll};

    use super::*;

    #[test]
    fn the_pages_of_a_fleet_together_are_all_of_it_and_each_fits_into_a_message() {
        for count in [0, 1, PAGE_AGENTS_MAX, PAGE_AGENTS_MAX + 1, 3 * PAGE_AGENTS_MAX] {
            let name = |number: usize| -> AgentName { format!("{number:0>64}").parse().unwrap() };
            let enrolled = Enrolled { class: "c".repeat(64).parse().unwrap(), trust: AgentTrust::Untrusted, draining: true };
            let agents: BTreeMap<_, _> = (0..count).map(|number| (name(number), enrolled.clone())).collect();
            let (mut roll, mut after, mut pages) = (Roll::default(), None, 0);
            loop {
                let page = page(&agents, after.as_ref());
                assert!(serde_json::to_vec(&page).unwrap().len() < crate::bus::MESSAGE_BYTES_MAX);
                after.clone_from(&page.through);
                roll.take(page);
                pages += 1;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(pages, count.div_ceil(PAGE_AGENTS_MAX).max(1));
            assert_eq!(agents.keys().filter(|agent| roll.get(agent).is_some()).count(), count);
        }
    }
}
