//! `http`: sends a request. How often it is tried is every step's `retry`.

use std::{
    io::{self, Read as _, Write as _},
    time::Duration,
};

use model::protocol::step::VARIABLE_BYTES_MAX;
use ureq::{
    Agent as Client,
    http::{HeaderName, HeaderValue, Method, Request, Uri},
    tls::{RootCerts, TlsConfig},
};

use super::{
    End, ProgramError,
    agent::Agent,
    arguments::{ArgumentError, Arguments},
};

/// Bytes of an answer's body that are shown and can be captured: what a variable takes.
const BODY_BYTES_MAX: u64 = VARIABLE_BYTES_MAX as u64;
/// How often an address may point to another one.
const REDIRECTS_MAX: u32 = 10;
/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the whole request may take; a step's own `timeout` may be shorter.
const TIMEOUT: Duration = Duration::from_mins(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    /// It was not sent, or not answered.
    #[error("{method} {url} was not answered")]
    Request {
        /// The method.
        method: String,
        /// The address, without what stands before an `@` or after a `?`.
        url: String,
        /// What happened.
        #[source]
        source: Box<ureq::Error>,
    },
    /// The answer does not end.
    #[error("the answer cannot be read")]
    Body(#[source] io::Error),
}

pub(super) fn run(arguments: &Arguments, _agent: &Agent) -> Result<End, ProgramError> {
    let request = request(arguments)?;
    let expected = expected(arguments)?;
    let (method, url) = (request.method().to_string(), shown(request.uri()));
    let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
    let config = Client::config_builder().http_status_as_error(false).allow_non_standard_methods(true).max_redirects(REDIRECTS_MAX);
    let config = config.timeout_connect(Some(CONNECT_TIMEOUT)).timeout_global(Some(TIMEOUT)).tls_config(tls).build();
    let answer = Client::new_with_config(config).run(request);
    let mut response =
        answer.map_err(|source| HttpError::Request { method: method.clone(), url: url.clone(), source: Box::new(source) })?;
    let status = response.status().as_u16();
    let mut body = Vec::new();
    let mut reader = response.body_mut().as_reader();
    reader.by_ref().take(BODY_BYTES_MAX).read_to_end(&mut body).map_err(HttpError::Body)?;
    let is_over = reader.read(&mut [0]).map_err(HttpError::Body)? > 0;
    if body.last().is_some_and(|last| *last != b'\n') {
        body.push(b'\n');
    }
    io::stdout().write_all(&body).map_err(ProgramError::Output)?;
    let more = if is_over { format!(", and more than the {} KiB that are shown", BODY_BYTES_MAX / 1024) } else { String::new() };
    // Standard output is the body alone, so that `into` has it.
    writeln!(io::stderr(), "{method} {url}: {status}{more}").map_err(ProgramError::Output)?;
    let is_expected = if expected.is_empty() { (200..300).contains(&status) } else { expected.contains(&status) };
    Ok(if is_expected { End::Success } else { End::Failure })
}

fn request(arguments: &Arguments) -> Result<Request<Vec<u8>>, ArgumentError> {
    let wrong = |name, text: &str, what| ArgumentError::Value { name, text: text.to_owned(), what };
    let url = arguments.text("url")?;
    let uri: Uri = url.parse().map_err(|_| wrong("url", url, "is no address"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty) {
        return Err(wrong("url", url, "is no `http` or `https` address"));
    }
    let method = arguments.optional_text("method")?.unwrap_or("GET");
    let verb = Method::from_bytes(method.as_bytes()).map_err(|_| wrong("method", method, "is no method"))?;
    let mut request = Request::new(arguments.optional_text("body")?.unwrap_or_default().as_bytes().to_vec());
    *request.uri_mut() = uri;
    *request.method_mut() = verb;
    for text in arguments.texts("headers")? {
        let Some((name, value)) = text.split_once(':') else {
            return Err(wrong("headers", &text, "has no `:` between a name and a value"));
        };
        let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| wrong("headers", &text, "is no header field"))?;
        let value = HeaderValue::from_str(value.trim()).map_err(|_| wrong("headers", &text, "is no header field"))?;
        request.headers_mut().append(name, value);
    }
    Ok(request)
}

fn expected(arguments: &Arguments) -> Result<Vec<u16>, ArgumentError> {
    let status = |text: String| match text.parse() {
        Ok(status @ 100..=599) => Ok(status),
        Ok(_) | Err(_) => Err(ArgumentError::Value { name: "status", text, what: "is no status code" }),
    };
    arguments.texts("status")?.into_iter().map(status).collect()
}

/// An address as the log may have it: keys stand before an `@`, or after a `?`.
fn shown(uri: &Uri) -> String {
    let scheme = uri.scheme_str().unwrap_or_default();
    let host = uri.host().unwrap_or_default();
    let port = uri.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{scheme}://{host}{port}{}", uri.path())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader},
        net::TcpListener,
        thread,
    };

    use model::protocol::step::{Endpoints, InvocationConfiguration};
    use serde_json::json;

    use super::{super::arguments::tests::arguments, *};

    fn agent() -> Agent {
        let endpoints = Endpoints { secret: String::new(), paths: [].into() };
        let (pipeline, uuid, ipc) = (String::new(), String::new(), String::new());
        Agent::new(&InvocationConfiguration { pipeline, uuid, cache: None, ipc, endpoints, declared: [].into() })
    }

    /// How the step ends if it is answered so, and the head of its request.
    fn answered(answer: &str, more: &serde_json::Value) -> (Result<End, ProgramError>, Vec<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut all = json!({ "url": format!("http://{}/a?key=x", listener.local_addr().unwrap()) });
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        thread::scope(|scope| {
            let heard = scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
                let head = lines.by_ref().take_while(|line| !line.is_empty()).collect();
                stream.write_all(answer.as_bytes()).unwrap();
                head
            });
            (run(&arguments(&all), &agent()), heard.join().unwrap())
        })
    }

    #[test]
    fn the_status_decides() {
        let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi";
        let missing = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        let (end, head) = answered(ok, &json!({"method": "REPORT", "headers": ["x-a: b"]}));
        assert_eq!((end.unwrap(), head[0].as_str()), (End::Success, "REPORT /a?key=x HTTP/1.1"));
        assert!(head.contains(&"x-a: b".to_owned()), "{head:?}");
        assert_eq!(answered(missing, &json!({})).0.unwrap(), End::Failure);
        assert_eq!(answered(missing, &json!({"status": [404]})).0.unwrap(), End::Success);
        assert_eq!(answered(ok, &json!({"status": [404, 500]})).0.unwrap(), End::Failure);
    }

    #[test]
    fn what_is_no_request_is_not_sent() {
        for wrong in [
            json!({"url": "ftp://a/"}),
            json!({"url": "/etc/passwd"}),
            json!({"url": "http://a/", "method": "A B"}),
            json!({"url": "http://a/", "headers": ["x"]}),
            json!({"url": "http://a/", "headers": ["x: a\r\ny: b"]}),
            json!({"url": "http://a/", "status": ["ok"]}),
        ] {
            let arguments = arguments(&wrong);
            assert!(request(&arguments).is_err() || expected(&arguments).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_log_has_no_keys() {
        assert_eq!(shown(&"https://user:key@a.example:8443/b?token=x".parse().unwrap()), "https://a.example:8443/b");
    }
}
