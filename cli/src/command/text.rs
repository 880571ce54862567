//! Pieces of text that several commands print.

use std::{borrow::Cow, time::Duration};

use apispec::RunStatus;
use model::Timestamp;

/// The longest line that is gathered before it is printed; output without line breaks is cut here.
const LINE_BYTES_MAX: usize = 16 * 1024;

/// A duration as people say it.
pub(crate) fn duration(duration: Duration) -> String {
    let (s, ms) = (duration.as_secs(), duration.subsec_millis());
    match s {
        0..10 => format!("{s}.{:02} s", ms / 10),
        10..60 => format!("{s}.{} s", ms / 100),
        60..3_600 => format!("{} min {:02} s", s / 60, s % 60),
        _ => format!("{} h {:02} min", s / 3_600, s / 60 % 60),
    }
}

/// How long ago something was, in its largest unit.
pub(crate) fn ago(since: Timestamp, now: Timestamp) -> String {
    let s = now.since(since).as_secs();
    match s {
        0..60 => format!("{s} s ago"),
        60..3_600 => format!("{} min ago", s / 60),
        3_600..86_400 => format!("{} h ago", s / 3_600),
        _ => format!("{} d ago", s / 86_400),
    }
}

/// How a run stands that has not ended, and that no process goes on with.
pub(crate) const INTERRUPTED: &str = "interrupted";

/// Where a run stands, in a word.
pub(crate) fn status(status: &RunStatus) -> String {
    match status {
        RunStatus::Running => "running".to_owned(),
        RunStatus::Held { .. } => "held".to_owned(),
        RunStatus::Cancelling { .. } => "cancelling".to_owned(),
        RunStatus::Damaged { .. } => "damaged".to_owned(),
        RunStatus::Ended { outcome, .. } => outcome.to_string(),
    }
}

/// The beginning of a commit's id.
pub(crate) fn commit(id: &str) -> &str {
    id.get(..10).unwrap_or(id)
}

/// What stands in a column for nothing.
pub(crate) fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { printable(text, false) }
}

/// Columns, each as wide as its widest cell, without blanks at a line's end.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    rows.iter().fold(String::new(), |mut text, row| {
        let line = row.iter().zip(&widths).fold(String::new(), |line, (cell, width)| format!("{line}{cell:<width$}  "));
        text.push_str(line.trim_end());
        text.push('\n');
        text
    })
}

/// What a line shows in the end: a progress bar writes it again and again after a carriage return.
pub(crate) fn last_state(line: &str) -> &str {
    line.trim_end_matches(['\n', '\r']).rsplit('\r').next().unwrap_or_default()
}

/// A line of output as people see it: its last state, without what would steer the terminal.
pub(super) fn shown(line: &[u8], colours: bool) -> Cow<'_, str> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let is_plain = line.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
    if is_plain && let Ok(text) = str::from_utf8(line) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(printable(last_state(&String::from_utf8_lossy(line)), colours))
}

/// Bytes that come in pieces, as lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    open: Vec<u8>,
}

impl Lines {
    /// Gives every line that ends in the piece; a line without an end is cut at [`LINE_BYTES_MAX`].
    pub(super) fn take<E>(&mut self, piece: &[u8], mut each: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            let mut rest = part;
            while !rest.is_empty() {
                let room = LINE_BYTES_MAX - self.open.len();
                let (line, left) = rest.split_at(rest.len().min(room));
                let ends = line.ends_with(b"\n") || line.len() == room;
                if self.open.is_empty() && ends {
                    each(line)?;
                } else {
                    self.open.extend_from_slice(line);
                    if ends {
                        each(&std::mem::take(&mut self.open))?;
                    }
                }
                rest = left;
            }
        }
        Ok(())
    }

    /// Gives what has no line end.
    pub(super) fn end<E>(&mut self, each: impl FnOnce(&[u8]) -> Result<(), E>) -> Result<(), E> {
        if self.open.is_empty() { Ok(()) } else { each(&std::mem::take(&mut self.open)) }
    }
}

/// Whether a character steers what shows it: a control character, or one that has what follows shown in another order than it has.
pub(crate) fn is_steering(character: char) -> bool {
    character.is_control() || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text without what would move the cursor, ring, or change the terminal: output is not to be trusted with it. Colours stay where they
/// are wanted, and end with the line.
pub(crate) fn printable(text: &str, colours: bool) -> String {
    let mut printed = String::with_capacity(text.len());
    let mut coloured = false;
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        match character {
            '\x1b' => {
                let sequence = escape(&mut rest);
                if let Some(parameters) = sequence.filter(|_| colours) {
                    printed.push_str("\x1b[");
                    printed.push_str(&parameters);
                    printed.push('m');
                    coloured = !matches!(parameters.as_str(), "" | "0");
                }
            }
            '\t' => printed.push('\t'),
            character if is_steering(character) => {}
            character => printed.push(character),
        }
    }
    if coloured {
        printed.push_str("\x1b[0m");
    }
    printed
}

/// Reads past an escape sequence (ECMA-48); gives the parameters of one that sets colours.
fn escape(rest: &mut std::str::Chars<'_>) -> Option<String> {
    match rest.next()? {
        '[' => {
            let mut parameters = String::new();
            for character in rest {
                match character {
                    'm' if parameters.chars().all(|one| one.is_ascii_digit() || one == ';' || one == ':') => return Some(parameters),
                    '\x40'..='\x7e' => return None,
                    character => parameters.push(character),
                }
            }
            None
        }
        // A string for the terminal (a title, a link) ends with a bell or with `ESC \`.
        ']' | 'P' | 'X' | '^' | '_' => {
            let mut before = ' ';
            for character in rest {
                if character == '\x07' || (before == '\x1b' && character == '\\') {
                    break;
                }
                before = character;
            }
            None
        }
        _two_characters => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_cannot_change_the_terminal() {
        let check = |text: &str, plain: &str, coloured: &str| {
            assert_eq!((printable(text, false).as_str(), printable(text, true).as_str()), (plain, coloured), "{text:?}");
        };
        check("plain\ttext ✔", "plain\ttext ✔", "plain\ttext ✔");
        check("\x1b[1;32mgreen\x1b[0m", "green", "\x1b[1;32mgreen\x1b[0m");
        check("\x1b[31mred", "red", "\x1b[31mred\x1b[0m");
        check("a\x1b[2Jb\x1b[10;10Hc\x07d\x08e", "abcde", "abcde");
        check("\x1b]0;title\x07a\x1b]8;;http://x\x1b\\b", "ab", "ab");
        check("a\x1b[?25l\x1b(Bb\x1b", "aBb", "aBb");
        check("\x1b[38;5;", "", "");
        check("a\u{9b}2Jb\u{202e}c\u{2066}d", "a2Jbcd", "a2Jbcd");
        assert_eq!(last_state("10%\r20%\r100%\r\n"), "100%");
        assert_eq!(last_state("\r\n"), "");
    }

    #[test]
    fn lines_are_whole_however_their_bytes_come() {
        let long = "x".repeat(2 * LINE_BYTES_MAX + 1);
        let text = format!("a\n\nbc\u{1b}[2J\u{fffd}\n{long}\nend");
        let expected: Vec<String> =
            ["a", "", "bc\u{fffd}", "X", "X", "x", "end"].map(|line| line.replace('X', &"x".repeat(LINE_BYTES_MAX))).into();
        for size in [1, 7, LINE_BYTES_MAX, text.len()] {
            let (mut lines, mut given) = (Lines::default(), Vec::new());
            let mut each = |line: &[u8]| {
                given.push(shown(line, false).into_owned());
                Ok::<_, ()>(())
            };
            for piece in text.as_bytes().chunks(size) {
                lines.take(piece, &mut each).unwrap();
            }
            lines.end(each).unwrap();
            assert_eq!(given, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn durations_are_told_in_their_units() {
        let told = [4, 340, 12_300, 59_999, 125_000, 7_380_000].map(|ms| duration(Duration::from_millis(ms)));
        assert_eq!(told, ["0.00 s", "0.34 s", "12.3 s", "59.9 s", "2 min 05 s", "2 h 03 min"]);
        let now = Timestamp(200_000_000);
        let told = [1_000, 130_000, 7_300_000, 190_000_000].map(|ms| ago(Timestamp(now.0 - ms), now));
        assert_eq!(told, ["1 s ago", "2 min ago", "2 h ago", "2 d ago"]);
        assert_eq!(ago(Timestamp(5), Timestamp(4)), "0 s ago");
    }
}
