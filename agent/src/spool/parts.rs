//! An attempt's output on the agent's disk, in parts: one that is being written, and those that are full and on their way to the depot.
//!
//! A part is two files. One has the bytes; the other has a line for each [`Begin`], that is for each stretch of bytes of one stream, which
//! ends where the next begins. A begin is written before its bytes, so a kill between the two leaves no byte unexplained.
//!
//! **Invariant:** whatever a stage says, and in pieces of whatever size, its output and what is written down about it take at most
//! [`OUTPUT_BYTES_MAX`] on the agent's disk, and at most [`PARTS_MAX`] parts in the depot.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Write as _},
    sync::{Arc, Mutex},
    time::Duration,
};

use model::{
    Timestamp,
    protocol::log::{CHUNK_BYTES_MAX, LogMark, Stream},
};
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::Instant};

use super::{Entry, OutputFiles};
use crate::executor::output::OutputError;

/// The most output of one attempt, with what is written down about it: what one stage says must not fill the disks of all.
pub(crate) const OUTPUT_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// What of it is kept for Otto's own words, so that the reason of the end is the end of the output.
const RESERVE_BYTES: u64 = 64 * 1024;
/// The bytes of a full part: large enough that a file each costs nothing, small enough to be fetched for some lines of it.
const PART_BYTES: u64 = 4 * 1024 * 1024;
/// The begins of a full part: with their lengths they are an index of about 2 MiB.
const PART_BEGINS_MAX: u32 = 16 * 1024;
/// The most parts: their list is one event, and a message of the bus has at most 1 MiB.
const PARTS_MAX: u32 = 2048;
/// A part that has as much is stored soon, though it is not full: the orchestrator's buffer may no longer hold all of it, and those who come
/// late are given it from the depot.
const SOON_BYTES: u64 = 512 * 1024;
/// What a begin counts there: about what a chunk takes in that buffer beside its bytes.
const SOON_BEGIN_BYTES: u64 = 256;
/// Parts that may be stored before they are full; with as many full ones as there can be they are fewer than [`PARTS_MAX`].
const SOON_PARTS_MAX: u32 = 1024;
/// How soon: about what somebody waits without wondering.
const SOON: Duration = Duration::from_secs(1);
/// Bytes of one stream that come within this time have one begin: what is said letter by letter needs no mark for each.
const BEGIN_MS: u64 = 100;

/// Where bytes of one stream begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Begin {
    offset: u64,
    step: u32,
    stream: Stream,
    at: Timestamp,
    #[serde(default)]
    lines_before: u64,
}

/// How far the output is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Progress {
    /// Parts that nobody writes to any more.
    pub(crate) full: u32,
    /// When the next one is to be stored, too.
    pub(crate) due_at: Option<Instant>,
}

/// The output of an attempt that is running. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    entry: Entry,
    open: Arc<Mutex<Open>>,
    progress: watch::Sender<Progress>,
}

/// The part that is being written.
#[derive(Debug)]
struct Open {
    number: u32,
    files: OutputFiles,
    bytes: u64,
    begins: u32,
    /// The last begin, and its bytes so far.
    last: Option<(Begin, usize)>,
    /// When its first byte came.
    since: Option<Instant>,
    /// Bytes of all parts, with their begins.
    spent: u64,
}

/// A part that can be stored.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ready {
    pub(crate) offset: u64,
    pub(crate) lines_before: u64,
    pub(crate) length: u64,
    /// [`LogMark`]s, one JSON object a line.
    pub(crate) index: Vec<u8>,
}

impl Parts {
    /// The output of an attempt that has said nothing.
    pub(crate) fn new(entry: Entry, files: OutputFiles) -> Self {
        let open = Open { number: 0, files, bytes: 0, begins: 0, last: None, since: None, spent: 0 };
        Self { entry, open: Arc::new(Mutex::new(open)), progress: watch::Sender::default() }
    }

    /// How far the output is, as it comes.
    pub(crate) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Writes what was said. `soon`: those who follow were not sent it. Blocks on the disk.
    pub(crate) fn append(&self, mark: &LogMark, bytes: &[u8], soon: bool) -> Result<(), OutputError> {
        let mut open = self.open.lock().expect("no holder of this lock panics");
        open.write(mark, bytes)?;
        open.since.get_or_insert_with(Instant::now);
        if open.bytes >= PART_BYTES || open.begins >= PART_BEGINS_MAX {
            self.turn(&mut open)?;
        } else if soon || open.bytes + u64::from(open.begins) * SOON_BEGIN_BYTES >= SOON_BYTES {
            self.hurry_with(&open);
        }
        Ok(())
    }

    /// What was said lately is to be stored soon: those who follow miss some of it.
    pub(crate) fn hurry(&self) {
        self.hurry_with(&self.open.lock().expect("no holder of this lock panics"));
    }

    fn hurry_with(&self, open: &Open) {
        if let Some(since) = open.since.filter(|_| open.number < SOON_PARTS_MAX) {
            self.progress.send_if_modified(|progress| progress.due_at.replace(since + SOON).is_none());
        }
    }

    /// Whether the part that is being written has something, and may be stored though it is not full.
    pub(crate) fn may_end_early(&self) -> bool {
        let open = self.open.lock().expect("no holder of this lock panics");
        open.since.is_some() && open.number < SOON_PARTS_MAX
    }

    /// Ends the part of this number, if it is still being written. Blocks on the disk.
    pub(crate) fn end(&self, number: u32) -> io::Result<()> {
        let mut open = self.open.lock().expect("no holder of this lock panics");
        if open.number == number { self.turn(&mut open) } else { Ok(()) }
    }

    fn turn(&self, open: &mut Open) -> io::Result<()> {
        let number = open.number + 1;
        let files = self.entry.open_part(number)?;
        *open = Open { number, files, bytes: 0, begins: 0, last: None, since: None, spent: open.spent };
        self.progress.send_replace(Progress { full: number, due_at: None });
        Ok(())
    }
}

impl Open {
    fn write(&mut self, mark: &LogMark, bytes: &[u8]) -> Result<(), OutputError> {
        let begin = Begin { offset: mark.offset, step: mark.step, stream: mark.stream, at: mark.at, lines_before: mark.lines_before };
        let goes_on = self.last.filter(|(last, length)| {
            let is_same = (last.step, last.stream) == (begin.step, begin.stream) && begin.at.since(last.at).as_millis() < BEGIN_MS.into();
            is_same && length + bytes.len() <= CHUNK_BYTES_MAX
        });
        let line = match goes_on {
            Some(_) => Vec::new(),
            None => line(&begin),
        };
        let reserve = if mark.stream == Stream::Otto { 0 } else { RESERVE_BYTES };
        let spent = self.spent + (line.len() + bytes.len()) as u64;
        if spent > OUTPUT_BYTES_MAX - reserve || self.number >= PARTS_MAX {
            return Err(OutputError::TooMuch);
        }
        (&self.files.index).write_all(&line)?;
        (&self.files.output).write_all(bytes)?;
        self.spent = spent;
        self.bytes += bytes.len() as u64;
        self.begins += u32::from(goes_on.is_none());
        let (last, length) = goes_on.unwrap_or((begin, 0));
        self.last = Some((last, length + bytes.len()));
        Ok(())
    }
}

/// The part of these two files, which nobody may be writing; `None` if it has no bytes. Where a full disk or a kill came between begins and
/// bytes, what is left of them agrees: a torn begin is left out, and what was said after it belongs to the one before.
pub(super) fn ready(output: &File, index: &File) -> io::Result<Option<Ready>> {
    let length = output.metadata()?.len();
    if length == 0 {
        return Ok(None);
    }
    let mut begins: Vec<Begin> = Vec::new();
    for line in BufReader::new(index).split(b'\n') {
        let Ok(begin) = serde_json::from_slice::<Begin>(&line?) else { break };
        let first = begins.first().map_or(begin.offset, |first| first.offset);
        let ascends = begins.last().is_none_or(|last| last.offset < begin.offset);
        match begins.last_mut() {
            _ if begin.offset >= first + length => break,
            _ if ascends => begins.push(begin),
            // Nothing was said since the one before.
            Some(last) if last.offset == begin.offset => *last = begin,
            Some(_) | None => break,
        }
    }
    let unknown = Begin { offset: 0, step: 0, stream: Stream::Out, at: Timestamp(0), lines_before: 0 };
    let first = *begins.first().unwrap_or(&unknown);
    if begins.is_empty() {
        begins.push(unknown);
    }
    let ends = begins.iter().skip(1).map(|begin| begin.offset).chain([first.offset + length]);
    let mut marks = Vec::new();
    for (begin, end) in begins.iter().zip(ends) {
        let Begin { offset, step, stream, at, lines_before } = *begin;
        let length = u32::try_from(end - offset).map_err(io::Error::other)?;
        marks.extend(line(&LogMark { offset, length, step, stream, at, lines_before }));
    }
    Ok(Some(Ready { offset: first.offset, lines_before: first.lines_before, length, index: marks }))
}

fn line(of: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(of).expect("it has text keys only");
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn made(output: &str, begins: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let (out, index) = (folder.path().join("output"), folder.path().join("index"));
        fs::write(&out, output).unwrap();
        fs::write(&index, begins).unwrap();
        let ready = ready(&File::open(out).unwrap(), &File::open(index).unwrap()).unwrap();
        ready.map_or_else(String::new, |ready| String::from_utf8(ready.index).unwrap())
    }

    fn parts(folder: &std::path::Path) -> Parts {
        let spool = crate::spool::Spool::open(folder, 0).unwrap();
        let (entry, files) = spool.make().unwrap();
        Parts::new(entry, files)
    }

    fn at(offset: u64, stream: Stream, length: usize) -> LogMark {
        LogMark { offset, length: u32::try_from(length).unwrap(), step: 0, stream, at: Timestamp(5), lines_before: 0 }
    }

    #[test]
    fn what_is_said_letter_by_letter_has_one_begin_and_each_change_of_streams_counts() {
        let folder = tempfile::tempdir().unwrap();
        let parts = parts(folder.path());
        for offset in 0..1_000 {
            parts.append(&at(offset, Stream::Out, 1), b"x", false).unwrap();
        }
        assert_eq!(parts.open.lock().unwrap().begins, 1);
        for offset in 1_000..2_000 {
            let stream = if offset % 2 == 0 { Stream::Err } else { Stream::Out };
            parts.append(&at(offset, stream, 1), b"x", false).unwrap();
        }
        let open = parts.open.lock().unwrap();
        assert_eq!(open.begins, 1_001);
        assert!(open.spent > 2_000 + 1_001 * 50, "what is written down counts: {}", open.spent);
    }

    #[test]
    fn what_is_too_much_is_refused_whole_and_leaves_room_for_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let parts = parts(folder.path());
        parts.append(&at(0, Stream::Out, 1), b"x", false).unwrap();
        parts.open.lock().unwrap().spent = OUTPUT_BYTES_MAX - RESERVE_BYTES - 2;
        parts.append(&at(1, Stream::Out, 2), b"yz", false).unwrap();
        assert!(matches!(parts.append(&at(3, Stream::Out, 1), b"x", false), Err(OutputError::TooMuch)));
        parts.append(&at(3, Stream::Otto, 1), b"!", false).unwrap();
        assert_eq!(fs::read(parts.entry.output(0)).unwrap(), b"xyz!");
    }

    fn begin(offset: u64) -> String {
        format!("{{\"offset\":{offset},\"step\":1,\"stream\":\"err\",\"at\":5,\"lines_before\":2}}\n")
    }

    fn mark(offset: u64, length: u32) -> String {
        format!("{{\"offset\":{offset},\"length\":{length},\"step\":1,\"stream\":\"err\",\"at\":5,\"lines_before\":2}}\n")
    }

    #[test]
    fn every_byte_has_a_mark_and_every_mark_its_bytes() {
        let (whole, one) = (mark(7, 3) + &mark(10, 2), mark(7, 5));
        assert_eq!(made("abcde", &(begin(7) + &begin(10))), whole);
        assert_eq!(made("abcde", &begin(7)), one, "a begin was not written");
        assert_eq!(made("abcde", &(begin(7) + "{\"offset\":3,\"st")), one, "a begin was torn");
        assert_eq!(made("abcde", &(begin(7) + "x" + &begin(10))), one, "a begin was damaged");
        assert_eq!(made("abc", &(begin(7) + &begin(10))), mark(7, 3), "nothing was said after a begin");
        assert_eq!(made("abcde", &(begin(7) + &begin(7) + &begin(10))), whole, "nothing was said between two begins");
        assert_eq!(made("abcde", &(begin(7) + &begin(10) + &begin(8))), whole, "a begin goes back");
        assert_eq!(made("", &begin(7)), "");
    }

    #[test]
    fn what_an_older_agent_wrote_down_is_read() {
        let old = "{\"offset\":0,\"length\":3,\"step\":1,\"stream\":\"err\",\"at\":5}\n";
        assert_eq!(made("abcde", old), mark(0, 5).replace("before\":2", "before\":0"));
    }
}
