//! Clients of HTTP: how one process of Otto, or a person's command, asks another over the network.
//!
//! Of a server at `https://`, the certificate is verified against those that the machine trusts. `SSL_CERT_FILE` and `SSL_CERT_DIR` name others in their
//! place, as they do for OpenSSL.

use std::{error::Error, io, iter};

use reqwest::{ClientBuilder, redirect};
use rustls::crypto::ring;

/// Begins a client of the one server at `url`. What it sends is for that server alone: it goes through no proxy, and follows no redirect.
///
/// Building it fails where `url` begins with `https:` and the machine trusts no certificate at all.
pub fn client(url: &str) -> ClientBuilder {
    // An error says that somebody was earlier, with the only one that this program has.
    let _earlier = ring::default_provider().install_default();
    let is_secure = url.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:"));
    #[expect(clippy::disallowed_methods, reason = "this is where clients begin")]
    let client = reqwest::Client::builder().no_proxy().redirect(redirect::Policy::none());
    // To read some hundred certificates takes milliseconds, which a client that needs none of them does not spend.
    if is_secure { client } else { client.tls_certs_only(iter::empty()) }
}

/// Why the certificate of the server was not believed, if that is what `error` comes from.
pub fn distrust(error: &(dyn Error + 'static)) -> Option<String> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(tls @ rustls::Error::InvalidCertificate(_)) = error.downcast_ref() {
            return Some(tls.to_string());
        }
        // An error of the socket does not name what it holds as its cause, but the cause of that.
        let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause = held.map(|held| held as _).or_else(|| error.source());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_without_tls_needs_no_certificates() {
        for url in ["http://127.0.0.1:1", "HTTP://x", "", "é"] {
            client(url).build().unwrap();
        }
    }
}
