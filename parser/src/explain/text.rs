//! Words of an explanation: values, durations, sizes, conditions and waits as they are written in a pipeline, and the paper they stand on.
//!
//! **Invariant:** nothing that came from a file reaches a line without [`printable`]: it cannot steer a terminal, nor hide.

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
};

use anstyle::{AnsiColor, Effects, Style};
use model::plan::{Condition, Function, Value, Wait};

use crate::diagnostic::is_hidden;

/// What a piece of text is, and so its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ink {
    /// The head of a section.
    Head,
    /// A stage.
    Name,
    /// What only leads the eye.
    Quiet,
    /// Skipped, or undone.
    Skip,
    /// Waited for.
    Wait,
    /// About a credential.
    Secret,
    /// Only in the second of two plans.
    Added,
    /// Only in the first of two plans.
    Removed,
}

impl Ink {
    fn style(self) -> Style {
        let coloured = |colour: AnsiColor| Style::new().fg_color(Some(colour.into()));
        match self {
            Self::Head => Style::new().effects(Effects::BOLD | Effects::UNDERLINE),
            Self::Name => Style::new().effects(Effects::BOLD),
            Self::Quiet => Style::new().effects(Effects::DIMMED),
            Self::Skip => coloured(AnsiColor::Yellow),
            Self::Wait => coloured(AnsiColor::Cyan),
            Self::Secret => coloured(AnsiColor::Magenta),
            Self::Added => coloured(AnsiColor::Green),
            Self::Removed => coloured(AnsiColor::Red),
        }
    }
}

/// Lines that are written one after the other, in colour or without.
#[derive(Debug)]
pub(super) struct Paper {
    text: String,
    colour: bool,
}

impl Paper {
    pub(super) fn new(colour: bool) -> Self {
        Self { text: String::new(), colour }
    }

    /// The text in its colour, if there are colours.
    pub(super) fn ink(&self, ink: Ink, text: &str) -> String {
        if self.colour && !text.is_empty() {
            let style = ink.style();
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }

    /// Writes a line, two blanks for each level of `depth` before it.
    pub(super) fn line(&mut self, depth: usize, line: &str) {
        self.indented(depth * 2, &["", line.trim_end()]);
    }

    fn indented(&mut self, blanks: usize, parts: &[&str]) {
        if parts.iter().any(|part| !part.is_empty()) {
            self.text.extend(std::iter::repeat_n(' ', blanks));
            self.text.extend(parts.iter().copied());
        }
        self.text.push('\n');
    }

    /// Begins a section, an empty line before it.
    pub(super) fn section(&mut self, title: &str) {
        if !self.text.is_empty() {
            self.line(0, "");
        }
        let title = self.ink(Ink::Head, title);
        self.line(0, &title);
    }

    /// Writes lines of which the first has `label` before it, and the others blanks. The label has `width` columns and a blank.
    pub(super) fn labelled(&mut self, depth: usize, (label, width): (&str, usize), lines: &[String], ink: Option<Ink>) {
        let label = self.ink(Ink::Quiet, &format!("{label:<width$}"));
        for (place, line) in lines.iter().enumerate() {
            let line = ink.map_or(Cow::Borrowed(line.trim_end()), |ink| Cow::Owned(self.ink(ink, line)));
            if place == 0 {
                self.indented(depth * 2, &[&label, " ", &line]);
            } else {
                self.indented(depth * 2 + width + 1, &[&line]);
            }
        }
    }

    /// Writes two columns; the first is as wide as its widest cell, up to [`COLUMN_MAX`].
    pub(super) fn rows(&mut self, rows: &[(String, String)], ink: Option<Ink>) {
        let widths = rows.iter().map(|(first, _)| first.chars().count()).filter(|width| *width <= COLUMN_MAX);
        let width = widths.max().unwrap_or(0);
        for (first, second) in rows {
            let first = self.ink(Ink::Name, &format!("{first:<width$}"));
            let second = ink.map_or_else(|| second.clone(), |ink| self.ink(ink, second));
            self.line(1, &format!("{first}  {second}"));
        }
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }
}

/// Columns of a first cell that others are aligned with; wider ones stand out.
const COLUMN_MAX: usize = 40;
/// Names that one line tells; the picture of the graph has them all.
const NAMES_MAX: usize = 8;

/// Stages that a line stands for and that are all named.
const BESIDE_MAX: usize = 3;

/// A text in which nothing steers a terminal or hides: what is shown must be what will run, so such characters are written as escapes.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        shown.push_str(text);
        return shown;
    }
    for character in text.chars() {
        match character {
            '\t' => shown.push('\t'),
            hidden if is_hidden(hidden) => shown.extend(hidden.escape_unicode()),
            plain => shown.push(plain),
        }
    }
    shown
}

/// A text in quotes, as a pipeline has it.
pub(super) fn text(text: &str) -> String {
    if text.contains('\'') { format!("'{}'", printable(&text.replace('\'', "''"))) } else { format!("'{}'", printable(text)) }
}

/// A value as a pipeline has it.
pub(super) fn value(shown: &Value) -> String {
    match shown {
        Value::Boolean(boolean) => boolean.to_string(),
        Value::Integer(number) => number.to_string(),
        Value::Text(shown) => text(shown),
        Value::Decimal { decimal } => printable(decimal),
        Value::Variable { variable } => format!("vars.{}", printable(variable)),
        Value::Call { function, arguments } => {
            let name = match function {
                Function::Concat => "concat",
                Function::Format => "format",
                Function::Join => "join",
            };
            format!("{name}({})", joined(arguments.iter().map(value)))
        }
        Value::Steps { steps } => format!("[{}]", steps.iter().map(|step| printable(&step.symbol)).collect::<Vec<_>>().join(" ")),
        Value::List(values) => format!("[{}]", joined(values.iter().map(value))),
    }
}

/// A condition as a pipeline has it.
pub(super) fn condition(shown: &Condition) -> String {
    match shown {
        Condition::Is(one) => value(one),
        Condition::Equal(left, right) => format!("{} == {}", value(left), value(right)),
        Condition::In(one, values) => format!("{} in [{}]", value(one), joined(values.iter().map(value))),
        Condition::Matches(one, pattern) => format!("{} matches {}", value(one), text(pattern)),
        Condition::Not(inner) => match &**inner {
            Condition::Equal(left, right) => format!("{} != {}", value(left), value(right)),
            Condition::Is(_) | Condition::Not(_) => format!("!{}", condition(inner)),
            Condition::In(..) | Condition::Matches(..) | Condition::All(_) | Condition::Any(_) => format!("!({})", condition(inner)),
        },
        Condition::All(parts) => together(parts, "&&"),
        Condition::Any(parts) => together(parts, "||"),
    }
}

fn together(parts: &[Condition], operator: &str) -> String {
    let part = |part: &Condition| match part {
        Condition::All(_) | Condition::Any(_) => format!("({})", condition(part)),
        Condition::Is(_) | Condition::Equal(..) | Condition::In(..) | Condition::Matches(..) | Condition::Not(_) => condition(part),
    };
    parts.iter().map(part).collect::<Vec<_>>().join(&format!(" {operator} "))
}

/// Who or what is waited for, and how long.
pub(super) fn wait(shown: &Wait) -> String {
    let limit = |timeout_ms: &Option<u64>| timeout_ms.map_or_else(|| " (without a limit)".to_owned(), at_most);
    match shown {
        Wait::Confirm { message, by, timeout_ms } => format!("{} approves: {}{}", person(by), value(message), limit(timeout_ms)),
        Wait::Prompt { message, into, options, by, timeout_ms } => {
            let from =
                if options.is_empty() { String::new() } else { format!(" (one of {})", joined(options.iter().map(|one| text(one)))) };
            format!("{} answers into vars.{}: {}{from}{}", person(by), printable(into), value(message), limit(timeout_ms))
        }
        Wait::Webhook { description, timeout_ms } => format!("an outside system calls back: {}{}", value(description), limit(timeout_ms)),
        Wait::Poll { url, status, every_ms, timeout_ms } => {
            format!("{} answers {status}, asked every {}{}", value(url), duration(*every_ms), at_most(*timeout_ms))
        }
        Wait::Time { ms } => format!("{} pass", duration(*ms)),
        Wait::Pause => "a person resumes the run".to_owned(),
    }
}

fn at_most(timeout_ms: u64) -> String {
    format!(" (at most {})", duration(timeout_ms))
}

fn person(by: &[String]) -> String {
    if by.is_empty() { "a person".to_owned() } else { format!("a person of {}", joined(by.iter().map(|who| printable(who)))) }
}

/// Adds to a text.
pub(super) fn push(text: &mut String, more: fmt::Arguments<'_>) {
    text.write_fmt(more).expect("writing to a string cannot fail");
}

/// With commas.
pub(super) fn joined(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}

/// With commas, and from a certain number on only the first of them.
pub(super) fn shortened(names: &[String]) -> String {
    let shown = joined(names.iter().take(NAMES_MAX).cloned());
    let more = names.len().saturating_sub(NAMES_MAX);
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

/// Stages for which one line stands; of many, the first and the last.
pub(super) fn side_by_side(names: &[String]) -> String {
    match names {
        [first, .., last] if names.len() > BESIDE_MAX => format!("{first} … {last} ({})", counted(names.len(), "stage")),
        _ => joined(names.iter().cloned()),
    }
}

/// `1 stage`, `2 stages`.
pub(super) fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// As people write it: `1h 30m`.
pub(super) fn duration(ms: u64) -> String {
    let mut rest = ms;
    let mut parts = Vec::new();
    for (unit, length) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        if rest >= length {
            parts.push(format!("{}{unit}", rest / length));
            rest %= length;
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

/// Bytes in the largest unit that they are a whole number of.
pub(super) fn size(bytes: i64) -> String {
    for (unit, length) in [("T", 1 << 40), ("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)] {
        if bytes >= length && bytes % length == 0 {
            return format!("{}{unit}", bytes / length);
        }
    }
    counted(usize::try_from(bytes).unwrap_or(0), "byte")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_people_do() {
        for (ms, expected) in [(3_600_000, "1h"), (5_400_000, "1h 30m"), (90_001, "1m 30s 1ms"), (0, "0s"), (172_800_000, "2d")] {
            assert_eq!(duration(ms), expected);
        }
        assert_eq!([size(1 << 30), size(3 << 19), size(1000)], ["1G", "1536K", "1000 bytes"]);
    }

    #[test]
    fn nothing_in_a_plan_steers_the_terminal_or_hides() {
        assert_eq!(printable("a\u{1b}[2Jb\u{202e}c"), "a\\u{1b}[2Jb\\u{202e}c");
        assert_eq!(text("it's\n"), "'it''s\\u{a}'");
    }

    #[test]
    fn conditions_are_spelt_as_in_a_pipeline() {
        let color = || Value::Variable { variable: "color".to_owned() };
        let red = || Condition::Equal(color(), "red".into());
        let check = |shown: Condition, expected: &str| assert_eq!(condition(&shown), expected);
        check(Condition::Not(Box::new(red())), "vars.color != 'red'");
        check(Condition::Not(Box::new(Condition::Is(color()))), "!vars.color");
        let either = Condition::Any(vec![red(), Condition::Matches(color(), "b*".to_owned())]);
        check(
            Condition::All(vec![either, Condition::In(color(), vec!["a".into(), "b".into()])]),
            "(vars.color == 'red' || vars.color matches 'b*') && vars.color in ['a', 'b']",
        );
        check(Condition::Not(Box::new(Condition::In(color(), vec![]))), "!(vars.color in [])");
    }
}
