//! Why a tree is not packed, or an archive not unpacked.

use std::io;

use model::Digest;

use crate::name::EntryName;

/// Why an archive was not unpacked. Nothing of it is there.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// An entry would leave the root, or is nothing that a tree of files has.
    #[error("the archive is refused: `{entry}` {what}")]
    Refused {
        /// The entry.
        entry: EntryName,
        /// What is wrong with it.
        what: &'static str,
    },
    /// What the archive has does not fit to what stands there already.
    #[error("cannot put `{entry}` there: {what}")]
    Occupied {
        /// The entry.
        entry: EntryName,
        /// What stands there.
        what: &'static str,
    },
    /// It has too many entries.
    #[error("the archive is refused: it has more than {limit} entries")]
    TooMany {
        /// The limit.
        limit: u64,
    },
    /// Its files are too large together.
    #[error("the archive is refused: with `{entry}` its files have more than {limit} bytes")]
    TooLarge {
        /// The file that is too much.
        entry: EntryName,
        /// The limit.
        limit: u64,
    },
    /// It is no archive.
    #[error("the archive is refused: {what} ({number} entries were read)")]
    Malformed {
        /// What is wrong.
        what: &'static str,
        /// Entries before that.
        number: u64,
    },
    /// It is another one than it should be.
    #[error("the archive is damaged: its bytes are {actual}, not {expected}")]
    Damaged {
        /// The digest asked for.
        expected: Digest,
        /// The digest of the bytes.
        actual: Digest,
    },
    /// The caller wanted it no longer.
    #[error("the archive was not unpacked to its end")]
    Stopped,
    /// It cannot be read.
    #[error("the archive cannot be read")]
    Unreadable(#[source] io::Error),
    /// The disk does not take it.
    #[error("cannot write `{entry}` of the archive")]
    Disk {
        /// The entry.
        entry: EntryName,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// Why a tree is not packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// An entry that could not be unpacked.
    #[error("`{entry}` {what}: leave it out")]
    Refused {
        /// The entry.
        entry: EntryName,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Too many entries.
    #[error("there are more than {limit} files and folders")]
    TooMany {
        /// The limit.
        limit: u64,
    },
    /// The files are too large together.
    #[error("with `{entry}` the files have more than {limit} bytes")]
    TooLarge {
        /// The file that is too much.
        entry: EntryName,
        /// The limit.
        limit: u64,
    },
    /// The file was changed while it was read.
    #[error("`{entry}` was changed while it was read")]
    Changed {
        /// The file.
        entry: EntryName,
    },
    /// The caller wanted it no longer.
    #[error("not everything was packed")]
    Stopped,
    /// It cannot be read.
    #[error("cannot read `{entry}`")]
    Read {
        /// The entry; empty for the root.
        entry: EntryName,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The archive cannot be written.
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
}

/// Why a tree is not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The caller wanted it no longer.
    #[error("not everything was copied")]
    Stopped,
    /// The disk does not give or take it.
    #[error("cannot copy `{entry}`")]
    Disk {
        /// The entry.
        entry: EntryName,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}
