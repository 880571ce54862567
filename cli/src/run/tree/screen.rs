//! The terminal: lines that are drawn over those that were drawn before, in one write, without flicker.

use std::io::{self, Write};

use super::frame::{Line, Size};

/// Begins a change that the terminal shows as a whole; a terminal that does not know it (DEC mode 2026) ignores it.
const BEGIN: &str = "\x1b[?2026h\x1b[?25l";
const END: &str = "\x1b[?2026l";
const SHOW_CURSOR: &str = "\x1b[?25h";

/// Where lines are drawn. The cursor stands at the end of the last one.
#[derive(Debug)]
pub(super) struct Screen {
    colour: bool,
    drawn: Vec<Line>,
    columns: usize,
}

impl Screen {
    pub(super) fn new(colour: bool) -> Self {
        Self { colour, drawn: Vec::new(), columns: 0 }
    }

    /// Draws the lines where the last ones stand. Nothing is written if nothing has changed.
    pub(super) fn draw(&mut self, out: &mut impl Write, lines: Vec<Line>, size: Size, cursor: bool) -> io::Result<()> {
        if lines == self.drawn && size.columns == self.columns {
            return Ok(());
        }
        let mut text = format!("{BEGIN}{}", self.back(size.columns));
        let last = lines.len().saturating_sub(1);
        for (at, line) in lines.iter().enumerate() {
            text.push_str(&line.rendered(self.colour));
            text.push_str(if at == last { "\x1b[J" } else { "\x1b[K\r\n" });
        }
        if lines.is_empty() {
            text.push_str("\x1b[J");
        }
        if cursor {
            text.push_str(SHOW_CURSOR);
        }
        text.push_str(END);
        self.drawn = lines;
        self.columns = size.columns;
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    /// Draws the lines for the last time, and goes on below them.
    pub(super) fn leave(&mut self, out: &mut impl Write, lines: &[Line], size: Size) -> io::Result<()> {
        let mut text = format!("{BEGIN}{}\x1b[J", self.back(size.columns));
        for line in lines {
            text.push_str(&line.rendered(self.colour));
            text.push_str("\r\n");
        }
        text.push_str(SHOW_CURSOR);
        text.push_str(END);
        self.drawn.clear();
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    /// To the beginning of what was drawn. A terminal that has become narrower has broken long lines.
    fn back(&self, columns: usize) -> String {
        let rows = |line: &Line| line.columns().max(1).div_ceil(columns.max(1));
        let ups = self.drawn.iter().map(rows).sum::<usize>().saturating_sub(1);
        if ups == 0 { "\r".to_owned() } else { format!("\r\x1b[{ups}A") }
    }
}
