//! What an agent and the processes that hold its stages say to each other: frames of JSON over a pair of sockets, with descriptors.
//!
//! A frame is its length in four bytes, the lowest first, and so many bytes of JSON; its descriptors come with the first byte.

use std::{
    io::{self, IoSlice, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Launch, isolation::Level, landlock::Rules, overlay::Overlay, sys, view::View};

/// Bytes of the length before a frame.
pub(super) const HEADER_BYTES: usize = 4;
/// The longest frame: a script of 64 KiB and an environment as large as the kernel takes (`man 2 execve`), in JSON.
const FRAME_BYTES_MAX: usize = 32 * 1024 * 1024;

/// What the agent wants of the nursery: an init, which is to be so. With it comes the socket of the init.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Birth {
    pub(super) level: Level,
    /// The user of its processes, if that is another than the init's.
    pub(super) user: Option<u32>,
    /// With namespaces: the files that its processes see.
    pub(super) view: View,
    /// The folders of its control groups, which are removed where the agent cannot.
    pub(super) groups: Vec<PathBuf>,
}

/// The nursery's answer to a [`Birth`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Born {
    /// The init's process, as the agent sees it.
    Init { pid: i32 },
    /// There is none.
    Failed { reason: String },
}

/// What the agent wants of an init.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// The first: whom it is for. After this nothing can be changed any more.
    Begin(Box<Beginning>),
    /// Start a process; its standard output and error come along.
    Start { number: u32, launch: Launch },
    /// Send a signal to the group of a process that was started.
    Signal { number: u32, signal: i32 },
    /// Let the group of a process that was started come after what begins.
    Yield { number: u32 },
    /// End everything at this time, by [`crate::clock`], if another is not said before. The agent may stand still.
    LiveUntil { ms: u64 },
    /// End everything that was started.
    Kill,
    /// End everything, and say so.
    Clear,
}

/// What is known of an attempt only when it begins.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Beginning {
    /// The work directory, where it is a snapshot. It is answered with [`Word::Mounted`].
    pub(super) overlay: Option<Overlay>,
    /// Folders that its steps keep, which are hidden where a stage has files of its own.
    pub(super) kept: Vec<PathBuf>,
    /// The table of names that is seen as `/etc/hosts`; needs namespaces.
    pub(super) hosts: Option<PathBuf>,
    /// Bytes of data that one process may have, where no control group limits all of them.
    pub(super) data_bytes_max: Option<u64>,
    /// Processes that the user may have, where no control group limits them.
    pub(super) processes_max: Option<u64>,
    /// Where its processes may write, if landlock is to see to that.
    pub(super) rules: Option<Rules>,
}

/// What an init says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Word {
    /// The snapshot is mounted; with this comes the folder.
    Mounted,
    /// A process runs.
    Started { number: u32 },
    /// It could not be started, with the number of the system's error, if it has one.
    NotStarted { number: u32, code: Option<i32>, reason: String },
    /// It has ended, and so has everything it left, if no other runs.
    Ended { number: u32, status: i32 },
    /// The answer to [`Order::Clear`].
    Cleared,
    /// The attempt cannot be held as it should: nothing will be started.
    Failed { reason: String },
}

/// The bytes of a frame.
pub(super) fn frame(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; HEADER_BYTES];
    // A path that is no UTF-8 does not fit into JSON.
    serde_json::to_writer(&mut frame, message)?;
    let length = frame.len() - HEADER_BYTES;
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::other(format!("arguments and environment of {length} bytes are too many")));
    }
    let length = u32::try_from(length).map_err(io::Error::other)?;
    frame.splice(..HEADER_BYTES, length.to_le_bytes());
    Ok(frame)
}

/// Sends the beginning of a frame and all descriptors; says how much of it was taken.
pub(super) fn send_first(socket: BorrowedFd<'_>, frame: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let raw: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &[] } else { &rights[..] };
    Ok(sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(frame)], control, MsgFlags::MSG_NOSIGNAL, None)?)
}

/// Sends a message, waiting until it is taken.
pub(super) fn send(mut socket: &UnixStream, message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let frame = frame(message)?;
    let sent = send_first(socket.as_fd(), &frame, descriptors)?;
    socket.write_all(frame.get(sent..).unwrap_or_default())
}

/// Receives a message, waiting until it is there; `None` at the end.
pub(super) fn receive<T: DeserializeOwned>(mut socket: &UnixStream) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut header = [0; HEADER_BYTES];
    let (read, descriptors) = loop {
        match sys::receive(socket.as_fd(), &mut header) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => break result?,
        }
    };
    if read == 0 {
        return Ok(None);
    }
    socket.read_exact(header.get_mut(read..).unwrap_or_default())?;
    let mut body = vec![0; length(header)?];
    socket.read_exact(&mut body)?;
    Ok(Some((serde_json::from_slice(&body)?, descriptors)))
}

/// The length of the frame that a header announces.
pub(super) fn length(header: [u8; HEADER_BYTES]) -> io::Result<usize> {
    let length = usize::try_from(u32::from_le_bytes(header)).map_err(io::Error::other)?;
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::other(format!("a message of {length} bytes between agent and init")));
    }
    Ok(length)
}
