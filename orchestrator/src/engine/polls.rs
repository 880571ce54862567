//! Asking addresses whether they answer as expected, for the waits that poll.
//!
//! The orchestrator asks from where it stands, and a pipeline names the address: so addresses of this machine and of private networks are
//! refused unless an option allows them, by what the name resolves to at the very connection, and no answer leads elsewhere. Of an answer,
//! only the status counts.

use std::{fmt, net::IpAddr, str::FromStr, sync::Arc, time::Duration};

use tokio::{sync::Semaphore, task::spawn_blocking};
use ureq::{
    Agent, Error,
    config::Config,
    http::Uri,
    tls::{RootCerts, TlsConfig},
    unversioned::{
        resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver},
        transport::{DefaultConnector, NextTimeout},
    },
};

/// How long one question may take, from the name to the status.
const POLL_DEADLINE: Duration = Duration::from_secs(10);
/// Questions that are asked at once, each on a thread; more wait for their turn.
const POLLS_MAX: usize = 32;
/// The most bytes of an answer's headers. Its body is not read.
const HEADER_BYTES_MAX: usize = 32 * 1024;

/// Which addresses may be polled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Reach {
    /// Those of the public internet.
    #[default]
    Public,
    /// Those, and this machine.
    Loopback,
    /// All, private networks included.
    All,
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Public => "public",
            Self::Loopback => "loopback",
            Self::All => "all",
        })
    }
}

/// Why a text is no [`Reach`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected `public`, `loopback` or `all`")]
pub struct InvalidReach;

impl FromStr for Reach {
    type Err = InvalidReach;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Public, Self::Loopback, Self::All].into_iter().find(|reach| reach.to_string() == text).ok_or(InvalidReach)
    }
}

/// Why an address was not asked, or did not answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum PollError {
    #[error("it is no http:// or https:// address")]
    Scheme,
    #[error(transparent)]
    Http(#[from] Box<Error>),
}

/// Asks addresses. Clones share its connections and its limit.
#[derive(Debug, Clone)]
pub(super) struct Poller {
    agent: Agent,
    turns: Arc<Semaphore>,
}

impl Poller {
    pub(super) fn new(reach: Reach) -> Self {
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        let config = Agent::config_builder()
            .max_redirects(0)
            .http_status_as_error(false)
            .timeout_global(Some(POLL_DEADLINE))
            .max_response_header_size(HEADER_BYTES_MAX)
            .max_idle_connections(0)
            .proxy(None)
            .user_agent("otto")
            .tls_config(tls)
            .build();
        let agent = Agent::with_parts(config, DefaultConnector::default(), Guard { reach, names: DefaultResolver::default() });
        Self { agent, turns: Arc::new(Semaphore::new(POLLS_MAX)) }
    }

    /// The status with which the address answers.
    pub(super) async fn ask(&self, url: &str) -> Result<u16, PollError> {
        if !["http://", "https://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(PollError::Scheme);
        }
        let _turn = self.turns.acquire().await.expect("the limit is never closed");
        let (agent, url) = (self.agent.clone(), url.to_owned());
        let asked = spawn_blocking(move || agent.get(url).call().map(|response| response.status().as_u16()));
        Ok(asked.await.expect("asking does not panic").map_err(Box::new)?)
    }
}

/// Refuses what is out of reach.
#[derive(Debug)]
struct Guard {
    reach: Reach,
    names: DefaultResolver,
}

impl Resolver for Guard {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let found = self.names.resolve(uri, config, timeout)?;
        // All of them: one that is out of reach says that somebody tries.
        match found.iter().find(|address| reach_of(address.ip()) > self.reach) {
            None => Ok(found),
            Some(address) => Err(Error::Other(Box::new(OutOfReach { address: address.ip() }))),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the address {address} is none of the public internet, and may not be polled")]
struct OutOfReach {
    address: IpAddr,
}

/// What must be allowed for this address to be asked.
fn reach_of(address: IpAddr) -> Reach {
    let address = address.to_canonical();
    if address.is_loopback() {
        return Reach::Loopback;
    }
    let is_public = match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            // RFC 6890 and its registry, as far as they name what is not reachable from everywhere.
            let special = v4.is_private()
                || v4.is_link_local()
                || v4.is_broadcast()
                || v4.is_multicast()
                || v4.is_documentation()
                || a == 0
                || a >= 240
                || (a == 100 && (64..128).contains(&b))
                || (a == 192 && b == 0 && c == 0)
                || (a == 198 && (18..20).contains(&b));
            !special
        }
        IpAddr::V6(v6) => {
            let segments = v6.segments();
            // Global unicast is 2000::/3 (RFC 4291). Of that, what carries an address of another kind within is refused: 6to4, Teredo.
            let tunnels = segments[0] == 0x2002 || (segments[0] == 0x2001 && segments[1] == 0);
            let documentation = segments[0] == 0x2001 && segments[1] == 0x0db8;
            segments[0] & 0xe000 == 0x2000 && !tunnels && !documentation
        }
    };
    if is_public { Reach::Public } else { Reach::All }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
        thread,
    };

    use super::*;

    /// Answers each connection with this text.
    fn server(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = [0; 1024];
                let _bytes = stream.read(&mut request).unwrap();
                let _closed = stream.write_all(answer.as_bytes());
            }
        });
        format!("http://{address}/health")
    }

    #[test]
    fn only_addresses_of_the_public_internet_are_public() {
        for text in ["1.1.1.1", "8.8.8.8", "100.128.0.1", "2606:4700::1111", "::ffff:1.1.1.1"] {
            assert_eq!(reach_of(text.parse().unwrap()), Reach::Public, "{text}");
        }
        for text in ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(reach_of(text.parse().unwrap()), Reach::Loopback, "{text}");
        }
        let others = [
            "10.0.0.1",
            "172.16.3.4",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "198.18.0.1",
            "192.0.0.8",
            "240.0.0.1",
            "fe80::1",
            "fd00::1",
            "::",
            "ff02::1",
            "2002:7f00:1::",
            "2001:0:1::",
            "64:ff9b::7f00:1",
            "::ffff:10.0.0.1",
        ];
        for text in others {
            assert_eq!(reach_of(text.parse().unwrap()), Reach::All, "{text}");
        }
    }

    #[tokio::test]
    async fn an_address_out_of_reach_is_not_asked() {
        let url = server("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(Poller::new(Reach::Loopback).ask(&url).await.unwrap(), 200);
        let refused = Poller::new(Reach::Public).ask(&url).await.unwrap_err();
        assert!(service::supervisor::chain(&refused).contains("127.0.0.1"), "{refused}");
        let named = url.replace("127.0.0.1", "localhost");
        assert!(Poller::new(Reach::Public).ask(&named).await.is_err(), "by what the name resolves to");
        for other in ["file:///etc/passwd", "ftp://example.org/", "gopher://x", ""] {
            assert!(matches!(Poller::new(Reach::All).ask(other).await, Err(PollError::Scheme)), "{other}");
        }
    }

    #[tokio::test]
    async fn an_answer_that_points_elsewhere_is_an_answer() {
        let url = server("HTTP/1.1 302 Found\r\nlocation: file:///etc/passwd\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(Poller::new(Reach::Loopback).ask(&url).await.unwrap(), 302);
        let endless = server("HTTP/1.1 200 OK\r\ncontent-length: 999999999999\r\n\r\n");
        assert_eq!(Poller::new(Reach::Loopback).ask(&endless).await.unwrap(), 200, "its body is not read");
    }
}
