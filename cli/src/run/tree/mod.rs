//! A run on a terminal: its stages as a tree that is drawn again as things happen, at a bounded rate, and a summary at the end.

mod frame;
mod screen;
mod state;
mod tail;

#[cfg(test)]
mod tests;

use std::{
    io::{self, Write},
    time::Duration,
};

use anstyle::{AnsiColor, Style};
use apispec::{ChunkView, EventView, GapView};
use model::{RunId, Timestamp, plan::Plan};
use rustix::termios::tcgetwinsize;
use service::clock;

use self::{
    frame::{Line, Size, frame, summary},
    screen::Screen,
    state::Tree,
};

/// Between two drawings: as often as an eye wants, and seldom enough for any terminal and any amount of output.
pub(super) const DRAW_PAUSE: Duration = Duration::from_millis(80);
/// Of a terminal that does not tell.
const SIZE_DEFAULT: Size = Size { columns: 80, rows: 24 };

/// A question, as it is drawn below the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Prompt {
    pub(super) question: String,
    pub(super) choices: String,
    pub(super) typed: String,
    pub(super) problem: Option<String>,
}

/// The tree on a terminal.
#[derive(Debug)]
pub(super) struct TreeView<W> {
    out: W,
    screen: Screen,
    tree: Tree,
    run: RunId,
    notes: Vec<String>,
    changed: bool,
}

impl<W: Write> TreeView<W> {
    pub(super) fn new(out: W, colour: bool, run: &RunId, plan: &Plan) -> Self {
        Self { out, screen: Screen::new(colour), tree: Tree::new(plan), run: run.clone(), notes: vec![run.to_string()], changed: true }
    }

    pub(super) fn event(&mut self, event: &EventView) {
        self.tree.event(event);
        self.changed = true;
    }

    pub(super) fn output(&mut self, chunk: &ChunkView) {
        self.tree.output(chunk);
        self.changed = true;
    }

    pub(super) fn gap(&mut self, gap: &GapView) {
        self.tree.gap(gap);
        self.changed = true;
    }

    /// Says something above the tree.
    pub(super) fn say(&mut self, what: &str) {
        self.notes.push(what.to_owned());
        self.changed = true;
    }

    /// Draws what has changed; call it every [`DRAW_PAUSE`].
    pub(super) fn draw(&mut self, prompt: Option<&Prompt>) -> io::Result<()> {
        if !std::mem::take(&mut self.changed) && !self.tree.is_moving() {
            return Ok(());
        }
        self.flush_notes()?;
        let size = size();
        let lines = frame(&self.tree, Timestamp(clock::unix_ms()), size, prompt.map(lines_of).unwrap_or_default());
        self.screen.draw(&mut self.out, lines, size, prompt.is_some())
    }

    /// Draws the last picture, which stays.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.flush_notes()?;
        let size = size();
        self.screen.leave(&mut self.out, &summary(&self.tree, self.run.as_str(), size), size)
    }

    /// Leaves the tree as it stands.
    pub(super) fn leave(&mut self) -> io::Result<()> {
        self.flush_notes()?;
        let size = size();
        let lines = frame(&self.tree, Timestamp(clock::unix_ms()), size, Vec::new());
        self.screen.leave(&mut self.out, &lines, size)
    }

    fn flush_notes(&mut self) -> io::Result<()> {
        if self.notes.is_empty() {
            return Ok(());
        }
        let dim = AnsiColor::BrightBlack.on_default();
        let lines: Vec<Line> = std::mem::take(&mut self.notes).into_iter().map(|note| Line::default().with(dim, note)).collect();
        self.screen.leave(&mut self.out, &lines, size())
    }
}

fn lines_of(prompt: &Prompt) -> Vec<Line> {
    let yellow = AnsiColor::Yellow.on_default();
    let mut lines = vec![Line::default().with(yellow.bold(), format!("? {}", prompt.question))];
    if let Some(problem) = &prompt.problem {
        lines.push(Line::default().with(AnsiColor::Red.on_default(), format!("  {problem}")));
    }
    let typed: String = prompt.typed.chars().filter(|character| !character.is_control()).collect();
    lines.push(Line::default().with(yellow, format!("  ({}) ", prompt.choices)).with(Style::new(), typed));
    lines
}

fn size() -> Size {
    let Ok(size) = tcgetwinsize(io::stdout()) else { return SIZE_DEFAULT };
    match (usize::from(size.ws_col), usize::from(size.ws_row)) {
        (0, _) | (_, 0) => SIZE_DEFAULT,
        (columns, rows) => Size { columns, rows },
    }
}
