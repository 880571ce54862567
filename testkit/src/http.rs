//! Clients of HTTP.

/// A client of a server on loopback. It answers whatever the server does, also that it is elsewhere.
pub fn http_client() -> reqwest::Client {
    service::web::client("").build().expect("a client without TLS can be built")
}

/// What is at `url`.
pub async fn http_get(url: impl reqwest::IntoUrl) -> reqwest::Result<reqwest::Response> {
    http_client().get(url).send().await
}
