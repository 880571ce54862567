//! Trees of files as archives: packs what a stage leaves, and unpacks what others made, which is never believed. And removes such trees.
//!
//! One packer and one unpacker for all of it: sources, caches, artifacts, step libraries.
//!
//! **Invariants:** nothing is read or written outside of the root, whatever names and links an archive or a tree has; the same tree gives the
//! same bytes; an archive that fails, is refused, or is not the one that its digest names leaves nothing behind.
//!
//! | in an archive | packed | unpacked |
//! |---|---|---|
//! | files, with their mode (`rwx` only) and content | yes | yes |
//! | modification times, in seconds | as the caller says | yes; 0 is none |
//! | directories, with their mode | yes, also empty ones | yes |
//! | symbolic links within the root | yes | yes |
//! | symbolic links out of the root | refused | refused, or in sources kept as text that nobody follows |
//! | hard links | as files | refused |
//! | devices, pipes, sockets | left out, and told | refused |
//! | owners, attributes, access lists | no | no |

mod copy;
mod error;
mod format;
mod limits;
mod name;
mod pack;
mod remove;
mod select;
mod unpack;

pub use copy::{Content, copy_into, shares_content};
pub use error::{CopyError, PackError, UnpackError};
pub use limits::{DEPTH_MAX, ENTRIES_MAX, Limits, PATH_BYTES_MAX};
pub use name::EntryName;
pub use pack::{Attributes, Packed, Packer, Times, pack};
pub use remove::remove;
pub use select::{Selection, SelectionError};
pub use unpack::{Archive, Links, Rules, Unpacked, unpack_first, unpack_into, unpack_new};
