//! The connection to nats-server: it comes back by itself, and while it is away nothing waits for it longer than it said it would.

use std::{
    error::Error,
    fmt,
    future::{Future, ready},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use async_nats::{
    Auth, AuthError, Client, ClientError, ConnectErrorKind, ConnectOptions, Event,
    client::RequestErrorKind,
    connection::State,
    jetstream::{self, context::ContextBuilder},
};
use bytes::Bytes;
use model::AgentName;
use nkeys::KeyPair;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tracing::{debug, error, info, warn};

use super::{backend::Nats, jwt, keys::now_s};
use crate::{Bus, BusError, bus::SUBSCRIPTION_MESSAGES_MAX, subject::Role};

/// How long the first connection is tried: the server may be starting, too.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// Between two tries of the first connection.
const CONNECT_PAUSE: Duration = Duration::from_millis(50);
/// How long one try may take, from the first packet to the server's greeting.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(2);
/// The pauses between tries to connect again: none before the first, then doubling between these two.
const RECONNECT_PAUSE_MIN: Duration = Duration::from_millis(10);
const RECONNECT_PAUSE_MAX: Duration = Duration::from_millis(500);
/// A server that does not answer two pings is given up, so a silent one is noticed after three times this: within the time in which a stage with a lock
/// must be confirmed (RFC 0008), for agents and the orchestrators that confirm it.
const PING_PERIOD: Duration = Duration::from_secs(2);
/// The same for those who only answer. Each ping wakes both ends, however little there is to do.
const PING_PERIOD_ANSWERING: Duration = Duration::from_secs(5);
/// Commands that wait for the socket. Messages of an outage are not kept: whoever sends them is told, and sends them again.
const COMMANDS_MAX: usize = 4 * 1024;
/// How long one call of JetStream's API is waited for. A disk's slow fsync is in it.
pub(super) const CALL_DEADLINE: Duration = Duration::from_secs(3);
/// How long whoever begins to listen waits for the connection to be there.
const BARRIER_DEADLINE: Duration = Duration::from_secs(10);

/// Who connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// A service.
    Service(Role),
    /// An agent.
    Agent(AgentName),
    /// Who changes accounts while the server runs.
    System,
}

impl Identity {
    /// What the subjects of its inboxes begin with. Nobody else may listen there.
    pub fn inbox_prefix(&self) -> String {
        match self {
            Self::Service(role) => format!("_INBOX_{role}"),
            Self::Agent(agent) => format!("_INBOX_agent_{agent}"),
            Self::System => "_INBOX_system".to_owned(),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(role) => write!(f, "{role}"),
            Self::Agent(agent) => write!(f, "agent {agent}"),
            Self::System => f.write_str("the administrator"),
        }
    }
}

/// How to connect.
#[derive(Clone)]
pub struct NatsOptions {
    /// The servers, such as `nats://127.0.0.1:4222`: all by WebSocket (`wss://`, `ws://`), or none (`nats://`, `tls://`).
    pub urls: Vec<String>,
    /// The text of a file of credentials: the user's JWT and the seed of its nkey.
    pub credentials: String,
    /// Whose they are.
    pub identity: Identity,
}

impl fmt::Debug for NatsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The credentials are a secret.
        f.debug_struct("NatsOptions").field("urls", &self.urls).field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// An agent was off, or away, for longer than its user lives.
#[derive(Debug, thiserror::Error)]
#[error(
    "the user of agent {agent} has ended: it was off, or away from the bus, for longer than users live. Enrol it again: `otto agent revoke {agent}` and \
     `otto agent enrol {agent}` on the administrator's machine, then `otto agent join` here with the token. An agent of `otto up` gets another when that \
     starts again"
)]
pub struct UserEnded {
    /// Which.
    pub agent: AgentName,
}

/// Connects to the bus. The first connection is tried for ten seconds; a lost one comes back by itself, however long it takes.
pub async fn connect(options: &NatsOptions) -> Result<Bus, BusError> {
    Ok(Bus::new(Nats::new(Connection::open(options).await?)))
}

/// As whom a connection is made, each time that it is.
#[derive(Debug)]
pub(super) struct User {
    key: KeyPair,
    jwt: RwLock<String>,
}

impl User {
    fn of(credentials: &str) -> Option<Self> {
        let (jwt, seed) = jwt::read_credentials(credentials)?;
        Some(Self { key: KeyPair::from_seed(seed).ok()?, jwt: RwLock::new(jwt.to_owned()) })
    }

    pub(super) fn public_key(&self) -> String {
        self.key.public_key()
    }

    pub(super) fn jwt(&self) -> String {
        self.jwt.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From the next connection on.
    pub(super) fn set_jwt(&self, jwt: String) {
        *self.jwt.write().unwrap_or_else(PoisonError::into_inner) = jwt;
    }

    /// Shows the server that the key is here.
    fn answer(&self, nonce: &[u8]) -> Result<Auth, AuthError> {
        let signature = self.key.sign(nonce).map_err(AuthError::new)?;
        let mut auth = Auth::new();
        (auth.jwt, auth.signature) = (Some(self.jwt()), Some(signature));
        Ok(auth)
    }
}

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Fate {
    /// How often it was lost.
    losses: u64,
    /// The server has refused the user since.
    is_refused: bool,
}

/// A connection and what is known of it. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    pub(super) client: Client,
    pub(super) jetstream: jetstream::Context,
    pub(super) user: Arc<User>,
    fate: watch::Receiver<Fate>,
    barrier: String,
}

impl Connection {
    pub(super) async fn open(options: &NatsOptions) -> Result<Self, BusError> {
        let user = User::of(&options.credentials);
        let user = user.ok_or_else(|| refused(format!("the credentials of {}", options.identity), "they hold no JWT with its seed"))?;
        Self::open_as(Arc::new(user), options).await
    }

    async fn open_as(user: Arc<User>, options: &NatsOptions) -> Result<Self, BusError> {
        let (told, fate) = watch::channel(Fate::default());
        let deadline = Instant::now() + CONNECT_DEADLINE;
        let client = loop {
            let failure = match connect_options(user.clone(), options, told.clone()).connect(&options.urls).await {
                Ok(client) => break client,
                Err(failure) => failure,
            };
            match failure.kind() {
                ConnectErrorKind::ServerParse | ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                    let doing = format!("connection of {}", options.identity);
                    let is_over = jwt::life(&user.jwt()).is_some_and(|life| life.is_over(now_s()));
                    return Err(match &options.identity {
                        Identity::Agent(agent) if is_over => refused(doing, UserEnded { agent: agent.clone() }),
                        Identity::Agent(_) | Identity::Service(_) | Identity::System => refused(doing, failure),
                    });
                }
                ConnectErrorKind::Dns
                | ConnectErrorKind::TimedOut
                | ConnectErrorKind::Tls
                | ConnectErrorKind::Io
                | ConnectErrorKind::MaxReconnects => {}
            }
            if Instant::now() >= deadline {
                return Err(unavailable(format!("connection to {}", options.urls.join(", ")), failure));
            }
            sleep(CONNECT_PAUSE).await;
        };
        let jetstream = ContextBuilder::new().timeout(CALL_DEADLINE).build(client.clone());
        // Nobody listens there: the server's saying so is the answer.
        let barrier = format!("{}.barrier", options.identity.inbox_prefix());
        Ok(Self { client, jetstream, user, fate, barrier })
    }

    /// Connects again, now, as the user that it has by now. What waits in the client is sent before.
    pub(super) async fn renew(&self) -> Result<(), BusError> {
        let doing = || "renewal of the connection".to_owned();
        self.during(doing, CALL_DEADLINE, self.client.flush()).await?.map_err(|error| unavailable(doing(), error))?;
        self.client.force_reconnect().await.map_err(|error| unavailable(doing(), error))
    }

    /// Returns when the server refuses the user, on a connection that was lost.
    pub(super) async fn refused(&self) {
        let mut fate = self.fate.clone();
        // An error means that the client is gone altogether.
        let _gone = fate.wait_for(|fate| fate.is_refused).await;
    }

    /// Does something for which the connection is needed now: for `limit` at most, and no longer than the connection lasts.
    pub(super) async fn during<T, E>(
        &self,
        doing: impl Fn() -> String,
        limit: Duration,
        operation: impl Future<Output = Result<T, E>>,
    ) -> Result<Result<T, E>, BusError> {
        let mut fate = self.fate.clone();
        let losses = fate.borrow_and_update().losses;
        if self.client.connection_state() != State::Connected {
            return Err(unavailable(doing(), "the connection is lost"));
        }
        tokio::select! {
            biased;
            result = timeout(limit, operation) => result.map_err(|elapsed| unavailable(doing(), elapsed)),
            _ = fate.wait_for(|fate| fate.losses != losses) => Err(unavailable(doing(), "the connection was lost")),
        }
    }

    /// Asks a question and waits for the answer of whoever listens there, or of the server itself.
    pub(super) async fn request(
        &self,
        doing: impl Fn() -> String,
        limit: Duration,
        subject: &str,
        request: async_nats::Request,
    ) -> Result<Option<Bytes>, BusError> {
        // One limit is enough, and it is ours.
        let request = self.client.send_request(subject.to_owned(), request.timeout(None));
        match self.during(&doing, limit, request).await? {
            Ok(message) => Ok(Some(message.payload)),
            Err(failure) => match failure.kind() {
                RequestErrorKind::NoResponders => Ok(None),
                RequestErrorKind::TimedOut | RequestErrorKind::Other => Err(unavailable(doing(), failure)),
                RequestErrorKind::InvalidSubject | RequestErrorKind::MaxPayloadExceeded => Err(refused(doing(), failure)),
            },
        }
    }

    /// Waits until the server has seen all that was sent before.
    pub(super) async fn barrier(&self) -> Result<(), BusError> {
        let deadline = Instant::now() + BARRIER_DEADLINE;
        loop {
            match self.request(|| "barrier".to_owned(), CALL_DEADLINE, &self.barrier, async_nats::Request::new()).await {
                Ok(_) => return Ok(()),
                Err(failure) if Instant::now() >= deadline => return Err(failure),
                Err(_) => sleep(CONNECT_PAUSE).await,
            }
        }
    }

    /// Returns when the connection is lost.
    pub(super) async fn lost(&self) {
        let mut fate = self.fate.clone();
        let losses = fate.borrow_and_update().losses;
        if self.client.connection_state() == State::Connected {
            // An error means that the client is gone altogether.
            let _gone = fate.wait_for(|fate| fate.losses != losses).await;
        }
    }
}

fn connect_options(user: Arc<User>, options: &NatsOptions, told: watch::Sender<Fate>) -> ConnectOptions {
    let identity = options.identity.to_string();
    let connect = ConnectOptions::with_auth_callback(move |nonce| ready(user.answer(&nonce)))
        .name(format!("otto {identity}"))
        .custom_inbox_prefix(options.identity.inbox_prefix())
        .connection_timeout(HANDSHAKE_DEADLINE)
        .max_reconnects(None)
        .reconnect_delay_callback(reconnect_pause)
        .ping_interval(ping_period(&options.identity))
        .subscription_capacity(SUBSCRIPTION_MESSAGES_MAX)
        .client_capacity(COMMANDS_MAX)
        .request_timeout(Some(CALL_DEADLINE))
        .event_callback(move |event| {
            note(&identity, &told, &event);
            ready(())
        });
    // Servers tell of each other where they are among themselves, and that is behind the proxy by which WebSockets come.
    if options.urls.iter().any(|url| is_websocket(url)) { connect.ignore_discovered_servers() } else { connect }
}

/// Whether the server at this address is reached by WebSocket.
pub fn is_websocket(url: &str) -> bool {
    url.starts_with("wss://") || url.starts_with("ws://")
}

fn ping_period(identity: &Identity) -> Duration {
    match identity {
        Identity::Agent(_) | Identity::Service(Role::Orchestrator) => PING_PERIOD,
        Identity::Service(Role::Parser | Role::Auctioneer | Role::Forge | Role::Eventbus) | Identity::System => PING_PERIOD_ANSWERING,
    }
}

/// The pause before this try to connect, counted from 1 since the connection was lost.
fn reconnect_pause(attempt: usize) -> Duration {
    let Some(doublings) = attempt.checked_sub(2) else { return Duration::ZERO };
    let factor = u32::try_from(doublings).ok().and_then(|doublings| 2_u32.checked_pow(doublings)).unwrap_or(u32::MAX);
    RECONNECT_PAUSE_MIN.saturating_mul(factor).min(RECONNECT_PAUSE_MAX)
}

fn note(identity: &str, told: &watch::Sender<Fate>, event: &Event) {
    match event {
        Event::Disconnected => {
            told.send_modify(|fate| fate.losses += 1);
            warn!(identity, "the bus is away");
        }
        Event::Connected => {
            told.send_modify(|fate| fate.is_refused = false);
            info!(identity, "the bus is there");
        }
        Event::SlowConsumer(_) => warn!(identity, "a listener is too slow: message dropped"),
        Event::ServerError(complaint) => error!(identity, %complaint, "the bus's server complains"),
        Event::ClientError(complaint) => {
            // The client tells of a try that failed by the text of its kind.
            let is_refused = matches!(complaint, ClientError::Other(text) if *text == ConnectErrorKind::AuthorizationViolation.to_string());
            if is_refused {
                told.send_modify(|fate| fate.is_refused = true);
            }
            debug!(identity, %complaint, "the bus's client complains");
        }
        Event::LameDuckMode | Event::Draining | Event::Closed => info!(identity, %event, "the bus's connection changes"),
    }
}

pub(super) fn unavailable(doing: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> BusError {
    BusError::Unavailable { doing: doing.into(), source: source.into() }
}

pub(super) fn refused(doing: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> BusError {
    BusError::Refused { doing: doing.into(), source: source.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pauses_begin_short_and_are_bounded() {
        assert_eq!([1, 2, 3, 4].map(reconnect_pause).map(|pause| pause.as_millis()), [0, 10, 20, 40]);
        assert_eq!([9, 50, usize::MAX].map(reconnect_pause).map(|pause| pause.as_millis()), [500, 500, 500]);
    }

    #[test]
    fn credentials_are_not_shown() {
        let options = NatsOptions { urls: vec![], credentials: "SUSECRET".to_owned(), identity: Identity::Service(Role::Forge) };
        assert!(!format!("{options:?}").contains("SECRET"));
    }
}
