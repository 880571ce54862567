//! Content-addressed bytes: the store on disk, and the handle through which every role reads and writes it.
//!
//! A role never knows which it has: the store itself (`otto run`), or a depot that is reached over HTTP.

pub mod disk;
pub mod http;
pub mod library;
mod sweep;
pub mod token;
pub mod unused;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use model::Digest;

pub use disk::{DiskStore, Durability};
pub use http::DepotClient;
pub use sweep::Sweep;
pub use unused::Removed;

/// The most bytes that [`Blobs::get`] gives at once; what may be larger is read with [`Blobs::get_file`].
pub const GET_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Bytes by their digest. Clones share the store or the connection.
#[derive(Debug, Clone)]
pub enum Blobs {
    /// The store on this machine's disk.
    Disk(DiskStore),
    /// A depot.
    Depot(DepotClient),
}

/// Why bytes could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// Nothing is stored under this digest.
    #[error("the depot has no {0}")]
    Missing(Digest),
    /// The token does not allow it.
    #[error("the depot refuses {digest}: {reason}")]
    Refused {
        /// What was asked for.
        digest: Digest,
        /// What the depot says.
        reason: String,
    },
    /// What was stored or sent is not what its digest names.
    #[error("the bytes of {expected} are damaged: they are {actual}")]
    Damaged {
        /// The digest asked for.
        expected: Digest,
        /// The digest of the bytes.
        actual: Digest,
    },
    /// Larger than the reader allows.
    #[error("{digest} has {length} bytes, over the limit of {limit}")]
    TooLarge {
        /// What was asked for.
        digest: Digest,
        /// Its length.
        length: u64,
        /// The limit.
        limit: u64,
    },
    /// A file could not be read or written.
    #[error("cannot {doing} {path}")]
    Disk {
        /// The verb.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The depot cannot be reached, or answers what it should not. The same may succeed later.
    #[error("the depot does not answer: {0}")]
    Unavailable(String),
}

impl Blobs {
    /// Stores bytes; when this returns they are on disk (fsync).
    pub async fn put(&self, bytes: Bytes) -> Result<Digest, BlobError> {
        match self {
            Self::Disk(store) => store.put(bytes).await,
            Self::Depot(client) => client.put(bytes).await,
        }
    }

    /// Stores a file's bytes without holding them in memory; when this returns they are on disk (fsync).
    pub async fn put_file(&self, path: &Path) -> Result<Digest, BlobError> {
        match self {
            Self::Disk(store) => store.put_file(path).await,
            Self::Depot(client) => client.put_file(path).await,
        }
    }

    /// Reads bytes of at most [`GET_BYTES_MAX`]. They are checked against the digest.
    pub async fn get(&self, digest: &Digest) -> Result<Bytes, BlobError> {
        match self {
            Self::Disk(store) => store.get(digest).await,
            Self::Depot(client) => client.get(digest).await,
        }
    }

    /// Writes the bytes to a new file at `path`. They are checked against the digest; on an error there is no file.
    pub async fn get_file(&self, digest: &Digest, path: &Path) -> Result<(), BlobError> {
        match self {
            Self::Disk(store) => store.get_file(digest, path).await,
            Self::Depot(client) => client.get_file(digest, path).await,
        }
    }

    /// Whether the bytes are there.
    pub async fn has(&self, digest: &Digest) -> Result<bool, BlobError> {
        match self {
            Self::Disk(store) => store.has(digest).await,
            Self::Depot(client) => client.has(digest).await,
        }
    }

    /// Removes what nobody has stored, read or asked for within [`unused::KEPT`]. Ask first for all that is to stay.
    pub async fn remove_unused(&self) -> Result<Removed, BlobError> {
        match self {
            Self::Disk(store) => store.remove_unused().await,
            Self::Depot(client) => client.remove_unused().await,
        }
    }

    /// The bytes that are free on the disk of the store.
    pub async fn free_bytes(&self) -> Result<u64, BlobError> {
        match self {
            Self::Disk(store) => store.free_bytes().await,
            Self::Depot(client) => client.free_bytes().await,
        }
    }

    /// The same depot, with the rights of another token. The store on disk asks for none.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        match self {
            Self::Disk(store) => Self::Disk(store.clone()),
            Self::Depot(client) => Self::Depot(client.with_token(token)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sendable<T: Send>(work: T) -> T {
        work
    }

    #[tokio::test]
    async fn a_task_may_hold_every_operation() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::Disk(DiskStore::open(folder.path(), Durability::None).unwrap());
        let digest = sendable(blobs.put(Bytes::from_static(b"abc"))).await.unwrap();
        let path = folder.path().join("copy");
        sendable(blobs.get_file(&digest, &path)).await.unwrap();
        assert_eq!(sendable(blobs.put_file(&path)).await.unwrap(), digest);
        assert_eq!(sendable(blobs.with_token("any").get(&digest)).await.unwrap(), "abc");
        assert!(sendable(blobs.has(&digest)).await.unwrap());
    }
}
