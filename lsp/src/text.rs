//! Places in a text: bytes, as the parser counts, and lines with UTF-16 code units, as editors do.

use lsp_types::{Position, Range};
use model::diagnostic::Span;

/// Bytes from one mark to the next: so many are looked at for a position, however long its line is.
const MARK_BYTES: usize = 256;

/// A text with the beginnings of its lines.
#[derive(Debug, Clone)]
pub(crate) struct Text {
    source: String,
    starts: Vec<usize>,
    /// The UTF-16 units before each multiple of [`MARK_BYTES`]: a file may be one line, with thousands of places in it.
    marks: Vec<u32>,
}

impl Text {
    pub(crate) fn new(source: String) -> Self {
        let after_breaks = source.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(place, _)| place + 1);
        let starts = std::iter::once(0).chain(after_breaks).collect();
        let mut marks = vec![0];
        for chunk in source.as_bytes().chunks(MARK_BYTES) {
            marks.push(marks.last().copied().unwrap_or(0) + units(chunk));
        }
        Self { source, starts, marks }
    }

    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// The byte of a position. One behind a line's end is that end.
    pub(crate) fn offset(&self, position: Position) -> usize {
        let line = usize::try_from(position.line).unwrap_or(usize::MAX);
        let Some(start) = self.starts.get(line).copied() else { return self.source.len() };
        let end = self.starts.get(line + 1).copied().unwrap_or(self.source.len());
        let text = self.source.get(start..end).unwrap_or_default().trim_end_matches(['\n', '\r']);
        let mut units = 0;
        for (place, character) in text.char_indices() {
            if units >= position.character {
                return start + place;
            }
            units += utf16(character);
        }
        start + text.len()
    }

    /// The position of a byte.
    pub(crate) fn position(&self, offset: usize) -> Position {
        let line = self.starts.partition_point(|start| *start <= offset).saturating_sub(1);
        let start = self.starts.get(line).copied().unwrap_or_default();
        Position { line: u32::try_from(line).unwrap_or(u32::MAX), character: self.units_before(offset) - self.units_before(start) }
    }

    /// The UTF-16 units before a byte.
    fn units_before(&self, offset: usize) -> u32 {
        let offset = offset.min(self.source.len());
        let mark = offset / MARK_BYTES;
        self.marks[mark] + units(&self.source.as_bytes()[mark * MARK_BYTES..offset])
    }

    pub(crate) fn range(&self, span: Span) -> Range {
        Range { start: self.position(span.start), end: self.position(span.end) }
    }

    /// All of it.
    pub(crate) fn whole(&self) -> Range {
        self.range(Span { start: 0, end: self.source.len() })
    }
}

/// The UTF-16 units of the characters that begin in these bytes of a text.
fn units(bytes: &[u8]) -> u32 {
    bytes.iter().map(|byte| u32::from(byte & 0xC0 != 0x80) + u32::from(*byte >= 0xF0)).sum()
}

fn utf16(character: char) -> u32 {
    if character.len_utf16() == 1 { 1 } else { 2 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_counted_in_utf16() {
        let text = Text::new("aä😀b\r\nc\n".to_owned());
        for (offset, line, character) in [(0, 0, 0), (1, 0, 1), (3, 0, 2), (7, 0, 4), (8, 0, 5), (10, 1, 0), (11, 1, 1), (12, 2, 0)] {
            let position = Position { line, character };
            assert_eq!(text.position(offset), position, "{offset}");
            assert_eq!(text.offset(position), offset, "{position:?}");
        }
        assert_eq!(text.offset(Position { line: 0, character: 99 }), 8);
        for length in [255, 256, 257, 512, 1024] {
            let source = "aä😀".repeat(length);
            let text = Text::new(source.clone());
            for (offset, _) in source.char_indices().step_by(7).chain([(source.len(), ' ')]) {
                let character = u32::try_from(source.get(..offset).unwrap().encode_utf16().count()).unwrap();
                assert_eq!(text.position(offset), Position { line: 0, character }, "{offset} of {length}");
            }
        }
        assert_eq!(text.offset(Position { line: 9, character: 0 }), 12);
    }
}
