//! The agent's side of the step protocol, which [`model::protocol::step`] describes: a call of a step's program is given its invocation
//! file, and a socket at which it is heard while it runs.
//!
//! ```text
//! <work directory>/call-<step>-<try>/invocation.json   0600, with the secret of this call
//!                                   /socket            answered by `serve`, as long as the program runs
//! ```
//!
//! **Invariants:** nobody is answered without the call's own secret; what a program sends is bounded, and never in memory as a whole but
//! where the bound is small; a path that a program can change is not followed.

mod body;
mod invocation;
mod problem;
mod routes;
mod server;

pub(super) use self::invocation::cache_folder;
use std::{
    convert::Infallible,
    fs::{DirBuilder, OpenOptions},
    io::{self, Write as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{
            ffi::OsStrExt as _,
            fs::{DirBuilderExt as _, OpenOptionsExt as _},
        },
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use model::{plan::Step, protocol::agent::Assignment};
use nix::{
    fcntl::{OFlag, open},
    sys::stat::Mode,
    unistd::{UnlinkatFlags, unlinkat},
};
use tokio::{net::UnixListener, sync::mpsc};

use self::{invocation::Secret, server::Desk};
use super::{
    Means,
    gathered::Gathered,
    library::{Library, LibraryError},
    steps::Origin,
};

/// The longest path of a unix socket, in bytes (`man 7 unix`: 108 with the zero byte at its end).
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// What a step says that it is doing, and nobody has written down yet. It waits when there is more.
const NOTES_MAX: usize = 16;
/// The subcommand by which the agent's own binary runs a standard step.
const SUBCOMMAND: &str = "step-exec";

/// Why a step's program is not called.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// The assignment does not say where the library lies.
    #[error("the archive of the step library `{0}` was not sent along")]
    NoLibrary(String),
    /// The library is not to be had.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// The program cannot be told something.
    #[error("cannot tell the step its argument `{name}`: it is {what}")]
    Argument {
        /// The parameter or the key of the configuration.
        name: String,
        /// What it is.
        what: &'static str,
    },
    /// The system's limit.
    #[error("the path of the step's socket, {}, has more than {SOCKET_PATH_BYTES_MAX} bytes: give the agent a data folder with a shorter path", .0.display())]
    SocketPath(PathBuf),
    /// The agent's disk does not take it.
    #[error("cannot prepare the call of the step")]
    Disk(#[source] io::Error),
    /// The system has no random numbers.
    #[error("cannot make a secret for the step")]
    Random(#[source] getrandom::Error),
}

/// One call of a step's program.
#[derive(Debug)]
pub(super) struct Call<'a> {
    /// Its folder, wherever a step has moved that.
    folder: OwnedFd,
    program: PathBuf,
    arguments: Vec<String>,
    listener: UnixListener,
    desk: Desk<'a>,
    /// Stays unpacked as long as its program runs.
    _library: Option<Arc<Library>>,
}

impl<'a> Call<'a> {
    /// Prepares everything but the process. The receiver hears what the step says that it is doing.
    pub(super) async fn open(
        step: &Step,
        origin: Origin<'_>,
        (number, attempt): (u32, u32),
        assignment: &'a Assignment,
        means: &Means<'a>,
        gathered: &Arc<Mutex<Gathered>>,
    ) -> Result<(Self, mpsc::Receiver<String>), CallError> {
        let blobs = means.tools.blobs.with_token(&assignment.depot_token);
        let library = match origin {
            Origin::Standard => None,
            Origin::Library(name) => {
                let digest = assignment.libraries.get(name).ok_or_else(|| CallError::NoLibrary(name.to_owned()))?;
                Some(means.tools.libraries.get(digest, &blobs).await?)
            }
        };
        let folder = means.entry.workspace().call(number, attempt);
        let socket = folder.join("socket");
        if socket.as_os_str().as_bytes().len() > SOCKET_PATH_BYTES_MAX {
            return Err(CallError::SocketPath(socket));
        }
        let secret = Secret::new().map_err(CallError::Random)?;
        let cache = library.as_ref().filter(|library| library.manifest.cache).map(|_| {
            let folder = invocation::cache_folder(assignment, step);
            means.tools.step_caches.join(folder)
        });
        let manifest = library.as_ref().map(|library| &library.manifest);
        let uuid = invocation::uuid().map_err(CallError::Random)?;
        let invocation = invocation::invocation(
            step,
            manifest,
            assignment,
            invocation::Place { uuid, cache: cache.as_deref(), socket: &socket, secret: &secret },
        )?;
        let root = means.entry.workspace().reach_root();
        let name = folder.file_name().map(PathBuf::from).unwrap_or_default();
        let reached = root.clone();
        let text = serde_json::to_vec_pretty(&invocation).expect("an invocation has text keys only");
        let preparing = move || {
            if let Some(cache) = cache {
                DirBuilder::new().recursive(true).mode(0o700).create(cache)?;
            }
            reached.within(|root| prepare(&root.join(name), &text))?
        };
        let (held, listener) = tokio::task::spawn_blocking(preparing)
            .await
            .map_err(|error| CallError::Disk(io::Error::other(error)))?
            .map_err(CallError::Disk)?;
        let listener = UnixListener::from_std(listener).map_err(CallError::Disk)?;
        let file = folder.join("invocation.json").to_string_lossy().into_owned();
        let (program, arguments) = match &library {
            Some(library) => (library.program.clone(), vec![file]),
            None => (means.tools.program.clone(), vec![SUBCOMMAND.to_owned(), step.symbol.clone(), file]),
        };
        let (notes, hears) = mpsc::channel(NOTES_MAX);
        let desk = Desk { secret, assignment, entry: means.entry, blobs, gathered: gathered.clone(), notes, asks: means.asks.clone() };
        Ok((Self { folder: held, program, arguments, listener, desk, _library: library }, hears))
    }

    /// The program and its arguments.
    pub(super) fn command(&self) -> (PathBuf, Vec<String>) {
        (self.program.clone(), self.arguments.clone())
    }

    /// Answers the program. To be dropped when it has ended.
    pub(super) async fn serve(&self) -> Infallible {
        server::serve(&self.listener, &self.desk).await
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        // The rest goes with the work directory; the socket and the secret are of no use from now on.
        for name in ["socket", "invocation.json"] {
            let _removed_by_the_step = unlinkat(&self.folder, name, UnlinkatFlags::NoRemoveDir);
        }
    }
}

/// The folder of a call, and its socket.
type Prepared = (OwnedFd, std::os::unix::net::UnixListener);

/// Makes the folder of a call with its file and its socket. A process that an earlier step left may be watching: the folder is held by its
/// descriptor, and is new.
fn prepare(folder: &Path, invocation: &[u8]) -> io::Result<Prepared> {
    DirBuilder::new().mode(0o700).create(folder)?;
    let held: OwnedFd = open(folder, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
    let within = PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd()));
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(within.join("invocation.json"))?.write_all(invocation)?;
    let listener = std::os::unix::net::UnixListener::bind(within.join("socket"))?;
    listener.set_nonblocking(true)?;
    Ok((held, listener))
}
