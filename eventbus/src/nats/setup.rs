//! The streams and the consumer as they must be, and the check that the server keeps what it acknowledges.

use std::{collections::BTreeMap, io, net::SocketAddr, num::NonZeroUsize, sync::Arc, time::Duration};

use async_nats::jetstream::{
    self, ErrorCode,
    consumer::{AckPolicy, DeliverPolicy, PullConsumer, ReplayPolicy, pull},
    context::{CreateStreamErrorKind, GetStreamErrorKind},
    stream::{Config, DiscardPolicy, RetentionPolicy, StorageType},
};
use service::tool::Version;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::{
    Account, Accounts, AccountsError, Enrolment,
    backend::Nats,
    connection::{Connection, NatsOptions},
    monitor::{self, Varz},
    permissions::TRIGGER_CONSUMER,
    server::VERSION_MIN,
};
use crate::{Bus, BusError, bus::TRIGGER_ACK_WAIT, subject::Stream};

/// What the server may use of the disk: both streams full, and what it keeps beside them.
pub(super) const STORE_BYTES_MAX: i64 = Stream::Runs.bytes_max() + 2 * Stream::Triggers.bytes_max();
/// Triggers in work at once, over all orchestrators. Each is a plan being made.
const TRIGGERS_IN_WORK_MAX: i64 = 256;
/// A server that has just started may not have its streams yet, and those of a cluster may have to find each other and choose a leader first.
const READY_DEADLINE: Duration = Duration::from_secs(30);
/// Between two looks at a server that has just started.
const READY_PAUSE: Duration = Duration::from_millis(50);

/// Why the bus cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The server is older than what was tried.
    #[error("nats-server {version} is too old: {VERSION_MIN} or newer is needed")]
    TooOld {
        /// What the server says.
        version: String,
    },
    /// The server acknowledges what is not on the disk yet.
    #[error(
        "nats-server acknowledges messages before they are on the disk: set `sync_interval: always` in the jetstream section of its configuration"
    )]
    NotSynced,
    /// The monitoring addresses are other servers'.
    #[error("{monitors} is the monitoring address of another nats-server than the one that is connected to")]
    OtherServer {
        /// The addresses.
        monitors: String,
    },
    /// The monitoring address does not answer.
    #[error("nats-server does not answer on its monitoring address {monitor}")]
    Monitor {
        /// The address.
        monitor: SocketAddr,
        /// What hinders.
        source: io::Error,
    },
    /// A stream or consumer differs from what it must be, and the server does not let it be mended.
    #[error("{what} is not as it must be, and cannot be mended")]
    Drift {
        /// Which.
        what: String,
        /// What the server says.
        source: async_nats::Error,
    },
    /// A stream or consumer cannot be looked at or made.
    #[error("{what} cannot be set up")]
    Call {
        /// Which.
        what: String,
        /// What the server says.
        source: async_nats::Error,
    },
    /// What the server knows of an account cannot be brought up to date.
    #[error(transparent)]
    Accounts(#[from] AccountsError),
    /// There is no connection.
    #[error(transparent)]
    Bus(#[from] BusError),
}

impl SetupError {
    /// Whether the same may succeed later without anybody's doing.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Monitor { .. } | Self::Call { .. } | Self::Bus(BusError::Unavailable { .. }) => true,
            Self::Accounts(error) => error.is_passing(),
            Self::TooOld { .. } | Self::NotSynced | Self::OtherServer { .. } | Self::Drift { .. } | Self::Bus(_) => false,
        }
    }
}

/// The servers of the bus: one, or a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Servers {
    /// Where each of them tells how it is.
    pub monitors: Vec<SocketAddr>,
    /// On how many of them each message of a stream must be; without it, streams stay on as many as they are, and are made on one.
    pub replicas: Option<NonZeroUsize>,
}

impl From<SocketAddr> for Servers {
    fn from(monitor: SocketAddr) -> Self {
        Self { monitors: vec![monitor], replicas: None }
    }
}

/// How far the consumer of triggers was at the last look, where triggers waited for it.
#[derive(Debug, Default)]
pub struct Progress {
    taken: Option<u64>,
}

/// Keeps the streams and the server as they must be.
#[derive(Debug)]
pub struct Setup {
    connection: Connection,
    servers: Servers,
    accounts: Accounts,
}

impl Setup {
    /// Connects as the eventbus service. `servers` are all that it may be connected to; `enrolment` is what the administrator says of accounts.
    pub async fn connect(options: &NatsOptions, servers: impl Into<Servers>, enrolment: Arc<Enrolment>) -> Result<Self, SetupError> {
        let accounts = Accounts::connect(&options.urls, enrolment).await?;
        Ok(Self { connection: Connection::open(options).await?, servers: servers.into(), accounts })
    }

    /// The bus over the same connection.
    pub(crate) fn bus(&self) -> Bus {
        Bus::new(Nats::new(self.connection.clone()))
    }

    /// The accounts of the server.
    pub(crate) fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// Sets up a server that may just have started: what is passing is tried again, for half a minute.
    pub async fn begin(&self) -> Result<(), SetupError> {
        let deadline = Instant::now() + READY_DEADLINE;
        loop {
            match self.check().await {
                Err(error) if error.is_passing() && Instant::now() < deadline => sleep(READY_PAUSE).await,
                result => return result,
            }
        }
    }

    /// Looks once at everything; makes what is missing and mends what differs. A server of a cluster that is away hinders nothing; that it is away is
    /// told when all else is as it must be.
    pub async fn check(&self) -> Result<(), SetupError> {
        let (mut told, mut away) = (BTreeMap::new(), None);
        for monitor in &self.servers.monitors {
            match monitor::varz(*monitor).await {
                Ok(varz) => drop(told.insert(*monitor, varz)),
                Err(source) => away = Some(SetupError::Monitor { monitor: *monitor, source }),
            }
        }
        self.judge(&told, away.is_some())?;
        if told.is_empty() {
            return away.map_or(Ok(()), Err);
        }
        for account in Account::ALL {
            self.account(account, told.keys()).await?;
        }
        for stream in Stream::ALL {
            self.stream(stream).await?;
        }
        self.consumer().await?;
        away.map_or(Ok(()), Err)
    }

    /// A server that was started with an older configuration, or was told something else, has the accounts as they must be after this.
    async fn account(&self, account: Account, monitors: impl Iterator<Item = &SocketAddr>) -> Result<(), SetupError> {
        let Some((key, wanted)) = self.accounts.wanted(account) else { return Ok(()) };
        for monitor in monitors.copied() {
            let found = monitor::account_jwt(monitor, &key).await.map_err(|source| SetupError::Monitor { monitor, source })?;
            // Where it is not loaded, it is read from the server's configuration when somebody comes, and looked at then.
            if found.is_some_and(|found| found != wanted) {
                warn!(account = account.name(), %monitor, "account differs from what it must be, and is mended");
                // All servers of a cluster hear it.
                return Ok(self.accounts.push(account).await?);
            }
        }
        Ok(())
    }

    /// What is wrong with the server that nobody can mend from here, for people: what it complains of, and triggers that nobody takes.
    pub async fn symptoms(&self, last: &mut Progress) -> Result<Vec<String>, SetupError> {
        let mut symptoms = Vec::new();
        let is_one = self.servers.monitors.len() == 1;
        for monitor in self.servers.monitors.iter().copied() {
            let which = if is_one { String::new() } else { format!(" ({monitor})") };
            match monitor::complaint(monitor).await {
                Ok(complaint) => symptoms.extend(complaint.map(|complaint| format!("nats-server{which} says: {complaint}"))),
                Err(source) if is_one => return Err(SetupError::Monitor { monitor, source }),
                // The check says so.
                Err(_) => {}
            }
        }
        let found: Result<PullConsumer, _> =
            self.connection.jetstream.get_consumer_from_stream(TRIGGER_CONSUMER, Stream::Triggers.name()).await;
        // One that is missing is made by the check.
        let Ok(found) = found else { return Ok(symptoms) };
        let info = found.cached_info();
        let waits = info.num_pending > 0;
        if waits && last.taken == Some(info.delivered.consumer_sequence) {
            symptoms.push(format!("{} triggers wait, and no orchestrator takes them", info.num_pending));
        }
        last.taken = waits.then_some(info.delivered.consumer_sequence);
        Ok(symptoms)
    }

    /// Every server must be one that keeps what it acknowledges, and one of them the one that is connected to: it may be one that is away.
    fn judge(&self, told: &BTreeMap<SocketAddr, Varz>, some_are_away: bool) -> Result<(), SetupError> {
        let connected = self.connection.client.server_info().server_id;
        if !some_are_away && told.values().all(|varz| varz.server_id != connected) {
            let monitors: Vec<String> = told.keys().map(ToString::to_string).collect();
            return Err(SetupError::OtherServer { monitors: monitors.join(", ") });
        }
        for varz in told.values() {
            if Version::find_in(&varz.version).is_none_or(|version| version < VERSION_MIN) {
                return Err(SetupError::TooOld { version: varz.version.clone() });
            }
            if !varz.jetstream.config.sync_always {
                return Err(SetupError::NotSynced);
            }
        }
        Ok(())
    }

    /// `config` as the stream must be.
    fn as_it_must_be(&self, stream: Stream, config: Config) -> Config {
        let replicas = self.servers.replicas.map_or(config.num_replicas.max(1), NonZeroUsize::get);
        Config { num_replicas: replicas, ..as_it_must_be(stream, config) }
    }

    async fn stream(&self, stream: Stream) -> Result<(), SetupError> {
        let what = || format!("stream {}", stream.name());
        let jetstream = &self.connection.jetstream;
        let found = match jetstream.get_stream(stream.name()).await {
            Ok(found) => found.cached_info().config.clone(),
            Err(error) => {
                let missing =
                    matches!(error.kind(), GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND);
                if !missing {
                    return Err(SetupError::Call { what: what(), source: error.into() });
                }
                info!(stream = stream.name(), "stream is made");
                let wanted = self.as_it_must_be(stream, Config { name: stream.name().to_owned(), ..Config::default() });
                jetstream.create_stream(&wanted).await.map_err(|error| SetupError::Call { what: what(), source: error.into() })?;
                return Ok(());
            }
        };
        let wanted = self.as_it_must_be(stream, found.clone());
        if found == wanted {
            return Ok(());
        }
        warn!(stream = stream.name(), ?found, "stream differs from what it must be, and is mended");
        jetstream.update_stream(&wanted).await.map(drop).map_err(|error| match error.kind() {
            // A server of a cluster that has just started may not have been heard of by the others yet.
            CreateStreamErrorKind::JetStream(refusal) if refusal.error_code() == ErrorCode::CLUSTER_NO_PEERS => {
                SetupError::Call { what: what(), source: error.into() }
            }
            CreateStreamErrorKind::JetStream(_) => SetupError::Drift { what: what(), source: error.into() },
            CreateStreamErrorKind::EmptyStreamName
            | CreateStreamErrorKind::InvalidStreamName
            | CreateStreamErrorKind::DomainAndExternalSet
            | CreateStreamErrorKind::JetStreamUnavailable
            | CreateStreamErrorKind::TimedOut
            | CreateStreamErrorKind::Response
            | CreateStreamErrorKind::NotFound
            | CreateStreamErrorKind::ResponseParse => SetupError::Call { what: what(), source: error.into() },
        })
    }

    async fn consumer(&self) -> Result<(), SetupError> {
        let what = || format!("consumer {TRIGGER_CONSUMER} of stream {}", Stream::Triggers.name());
        let jetstream = &self.connection.jetstream;
        let wanted = trigger_consumer();
        let found: Result<PullConsumer, _> = jetstream.get_consumer_from_stream(TRIGGER_CONSUMER, Stream::Triggers.name()).await;
        if let Ok(found) = found {
            if is_as_wanted(&found.cached_info().config, &wanted) {
                return Ok(());
            }
            warn!(consumer = TRIGGER_CONSUMER, found = ?found.cached_info().config, "consumer differs from what it must be, and is mended");
        } else {
            info!(consumer = TRIGGER_CONSUMER, "consumer is made");
        }
        let made = jetstream.create_consumer_on_stream(wanted, Stream::Triggers.name()).await;
        made.map(drop).map_err(|error| SetupError::Call { what: what(), source: error.into() })
    }
}

/// `config` with everything that matters set, but for its replicas; what the server adds for itself stays.
fn as_it_must_be(stream: Stream, config: Config) -> Config {
    Config {
        subjects: crate::subject::CHANNELS
            .iter()
            .filter(|channel| channel.stream == Some(stream))
            .map(crate::subject::Channel::pattern_of_all)
            .collect(),
        storage: StorageType::File,
        retention: RetentionPolicy::Limits,
        // What was accepted is never dropped for what comes later.
        discard: DiscardPolicy::New,
        max_bytes: stream.bytes_max(),
        // Zero is for ever.
        max_age: stream.age_max().unwrap_or_default(),
        max_messages: -1,
        max_messages_per_subject: -1,
        max_message_size: -1,
        no_ack: false,
        sealed: false,
        deny_delete: true,
        // A log that lies in the depot leaves the stream by a roll-up, which counts as a purge. The call itself is nobody's: no key has the right to it.
        // A stream that was once made to deny purges does so for ever; its logs stay.
        deny_purge: stream == Stream::Triggers || config.deny_purge,
        allow_rollup: stream == Stream::Runs && !config.deny_purge,
        allow_direct: true,
        republish: None,
        mirror: None,
        sources: None,
        subject_transform: None,
        ..config
    }
}

fn trigger_consumer() -> pull::Config {
    pull::Config {
        durable_name: Some(TRIGGER_CONSUMER.to_owned()),
        name: Some(TRIGGER_CONSUMER.to_owned()),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        ack_wait: TRIGGER_ACK_WAIT,
        // An accepted trigger is delivered until it is done.
        max_deliver: -1,
        max_ack_pending: TRIGGERS_IN_WORK_MAX,
        replay_policy: ReplayPolicy::Instant,
        ..pull::Config::default()
    }
}

fn is_as_wanted(found: &jetstream::consumer::Config, wanted: &pull::Config) -> bool {
    found.ack_wait == wanted.ack_wait
        && found.max_deliver == wanted.max_deliver
        && found.max_ack_pending == wanted.max_ack_pending
        && found.ack_policy == wanted.ack_policy
        && found.deliver_policy == wanted.deliver_policy
        && found.filter_subject.is_empty()
        && found.filter_subjects.is_empty()
        && found.backoff.is_empty()
        && !found.headers_only
}
