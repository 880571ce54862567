//! The end of what a stage says, as lines that are harmless to show.

use crate::command::text::{last_state, printable};

/// Bytes of output that are kept: more than the lines that are shown have, and little enough for any number of stages.
const BYTES_MAX: usize = 8 * 1024;
/// What is kept before the beginning is dropped: moving it for each small piece would take longer than reading it.
const BYTES_FULL: usize = 2 * BYTES_MAX;
/// Columns of a tab.
const TAB: &str = "    ";

/// The last bytes of an attempt's output.
#[derive(Debug, Clone, Default)]
pub(super) struct Tail {
    bytes: Vec<u8>,
    /// Whether something stood before the bytes that are kept.
    is_cut: bool,
}

impl Tail {
    pub(super) fn push(&mut self, piece: &[u8]) {
        if piece.len() >= BYTES_MAX {
            self.bytes.clear();
            self.bytes.extend_from_slice(piece.get(piece.len() - BYTES_MAX..).unwrap_or_default());
            self.is_cut = true;
            return;
        }
        self.bytes.extend_from_slice(piece);
        if self.bytes.len() > BYTES_FULL {
            self.bytes.drain(..self.bytes.len() - BYTES_MAX);
            self.is_cut = true;
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The last lines, at most so many, without what would steer the terminal; a line that has not ended is one.
    pub(super) fn lines(&self, count: usize) -> Vec<String> {
        let text = self.bytes.strip_suffix(b"\n").unwrap_or(&self.bytes);
        if text.is_empty() {
            return Vec::new();
        }
        let mut lines: Vec<&[u8]> = text.rsplit(|byte| *byte == b'\n').take(count + 1).collect();
        // The first one that is kept may be the rest of a longer line.
        let whole = text.split(|byte| *byte == b'\n').count();
        if self.is_cut && lines.len() == whole && whole > 1 {
            lines.pop();
        }
        lines.truncate(count);
        lines.reverse();
        lines.into_iter().map(|line| printable(last_state(&String::from_utf8_lossy(line)), false).replace('\t', TAB)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_of_any_output() {
        let mut tail = Tail::default();
        assert!(tail.lines(3).is_empty());
        tail.push(b"one\ntwo\n10%\r20%\r\nthree\tfo");
        tail.push(b"ur");
        assert_eq!(tail.lines(9), ["one", "two", "20%", "three    four"]);
        assert_eq!(tail.lines(2), ["20%", "three    four"]);
        tail.push(b"\n\x1b[2J\x1b[31mred\xff\n");
        assert_eq!(tail.lines(1), ["red\u{fffd}"]);
        for _ in 0..10_000 {
            tail.push(b"0123456789");
        }
        tail.push(b"\nlast\n");
        assert!(tail.bytes.len() <= BYTES_FULL);
        assert_eq!(tail.lines(5), ["last"], "the rest of a long line is no line");
        tail.push(&vec![b'x'; 100_000]);
        assert_eq!(tail.lines(5), ["x".repeat(BYTES_MAX)], "but it is shown where it is all there is");
    }
}
