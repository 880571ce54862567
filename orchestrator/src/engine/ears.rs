//! What the engine hears, and whom it gives that to.

use std::future::pending;

use eventbus::{Bus, BusError, Message, Pattern, Subject, Subscription};
use model::{
    AgentName,
    protocol::{
        agent::{AgentReport, AgentStatus, Report, Revoked},
        auction::Proposal,
        enrolment::RollPage,
    },
};
use tokio::{sync::mpsc, time::Instant};
use tracing::{trace, warn};

use super::{
    Engine, WATERFALL, WOKEN_MAX,
    beside::{BesideEars, BesideHeard},
};
use crate::{
    core::Input,
    handle::{Command, CommandError},
};

/// Everything that the engine listens to but triggers.
pub(super) struct Ears {
    reports: [Subscription; 5],
    statuses: Subscription,
    proposals: Subscription,
    revoked: Subscription,
    /// Who is enrolled; `None` where that is not asked.
    roll: Option<mpsc::Receiver<RollPage>>,
    commands: mpsc::Receiver<Command>,
    beside: Option<BesideEars>,
}

/// Something that arrived.
pub(super) enum Heard {
    Report(Message),
    Status(Message),
    Proposal(Message),
    Revoked(Message),
    Roll(RollPage),
    Command(Box<Command>),
    Beside(BesideHeard),
}

impl Ears {
    /// Listens, also to other orchestrators where there may be any; whether there are none that listen.
    pub(super) async fn open(
        bus: &Bus,
        commands: mpsc::Receiver<Command>,
        roll: Option<mpsc::Receiver<RollPage>>,
        beside_others: bool,
    ) -> Result<(Self, bool), BusError> {
        let [declined, started, finished, stored, requested] = Pattern::reports();
        let (beside, alone) = if beside_others {
            let (ears, alone) = BesideEars::open(bus).await?;
            (Some(ears), alone)
        } else {
            (None, true)
        };
        let ears = Self {
            reports: [
                bus.subscribe(declined).await?,
                bus.subscribe(started).await?,
                bus.subscribe(finished).await?,
                bus.subscribe(stored).await?,
                bus.subscribe(requested).await?,
            ],
            statuses: bus.subscribe(Pattern::statuses()).await?,
            proposals: bus.subscribe(Subject::proposed()).await?,
            revoked: bus.subscribe(Subject::revoked()).await?,
            roll,
            commands,
            beside,
        };
        Ok((ears, alone))
    }

    /// What is here already of what agents and the auctioneer say.
    pub(super) fn try_next(&mut self) -> Option<Heard> {
        let report = self.reports.iter_mut().find_map(Subscription::try_next).map(Heard::Report);
        report.or_else(|| self.proposals.try_next().map(Heard::Proposal)).or_else(|| self.statuses.try_next().map(Heard::Status))
    }

    /// The next thing that arrives. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Heard> {
        let [declined, started, finished, stored, requested] = &mut self.reports;
        let others = async {
            match &mut self.beside {
                Some(beside) => beside.next().await,
                None => pending().await,
            }
        };
        tokio::select! {
            message = finished.next() => message.map(Heard::Report),
            message = started.next() => message.map(Heard::Report),
            message = declined.next() => message.map(Heard::Report),
            message = stored.next() => message.map(Heard::Report),
            message = requested.next() => message.map(Heard::Report),
            message = self.proposals.next() => message.map(Heard::Proposal),
            message = self.statuses.next() => message.map(Heard::Status),
            message = self.revoked.next() => message.map(Heard::Revoked),
            heard = others => heard.map(Heard::Beside),
            page = next_page(&mut self.roll) => Some(Heard::Roll(page)),
            command = self.commands.recv() => command.map(Box::new).map(Heard::Command),
        }
    }
}

/// The next word on who is enrolled; never, where that is not asked or nobody says it any more.
async fn next_page(roll: &mut Option<mpsc::Receiver<RollPage>>) -> RollPage {
    if let Some(pages) = roll
        && let Some(page) = pages.recv().await
    {
        return page;
    }
    pending().await
}

impl Engine {
    /// Hears what is here already, so that it is decided together.
    pub(super) fn hear_more(&mut self, ears: &mut Ears, most: usize) {
        for _ in 0..most {
            let Some(heard) = ears.try_next() else { return };
            self.hear(heard);
        }
    }

    pub(super) fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Report(message) => {
                let Some((agent, report)) = spoken::<AgentReport>(&message) else { return };
                let run = report.lease.attempt.run.clone();
                trace!(target: WATERFALL, point = "report heard", attempt = %report.lease.attempt, report = ?report.report.kind());
                self.leases.renew(&report.lease, &agent, Instant::now());
                if let Report::RunRequested { number, request } = &report.report {
                    self.run_requested(&agent, &report.lease, *number, request);
                } else {
                    self.input(&run, Input::Report { agent, report });
                }
            }
            Heard::Status(message) => {
                let Some((agent, status)) = spoken::<AgentStatus>(&message) else { return };
                self.status(&agent, &status);
                self.runs.agents().remember(&agent, status);
            }
            Heard::Proposal(message) => match message.read::<Proposal>() {
                Ok(proposal) => self.propose(proposal),
                Err(error) => warn!(error = service::supervisor::chain(&error), "not a proposal"),
            },
            Heard::Revoked(message) => match message.read::<Revoked>() {
                Ok(Revoked { agents }) => agents.iter().for_each(|agent| self.revoked(agent)),
                Err(error) => warn!(error = service::supervisor::chain(&error), "not a revocation"),
            },
            Heard::Beside(heard) => self.hear_beside(heard),
            Heard::Roll(page) => {
                if self.runs.agents().enrol(page) {
                    self.wake(WOKEN_MAX);
                }
            }
            Heard::Command(command) => {
                let Command { run, input, done } = *command;
                let known = self.runs.get(&run).map(|snapshot| snapshot.run.ended.is_some());
                let outcome = match (self.runs.damage(&run), known) {
                    (Some(damage), _) => Err(CommandError::Damaged { run, damage }),
                    (None, None) => Err(CommandError::UnknownRun(run)),
                    (None, Some(true)) => Err(CommandError::Ended(run)),
                    (None, Some(false)) => {
                        self.input_or_ask(&run, input);
                        Ok(())
                    }
                };
                let _caller_left = done.send(outcome);
            }
        }
    }
}

/// What an agent says under its own subject, whatever the message claims.
fn spoken<T: serde::de::DeserializeOwned>(message: &Message) -> Option<(AgentName, T)> {
    let agent = message.subject.agent()?;
    match message.read() {
        Ok(said) => Some((agent, said)),
        Err(error) => {
            warn!(%agent, error = service::supervisor::chain(&error), "an agent said what cannot be read");
            None
        }
    }
}
