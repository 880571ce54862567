//! Reports: said again until somebody says that they were heard.

use std::{collections::BTreeMap, time::Duration};

use eventbus::{Bus, Subject};
use model::{
    AgentName,
    protocol::agent::{AgentReport, LEASE_MS, Lease, RENEW_MS, RESEND_MS, Report, ReportKind, StartedRun},
};
use serde::Serialize;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use crate::executor::Ask;

/// How long a soft message may wait for the bus before it is given up; it is said again anyway.
const SOFT_PATIENCE: Duration = Duration::from_secs(1);
/// For how long a report is repeated without an answer: as long as the attempt's rights in the depot last after its end.
const REPORT_FOR: Duration = Duration::from_hours(24);
/// For how long a declined award is reported by the agent's own impulse, in milliseconds. Whoever still waits then asks again, and is told.
const DECLINE_FOR_MS: u64 = LEASE_MS;
/// For how long such a question is answered no faster than every [`RENEW_MS`], in milliseconds: two sides that answer each other must not
/// get hot.
const DECLINE_SPENT_MS: u64 = 10 * 60 * 1000;
/// Declined awards that are remembered here; the oldest gives way.
const DECLINES_MAX: usize = 1024;

/// What the keeper of an attempt is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    /// This report was heard.
    Acknowledged(ReportKind),
    /// Somebody asks: say it at once.
    Again,
    /// What became of a run that the attempt asked for.
    Answered {
        /// The number of the request.
        number: u32,
        /// The run, or why there is none.
        answer: Result<StartedRun, String>,
    },
}

/// How reporting ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reported {
    /// Somebody heard it.
    Acknowledged,
    /// Nobody ever did.
    GivenUp,
    /// The agent ends; it was said once more.
    ShuttingDown,
}

/// Sends a soft message. That it did not leave is written down and no more: it is said again.
pub(crate) async fn say<T: Serialize + Sync>(bus: &Bus, subject: &Subject, message: &T) {
    match timeout(SOFT_PATIENCE, bus.publish(subject, message)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%subject, error = service::supervisor::chain(&error), "a soft message was not sent"),
        Err(_) => debug!(%subject, "the bus did not take a soft message in time"),
    }
}

/// Says the reports of one attempt and hears their answers.
#[derive(Debug)]
pub(crate) struct Reporter {
    pub(crate) agent: AgentName,
    pub(crate) lease: Lease,
    pub(crate) bus: Bus,
    pub(crate) told: mpsc::Receiver<Told>,
    pub(crate) token: CancellationToken,
}

impl Reporter {
    /// Says that the attempt has begun, and what its steps ask for, each until that was heard. Never returns; to be dropped when the attempt
    /// ends.
    pub(crate) async fn begun(&mut self, started: Report, mut asks: mpsc::Receiver<Ask>) {
        let mut started = Some(started);
        let mut open: BTreeMap<u32, Ask> = BTreeMap::new();
        let mut since = Instant::now();
        loop {
            open.retain(|_, ask| !ask.answer.is_closed());
            let asked = open.iter().map(|(number, ask)| Report::RunRequested { number: *number, request: ask.request.clone() });
            for report in started.iter().cloned().chain(asked) {
                let subject = Subject::report(&self.agent, report.kind());
                say(&self.bus, &subject, &AgentReport { lease: self.lease.clone(), report }).await;
            }
            let pause = if since.elapsed() < Duration::from_millis(LEASE_MS) { RESEND_MS } else { RENEW_MS };
            let until = Instant::now() + Duration::from_millis(pause);
            loop {
                let is_waiting = started.is_some() || !open.is_empty();
                tokio::select! {
                    told = self.told.recv() => match told {
                        Some(Told::Acknowledged(ReportKind::Started)) => started = None,
                        Some(Told::Acknowledged(_)) => {}
                        Some(Told::Answered { number, answer }) => if let Some(ask) = open.remove(&number) {
                            // Whoever asked may have ended meanwhile.
                            let _gone = ask.answer.send(answer);
                        },
                        Some(Told::Again) => break,
                        None => std::future::pending().await,
                    },
                    Some(ask) = asks.recv() => {
                        since = Instant::now();
                        open.insert(ask.number, ask);
                        break;
                    }
                    () = self.token.cancelled() => std::future::pending().await,
                    () = sleep_until(until), if is_waiting => break,
                }
            }
        }
    }

    /// Says it until it was heard. Cancel safe.
    pub(crate) async fn report(&mut self, report: Report) -> Reported {
        let kind = report.kind();
        let subject = Subject::report(&self.agent, kind);
        let message = AgentReport { lease: self.lease.clone(), report };
        let since = Instant::now();
        while since.elapsed() < REPORT_FOR {
            say(&self.bus, &subject, &message).await;
            let pause = if since.elapsed() < Duration::from_millis(LEASE_MS) { RESEND_MS } else { RENEW_MS };
            if let Some(reported) = self.answer(kind, Instant::now() + Duration::from_millis(pause)).await {
                return reported;
            }
        }
        error!(lease = ?self.lease, ?kind, "a report was never answered and is given up");
        Reported::GivenUp
    }

    /// Waits for the answer; `None` when it is time to say it again.
    async fn answer(&mut self, kind: ReportKind, until: Instant) -> Option<Reported> {
        loop {
            tokio::select! {
                told = self.told.recv() => match told {
                    Some(Told::Acknowledged(heard)) if heard == kind => return Some(Reported::Acknowledged),
                    Some(Told::Acknowledged(_) | Told::Answered { .. }) => {}
                    Some(Told::Again) => return None,
                    None => return Some(Reported::ShuttingDown),
                },
                () = self.token.cancelled() => return Some(Reported::ShuttingDown),
                () = sleep_until(until) => return None,
            }
        }
    }
}

/// Awards that were declined, until that was heard. Times are those of [`crate::clock`].
#[derive(Debug, Default)]
pub(crate) struct Declines(BTreeMap<Lease, Decline>);

#[derive(Debug)]
struct Decline {
    reason: String,
    since: u64,
    said: u64,
}

impl Declines {
    /// An award is declined, or somebody asks for one that was. Gives back whether to say so at once.
    pub(crate) fn add(&mut self, lease: &Lease, reason: &str, now: u64) -> bool {
        if let Some(decline) = self.0.get_mut(lease) {
            let pause = if now < decline.since + DECLINE_FOR_MS { RESEND_MS } else { RENEW_MS };
            let due = now >= decline.said + pause;
            if due {
                decline.said = now;
            }
            return due;
        }
        if self.0.len() >= DECLINES_MAX
            && let Some(oldest) = self.0.iter().min_by_key(|(_, decline)| decline.since).map(|(lease, _)| lease.clone())
        {
            self.0.remove(&oldest);
        }
        self.0.insert(lease.clone(), Decline { reason: reason.to_owned(), since: now, said: now });
        true
    }

    /// It was heard.
    pub(crate) fn acknowledged(&mut self, lease: &Lease) {
        self.0.remove(lease);
    }

    /// What to say again now.
    pub(crate) fn due(&mut self, now: u64) -> Vec<AgentReport> {
        self.0.retain(|_, decline| now < decline.since + DECLINE_SPENT_MS);
        let due = self.0.iter_mut().filter(|(_, decline)| now < decline.since + DECLINE_FOR_MS && now >= decline.said + RESEND_MS);
        due.map(|(lease, decline)| {
            decline.said = now;
            AgentReport { lease: lease.clone(), report: Report::Declined { reason: decline.reason.clone() } }
        })
        .collect()
    }

    /// When [`Declines::due`] next has something.
    pub(crate) fn due_at(&self, now: u64) -> Option<u64> {
        self.0.values().filter(|decline| now < decline.since + DECLINE_FOR_MS).map(|decline| decline.said + RESEND_MS).min()
    }
}

#[cfg(test)]
mod tests {
    use model::{AttemptId, RunId, StageId, TriggerId};

    use super::*;

    #[test]
    fn a_declined_award_is_said_again_until_it_was_heard() {
        let attempt = AttemptId { run: RunId::of(&TriggerId::of("t", "1")), stage: StageId::of("a"), attempt: 1 };
        let lease = Lease { attempt, fence: 3 };
        let mut declines = Declines::default();
        assert!(declines.add(&lease, "busy", 0));
        assert!(!declines.add(&lease, "busy", RESEND_MS - 1), "asked again at once");
        assert_eq!(declines.due_at(0), Some(RESEND_MS));
        assert_eq!(declines.due(RESEND_MS).len(), 1);
        assert_eq!(declines.due(RESEND_MS).len(), 0);
        assert_eq!(declines.due(DECLINE_FOR_MS).len(), 0);
        assert_eq!(declines.due_at(DECLINE_FOR_MS), None);
        assert!(declines.add(&lease, "busy", DECLINE_FOR_MS), "whoever asks is answered");
        assert!(!declines.add(&lease, "busy", DECLINE_FOR_MS + RESEND_MS), "but slowly");
        declines.acknowledged(&lease);
        assert_eq!(declines.due(2 * DECLINE_FOR_MS).len(), 0);
    }
}
