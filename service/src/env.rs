//! Every setting of Otto, in one place: its variable, the roles that have it, and what it means.
//!
//! From this table come the variables' names in the code, the keys of `otto.yml`, and `docs/settings.md`. A test of the command line holds the roles
//! against what each role reads.

/// A setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// The environment variable.
    pub variable: &'static str,
    /// The roles that have it, in whose sections of the file it may stand. One of none is a variable only: of commands, or of every process.
    pub roles: &'static [&'static str],
    /// What its value is.
    pub kind: Kind,
    /// Whether `otto up` gives it to its processes itself, and nobody else does.
    pub wired: bool,
    about: &'static [&'static str],
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A text, a number, an address.
    Text,
    /// A path; in the file, a relative one begins at the file's folder.
    Path,
    /// Several, with this between them; in the file also a list.
    List(char),
    /// What is never shown, and never in the file.
    Secret,
}

impl Setting {
    /// Its key at the top of the file, where it is of every role that has it.
    pub fn key(&self) -> String {
        self.variable.strip_prefix(PREFIX).unwrap_or(self.variable).to_ascii_lowercase()
    }

    /// Its key in the section of a role, which need not be said again.
    pub fn key_of(&self, role: &str) -> String {
        let key = self.key();
        key.strip_prefix(role).and_then(|rest| rest.strip_prefix('_')).map_or(key.clone(), str::to_owned)
    }

    /// What it means, in sentences.
    pub fn about(&self) -> String {
        self.about.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
    }

    /// The setting of this variable.
    pub fn of(variable: &str) -> Option<&'static Self> {
        ALL.iter().find(|setting| setting.variable == variable)
    }
}

/// Whether `otto up` hands the variable on to its processes, where it is one of Otto's: it neither sets it itself, nor is it a command's.
pub fn is_passed_on(variable: &str) -> bool {
    variable == HOME || Setting::of(variable).is_some_and(|setting| !setting.wired && !setting.roles.is_empty())
}

/// What the variables' names begin with.
pub const PREFIX: &str = "OTTO_";

/// The role of nats-server's process.
pub const NATS: &str = "nats";
/// The role that sets up the bus.
pub const EVENTBUS: &str = "eventbus";
/// The role that keeps bytes.
pub const DEPOT: &str = "depot";
/// The role that makes plans.
pub const PARSER: &str = "parser";
/// The role that proposes who gets a stage.
pub const AUCTIONEER: &str = "auctioneer";
/// The role that decides about runs.
pub const ORCHESTRATOR: &str = "orchestrator";
/// The role that speaks to forges.
pub const FORGE: &str = "forge";
/// The role that runs stages.
pub const AGENT: &str = "agent";

/// Every role, in the order of the Procfile.
pub const EVERY: &[&str] = &[NATS, EVENTBUS, DEPOT, PARSER, AUCTIONEER, ORCHESTRATOR, FORGE, AGENT];
/// Of commands, or of every process, and not of the file.
const PROCESS: &[&str] = &[];

/// Where other programs are told that spans are to be sent (OpenTelemetry's own name).
pub const OTEL_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

macro_rules! settings {
    ($($(#[doc = $about:literal])+ $name:ident = $variable:literal, $roles:expr, $kind:ident $(($separator:literal))? $(, $wired:ident)?;)+) => {
        $($(#[doc = $about])+ pub const $name: &str = $variable;)+

        /// Every setting.
        pub const ALL: &[Setting] = &[$(Setting {
            variable: $variable,
            roles: $roles,
            kind: Kind::$kind $(($separator))?,
            wired: settings!(@ $($wired)?),
            about: &[$($about),+],
        }),+];
    };
    (@) => { false };
    (@ wired) => { true };
}

settings! {
    /// Where Otto keeps what it installs and, unless told otherwise, its data. Default: `$XDG_DATA_HOME/otto`, else `~/.local/share/otto`.
    HOME = "OTTO_HOME", PROCESS, Text;
    /// The file of settings: see "The file". Default: `otto.yml` beside the Procfile or in the data folder of `otto up`, and in the folder that
    /// `OTTO_DATA` names for a role that is started by itself, if it is there.
    CONFIG = "OTTO_CONFIG", PROCESS, Path;
    /// Which log lines are written, in the syntax of `tracing-subscriber`'s `EnvFilter`. Default: `info`, of libraries `warn`.
    LOG = "OTTO_LOG", EVERY, Text;
    /// `text` or `json`. Default: `text`.
    LOG_FORMAT = "OTTO_LOG_FORMAT", EVERY, Text;
    /// The addresses of nats-server, separated by commas, such as `nats://127.0.0.1:4222`; `tls://` demands TLS, and `wss://` goes by WebSocket, which all
    /// of them must then do.
    BUS_URLS = "OTTO_BUS_URLS", &[EVENTBUS, PARSER, AUCTIONEER, ORCHESTRATOR, FORGE, AGENT], List(','), wired;
    /// The file of the process's credentials for the bus: a JWT, and the seed of the nkey of which it speaks.
    BUS_CREDENTIALS_FILE = "OTTO_BUS_CREDENTIALS_FILE", &[EVENTBUS, PARSER, AUCTIONEER, ORCHESTRATOR, FORGE, AGENT], Path, wired;
    /// The folder of what the eventbus role needs to enrol agents.
    BUS_ENROLMENT = "OTTO_BUS_ENROLMENT", &[EVENTBUS], Path, wired;
    /// How long the right of an agent to use the bus lasts, in seconds, before the agent must have had it renewed; it asks for that when half of the time
    /// is over. At least 60. Default: 604800, a week.
    AGENT_USER_LIFE_S = "OTTO_AGENT_USER_LIFE_S", &[EVENTBUS], Text;
    /// On how many servers of a cluster of nats-server each message of the bus's streams must be: 1, 3 or 5. Default: as they are; new ones on one.
    BUS_REPLICAS = "OTTO_BUS_REPLICAS", &[EVENTBUS], Text;
    /// Where agents that enrol themselves reach the bus, as `OTTO_BUS_URLS`, or by `wss://`, such as `wss://otto.example.org/bus`. Default: where the
    /// eventbus role does.
    BUS_PUBLIC_URLS = "OTTO_BUS_PUBLIC_URLS", &[EVENTBUS], List(',');
    /// Where agents that enrol themselves reach the depot, such as `https://otto.example.org`; it answers under that name, too. Default:
    /// `OTTO_DEPOT_URL`.
    DEPOT_PUBLIC_URL = "OTTO_DEPOT_PUBLIC_URL", &[EVENTBUS, DEPOT], Text;
    /// Where the depot is reached, such as `http://127.0.0.1:7481`.
    DEPOT_URL = "OTTO_DEPOT_URL", &[EVENTBUS, PARSER, ORCHESTRATOR, FORGE, AGENT], Text, wired;
    /// The address on which a role listens for HTTP, such as `127.0.0.1:7480`.
    LISTEN = "OTTO_LISTEN", &[EVENTBUS, DEPOT, PARSER, ORCHESTRATOR, FORGE], Text, wired;
    /// The folder in which a role keeps its data.
    DATA = "OTTO_DATA", &[DEPOT, ORCHESTRATOR, FORGE, AGENT], Path, wired;
    /// Where the orchestrator's API is reached, such as `http://127.0.0.1:7480`.
    API_URL = "OTTO_API_URL", PROCESS, Text;
    /// The API's token itself, for clients; the file is the better place for it.
    API_TOKEN = "OTTO_API_TOKEN", PROCESS, Secret;
    /// The file that holds the API's token.
    API_TOKEN_FILE = "OTTO_API_TOKEN_FILE", &[ORCHESTRATOR], Path, wired;
    /// The file of the API's other tokens, each with its role and its projects; the forge serves git by them. Default: there are none.
    API_TOKENS = "OTTO_API_TOKENS", &[ORCHESTRATOR, FORGE], Path;
    /// Requests that each token of the orchestrator's API may make in a second; 0 for as many as come.
    API_REQUESTS_PER_S = "OTTO_API_REQUESTS_PER_S", &[ORCHESTRATOR], Text;
    /// The token with which `otto agent join` enrols an agent; the argument is seen by everybody on the machine.
    AGENT_ENROL_TOKEN = "OTTO_AGENT_ENROL_TOKEN", PROCESS, Secret;
    /// The file that holds the seed with which the orchestrator signs the depot's tokens.
    DEPOT_SIGNING_SEED_FILE = "OTTO_DEPOT_SIGNING_SEED_FILE", &[ORCHESTRATOR], Path, wired;
    /// The file that holds the public key against which the depot checks its tokens.
    DEPOT_VERIFYING_KEY_FILE = "OTTO_DEPOT_VERIFYING_KEY_FILE", &[DEPOT], Path, wired;
    /// The file that holds a role's own token for the depot.
    DEPOT_TOKEN_FILE = "OTTO_DEPOT_TOKEN_FILE", &[PARSER, ORCHESTRATOR, FORGE], Path, wired;
    /// The file that holds the key from which the orchestrator derives the secrets of callbacks, and receipts for sources.
    CALLBACK_KEY_FILE = "OTTO_CALLBACK_KEY_FILE", &[ORCHESTRATOR], Path, wired;
    /// Where outside systems reach the orchestrator's API, such as `https://otto.example.org`. Default: where it listens. The forge links to it
    /// in the statuses of commits; without it, these have no links.
    PUBLIC_URL = "OTTO_PUBLIC_URL", &[ORCHESTRATOR, FORGE], Text;
    /// Which addresses a pipeline's `poll` may ask: `public`, `loopback` for this machine's as well, or `all`. Default: `public`.
    POLL_REACH = "OTTO_POLL_REACH", &[ORCHESTRATOR], Text;
    /// How many ended runs the orchestrator keeps in memory, and their logs in the bus. Those of older ones lie in the depot. Default: 2000.
    RUNS_KEPT = "OTTO_RUNS_KEPT", &[ORCHESTRATOR], Text;
    /// How many runs may be open at once, also those that only wait; more are refused. Default: 10000.
    OPEN_RUNS_MAX = "OTTO_OPEN_RUNS_MAX", &[ORCHESTRATOR], Text;
    /// How many stages of all runs may wait for agents or have one while new runs are accepted. Default: 50000.
    ACTIVE_STAGES_MAX = "OTTO_ACTIVE_STAGES_MAX", &[ORCHESTRATOR], Text;
    /// How many MiB must be free on the depot's disk for new runs to be accepted. Default: 256.
    DEPOT_RESERVE_MIB = "OTTO_DEPOT_RESERVE_MIB", &[ORCHESTRATOR], Text;
    /// The orchestrator's name, as it stands in the records that it writes; several may have the same. Default: `orchestrator`.
    ORCHESTRATOR_NAME = "OTTO_ORCHESTRATOR_NAME", &[ORCHESTRATOR], Text, wired;
    /// The folder of the projects' configuration, one `*.yml` each.
    PROJECTS = "OTTO_PROJECTS", &[ORCHESTRATOR, FORGE], Path;
    /// The agent's name.
    AGENT_NAME = "OTTO_AGENT_NAME", &[AGENT], Text, wired;
    /// The file that holds the seed with which the orchestrator signs commands to agents.
    COMMANDS_SEED_FILE = "OTTO_COMMANDS_SEED_FILE", &[ORCHESTRATOR], Path, wired;
    /// The file that holds the public key of the commands that an agent obeys.
    COMMANDS_KEY_FILE = "OTTO_COMMANDS_KEY_FILE", &[EVENTBUS, AGENT], Path, wired;
    /// The agent's class: that of its enrolment, as the bus lets it hear no other's calls. Default: `default`.
    AGENT_CLASS = "OTTO_AGENT_CLASS", &[AGENT], Text, wired;
    /// How many stages the agent runs at once.
    AGENT_SLOTS = "OTTO_AGENT_SLOTS", &[AGENT], Text;
    /// How long an agent that is told to end (SIGTERM, SIGINT) waits for what it runs, in seconds; a second signal ends it at once. It takes nothing new
    /// meanwhile. Default: 0, as with `otto up`. It must be less than what ends the process waits before it kills it, such as systemd's `TimeoutStopSec`.
    AGENT_STOP_S = "OTTO_AGENT_STOP_S", &[AGENT], Text;
    /// What people call the agent's machine by, separated by commas: `runtime { computer { label = 'mac' } }` asks for one. Default: none.
    AGENT_LABELS = "OTTO_AGENT_LABELS", &[AGENT], List(',');
    /// What a second on the agent costs, in millionths of the installation's currency unit. Default: 0.
    AGENT_PRICE = "OTTO_AGENT_PRICE_MICROS_PER_S", &[AGENT], Text;
    /// The client that runs containers of stages, with arguments that go before its command, such as `podman --runtime runc`. Default: podman, else
    /// docker, whichever works, tried with the arguments that are known to help.
    CONTAINER_CLIENT = "OTTO_CONTAINER_CLIENT", &[AGENT], List(' ');
    /// Arguments for each container, such as `--ulimit=nofile=1024:1024`.
    CONTAINER_ARGUMENTS = "OTTO_CONTAINER_ARGUMENTS", &[AGENT], List(' ');
    /// How far an agent keeps stages apart: `auto`, `namespaces`, `landlock`, `group`. Default: `auto`, as far as the machine can.
    AGENT_ISOLATION = "OTTO_AGENT_ISOLATION", &[AGENT], Text;
    /// Whose processes an agent's stages are: `auto`, `same`, or a range of user ids such as `1900000000-1900004095`. Default: `auto`, each attempt of an
    /// agent of the superuser its own user, where the tools on the agent's `PATH` can be read by such.
    AGENT_USERS = "OTTO_AGENT_USERS", &[AGENT], Text;
    /// `stdin`: the process ends when its standard input closes, which it does when `otto up` is gone, however it went. Unset: it does not look.
    PARENT_PIPE = "OTTO_PARENT_PIPE", PROCESS, Text, wired;
    /// The configuration file of nats-server.
    NATS_CONFIG = "OTTO_NATS_CONFIG", &[NATS], Path, wired;
    /// The nats-server program. Default: the one on PATH, or the one that is installed into `OTTO_HOME`.
    NATS_SERVER = "OTTO_NATS_SERVER", &[NATS], Path, wired;
    /// The address at which nats-server tells how it is, such as `127.0.0.1:7484`; for the eventbus role that of each server of a cluster, separated by
    /// commas.
    NATS_MONITOR = "OTTO_NATS_MONITOR", &[NATS, EVENTBUS], Text, wired;
    /// Where spans of runs are sent by OTLP over HTTP, such as `http://127.0.0.1:4318`; to it, `/v1/traces` is added. Default:
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`; without either, none are made.
    OTLP_ENDPOINT = "OTTO_OTLP_ENDPOINT", &[ORCHESTRATOR], Text;
    /// The file of headers that are sent with spans, lines of `name: value`; a token belongs there. Default: there are none.
    OTLP_HEADERS_FILE = "OTTO_OTLP_HEADERS_FILE", &[ORCHESTRATOR], Path;
}

#[cfg(test)]
mod document;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_stands_once() {
        for (at, setting) in ALL.iter().enumerate() {
            assert!(ALL[at + 1..].iter().all(|other| other.variable != setting.variable), "{} stands twice", setting.variable);
            assert!(setting.variable.starts_with(PREFIX), "{}", setting.variable);
            assert!(setting.kind != Kind::Secret || setting.roles.is_empty(), "{} would stand in the file", setting.variable);
            assert!(!EVERY.contains(&setting.key().as_str()), "{} has the name of a section", setting.key());
        }
    }

    #[test]
    fn a_section_need_not_be_said_again() {
        let slots = Setting::of(AGENT_SLOTS).unwrap();
        assert_eq!((slots.key(), slots.key_of(AGENT), slots.key_of(FORGE)), ("agent_slots".into(), "slots".into(), "agent_slots".into()));
        assert!(slots.about().starts_with("How many stages"), "{}", slots.about());
    }

    #[test]
    fn what_otto_up_sets_and_what_commands_are_told_is_not_handed_on() {
        for (variable, passed_on) in
            [(HOME, true), (RUNS_KEPT, true), (LISTEN, false), (API_TOKEN, false), (CONFIG, false), ("OTTO_X", false)]
        {
            assert_eq!(is_passed_on(variable), passed_on, "{variable}");
        }
    }
}
