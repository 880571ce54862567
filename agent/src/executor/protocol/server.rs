//! Hears the program of one call, as long as it runs. No task of its own: what is being answered ends with the call.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use blob::Blobs;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use model::protocol::agent::Assignment;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::mpsc,
    time::sleep,
};
use tracing::{debug, warn};

use super::{
    super::{Ask, gathered::Gathered},
    invocation::Secret,
    routes,
};
use crate::spool::Entry;

/// Connections that are answered at once. A step that opens more waits for its own.
const CONNECTIONS_MAX: usize = 16;
/// The longest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// The pause after the system did not give a connection: it has no more files to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a call may reach: its own attempt, and nothing else.
#[derive(Debug)]
pub(super) struct Desk<'a> {
    pub(super) secret: Secret,
    pub(super) assignment: &'a Assignment,
    pub(super) entry: &'a Entry,
    /// With the attempt's rights.
    pub(super) blobs: Blobs,
    pub(super) gathered: Arc<Mutex<Gathered>>,
    pub(super) notes: mpsc::Sender<String>,
    pub(super) asks: mpsc::Sender<Ask>,
}

/// Answers whoever connects.
pub(super) async fn serve(listener: &UnixListener, desk: &Desk<'_>) -> Infallible {
    let mut connections = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => connections.push(answer(stream, desk)),
                Err(error) => {
                    warn!(%error, "a step's connection was not taken");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(()) = connections.next() => {}
        }
    }
}

async fn answer(stream: UnixStream, desk: &Desk<'_>) {
    let service = service_fn(|request| async { Ok::<_, Infallible>(routes::answer(request, desk).await) });
    let served = http1::Builder::new().max_buf_size(HEAD_BYTES_MAX).serve_connection(TokioIo::new(stream), service).await;
    if let Err(error) = served {
        debug!(%error, "a step's connection ended");
    }
}
