//! The connection to nats-server: it comes back by itself, and while it is away nothing waits for it longer than it said it would.

use std::{error::Error, fmt, future::Future, io, time::Duration};

use async_nats::{
    Client, ConnectErrorKind, ConnectOptions, Event,
    client::RequestErrorKind,
    connection::State,
    jetstream::{self, context::ContextBuilder},
};
use bytes::Bytes;
use model::AgentName;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tracing::{debug, error, info, warn};

use super::backend::Nats;
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
/// A server that does not answer two pings is given up, so a silent one is noticed after three times this.
const PING_PERIOD: Duration = Duration::from_secs(2);
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
    /// The servers, such as `nats://127.0.0.1:4222`.
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

/// Connects to the bus. The first connection is tried for ten seconds; a lost one comes back by itself, however long it takes.
pub async fn connect(options: &NatsOptions) -> Result<Bus, BusError> {
    Ok(Bus::new(Nats::new(Connection::open(options).await?)))
}

/// A connection and what is known of it. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    pub(super) client: Client,
    pub(super) jetstream: jetstream::Context,
    /// Counts how often the connection was lost.
    losses: watch::Receiver<u64>,
    barrier: String,
}

impl Connection {
    pub(super) async fn open(options: &NatsOptions) -> Result<Self, BusError> {
        let (lost, losses) = watch::channel(0);
        let deadline = Instant::now() + CONNECT_DEADLINE;
        let client = loop {
            let connect = connect_options(options, lost.clone());
            let connect = connect.map_err(|error| refused(format!("the credentials of {}", options.identity), error))?;
            let failure = match connect.connect(&options.urls).await {
                Ok(client) => break client,
                Err(failure) => failure,
            };
            match failure.kind() {
                ConnectErrorKind::ServerParse | ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                    return Err(refused(format!("connection of {}", options.identity), failure));
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
        Ok(Self { client, jetstream, losses, barrier })
    }

    /// Does something for which the connection is needed now: for `limit` at most, and no longer than the connection lasts.
    pub(super) async fn during<T, E>(
        &self,
        doing: impl Fn() -> String,
        limit: Duration,
        operation: impl Future<Output = Result<T, E>>,
    ) -> Result<Result<T, E>, BusError> {
        let mut losses = self.losses.clone();
        losses.mark_unchanged();
        if self.client.connection_state() != State::Connected {
            return Err(unavailable(doing(), "the connection is lost"));
        }
        tokio::select! {
            biased;
            result = timeout(limit, operation) => result.map_err(|elapsed| unavailable(doing(), elapsed)),
            _ = losses.changed() => Err(unavailable(doing(), "the connection was lost")),
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
        let mut losses = self.losses.clone();
        losses.mark_unchanged();
        if self.client.connection_state() == State::Connected {
            // An error means that the client is gone altogether.
            let _gone = losses.changed().await;
        }
    }
}

fn connect_options(options: &NatsOptions, lost: watch::Sender<u64>) -> io::Result<ConnectOptions> {
    let identity = options.identity.to_string();
    // The client looks for the end of the last line, which a reader of settings has cut off.
    let credentials = format!("{}\n", options.credentials.trim_end());
    let connect = ConnectOptions::with_credentials(&credentials)?
        .name(format!("otto {identity}"))
        .custom_inbox_prefix(options.identity.inbox_prefix())
        .connection_timeout(HANDSHAKE_DEADLINE)
        .max_reconnects(None)
        .reconnect_delay_callback(reconnect_pause)
        .ping_interval(PING_PERIOD)
        .subscription_capacity(SUBSCRIPTION_MESSAGES_MAX)
        .client_capacity(COMMANDS_MAX)
        .request_timeout(Some(CALL_DEADLINE))
        .event_callback(move |event| {
            note(&identity, &lost, &event);
            std::future::ready(())
        });
    Ok(connect)
}

/// The pause before this try to connect, counted from 1 since the connection was lost.
fn reconnect_pause(attempt: usize) -> Duration {
    let Some(doublings) = attempt.checked_sub(2) else { return Duration::ZERO };
    let factor = u32::try_from(doublings).ok().and_then(|doublings| 2_u32.checked_pow(doublings)).unwrap_or(u32::MAX);
    RECONNECT_PAUSE_MIN.saturating_mul(factor).min(RECONNECT_PAUSE_MAX)
}

fn note(identity: &str, lost: &watch::Sender<u64>, event: &Event) {
    match event {
        Event::Disconnected => {
            lost.send_modify(|losses| *losses += 1);
            warn!(identity, "the bus is away");
        }
        Event::Connected => info!(identity, "the bus is there"),
        Event::SlowConsumer(_) => warn!(identity, "a listener is too slow: message dropped"),
        Event::ServerError(complaint) => error!(identity, %complaint, "the bus's server complains"),
        Event::ClientError(complaint) => debug!(identity, %complaint, "the bus's client complains"),
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
