//! What nats-server says of itself on its monitoring address: one GET over loopback, for which no HTTP client is needed.

use std::{io, net::SocketAddr, time::Duration};

use serde::{Deserialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// How long the server may take to answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(3);
/// The most bytes of an answer that are read; it has a few kilobytes.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;

/// The status of an answer about an account that the server has not loaded.
const NOT_LOADED: &str = "400";

/// The part of `/varz` that matters here.
#[derive(Debug, Deserialize)]
pub(super) struct Varz {
    pub(super) server_id: String,
    pub(super) version: String,
    #[serde(default)]
    pub(super) jetstream: VarzJetStream,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct VarzJetStream {
    #[serde(default)]
    pub(super) config: VarzJetStreamConfig,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct VarzJetStreamConfig {
    /// Left out where it is false.
    #[serde(default)]
    pub(super) sync_always: bool,
}

/// The part of `/healthz` that matters here.
#[derive(Debug, Default, Deserialize)]
struct Healthz {
    error: Option<String>,
}

/// The part of `/accountz?acc=…` that matters here.
#[derive(Debug, Deserialize)]
struct Accountz {
    account_detail: AccountDetail,
}

#[derive(Debug, Deserialize)]
struct AccountDetail {
    #[serde(default)]
    jwt: String,
}

pub(super) async fn varz(monitor: SocketAddr) -> io::Result<Varz> {
    read(monitor, "/varz").await
}

/// What the server takes for the operator's word on an account, by the account's public key; `None` if nobody has asked it for the account yet, as on
/// a server of a cluster to which none of the account's users is connected.
pub(super) async fn account_jwt(monitor: SocketAddr, account: &str) -> io::Result<Option<String>> {
    let answer = timeout(ANSWER_DEADLINE, get(monitor, &format!("/accountz?acc={account}"))).await??;
    if status_of(&answer) == NOT_LOADED {
        return Ok(None);
    }
    let accountz: Accountz = read_answer(&answer)?;
    Ok(Some(accountz.account_detail.jwt))
}

/// What the server says is wrong with itself, if anything: of a stream that a full disk has stopped it says so until it is started again.
pub(super) async fn complaint(monitor: SocketAddr) -> io::Result<Option<String>> {
    let answer = timeout(ANSWER_DEADLINE, get(monitor, "/healthz")).await??;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| io::Error::other("the answer is no HTTP"))?;
    if head.split_whitespace().nth(1) == Some("200") {
        return Ok(None);
    }
    let complaint: Healthz = serde_json::from_str(body).unwrap_or_default();
    Ok(Some(complaint.error.unwrap_or_else(|| body.trim().to_owned())))
}

async fn read<T: DeserializeOwned>(monitor: SocketAddr, path: &str) -> io::Result<T> {
    read_answer(&timeout(ANSWER_DEADLINE, get(monitor, path)).await??)
}

fn read_answer<T: DeserializeOwned>(answer: &str) -> io::Result<T> {
    let (_, body) = answer.split_once("\r\n\r\n").ok_or_else(|| io::Error::other("the answer is no HTTP"))?;
    match status_of(answer) {
        "200" => Ok(serde_json::from_str(body)?),
        status => Err(io::Error::other(format!("the answer has status {status}"))),
    }
}

fn status_of(answer: &str) -> &str {
    answer.split_whitespace().nth(1).unwrap_or("none")
}

/// With HTTP/1.0 the server sends the body in one piece and closes the connection after it.
async fn get(monitor: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(monitor).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {monitor}\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).await?;
    Ok(answer)
}
