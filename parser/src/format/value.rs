//! Writes values: literals, lists, arguments and conditions.

use model::diagnostic::Span;

use super::{
    place::{Place, are_steps, is_bare, is_function_call, is_variable},
    print::{Printer, Separator},
};
use crate::{
    diagnostic::Findings,
    literal,
    syntax::{Argument, Call, Condition, ConditionKind, Entry, Item, ItemKind, Tail, Value, ValueKind},
};

/// Columns that stay free behind what is followed by a bracket or a comma.
const RESERVED: usize = 2;

impl Printer<'_> {
    pub(super) fn value(&mut self, value: &Value, place: Place) {
        self.value_kind(&value.kind, value.span, place);
    }

    pub(super) fn value_kind(&mut self, kind: &ValueKind, span: Span, place: Place) {
        match kind {
            ValueKind::Text(_) => self.text(span),
            ValueKind::Integer(_)
            | ValueKind::Decimal(_)
            | ValueKind::Duration(_)
            | ValueKind::Size(_)
            | ValueKind::Boolean(_)
            | ValueKind::Wrong => {
                let written = self.text_of(span).to_owned();
                self.out.push(&written);
            }
            ValueKind::List(items) => self.list(items, span, place),
            // `name: { … }` of a step.
            ValueKind::Block(block) if place == Place::Steps => self.steps(&block.kind, block.span),
            ValueKind::Block(block) => self.block(block, Place::Settings),
            ValueKind::Name(name) => {
                let word = self.word(name);
                self.out.push(&word);
            }
            ValueKind::Call(entry) => match &entry.tail {
                Tail::Call(call) if is_function_call(entry) => {
                    self.out.push(&entry.name.kind);
                    if call.arguments.is_empty() {
                        return self.out.push("()");
                    }
                    self.arguments(&entry.name.kind, call, Place::Values, false);
                }
                Tail::Call(_) | Tail::Assign(_) | Tail::Arrow(_) => self.entry(entry, place),
            },
            ValueKind::Condition(condition) => self.whole_condition(condition),
        }
    }

    /// A string. Quotes that escape nothing become single ones; a verbatim block moves with its indentation.
    fn text(&mut self, span: Span) {
        let written = self.text_of(span).to_owned();
        if written.starts_with("\"\"\"") {
            let moved = self.indented(&written);
            return self.out.push(moved.as_deref().unwrap_or(&written));
        }
        let body = written.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        match body.filter(|body| !body.contains(['\\', '\'', '\n'])) {
            Some(body) => self.out.push(&format!("'{body}'")),
            None => self.out.push(&written),
        }
    }

    /// A verbatim block that begins and ends with a blank line, with the indentation of this place.
    fn indented(&self, written: &str) -> Option<String> {
        let body = written.strip_prefix("\"\"\"")?.strip_suffix("\"\"\"")?;
        let (first, _) = body.split_once('\n')?;
        let (_, last) = body.rsplit_once('\n')?;
        let is_blank = |line: &str| line.trim_matches([' ', '\t']).is_empty();
        let text = meaning(written);
        if !is_blank(first) || !is_blank(last) || text.is_empty() {
            return None;
        }
        let (outer, inner) = self.out.indentation();
        let lines: Vec<String> =
            text.split('\n').map(|line| if line.is_empty() { String::new() } else { format!("{inner}{line}") }).collect();
        let moved = format!("\"\"\"\n{}\n{outer}\"\"\"", lines.join("\n"));
        (meaning(&moved) == text).then_some(moved)
    }

    fn list(&mut self, items: &[Item], span: Span, place: Place) {
        if items.is_empty() && !self.has_comment(span) {
            return self.out.push("[]");
        }
        if place == Place::Steps && are_steps(items) {
            return self.steps(items, span);
        }
        let separator = if self.are_words(items) { Separator::None } else { Separator::Comma };
        if !self.has_comment(span) {
            let mark = self.out.begin(RESERVED);
            self.out.push("[");
            for (index, item) in items.iter().enumerate() {
                if self.out.has_failed() {
                    break;
                }
                match separator {
                    _ if index == 0 => {}
                    Separator::Comma => self.out.push(", "),
                    Separator::None => self.out.push(" "),
                }
                self.item(item, Place::Values);
            }
            self.out.push("]");
            if self.out.end(mark) {
                return;
            }
        }
        if self.out.is_attempt() {
            return self.out.fail();
        }
        self.out.push("[");
        self.values(items, span, separator);
        self.out.push("]");
    }

    /// Whether these are bare names without commas between: steps or variables, as the manifest says.
    fn are_words(&self, items: &[Item]) -> bool {
        let is_word = |item: &Item| matches!(&item.kind, ItemKind::Entry(entry) if is_name(entry));
        let [first, second, ..] = items else { return false };
        let between = self.text_of(Span { start: first.span.end, end: second.span.start });
        items.iter().all(is_word) && between.bytes().all(|byte| byte.is_ascii_whitespace())
    }

    /// Whether these are bare names as steps have them behind other arguments: without a comma before or between.
    fn are_bare_steps(&self, items: &[Item], before: Option<usize>, start: usize) -> bool {
        let is_step = |item: &Item| matches!(&item.kind, ItemKind::Entry(entry) if is_name(entry) && !is_variable(&entry.name.kind));
        let follows_comma = before.is_some_and(|end| self.text_of(Span { start: end, end: start }).trim_start().starts_with(','));
        !follows_comma && !items.is_empty() && items.iter().all(is_step) && (items.len() == 1 || self.are_words(items))
    }

    /// The arguments of a call, with what stands between them and the name.
    pub(super) fn arguments(&mut self, name: &str, call: &Call, place: Place, has_list: bool) {
        let Some(last) = call.arguments.last() else { return };
        let in_parentheses = place.has_parentheses(name) || is_variable(name) || !call.arguments.iter().all(is_bare);
        let before = call.arguments.iter().rev().nth(1).map(|argument| argument.value.span.end);
        let steps = match (&last.keyword, &last.value.kind) {
            (None, ValueKind::List(items)) if place == Place::Steps && !in_parentheses => {
                (are_steps(items) || self.are_bare_steps(items, before, last.value.span.start)).then_some(items)
            }
            _ => None,
        };
        let count = call.arguments.len() - usize::from(steps.is_some());
        let arguments = call.arguments.get(..count).unwrap_or_default();
        let reserved = if call.block.is_some() || steps.is_some() || has_list { RESERVED } else { 0 };
        self.listed(arguments, place, in_parentheses, reserved);
        if let Some(items) = steps {
            self.out.push(" ");
            self.steps(items, last.value.span);
        }
    }

    /// Arguments one after the other: on this line, or on a line each.
    fn listed(&mut self, arguments: &[Argument], place: Place, in_parentheses: bool, reserved: usize) {
        let (Some(first), Some(last)) = (arguments.first(), arguments.last()) else { return };
        let (open, close) = if in_parentheses { ("(", ")") } else { (" ", "") };
        let inner = if place == Place::Steps { Place::Steps } else { Place::Values };
        let between = Span { start: span_of(first).end, end: span_of(last).start };
        if !self.has_comment(between) {
            let mark = self.out.begin(reserved);
            self.out.push(open);
            for (index, argument) in arguments.iter().enumerate() {
                if self.out.has_failed() {
                    break;
                }
                self.out.push(if index == 0 { "" } else { ", " });
                self.argument(argument, inner);
            }
            self.out.push(close);
            if self.out.end(mark) {
                return;
            }
        }
        if self.out.is_attempt() {
            return self.out.fail();
        }
        self.out.push(open);
        if let [only] = arguments {
            self.argument(only, inner);
        } else {
            self.one_a_line(arguments, inner, in_parentheses);
        }
        self.out.push(close);
    }

    fn one_a_line(&mut self, arguments: &[Argument], place: Place, in_parentheses: bool) {
        self.out.indent();
        let mut before: Option<Span> = None;
        for argument in arguments {
            let span = span_of(argument);
            if let Some(before) = before {
                self.out.push(",");
                self.between(Span { start: before.end, end: span.start });
            }
            if in_parentheses || before.is_some() {
                self.out.line();
            }
            let written_at = self.out.place();
            self.argument(argument, place);
            if before.is_some() {
                self.hoist(Some(span), written_at);
            }
            before = Some(span);
        }
        self.out.outdent();
        if in_parentheses {
            self.out.line();
        }
    }

    fn argument(&mut self, argument: &Argument, place: Place) {
        if let Some(keyword) = &argument.keyword {
            self.out.push(&keyword.kind);
            self.out.push(": ");
        }
        self.value(&argument.value, place);
    }

    /// A condition that is not a part of another: where it is too long, each part has a line.
    pub(super) fn whole_condition(&mut self, condition: &Condition) {
        let (parts, join) = match &condition.kind {
            ConditionKind::All(parts) => (parts, "&& "),
            ConditionKind::Any(parts) => (parts, "|| "),
            ConditionKind::Value(_)
            | ConditionKind::Equal { .. }
            | ConditionKind::In { .. }
            | ConditionKind::Matches { .. }
            | ConditionKind::Not(_) => return self.condition(condition),
        };
        let mark = self.out.begin(RESERVED);
        self.condition(condition);
        if self.out.end(mark) {
            return;
        }
        if self.out.is_attempt() {
            return self.out.fail();
        }
        self.out.indent();
        for (index, part) in parts.iter().enumerate() {
            if index > 0 {
                self.out.line();
                self.out.push(join);
            }
            self.part(part, &condition.kind);
        }
        self.out.outdent();
    }

    fn condition(&mut self, condition: &Condition) {
        match &condition.kind {
            ConditionKind::Value(kind) => self.value_kind(kind, condition.span, Place::Values),
            ConditionKind::Equal { left, negated, right } => {
                self.operand(left);
                self.out.push(if *negated { " != " } else { " == " });
                self.operand(right);
            }
            ConditionKind::In { value, among } => {
                self.operand(value);
                self.out.push(" in ");
                self.list(&among.kind, among.span, Place::Values);
            }
            ConditionKind::Matches { value, pattern } => {
                self.operand(value);
                self.out.push(" matches ");
                self.text(pattern.span);
            }
            ConditionKind::Not(inner) => {
                self.out.push("!");
                let mut inner = inner;
                while let ConditionKind::Not(next) = &inner.kind {
                    self.out.push("!");
                    inner = next;
                }
                let is_value = matches!(&inner.kind, ConditionKind::Value(_));
                self.parenthesised(inner, !is_value);
            }
            ConditionKind::All(parts) => self.joined(parts, " && ", condition),
            ConditionKind::Any(parts) => self.joined(parts, " || ", condition),
        }
    }

    fn joined(&mut self, parts: &[Condition], join: &str, whole: &Condition) {
        for (index, part) in parts.iter().enumerate() {
            if self.out.has_failed() {
                return;
            }
            self.out.push(if index == 0 { "" } else { join });
            self.part(part, &whole.kind);
        }
    }

    /// A part of a joined condition; what binds less tightly than `whole`, or is joined in the same way, has parentheses.
    fn part(&mut self, part: &Condition, whole: &ConditionKind) {
        let is_within_all = matches!(whole, ConditionKind::All(_));
        let needs = match &part.kind {
            ConditionKind::All(_) => is_within_all,
            ConditionKind::Any(_) => true,
            ConditionKind::Value(_)
            | ConditionKind::Equal { .. }
            | ConditionKind::In { .. }
            | ConditionKind::Matches { .. }
            | ConditionKind::Not(_) => false,
        };
        self.parenthesised(part, needs);
    }

    fn parenthesised(&mut self, condition: &Condition, needs: bool) {
        self.out.push(if needs { "(" } else { "" });
        self.condition(condition);
        self.out.push(if needs { ")" } else { "" });
    }

    fn operand(&mut self, value: &Value) {
        if let ValueKind::Condition(condition) = &value.kind {
            self.parenthesised(condition, true);
        } else {
            self.value(value, Place::Values);
        }
    }
}

/// What a string says.
fn meaning(written: &str) -> String {
    literal::text(written, 0, &mut Findings::default())
}

fn span_of(argument: &Argument) -> Span {
    let start = argument.keyword.as_ref().map_or(argument.value.span.start, |keyword| keyword.span.start);
    Span { start, end: argument.value.span.end }
}

fn is_name(entry: &Entry) -> bool {
    matches!(&entry.tail, Tail::Call(Call { arguments, block: None }) if arguments.is_empty())
}

/// Whether what follows could be read as belonging to the last name of this item.
pub(super) fn ends_with_name(item: &Item) -> bool {
    match &item.kind {
        ItemKind::Entry(entry) => is_name(entry),
        ItemKind::Value(_) => false,
        ItemKind::Condition(condition) => last_is_name(condition),
    }
}

fn last_is_name(condition: &Condition) -> bool {
    match &condition.kind {
        ConditionKind::Value(kind) | ConditionKind::Equal { right: Value { kind, .. }, .. } => matches!(kind, ValueKind::Name(_)),
        ConditionKind::In { .. } | ConditionKind::Matches { .. } => false,
        ConditionKind::Not(inner) => matches!(&inner.kind, ConditionKind::Value(ValueKind::Name(_)) | ConditionKind::Not(_)),
        ConditionKind::All(parts) | ConditionKind::Any(parts) => parts.last().is_some_and(last_is_name),
    }
}

/// Whether an item begins with a name that no call before it takes as an argument.
pub(super) fn begins_with_word(item: &Item) -> bool {
    match &item.kind {
        ItemKind::Entry(entry) => is_word(&entry.name.kind),
        ItemKind::Value(_) => false,
        ItemKind::Condition(condition) => first_is_word(condition, false),
    }
}

fn first_is_word(condition: &Condition, is_part: bool) -> bool {
    let of_value = |kind: &ValueKind| match kind {
        ValueKind::Name(name) => is_word(name),
        ValueKind::Call(entry) => is_word(&entry.name.kind),
        ValueKind::Text(_)
        | ValueKind::Integer(_)
        | ValueKind::Decimal(_)
        | ValueKind::Duration(_)
        | ValueKind::Size(_)
        | ValueKind::Boolean(_)
        | ValueKind::List(_)
        | ValueKind::Block(_)
        | ValueKind::Condition(_)
        | ValueKind::Wrong => false,
    };
    match &condition.kind {
        ConditionKind::Value(kind) => of_value(kind),
        ConditionKind::Equal { left: value, .. } | ConditionKind::In { value, .. } | ConditionKind::Matches { value, .. } => {
            of_value(&value.kind)
        }
        ConditionKind::Not(_) => true,
        ConditionKind::All(parts) | ConditionKind::Any(parts) => {
            !is_part && parts.first().is_some_and(|part| first_is_word(part, matches!(part.kind, ConditionKind::Any(_))))
        }
    }
}

fn is_word(name: &str) -> bool {
    !is_variable(name) && !super::place::is_function(name)
}
