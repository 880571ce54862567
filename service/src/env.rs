//! Every environment variable that Otto reads, in one place.

/// Where Otto keeps what it installs and, unless told otherwise, its data. Default: `$XDG_DATA_HOME/otto`, else `~/.local/share/otto`.
pub const HOME: &str = "OTTO_HOME";
/// Which log lines are written, in the syntax of `tracing-subscriber`'s `EnvFilter`. Default: `info`, of libraries `warn`.
pub const LOG: &str = "OTTO_LOG";
/// `text` or `json`. Default: `text`.
pub const LOG_FORMAT: &str = "OTTO_LOG_FORMAT";

/// The addresses of nats-server, separated by commas, such as `nats://127.0.0.1:4222`.
pub const BUS_URLS: &str = "OTTO_BUS_URLS";
/// The file of the process's credentials for the bus: a JWT, and the seed of the nkey of which it speaks.
pub const BUS_CREDENTIALS_FILE: &str = "OTTO_BUS_CREDENTIALS_FILE";
/// The folder of what the eventbus role needs to enrol agents.
pub const BUS_ENROLMENT: &str = "OTTO_BUS_ENROLMENT";
/// On how many servers of a cluster of nats-server each message of the bus's streams must be: 1, 3 or 5. Default: as they are; new ones on one.
pub const BUS_REPLICAS: &str = "OTTO_BUS_REPLICAS";
/// Where agents that enrol themselves reach the bus, as [`BUS_URLS`]. Default: where the eventbus role does.
pub const BUS_PUBLIC_URLS: &str = "OTTO_BUS_PUBLIC_URLS";
/// Where agents that enrol themselves reach the depot. Default: [`DEPOT_URL`].
pub const DEPOT_PUBLIC_URL: &str = "OTTO_DEPOT_PUBLIC_URL";
/// Where the depot is reached, such as `http://127.0.0.1:7481`.
pub const DEPOT_URL: &str = "OTTO_DEPOT_URL";
/// The address on which a role listens for HTTP, such as `127.0.0.1:7480`.
pub const LISTEN: &str = "OTTO_LISTEN";
/// The folder in which a role keeps its data.
pub const DATA: &str = "OTTO_DATA";
/// Where the orchestrator's API is reached, such as `http://127.0.0.1:7480`.
pub const API_URL: &str = "OTTO_API_URL";
/// The API's token itself, for clients; the file is the better place for it.
pub const API_TOKEN: &str = "OTTO_API_TOKEN";
/// The file that holds the API's token.
pub const API_TOKEN_FILE: &str = "OTTO_API_TOKEN_FILE";
/// The file of the API's other tokens, each with its role and its projects; the forge serves git by them. Default: there are none.
pub const API_TOKENS: &str = "OTTO_API_TOKENS";
/// Requests that each token of the orchestrator's API may make in a second; 0 for as many as come.
pub const API_REQUESTS_PER_S: &str = "OTTO_API_REQUESTS_PER_S";
/// The token with which `otto agent join` enrols an agent; the argument is seen by everybody on the machine.
pub const AGENT_ENROL_TOKEN: &str = "OTTO_AGENT_ENROL_TOKEN";
/// The file that holds the seed with which the orchestrator signs the depot's tokens.
pub const DEPOT_SIGNING_SEED_FILE: &str = "OTTO_DEPOT_SIGNING_SEED_FILE";
/// The file that holds the public key against which the depot checks its tokens.
pub const DEPOT_VERIFYING_KEY_FILE: &str = "OTTO_DEPOT_VERIFYING_KEY_FILE";
/// The file that holds a role's own token for the depot.
pub const DEPOT_TOKEN_FILE: &str = "OTTO_DEPOT_TOKEN_FILE";
/// The file that holds the key from which the orchestrator derives the secrets of callbacks.
pub const CALLBACK_KEY_FILE: &str = "OTTO_CALLBACK_KEY_FILE";
/// Where outside systems reach the orchestrator's API, such as `https://otto.example.org`. Default: where it listens. The forge links to it
/// in the statuses of commits; without it, these have no links.
pub const PUBLIC_URL: &str = "OTTO_PUBLIC_URL";
/// Which addresses a pipeline's `poll` may ask: `public`, `loopback` for this machine's as well, or `all`. Default: `public`.
pub const POLL_REACH: &str = "OTTO_POLL_REACH";
/// How many ended runs the orchestrator keeps in memory, and their logs in the bus. Those of older ones lie in the depot. Default: 2000.
pub const RUNS_KEPT: &str = "OTTO_RUNS_KEPT";
/// How many runs may be open at once, also those that only wait; more are refused. Default: 10000.
pub const OPEN_RUNS_MAX: &str = "OTTO_OPEN_RUNS_MAX";
/// How many stages of all runs may wait for agents or have one while new runs are accepted. Default: 50000.
pub const ACTIVE_STAGES_MAX: &str = "OTTO_ACTIVE_STAGES_MAX";
/// How many MiB must be free on the depot's disk for new runs to be accepted. Default: 256.
pub const DEPOT_RESERVE_MIB: &str = "OTTO_DEPOT_RESERVE_MIB";
/// The orchestrator's name, as it stands in the records that it writes; several may have the same. Default: `orchestrator`.
pub const ORCHESTRATOR_NAME: &str = "OTTO_ORCHESTRATOR_NAME";
/// The folder of the projects' configuration, one `*.yml` each.
pub const PROJECTS: &str = "OTTO_PROJECTS";
/// The agent's name.
pub const AGENT_NAME: &str = "OTTO_AGENT_NAME";
/// The file that holds the seed with which the orchestrator signs commands to agents.
pub const COMMANDS_SEED_FILE: &str = "OTTO_COMMANDS_SEED_FILE";
/// The file that holds the public key of the commands that an agent obeys.
pub const COMMANDS_KEY_FILE: &str = "OTTO_COMMANDS_KEY_FILE";
/// The agent's class: that of its enrolment, as the bus lets it hear no other's calls. Default: `default`.
pub const AGENT_CLASS: &str = "OTTO_AGENT_CLASS";
/// How many stages the agent runs at once.
pub const AGENT_SLOTS: &str = "OTTO_AGENT_SLOTS";
/// How long an agent that is told to end (SIGTERM, SIGINT) waits for what it runs, in seconds; a second signal ends it at once. It takes nothing new
/// meanwhile. Default: 0, as with `otto up`. It must be less than what ends the process waits before it kills it, such as systemd's `TimeoutStopSec`.
pub const AGENT_STOP_S: &str = "OTTO_AGENT_STOP_S";
/// What people call the agent's machine by, separated by commas: `runtime { computer { label = 'mac' } }` asks for one. Default: none.
pub const AGENT_LABELS: &str = "OTTO_AGENT_LABELS";
/// What a second on the agent costs, in millionths of the installation's currency unit. Default: 0.
pub const AGENT_PRICE: &str = "OTTO_AGENT_PRICE_MICROS_PER_S";
/// The client that runs containers of stages, with arguments that go before its command, such as `podman --runtime runc`. Default: podman, else
/// docker, whichever works, tried with the arguments that are known to help.
pub const CONTAINER_CLIENT: &str = "OTTO_CONTAINER_CLIENT";
/// Arguments for each container, such as `--ulimit=nofile=1024:1024`.
pub const CONTAINER_ARGUMENTS: &str = "OTTO_CONTAINER_ARGUMENTS";
/// How far an agent keeps stages apart: `auto`, `namespaces`, `landlock`, `group`. Default: `auto`, as far as the machine can.
pub const AGENT_ISOLATION: &str = "OTTO_AGENT_ISOLATION";
/// Whose processes an agent's stages are: `auto`, `same`, or a range of user ids such as `1900000000-1900004095`. Default: `auto`, each attempt of an
/// agent of the superuser its own user, where the tools on the agent's `PATH` can be read by such.
pub const AGENT_USERS: &str = "OTTO_AGENT_USERS";
/// `stdin`: the process ends when its standard input closes, which it does when `otto up` is gone, however it went. Unset: it does not look.
pub const PARENT_PIPE: &str = "OTTO_PARENT_PIPE";
/// The configuration file of nats-server.
pub const NATS_CONFIG: &str = "OTTO_NATS_CONFIG";
/// The nats-server program. Default: the one on PATH, or the one that is installed into [`HOME`].
pub const NATS_SERVER: &str = "OTTO_NATS_SERVER";
/// The address at which nats-server tells how it is, such as `127.0.0.1:7484`; for the eventbus role that of each server of a cluster, separated by
/// commas.
pub const NATS_MONITOR: &str = "OTTO_NATS_MONITOR";
