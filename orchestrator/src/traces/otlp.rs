//! OTLP over HTTP, in the protocol's JSON form (<https://opentelemetry.io/docs/specs/otlp/#otlphttp>).

use std::{fmt, io, str::FromStr, sync::mpsc, thread, time::Duration};

use serde_json::{Value, json};
use tokio::sync::oneshot;
use ureq::{
    Agent, Error,
    http::{HeaderName, HeaderValue, Uri},
    tls::{RootCerts, TlsConfig},
};

use super::{
    Sending,
    story::{Attribute, Span, Status},
};

/// Where traces are posted below an endpoint.
const PATH: &str = "/v1/traces";
/// How long one request may take.
const SEND_DEADLINE: Duration = Duration::from_secs(10);

/// Where spans are sent.
#[derive(Clone)]
pub struct Endpoint {
    uri: Uri,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// Why a text is no endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEndpoint {
    /// It is no address.
    #[error("it is no http:// or https:// address")]
    Address,
    /// A line of the headers.
    #[error("line {0} of the headers is no `name: value`")]
    Header(usize),
}

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let whole = format!("{}{PATH}", text.trim_end_matches('/'));
        let uri: Uri = whole.parse().map_err(|_| InvalidEndpoint::Address)?;
        let is_http = matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty());
        if is_http && uri.query().is_none() { Ok(Self { uri, headers: Vec::new() }) } else { Err(InvalidEndpoint::Address) }
    }
}

impl Endpoint {
    /// The same, to which these headers are sent: lines of `name: value`.
    pub fn with_headers(self, text: &str) -> Result<Self, InvalidEndpoint> {
        let header = |(number, line): (usize, &str)| {
            let wrong = || InvalidEndpoint::Header(number + 1);
            let (name, value) = line.split_once(':').ok_or_else(wrong)?;
            let mut value: HeaderValue = value.trim().parse().map_err(|_| wrong())?;
            value.set_sensitive(true);
            Ok((name.trim().parse().map_err(|_| wrong())?, value))
        };
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        Ok(Self { headers: lines.map(header).collect::<Result<_, _>>()?, ..self })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without a user and a password, which an address may hold.
        let (host, port) = (self.uri.host().unwrap_or_default(), self.uri.port_u16().map(|port| format!(":{port}")));
        write!(f, "{}://{host}{}{}", self.uri.scheme_str().unwrap_or_default(), port.unwrap_or_default(), self.uri.path())
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why spans were not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error("the endpoint is not reached")]
    Unavailable(#[source] Box<Error>),
    #[error("the endpoint is busy: it answers {status}")]
    Busy { status: u16 },
    #[error("the endpoint answers {status}")]
    Refused { status: u16 },
    #[error("there is no thread to send them")]
    NoThread(#[source] io::Error),
}

/// Sends spans. Clones share connections.
#[derive(Debug, Clone)]
pub(super) struct Sender {
    agent: Agent,
    endpoint: Endpoint,
}

impl Sender {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        let config = Agent::config_builder().tls_config(tls).timeout_global(Some(SEND_DEADLINE)).http_status_as_error(false);
        let config = config.max_redirects(0).proxy(None).user_agent("otto").build();
        Self { agent: config.into(), endpoint }
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Sends these, and gives them back with what came of it. The thread is nobody's: one that hangs must not hold up the end of the process.
    pub(super) fn send(&self, spans: Vec<Span>) -> Sending {
        let (done, sending) = oneshot::channel();
        let (given, taken) = mpsc::sync_channel::<(Vec<Span>, oneshot::Sender<_>)>(1);
        let sender = self.clone();
        let thread = thread::Builder::new().name("spans".to_owned()).spawn(move || {
            let Ok((spans, done)) = taken.recv() else { return };
            let sent = sender.post(&spans);
            let _nobody_waits = done.send((spans, sent));
        });
        let refused = thread.err().map(|error| Err(SendError::NoThread(error)));
        match refused {
            Some(refused) => {
                let _is_heard = done.send((spans, refused));
            }
            // It takes what it is given, and nothing else.
            None => given.send((spans, done)).unwrap_or_default(),
        }
        sending
    }

    fn post(&self, spans: &[Span]) -> Result<(), SendError> {
        let headers = self.endpoint.headers.iter();
        let request = headers.fold(self.agent.post(self.endpoint.uri.clone()), |request, (name, value)| request.header(name, value));
        let body = serde_json::to_vec(&document(spans)).expect("it has text keys only");
        let answer = request.content_type("application/json").send(body.as_slice());
        // What an endpoint answers beside its status is not read: a part that it rejects is its own affair.
        let status = answer.map_err(|error| SendError::Unavailable(Box::new(error)))?.status();
        match status.as_u16() {
            200..=299 => Ok(()),
            // As the protocol has it: these may succeed later, all others will not.
            status @ (429 | 502..=504) => Err(SendError::Busy { status }),
            status => Err(SendError::Refused { status }),
        }
    }
}

/// An `ExportTraceServiceRequest`.
fn document(spans: &[Span]) -> Value {
    let resource = json!({ "attributes": [
        attribute("service.name", &Attribute::Text("otto".to_owned())),
        attribute("service.version", &Attribute::Text(env!("CARGO_PKG_VERSION").to_owned())),
    ] });
    let spans: Vec<Value> = spans.iter().map(span).collect();
    json!({ "resourceSpans": [{ "resource": resource, "scopeSpans": [{ "scope": { "name": "otto" }, "spans": spans }] }] })
}

fn span(span: &Span) -> Value {
    // Nanoseconds as text: JSON's numbers need not hold 64 bits.
    let nanoseconds = |ms: u64| u128::from(ms).saturating_mul(1_000_000).to_string();
    let attributes: Vec<Value> = span.attributes.iter().map(|(name, value)| attribute(name, value)).collect();
    let status = match &span.status {
        Status::Fine => json!({ "code": 1 }),
        Status::Error(message) => json!({ "code": 2, "message": message }),
    };
    let mut value = json!({
        "traceId": span.trace.to_string(),
        "spanId": span.id.to_string(),
        "name": span.name,
        "kind": 1,
        "startTimeUnixNano": nanoseconds(span.start.0),
        "endTimeUnixNano": nanoseconds(span.end.0),
        "attributes": attributes,
        "status": status,
    });
    if let Some(parent) = span.parent {
        value["parentSpanId"] = Value::String(parent.to_string());
    }
    value
}

fn attribute(name: &str, value: &Attribute) -> Value {
    let value = match value {
        Attribute::Text(text) => json!({ "stringValue": text }),
        Attribute::Number(number) => json!({ "intValue": number.to_string() }),
    };
    json!({ "key": name, "value": value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_an_address_and_its_secrets_are_not_shown() {
        for (text, shown) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("https://ann:pw@otel.test/base/", "https://otel.test/base/v1/traces"),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            let endpoint = endpoint.with_headers("authorization: Bearer s3cret\n\nx-scope: a\n").unwrap();
            assert_eq!((endpoint.to_string().as_str(), format!("{endpoint:?}").as_str()), (shown, shown));
            assert_eq!(endpoint.headers.len(), 2);
        }
        for wrong in ["", "otel.test:4318", "ftp://otel.test", "http://", "http://a/?x=y"] {
            assert_eq!(wrong.parse::<Endpoint>().unwrap_err(), InvalidEndpoint::Address, "{wrong}");
        }
        let endpoint: Endpoint = "http://a".parse().unwrap();
        assert_eq!(endpoint.with_headers("a: b\nnone\n").unwrap_err(), InvalidEndpoint::Header(2));
    }
}
