//! The agent's end of an attempt's init.

use std::{
    collections::BTreeMap,
    io,
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::process::ExitStatusExt as _,
    },
    process::ExitStatus,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use nix::sys::signal::Signal;
use tokio::{
    io::Interest,
    net::UnixStream,
    sync::{Mutex, Notify},
    time::{Instant, timeout, timeout_at},
};

use super::{
    Launch, Outlets,
    wire::{self, HEADER_BYTES, Order, Word},
};

/// How long killed processes may take to be gone. One that waits for a disk that is gone, too, ends later, if ever.
const GONE_DEADLINE: Duration = Duration::from_secs(5);
/// Bytes that are read at once.
const READ_BYTES: usize = 4 * 1024;

/// An init, as its attempt's processes share it.
#[derive(Debug)]
pub(super) struct Link {
    socket: UnixStream,
    /// Held while a frame is sent.
    sending: Mutex<()>,
    /// Held by the one who reads for all.
    reading: Mutex<Vec<u8>>,
    heard: std::sync::Mutex<Heard>,
    news: Notify,
    next: AtomicU32,
}

/// What the init has said and nobody has taken.
#[derive(Debug, Default)]
struct Heard {
    started: BTreeMap<u32, io::Result<()>>,
    ended: BTreeMap<u32, i32>,
    cleared: bool,
    /// Why the stage cannot be isolated.
    failed: Option<String>,
    /// The init is gone.
    is_over: bool,
}

/// A process that an init has started.
#[derive(Debug)]
pub(crate) struct Running {
    link: Arc<Link>,
    number: u32,
    /// It was told to be killed, and is to be gone by then, whatever is heard of it meanwhile: an init that stands still, as a step of the
    /// same user can make it, kills nobody.
    gone_by: Option<Instant>,
}

impl Link {
    /// Speaks through `socket`, in the runtime of the caller.
    pub(super) fn new(socket: std::os::unix::net::UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: UnixStream::from_std(socket)?,
            sending: Mutex::default(),
            reading: Mutex::default(),
            heard: std::sync::Mutex::default(),
            news: Notify::new(),
            next: AtomicU32::new(0),
        })
    }

    pub(super) async fn spawn(self: &Arc<Self>, launch: &Launch, outlets: Outlets) -> io::Result<Running> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.send(&Order::Start { number, launch: launch.clone() }, &[outlets.out.as_fd(), outlets.err.as_fd()]).await?;
        drop(outlets);
        self.hear(|heard| heard.started.remove(&number)).await??;
        Ok(Running { link: self.clone(), number, gone_by: None })
    }

    /// Ends everything, and waits until it is gone.
    pub(super) async fn clear(&self) -> io::Result<()> {
        self.send(&Order::Clear, &[]).await?;
        let cleared = self.hear(|heard| std::mem::take(&mut heard.cleared).then_some(()));
        timeout(GONE_DEADLINE, cleared).await.map_err(|_| io::Error::other("its processes do not end"))?
    }

    pub(super) async fn send(&self, order: &Order, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let frame = wire::frame(order)?;
        let _one_at_a_time = self.sending.lock().await;
        let mut sent = self.socket.async_io(Interest::WRITABLE, || wire::send_first(self.socket.as_fd(), &frame, descriptors)).await?;
        while let Some(rest) = frame.get(sent..).filter(|rest| !rest.is_empty()) {
            sent += self.socket.async_io(Interest::WRITABLE, || self.socket.try_write(rest)).await?;
        }
        Ok(())
    }

    /// Waits until the init has said what `take` takes. Cancel safe.
    async fn hear<T>(&self, mut take: impl FnMut(&mut Heard) -> Option<T>) -> io::Result<T> {
        loop {
            let news = self.news.notified();
            {
                let mut heard = self.heard.lock().expect("no holder of this lock panics");
                if let Some(taken) = take(&mut heard) {
                    return Ok(taken);
                }
                if heard.is_over {
                    return Err(io::Error::other(heard.failed.clone().unwrap_or_else(|| "what held its processes was killed".to_owned())));
                }
            }
            tokio::select! {
                biased;
                () = news => {}
                mut reading = self.reading.lock() => self.read(&mut reading).await?,
            }
        }
    }

    /// Reads something. What was read is kept, wherever this is dropped.
    async fn read(&self, kept: &mut Vec<u8>) -> io::Result<()> {
        self.socket.readable().await?;
        let mut buffer = [0; READ_BYTES];
        match self.socket.try_read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Ok(0) | Err(_) => self.heard.lock().expect("no holder of this lock panics").is_over = true,
            Ok(count) => kept.extend_from_slice(buffer.get(..count).unwrap_or_default()),
        }
        let mut heard = self.heard.lock().expect("no holder of this lock panics");
        while let Some(header) = kept.first_chunk::<HEADER_BYTES>() {
            let end = HEADER_BYTES + wire::length(*header)?;
            let Some(body) = kept.get(HEADER_BYTES..end) else { break };
            heard.note(serde_json::from_slice(body)?);
            kept.drain(..end);
        }
        drop(heard);
        self.news.notify_waiters();
        Ok(())
    }
}

impl Heard {
    fn note(&mut self, word: Word) {
        match word {
            Word::Started { number } => drop(self.started.insert(number, Ok(()))),
            Word::NotStarted { number, code, reason } => {
                let error = code.map_or_else(|| io::Error::other(reason), io::Error::from_raw_os_error);
                drop(self.started.insert(number, Err(error)));
            }
            Word::Ended { number, status } => drop(self.ended.insert(number, status)),
            Word::Cleared => self.cleared = true,
            // It was taken before anybody listened here.
            Word::Mounted => {}
            Word::Failed { reason } => self.failed = Some(reason),
        }
    }
}

impl Running {
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        let number = self.number;
        let ended = self.link.hear(|heard| heard.ended.remove(&number));
        let status = match self.gone_by {
            Some(by) => timeout_at(by, ended).await.map_err(|_| io::Error::other("its processes do not end"))??,
            None => ended.await?,
        };
        Ok(ExitStatus::from_raw(status))
    }

    pub(super) async fn yield_to_others(&self) {
        // If the init is gone, so is what it held.
        let _gone = self.link.send(&Order::Yield { number: self.number }, &[]).await;
    }

    pub(super) async fn signal(&mut self, signal: Signal) {
        let order = if signal == Signal::SIGKILL {
            self.gone_by.get_or_insert_with(|| Instant::now() + GONE_DEADLINE);
            Order::Kill
        } else {
            Order::Signal { number: self.number, signal: signal as i32 }
        };
        // If the init is gone, so is what it held; waiting tells.
        let _gone = self.link.send(&order, &[]).await;
    }
}
