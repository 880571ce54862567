//! Step libraries from addresses: fetched by the forge, which alone of the services speaks to the network, and put into the depot under the
//! digest that the lock file of the commit has. What has another digest goes nowhere.
//!
//! A commit names the addresses, so they are not trusted: none of this network is asked, at no hop, unless the project's configuration
//! names its host.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use blob::{BlobError, Blobs, library::ARCHIVE_BYTES_MAX};
use model::{
    Digest,
    lock::{Lock, address_problem},
    planning::is_address,
};
use service::supervisor::chain;
use tokio::time::Instant;
use tracing::info;
use ureq::{
    Agent,
    config::Config,
    http::Uri,
    tls::{RootCerts, TlsConfig},
    unversioned::{
        resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver},
        transport::{DefaultConnector, NextTimeout},
    },
};

/// How long fetching one may take.
const FETCH_DEADLINE: Duration = Duration::from_mins(2);
/// How long a push waits for its libraries: less than its hook does for the answer.
const PUSH_DEADLINE: Duration = Duration::from_secs(20);
/// How often an address may point to another one.
const REDIRECTS_MAX: u32 = 5;
/// Libraries that are fetched for one push. Those that the depot has already are not counted.
const LIBRARIES_MAX: usize = 64;

/// Which addresses may be asked.
#[derive(Debug, Clone)]
pub enum Reach {
    /// All: the person at the command line named them.
    Everywhere,
    /// Those of the public internet, and these hosts.
    Public {
        /// As they stand in addresses.
        besides: Vec<String>,
    },
}

/// Why a library was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The address names no library.
    #[error("the address {0}")]
    Address(&'static str),
    /// It was not answered as it should be.
    #[error("it cannot be fetched: {}", chain(&**.0))]
    Fetch(Box<ureq::Error>),
    /// It is not what the lock file says.
    #[error("it has changed: it is {actual}, and the lock file has {expected}")]
    Changed {
        /// What the lock file has.
        expected: Digest,
        /// What was fetched.
        actual: Digest,
    },
}

/// An address of a network that is not everybody's.
#[derive(Debug, thiserror::Error)]
#[error(
    "{host} has the address {address}, which is not of the public internet; an administrator may name the host in the project's `libraries`"
)]
struct Private {
    host: String,
    address: IpAddr,
}

/// The archive that lies at an address.
pub fn fetch(address: &str, reach: &Reach, deadline: Duration) -> Result<Vec<u8>, FetchError> {
    if let Some(problem) = address_problem(address) {
        return Err(FetchError::Address(problem));
    }
    // Where it begins with TLS, it stays with it; without it, only this machine is asked.
    let secure = address.starts_with("https://");
    let agent = agent(reach, secure, if secure { REDIRECTS_MAX } else { 0 }, deadline.min(FETCH_DEADLINE));
    let failed = |error| FetchError::Fetch(Box::new(error));
    let mut response = agent.get(address).call().map_err(failed)?;
    if !response.status().is_success() {
        return Err(failed(ureq::Error::StatusCode(response.status().as_u16())));
    }
    response.body_mut().with_config().limit(ARCHIVE_BYTES_MAX).read_to_vec().map_err(failed)
}

/// What asks addresses that may be asked, and no others at any hop.
pub(crate) fn agent(reach: &Reach, secure: bool, redirects_max: u32, deadline: Duration) -> Agent {
    let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
    let config = Agent::config_builder().https_only(secure).max_redirects(redirects_max);
    let config = config.timeout_global(Some(deadline)).tls_config(tls).http_status_as_error(false);
    let config = match reach {
        Reach::Everywhere => config,
        // A proxy would look the names up itself, past the check below.
        Reach::Public { .. } => config.proxy(None),
    };
    Agent::with_parts(config.build(), DefaultConnector::default(), Checked(reach.clone()))
}

/// Brings the libraries of a lock file into the depot. Those that cannot be are named, each with the reason.
pub(crate) async fn supply(lock: &Lock, hosts: &[String], blobs: &Blobs) -> Result<BTreeMap<String, String>, BlobError> {
    let mut missing = BTreeMap::new();
    let (deadline, mut fetched) = (Instant::now() + PUSH_DEADLINE, 0);
    for (address, digest) in lock.libraries.iter().filter(|(name, _)| is_address(name)) {
        if blobs.has(digest).await? {
            continue;
        }
        fetched += 1;
        if fetched > LIBRARIES_MAX {
            missing.insert(address.clone(), format!("over {LIBRARIES_MAX} libraries were to be fetched for one push"));
            continue;
        }
        let (reach, left) = (Reach::Public { besides: hosts.to_vec() }, deadline.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            missing.insert(address.clone(), format!("there was no time left of {} s for all libraries", PUSH_DEADLINE.as_secs()));
            continue;
        }
        let (from, expected) = (address.clone(), *digest);
        let fetching = tokio::task::spawn_blocking(move || {
            let bytes = fetch(&from, &reach, left)?;
            let actual = Digest::of(&bytes);
            if actual == expected { Ok(bytes) } else { Err(FetchError::Changed { expected, actual }) }
        });
        match fetching.await.expect("fetching does not panic") {
            Ok(bytes) => {
                blobs.put(bytes.into()).await?;
                info!(address, %digest, "a step library was fetched");
            }
            Err(error) => {
                missing.insert(address.clone(), error.to_string());
            }
        }
    }
    Ok(missing)
}

/// Looks names up, and lets only addresses pass that may be asked. It is asked for every hop.
#[derive(Debug)]
struct Checked(Reach);

impl Resolver for Checked {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let addresses = DefaultResolver::default().resolve(uri, config, timeout)?;
        let host = uri.host().unwrap_or_default();
        match &self.0 {
            Reach::Everywhere => {}
            Reach::Public { besides } if besides.iter().any(|named| named == host) => {}
            Reach::Public { .. } => {
                // One that is not public is enough: a name could have both, to be asked again until the other is taken.
                if let Some(address) = addresses.iter().find(|address| !is_public(address.ip())) {
                    return Err(ureq::Error::Other(Box::new(Private { host: host.to_owned(), address: address.ip() })));
                }
            }
        }
        Ok(addresses)
    }
}

/// Whether an address is of the public internet (IANA's registries of special-purpose addresses, RFC 6890).
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (b == 18 || b == 19));
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(inner) = address.to_ipv4_mapped() {
        return is_public_v4(inner);
    }
    let segments = address.segments();
    // What is handed out globally is 2000::/3; within it, some carry an IPv4 address, or belong to nobody.
    let special = segments[0] & 0xe000 != 0x2000
        || segments[0] == 0x2002
        || (segments[0] == 0x2001 && segments[1] < 0x0200)
        || (segments[0] == 0x2001 && segments[1] == 0x0db8)
        || segments[0] == 0x3fff;
    !special
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_public() {
        for (address, expected) in [
            ("93.184.216.34", true),
            ("127.0.0.1", false),
            ("10.1.2.3", false),
            ("172.16.0.1", false),
            ("192.168.1.1", false),
            ("169.254.169.254", false),
            ("100.64.0.1", false),
            ("0.0.0.0", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("198.18.0.1", false),
            ("2606:2800:220:1::1", true),
            ("::1", false),
            ("::", false),
            ("::ffff:127.0.0.1", false),
            ("64:ff9b::7f00:1", false),
            ("2002:7f00:1::", false),
            ("2001:db8::1", false),
            ("fe80::1", false),
            ("fd00::1", false),
            ("ff02::1", false),
        ] {
            assert_eq!(is_public(address.parse().unwrap()), expected, "{address}");
        }
    }

    #[test]
    fn this_network_is_not_asked_unless_its_host_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/deploy@1", listener.local_addr().unwrap());
        for (address, name) in [(address.as_str(), "127.0.0.1"), ("https://localhost:1/deploy@1", "localhost")] {
            let refused = fetch(address, &Reach::Public { besides: vec!["other".to_owned()] }, PUSH_DEADLINE).unwrap_err().to_string();
            assert!(refused.contains(name) && refused.contains("not of the public internet"), "{refused}");
        }
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err(), "nobody has asked");
    }

    #[test]
    fn only_this_machine_is_asked_without_tls() {
        let refused = fetch("http://example.org/x@1", &Reach::Everywhere, PUSH_DEADLINE).unwrap_err().to_string();
        assert!(refused.contains("begins with `https://`"), "{refused}");
    }
}
