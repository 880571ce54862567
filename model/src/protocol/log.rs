//! A stage's output: bytes as they came, in chunks whose offsets show a gap, and in segments once they lie in the depot.

use serde::{Deserialize, Serialize};

use super::agent::Lease;
use crate::{
    Timestamp,
    event::run::{LogSegment, OUTPUT_BYTES_MAX},
};

/// The most bytes of output in one chunk: with its mark it stays far below the bus's 1 MiB a message.
pub const CHUNK_BYTES_MAX: usize = 64 * 1024;
/// Segments that one chunk may announce: a few kilobytes, so that some lost messages lose no segment.
pub const ANNOUNCED_SEGMENTS_MAX: usize = 16;

/// Which of a step's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
    /// Otto itself: which step begins, why a stage ends.
    Otto,
}

/// Where a chunk of output stands, and where it came from. A stage's index is one such mark for each chunk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LogMark {
    /// Bytes of the attempt's output before this chunk.
    pub offset: u64,
    /// Bytes in this chunk.
    pub length: u32,
    /// The step, from 0.
    pub step: u32,
    /// The stream.
    pub stream: Stream,
    /// When the agent read it.
    pub at: Timestamp,
    /// Line feeds of the attempt's output before this chunk; 0 where an older agent wrote it.
    #[serde(default)]
    pub lines_before: u64,
}

/// A chunk on the bus: this header as one line of JSON, a line feed, then the bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LogHeader {
    /// The attempt and its fence.
    pub lease: Lease,
    /// Where the chunk stands.
    pub mark: LogMark,
    /// The newest parts of the output that lie in the depot by now, the oldest of them first. A chunk that says so need not have bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<LogSegment>,
}

/// A chunk of output with its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogChunk {
    /// Where it stands.
    pub header: LogHeader,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// Why a message is no chunk.
#[derive(Debug, thiserror::Error)]
pub enum ChunkError {
    /// No line feed ends the header.
    #[error("the chunk has no header line")]
    NoHeader,
    /// The header is not the JSON of one.
    #[error("the chunk's header does not read as one")]
    Header(#[source] serde_json::Error),
    /// The header has numbers that no output has.
    #[error("the chunk's header has numbers that no output has")]
    Numbers,
    /// The header announces another length.
    #[error("the chunk has {actual} bytes, and its header says {said}")]
    Length {
        /// What the header says.
        said: u32,
        /// What there is.
        actual: usize,
    },
}

impl LogChunk {
    /// As it travels.
    pub fn encode(&self) -> Vec<u8> {
        let mut message = serde_json::to_vec(&self.header).expect("a header has text keys only");
        message.push(b'\n');
        message.extend_from_slice(&self.bytes);
        message
    }

    /// Reads what [`LogChunk::encode`] gave.
    pub fn decode(message: &[u8]) -> Result<Self, ChunkError> {
        let end = message.iter().position(|byte| *byte == b'\n').ok_or(ChunkError::NoHeader)?;
        let (header, rest) = message.split_at(end);
        let header: LogHeader = serde_json::from_slice(header).map_err(ChunkError::Header)?;
        let bytes = rest.get(1..).unwrap_or_default().to_vec();
        if bytes.len() != header.mark.length as usize {
            return Err(ChunkError::Length { said: header.mark.length, actual: bytes.len() });
        }
        let LogMark { offset, lines_before, .. } = header.mark;
        if offset > OUTPUT_BYTES_MAX || lines_before > offset || !header.segments.iter().all(LogSegment::is_sound) {
            return Err(ChunkError::Numbers);
        }
        Ok(Self { header, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AttemptId, RunId, StageId, TriggerId};

    #[test]
    fn any_bytes_travel_in_a_chunk() {
        let lease =
            Lease { attempt: AttemptId { run: RunId::of(&TriggerId::of("t", "1")), stage: StageId::of("a"), attempt: 1 }, fence: 7 };
        let mark = LogMark { offset: 3, length: 4, step: 0, stream: Stream::Out, at: Timestamp(9), lines_before: 0 };
        let chunk = LogChunk { header: LogHeader { lease, mark, segments: Vec::new() }, bytes: b"\n\xff\0\n".to_vec() };
        assert_eq!(LogChunk::decode(&chunk.encode()).unwrap(), chunk);
        assert!(matches!(LogChunk::decode(&chunk.encode()[..20]), Err(ChunkError::NoHeader)));
        let mut long = chunk.encode();
        long.push(b'x');
        assert!(matches!(LogChunk::decode(&long), Err(ChunkError::Length { said: 4, actual: 5 })));
    }
}
