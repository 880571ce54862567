//! The role: the book of auctions, and the bus around it.
//!
//! One task owns the book. It waits for messages and for one timer, the next deadline of an auction; nothing is polled.

use eventbus::{Bus, BusError, Message, Pattern, Subject, Subscription, roll};
use model::{
    AgentClass, Timestamp,
    protocol::{
        agent::AgentStatus,
        auction::{Announcement, AuctionRequest, Bid, Experience},
        enrolment::{Asked, RollPage},
    },
};
use service::{OnError, Supervisor, clock, supervisor::chain};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug, info, info_span, warn};

use crate::core::{Book, Effect, Input, Now, roster::Audience};

/// Messages of agents that are read before a request or a deadline that came at the same time: enough for a fleet's answers to some
/// auctions, and few enough that no flood of them holds up the others.
const VOICES_AT_ONCE: usize = 4_096;
/// The longest status that is read, in bytes: facts of some hundred tools. Of an agent that says more, it is known that it is there.
const STATUS_BYTES_MAX: usize = 16 * 1024;
/// The longest bid that is read, in bytes: an offer, or a reason of some sentences.
const BID_BYTES_MAX: usize = 4 * 1024;

/// What an auctioneer is told at its start.
#[derive(Debug, Clone)]
pub struct AuctioneerOptions {
    /// Its name in log lines.
    pub name: String,
    /// Whether agents get only what they were enrolled for. Where all roles are in one process, nobody was enrolled.
    pub asks_the_roll: bool,
}

/// Why an auctioneer does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The bus is not there.
    #[error("the auctioneer cannot listen to the bus")]
    Bus(#[from] BusError),
}

/// Starts an auctioneer as a task of the supervisor. When this returns, it listens.
pub async fn run(options: AuctioneerOptions, bus: Bus, supervisor: &Supervisor) -> Result<(), StartError> {
    let roll = if options.asks_the_roll { Some(roll::follow(&bus, supervisor).await?) } else { None };
    let auctioneer = Auctioneer {
        // Whoever is there is heard before the first request is.
        statuses: bus.subscribe(Pattern::statuses()).await?,
        bids: bus.subscribe(Pattern::bids()).await?,
        ran: bus.subscribe(Subject::ran()).await?,
        requests: bus.subscribe_group(Subject::for_auction()).await?,
        bus,
        book: if roll.is_some() { Book::with_roll() } else { Book::default() },
        roll,
        started: Instant::now(),
        token: supervisor.token().clone(),
        refusing: false,
    };
    let span = info_span!("auctioneer", name = options.name);
    supervisor.spawn("auctioneer", OnError::Shutdown, async move { Ok(auctioneer.serve().await?) }.instrument(span));
    Ok(())
}

struct Auctioneer {
    bus: Bus,
    statuses: Subscription,
    bids: Subscription,
    ran: Subscription,
    requests: Subscription,
    /// Who is enrolled; `None` where that is not asked.
    roll: Option<mpsc::Receiver<RollPage>>,
    book: Book,
    started: Instant,
    token: CancellationToken,
    /// Whether the last request found the book full: told once, not for each.
    refusing: bool,
}

/// What woke the loop.
enum Woken {
    Request(Message),
    Bid(Message),
    Status(Message),
    Ran(Message),
    Roll(RollPage),
    Deadline,
}

impl Auctioneer {
    async fn serve(mut self) -> Result<(), BusError> {
        info!("listens for auctions");
        loop {
            let deadline = self.book.deadline().map(|deadline| self.started + deadline);
            let woken = tokio::select! {
                () = self.token.cancelled() => return Ok(()),
                message = self.requests.next() => message.map(Woken::Request),
                message = self.bids.next() => message.map(Woken::Bid),
                message = self.statuses.next() => message.map(Woken::Status),
                message = self.ran.next() => message.map(Woken::Ran),
                page = next_page(&mut self.roll) => Some(Woken::Roll(page)),
                () = until(deadline) => Some(Woken::Deadline),
            };
            match woken {
                Some(Woken::Request(message)) => {
                    // Whom an auction expects must not hang on which of two messages is looked at first.
                    self.hear_all().await;
                    if let Some(request) = read::<AuctionRequest>(&message) {
                        self.take(Input::Requested(request)).await;
                    }
                }
                Some(Woken::Bid(message)) => {
                    // What an agent has learned of itself it said before it made an offer of it.
                    self.hear_statuses().await;
                    self.hear_bid(&message).await;
                }
                Some(Woken::Status(message)) => self.hear_status(&message).await,
                Some(Woken::Ran(message)) => {
                    for ran in read::<Experience>(&message).into_iter().flat_map(|experience| experience.ran) {
                        self.take(Input::Ran(ran)).await;
                    }
                }
                Some(Woken::Roll(page)) => self.take(Input::Enrolled(page)).await,
                Some(Woken::Deadline) => {
                    // What is here came in time, though it was not looked at.
                    self.hear_all().await;
                    self.take(Input::TimePassed).await;
                }
                None => return if self.token.is_cancelled() { Ok(()) } else { Err(BusError::Closed) },
            }
        }
    }

    /// Takes what agents have said by now.
    async fn hear_all(&mut self) {
        for _ in 0..VOICES_AT_ONCE {
            if let Some(message) = self.statuses.try_next() {
                self.hear_status(&message).await;
            } else if let Some(message) = self.bids.try_next() {
                self.hear_bid(&message).await;
            } else {
                return;
            }
        }
    }

    async fn hear_statuses(&mut self) {
        for _ in 0..VOICES_AT_ONCE {
            let Some(message) = self.statuses.try_next() else { return };
            self.hear_status(&message).await;
        }
    }

    async fn hear_status(&mut self, message: &Message) {
        let Some(agent) = message.subject.agent() else { return };
        let status = if message.payload.len() <= STATUS_BYTES_MAX { read::<AgentStatus>(message) } else { None };
        let input = match status {
            Some(status) => Input::Showed { agent, status: Box::new(status) },
            None => Input::Heard(agent),
        };
        self.take(input).await;
    }

    async fn hear_bid(&mut self, message: &Message) {
        let Some(agent) = message.subject.agent() else { return };
        let Some(auction) = message.subject.bid_auction() else { return };
        // What does not count costs no more than a look at its subject, however much of it comes.
        let counts = self.book.waits_for(&agent, &auction) && message.payload.len() <= BID_BYTES_MAX;
        let input = match if counts { read::<Bid>(message) } else { None } {
            Some(bid) => Input::Bid { agent, auction, bid },
            None => Input::Late { agent, auction },
        };
        self.take(input).await;
    }

    async fn take(&mut self, input: Input) {
        let asked = matches!(input, Input::Requested(_));
        let now = Now { elapsed: self.started.elapsed(), at: Timestamp(clock::unix_ms()) };
        let effects = self.book.take(input, now);
        let refused = effects.iter().any(|effect| matches!(effect, Effect::Refuse(_)));
        if asked && refused != self.refusing {
            self.refusing = refused;
            if refused {
                warn!("too many auctions are open: more are not held until some have closed");
            } else {
                info!("auctions are held again");
            }
        }
        for effect in effects {
            self.perform(effect).await;
        }
    }

    async fn perform(&self, effect: Effect) {
        let publish = async {
            match effect {
                Effect::Announce { announcement, to } => {
                    debug!(auction = %announcement.request.auction, attempt = %announcement.request.attempt, ?to, "announced");
                    self.announce(&announcement, to).await
                }
                Effect::Propose(proposal) => {
                    let (offers, declined) = (proposal.offers.len(), proposal.declined.len());
                    debug!(auction = %proposal.auction, attempt = %proposal.attempt, offers, declined, "proposed");
                    self.bus.publish(&Subject::proposed(), &proposal).await
                }
                Effect::Refuse(_) => Ok(()),
            }
        };
        // A bus that does not take messages has nothing for this loop either; but the end must be heard.
        tokio::select! {
            () = self.token.cancelled() => {}
            published = publish => if let Err(error) = published {
                warn!(error = chain(&error), "a message was not sent: it will be asked for again");
            },
        }
    }
}

impl Auctioneer {
    async fn announce(&self, announcement: &Announcement, to: Audience) -> Result<(), BusError> {
        match to {
            Audience::Class => {
                // Without a roll there is one class, whatever a stage asks for: its agent says that it is of another.
                let asked = Asked::by(announcement.request.trust, &announcement.request.requires).class.filter(|_| self.roll.is_some());
                let class: AgentClass = asked.and_then(|class| class.parse().ok()).unwrap_or_default();
                self.bus.publish(&Subject::auction(class.as_str()), announcement).await
            }
            Audience::Agents(agents) => {
                let calls: Vec<Subject> = agents.iter().map(Subject::call).collect();
                self.bus.publish_to_each(&calls, announcement).await
            }
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
    std::future::pending().await
}

/// Waits until `deadline`; for ever if there is none.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Reads a message; one that is not what its subject says is written down and left.
fn read<T: for<'a> serde::Deserialize<'a>>(message: &Message) -> Option<T> {
    match message.read() {
        Ok(said) => Some(said),
        Err(error) => {
            warn!(error = chain(&error), "a message was left unread");
            None
        }
    }
}
