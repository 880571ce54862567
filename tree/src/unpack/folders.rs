//! The folders of an archive that is being unpacked.
//!
//! **Invariant:** a folder is opened by one part of its path at a time, and never through a link.

use std::{
    collections::{BTreeMap, VecDeque},
    os::fd::OwnedFd,
    sync::Arc,
};

use rustix::{
    fs::{Mode, OFlags, fchmod, mkdirat, openat},
    io::Errno,
};

use super::{disk, made};
use crate::{error::UnpackError, name::split};

/// Folders that are kept open: archives come in order, so that the next entry is mostly in one of the last folders. A process may have
/// 1,024 files open.
const OPEN_MAX: usize = 64;
/// What a folder that nobody names may, before the mask.
const IMPLIED_MODE: u32 = 0o777;
/// What the unpacker itself needs in every folder until the end.
const OWN_MODE: u32 = 0o700;
pub(super) const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The folders, and a count of all entries.
pub(super) struct Folders {
    root: Arc<OwnedFd>,
    open: BTreeMap<Vec<u8>, Arc<OwnedFd>>,
    /// Those that are open, the oldest first.
    order: VecDeque<Vec<u8>>,
    /// Folders whose mode is set last, since it takes the unpacker's own rights away.
    locked: Vec<(Vec<u8>, u32)>,
    umask: u32,
    entries: u64,
    entries_max: u64,
}

impl Folders {
    pub(super) fn new(root: OwnedFd, umask: u32, entries_max: u64) -> Self {
        Self { root: Arc::new(root), open: BTreeMap::new(), order: VecDeque::new(), locked: Vec::new(), umask, entries: 0, entries_max }
    }

    /// Entries so far.
    pub(super) fn entries(&self) -> u64 {
        self.entries
    }

    /// One more entry.
    pub(super) fn count(&mut self) -> Result<(), UnpackError> {
        self.entries += 1;
        if self.entries > self.entries_max { Err(UnpackError::TooMany { limit: self.entries_max }) } else { Ok(()) }
    }

    /// A folder that the archive names. It may have made it already, for something in it.
    pub(super) fn make(&mut self, path: &[u8], mode: u32) -> Result<(), UnpackError> {
        if path.is_empty() {
            return Ok(());
        }
        let (parent, name) = split(path);
        let parent = self.get(parent)?;
        let first = Mode::from_raw_mode(mode | OWN_MODE);
        let is_new = match mkdirat(&*parent, name, first) {
            Ok(()) => self.count().map(|()| true)?,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(made(path, error)),
        };
        if !is_new || mode & self.umask != 0 {
            let folder = openat(&*parent, name, FOLDER, Mode::empty()).map_err(|error| made(path, error))?;
            fchmod(&folder, first).map_err(|error| disk(path, error))?;
        }
        if mode & OWN_MODE != OWN_MODE {
            self.locked.push((path.to_vec(), mode));
        }
        Ok(())
    }

    /// The folder at this path, which is made with those above it if it is not there.
    pub(super) fn get(&mut self, path: &[u8]) -> Result<Arc<OwnedFd>, UnpackError> {
        if path.is_empty() {
            return Ok(self.root.clone());
        }
        if let Some(folder) = self.open.get(path) {
            return Ok(folder.clone());
        }
        // From the deepest that is open downwards.
        let mut above = path;
        while !above.is_empty() && !self.open.contains_key(above) {
            above = split(above).0;
        }
        let mut folder = self.open.get(above).unwrap_or(&self.root).clone();
        let mut end = above.len();
        while end < path.len() {
            let start = if end == 0 { 0 } else { end + 1 };
            end = path[start..].iter().position(|byte| *byte == b'/').map_or(path.len(), |at| start + at);
            let (whole, name) = (&path[..end], &path[start..end]);
            match mkdirat(&*folder, name, Mode::from_raw_mode(IMPLIED_MODE)) {
                Ok(()) => self.count()?,
                Err(Errno::EXIST) => {}
                Err(error) => return Err(disk(whole, error)),
            }
            folder = Arc::new(openat(&*folder, name, FOLDER, Mode::empty()).map_err(|error| made(path, error))?);
            self.remember(whole, &folder);
        }
        Ok(folder)
    }

    fn remember(&mut self, path: &[u8], folder: &Arc<OwnedFd>) {
        self.open.insert(path.to_vec(), folder.clone());
        self.order.push_back(path.to_vec());
        if self.order.len() > OPEN_MAX
            && let Some(old) = self.order.pop_front()
        {
            self.open.remove(&old);
        }
    }

    /// Gives the folders the modes that the archive says, where they are.
    pub(super) fn close(self) -> Result<(), UnpackError> {
        let root = self.root.clone();
        self.close_in(&root)
    }

    /// Gives the folders the modes that the archive says, in the folder that they were moved to.
    pub(super) fn close_in(mut self, root: &OwnedFd) -> Result<(), UnpackError> {
        // Those below come before those above, which they could not be reached through afterwards.
        self.locked.sort_unstable_by(|(one, _), (other, _)| other.cmp(one));
        for (path, mode) in &self.locked {
            let failed = |error| disk(path, error);
            let mut folder: Option<OwnedFd> = None;
            for part in path.split(|byte| *byte == b'/') {
                folder = Some(openat(folder.as_ref().unwrap_or(root), part, FOLDER, Mode::empty()).map_err(failed)?);
            }
            if let Some(folder) = folder {
                fchmod(&folder, Mode::from_raw_mode(*mode)).map_err(failed)?;
            }
        }
        Ok(())
    }
}
