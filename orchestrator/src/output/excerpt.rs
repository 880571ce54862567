//! A part of one attempt's output, by bytes or by lines: of what lies in the depot, only the parts that it needs are fetched.

use std::sync::Arc;

use apispec::GapReason;
use blob::Blobs;
use bytes::Bytes;
use model::{
    event::run::LogSegment,
    protocol::{agent::Lease, log::LogChunk},
};
use service::supervisor::chain;
use tracing::warn;

use super::stored::Content;
use crate::{Orchestrator, core::Attempt};

/// Bytes that are looked at and given at once.
const BLOCK_BYTES: u64 = 64 * 1024;

/// Which part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// From this byte up to the one before that.
    Bytes(u64, u64),
    /// From this line up to the one before that; the first line is 0.
    Lines(u64, u64),
    /// So many lines at the end.
    Tail(u64),
}

/// A piece of an excerpt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Passage {
    /// Some bytes.
    Bytes(Bytes),
    /// So many bytes are missing.
    Missing(u64, GapReason),
}

/// A part of an attempt's output that is being read.
#[derive(Debug)]
pub struct Excerpt {
    blobs: Blobs,
    /// In the order of their offsets.
    sources: Vec<Source>,
    /// The source that was fetched last.
    fetched: Option<(usize, Content)>,
    /// The source that is being read, the next byte, and the line feeds before it.
    at: usize,
    offset: u64,
    lines: u64,
    range: Range,
}

#[derive(Debug)]
struct Source {
    offset: u64,
    length: u64,
    lines_before: u64,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Depot(LogSegment),
    Buffer(Arc<LogChunk>),
}

impl Source {
    fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }
}

impl From<&LogSegment> for Source {
    fn from(segment: &LogSegment) -> Self {
        let LogSegment { offset, length, lines_before, .. } = *segment;
        Self { offset, length, lines_before, place: Place::Depot(segment.clone()) }
    }
}

impl From<Arc<LogChunk>> for Source {
    fn from(chunk: Arc<LogChunk>) -> Self {
        let mark = &chunk.header.mark;
        Self { offset: mark.offset, length: chunk.bytes.len() as u64, lines_before: mark.lines_before, place: Place::Buffer(chunk) }
    }
}

impl Excerpt {
    /// Of what there is now.
    pub async fn open(orchestrator: &Orchestrator, lease: &Lease, attempt: &Attempt, range: Range) -> Self {
        let sources = attempt.log.as_ref().map_or_else(
            || {
                let (segments, chunks) = orchestrator.logs.all(lease);
                let end = segments.last().map_or(0, LogSegment::end);
                let chunks = chunks.into_iter().map(Source::from).filter(|chunk| chunk.end() > end);
                segments.iter().map(Source::from).chain(chunks).collect()
            },
            |log| log.segments.iter().map(Source::from).collect(),
        );
        let mut excerpt = Self { blobs: orchestrator.blobs.clone(), sources, fetched: None, at: 0, offset: 0, lines: 0, range };
        excerpt.seek().await;
        excerpt
    }

    /// The number of its first byte, and of the line of that.
    pub fn begin(&self) -> (u64, u64) {
        (self.offset, self.lines)
    }

    /// The next piece; nothing after the last.
    pub async fn next(&mut self) -> Option<Passage> {
        loop {
            let wanted = match self.range {
                Range::Bytes(_, to) => to.checked_sub(self.offset).filter(|left| *left > 0)?,
                Range::Lines(_, to) if self.lines >= to => return None,
                Range::Lines(..) | Range::Tail(_) => BLOCK_BYTES,
            };
            let (offset, end) = self.sources.get(self.at).map(|source| (source.offset, source.end()))?;
            if self.offset < offset {
                let missing = offset - self.offset;
                self.offset = offset;
                self.lines = self.sources[self.at].lines_before;
                return Some(Passage::Missing(missing, GapReason::NotKept));
            }
            if self.offset >= end {
                self.at += 1;
                continue;
            }
            let length = wanted.min(BLOCK_BYTES).min(end - self.offset);
            let Some(mut block) = self.read(self.at, self.offset, length).await else {
                let missing = end - self.offset;
                self.offset = end;
                self.lines = self.sources.get(self.at + 1).map_or(self.lines, |next| next.lines_before);
                return Some(Passage::Missing(missing, GapReason::DepotUnavailable));
            };
            if let Range::Lines(_, to) = self.range
                && let Some(last) = nth_line_feed(&block, to - self.lines)
            {
                block.truncate(last + 1);
            }
            self.pass(&block);
            return Some(Passage::Bytes(block));
        }
    }

    /// Goes to the first byte.
    async fn seek(&mut self) {
        match self.range {
            Range::Bytes(from, _) => self.seek_byte(from).await,
            Range::Lines(from, _) => self.seek_line(from).await,
            Range::Tail(lines) => {
                let from = self.tail(lines).await;
                self.range = Range::Bytes(from, u64::MAX);
                self.seek_byte(from).await;
            }
        }
    }

    async fn seek_byte(&mut self, from: u64) {
        self.at = self.sources.partition_point(|source| source.end() <= from);
        self.offset = from;
        let Some(source) = self.sources.get(self.at) else { return };
        self.lines = source.lines_before;
        let mut before = source.offset;
        while before < from {
            let Some(block) = self.read(self.at, before, BLOCK_BYTES.min(from - before)).await else { return };
            self.lines += line_feeds(&block);
            before += block.len() as u64;
        }
    }

    /// The line begins behind a line feed of the last source that has fewer before it.
    async fn seek_line(&mut self, from: u64) {
        self.at = self.sources.partition_point(|source| source.lines_before < from).saturating_sub(1);
        let Some(source) = self.sources.get(self.at) else { return };
        let end = source.end();
        (self.offset, self.lines) = (source.offset, source.lines_before);
        while self.lines < from && self.offset < end {
            let Some(mut block) = self.read(self.at, self.offset, BLOCK_BYTES.min(end - self.offset)).await else { return };
            if let Some(last) = nth_line_feed(&block, from - self.lines) {
                block.truncate(last + 1);
            }
            self.pass(&block);
        }
        if self.lines < from {
            // There are not so many lines.
            self.at = self.sources.len();
        }
    }

    /// Where the last lines begin.
    async fn tail(&mut self, lines: u64) -> u64 {
        let Some(last) = self.sources.last().map(Source::end) else { return 0 };
        let mut left = lines;
        for at in (0..self.sources.len()).rev() {
            let (offset, mut end) = (self.sources[at].offset, self.sources[at].end());
            while end > offset && left > 0 {
                let from = end.saturating_sub(BLOCK_BYTES).max(offset);
                let Some(block) = self.read(at, from, end - from).await else { return end };
                for feed in memchr::memrchr_iter(b'\n', &block) {
                    let begin = from + feed as u64 + 1;
                    // Behind a line feed at the very end no line begins.
                    left -= u64::from(begin < last);
                    if left == 0 {
                        return begin;
                    }
                }
                end = from;
            }
        }
        if left == 0 { last } else { self.sources.first().map_or(0, |first| first.offset) }
    }

    fn pass(&mut self, block: &[u8]) {
        self.offset += block.len() as u64;
        self.lines += line_feeds(block);
    }

    /// Some bytes of a source; `None` if the depot does not give it.
    async fn read(&mut self, at: usize, from: u64, length: u64) -> Option<Bytes> {
        let source = &self.sources[at];
        let length = usize::try_from(length).expect("it is at most BLOCK_BYTES");
        let segment = match &source.place {
            Place::Buffer(chunk) => {
                let from = usize::try_from(from - source.offset).expect("it is within a chunk");
                return Some(Bytes::copy_from_slice(&chunk.bytes[from..from + length]));
            }
            Place::Depot(segment) => segment,
        };
        let read = async {
            if self.fetched.as_ref().is_none_or(|(fetched, _)| *fetched != at) {
                self.fetched = Some((at, Content::fetch(&self.blobs, segment).await?));
            }
            let (_, content) = self.fetched.as_mut().expect("it was fetched just now");
            content.read(from - source.offset, length).await
        };
        read.await.inspect_err(|error| warn!(error = chain(error), "stored output cannot be read")).ok()
    }
}

fn line_feeds(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

/// Where the `nth` line feed stands, counted from 1.
fn nth_line_feed(bytes: &[u8], nth: u64) -> Option<usize> {
    memchr::memchr_iter(b'\n', bytes).nth(usize::try_from(nth.checked_sub(1)?).ok()?)
}
