//! The stored output of an attempt, read back chunk by chunk: the bytes from one blob, the marks that cut them from another.

use std::io::SeekFrom;

use blob::{BlobError, Blobs};
use bytes::Bytes;
use model::{
    event::run::StoredLog,
    protocol::log::{CHUNK_BYTES_MAX, LogMark},
};
use tempfile::TempDir;
use tokio::{
    fs::File,
    io::{AsyncReadExt as _, AsyncSeekExt as _},
};

/// Why stored output cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoredError {
    /// The depot does not give it.
    #[error(transparent)]
    Depot(#[from] BlobError),
    /// The copy on this machine cannot be read.
    #[error("cannot read the copy of stored output")]
    Copy(#[from] std::io::Error),
    /// The marks do not fit the bytes.
    #[error("the index of stored output is damaged: {0}")]
    Index(String),
}

/// Stored output that is being read. The bytes lie in a file meanwhile: output may be larger than what memory should hold.
#[derive(Debug)]
pub(super) struct StoredOutput {
    index: Bytes,
    bytes: File,
    position: u64,
    _folder: TempDir,
}

impl StoredOutput {
    pub(super) async fn open(blobs: &Blobs, log: &StoredLog) -> Result<Self, StoredError> {
        let segment = log.segments.first().ok_or_else(|| StoredError::Index("it has no part".to_owned()))?;
        let index = blobs.get(&segment.index).await?;
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("output");
        blobs.get_file(&segment.bytes, &path).await?;
        Ok(Self { index, bytes: File::open(path).await?, position: 0, _folder: folder })
    }

    /// The next chunk that ends behind `from`.
    pub(super) async fn next(&mut self, from: u64) -> Result<Option<(LogMark, Vec<u8>)>, StoredError> {
        while let Some(mark) = self.next_mark()? {
            if mark.offset + u64::from(mark.length) <= from {
                continue;
            }
            if mark.length as usize > CHUNK_BYTES_MAX {
                return Err(StoredError::Index(format!("a chunk of {} bytes", mark.length)));
            }
            if self.position != mark.offset {
                self.bytes.seek(SeekFrom::Start(mark.offset)).await?;
            }
            let mut bytes = vec![0; mark.length as usize];
            self.bytes.read_exact(&mut bytes).await?;
            self.position = mark.offset + u64::from(mark.length);
            return Ok(Some((mark, bytes)));
        }
        Ok(None)
    }

    fn next_mark(&mut self) -> Result<Option<LogMark>, StoredError> {
        while !self.index.is_empty() {
            let end = self.index.iter().position(|byte| *byte == b'\n').unwrap_or(self.index.len());
            let line = self.index.split_to(end);
            if !self.index.is_empty() {
                let _line_feed = self.index.split_to(1);
            }
            if !line.is_empty() {
                return serde_json::from_slice(&line).map(Some).map_err(|error| StoredError::Index(error.to_string()));
            }
        }
        Ok(None)
    }
}
