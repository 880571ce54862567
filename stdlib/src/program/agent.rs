//! The agent, as a step's program reaches it: HTTP/1.1 over a unix socket, one connection for each request.

use std::{
    io::{self, BufRead as _, BufReader, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::PathBuf,
};

use model::protocol::step::InvocationConfiguration;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value as Json;

/// The longest head of an answer.
const HEAD_BYTES_MAX: u64 = 64 * 1024;
/// The longest answer that is no archive.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;
/// Bytes that are sent at once of a body whose length is not known.
const CHUNK_BYTES: usize = 64 * 1024;

/// Why the agent did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum AgentError {
    /// It cannot be reached.
    #[error("the agent does not answer")]
    Unreachable(#[source] io::Error),
    /// It says no.
    #[error("{0}")]
    Refused(String),
    /// It answers what it should not.
    #[error("the agent's answer is not understood: {0}")]
    Answer(&'static str),
}

/// The agent.
#[derive(Debug)]
pub(super) struct Agent {
    socket: PathBuf,
    secret: String,
}

/// What is sent.
enum Body<'a> {
    Empty,
    Json(Vec<u8>),
    Archive(&'a mut dyn FnMut(&mut dyn Write) -> io::Result<()>),
}

impl Agent {
    /// As the invocation says.
    pub(super) fn new(configuration: &InvocationConfiguration) -> Self {
        Self { socket: PathBuf::from(&configuration.ipc), secret: configuration.endpoints.secret.clone() }
    }

    /// What is at a path.
    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, AgentError> {
        read_json(self.ask("GET", path, Body::Empty)?)
    }

    /// The archive at a path.
    pub(super) fn archive(&self, path: &str) -> Result<impl Read + Send + use<>, AgentError> {
        self.ask("GET", path, Body::Empty)
    }

    /// Sends what somebody answers.
    pub(super) fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, AgentError> {
        read_json(self.send(path, body)?)
    }

    /// Sends what nobody has to answer.
    pub(super) fn tell(&self, path: &str, body: &impl Serialize) -> Result<(), AgentError> {
        self.send(path, body).map(drop)
    }

    fn send(&self, path: &str, body: &impl Serialize) -> Result<Answer, AgentError> {
        let body = serde_json::to_vec(body).map_err(|error| AgentError::Unreachable(error.into()))?;
        self.ask("POST", path, Body::Json(body))
    }

    /// Sends an archive as it is written. If the writer fails, the agent has nothing of it.
    pub(super) fn put_archive(&self, path: &str, write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>) -> Result<(), AgentError> {
        self.ask("PUT", path, Body::Archive(write)).map(drop)
    }

    fn ask(&self, method: &str, path: &str, body: Body<'_>) -> Result<Answer, AgentError> {
        let stream = UnixStream::connect(&self.socket).map_err(AgentError::Unreachable)?;
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: agent\r\nauthorization: Bearer {}\r\nconnection: close\r\n", self.secret);
        let mut sent = Ok(());
        match body {
            Body::Empty => {
                head.push_str("\r\n");
                (&stream).write_all(head.as_bytes()).map_err(AgentError::Unreachable)?;
            }
            Body::Json(bytes) => {
                head.push_str(&format_length(bytes.len()));
                sent = (&stream).write_all(head.as_bytes()).and_then(|()| (&stream).write_all(&bytes));
            }
            Body::Archive(write) => {
                head.push_str("content-type: application/x-tar\r\ntransfer-encoding: chunked\r\n\r\n");
                sent = (&stream).write_all(head.as_bytes()).and_then(|()| {
                    let mut chunks = Chunks { stream: &stream, buffer: Vec::with_capacity(CHUNK_BYTES) };
                    write(&mut chunks)?;
                    chunks.end()
                });
            }
        }
        if sent.is_err() {
            // The agent would wait for the rest of a body that its writer has given up. It may be gone already.
            let _gone = stream.shutdown(Shutdown::Write);
        }
        match (answer(stream), sent) {
            // The agent may answer before it has read everything, and listen no more.
            (Err(AgentError::Refused(why)), _) => Err(AgentError::Refused(why)),
            (_, Err(error)) => Err(AgentError::Unreachable(error)),
            (answer, Ok(())) => answer,
        }
    }
}

fn format_length(length: usize) -> String {
    format!("content-type: application/json\r\ncontent-length: {length}\r\n\r\n")
}

/// A body in chunks (RFC 9112, section 7.1).
struct Chunks<'a> {
    stream: &'a UnixStream,
    buffer: Vec<u8>,
}

impl Chunks<'_> {
    fn end(mut self) -> io::Result<()> {
        self.flush()?;
        self.stream.write_all(b"0\r\n\r\n")
    }
}

impl Write for Chunks<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(()); // An empty chunk would be the end.
        }
        self.stream.write_all(format!("{:x}\r\n", self.buffer.len()).as_bytes())?;
        self.buffer.extend_from_slice(b"\r\n");
        self.stream.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

/// The body of an answer.
type Answer = io::Take<BufReader<UnixStream>>;

fn answer(stream: UnixStream) -> Result<Answer, AgentError> {
    let mut head = BufReader::new(stream).take(HEAD_BYTES_MAX);
    let mut line = String::new();
    head.read_line(&mut line).map_err(AgentError::Unreachable)?;
    if line.is_empty() {
        return Err(AgentError::Unreachable(io::ErrorKind::UnexpectedEof.into()));
    }
    let status: u16 =
        line.split(' ').nth(1).and_then(|status| status.trim_end().parse().ok()).ok_or(AgentError::Answer("it has no status"))?;
    let mut length = None;
    loop {
        line.clear();
        head.read_line(&mut line).map_err(AgentError::Unreachable)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.trim().parse().ok(),
            Some(_) => {}
            None if line == "\r\n" => break,
            None => return Err(AgentError::Answer("its head does not end")),
        }
    }
    // An answer without a body need not say its length.
    let length = length.unwrap_or(0);
    let mut body = head.into_inner().take(length);
    if (200..300).contains(&status) {
        return Ok(body);
    }
    body.set_limit(length.min(ANSWER_BYTES_MAX));
    let problem: Json = serde_json::from_reader(body).unwrap_or_default();
    let detail = problem.get("detail").and_then(Json::as_str);
    Err(AgentError::Refused(detail.map_or_else(|| format!("the agent answers with status {status}"), str::to_owned)))
}

fn read_json<T: DeserializeOwned>(mut answer: Answer) -> Result<T, AgentError> {
    answer.set_limit(answer.limit().min(ANSWER_BYTES_MAX));
    serde_json::from_reader(answer).map_err(|_| AgentError::Answer("it is not the JSON that was asked for"))
}

/// A name as one part of a path (RFC 3986, section 2.1).
pub(super) fn encoded(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push('%');
            text.extend([byte >> 4, byte & 15].iter().filter_map(|digit| char::from_digit(u32::from(*digit), 16)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixListener, thread};

    use super::*;

    /// What comes of a request that ends so, and what the agent heard.
    fn asked<T>(end: &str, answer: &str, ask: impl FnOnce(&Agent) -> T) -> (T, String) {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let agent = Agent { socket, secret: "s3cret".to_owned() };
        let answer = answer.to_owned();
        thread::scope(|scope| {
            let heard = scope.spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut heard = String::new();
                let mut buffer = [0; 4096];
                while !heard.ends_with(end) {
                    let count = stream.read(&mut buffer).unwrap();
                    heard.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
                }
                stream.write_all(answer.as_bytes()).unwrap();
                heard
            });
            (ask(&agent), heard.join().unwrap())
        })
    }

    #[test]
    fn a_request_has_the_secret_and_its_answer_is_read() {
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{\"run\":\"r_1\"}";
        let (answered, heard) = asked("}", answer, |agent| agent.post::<Json>("/v1/runs", &serde_json::json!({"a": 1})));
        assert_eq!(answered.unwrap()["run"], "r_1");
        assert!(heard.starts_with("POST /v1/runs HTTP/1.1\r\n") && heard.contains("authorization: Bearer s3cret\r\n"), "{heard}");
        assert!(heard.ends_with("content-length: 7\r\n\r\n{\"a\":1}"), "{heard}");
    }

    #[test]
    fn a_problem_is_told_by_its_detail() {
        let answer = "HTTP/1.1 404 Not Found\r\ncontent-length: 33\r\n\r\n{\"detail\":\"there is no artifact\"}";
        let (answered, _) = asked("\r\n\r\n", answer, |agent| agent.archive("/v1/artifacts/x").map(drop));
        assert_eq!(answered.unwrap_err().to_string(), "there is no artifact");
        let (answered, _) = asked("\r\n\r\n", "HTTP/1.1 500 Oh\r\n\r\n", |agent| agent.get::<Json>("/v1/runs/x"));
        assert_eq!(answered.unwrap_err().to_string(), "the agent answers with status 500");
        let (answered, _) = asked("\r\n\r\n", "nonsense", |agent| agent.get::<Json>("/v1/runs/x"));
        assert!(matches!(answered, Err(AgentError::Answer(_))));
    }

    #[test]
    fn an_archive_is_sent_in_chunks() {
        let mut write = |output: &mut dyn Write| output.write_all(b"abc");
        let (answered, heard) =
            asked("\r\n0\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n", |agent| agent.put_archive("/v1/artifacts/x", &mut write));
        answered.unwrap();
        assert!(heard.ends_with("chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"), "{heard}");
    }

    #[test]
    fn an_archive_that_is_given_up_is_not_waited_for() {
        let mut write = |output: &mut dyn Write| {
            output.write_all(b"abc")?;
            Err(io::ErrorKind::Interrupted.into())
        };
        let (sent, heard) = asked("chunked\r\n\r\n", "", |agent| agent.put_archive("/v1/artifacts/x", &mut write));
        assert!(matches!(sent, Err(AgentError::Unreachable(error)) if error.kind() == io::ErrorKind::Interrupted));
        assert!(!heard.ends_with("0\r\n\r\n"), "{heard}");
    }

    #[test]
    fn a_name_is_one_part_of_a_path() {
        assert_eq!(encoded("target/app x-1.deb"), "target%2fapp%20x-1.deb");
    }
}
