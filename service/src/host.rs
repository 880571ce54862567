//! Whether a request was meant for this machine.

use std::net::{IpAddr, SocketAddr};

/// Whether `host`, the Host header of a request to a server that listens on `own`, names this machine.
///
/// A server refuses other names: a web page that has its own name resolve to this machine (DNS rebinding) would otherwise speak to the
/// server as if it were its own.
pub fn is_own_host(host: &str, own: SocketAddr) -> bool {
    let name = name_of(host);
    if name.eq_ignore_ascii_case("localhost") {
        return true;
    }
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    // Where it listens on all addresses, any may be its own; a rebinding page always carries a name.
    address.parse().is_ok_and(|address: IpAddr| address.is_loopback() || own.ip().is_unspecified() || address == own.ip())
}

/// Whether `host`, a Host header, carries this name, with a port or without.
pub fn is_host(host: &str, name: &str) -> bool {
    name_of(host).eq_ignore_ascii_case(name)
}

/// A host without its port.
fn name_of(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_other_machines_are_foreign() {
        let (loopback, all) = ("127.0.0.1:80".parse().unwrap(), "0.0.0.0:80".parse().unwrap());
        for host in ["127.0.0.1", "127.0.0.1:80", "localhost", "LOCALHOST:1", "[::1]:80", "[::1]"] {
            assert!(is_own_host(host, loopback), "{host}");
        }
        for host in ["", ":80", "example.org", "localhost.example.org", "127.0.0.1.example.org:80", "10.0.0.1", "127.0.0.1:80:80"] {
            assert!(!is_own_host(host, loopback), "{host}");
        }
        assert!(is_own_host("10.0.0.1:80", all) && !is_own_host("example.org", all));
        assert!(is_own_host("10.0.0.1:80", "10.0.0.1:80".parse().unwrap()));
    }

    #[test]
    fn a_name_is_itself_in_whatever_case_and_at_whatever_port() {
        for host in ["otto.test", "Otto.Test:443"] {
            assert!(is_host(host, "otto.test"), "{host}");
        }
        for host in ["", ":443", "otto.test.evil", "evil.otto.test", "otto.test:x"] {
            assert!(!is_host(host, "otto.test"), "{host}");
        }
    }
}
