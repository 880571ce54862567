//! The roles, each put together from its settings.

use std::{
    fmt,
    net::SocketAddr,
    num::NonZeroU32,
    path::{Path, PathBuf},
    str::FromStr,
    thread::available_parallelism,
    time::Duration,
};

use agent::{
    AgentOptions, Isolation, SandboxOptions, StageUsers, Variables,
    container::{ContainerOptions, Containers},
    machine_facts, tool_homes,
};
use anyhow::Context as _;
use blob::{Blobs, DepotClient, token};
use eventbus::{
    Bus,
    nats::{
        self, Enrolment, Identity, NatsOptions,
        enrolment::{USER_LIFE_DEFAULT, USER_LIFE_MIN},
        is_websocket,
        setup::Servers,
    },
    role::{Directions, EventbusOptions},
    subject::Role as BusRole,
};
use model::{AgentClass, AgentName};
use orchestrator::{
    admission::Bounds,
    engine::{self, EngineOptions, Protections, Reach},
    http::{self, ApiToken, HttpOptions, Projects, REQUESTS_PER_S_DEFAULT, Tokens},
    runs::ENDED_RUNS_MAX,
    traces::{Endpoint, TraceOptions},
    views::ViewsPlace,
};
use parser_service::ParserOptions;
use service::{OnError, Supervisor, env};

use super::reader::Reader;
use crate::{machine::Labels, otto::PLAN_WORKER, provision::VIEWS_FILE};

/// The orchestrator's snapshots of long logs, in its data folder.
const SNAPSHOTS_FOLDER: &str = "snapshots";
const MIB: u64 = 1024 * 1024;
/// Slots of an agent on a machine that does not tell its cores.
const SLOTS_UNKNOWN: NonZeroU32 = NonZeroU32::MIN;

/// How far the orchestrator has exported spans, in its data folder.
const TRACES_FILE: &str = "traces.state";

/// A role that can be served.
pub(super) trait Serve: Sized {
    /// Reads the role's settings; `None` only where one is missing or wrong, which the reader knows.
    fn read(reader: &mut Reader) -> Option<Self>;
    /// How long the role may take to end what it has, when it is told to end.
    fn stop_time(&self) -> Duration {
        Duration::ZERO
    }
    /// Starts the role. When this returns it is ready; the text says where it is found.
    async fn start(self, supervisor: &Supervisor) -> anyhow::Result<String>;
}

/// How a role reaches the bus.
struct BusSettings {
    urls: Vec<String>,
    credentials: String,
}

impl BusSettings {
    fn read(reader: &mut Reader) -> Option<Self> {
        let (urls, credentials) = (reader.required::<BusUrls>(env::BUS_URLS), reader.required_file(env::BUS_CREDENTIALS_FILE));
        Some(Self { urls: urls?.0, credentials: credentials? })
    }

    fn options(self, identity: Identity) -> NatsOptions {
        NatsOptions { urls: self.urls, credentials: self.credentials, identity }
    }

    async fn connect(self, identity: Identity) -> anyhow::Result<Bus> {
        nats::connect(&self.options(identity)).await.context("cannot connect to the bus")
    }
}

/// Where servers of the bus are reached: all by WebSocket, or none.
struct BusUrls(Vec<String>);

impl FromStr for BusUrls {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let urls = addresses(text);
        let is_known = |url: &&String| is_websocket(url) || url.starts_with("tls://") || url.starts_with("nats://") || !url.contains("://");
        if let Some(url) = urls.iter().find(|url| !is_known(url)) {
            return Err(format!("`{url}` is no address of the bus: it begins with nats://, tls:// or wss://"));
        }
        if urls.iter().any(|url| is_websocket(url)) && !urls.iter().all(|url| is_websocket(url)) {
            return Err("some of the servers are reached by WebSocket and others are not: name those of one kind".to_owned());
        }
        Ok(Self(urls))
    }
}

/// A list with commas.
fn addresses(text: &str) -> Vec<String> {
    text.split(',').map(|url| url.trim().to_owned()).filter(|url| !url.is_empty()).collect()
}

/// A role's handle of the depot.
fn read_depot(reader: &mut Reader) -> Option<Blobs> {
    let (url, token) = (reader.required::<String>(env::DEPOT_URL), reader.required_file(env::DEPOT_TOKEN_FILE));
    let token = token?;
    reader.required_with(env::DEPOT_URL, url, |url| DepotClient::new(url, &token)).map(Blobs::Depot)
}

/// How long agents' users live.
#[derive(Debug, Clone, Copy)]
struct UserLife(Duration);

impl Default for UserLife {
    fn default() -> Self {
        Self(USER_LIFE_DEFAULT)
    }
}

impl FromStr for UserLife {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let seconds: u32 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
        let life = Duration::from_secs(seconds.into());
        if life < USER_LIFE_MIN { Err(format!("at least {} are needed for a renewal", USER_LIFE_MIN.as_secs())) } else { Ok(Self(life)) }
    }
}

impl fmt::Display for UserLife {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.as_secs())
    }
}

/// Sets up the bus and checks it.
pub(super) struct Eventbus {
    bus: BusSettings,
    servers: Servers,
    enrolment: Enrolment,
    listen: SocketAddr,
    directions: Directions,
}

impl Serve for Eventbus {
    fn read(reader: &mut Reader) -> Option<Self> {
        let (bus, monitors) = (BusSettings::read(reader), reader.required::<String>(env::NATS_MONITOR));
        let monitors = reader.required_with(env::NATS_MONITOR, monitors, |text| {
            addresses(text).iter().map(|address| address.parse()).collect::<Result<Vec<SocketAddr>, _>>()
        });
        let replicas = reader.optional(env::BUS_REPLICAS);
        let folder = reader.required::<String>(env::BUS_ENROLMENT);
        let enrolment = reader.required_with(env::BUS_ENROLMENT, folder, |folder| Enrolment::open(folder.as_ref()));
        let life = reader.or(env::AGENT_USER_LIFE_S, UserLife::default());
        let (listen, depot_url) = (reader.required(env::LISTEN), reader.required::<String>(env::DEPOT_URL));
        let commands_key = reader.required_file(env::COMMANDS_KEY_FILE);
        let bus_urls = reader.optional::<BusUrls>(env::BUS_PUBLIC_URLS);
        let depot_url = reader.optional::<PublicUrl>(env::DEPOT_PUBLIC_URL).map(|public| public.url).or(depot_url);
        let bus = bus?;
        let bus_urls = bus_urls.map_or_else(|| bus.urls.clone(), |BusUrls(urls)| urls);
        let directions = Directions { commands_key: commands_key?, bus_urls, depot_url: depot_url? };
        let enrolment = enrolment?.with_user_life(life.0);
        Some(Self { bus, servers: Servers { monitors: monitors?, replicas }, enrolment, listen: listen?, directions })
    }

    async fn start(self, supervisor: &Supervisor) -> anyhow::Result<String> {
        let nats = self.bus.options(Identity::Service(BusRole::Eventbus));
        let options =
            EventbusOptions { nats, servers: self.servers, enrolment: self.enrolment, listen: self.listen, directions: self.directions };
        Ok(format!("eventbus on http://{}", eventbus::role::run(options, supervisor).await?))
    }
}

/// Content-addressed bytes.
pub(super) struct Depot(depot::DepotOptions);

impl Serve for Depot {
    fn read(reader: &mut Reader) -> Option<Self> {
        let (listen, data) = (reader.required(env::LISTEN), reader.required::<PathBuf>(env::DATA));
        let key = reader.required_file(env::DEPOT_VERIFYING_KEY_FILE);
        let verifier = reader.required_with(env::DEPOT_VERIFYING_KEY_FILE, key, str::parse::<token::Verifier>);
        let host = reader.optional::<PublicUrl>(env::DEPOT_PUBLIC_URL).map(|public| public.host);
        Some(Self(depot::DepotOptions { listen: listen?, data: data?, verifier: verifier?, host }))
    }

    async fn start(self, supervisor: &Supervisor) -> anyhow::Result<String> {
        Ok(format!("depot on http://{}", depot::run(self.0, supervisor).await?))
    }
}

/// Makes plans of pipeline files.
pub(super) struct Parser {
    bus: BusSettings,
    blobs: Blobs,
    listen: SocketAddr,
}

impl Serve for Parser {
    fn read(reader: &mut Reader) -> Option<Self> {
        let (bus, blobs, listen) = (BusSettings::read(reader), read_depot(reader), reader.required(env::LISTEN));
        Some(Self { bus: bus?, blobs: blobs?, listen: listen? })
    }

    async fn start(self, supervisor: &Supervisor) -> anyhow::Result<String> {
        let bus = self.bus.connect(Identity::Service(BusRole::Parser)).await?;
        let program = std::env::current_exe().context("the program does not know where it lies")?;
        let isolation = parser_service::Isolation::Processes { program, arguments: vec![PLAN_WORKER.to_owned()] };
        let options = ParserOptions { libraries: vec![stdlib::library()], isolation, listen: Some(self.listen) };
        let address = parser_service::run(options, bus, self.blobs, supervisor).await?;
        Ok(address.map_or_else(|| "parser".to_owned(), |address| format!("parser on http://{address}")))
    }
}

/// Proposes who gets a stage.
pub(super) struct Auctioneer(BusSettings);

impl Serve for Auctioneer {
    fn read(reader: &mut Reader) -> Option<Self> {
        BusSettings::read(reader).map(Self)
    }

    async fn start(self, supervisor: &Supervisor) -> anyhow::Result<String> {
        let bus = self.0.connect(Identity::Service(BusRole::Auctioneer)).await?;
        let options = auctioneer::AuctioneerOptions { name: BusRole::Auctioneer.to_string(), asks_the_roll: true };
        auctioneer::run(options, bus, supervisor).await?;
        Ok("auctioneer".to_owned())
    }
}

/// What may be under way at once.
fn bounds(reader: &mut Reader) -> Bounds {
    let Bounds { open_runs, active_stages, depot_free_bytes } = Bounds::default();
    Bounds {
        open_runs: reader.or(env::OPEN_RUNS_MAX, open_runs),
        active_stages: reader.or(env::ACTIVE_STAGES_MAX, active_stages),
        depot_free_bytes: reader.or(env::DEPOT_RESERVE_MIB, depot_free_bytes / MIB).saturating_mul(MIB),
    }
}

/// Decides about runs, and serves the API.
pub(super) struct Orchestrator {
    bus: BusSettings,
    blobs: Blobs,
    engine: EngineOptions,
    http: HttpOptions,
}

impl Serve for Orchestrator {
    fn read(reader: &mut Reader) -> Option<Self> {
        let (bus, blobs) = (BusSettings::read(reader), read_depot(reader));
        let seed = reader.required_file(env::DEPOT_SIGNING_SEED_FILE);
        let signer = reader.required_with(env::DEPOT_SIGNING_SEED_FILE, seed, str::parse);
        let seed = reader.required_file(env::COMMANDS_SEED_FILE);
        let commands = reader.required_with(env::COMMANDS_SEED_FILE, seed, str::parse);
        let (listen, api_token) = (reader.required::<SocketAddr>(env::LISTEN), reader.required_file(env::API_TOKEN_FILE));
        let tokens = match reader.optional::<String>(env::API_TOKENS) {
            None => Some(Tokens::default()),
            file => reader.required_with(env::API_TOKENS, file, |file| Tokens::open(file.into())),
        };
        let projects = match reader.optional::<String>(env::PROJECTS) {
            None => Some(Vec::new()),
            folder => reader.required_with(env::PROJECTS, folder, |folder| config::load(folder.as_ref())),
        };
        let key = reader.required_file(env::CALLBACK_KEY_FILE);
        let callback_key = reader.required_with(env::CALLBACK_KEY_FILE, key, str::parse);
        let public = reader.optional::<PublicUrl>(env::PUBLIC_URL);
        let reach = reader.or(env::POLL_REACH, Reach::Public);
        let data = reader.optional::<PathBuf>(env::DATA);
        let views = data.as_ref().map_or(ViewsPlace::Memory, |data| ViewsPlace::File(data.join(VIEWS_FILE)));
        let ended_runs_max = reader.or(env::RUNS_KEPT, ENDED_RUNS_MAX);
        let name = reader.or(env::ORCHESTRATOR_NAME, BusRole::Orchestrator.to_string());
        let requests_per_s = NonZeroU32::new(reader.or(env::API_REQUESTS_PER_S, REQUESTS_PER_S_DEFAULT));
        let bounds = bounds(reader);
        let traces = read_traces(reader, data.as_deref());
        let listen = listen?;
        let hosts = public.iter().map(|public| public.host.clone()).collect();
        let callback_base = Some(public.map_or_else(|| format!("http://{listen}"), |public| public.url));
        let (signer, commands, projects) = (Some(signer?), Some(commands?), projects?);
        let protections = protections(&projects);
        let engine = EngineOptions {
            signer,
            commands,
            callback_base,
            reach,
            protections,
            views,
            ended_runs_max,
            puts_away: true,
            traces,
            beside_others: true,
            snapshots: data.as_ref().map(|data| data.join(SNAPSHOTS_FOLDER)),
            bounds: Some(bounds),
            asks_the_roll: true,
            ..EngineOptions::new(&name, callback_key?)
        };
        let http = HttpOptions {
            listen,
            token: ApiToken::new(&api_token?),
            tokens: tokens?,
            projects: Projects::of(projects),
            requests_per_s,
            hosts,
            origins: vec![],
        };
        Some(Self { bus: bus?, blobs: blobs?, engine, http })
    }

    async fn start(self, supervisor: &Supervisor) -> anyhow::Result<String> {
        let bus = self.bus.connect(Identity::Service(BusRole::Orchestrator)).await?;
        let orchestrator = engine::start(self.engine, bus, self.blobs, supervisor).await?;
        Ok(format!("API on http://{}", http::serve(self.http, orchestrator, supervisor)?))
    }
}

/// Where traces go; of OpenTelemetry's own variables, the endpoint's is known where Otto's is not set.
fn read_traces(reader: &mut Reader, data: Option<&Path>) -> Option<TraceOptions> {
    let headers = reader.optional_file(env::OTLP_HEADERS_FILE);
    let own = reader.optional::<Endpoint>(env::OTLP_ENDPOINT);
    let endpoint = own.or_else(|| reader.quietly(env::OTEL_ENDPOINT))?;
    let endpoint = match headers {
        None => endpoint,
        headers => reader.required_with(env::OTLP_HEADERS_FILE, headers, |headers| endpoint.with_headers(headers))?,
    };
    Some(TraceOptions { endpoint, state: data.map(|data| data.join(TRACES_FILE)) })
}

/// What protects each of the projects.
fn protections(projects: &[config::Project]) -> Protections {
    Protections::of(projects.iter().map(|project| (project.name.clone(), project.protection.clone())))
}

/// Where a role is reached from outside. It answers under that name, too.
struct PublicUrl {
    url: String,
    host: String,
}

impl FromStr for PublicUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url: reqwest::Url = text.parse().map_err(|_| "it is no address")?;
        match (url.scheme(), url.host_str()) {
            ("http" | "https", Some(host)) => Ok(Self { url: text.to_owned(), host: host.to_owned() }),
            _ => Err("it is no http:// or https:// address"),
        }
    }
}

/// Turns pushes into triggers.
pub(super) struct Forge {
    bus: BusSettings,
    blobs: Blobs,
    options: forge::ForgeOptions,
}

impl Serve for Forge {
    fn read(reader: &mut Reader) -> Option<Self> {
        let (bus, blobs) = (BusSettings::read(reader), read_depot(reader));
        let (listen, projects, data) = (reader.required(env::LISTEN), reader.required(env::PROJECTS), reader.required(env::DATA));
        let (clock, public) = (forge::Clock::default(), reader.optional::<PublicUrl>(env::PUBLIC_URL).map(|public| public.url));
        let tokens = reader.optional::<PathBuf>(env::API_TOKENS);
        let options = forge::ForgeOptions { listen: listen?, projects: projects?, data: data?, clock, public, tokens };
        Some(Self { bus: bus?, blobs: blobs?, options })
    }

    async fn start(self, supervisor: &Supervisor) -> anyhow::Result<String> {
        let bus = self.bus.connect(Identity::Service(BusRole::Forge)).await?;
        Ok(format!("forge on http://{}", forge::run(self.options, bus, self.blobs, supervisor).await?))
    }
}

/// Runs stages.
pub(super) struct Agent {
    bus: BusSettings,
    blobs: Blobs,
    options: AgentOptions,
    stop_time: Duration,
}

impl Serve for Agent {
    fn read(reader: &mut Reader) -> Option<Self> {
        let (bus, url) = (BusSettings::read(reader), reader.required::<String>(env::DEPOT_URL));
        // An agent has no rights of its own at the depot: each attempt brings a token.
        let blobs = reader.required_with(env::DEPOT_URL, url, |url| DepotClient::new(url, "")).map(Blobs::Depot);
        let (name, data) = (reader.required::<AgentName>(env::AGENT_NAME), reader.required::<PathBuf>(env::DATA));
        let cores = available_parallelism().ok().and_then(|cores| NonZeroU32::try_from(cores).ok());
        let slots = reader.or(env::AGENT_SLOTS, cores.unwrap_or(SLOTS_UNKNOWN));
        let key = reader.required_file(env::COMMANDS_KEY_FILE);
        let commands = reader.required_with(env::COMMANDS_KEY_FILE, key, str::parse);
        let class = reader.or(env::AGENT_CLASS, AgentClass::default());
        let price_micros_per_s = reader.or(env::AGENT_PRICE, 0);
        let stop_time = Duration::from_secs(reader.or::<u32>(env::AGENT_STOP_S, 0).into());
        let labels = reader.optional::<Labels>(env::AGENT_LABELS).unwrap_or_default();
        let environment: Variables =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect();
        let isolation = reader.or(env::AGENT_ISOLATION, Isolation::Auto);
        let otto = std::env::current_exe().ok();
        let mut sandbox = otto.map_or_else(SandboxOptions::none, |otto| SandboxOptions::of(isolation, otto, &environment));
        sandbox.users = reader.or(env::AGENT_USERS, StageUsers::Auto);
        sandbox.hidden.extend(reader.text(env::BUS_CREDENTIALS_FILE).map(PathBuf::from));
        let words = |text: String| text.split_whitespace().map(str::to_owned).collect();
        let containers = ContainerOptions {
            client: words(reader.or(env::CONTAINER_CLIENT, String::new())),
            run: words(reader.or(env::CONTAINER_ARGUMENTS, String::new())),
        };
        let options = AgentOptions {
            name: name?,
            slots: slots.get(),
            data: data?,
            price_micros_per_s,
            commands: Some(commands?),
            class: class.to_string(),
            facts: machine_facts().into_iter().chain(labels.facts()).collect(),
            passthrough: tool_homes(&environment),
            finds_tools: true,
            containers: Containers::Search(containers),
            disk_reserve_bytes: agent::DISK_RESERVE_BYTES,
            sandbox,
            program: agent::THIS_PROGRAM.into(),
            in_place: None,
            attempts: u32::MAX,
        };
        Some(Self { bus: bus?, blobs: blobs?, options, stop_time })
    }

    fn stop_time(&self) -> Duration {
        self.stop_time
    }

    async fn start(self, supervisor: &Supervisor) -> anyhow::Result<String> {
        let name = self.options.name.clone();
        let options = self.bus.options(Identity::Agent(name.clone()));
        let (bus, renewal) = nats::connect_agent(&name, &options, &self.options.data).await.context("cannot connect to the bus")?;
        agent::run(self.options, bus, self.blobs, supervisor).await?;
        // What is renewed lies in the folder that the agent has by now.
        let token = supervisor.token().clone();
        supervisor.spawn("agent: renewal of its user", OnError::Shutdown, async move { Ok(renewal.work(token).await?) });
        Ok(format!("agent {name}"))
    }
}
