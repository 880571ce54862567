//! The end of what a stage says, as lines that are harmless to show.

use model::protocol::log::Stream;

use crate::command::text::{last_state, printable};

/// Bytes of output that are kept: more than the lines that are shown have, and little enough for any number of stages.
const BYTES_MAX: usize = 8 * 1024;
/// What is kept before the beginning is dropped: moving it for each small piece would take longer than reading it.
const BYTES_FULL: usize = 2 * BYTES_MAX;
/// Columns of a tab.
const TAB: &str = "    ";

/// The last bytes of an attempt's output. Its streams are written by turns and in pieces, so a line is shown as one of a single stream.
#[derive(Debug, Clone, Default)]
pub(super) struct Tail {
    /// Lines that have ended.
    ended: Vec<u8>,
    /// What each stream has begun: standard output, standard error, Otto.
    begun: [Vec<u8>; 3],
    /// Whether something stood before the bytes that are kept.
    is_cut: bool,
}

impl Tail {
    pub(super) fn push(&mut self, stream: Stream, piece: &[u8]) {
        let kept = piece.get(piece.len().saturating_sub(BYTES_MAX)..).unwrap_or_default();
        self.is_cut |= kept.len() < piece.len();
        let begun = match stream {
            Stream::Out => &mut self.begun[0],
            Stream::Err => &mut self.begun[1],
            Stream::Otto => &mut self.begun[2],
        };
        begun.extend_from_slice(kept);
        if let Some(end) = memchr::memrchr(b'\n', begun) {
            self.ended.extend(begun.drain(..=end));
        }
        for bytes in [begun, &mut self.ended] {
            if bytes.len() > BYTES_FULL {
                bytes.drain(..bytes.len() - BYTES_MAX);
                self.is_cut = true;
            }
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The last lines, at most so many, without what would steer the terminal; lines that have not ended come last.
    pub(super) fn lines(&self, count: usize) -> Vec<String> {
        let ended = self.ended.strip_suffix(b"\n").unwrap_or(&self.ended);
        let mut lines: Vec<&[u8]> = if self.ended.is_empty() { Vec::new() } else { ended.split(|byte| *byte == b'\n').collect() };
        let begun = self.begun.iter().filter(|begun| !begun.is_empty()).map(Vec::as_slice);
        // The first one that is kept may be the rest of a longer line.
        let first = usize::from(self.is_cut && !lines.is_empty());
        lines.drain(..first);
        lines.extend(begun);
        let shown = lines.split_off(lines.len().saturating_sub(count));
        shown.into_iter().map(|line| printable(last_state(&String::from_utf8_lossy(line)), false).replace('\t', TAB)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_of_any_output() {
        let mut tail = Tail::default();
        assert!(tail.lines(3).is_empty());
        tail.push(Stream::Out, b"one\ntwo\n10%\r20%\r\nthree\tfo");
        tail.push(Stream::Out, b"ur");
        assert_eq!(tail.lines(9), ["one", "two", "20%", "three    four"]);
        assert_eq!(tail.lines(2), ["20%", "three    four"]);
        tail.push(Stream::Out, b"\n\x1b[2J\x1b[31mred\xff\n");
        assert_eq!(tail.lines(1), ["red\u{fffd}"]);
        for _ in 0..10_000 {
            tail.push(Stream::Out, b"0123456789");
        }
        tail.push(Stream::Out, b"\nlast\n");
        assert!(tail.ended.len() <= BYTES_FULL);
        assert_eq!(tail.lines(1), ["last"]);
        tail.push(Stream::Out, &vec![b'x'; 100_000]);
        assert_eq!(tail.lines(1), ["x".repeat(BYTES_MAX)], "of a line without an end, the end is shown");
    }

    #[test]
    fn streams_that_write_by_turns_do_not_share_a_line() {
        let mut tail = Tail::default();
        for (stream, piece) in [(Stream::Err, "+ "), (Stream::Out, "began\n"), (Stream::Err, "exec it\n"), (Stream::Out, "goes")] {
            tail.push(stream, piece.as_bytes());
        }
        assert_eq!(tail.lines(5), ["began", "+ exec it", "goes"]);
    }
}
