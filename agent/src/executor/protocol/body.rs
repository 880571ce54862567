//! Bodies of requests and answers: small ones in memory, large ones through a file of the agent's that no step can reach.

use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::Stream as _;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::{fs::File, io::AsyncWriteExt as _, time::timeout};
use tokio_util::io::ReaderStream;

use super::problem::Problem;

/// The most of a refused request's body that is passed over.
const PASS_OVER_BYTES_MAX: usize = 1024 * 1024;
/// How long that may take.
const PASS_OVER_TIME: Duration = Duration::from_secs(1);

/// An answer's body.
#[derive(Debug)]
pub(super) enum Body {
    Whole(Full<Bytes>),
    File { stream: Box<ReaderStream<File>>, left: u64 },
}

impl Body {
    /// These bytes.
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self::Whole(Full::new(bytes))
    }

    /// A file's, from its beginning.
    pub(super) async fn file(file: std::fs::File) -> io::Result<Self> {
        let file = File::from_std(file);
        let left = file.metadata().await?.len();
        Ok(Self::File { stream: Box::new(ReaderStream::new(file)), left })
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut *self {
            Self::Whole(bytes) => Pin::new(bytes).poll_frame(context).map_err(|never| match never {}),
            Self::File { stream, left } => Pin::new(stream).poll_next(context).map_ok(|bytes| {
                *left = left.saturating_sub(bytes.len() as u64);
                Frame::data(bytes)
            }),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => bytes.size_hint(),
            Self::File { left, .. } => SizeHint::with_exact(*left),
        }
    }
}

/// A request's body, if it is not too long.
pub(super) async fn read(body: &mut Incoming, limit: usize) -> Result<Bytes, Problem> {
    let too_long = || Problem::TooLong { limit: limit as u64 };
    if body.size_hint().lower() > limit as u64 {
        return Err(too_long());
    }
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_long()),
        Err(error) => Err(Problem::Body(error.to_string())),
    }
}

/// Passes over what is left of a refused request's body, as far as that is little and comes at once: who still sends would not hear the
/// answer.
pub(super) async fn pass_over(body: &mut Incoming) {
    let mut passed = 0;
    let passing = async {
        while passed < PASS_OVER_BYTES_MAX
            && let Some(Ok(frame)) = body.frame().await
        {
            passed += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    let _too_slow = timeout(PASS_OVER_TIME, passing).await;
}

/// A file that is gone when this is.
#[derive(Debug)]
pub(super) struct Transfer(PathBuf);

impl Transfer {
    /// At `path`, where nothing is yet.
    pub(super) fn at(path: PathBuf) -> Self {
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a request's body to it.
    pub(super) async fn take(&self, body: &mut Incoming, limit: u64) -> Result<(), Problem> {
        if body.size_hint().lower() > limit {
            return Err(Problem::TooLong { limit });
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.0)?;
        let mut file = File::from_std(file);
        let mut taken = 0;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Problem::Body(error.to_string()))?;
            let Ok(data) = frame.into_data() else { continue };
            taken += data.len() as u64;
            if taken > limit {
                return Err(Problem::TooLong { limit });
            }
            file.write_all(&data).await?;
        }
        Ok(file.flush().await?)
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        let _never_made = std::fs::remove_file(&self.0);
    }
}
