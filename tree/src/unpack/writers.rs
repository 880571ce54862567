//! Threads that write small files: making a file costs the system far more than reading it from an archive, and different folders do not
//! wait for each other.

use std::{
    fs::File,
    io::Write as _,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{Scope, ScopedJoinHandle, available_parallelism},
};

use rustix::fs::{Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, fchmod, futimens, openat};

use super::{disk, made};
use crate::{error::UnpackError, name::EntryName};

/// Files that are written before threads are started: a thread costs as much as some files.
const WITHOUT_THREADS: usize = 64;
/// Threads: more wait for the file system's own locks.
const THREADS_MAX: usize = 4;
/// Batches that wait. Together they hold some megabytes at most.
const WAITING_MAX: usize = 8;
/// Bytes of files after which a batch is complete.
const BATCH_BYTES: usize = 256 * 1024;
/// Files after which it is.
const BATCH_FILES: usize = 64;

/// A file to be written.
#[derive(Debug)]
pub(super) struct Small {
    pub(super) path: Vec<u8>,
    /// Bytes of its folder's path.
    pub(super) parent: usize,
    pub(super) mode: u32,
    pub(super) mtime: u64,
    pub(super) length: usize,
}

impl Small {
    fn name(&self) -> &[u8] {
        if self.parent == 0 { &self.path } else { &self.path[self.parent + 1..] }
    }
}

/// Files of one folder.
struct Batch {
    folder: Arc<OwnedFd>,
    files: Vec<Small>,
    /// Their contents, one after the other.
    content: Vec<u8>,
}

pub(super) struct Writers<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    umask: u32,
    batch: Option<Batch>,
    /// Files that were written here.
    written: usize,
    queue: Option<SyncSender<Batch>>,
    threads: Vec<ScopedJoinHandle<'scope, Result<(), UnpackError>>>,
}

impl<'scope, 'env> Writers<'scope, 'env> {
    pub(super) fn new(scope: &'scope Scope<'scope, 'env>, umask: u32) -> Self {
        Self { scope, umask, batch: None, written: 0, queue: None, threads: Vec::new() }
    }

    pub(super) fn umask(&self) -> u32 {
        self.umask
    }

    /// Begins a file; its content is appended to what this gives, and then [`Self::end`]ed.
    pub(super) fn begin(&mut self, folder: Arc<OwnedFd>, file: Small) -> Result<&mut Vec<u8>, UnpackError> {
        if self.batch.as_ref().is_some_and(|batch| !Arc::ptr_eq(&batch.folder, &folder)) {
            self.pass_on()?;
        }
        let batch = self.batch.get_or_insert_with(|| Batch { folder, files: Vec::new(), content: Vec::new() });
        batch.files.push(Small { length: batch.content.len(), ..file });
        Ok(&mut batch.content)
    }

    /// The content of the file that was begun.
    pub(super) fn content(&mut self) -> &mut Vec<u8> {
        &mut self.batch.as_mut().expect("a file was begun").content
    }

    /// The file is complete.
    pub(super) fn end(&mut self) -> Result<(), UnpackError> {
        let batch = self.batch.as_mut().expect("a file was begun");
        let file = batch.files.last_mut().expect("a file was begun");
        file.length = batch.content.len() - file.length;
        if batch.content.len() >= BATCH_BYTES || batch.files.len() >= BATCH_FILES { self.pass_on() } else { Ok(()) }
    }

    fn pass_on(&mut self) -> Result<(), UnpackError> {
        let Some(batch) = self.batch.take() else { return Ok(()) };
        if self.written < WITHOUT_THREADS {
            self.written += batch.files.len();
            return batch.write(self.umask);
        }
        if self.queue.is_none() {
            let (queue, waiting) = sync_channel(WAITING_MAX);
            let waiting = Arc::new(Mutex::new(waiting));
            let count = available_parallelism().map_or(1, |count| count.get().min(THREADS_MAX));
            let umask = self.umask;
            for _ in 0..count {
                let waiting = waiting.clone();
                self.threads.push(self.scope.spawn(move || work(&waiting, umask)));
            }
            self.queue = Some(queue);
        }
        let queue = self.queue.as_ref().expect("it was just made");
        // Nobody takes it when all writers have failed; why, they say.
        if queue.send(batch).is_ok() { Ok(()) } else { self.join() }
    }

    /// Waits for what is still being written.
    pub(super) fn finish(mut self) -> Result<(), UnpackError> {
        let last = self.pass_on();
        last.and(self.join())
    }

    fn join(&mut self) -> Result<(), UnpackError> {
        self.queue = None;
        let ends = self.threads.drain(..).map(|thread| thread.join().expect("a writer does not panic"));
        ends.fold(Ok(()), Result::and)
    }
}

/// Writes batches until there are no more, or one fails: the others then end, too, as nobody sends to them any more.
fn work(waiting: &Mutex<Receiver<Batch>>, umask: u32) -> Result<(), UnpackError> {
    loop {
        let next = waiting.lock().expect("no holder of this lock panics").recv();
        let Ok(batch) = next else { return Ok(()) };
        batch.write(umask)?;
    }
}

impl Batch {
    fn write(&self, umask: u32) -> Result<(), UnpackError> {
        let mut content = self.content.as_slice();
        for small in &self.files {
            let mut file = create(&self.folder, small)?;
            let (own, rest) = content.split_at(small.length);
            content = rest;
            file.write_all(own).map_err(|source| UnpackError::Disk { entry: EntryName::new(&small.path), source })?;
            complete(&file, small, umask)?;
        }
        Ok(())
    }
}

/// Makes a file where none is.
pub(super) fn create(folder: &OwnedFd, file: &Small) -> Result<File, UnpackError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(folder, file.name(), flags, Mode::from_raw_mode(file.mode)).map(File::from).map_err(|error| made(&file.path, error))
}

/// Sets what writing has changed, and what the system has masked.
pub(super) fn complete(file: &File, small: &Small, umask: u32) -> Result<(), UnpackError> {
    if small.mode & umask != 0 {
        fchmod(file, Mode::from_raw_mode(small.mode)).map_err(|error| disk(&small.path, error))?;
    }
    if small.mtime > 0 {
        let at = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
        let modified = at(i64::try_from(small.mtime).unwrap_or(i64::MAX), 0);
        let times = Timestamps { last_access: at(0, UTIME_OMIT), last_modification: modified };
        futimens(file, &times).map_err(|error| disk(&small.path, error))?;
    }
    Ok(())
}
