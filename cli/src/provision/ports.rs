//! The ports on loopback.

use std::{
    fs,
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    ops::Range,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::{ProvisionError, files};

/// How long the ports of a folder are waited for whose `otto up` was killed: its processes notice, and end within the supervisor's grace.
const RELEASE_DEADLINE: Duration = Duration::from_secs(10);
/// Where free ports are looked for: below those that systems give to outgoing connections (Linux: from 32768), so that a process that
/// starts again finds its port free.
const FREE: Range<u16> = 20_000..32_000;
/// How many ports are tried before it is said that none is free. A machine that has not one free of so many has other troubles.
const TRIES_MAX: usize = 1_000;
/// Between two looks.
const RELEASE_PAUSE: Duration = Duration::from_millis(50);

/// Which ports are taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum PortChoice {
    /// 7480 to 7487.
    #[default]
    Default,
    /// Free ones; those of the last time if they still are.
    Auto,
}

/// A port for each that listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ports {
    /// The HTTP API.
    pub api: u16,
    /// The depot.
    pub depot: u16,
    /// The forge.
    pub forge: u16,
    /// The parser.
    pub parser: u16,
    /// nats-server's clients.
    pub nats: u16,
    /// nats-server's monitoring.
    pub monitor: u16,
    /// The eventbus role; 0 in a folder from before it listened.
    #[serde(default)]
    pub eventbus: u16,
    /// nats-server's clients that come by WebSocket; 0 in a folder from before there were any.
    #[serde(default)]
    pub nats_websocket: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self { api: 7480, depot: 7481, forge: 7482, nats: 7483, monitor: 7484, parser: 7485, eventbus: 7486, nats_websocket: 7487 }
    }
}

/// Ports that are still to be chosen.
const NONE: Ports = Ports { api: 0, depot: 0, forge: 0, parser: 0, nats: 0, monitor: 0, eventbus: 0, nats_websocket: 0 };

impl Ports {
    fn named(self) -> [(&'static str, u16); 8] {
        [
            ("API", self.api),
            ("depot", self.depot),
            ("forge", self.forge),
            ("parser", self.parser),
            ("nats", self.nats),
            ("nats monitoring", self.monitor),
            ("eventbus", self.eventbus),
            ("nats by WebSocket", self.nats_websocket),
        ]
    }

    /// Those that there are, and free ones for those that there are not.
    fn filled(mut self) -> Result<Self, ProvisionError> {
        // All are held until the last is found, so they differ.
        let mut held = Vec::new();
        let Self { api, depot, forge, parser, nats, monitor, eventbus, nats_websocket } = &mut self;
        for port in [api, depot, forge, parser, nats, monitor, eventbus, nats_websocket] {
            if *port == 0 {
                let listener = free()?;
                *port = listener.local_addr().map_err(|_| ProvisionError::NoFreePort)?.port();
                held.push(listener);
            }
        }
        Ok(self)
    }

    /// The ports on which somebody listens, with their names.
    fn taken(self) -> Vec<String> {
        self.named().into_iter().filter(|(_, port)| !is_free(*port)).map(|(name, port)| format!("{port} ({name})")).collect()
    }
}

/// The address of a port on loopback.
pub(super) fn listen(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// The URL of a port on loopback.
pub(super) fn url(port: u16) -> String {
    format!("http://{}", listen(port))
}

/// The ports that were chosen the last time, if there was one.
pub(super) fn read(data: &Path) -> Option<Ports> {
    serde_json::from_str(&fs::read_to_string(file(data)).ok()?).ok()
}

fn file(data: &Path) -> PathBuf {
    data.join("ports.json")
}

/// Chooses ports that are free now, and writes them down.
pub(super) async fn choose(data: &Path, choice: PortChoice) -> Result<Ports, ProvisionError> {
    let before = read(data);
    let wanted = match choice {
        PortChoice::Default => Some(Ports::default()),
        PortChoice::Auto => before.map(Ports::filled).transpose()?,
    };
    // Where nothing stood before nothing of ours can still be ending.
    let patience = if before.is_some() && before == wanted { RELEASE_DEADLINE } else { Duration::ZERO };
    let taken = match wanted {
        Some(ports) => wait_until_free(ports, patience).await,
        None => vec![],
    };
    let ports = match (choice, wanted) {
        (_, Some(ports)) if taken.is_empty() => ports,
        (PortChoice::Default, _) => return Err(ProvisionError::PortsTaken { taken: taken.join(", ") }),
        (PortChoice::Auto, _) => NONE.filled()?,
    };
    let text = serde_json::to_string(&ports).expect("numbers have a JSON form");
    files::write_secret(&file(data), &text)?;
    Ok(ports)
}

/// Those that are still taken in the end.
async fn wait_until_free(ports: Ports, patience: Duration) -> Vec<String> {
    let deadline = Instant::now() + patience;
    loop {
        let taken = ports.taken();
        if taken.is_empty() || Instant::now() >= deadline {
            return taken;
        }
        sleep(RELEASE_PAUSE).await;
    }
}

fn is_free(port: u16) -> bool {
    match TcpListener::bind(listen(port)) {
        Ok(_released) => true,
        Err(error) => error.kind() != ErrorKind::AddrInUse,
    }
}

/// Holds a port that nobody listens on.
fn free() -> Result<TcpListener, ProvisionError> {
    for _ in 0..TRIES_MAX {
        let mut random = [0; 2];
        getrandom::fill(&mut random).map_err(ProvisionError::Randomness)?;
        let port = FREE.start + u16::from_ne_bytes(random) % (FREE.end - FREE.start);
        if let Ok(listener) = TcpListener::bind(listen(port)) {
            return Ok(listener);
        }
    }
    Err(ProvisionError::NoFreePort)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn free_ports_are_kept_as_long_as_they_are_free() {
        let folder = tempfile::tempdir().unwrap();
        let first = choose(folder.path(), PortChoice::Auto).await.unwrap();
        let mut numbers = first.named().map(|(_, port)| port).to_vec();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 8);
        assert_eq!(choose(folder.path(), PortChoice::Auto).await.unwrap(), first);
        // A folder of an older version keeps what it has.
        let old = serde_json::to_string(&first).unwrap().replace(&format!(",\"nats_websocket\":{}", first.nats_websocket), "");
        assert!(!old.contains("websocket"), "{old}");
        fs::write(file(folder.path()), old).unwrap();
        let newer = choose(folder.path(), PortChoice::Auto).await.unwrap();
        assert_eq!(Ports { nats_websocket: first.nats_websocket, ..newer }, first);
        assert_ne!(newer.nats_websocket, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn ports_of_others_are_named_or_avoided() {
        let folder = tempfile::tempdir().unwrap();
        let first = choose(folder.path(), PortChoice::Auto).await.unwrap();
        let _other = TcpListener::bind(listen(first.forge)).unwrap();
        assert_eq!(first.taken(), [format!("{} (forge)", first.forge)]);
        assert_ne!(choose(folder.path(), PortChoice::Auto).await.unwrap().forge, first.forge);
    }
}
