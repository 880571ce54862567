//! The agent's desk: answers auctions, takes assignments, and sends each attempt to a keeper of its own.
//!
//! ```text
//! announcements ─▶┌──────┐──▶ bids, status, declined awards
//!         inbox ─▶│ desk │──▶ keeper of an attempt ──▶ reports, output
//!                 └──────┘◀── what happened ──┘
//! ```
//!
//! One task owns the slots. It awaits nothing it does not select on, but for the bus to take a soft message, which has its limit.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use eventbus::{Message, Subject, Subscription, signed};
use model::protocol::{
    agent::{AgentCommand, AgentReport, AgentStatus, Assignment, Lease, Report, ReportKind},
    auction::{Announcement, Bid, Offer},
};
use service::{
    OnError, Supervisor,
    supervisor::{TaskError, chain},
};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::sleep,
};
use tracing::{debug, info, trace, warn};

use crate::{
    clock,
    core::{
        pulse::PULSE_MS,
        renewals::Renewals,
        slots::{Slots, Verdict},
    },
    executor::halt::Stop,
    keeper::{Happened, Keeper, Shared},
    reports::{Declines, Reporter, Told, say},
    spool::Recovered,
};

/// Attempts that are looked after at once, most of them because their results or output were not heard yet. An agent that has so many
/// makes no further offers: its disk would fill.
const KEEPERS_MAX: usize = 1024;
/// What keepers have said and the desk has not read. Each says at most four things, and none may find it full.
const HAPPENED_MAX: usize = 8 * KEEPERS_MAX;
/// Messages to a keeper that it has not read. They are said again, so more are dropped.
const TOLD_MAX: usize = 16;

/// What the desk knows.
#[derive(Debug)]
pub(crate) struct Desk {
    shared: Arc<Shared>,
    supervisor: Supervisor,
    slots: Slots,
    keepers: BTreeMap<Lease, Kept>,
    declines: Declines,
    happened: mpsc::Sender<Happened>,
    renewals: Renewals,
    renew_at: u64,
}

/// The desk's end of a keeper.
#[derive(Debug)]
struct Kept {
    told: mpsc::Sender<Told>,
    stop: watch::Sender<Option<Stop>>,
    /// Somebody wants to know where its output lies.
    asked: Arc<Notify>,
    /// When its processes must have ended, as far as is known; told to what holds them, which does not stand still with the agent.
    lives_until: watch::Sender<Option<u64>>,
    /// Whether the agent claims the lease: until its result was heard.
    held: bool,
}

/// What the desk listens to.
#[derive(Debug)]
pub(crate) struct Ears {
    pub(crate) inbox: Subscription,
    pub(crate) announcements: Subscription,
    /// Announcements to this agent alone.
    pub(crate) calls: Subscription,
    happened: mpsc::Receiver<Happened>,
}

/// What wakes the desk.
#[derive(Debug)]
enum Input {
    Happened(Happened),
    Command(Message),
    Announcement(Message),
    Time,
    Leave,
    End,
}

impl Ears {
    /// The next input, what keepers say first: an attempt's end is known before the assignment that follows from it is read. `None` when
    /// the bus is closed.
    async fn next(&mut self, supervisor: &Supervisor, pause: Duration, leaving: bool) -> Option<Input> {
        tokio::select! {
            biased;
            () = supervisor.token().cancelled() => Some(Input::End),
            () = supervisor.leaving().cancelled(), if !leaving => Some(Input::Leave),
            happened = self.happened.recv() => happened.map(Input::Happened),
            message = self.inbox.next() => message.map(Input::Command),
            message = self.announcements.next() => message.map(Input::Announcement),
            message = self.calls.next() => message.map(Input::Announcement),
            () = sleep(pause) => Some(Input::Time),
        }
    }
}

impl Desk {
    /// A desk and what it listens to.
    pub(crate) fn new(
        shared: Arc<Shared>,
        slots: Slots,
        supervisor: Supervisor,
        (inbox, announcements, calls): (Subscription, Subscription, Subscription),
    ) -> (Self, Ears) {
        let (happened, ear) = mpsc::channel(HAPPENED_MAX);
        let desk = Self {
            shared,
            supervisor,
            slots,
            keepers: BTreeMap::new(),
            declines: Declines::default(),
            happened,
            renewals: Renewals::default(),
            renew_at: 0,
        };
        (desk, Ears { inbox, announcements, calls, happened: ear })
    }

    /// Where it is told what has happened.
    pub(crate) fn ear(&self) -> mpsc::Sender<Happened> {
        self.happened.clone()
    }

    /// Works until the supervisor ends it.
    pub(crate) async fn work(mut self, mut ears: Ears) -> Result<(), TaskError> {
        let (mut pause, mut leaving) = (Duration::ZERO, false);
        loop {
            let input = ears.next(&self.supervisor, pause, leaving).await.ok_or("the bus is closed")?;
            let now = clock::now_ms();
            self.slots.wake(now);
            match input {
                Input::Happened(happened) => self.note(happened, now).await,
                Input::Command(message) => self.command(&message, now).await,
                Input::Announcement(message) => self.announcement(&message, now).await,
                Input::Time => {}
                Input::Leave => {
                    leaving = true;
                    self.slots.leave();
                    self.renew_at = now;
                }
                Input::End => break,
            }
            if leaving && self.keepers.is_empty() {
                info!("nothing runs here any more");
                self.supervisor.token().cancel();
            }
            pause = self.on_time(now).await;
        }
        for kept in self.keepers.values() {
            kept.stop.send_replace(Some(Stop::ShuttingDown));
        }
        Ok(())
    }

    /// Says what is due, and gives how long there is nothing more.
    async fn on_time(&mut self, now: u64) -> Duration {
        if now >= self.renew_at {
            self.renew_at = now + self.renewals.pause_ms();
            self.show(now).await;
        }
        for lease in self.renewals.lapsed(now) {
            warn!(?lease, "nobody confirmed the lease of a stage that holds a lock, so it is ended");
            self.stop(&lease, Stop::Unrenewed);
        }
        for report in self.declines.due(now) {
            self.report(&report).await;
        }
        let beat_at = self.slots.rest().then_some(now + PULSE_MS);
        let wake_at =
            [Some(self.renew_at), self.declines.due_at(now), self.renewals.due_at(), beat_at].into_iter().flatten().min().unwrap_or(now);
        Duration::from_millis(wake_at.saturating_sub(now))
    }

    async fn show(&mut self, now: u64) {
        let number = self.renewals.next(now);
        let terms = self.slots.terms();
        let leases = self.keepers.iter().filter(|(_, kept)| kept.held).map(|(lease, _)| lease.clone()).collect();
        let status = AgentStatus {
            agent: terms.agent.clone(),
            slots: terms.slots,
            slots_free: self.slots.free(),
            price_micros_per_s: terms.price_micros_per_s,
            facts: terms.facts.clone(),
            leases,
            number,
        };
        say(&self.shared.bus, &Subject::status(&self.shared.agent), &status).await;
    }

    async fn report(&self, report: &AgentReport) {
        say(&self.shared.bus, &Subject::report(&self.shared.agent, report.report.kind()), report).await;
    }

    async fn note(&mut self, happened: Happened, now: u64) {
        match happened {
            Happened::Learned { facts } => {
                self.slots.learn(facts);
                // Who waits for such an agent is to know.
                self.renew_at = now;
            }
            Happened::Refused { lease, reason } => {
                self.slots.refuse(&lease, &reason);
                self.decline(&lease, &reason, now).await;
            }
            Happened::Ended { lease } => {
                self.renewals.release(&lease);
                self.slots.finished(&lease, now);
            }
            Happened::Heard { lease } => {
                if let Some(kept) = self.keepers.get_mut(&lease) {
                    kept.held = false;
                }
            }
            Happened::Gone { lease } => {
                self.renewals.release(&lease);
                self.slots.finished(&lease, now);
                self.keepers.remove(&lease);
            }
        }
    }

    async fn announcement(&mut self, message: &Message, now: u64) {
        let announcement: Announcement = match message.read() {
            Ok(announcement) => announcement,
            Err(error) => return warn!(error = chain(&error), "an announcement was not understood"),
        };
        let request = announcement.request;
        let bid = if self.keepers.len() < KEEPERS_MAX {
            match self.slots.offer(&request, now) {
                Bid::Offer(offer) => Bid::Offer(Offer { has: self.shared.tools.has(&request.wants), ..offer }),
                declined @ Bid::Decline { .. } => declined,
            }
        } else {
            Bid::Decline { reason: format!("{KEEPERS_MAX} attempts wait for their results to be heard") }
        };
        debug!(attempt = %request.attempt, ?bid, "answered an auction");
        say(&self.shared.bus, &Subject::bid(&self.shared.agent, &request.auction), &bid).await;
    }

    async fn command(&mut self, message: &Message, now: u64) {
        match signed::open(&self.shared.agent, &message.payload, self.shared.commands.as_ref()) {
            Ok(AgentCommand::Assign(assignment)) => {
                trace!(target: crate::WATERFALL, point = "assignment heard", lease = ?assignment.lease);
                self.assign(assignment, now).await;
            }
            Ok(AgentCommand::Cancel { lease, force }) => self.cancel(&lease, force, now).await,
            Ok(AgentCommand::Acknowledge { lease, report: ReportKind::Declined }) => self.declines.acknowledged(&lease),
            Ok(AgentCommand::Renewed { status, leases }) => {
                self.renewals.confirmed(status, &leases);
                for (lease, kept) in leases.iter().filter_map(|lease| Some((lease, self.keepers.get(lease)?))) {
                    if let Some(over_at) = self.renewals.over_at(lease) {
                        kept.lives_until.send_replace(Some(over_at));
                    }
                }
            }
            Ok(AgentCommand::TellOutput { lease }) => {
                if let Some(kept) = self.keepers.get(&lease) {
                    kept.asked.notify_one();
                }
            }
            Ok(AgentCommand::RunAnswer { lease, number, answer }) => self.tell(&lease, Told::Answered { number, answer }),
            Ok(AgentCommand::Acknowledge { lease, report }) => self.tell(&lease, Told::Acknowledged(report)),
            Err(error) => warn!(error = chain(&error), "a command is not obeyed"),
        }
    }

    async fn assign(&mut self, assignment: Box<Assignment>, now: u64) {
        let lease = assignment.lease.clone();
        match self.slots.accept(&lease, assignment.stage.effect, now) {
            Verdict::Start { superseded } => {
                self.supersede(superseded);
                info!(?lease, stage = assignment.stage.path, "taking up");
                if assignment.stage.lock.is_some() {
                    self.renewals.hold(&lease, now);
                    // The lease is to be confirmed soon, and then more often.
                    self.renew_at = now;
                }
                let keeper = self.keeper(&lease, true);
                self.supervisor.spawn(format!("attempt {}", lease.attempt), OnError::Log, keeper.take_up(assignment));
            }
            Verdict::Again => self.tell(&lease, Told::Again),
            Verdict::Outdated => debug!(?lease, "an outdated assignment"),
            Verdict::Decline { reason, superseded } => {
                self.supersede(superseded);
                self.decline(&lease, &reason, now).await;
            }
        }
    }

    async fn cancel(&mut self, lease: &Lease, force: bool, now: u64) {
        if let Some(kept) = self.keepers.get(lease) {
            // What has ended already says so by itself, at its own pace: this may be the answer to that.
            kept.stop.send_if_modified(|stop| {
                let is_news = stop.is_none() || (force && *stop == Some(Stop::Cancelled));
                if is_news {
                    *stop = Some(if force { Stop::Killed } else { Stop::Cancelled });
                }
                is_news
            });
        } else if let Some(reason) = self.slots.cancel_unknown(lease) {
            self.decline(lease, &reason, now).await;
        }
    }

    async fn decline(&mut self, lease: &Lease, reason: &str, now: u64) {
        if self.declines.add(lease, reason, now) {
            info!(?lease, reason, "declined");
            self.report(&AgentReport { lease: lease.clone(), report: Report::Declined { reason: reason.to_owned() } }).await;
        }
    }

    fn supersede(&self, lease: Option<Lease>) {
        if let Some(lease) = lease {
            self.stop(&lease, Stop::Superseded);
        }
    }

    fn stop(&self, lease: &Lease, stop: Stop) {
        if let Some(kept) = self.keepers.get(lease) {
            kept.stop.send_replace(Some(stop));
        }
    }

    fn tell(&self, lease: &Lease, told: Told) {
        if let Some(kept) = self.keepers.get(lease)
            && let Err(error) = kept.told.try_send(told)
        {
            debug!(?lease, %error, "a keeper was not told");
        }
    }

    fn keeper(&mut self, lease: &Lease, held: bool) -> Keeper {
        let (told, hears) = mpsc::channel(TOLD_MAX);
        let (stop, stopped) = watch::channel(None);
        let asked = Arc::new(Notify::new());
        let (lives_until, lives) = watch::channel(self.renewals.over_at(lease));
        self.keepers.insert(lease.clone(), Kept { told, stop: stop.clone(), asked: asked.clone(), lives_until, held });
        let reporter = Reporter {
            agent: self.shared.agent.clone(),
            lease: lease.clone(),
            bus: self.shared.bus.clone(),
            told: hears,
            token: self.supervisor.token().clone(),
        };
        Keeper {
            shared: self.shared.clone(),
            reporter,
            stop: stopped,
            stopper: stop,
            asked,
            lives_until: lives,
            happened: self.happened.clone(),
        }
    }

    /// Goes on with what an earlier life of the agent has left.
    pub(crate) fn go_on(&mut self, recovered: Recovered, now: u64) {
        let lease = recovered.lease.clone();
        self.slots.recover(&lease, now);
        let held = matches!(recovered.report, Report::Finished { .. });
        info!(?lease, report = ?recovered.report.kind(), "an earlier life of this agent had this attempt");
        let keeper = self.keeper(&lease, held);
        self.supervisor.spawn(format!("attempt {}", lease.attempt), OnError::Log, keeper.go_on(recovered));
    }
}
