//! One `git http-backend`: what goes in, what comes out, and its end.

use std::{
    fs::File,
    io,
    path::Path,
    pin::Pin,
    process::Stdio,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use actix_web::{
    http::{
        StatusCode,
        header::{HeaderName, HeaderValue},
    },
    web::Bytes,
};
use futures_util::Stream;
use model::access::Role;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process_group, prlimit};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, ChildStdin, ChildStdout},
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::Asked;
use crate::git;

/// How long one request may take in all: the largest push over a slow line.
const SERVE_TIMEOUT: Duration = Duration::from_mins(30);
/// How long a piece of an answer may wait for the other side.
const READER_DEADLINE: Duration = Duration::from_mins(1);
/// How long git may take to end after its output has, and after it was killed.
const END_DEADLINE: Duration = Duration::from_secs(10);
/// Pieces of an answer that wait for the other side. What git says while it reads a push is less.
const PIECES_MAX: usize = 32;
/// Bytes that are read from git at once.
const PIECE_BYTES: usize = 64 * 1024;
/// The most bytes of the headers that git writes.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Why a request of git is not served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error("a token of the API is required, as the password: `otto token new NAME --role run` makes one")]
    NoToken,
    #[error("the token has the role {has}, and this asks for {needs}")]
    Forbidden { has: Role, needs: Role },
    #[error("there is no such repository")]
    NoRepository,
    #[error("the body is packed in a way that git does not know")]
    Encoding,
    #[error("the body has over {bytes_max} bytes: `fetch_mib` of the project's `source` says how many a push may have")]
    TooLarge { bytes_max: u64 },
    #[error("the next piece of the body did not arrive in time")]
    Slow,
    #[error("the connection was lost")]
    Cut,
    #[error("too many are served: try again")]
    Busy,
    #[error("the forge ends")]
    Cancelled,
    #[error("git cannot be started")]
    Git(#[source] io::Error),
    #[error("git gave no answer")]
    NoAnswer,
}

/// What git is to do.
#[derive(Debug)]
pub(super) struct Wish<'a> {
    pub(super) asked: Asked,
    pub(super) repository: &'a Path,
    pub(super) caller: &'a str,
    /// Whether the body is packed with gzip.
    pub(super) is_packed: bool,
    pub(super) version: Option<&'a str>,
    pub(super) bytes_max: u64,
}

/// The process group of a git that has not ended. Dropped, it is killed.
#[derive(Debug, Clone)]
struct Group(Arc<Mutex<Option<Pid>>>);

impl Group {
    fn kill(&self) {
        // It is taken out once the process was waited for, so nobody else has the number by now.
        if let Some(pid) = self.0.lock().expect("no holder of this lock panics").take() {
            let killed = kill_process_group(pid, Signal::KILL);
            debug!(?pid, ?killed, "git was ended");
        }
    }

    fn has_ended(&self) {
        self.0.lock().expect("no holder of this lock panics").take();
    }
}

/// The side of the connection. Dropped, git ends.
#[derive(Debug)]
pub(super) struct Running {
    stdin: Option<ChildStdin>,
    head: Option<oneshot::Receiver<Head>>,
    pieces: mpsc::Receiver<Bytes>,
    group: Group,
}

type Head = (StatusCode, Vec<(HeaderName, HeaderValue)>);

/// The side of git.
#[derive(Debug)]
pub(super) struct Pump {
    child: Child,
    stdout: ChildStdout,
    /// What it says of errors.
    said: File,
    head: oneshot::Sender<Head>,
    pieces: mpsc::Sender<Bytes>,
    group: Group,
}

impl Running {
    pub(super) fn start(wish: &Wish<'_>) -> Result<(Self, Pump), ServeError> {
        let mut child = git::http_backend(wish.repository);
        let (method, tail) = if wish.asked.is_list { ("GET", "info/refs") } else { ("POST", wish.asked.service.name()) };
        let query = if wish.asked.is_list { format!("service={}", wish.asked.service.name()) } else { String::new() };
        let kind = if wish.asked.is_list { String::new() } else { format!("application/x-{}-request", wish.asked.service.name()) };
        child.env("PATH_TRANSLATED", wish.repository.join(tail)).env("PATH_INFO", format!("/{tail}")).env("GIT_HTTP_EXPORT_ALL", "1");
        child.env("REQUEST_METHOD", method).env("QUERY_STRING", query).env("CONTENT_TYPE", kind).env("REMOTE_USER", wish.caller);
        if wish.is_packed {
            child.env("HTTP_CONTENT_ENCODING", "gzip");
        }
        if let Some(version) = wish.version {
            child.env("GIT_PROTOCOL", version);
        }
        let stderr = tempfile::tempfile().map_err(ServeError::Git)?;
        let said = stderr.try_clone().map_err(ServeError::Git)?;
        child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr).process_group(0);
        let mut child = child.spawn().map_err(ServeError::Git)?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let group = Group(Arc::new(Mutex::new(pid)));
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().expect("it is piped"));
        let (head_sender, head) = oneshot::channel();
        let (sender, pieces) = mpsc::channel(PIECES_MAX);
        // From here on, whatever fails ends git.
        let running = Self { stdin, head: Some(head), pieces, group: group.clone() };
        // It writes nothing before it was given something; what it starts has the same limit.
        let most = getrlimit(Resource::Fsize).maximum.map_or(wish.bytes_max, |most| most.min(wish.bytes_max));
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        prlimit(pid, Resource::Fsize, limit).map_err(|error| ServeError::Git(error.into()))?;
        Ok((running, Pump { child, stdout, said, head: head_sender, pieces: sender, group }))
    }

    /// Whether git still reads.
    pub(super) async fn write(&mut self, piece: &[u8]) -> bool {
        match &mut self.stdin {
            Some(stdin) => stdin.write_all(piece).await.is_ok(),
            None => false,
        }
    }

    pub(super) fn end_of_input(&mut self) {
        self.stdin = None;
    }

    /// Status and headers of the answer.
    pub(super) async fn head(&mut self) -> Result<Head, ServeError> {
        let head = self.head.take().ok_or(ServeError::NoAnswer)?;
        head.await.map_err(|_| ServeError::NoAnswer)
    }

    /// The rest of the answer.
    pub(super) fn body(self) -> Body {
        Body(self)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.group.kill();
    }
}

/// The answer, piece by piece.
#[derive(Debug)]
pub(super) struct Body(Running);

impl Stream for Body {
    type Item = Result<Bytes, io::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.pieces.poll_recv(context).map(|piece| piece.map(Ok))
    }
}

impl Pump {
    /// Moves what git says to the connection until it has ended.
    pub(super) async fn run(self, cancelled: CancellationToken) {
        let Self { mut child, mut stdout, said, head, pieces, group } = self;
        let moved = tokio::select! {
            () = cancelled.cancelled() => Err("the forge ends"),
            moved = timeout(SERVE_TIMEOUT, pump(&mut stdout, head, &pieces)) => moved.unwrap_or(Err("it took too long")),
        };
        if let Err(why) = moved {
            debug!(why, "git is ended");
            group.kill();
        }
        drop(stdout);
        match timeout(END_DEADLINE, child.wait()).await {
            Ok(Ok(status)) if status.success() => {}
            Ok(status) => info!(?status, said = git::text_of(said), "git has not ended well"),
            Err(_) => {
                group.kill();
                warn!("git did not end by itself");
                // Killed, it ends at once.
                let _status = timeout(END_DEADLINE, child.wait()).await;
            }
        }
        group.has_ended();
        // The answer ends after git has: what was pushed is there when the pusher hears of it.
        drop(pieces);
    }
}

async fn pump(stdout: &mut ChildStdout, head: oneshot::Sender<Head>, pieces: &mpsc::Sender<Bytes>) -> Result<(), &'static str> {
    let mut buffer = Vec::new();
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
        let mut piece = [0; 1024];
        match stdout.read(&mut piece).await {
            Ok(count) if count > 0 && buffer.len() < HEAD_BYTES_MAX => buffer.extend_from_slice(piece.get(..count).unwrap_or_default()),
            Ok(_) | Err(_) => return Err("it wrote no headers"),
        }
    };
    let rest = buffer.split_off(end + 4);
    head.send(read_head(&buffer)).map_err(|_| "the other side is gone")?;
    let mut next = rest;
    loop {
        if !next.is_empty() {
            let sent = timeout(READER_DEADLINE, pieces.send(next.into())).await;
            sent.map_err(|_| "the other side does not read")?.map_err(|_| "the other side is gone")?;
        }
        next = vec![0; PIECE_BYTES];
        match stdout.read(&mut next).await {
            Ok(0) => return Ok(()),
            Ok(count) => next.truncate(count),
            Err(_) => return Err("its output cannot be read"),
        }
    }
}

/// What git's headers say; others than these are its own affair.
fn read_head(bytes: &[u8]) -> Head {
    let text = String::from_utf8_lossy(bytes);
    let (mut status, mut headers) = (StatusCode::OK, Vec::new());
    for (name, value) in text.lines().filter_map(|line| line.split_once(": ")) {
        match name.to_ascii_lowercase().as_str() {
            "status" => {
                let code = value.get(..3).and_then(|code| code.parse().ok()).and_then(|code| StatusCode::from_u16(code).ok());
                status = code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            }
            known @ ("content-type" | "cache-control" | "expires" | "pragma") => {
                if let (Ok(name), Ok(value)) = (known.parse::<HeaderName>(), HeaderValue::from_str(value)) {
                    headers.push((name, value));
                }
            }
            _ => {}
        }
    }
    (status, headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_git_says_only_some_headers_are_passed_on() {
        let head = "Status: 403 Forbidden\r\nContent-Type: text/plain\r\nSet-Cookie: x=1\r\nLocation: http://else.test\r\n\r\n";
        let (status, headers) = read_head(head.as_bytes());
        assert_eq!(status, StatusCode::FORBIDDEN);
        assert_eq!(headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["content-type"]);
        assert_eq!(read_head(b"Status: what\r\n\r\n").0, StatusCode::INTERNAL_SERVER_ERROR);
    }
}
