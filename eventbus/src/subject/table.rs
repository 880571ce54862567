//! The table: one row for each kind of message. The server's permissions are generated from it, and so is what is published about the bus.

use std::{fmt, time::Duration};

/// Triggers of some 4 KiB, 100,000 of them; their larger bodies lie in the depot. When it is full, no trigger is accepted any more.
const TRIGGERS_BYTES_MAX: i64 = 512 * 1024 * 1024;
/// How long a trigger is remembered: a delivery that comes again within this time is known. Its run stays in the run log.
const TRIGGERS_AGE_MAX: Duration = Duration::from_hours(30 * 24);
/// A million stages of some 4 KiB each. When it is full, nothing is decided any more until old runs were moved away.
const RUNS_BYTES_MAX: i64 = 4 * 1024 * 1024 * 1024;

/// Stands in a [`Channel::pattern`] for the name of the agent that may speak or listen there.
pub const AGENT: &str = "{agent}";
/// Stands in a [`Channel::pattern`] for the class of the agents that may listen there.
pub const CLASS: &str = "{class}";

/// A service with a key of its own on the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Sets up the streams and watches the server.
    Eventbus,
    /// Stores triggers.
    Forge,
    /// Answers with plans.
    Parser,
    /// Decides, and is the only writer of run logs.
    Orchestrator,
    /// Proposes who gets a stage.
    Auctioneer,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Eventbus, Self::Forge, Self::Parser, Self::Orchestrator, Self::Auctioneer];

    /// The name, as in `otto serve NAME`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Eventbus => "eventbus",
            Self::Forge => "forge",
            Self::Parser => "parser",
            Self::Orchestrator => "orchestrator",
            Self::Auctioneer => "auctioneer",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Who speaks or listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Party {
    /// One service.
    Service(Role),
    /// Every agent, for itself.
    Agents,
}

/// A durable stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    /// Accepted triggers.
    Triggers,
    /// The logs of all runs.
    Runs,
}

impl Stream {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Triggers, Self::Runs];

    /// The stream's name on the server.
    pub fn name(self) -> &'static str {
        match self {
            Self::Triggers => "TRIGGERS",
            Self::Runs => "RUNS",
        }
    }

    /// The most bytes that it keeps. When it is full, it takes nothing more.
    pub const fn bytes_max(self) -> i64 {
        match self {
            Self::Triggers => TRIGGERS_BYTES_MAX,
            Self::Runs => RUNS_BYTES_MAX,
        }
    }

    /// How long it keeps a message; `None` for ever.
    pub const fn age_max(self) -> Option<Duration> {
        match self {
            Self::Triggers => Some(TRIGGERS_AGE_MAX),
            Self::Runs => None,
        }
    }
}

/// One kind of message.
#[derive(Debug, PartialEq, Eq)]
pub struct Channel {
    /// A short name, unique in the table.
    pub kind: &'static str,
    /// Its subjects: tokens joined by dots, with [`AGENT`] where an agent's name stands, [`CLASS`] where its class does, and `{…}` where another
    /// name does.
    pub pattern: &'static str,
    /// The type of the payload, in `model`.
    pub payload: &'static str,
    /// The type of the answer, where the message is a question.
    pub answer: Option<&'static str>,
    /// Where it is kept; `None` is soft.
    pub stream: Option<Stream>,
    /// Who may say it.
    pub publishers: &'static [Party],
    /// Who may hear it; of a durable channel, who may read the stream.
    pub subscribers: &'static [Party],
    /// The group in which its subscribers listen, each message going to one member: however many there are of a service, one does the work.
    /// Without one, each of them hears every message.
    pub group: Option<&'static str>,
}

impl Channel {
    /// The pattern of one agent in NATS's syntax: its name stands where [`AGENT`] does, its class where [`CLASS`] does, and `*` for other names.
    pub fn pattern_of(&self, agent: &str, class: &str) -> String {
        let token = |token| match token {
            AGENT => agent,
            CLASS => class,
            name if name.starts_with('{') => "*",
            plain => plain,
        };
        self.pattern.split('.').map(token).collect::<Vec<_>>().join(".")
    }

    /// The pattern of all agents.
    pub fn pattern_of_all(&self) -> String {
        self.pattern_of("*", "*")
    }
}

const EVENTBUS: Party = Party::Service(Role::Eventbus);
const FORGE: Party = Party::Service(Role::Forge);
const PARSER: Party = Party::Service(Role::Parser);
const ORCHESTRATOR: Party = Party::Service(Role::Orchestrator);
const AUCTIONEER: Party = Party::Service(Role::Auctioneer);
const AGENTS: Party = Party::Agents;

const SOFT: Channel =
    Channel { kind: "", pattern: "", payload: "", answer: None, stream: None, publishers: &[], subscribers: &[], group: None };

/// What an agent says to the services.
const fn from_agents(kind: &'static str, pattern: &'static str, payload: &'static str, subscribers: &'static [Party]) -> Channel {
    Channel { kind, pattern, payload, publishers: &[AGENTS], subscribers, ..SOFT }
}

/// Every kind of message.
pub const CHANNELS: [Channel; 27] = [
    Channel {
        kind: "trigger",
        pattern: "triggers.{trigger}",
        payload: "trigger::Trigger",
        stream: Some(Stream::Triggers),
        // The orchestrator stores the triggers of its HTTP API.
        publishers: &[FORGE, ORCHESTRATOR],
        subscribers: &[ORCHESTRATOR],
        ..SOFT
    },
    Channel {
        kind: "run",
        pattern: "runs.{run}",
        payload: "event::run::RunRecord",
        stream: Some(Stream::Runs),
        publishers: &[ORCHESTRATOR],
        // The forge tells how the runs of a commit go.
        subscribers: &[ORCHESTRATOR, FORGE],
        ..SOFT
    },
    Channel {
        kind: "plan",
        pattern: "parser.plan",
        payload: "planning::PlanRequest",
        answer: Some("planning::PlanReply"),
        publishers: &[ORCHESTRATOR],
        subscribers: &[PARSER],
        group: Some("parser"),
        ..SOFT
    },
    Channel {
        kind: "triggers",
        pattern: "parser.triggers",
        payload: "planning::TriggersRequest",
        answer: Some("planning::TriggersReply"),
        publishers: &[FORGE],
        subscribers: &[PARSER],
        group: Some("parser"),
        ..SOFT
    },
    Channel {
        kind: "project_run",
        pattern: "forge.run",
        payload: "protocol::forge::ProjectRunRequest",
        answer: Some("protocol::forge::ProjectRunReply"),
        // The orchestrator asks for those who may, by their tokens.
        publishers: &[ORCHESTRATOR],
        subscribers: &[FORGE],
        group: Some("forge"),
        ..SOFT
    },
    Channel {
        kind: "for_auction",
        pattern: "tasks.for_auction",
        payload: "protocol::auction::AuctionRequest",
        publishers: &[ORCHESTRATOR],
        subscribers: &[AUCTIONEER],
        group: Some("auctioneer"),
        ..SOFT
    },
    Channel {
        kind: "auction",
        pattern: "tasks.auction.{class}",
        payload: "protocol::auction::Announcement",
        publishers: &[AUCTIONEER],
        subscribers: &[AGENTS],
        ..SOFT
    },
    Channel {
        kind: "call",
        pattern: "tasks.calls.{agent}",
        payload: "protocol::auction::Announcement",
        publishers: &[AUCTIONEER],
        subscribers: &[AGENTS],
        ..SOFT
    },
    Channel {
        kind: "ran",
        pattern: "tasks.ran",
        payload: "protocol::auction::Experience",
        publishers: &[ORCHESTRATOR],
        subscribers: &[AUCTIONEER],
        ..SOFT
    },
    Channel {
        kind: "proposed",
        pattern: "tasks.proposed",
        payload: "protocol::auction::Proposal",
        publishers: &[AUCTIONEER],
        subscribers: &[ORCHESTRATOR],
        ..SOFT
    },
    Channel {
        kind: "inbox",
        pattern: "inbox.{agent}",
        payload: "protocol::agent::AgentCommand",
        publishers: &[ORCHESTRATOR],
        subscribers: &[AGENTS],
        ..SOFT
    },
    Channel {
        kind: "revoked",
        pattern: "tasks.revoked",
        payload: "protocol::agent::Revoked",
        publishers: &[EVENTBUS],
        subscribers: &[ORCHESTRATOR],
        ..SOFT
    },
    Channel {
        kind: "orchestrators_told",
        pattern: "orchestrators.told",
        payload: "protocol::orchestrator::Told",
        publishers: &[ORCHESTRATOR],
        subscribers: &[ORCHESTRATOR],
        ..SOFT
    },
    Channel {
        kind: "orchestrators_asked",
        pattern: "orchestrators.asked",
        payload: "protocol::orchestrator::Asked",
        publishers: &[ORCHESTRATOR],
        subscribers: &[ORCHESTRATOR],
        ..SOFT
    },
    Channel {
        kind: "roll",
        pattern: "enrolment.roll",
        payload: "protocol::enrolment::RollRequest",
        answer: Some("protocol::enrolment::RollPage"),
        publishers: &[AUCTIONEER, ORCHESTRATOR],
        subscribers: &[EVENTBUS],
        group: Some("eventbus"),
        ..SOFT
    },
    Channel {
        kind: "enrolled",
        pattern: "enrolment.changed",
        payload: "protocol::enrolment::RollPage",
        publishers: &[EVENTBUS],
        subscribers: &[AUCTIONEER, ORCHESTRATOR],
        ..SOFT
    },
    Channel {
        kind: "drain",
        pattern: "enrolment.drain",
        payload: "protocol::enrolment::DrainRequest",
        answer: Some("protocol::enrolment::DrainReply"),
        // The orchestrator asks for those who may, by their tokens.
        publishers: &[ORCHESTRATOR],
        subscribers: &[EVENTBUS],
        group: Some("eventbus"),
        ..SOFT
    },
    Channel {
        kind: "renew",
        pattern: "enrolment.renew.{agent}",
        payload: "protocol::enrolment::RenewalRequest",
        publishers: &[AGENTS],
        subscribers: &[EVENTBUS],
        group: Some("eventbus"),
        ..SOFT
    },
    Channel {
        kind: "renewed",
        pattern: "enrolment.renewed.{agent}",
        payload: "protocol::enrolment::RenewalReply",
        publishers: &[EVENTBUS],
        subscribers: &[AGENTS],
        ..SOFT
    },
    from_agents("bid", "tasks.bids.{agent}.{auction}", "protocol::auction::Bid", &[AUCTIONEER]),
    from_agents("declined", "tasks.declined.{agent}", "protocol::agent::AgentReport", &[ORCHESTRATOR]),
    from_agents("started", "tasks.started.{agent}", "protocol::agent::AgentReport", &[ORCHESTRATOR]),
    from_agents("finished", "tasks.finished.{agent}", "protocol::agent::AgentReport", &[ORCHESTRATOR]),
    from_agents("stored", "tasks.stored.{agent}", "protocol::agent::AgentReport", &[ORCHESTRATOR]),
    from_agents("requested", "tasks.requested.{agent}", "protocol::agent::AgentReport", &[ORCHESTRATOR]),
    from_agents("status", "agents.{agent}", "protocol::agent::AgentStatus", &[AUCTIONEER, ORCHESTRATOR]),
    from_agents("log", "logs.{agent}.{run}.{stage}", "protocol::log::LogChunk", &[ORCHESTRATOR]),
];
