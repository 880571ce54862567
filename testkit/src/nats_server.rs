//! A nats-server of a test's own: free ports on loopback, its own keys and folder, killed when the test ends.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use eventbus::{
    Bus,
    nats::{
        Account, Accounts, Enrolment, Identity, Keys, NatsOptions, connect,
        jwt::{self, Life, Statement},
        server::{self, ServerConfig},
        setup::Setup,
    },
    subject::Role,
};
use model::{AgentClass, AgentName, protocol::enrolment::AgentTrust};
use nkeys::KeyPair;
use serde_json::json;
use tempfile::TempDir;

use crate::wait_for;

/// How often a start is tried again because another process took a port in between.
const STARTS_MAX: usize = 5;
/// How long a start may take.
const START_DEADLINE: Duration = Duration::from_secs(15);
/// The last bytes of the server's log that a failed start shows.
const LOG_TAIL_BYTES: usize = 2_000;

/// Where tests keep what they install: in cargo's target folder, so that it is installed once.
pub fn otto_home() -> PathBuf {
    let program = std::env::current_exe().expect("a test runs from a file");
    // Cargo marks its target folder with this file (bford.info/cachedir).
    let target = program.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists());
    target.map_or_else(|| std::env::temp_dir().join("otto-test-home"), |target| target.join("otto-home"))
}

/// A running nats-server. Dropping it kills it.
#[derive(Debug)]
pub struct NatsServer {
    program: PathBuf,
    folder: TempDir,
    listen: SocketAddr,
    monitor: SocketAddr,
    keys: Keys,
    process: Option<Child>,
}

/// The credentials of an agent as if its user had been signed at another time, and for another. `keys` is the folder of the bus's keys.
pub fn aged_user(keys: &Path, credentials: &str, life: Life) -> String {
    let (jwt, seed) = jwt::read_credentials(credentials).expect("they are credentials");
    let signer = fs::read_to_string(keys.join("enrolment/signing.seed")).expect("the seed is there");
    let signer = KeyPair::from_seed(&signer).expect("it is a seed");
    let aged = jwt::statement(jwt).expect("it is a JWT").sign_with(&signer, life).expect("a seed can sign");
    jwt::credentials(&aged, seed)
}

impl NatsServer {
    /// Starts one with the streams set up, and keys for the agents `a1`, `a2` and `a3`.
    pub async fn start() -> Self {
        let server = Self::start_bare(|config| config).await;
        server.set_up().await;
        server
    }

    /// Starts one that is not set up, with its configuration changed by `change`.
    pub async fn start_bare(change: impl Fn(String) -> String) -> Self {
        let program = server::find_or_install(&otto_home(), &|_line| {}).await.expect("nats-server is there or can be installed");
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let keys = Keys::open(&folder.path().join("keys")).expect("keys can be made");
        for agent in ["a1", "a2", "a3"] {
            keys.enrol(&agent.parse().expect("the name is one"), &AgentClass::default(), AgentTrust::Trusted).expect("a key can be made");
        }
        let unset = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut server = Self { program, folder, listen: unset, monitor: unset, keys, process: None };
        for _ in 0..STARTS_MAX {
            (server.listen, server.monitor) = free_addresses();
            server.write_config(&change);
            if server.try_start().await {
                return server;
            }
        }
        panic!("nats-server did not start:\n{}", server.log_tail());
    }

    /// Kills it with SIGKILL, as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("a child can be killed");
            process.wait().expect("a child can be waited for");
        }
    }

    /// Starts it again on the same ports and the same folder, after [`NatsServer::kill`].
    pub async fn restart(&mut self) {
        self.kill();
        assert!(self.try_start().await, "nats-server did not start again:\n{}", self.log_tail());
    }

    /// Sets the streams up, as the eventbus role does.
    pub async fn set_up(&self) {
        self.setup().await.begin().await.expect("a fresh server can be set up");
    }

    /// The eventbus role's own hands.
    pub async fn setup(&self) -> Setup {
        let options = self.options(Identity::Service(Role::Eventbus));
        Setup::connect(&options, self.monitor, Arc::new(self.enrolment())).await.expect("the server is there")
    }

    /// The part of its keys that the eventbus role has.
    pub fn enrolment(&self) -> Enrolment {
        Enrolment::open(&self.keys_folder().join("enrolment")).expect("it was made with the keys")
    }

    /// The administrator's part of its keys.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Tells the server what the operator says of the agents' account now.
    pub async fn push_agents(&self) {
        let accounts = Accounts::connect(&[self.url()], Arc::new(self.enrolment())).await.expect("the server is there");
        accounts.push(Account::Agents).await.expect("the server takes it");
    }

    /// Credentials of somebody who may do everything in the services' account: what all guards together keep agents from.
    pub fn unguarded(&self) -> String {
        let seed = fs::read_to_string(self.keys_folder().join("accounts/CORE.seed")).expect("the seed is there");
        let (account, user) = (KeyPair::from_seed(&seed).expect("it is a seed"), KeyPair::new_user());
        let nats = json!({ "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1 });
        let jwt = Statement::new("user", &user.public_key(), "unguarded", nats).sign(&account, 1).expect("a seed can sign");
        jwt::credentials(&jwt, &user.seed().expect("it was just made"))
    }

    /// These credentials of an agent, with a user of this life.
    pub fn aged(&self, credentials: &str, life: Life) -> String {
        aged_user(&self.keys_folder(), credentials, life)
    }

    /// A service's connection.
    pub async fn bus(&self, role: Role) -> Bus {
        connect(&self.options(Identity::Service(role))).await.expect("the server is there")
    }

    /// An agent's connection; `agent` is one of those that [`NatsServer::start`] names.
    pub async fn agent_bus(&self, agent: &AgentName) -> Bus {
        connect(&self.options(Identity::Agent(agent.clone()))).await.expect("the server is there")
    }

    /// How `identity` connects.
    pub fn options(&self, identity: Identity) -> NatsOptions {
        let file = match &identity {
            Identity::Service(role) => self.keys.service_credentials_file(*role),
            Identity::Agent(agent) => self.keys.agent_credentials_file(agent),
            Identity::System => self.keys.enrolment().system_credentials_file(),
        };
        let credentials = fs::read_to_string(file).expect("the credentials are there");
        NatsOptions { urls: vec![self.url()], credentials, identity }
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        format!("nats://{}", self.listen)
    }

    /// Where it tells how it is.
    pub fn monitor(&self) -> SocketAddr {
        self.monitor
    }

    /// The folder of its keys: credentials in `ROLE.creds` and `agents/NAME.creds`.
    pub fn keys_folder(&self) -> PathBuf {
        self.folder.path().join("keys")
    }

    fn config_file(&self) -> PathBuf {
        self.folder.path().join("nats-server.conf")
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("nats-server.log")
    }

    fn write_config(&self, change: &impl Fn(String) -> String) {
        let store = self.folder.path().join("store");
        let config =
            ServerConfig { listen: self.listen, monitor: self.monitor, websocket: None, store: &store, keys: &self.keys, cluster: None };
        fs::write(self.config_file(), change(config.text())).expect("the configuration can be written");
    }

    /// Starts the process; `false` if it ended before it could be reached, as it does when a port is taken.
    async fn try_start(&mut self) -> bool {
        let log = fs::File::options().create(true).append(true).open(self.log_file()).expect("a log can be written");
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(self.config_file()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut process = command.spawn().expect("nats-server can be run");
        let (listen, monitor) = (self.listen, self.monitor);
        let reached = wait_for(START_DEADLINE, "nats-server to listen", async || match process.try_wait() {
            Ok(None) if reachable(listen) && reachable(monitor) => Some(true),
            Ok(None) => None,
            Ok(Some(_)) | Err(_) => Some(false),
        })
        .await;
        self.process = Some(process);
        reached
    }

    fn log_tail(&self) -> String {
        let log = fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_TAIL_BYTES)..]).into_owned()
    }

    /// The folder in which everything of it lies.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn reachable(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_ok()
}

/// Two addresses that are free now. Both are held until both are known, so that they differ.
fn free_addresses() -> (SocketAddr, SocketAddr) {
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    let (one, other) = (bind(), bind());
    let address = |listener: TcpListener| listener.local_addr().expect("a bound socket has an address");
    (address(one), address(other))
}
