//! A stored part of an attempt's output, read back chunk by chunk: the bytes, and the marks that cut them from another blob or from the end of the same.

use std::io::SeekFrom;

use blob::{BlobError, Blobs};
use bytes::Bytes;
use model::{
    event::run::LogSegment,
    protocol::log::{CHUNK_BYTES_MAX, LogMark},
};
use tempfile::TempDir;
use tokio::{
    fs::File,
    io::{AsyncReadExt as _, AsyncSeekExt as _},
};

/// The largest part that is read into memory: four times what an agent makes. A larger one, as agents made them once, lies in a file meanwhile.
const MEMORY_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Why stored output cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoredError {
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

/// The bytes of a part.
#[derive(Debug)]
pub(crate) enum Content {
    Memory(Bytes),
    File { file: File, _folder: TempDir },
}

impl Content {
    pub(crate) async fn fetch(blobs: &Blobs, segment: &LogSegment) -> Result<Self, StoredError> {
        if segment.is_one_blob() {
            let (bytes, _) = fetch_both(blobs, segment).await?;
            return Ok(Self::Memory(bytes));
        }
        let (content, length) = if segment.length <= MEMORY_BYTES_MAX {
            let bytes = blobs.get(&segment.bytes).await?;
            let length = bytes.len() as u64;
            (Self::Memory(bytes), length)
        } else {
            let folder = tempfile::tempdir()?;
            let path = folder.path().join("output");
            blobs.get_file(&segment.bytes, &path).await?;
            let file = File::open(path).await?;
            let length = file.metadata().await?.len();
            (Self::File { file, _folder: folder }, length)
        };
        if length == segment.length { Ok(content) } else { Err(StoredError::Index(format!("{length} bytes for {}", segment.length))) }
    }

    /// `length` bytes from `at` on, which must be there.
    pub(crate) async fn read(&mut self, at: u64, length: usize) -> Result<Bytes, StoredError> {
        match self {
            Self::Memory(bytes) => {
                let at = usize::try_from(at).expect("it is within MEMORY_BYTES_MAX");
                Ok(bytes.slice(at..at + length))
            }
            Self::File { file, .. } => {
                let mut bytes = vec![0; length];
                file.seek(SeekFrom::Start(at)).await?;
                file.read_exact(&mut bytes).await?;
                Ok(bytes.into())
            }
        }
    }
}

/// The bytes and the index of a part that is one blob.
async fn fetch_both(blobs: &Blobs, segment: &LogSegment) -> Result<(Bytes, Bytes), StoredError> {
    let mut bytes = blobs.get(&segment.bytes).await?;
    let (length, found) = (segment.length, bytes.len());
    let missing = || StoredError::Index(format!("{found} bytes with their index for {length}"));
    let at = usize::try_from(length).ok().filter(|at| *at <= found).ok_or_else(missing)?;
    let index = bytes.split_off(at);
    Ok((bytes, index))
}

/// A part that is being read.
#[derive(Debug)]
pub(super) struct StoredPart {
    segment: LogSegment,
    index: Bytes,
    content: Content,
    /// What is left of the last mark.
    rest: Option<LogMark>,
}

impl StoredPart {
    pub(super) async fn open(blobs: &Blobs, segment: LogSegment) -> Result<Self, StoredError> {
        let (content, index) = if segment.is_one_blob() {
            let (bytes, index) = fetch_both(blobs, &segment).await?;
            (Content::Memory(bytes), index)
        } else {
            let index = blobs.get(&segment.index).await?;
            (Content::fetch(blobs, &segment).await?, index)
        };
        Ok(Self { segment, index, content, rest: None })
    }

    /// The end of the part.
    pub(super) fn end(&self) -> u64 {
        self.segment.end()
    }

    /// The next chunk that ends behind `from`.
    pub(super) async fn next(&mut self, from: u64) -> Result<Option<(LogMark, Bytes)>, StoredError> {
        while let Some(mark) = self.next_mark()? {
            let end = mark.offset.saturating_add(u64::from(mark.length));
            if end <= from {
                continue;
            }
            if mark.offset < self.segment.offset || end > self.end() {
                return Err(StoredError::Index(format!("a mark from {} to {end}", mark.offset)));
            }
            let length = mark.length as usize;
            let cut = length.min(CHUNK_BYTES_MAX);
            let bytes = self.content.read(mark.offset - self.segment.offset, cut).await?;
            let chunk = LogMark { length: u32::try_from(cut).expect("it is at most CHUNK_BYTES_MAX"), ..mark.clone() };
            if cut < length {
                let lines = memchr::memchr_iter(b'\n', &bytes).count() as u64;
                let (offset, length) = (mark.offset + cut as u64, mark.length - chunk.length);
                self.rest = Some(LogMark { offset, length, lines_before: mark.lines_before.saturating_add(lines), ..mark });
            }
            return Ok(Some((chunk, bytes)));
        }
        Ok(None)
    }

    fn next_mark(&mut self) -> Result<Option<LogMark>, StoredError> {
        if let Some(rest) = self.rest.take() {
            return Ok(Some(rest));
        }
        while !self.index.is_empty() {
            let end = memchr::memchr(b'\n', &self.index).unwrap_or(self.index.len());
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
