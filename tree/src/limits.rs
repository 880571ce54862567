//! How large a tree may be.

/// Entries of one archive, with the folders that only the paths of others name: some five times the files of the Linux kernel.
pub const ENTRIES_MAX: u64 = 500_000;
/// Folders within folders. Go on deeper, and a path no longer fits into a system call.
pub const DEPTH_MAX: usize = 128;
/// Bytes of a path: what Linux takes (`PATH_MAX`).
pub const PATH_BYTES_MAX: usize = 4096;
/// Bytes of all files of a cache or an artifact. Somebody waits for each of them.
const TREE_BYTES_MAX: u64 = 32 * 1024 * 1024 * 1024;
/// Bytes of all files of a source tree; the forge packs no larger one.
const SOURCE_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// Bytes of all files of a step library: programs for some platforms.
const LIBRARY_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// The most that a tree may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Files, folders and links.
    pub entries: u64,
    /// Bytes of all files.
    pub bytes: u64,
}

impl Limits {
    /// Those of caches and artifacts.
    pub const TREE: Self = Self { entries: ENTRIES_MAX, bytes: TREE_BYTES_MAX };
    /// Those of sources.
    pub const SOURCE: Self = Self { entries: ENTRIES_MAX, bytes: SOURCE_BYTES_MAX };
    /// Those of step libraries.
    pub const LIBRARY: Self = Self { entries: ENTRIES_MAX, bytes: LIBRARY_BYTES_MAX };
}
