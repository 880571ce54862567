//! A cluster of nats-servers of a test's own, with the keys of a folder that others use, too.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use eventbus::nats::{
    Keys,
    server::{self, Cluster, ServerConfig},
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{nats_server::reachable, otto_home, wait_for};

/// How long a server may take to listen on a machine that is busy.
const START_DEADLINE: Duration = Duration::from_mins(1);

/// Servers that know each other. Dropping this kills them.
#[derive(Debug)]
pub struct NatsCluster {
    program: std::path::PathBuf,
    folder: TempDir,
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    name: String,
    listen: SocketAddr,
    monitor: SocketAddr,
    process: Option<Child>,
}

impl NatsCluster {
    /// Starts so many servers of the operator whose keys lie in `keys`; they are made if there are none.
    pub async fn start(keys: &Path, count: usize) -> Self {
        let program = server::find_or_install(&otto_home(), &|_line| {}).await.expect("nats-server is there or can be installed");
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let keys = Keys::open(keys).expect("keys can be made");
        // All are held until all are known, so that they differ.
        let held: Vec<TcpListener> =
            (0..3 * count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port")).collect();
        let addresses: Vec<SocketAddr> =
            held.iter().map(|listener| listener.local_addr().expect("a bound socket has an address")).collect();
        drop(held);
        let (clients, rest) = addresses.split_at(count);
        let (monitors, routes) = rest.split_at(count);
        let mut nodes = Vec::new();
        for (at, (listen, monitor)) in clients.iter().zip(monitors).enumerate() {
            let name = format!("n{}", at + 1);
            let store = folder.path().join(&name);
            let cluster = Cluster { server: &name, listen: routes[at], routes, password: "of-this-test" };
            let config =
                ServerConfig { listen: *listen, monitor: *monitor, websocket: None, store: &store, keys: &keys, cluster: Some(cluster) };
            fs::write(folder.path().join(format!("{name}.conf")), config.text()).expect("the configuration can be written");
            nodes.push(Node { name, listen: *listen, monitor: *monitor, process: None });
        }
        let mut cluster = Self { program, folder, nodes };
        for at in 0..count {
            cluster.spawn(at);
        }
        for at in 0..count {
            cluster.until_up(at).await;
        }
        let has_leader = async || cluster.ask("/jsz")?["meta_cluster"]["leader"].as_str().filter(|leader| !leader.is_empty()).map(drop);
        wait_for(START_DEADLINE, "the cluster to choose a leader", has_leader).await;
        cluster
    }

    /// The server that leads a stream of any account, as soon as one does.
    pub async fn leader_of(&self, stream: &str) -> String {
        let leader = async || {
            let told = self.ask("/jsz?streams=true")?;
            let accounts = told["account_details"].as_array()?;
            let streams = accounts.iter().filter_map(|account| account["stream_detail"].as_array()).flatten();
            let found = streams.into_iter().find(|found| found["name"] == stream)?;
            let replicas = found["cluster"]["replicas"].as_array()?;
            assert_eq!(replicas.len() + 1, self.nodes.len(), "the stream is on every server: {found}");
            found["cluster"]["leader"].as_str().map(str::to_owned)
        };
        wait_for(START_DEADLINE, &format!("a leader of {stream}"), leader).await
    }

    /// What the first server that answers says on its monitoring address.
    fn ask(&self, path: &str) -> Option<Value> {
        self.nodes.iter().filter(|node| node.process.is_some()).find_map(|node| {
            let mut stream = TcpStream::connect(node.monitor).ok()?;
            write!(stream, "GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", node.monitor).ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).ok()?;
            serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
        })
    }

    fn spawn(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let file = |end: &str| self.folder.path().join(format!("{}.{end}", node.name));
        let log = fs::File::options().create(true).append(true).open(file("log")).expect("a log can be written");
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(file("conf")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        node.process = Some(command.spawn().expect("nats-server can be run"));
    }

    async fn until_up(&self, at: usize) {
        let Node { name, listen, monitor, .. } = &self.nodes[at];
        let is_up = async || (reachable(*listen) && reachable(*monitor)).then_some(());
        wait_for(START_DEADLINE, &format!("{name} to listen"), is_up).await;
    }

    /// Kills the server of this name with SIGKILL, as a power cut would.
    pub fn kill(&mut self, name: &str) {
        let at = self.at(name);
        if let Some(mut process) = self.nodes[at].process.take() {
            process.kill().expect("a child can be killed");
            process.wait().expect("a child can be waited for");
        }
    }

    /// Starts it again, on the same ports and the same folder.
    pub async fn start_again(&mut self, name: &str) {
        let at = self.at(name);
        self.spawn(at);
        self.until_up(at).await;
    }

    fn at(&self, name: &str) -> usize {
        self.nodes.iter().position(|node| node.name == name).unwrap_or_else(|| panic!("there is no {name}"))
    }

    /// Where clients connect.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|node| format!("nats://{}", node.listen)).collect()
    }

    /// Where the servers tell how they are.
    pub fn monitors(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.monitor).collect()
    }

    /// What a server has logged.
    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(format!("{name}.log"))).unwrap_or_default()
    }
}

impl Drop for NatsCluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some(process) = &mut node.process {
                let _gone = process.kill();
                let _reaped = process.wait();
            }
        }
    }
}
