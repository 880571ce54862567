//! The depot, reached over HTTP: `PUT`, `GET` and `HEAD` of `/v1/blobs/<digest>`.
//!
//! Each of the three may be repeated without harm, so a lost connection is tried again here, a few times; what takes longer is the
//! caller's to repeat. Nothing is believed: what arrives is compared with its digest.

use std::{fmt, fs::File, path::Path, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use model::Digest;
use reqwest::{Method, Response, StatusCode, Url, header};
use serde::Deserialize;
use service::web;
use tokio::io::AsyncWriteExt as _;
use tokio_util::io::ReaderStream;

use crate::{
    BlobError, GET_BYTES_MAX, Removed,
    disk::{Copied, beside, blocking, failed, hash},
};

/// How long a connection may take to come about.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the depot may be silent within a request. It answers a `PUT` only after its fsync, which a busy disk delays.
pub const IDLE_TIMEOUT: Duration = Duration::from_mins(1);
/// How long one request may take in all: the largest blob over a slow network.
pub const REQUEST_TIMEOUT: Duration = Duration::from_mins(30);
/// How often a request is sent whose connection fails. With the pauses it bridges about a second: a restart of the depot.
pub const TRIES_MAX: u32 = 5;
/// The pause after the first failure; it doubles each time.
const PAUSE: Duration = Duration::from_millis(50);
/// The most bytes that are read of an answer that is an error.
const PROBLEM_BYTES_MAX: u64 = 64 * 1024;
/// Bytes of a file that are sent at once.
const SEND_BYTES: usize = 256 * 1024;

/// A connection to a depot, with the rights of one token. Clones share the connection.
#[derive(Clone)]
pub struct DepotClient {
    client: reqwest::Client,
    blobs: Url,
    token: String,
}

impl fmt::Debug for DepotClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DepotClient").field("blobs", &self.blobs.as_str()).finish_non_exhaustive()
    }
}

/// What the depot's problem documents (RFC 9457) say beside the status.
#[derive(Debug, Default, Deserialize)]
struct Problem {
    detail: Option<String>,
    actual: Option<Digest>,
    length: Option<u64>,
    limit: Option<u64>,
}

/// Why one try failed.
enum Failure {
    /// The connection failed: another try may succeed.
    Connection(String),
    /// Another try would fail alike.
    Answer(BlobError),
}

impl From<BlobError> for Failure {
    fn from(error: BlobError) -> Self {
        Self::Answer(error)
    }
}

impl From<reqwest::Error> for Failure {
    fn from(error: reqwest::Error) -> Self {
        // What was waited for long enough is not waited for again here.
        if error.is_timeout() { Self::Answer(BlobError::Unavailable(chain(&error))) } else { Self::Connection(chain(&error)) }
    }
}

impl DepotClient {
    /// The depot at `url`, such as `http://127.0.0.1:7481`, with the rights of `token`.
    pub fn new(url: &str, token: &str) -> Result<Self, BlobError> {
        let unusable = |why: String| BlobError::Unavailable(format!("`{url}` is no address of a depot: {why}"));
        let base = Url::parse(url).map_err(|error| unusable(error.to_string()))?;
        let blobs = base.join("/v1/blobs/").map_err(|error| unusable(error.to_string()))?;
        let client = web::client(url)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(IDLE_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .tcp_nodelay(true)
            .build()
            .map_err(|error| unusable(chain(&error)))?;
        Ok(Self { client, blobs, token: token.to_owned() })
    }

    /// The same connection, with the rights of another token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self.clone() }
    }

    /// Stores bytes; see [`crate::Blobs::put`].
    pub async fn put(&self, bytes: Bytes) -> Result<Digest, BlobError> {
        let digest = Digest::of(&bytes);
        tries(|| self.send(self.request(Method::PUT, &digest).body(bytes.clone()), &digest)).await?;
        Ok(digest)
    }

    /// Stores a file's bytes; see [`crate::Blobs::put_file`]. The file is read twice: the digest stands in the request's first line.
    pub async fn put_file(&self, path: &Path) -> Result<Digest, BlobError> {
        let owned = path.to_owned();
        let read = blocking(move || {
            let mut file = File::open(&owned).map_err(failed("open", &owned))?;
            hash((&mut file, &owned), |_| Ok(()))
        })
        .await?;
        tries(|| self.put_file_once(path, &read)).await?;
        Ok(read.digest)
    }

    /// Reads bytes; see [`crate::Blobs::get`].
    pub async fn get(&self, digest: &Digest) -> Result<Bytes, BlobError> {
        tries(|| self.get_once(digest)).await
    }

    /// Writes the bytes to a new file; see [`crate::Blobs::get_file`].
    pub async fn get_file(&self, digest: &Digest, path: &Path) -> Result<(), BlobError> {
        tries(|| self.get_file_once(digest, path)).await
    }

    /// Whether the bytes are there.
    pub async fn has(&self, digest: &Digest) -> Result<bool, BlobError> {
        match tries(|| self.send(self.request(Method::HEAD, digest), digest)).await {
            Ok(_) => Ok(true),
            Err(BlobError::Missing(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn put_file_once(&self, path: &Path, read: &Copied) -> Result<(), Failure> {
        let file = tokio::fs::File::open(path).await.map_err(failed("open", path))?;
        let body = reqwest::Body::wrap_stream(ReaderStream::with_capacity(file, SEND_BYTES));
        let request = self.request(Method::PUT, &read.digest).header(header::CONTENT_LENGTH, read.length).body(body);
        self.send(request, &read.digest).await?;
        Ok(())
    }

    async fn get_once(&self, digest: &Digest) -> Result<Bytes, Failure> {
        let response = self.send(self.request(Method::GET, digest), digest).await?;
        let too_large = |length| BlobError::TooLarge { digest: *digest, length, limit: GET_BYTES_MAX };
        let announced = response.content_length().unwrap_or(0);
        if announced > GET_BYTES_MAX {
            return Err(too_large(announced).into());
        }
        let mut bytes = BytesMut::with_capacity(usize::try_from(announced).expect("it is at most GET_BYTES_MAX"));
        let mut pieces = response.bytes_stream();
        while let Some(piece) = pieces.next().await.transpose()? {
            bytes.extend_from_slice(&piece);
            if bytes.len() as u64 > GET_BYTES_MAX {
                return Err(too_large(bytes.len() as u64).into());
            }
        }
        same(digest, Digest::of(&bytes))?;
        Ok(bytes.freeze())
    }

    async fn get_file_once(&self, digest: &Digest, path: &Path) -> Result<(), Failure> {
        let response = self.send(self.request(Method::GET, digest), digest).await?;
        let owned = path.to_owned();
        let (file, copy) = blocking(move || Ok(beside(&owned)?.into_parts())).await?;
        let mut file = tokio::fs::File::from_std(file);
        let mut hasher = Digest::builder();
        let mut pieces = response.bytes_stream();
        while let Some(piece) = pieces.next().await.transpose()? {
            hasher.update(&piece);
            file.write_all(&piece).await.map_err(failed("write", &copy))?;
        }
        file.flush().await.map_err(failed("write", &copy))?;
        same(digest, hasher.finish())?;
        copy.persist_noclobber(path).map_err(|error| failed("create", path)(error.error))?;
        Ok(())
    }

    /// Removes what nobody uses; see [`crate::Blobs::remove_unused`].
    pub async fn remove_unused(&self) -> Result<Removed, BlobError> {
        let url = self.blobs.join("/v1/unused").expect("it is a valid path");
        let failed = |error: reqwest::Error| BlobError::Unavailable(chain(&error));
        let response = self.client.delete(url).bearer_auth(&self.token).send().await.map_err(failed)?;
        if response.status().is_success() {
            return response.json().await.map_err(failed);
        }
        let status = response.status();
        Err(BlobError::Unavailable(problem(response).await.detail.unwrap_or_else(|| status.to_string())))
    }

    /// The bytes that are free on the depot's disk, as it says.
    pub async fn free_bytes(&self) -> Result<u64, BlobError> {
        let url = self.blobs.join("/health").expect("it is a valid path");
        let answered = async { self.client.get(url).send().await?.error_for_status()?.json::<Health>().await };
        let Health { free_bytes } = answered.await.map_err(|error| BlobError::Unavailable(chain(&error)))?;
        Ok(free_bytes)
    }

    fn request(&self, method: Method, digest: &Digest) -> reqwest::RequestBuilder {
        let url = self.blobs.join(&format!("./{digest}")).expect("a digest is a valid segment of a path");
        self.client.request(method, url).bearer_auth(&self.token)
    }

    /// Sends a request about a digest; what the depot says is wrong is an error.
    async fn send(&self, request: reqwest::RequestBuilder, digest: &Digest) -> Result<Response, Failure> {
        Ok(accepted(request.send().await?, digest).await?)
    }
}

/// Tries until the depot answers, at most [`TRIES_MAX`] times.
async fn tries<T, F: Future<Output = Result<T, Failure>>>(once: impl Fn() -> F) -> Result<T, BlobError> {
    let mut pause = PAUSE;
    for _ in 1..TRIES_MAX {
        match once().await {
            Ok(value) => return Ok(value),
            Err(Failure::Answer(error)) => return Err(error),
            Err(Failure::Connection(_)) => tokio::time::sleep(pause).await,
        }
        pause *= 2;
    }
    once().await.map_err(|failure| match failure {
        Failure::Answer(error) => error,
        Failure::Connection(why) => BlobError::Unavailable(why),
    })
}

fn same(expected: &Digest, actual: Digest) -> Result<(), BlobError> {
    if *expected == actual { Ok(()) } else { Err(BlobError::Damaged { expected: *expected, actual }) }
}

/// How the depot is.
#[derive(Deserialize)]
struct Health {
    free_bytes: u64,
}

/// The response if it is a success, else what the depot says is wrong.
async fn accepted(response: Response, digest: &Digest) -> Result<Response, BlobError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let problem = problem(response).await;
    let says = || problem.detail.clone().unwrap_or_else(|| status.to_string());
    Err(match (status, problem.actual) {
        (StatusCode::NOT_FOUND, _) => BlobError::Missing(*digest),
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => BlobError::Refused { digest: *digest, reason: says() },
        (StatusCode::UNPROCESSABLE_ENTITY, Some(actual)) => BlobError::Damaged { expected: *digest, actual },
        (StatusCode::PAYLOAD_TOO_LARGE, _) => {
            let (length, limit) = (problem.length.unwrap_or(0), problem.limit.unwrap_or(0));
            BlobError::TooLarge { digest: *digest, length, limit }
        }
        _ => BlobError::Unavailable(says()),
    })
}

/// The problem document of an answer, as far as it is one.
async fn problem(response: Response) -> Problem {
    let mut bytes = Vec::new();
    let mut pieces = response.bytes_stream();
    while let Some(Ok(piece)) = pieces.next().await {
        bytes.extend_from_slice(&piece);
        if bytes.len() as u64 > PROBLEM_BYTES_MAX {
            return Problem::default();
        }
    }
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// An error with all its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_depot_that_is_not_there_is_said() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let client = DepotClient::new(&format!("http://{address}"), "secret").unwrap();
        let error = client.get(&Digest::of(b"abc")).await.unwrap_err();
        assert!(matches!(&error, BlobError::Unavailable(why) if why.contains(&address.to_string())), "{error}");
    }

    #[test]
    fn the_token_is_not_shown() {
        let client = DepotClient::new("http://127.0.0.1:1", "secret").unwrap();
        assert!(!format!("{client:?}").contains("secret"));
        assert!(DepotClient::new("nowhere", "secret").is_err());
    }

    #[test]
    fn a_digest_is_one_segment_below_the_base() {
        let client = DepotClient::new("http://127.0.0.1:1/", "t").unwrap();
        let digest = Digest::of(b"abc");
        let request = client.request(Method::GET, &digest).build().unwrap();
        assert_eq!(request.url().as_str(), format!("http://127.0.0.1:1/v1/blobs/{digest}"));
    }
}
