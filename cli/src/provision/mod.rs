//! Everything that must be there before the first process of `otto up`: folders, keys, tokens, the bus's configuration, ports.
//!
//! ```text
//! <data>/lock            held by the `otto up` of this folder
//!        ports.json      the ports that were chosen
//!        keys/           seeds and tokens, for their owner's eyes only
//!        nats/           nats.conf, and the streams
//!        depot/ forge/ orchestrator/ agents/<name>/   each a role's own data
//!        projects/       the projects' configuration, one `<project>.yml` each
//!        tokens.yml      the API's other tokens, as `otto token new` writes them
//!        logs/           what each process printed
//!        client.env      how a command reaches the API
//!        processes.json  the process ids
//! ```
//!
//! **Invariant:** doing it again changes no key and loses no data.

mod client_env;
pub(crate) mod files;
mod lock;
mod ports;

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use blob::token::{Claims, Read, Signer};
use eventbus::{
    nats::{Account, KeyError, Keys, server::ServerConfig},
    signed::{CommandSigner, InvalidKey},
    subject::Role as BusRole,
};
use model::{AgentClass, AgentName, Timestamp, protocol::enrolment::AgentTrust};
use orchestrator::engine::Reach;
use service::env;

pub(crate) use self::files::write_secret;
pub use self::{
    client_env::ClientEnv,
    ports::{PortChoice, Ports},
};
use self::{files::FileError, lock::Lock};

/// How long a role's token for the depot is good. It is minted anew at every `otto up`, so this bounds one uptime only.
const ROLE_TOKEN_MS: u64 = 366 * 24 * 60 * 60 * 1000;
/// Random bytes of the API's token, and of the key of callbacks.
const API_TOKEN_BYTES: usize = 32;

/// The orchestrator's read models, in its data folder.
pub const VIEWS_FILE: &str = "views.sqlite";
/// The folder of the projects' configuration, in the folder of `otto up`.
pub const PROJECTS_FOLDER: &str = "projects";
/// The file of the API's other tokens, in the folder of `otto up`.
pub const TOKENS_FILE: &str = "tokens.yml";

/// What is provisioned.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder; it is created if it is missing.
    pub data: PathBuf,
    /// Which ports the processes listen on.
    pub ports: PortChoice,
    /// How many agents get a key.
    pub agents: NonZeroUsize,
    /// Whose code they run.
    pub trust: AgentTrust,
    /// The nats-server program.
    pub nats_server: PathBuf,
    /// The servers of the bus, where it is not one of this folder.
    pub bus: Option<BusServers>,
    /// Whether the bus is reached by WebSocket, too.
    pub websocket: bool,
}

/// A bus that runs elsewhere, with the keys of this folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BusServers {
    /// Where clients connect to each of them.
    pub urls: Vec<String>,
    /// Where each of them tells how it is.
    pub monitors: Vec<SocketAddr>,
    /// On how many of them each message must be.
    pub replicas: Option<NonZeroUsize>,
}

/// A folder that is provisioned, and locked until this is dropped.
#[derive(Debug)]
pub struct Provision {
    data: PathBuf,
    nats_server: PathBuf,
    ports: Ports,
    keys: Keys,
    bus: Option<BusServers>,
    _lock: Lock,
}

/// Why a folder is not provisioned.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// Another `otto up` uses the folder.
    #[error("an `otto up` is running on {} already{}", .data.display(), .pid.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    Running {
        /// The folder.
        data: PathBuf,
        /// Its process, where it is known.
        pid: Option<u32>,
    },
    /// Other programs listen there.
    #[error("these ports are in use by other programs: {taken}; `--ports auto` picks free ones")]
    PortsTaken {
        /// Names and numbers.
        taken: String,
    },
    /// No free port.
    #[error("no free port was found")]
    NoFreePort,
    /// The folder's name cannot stand in an environment variable.
    #[error("the path {} is not UTF-8: choose another folder", .data.display())]
    NotUtf8 {
        /// The folder.
        data: PathBuf,
    },
    /// A file or folder.
    #[error(transparent)]
    File(#[from] FileError),
    /// A key of the bus.
    #[error(transparent)]
    Bus(#[from] KeyError),
    /// A key or token of the depot.
    #[error("{} holds no key of the depot: move it away, and a new one is made", .path.display())]
    Depot {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: blob::token::KeyError,
    },
    /// The key of commands.
    #[error("{} holds no key that signs commands: move it away, and a new one is made", .path.display())]
    Commands {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: InvalidKey,
    },
    /// No randomness for a token.
    #[error("the system gives no random bytes: {0}")]
    Randomness(getrandom::Error),
}

/// Roles of which there may be several under one `otto up`. A depot has one folder, which is one process's.
const DOUBLED: [&str; 4] = ["parser", "auctioneer", "orchestrator", "forge"];

/// The role of a process that is called `ROLE-2` or higher.
fn role_beside(name: &str) -> Option<&'static str> {
    let (role, number) = name.rsplit_once('-')?;
    number.parse::<u32>().ok().filter(|number| *number > 1)?;
    DOUBLED.into_iter().find(|doubled| *doubled == role)
}

/// The name of the `number`th agent, counted from 1; its process has the same.
pub fn agent_name(number: usize) -> AgentName {
    format!("agent-{number}").parse().expect("letters, a dash and digits are a name")
}

/// Where the forge of the `otto up` of this folder is reached.
pub fn forge_url(data: &Path) -> anyhow::Result<String> {
    let ports = ports::read(data).with_context(|| format!("there was no `otto up` on {} yet", data.display()))?;
    Ok(ports::url(ports.forge))
}

/// Where the bus's keys lie in the folder of an `otto up`.
pub fn bus_keys(data: &Path) -> PathBuf {
    data.join("keys/bus")
}

/// Where the bus of the `otto up` of this folder is reached.
pub fn bus_urls(data: &Path) -> anyhow::Result<Vec<String>> {
    if let Ok(text) = fs::read_to_string(bus_file(data)) {
        return Ok(text.lines().map(str::to_owned).collect());
    }
    let ports = ports::read(data).with_context(|| format!("there was no `otto up` on {} yet", data.display()))?;
    Ok(vec![format!("nats://{}", ports::listen(ports.nats))])
}

/// The addresses of a bus that runs elsewhere, one a line; without one, there is no such file.
fn bus_file(data: &Path) -> PathBuf {
    data.join("bus.urls")
}

/// Where the depot of the `otto up` of this folder is reached.
pub fn depot_url(data: &Path) -> anyhow::Result<String> {
    let ports = ports::read(data).with_context(|| format!("there was no `otto up` on {} yet", data.display()))?;
    Ok(ports::url(ports.depot))
}

/// The file of a service's credentials for the bus, in the folder of an `otto up`.
pub fn service_credentials(data: &Path, role: BusRole) -> anyhow::Result<PathBuf> {
    let folder = bus_keys(data);
    anyhow::ensure!(folder.exists(), "there was no `otto up` on {} yet", data.display());
    Ok(Keys::open(&folder)?.service_credentials_file(role))
}

/// The file of a role's token for the depot, in the folder of an `otto up`.
pub fn depot_token(data: &Path, role: &str) -> PathBuf {
    data.join(format!("keys/depot/{role}.token"))
}

/// Where the bus's configuration lies in the folder of an `otto up`.
pub fn nats_config(data: &Path) -> PathBuf {
    data.join("nats/nats.conf")
}

impl Provision {
    /// Takes the folder for this process, and makes what is missing in it.
    pub async fn open(options: Options) -> Result<Self, ProvisionError> {
        let Options { data, ports, agents, trust, nats_server, bus, websocket } = options;
        let data = std::path::absolute(&data).map_err(|source| FileError::new("find", &data, source))?;
        if data.to_str().is_none() || nats_server.to_str().is_none() {
            return Err(ProvisionError::NotUtf8 { data });
        }
        files::create_private_folder(&data)?;
        let lock = Lock::take(&data)?;
        for folder in ["keys/bus", "keys/depot", "nats", "depot", "forge", "orchestrator", PROJECTS_FOLDER, "logs"] {
            files::create_private_folder(&data.join(folder))?;
        }
        let ports = ports::choose(&data, ports).await?;
        let keys = Keys::open(&bus_keys(&data))?;
        for number in 1..=agents.get() {
            keys.enrol(&agent_name(number), &AgentClass::default(), trust)?;
            files::create_private_folder(&data.join("agents").join(agent_name(number).as_str()))?;
        }
        let provision = Self { data, nats_server, ports, keys, bus, _lock: lock };
        provision.write_nats_config(websocket)?;
        provision.write_bus_file()?;
        provision.write_depot_keys()?;
        provision.write_command_keys()?;
        files::read_or_create_secret(&provision.api_token_file(), random_token)?;
        files::read_or_create_secret(&provision.callback_key_file(), random_token)?;
        ClientEnv { api_url: provision.api_url(), api_token_file: provision.api_token_file() }.write(&provision.data)?;
        Ok(provision)
    }

    /// The folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The ports.
    pub fn ports(&self) -> Ports {
        self.ports
    }

    /// Where the API is reached.
    pub fn api_url(&self) -> String {
        ports::url(self.ports.api)
    }

    /// The file of the API's token.
    pub fn api_token_file(&self) -> PathBuf {
        self.data.join("keys/api.token")
    }

    /// The file of the API's other tokens; there need be none.
    pub fn tokens_file(&self) -> PathBuf {
        self.data.join(TOKENS_FILE)
    }

    /// Where the forge is reached.
    pub fn forge_url(&self) -> String {
        ports::url(self.ports.forge)
    }

    /// The folder of the projects' configuration.
    pub fn projects(&self) -> PathBuf {
        self.data.join(PROJECTS_FOLDER)
    }

    /// The folder of what the processes printed.
    pub fn logs(&self) -> PathBuf {
        self.data.join("logs")
    }

    /// The settings of the process `name` of the Procfile; an agent's is [`agent_name`]. The second process of a role is called `ROLE-2`, and so on: it
    /// has a folder of its own, and listens on any free port.
    pub fn environment(&self, name: &str) -> BTreeMap<&'static str, String> {
        let Some(role) = role_beside(name) else { return self.environment_of(name) };
        let mut settings = self.environment_of(role);
        if settings.contains_key(env::LISTEN) {
            settings.insert(env::LISTEN, ports::listen(0).to_string());
        }
        if settings.contains_key(env::DATA) {
            settings.insert(env::DATA, text(&self.data.join(name)));
        }
        if settings.contains_key(env::ORCHESTRATOR_NAME) {
            settings.insert(env::ORCHESTRATOR_NAME, name.to_owned());
        }
        settings
    }

    fn environment_of(&self, name: &str) -> BTreeMap<&'static str, String> {
        let path = |file: &str| text(&self.data.join(file));
        let mut settings = BTreeMap::new();
        if let Some(role) = BusRole::ALL.into_iter().find(|role| role.name() == name) {
            settings.insert(env::BUS_URLS, self.bus_url());
            settings.insert(env::BUS_CREDENTIALS_FILE, text(&self.keys.service_credentials_file(role)));
        }
        if matches!(name, "parser" | "orchestrator" | "forge") {
            settings.insert(env::DEPOT_URL, ports::url(self.ports.depot));
            settings.insert(env::DEPOT_TOKEN_FILE, text(&self.depot_token_file(name)));
        }
        if matches!(name, "depot" | "orchestrator" | "forge") {
            settings.insert(env::DATA, path(name));
        }
        match name {
            "nats" => {
                settings.insert(env::NATS_SERVER, text(&self.nats_server));
                settings.insert(env::NATS_CONFIG, text(&self.nats_config()));
                settings.insert(env::NATS_MONITOR, ports::listen(self.ports.monitor).to_string());
            }
            "eventbus" => {
                settings.insert(env::BUS_ENROLMENT, path("keys/bus/enrolment"));
                settings.insert(env::LISTEN, ports::listen(self.ports.eventbus).to_string());
                settings.insert(env::COMMANDS_KEY_FILE, text(&self.commands_key_file()));
                settings.insert(env::DEPOT_URL, ports::url(self.ports.depot));
                settings.insert(env::NATS_MONITOR, self.bus_monitors());
                if let Some(replicas) = self.bus.as_ref().and_then(|bus| bus.replicas) {
                    settings.insert(env::BUS_REPLICAS, replicas.to_string());
                }
            }
            "depot" => {
                settings.insert(env::LISTEN, ports::listen(self.ports.depot).to_string());
                settings.insert(env::DEPOT_VERIFYING_KEY_FILE, text(&self.verifying_key_file()));
            }
            "orchestrator" => {
                settings.insert(env::ORCHESTRATOR_NAME, name.to_owned());
                settings.insert(env::LISTEN, ports::listen(self.ports.api).to_string());
                settings.insert(env::API_TOKEN_FILE, text(&self.api_token_file()));
                settings.insert(env::PROJECTS, text(&self.projects()));
                settings.insert(env::API_TOKENS, text(&self.tokens_file()));
                settings.insert(env::DEPOT_SIGNING_SEED_FILE, text(&self.signing_seed_file()));
                settings.insert(env::COMMANDS_SEED_FILE, text(&self.commands_seed_file()));
                settings.insert(env::CALLBACK_KEY_FILE, text(&self.callback_key_file()));
                settings.insert(env::PUBLIC_URL, self.api_url());
                settings.insert(env::POLL_REACH, Reach::Loopback.to_string());
            }
            "parser" => {
                settings.insert(env::LISTEN, ports::listen(self.ports.parser).to_string());
            }
            "forge" => {
                settings.insert(env::LISTEN, ports::listen(self.ports.forge).to_string());
                settings.insert(env::API_TOKENS, text(&self.tokens_file()));
                settings.insert(env::PUBLIC_URL, self.api_url());
                settings.insert(env::PROJECTS, text(&self.projects()));
            }
            _ => {
                if let Some(agent) = name.parse().ok().filter(|agent| self.keys.agent_credentials_file(agent).exists()) {
                    self.agent_environment(&agent, &mut settings);
                }
            }
        }
        settings
    }

    fn agent_environment(&self, agent: &AgentName, settings: &mut BTreeMap<&'static str, String>) {
        settings.insert(env::BUS_URLS, self.bus_url());
        settings.insert(env::BUS_CREDENTIALS_FILE, text(&self.keys.agent_credentials_file(agent)));
        settings.insert(env::DEPOT_URL, ports::url(self.ports.depot));
        settings.insert(env::DATA, text(&self.data.join("agents").join(agent.as_str())));
        settings.insert(env::COMMANDS_KEY_FILE, text(&self.commands_key_file()));
        settings.insert(env::AGENT_NAME, agent.to_string());
    }

    /// Makes the folder of a process that has one of its own beside its role's.
    pub fn make_folder_of(&self, name: &str) -> Result<(), ProvisionError> {
        match role_beside(name) {
            Some("forge" | "orchestrator") => Ok(files::create_private_folder(&self.data.join(name))?),
            Some(_) | None => Ok(()),
        }
    }

    fn write_bus_file(&self) -> Result<(), FileError> {
        let file = bus_file(&self.data);
        match &self.bus {
            Some(bus) => files::write_secret(&file, &format!("{}\n", bus.urls.join("\n"))),
            None => match fs::remove_file(&file) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(FileError::new("remove", &file, error)),
                Ok(()) | Err(_) => Ok(()),
            },
        }
    }

    fn bus_url(&self) -> String {
        match &self.bus {
            Some(bus) => bus.urls.join(","),
            None => format!("nats://{}", ports::listen(self.ports.nats)),
        }
    }

    fn bus_monitors(&self) -> String {
        match &self.bus {
            Some(bus) => bus.monitors.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
            None => ports::listen(self.ports.monitor).to_string(),
        }
    }

    fn nats_config(&self) -> PathBuf {
        nats_config(&self.data)
    }

    fn signing_seed_file(&self) -> PathBuf {
        self.data.join("keys/depot/signing.seed")
    }

    fn callback_key_file(&self) -> PathBuf {
        self.data.join("keys/callback.key")
    }

    fn commands_seed_file(&self) -> PathBuf {
        self.data.join("keys/commands.seed")
    }

    fn commands_key_file(&self) -> PathBuf {
        self.data.join("keys/commands.key")
    }

    fn verifying_key_file(&self) -> PathBuf {
        self.data.join("keys/depot/verifying.key")
    }

    fn depot_token_file(&self, role: &str) -> PathBuf {
        depot_token(&self.data, role)
    }

    fn write_nats_config(&self, by_websocket: bool) -> Result<(), FileError> {
        let store = self.data.join("nats/jetstream");
        adopt_streams(&store, &self.keys.public(Account::Core))?;
        let Ports { nats, monitor, nats_websocket, .. } = self.ports;
        let (listen, monitor) = (ports::listen(nats), ports::listen(monitor));
        let websocket = by_websocket.then(|| ports::listen(nats_websocket));
        let config = ServerConfig { listen, monitor, websocket, store: &store, keys: &self.keys, cluster: None };
        files::write_secret(&self.nats_config(), &config.text())
    }

    fn write_command_keys(&self) -> Result<(), ProvisionError> {
        let path = self.commands_seed_file();
        let seed = files::read_or_create_secret(&path, || Ok::<_, FileError>(CommandSigner::generate().seed_text()))?;
        let signer: CommandSigner = seed.parse().map_err(|source| ProvisionError::Commands { path, source })?;
        Ok(files::write_secret(&self.commands_key_file(), &signer.verifier().to_string())?)
    }

    fn write_depot_keys(&self) -> Result<(), ProvisionError> {
        let path = self.signing_seed_file();
        let wrong = |source| ProvisionError::Depot { path: path.clone(), source };
        let seed = files::read_or_create_secret(&path, || Signer::generate().map(|signer| signer.seed_text()).map_err(wrong))?;
        let signer: Signer = seed.parse().map_err(wrong)?;
        files::write_secret(&self.verifying_key_file(), &signer.verifier().to_string())?;
        let expires_at = Timestamp(service::clock::unix_ms().saturating_add(ROLE_TOKEN_MS));
        for role in ["parser", "orchestrator", "forge"] {
            let claims = Claims { holder: role.to_owned(), read: Read::All, write: true, expires_at };
            files::write_secret(&self.depot_token_file(role), &signer.mint(&claims))?;
        }
        Ok(())
    }
}

/// nats-server keeps an account's streams under its name. Until accounts had keys, that of the services was `CORE`.
fn adopt_streams(store: &Path, core: &str) -> Result<(), FileError> {
    let (before, now) = (store.join("jetstream/CORE"), store.join("jetstream").join(core));
    if !before.exists() || now.exists() {
        return Ok(());
    }
    fs::rename(&before, &now).map_err(|source| FileError::new("move the streams of", &before, source))
}

/// A path of the folder, which is UTF-8.
fn text(path: &Path) -> String {
    path.to_str().expect("the folder's path was checked, and what is put behind it is ASCII").to_owned()
}

fn random_token() -> Result<String, ProvisionError> {
    let mut bytes = [0; API_TOKEN_BYTES];
    getrandom::fill(&mut bytes).map_err(ProvisionError::Randomness)?;
    Ok(data_encoding::HEXLOWER.encode(&bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    async fn open(data: &Path, agents: usize) -> Result<Provision, ProvisionError> {
        let agents = NonZeroUsize::new(agents).unwrap();
        let (ports, trust) = (PortChoice::Auto, AgentTrust::Any);
        Provision::open(Options {
            data: data.to_owned(),
            ports,
            agents,
            trust,
            nats_server: "nats-server".into(),
            bus: None,
            websocket: false,
        })
        .await
    }

    fn secrets(folder: &Path) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if !path.to_str().unwrap().contains("/keys/depot/") || path.ends_with("signing.seed") {
                    found.insert(path.clone(), fs::read_to_string(&path).unwrap());
                }
            }
        }
        found
    }

    #[tokio::test]
    async fn a_second_time_keeps_keys_and_ports() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("up");
        let first = open(&data, 1).await.unwrap();
        let (ports, before) = (first.ports(), secrets(&data.join("keys")));
        drop(first);
        let second = open(&data, 2).await.unwrap();
        assert_eq!(second.ports(), ports);
        let mut after = secrets(&data.join("keys"));
        assert!(after.remove(&second.keys.agent_credentials_file(&agent_name(2))).is_some(), "the new agent has a key");
        assert!(after.remove(&data.join("keys/bus/enrolment/agents/agent-2.json")).is_some(), "and a record");
        assert_eq!(after, before);
        assert!(before.len() >= 9, "five services, an agent, the depot, the API and its callbacks: {:?}", before.keys());
    }

    #[tokio::test]
    async fn the_streams_of_a_folder_from_before_accounts_had_keys_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("nats/jetstream/jetstream");
        fs::create_dir_all(store.join("CORE/streams/RUNS")).unwrap();
        for _ in 0..2 {
            let provision = open(folder.path(), 1).await.unwrap();
            assert!(store.join(provision.keys.public(Account::Core)).join("streams/RUNS").exists());
            assert!(!store.join("CORE").exists());
        }
    }

    #[tokio::test]
    async fn what_is_secret_is_its_owners() {
        let folder = tempfile::tempdir().unwrap();
        let _provision = open(folder.path(), 1).await.unwrap();
        for path in secrets(folder.path()).keys().filter(|path| path.to_str().unwrap().contains("/keys/")) {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
        }
        assert_eq!(fs::metadata(folder.path().join("keys")).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[tokio::test]
    async fn two_at_once_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let first = open(folder.path(), 1).await.unwrap();
        match open(folder.path(), 1).await {
            Err(ProvisionError::Running { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        drop(first);
        assert!(open(folder.path(), 1).await.is_ok());
    }

    #[tokio::test]
    async fn every_role_has_its_settings_and_no_other_roles_secrets() {
        let folder = tempfile::tempdir().unwrap();
        let provision = open(folder.path(), 1).await.unwrap();
        let procfile: crate::up::Procfile = crate::up::DEFAULT_PROCFILE.parse().unwrap();
        for entry in procfile.entries.iter().filter(|entry| entry.name != "agent") {
            assert!(!provision.environment(&entry.name).is_empty(), "{}", entry.name);
        }
        let agent = provision.environment("agent-1");
        assert_eq!(agent[env::AGENT_NAME], "agent-1");
        assert!(
            !agent.contains_key(env::DEPOT_SIGNING_SEED_FILE)
                && !agent.contains_key(env::COMMANDS_SEED_FILE)
                && !agent.contains_key(env::API_TOKEN_FILE)
        );
        assert!(!provision.environment("depot").contains_key(env::DEPOT_SIGNING_SEED_FILE));
        assert!(provision.environment("agent-2").is_empty());
        let mut credentials: Vec<String> =
            ["forge", "parser", "agent-1"].map(|name| provision.environment(name)[env::BUS_CREDENTIALS_FILE].clone()).into();
        credentials.dedup();
        assert_eq!(credentials.len(), 3);
    }

    #[tokio::test]
    async fn a_second_process_of_a_role_has_its_settings_and_a_place_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let provision = open(folder.path(), 1).await.unwrap();
        for role in DOUBLED {
            let (first, second) = (provision.environment(role), provision.environment(&format!("{role}-2")));
            assert_eq!(first.keys().collect::<Vec<_>>(), second.keys().collect::<Vec<_>>(), "{role}");
            assert_eq!(first[env::BUS_CREDENTIALS_FILE], second[env::BUS_CREDENTIALS_FILE], "{role}");
            for own in [env::LISTEN, env::DATA, env::ORCHESTRATOR_NAME] {
                assert!(!first.contains_key(own) || first[own] != second[own], "{role}: {own}");
            }
        }
        provision.make_folder_of("orchestrator-2").unwrap();
        assert!(Path::new(&provision.environment("orchestrator-2")[env::DATA]).is_dir());
        for none in ["depot-2", "parser-1", "parser-x", "eventbus-2"] {
            assert!(provision.environment(none).is_empty(), "{none}");
        }
    }

    #[tokio::test]
    async fn a_bus_that_runs_elsewhere_is_told_to_every_process_and_remembered_for_commands() {
        let folder = tempfile::tempdir().unwrap();
        let urls = vec!["nats://10.0.0.1:4222".to_owned(), "nats://10.0.0.2:4222".to_owned()];
        let monitors = vec!["10.0.0.1:8222".parse().unwrap(), "10.0.0.2:8222".parse().unwrap()];
        let bus = Some(BusServers { urls: urls.clone(), monitors, replicas: NonZeroUsize::new(2) });
        let options = Options {
            data: folder.path().to_owned(),
            ports: PortChoice::Auto,
            agents: NonZeroUsize::MIN,
            trust: AgentTrust::Any,
            nats_server: "nats-server".into(),
            bus,
            websocket: false,
        };
        let provision = Provision::open(options).await.unwrap();
        for process in ["eventbus", "parser", "orchestrator", "agent-1"] {
            assert_eq!(provision.environment(process)[env::BUS_URLS], urls.join(","), "{process}");
        }
        let eventbus = provision.environment("eventbus");
        assert_eq!((eventbus[env::NATS_MONITOR].as_str(), eventbus[env::BUS_REPLICAS].as_str()), ("10.0.0.1:8222,10.0.0.2:8222", "2"));
        assert_eq!(bus_urls(folder.path()).unwrap(), urls);
        drop(provision);
        let alone = open(folder.path(), 1).await.unwrap();
        assert_eq!(bus_urls(folder.path()).unwrap(), [alone.environment("eventbus")[env::BUS_URLS].clone()]);
    }
}
