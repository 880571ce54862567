//! What tells whether anybody has touched a folder: the time of its last change, which the kernel alone sets (`man 7 inode`, ctime). Entries,
//! owner, mode, access lists, attributes and flags all change it.
//!
//! It tells only where two changes have different times. Since Linux 6.13 that is so on ext4, xfs, btrfs and tmpfs for changes between which
//! somebody asked for the time; before, a clock is read that stands still for some milliseconds
//! (`Documentation/filesystems/multigrain-ts.rst`). So it is tried.

use std::{io, path::Path};

use rustix::fs::{AtFlags, CWD, Mode, StatxFlags, chmod, statx};

/// Changes that are made to see whether the clock stands still: that it ticks once between two of them may be, but not each time.
const CHANGES: usize = 4;

/// A folder as it was at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    /// The file system, and the folder in it.
    file: (u32, u32, u64),
    /// Nothing is mounted over it that was not then.
    mount: u64,
    /// Seconds and nanoseconds.
    changed: (i64, u32),
}

impl Stamp {
    /// The folder as it is. That this was asked is remembered by the kernel: the next change has another time.
    pub(super) fn of(folder: &Path) -> io::Result<Self> {
        let wanted = StatxFlags::INO | StatxFlags::CTIME | StatxFlags::MNT_ID;
        let found = statx(CWD, folder, AtFlags::SYMLINK_NOFOLLOW, wanted)?;
        Ok(Self {
            file: (found.stx_dev_major, found.stx_dev_minor, found.stx_ino),
            mount: found.stx_mnt_id,
            changed: (found.stx_ctime.tv_sec, found.stx_ctime.tv_nsec),
        })
    }
}

/// Whether a change of this folder can be told from none by its stamp. Changes the folder's mode to what only its owner may do.
pub(crate) fn stamps_tell(folder: &Path) -> bool {
    let change = || {
        chmod(folder, Mode::RWXU)?;
        Stamp::of(folder)
    };
    let stamps: Result<Vec<_>, io::Error> = (0..CHANGES).map(|_| change()).collect();
    stamps.is_ok_and(|stamps| stamps.windows(2).all(|two| two[0] != two[1]))
}
