//! The tree as lines that fit a terminal: what runs, what is asked and what failed comes first where there is no room for all.

use std::{collections::BTreeSet, time::Duration};

use anstyle::{AnsiColor, Style};
use model::{StageOutcome, Timestamp};
use unicode_width::UnicodeWidthChar as _;

use super::state::{Leaf, Node, State, Tree};
use crate::command::text::{duration, is_steering, printable};

/// Lines of output that are shown below a running stage, where there is room.
const TAIL_LINES: usize = 5;
/// Lines of output that are shown of a stage that failed, when the run is over.
const FAILED_LINES: usize = 20;
/// Stages that are listed one by one when the run is over; of more, only those that did not succeed.
const LISTED_MAX: usize = 40;
/// Of the sign of what runs, one after the other.
const SPINNER: [char; 10] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];
/// How long each sign stands.
const SPIN_MS: u64 = 100;

/// What a terminal can show, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) columns: usize,
    pub(super) rows: usize,
}

/// A line, as pieces with their styles.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Line(Vec<(Style, String)>);

impl Line {
    /// Adds a piece. Whoever wrote its text, and whatever was forgotten on the way here: nothing in it steers the terminal.
    pub(super) fn with(mut self, style: impl Into<Style>, text: impl Into<String>) -> Self {
        let mut text = text.into();
        text.retain(|character| !is_steering(character));
        self.0.push((style.into(), text));
        self
    }

    pub(super) fn plain(text: impl Into<String>) -> Self {
        Self::default().with(Style::new(), text)
    }

    /// The columns that it takes.
    pub(super) fn columns(&self) -> usize {
        self.0.iter().map(|(_, text)| columns(text)).sum()
    }

    /// The line in at most so many columns; a cut is marked.
    pub(super) fn fitted(self, most: usize) -> Self {
        if self.columns() <= most {
            return self;
        }
        let mut left = most.saturating_sub(1);
        let mut fitted = Self::default();
        for (style, text) in self.0 {
            let mut piece = String::new();
            for character in text.chars() {
                let width = character.width().unwrap_or(0);
                if width > left {
                    piece.push('…');
                    return fitted.with(style, piece);
                }
                left -= width;
                piece.push(character);
            }
            fitted = fitted.with(style, piece);
        }
        fitted
    }

    /// As it is written.
    pub(super) fn rendered(&self, colour: bool) -> String {
        self.0.iter().map(|(style, text)| if colour { format!("{style}{text}{style:#}") } else { text.clone() }).collect()
    }
}

fn columns(text: &str) -> usize {
    text.chars().map(|character| character.width().unwrap_or(0)).sum()
}

const DIM: AnsiColor = AnsiColor::BrightBlack;

fn dim() -> Style {
    DIM.on_default()
}

/// The run as it stands. `extra` comes last, and always has room.
pub(super) fn frame(tree: &Tree, now: Timestamp, size: Size, extra: Vec<Line>) -> Vec<Line> {
    let width = size.columns.saturating_sub(1).max(1);
    // A row stays free: the cursor may stand there.
    let budget = size.rows.saturating_sub(2 + extra.len());
    let shown = chosen(tree, budget);
    let hidden = tree.nodes.len() - shown.len();
    let mut room = budget.saturating_sub(shown.len() + usize::from(hidden > 0));
    let mut tails: Vec<usize> = vec![0; tree.nodes.len()];
    // A line for each that runs before a second one for any.
    for _ in 0..TAIL_LINES {
        for (at, node) in tree.nodes.iter().enumerate().filter(|(at, _)| shown.contains(at)) {
            let running = node.stage.as_deref().filter(|leaf| matches!(leaf.state, State::Running { .. }));
            if room > 0 && running.is_some_and(|leaf| leaf.tail.lines(TAIL_LINES).len() > tails[at]) {
                tails[at] += 1;
                room -= 1;
            }
        }
    }
    let names = name_columns(tree);
    let mut lines = Vec::new();
    for (at, node) in tree.nodes.iter().enumerate().filter(|(at, _)| shown.contains(at)) {
        lines.push(row(node, now, names));
        if let Some(leaf) = &node.stage {
            lines.extend(tail(node, &leaf.tail.lines(tails[at])));
        }
    }
    if hidden > 0 && budget > 0 {
        lines.push(Line::default().with(dim(), format!("… {hidden} more")));
    }
    lines.push(footer(tree, now));
    lines.extend(extra);
    lines.into_iter().map(|line| line.fitted(width)).collect()
}

/// What is left on the terminal when the run is over.
pub(super) fn summary(tree: &Tree, run: &str, size: Size) -> Vec<Line> {
    let width = size.columns.saturating_sub(1).max(1);
    let end = tree.ended.map_or_else(|| tree.accepted_at.unwrap_or(Timestamp(0)), |(_, at)| at);
    let all = tree.leaves().count() <= LISTED_MAX;
    let names = name_columns(tree);
    let wanted = |node: &&Node| all || node.stage.as_deref().is_some_and(|leaf| leaf.state.is_bad() || !leaf.state.is_over());
    let mut lines: Vec<Line> = tree.nodes.iter().filter(wanted).map(|node| row(node, end, names)).collect();
    for leaf in tree.leaves().filter(|leaf| leaf.state.is_bad()) {
        let path = printable(&leaf.path, false);
        let said = leaf.tail.lines(FAILED_LINES);
        if !said.is_empty() {
            lines.push(Line::default());
            lines.push(Line::default().with(AnsiColor::Red.on_default(), path.clone()).with(dim(), ", the end of its output:"));
            lines.extend(said.into_iter().map(|line| Line::default().with(dim(), "  │ ").with(Style::new(), line)));
            let quoted = leaf.path.replace('\'', "'\\''");
            lines.push(Line::default().with(dim(), format!("  all of it: otto log {run} --stage '{}'", printable(&quoted, false))));
        }
    }
    lines.push(footer(tree, end));
    lines.into_iter().map(|line| line.fitted(width)).collect()
}

/// The nodes that there is room for.
fn chosen(tree: &Tree, budget: usize) -> BTreeSet<usize> {
    if tree.nodes.len() <= budget {
        return (0..tree.nodes.len()).collect();
    }
    // One line says how many are not shown.
    let budget = budget.saturating_sub(1);
    let mut order: Vec<(u8, usize)> = tree.nodes.iter().enumerate().map(|(at, node)| (urgency(node), at)).collect();
    order.sort_unstable();
    order.into_iter().take(budget).map(|(_, at)| at).collect()
}

fn urgency(node: &Node) -> u8 {
    match node.stage.as_deref().map(|leaf| &leaf.state) {
        Some(State::Held { .. }) => 0,
        Some(State::Running { .. }) => 1,
        Some(state) if state.is_bad() => 2,
        Some(State::Ready) => 3,
        Some(State::Waiting) => 4,
        None => 5,
        Some(State::Ended { .. } | State::Reused { .. } | State::Lost { .. } | State::Skipped { .. }) => 6,
    }
}

/// How wide names are, with what stands before them.
fn name_columns(tree: &Tree) -> usize {
    const NAMES_MAX: usize = 40;
    let widths = tree.nodes.iter().filter(|node| node.stage.is_some()).map(|node| 2 * node.depth + columns(&node.name));
    widths.max().unwrap_or(0).min(NAMES_MAX)
}

fn row(node: &Node, now: Timestamp, names: usize) -> Line {
    let indent = " ".repeat(2 * node.depth);
    let Some(leaf) = node.stage.as_deref() else {
        return Line::plain(format!("{indent}▾ ")).with(Style::new().bold(), node.name.clone());
    };
    let (sign, style, time, what) = told(leaf, now);
    let pad = " ".repeat(names.saturating_sub(2 * node.depth + columns(&node.name)));
    let name = if matches!(leaf.state, State::Waiting | State::Skipped { .. }) { dim() } else { Style::new() };
    let time = time.map(duration).unwrap_or_default();
    let line = Line::plain(indent).with(style, sign).with(Style::new(), " ").with(name, node.name.clone());
    if time.is_empty() && what.is_empty() {
        return line;
    }
    let line = line.with(Style::new(), format!("{pad}  {time:>8}"));
    if what.is_empty() { line } else { line.with(Style::new(), "  ").with(dim(), what) }
}

/// Sign, its style, a time, and a few words.
fn told(leaf: &Leaf, now: Timestamp) -> (char, Style, Option<Duration>, String) {
    let again = leaf.again().map(|attempt| format!(" (attempt {attempt})")).unwrap_or_default();
    match &leaf.state {
        State::Waiting => ('·', dim(), None, String::new()),
        State::Held { what, since } => ('?', AnsiColor::Yellow.on_default(), Some(now.since(*since)), what.clone()),
        State::Ready => ('○', AnsiColor::Cyan.on_default(), None, format!("waits for an agent{again}")),
        State::Running { since } => {
            let took = now.since(*since);
            let turn = u64::try_from(took.as_millis()).unwrap_or(0) / SPIN_MS;
            let place = usize::try_from(turn).unwrap_or(0) % SPINNER.len();
            (SPINNER[place], AnsiColor::Cyan.on_default(), Some(took), format!("{}{again}", leaf.title()))
        }
        State::Ended { outcome, took_ms, why } => {
            let (sign, colour) = sign(*outcome);
            (sign, colour.on_default(), took_ms.map(Duration::from_millis), format!("{}{again}", why.clone().unwrap_or_default()))
        }
        State::Reused { outcome } => {
            let (sign, _) = sign(*outcome);
            (sign, dim(), None, "as in the run before".to_owned())
        }
        State::Lost { why } => ('✘', AnsiColor::Red.on_default(), None, format!("lost: {why}")),
        State::Skipped { why } => ('–', dim(), None, format!("skipped: {why}")),
    }
}

fn sign(outcome: StageOutcome) -> (char, AnsiColor) {
    match outcome {
        StageOutcome::Success => ('✔', AnsiColor::Green),
        StageOutcome::Unstable => ('!', AnsiColor::Yellow),
        StageOutcome::Failure => ('✘', AnsiColor::Red),
        StageOutcome::Aborted => ('■', AnsiColor::Yellow),
    }
}

fn tail(node: &Node, lines: &[String]) -> Vec<Line> {
    let indent = " ".repeat(2 * node.depth + 2);
    lines.iter().map(|line| Line::default().with(dim(), format!("{indent}│ {line}"))).collect()
}

/// How far the run is.
fn footer(tree: &Tree, now: Timestamp) -> Line {
    let count = |is: fn(&State) -> bool| tree.leaves().filter(|leaf| is(&leaf.state)).count();
    let took = tree.accepted_at.map(|began| duration(now.since(began))).unwrap_or_default();
    let (all, over) = (tree.leaves().count(), count(State::is_over));
    let bad = count(State::is_bad);
    let skipped = count(|state| matches!(state, State::Skipped { .. }));
    let mut words = vec![match tree.ended {
        Some((outcome, _)) => format!("run: {outcome} in {took}"),
        None => format!("{over} of {all} stages, {took}"),
    }];
    if bad > 0 {
        words.push(format!("{bad} not successful"));
    }
    if skipped > 0 {
        words.push(format!("{skipped} skipped"));
    }
    words.extend(tree.notice.clone().filter(|_| tree.ended.is_none()));
    let style = match tree.ended {
        Some((outcome, _)) => crate::command::follow::colour_of_run(outcome).on_default().bold(),
        None => dim(),
    };
    Line::default().with(style, words.join(" · "))
}
