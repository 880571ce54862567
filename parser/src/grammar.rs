//! From text to the syntax tree. The only module that knows the rules of `otto.pest`; it knows nothing of what they mean.

use model::diagnostic::Span;
use pest::{
    Parser as _,
    error::{ErrorVariant, InputLocation},
    iterators::{Pair, Pairs},
};

use crate::{
    diagnostic::{Code, Finding, Findings, quoted},
    limits::{REREAD_BYTES_MAX, SYNTAX_ERRORS_MAX},
    literal,
    scan::Braces,
    syntax::{Argument, Block, Call, Condition, ConditionKind, Entry, Item, ItemKind, Name, Spanned, Tail, Value, ValueKind},
};

#[derive(pest_derive::Parser)]
#[grammar = "otto.pest"]
struct Grammar;

/// What could be read of a file.
#[derive(Debug)]
pub(crate) struct Tree {
    /// What stands at the top level.
    pub(crate) items: Vec<Item>,
    /// Braces whose inside has a syntax error: it was left out, so nothing may be missed in it.
    pub(crate) left_out: Vec<Span>,
}

/// Reads a source that the scanner has let pass. Where there is a syntax error, the braces around it are emptied and the rest is read, so
/// that a file's independent errors are found in one go. `None` if there is an error outside of all braces.
pub(crate) fn parse(source: &str, braces: &Braces, findings: &mut Findings) -> Option<Tree> {
    let mut left_out = Vec::new();
    let mut text = source.to_owned();
    let rounds = (REREAD_BYTES_MAX / source.len().max(1)).min(SYNTAX_ERRORS_MAX);
    for _ in 0..=rounds {
        let error = match Grammar::parse(Rule::file, &text) {
            Ok(pairs) => {
                let mut builder = Builder { findings };
                return Some(Tree { items: builder.items(pairs), left_out });
            }
            Err(error) => error_of(&text, error),
        };
        let around = braces.around(error.offset);
        findings.add(error.finding);
        let around = around?;
        let inside = " ".repeat(around.end - around.start - 2);
        text.replace_range(around.start + 1..around.end - 1, &inside);
        left_out.push(around);
    }
    None
}

struct SyntaxError {
    offset: usize,
    finding: Finding,
}

fn error_of(source: &str, error: pest::error::Error<Rule>) -> SyntaxError {
    let offset = match error.location {
        InputLocation::Pos(offset) | InputLocation::Span((offset, _)) => offset,
    };
    let expected = match error.variant {
        ErrorVariant::ParsingError { positives, .. } => expectation(&positives),
        ErrorVariant::CustomError { message } => {
            let message = format!("the parser gave up here: {message}");
            return SyntaxError { offset, finding: Finding::new(Code::Syntax, Span { start: offset, end: offset }, message) };
        }
    };
    let rest = source.get(offset..).unwrap_or_default();
    let length = token_length(rest);
    let span = Span { start: offset, end: offset + length };
    let found = if length == 0 { "the end of the file".to_owned() } else { quoted(rest.get(..length).unwrap_or_default()) };
    let mut finding = Finding::new(Code::Syntax, span, format!("did not expect {found} here")).label(format!("expected {expected}"));
    if source.get(..offset).unwrap_or_default().trim_end().ends_with(',') {
        finding = finding.label("expected an argument after the comma").help("steps and settings need no comma between them");
    }
    SyntaxError { offset, finding }
}

fn expectation(positives: &[Rule]) -> &'static str {
    let has = |rule| positives.contains(&rule);
    if has(Rule::path) && positives.len() == 1 {
        "a name"
    } else if has(Rule::item) || has(Rule::term) || has(Rule::entry) {
        "a setting, a block or a step"
    } else if has(Rule::value) || has(Rule::literal) || has(Rule::operand) || has(Rule::reference) {
        "a value"
    } else if has(Rule::list) || has(Rule::text) {
        "a list or a string"
    } else {
        "`=`, a value or a block"
    }
}

/// How much of `rest` is one token, for the mark below it.
fn token_length(rest: &str) -> usize {
    let is_name = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-');
    let name = rest.find(|character| !is_name(character)).unwrap_or(rest.len());
    let pair = ["->", "==", "!=", "&&", "||"].iter().any(|operator| rest.starts_with(operator));
    match rest.chars().next() {
        None => 0,
        _ if pair => 2,
        _ if name > 0 => name,
        Some(character) => character.len_utf8(),
    }
}

fn span_of(pair: &Pair<'_, Rule>) -> Span {
    let span = pair.as_span();
    Span { start: span.start(), end: end_of(pair).unwrap_or(span.end()) }
}

/// Where a pair's last token ends. A rule that ends with "and then not …" has run over the white space and comments behind that.
#[expect(clippy::wildcard_enum_match_arm, reason = "all other rules are made of these")]
fn end_of(pair: &Pair<'_, Rule>) -> Option<usize> {
    match pair.as_rule() {
        Rule::item
        | Rule::term
        | Rule::entry
        | Rule::assignment
        | Rule::arrow
        | Rule::call
        | Rule::plain_call
        | Rule::bare
        | Rule::bare_argument
        | Rule::argument
        | Rule::value
        | Rule::reference
        | Rule::literal
        | Rule::operand
        | Rule::comparison => pair.clone().into_inner().rev().find_map(|inner| end_of(&inner)),
        _ => Some(pair.as_span().end()),
    }
}

fn name_of(pair: &Pair<'_, Rule>) -> Name {
    Spanned { kind: pair.as_str().to_owned(), span: span_of(pair) }
}

/// The only child of a pair that the grammar gives exactly one.
fn only(pair: Pair<'_, Rule>) -> Pair<'_, Rule> {
    pair.into_inner().next().expect("the grammar gives this rule a child")
}

/// A rule stands where the grammar does not put it: this module and `otto.pest` do not fit together.
fn misplaced(pair: &Pair<'_, Rule>) -> ! {
    unreachable!("the grammar does not put {:?} here", pair.as_rule())
}

/// One part as it is, several as one condition.
fn joined(mut parts: Vec<Item>, join: fn(Vec<Condition>) -> ConditionKind) -> Item {
    if parts.len() == 1 {
        return parts.remove(0);
    }
    let span = Span { start: parts.first().map_or(0, |part| part.span.start), end: parts.last().map_or(0, |part| part.span.end) };
    let kind = join(parts.into_iter().map(Item::into_condition).collect());
    Item { kind: ItemKind::Condition(Box::new(Condition { kind, span })), span }
}

/// Makes the nodes. It recurses as deep as the brackets are nested, which the scanner has limited.
struct Builder<'a> {
    findings: &'a mut Findings,
}

#[expect(clippy::wildcard_enum_match_arm, reason = "what the grammar does not put into a place is a mistake of this module")]
impl Builder<'_> {
    fn items(&mut self, pairs: Pairs<'_, Rule>) -> Vec<Item> {
        let mut items = Vec::new();
        for pair in pairs {
            match pair.as_rule() {
                Rule::file => items.extend(self.items(pair.into_inner())),
                Rule::item => items.push(self.item(pair)),
                Rule::EOI => {}
                _ => misplaced(&pair),
            }
        }
        items
    }

    fn item(&mut self, pair: Pair<'_, Rule>) -> Item {
        let span = span_of(&pair);
        let mut any: Vec<Vec<Item>> = vec![Vec::new()];
        for part in pair.into_inner() {
            match part.as_rule() {
                Rule::term => {
                    let term = self.term(part);
                    any.last_mut().expect("it begins with one").push(term);
                }
                Rule::join if part.as_str() == "||" => any.push(Vec::new()),
                Rule::join => {}
                _ => misplaced(&part),
            }
        }
        let any = any.into_iter().map(|all| joined(all, ConditionKind::All)).collect();
        Item { kind: joined(any, ConditionKind::Any).kind, span }
    }

    fn term(&mut self, pair: Pair<'_, Rule>) -> Item {
        let span = span_of(&pair);
        let mut negations = 0;
        let mut item = None;
        for part in pair.into_inner() {
            match part.as_rule() {
                Rule::not => negations += 1,
                Rule::group => {
                    let inner = self.item(only(part));
                    item = Some(Item { kind: ItemKind::Condition(Box::new(inner.into_condition())), span });
                }
                Rule::literal => item = Some(Item { span: span_of(&part), kind: ItemKind::Value(self.literal(part)) }),
                Rule::entry => item = Some(Item { span: span_of(&part), kind: ItemKind::Entry(self.entry(part)) }),
                Rule::comparison => {
                    let left = item.take().expect("a comparison has a left side").into_operand();
                    let condition = Condition { kind: self.comparison(left, part), span };
                    item = Some(Item { kind: ItemKind::Condition(Box::new(condition)), span });
                }
                _ => misplaced(&part),
            }
        }
        let mut item = item.expect("a term has something");
        for _ in 0..negations {
            let condition = Condition { kind: ConditionKind::Not(Box::new(item.into_condition())), span };
            item = Item { kind: ItemKind::Condition(Box::new(condition)), span };
        }
        item
    }

    fn comparison(&mut self, left: Value, pair: Pair<'_, Rule>) -> ConditionKind {
        let negated = pair.as_str().starts_with("!=");
        let right = pair.into_inner().find(|part| !matches!(part.as_rule(), Rule::in_word | Rule::matches_word));
        let right = right.expect("a comparison has a right side");
        let span = span_of(&right);
        match right.as_rule() {
            Rule::operand => ConditionKind::Equal { left, negated, right: self.value(right) },
            Rule::list => ConditionKind::In { value: left, among: Spanned { kind: self.items(right.into_inner()), span } },
            Rule::text => {
                let pattern = Spanned { kind: literal::text(right.as_str(), span.start, self.findings), span };
                ConditionKind::Matches { value: left, pattern }
            }
            _ => misplaced(&right),
        }
    }

    fn entry(&mut self, pair: Pair<'_, Rule>) -> Entry {
        let mut parts = pair.into_inner();
        let (first, second) = (parts.next().expect("an entry has a name"), parts.next().expect("an entry has a tail"));
        let name = name_of(&first);
        let tail = match second.as_rule() {
            Rule::path => {
                let value = Value { kind: ValueKind::Name(second.as_str().to_owned()), span: span_of(&second) };
                Tail::Call(Call { arguments: vec![Argument { keyword: None, value }], block: None })
            }
            Rule::assignment => {
                let value = second.into_inner().find(|part| part.as_rule() == Rule::value).expect("an assignment has a value");
                Tail::Assign(self.value(value))
            }
            Rule::arrow => Tail::Arrow(name_of(&only(second))),
            Rule::call | Rule::plain_call => Tail::Call(self.call(second)),
            _ => misplaced(&second),
        };
        Entry { name, tail }
    }

    fn call(&mut self, pair: Pair<'_, Rule>) -> Call {
        let mut call = Call { arguments: Vec::new(), block: None };
        for part in pair.into_inner() {
            match part.as_rule() {
                Rule::parenthesised | Rule::bare => {
                    for argument in part.into_inner() {
                        let argument = self.argument(argument);
                        call.arguments.push(argument);
                    }
                }
                Rule::list => {
                    let value = Value { span: span_of(&part), kind: self.list(part) };
                    call.arguments.push(Argument { keyword: None, value });
                }
                Rule::block => call.block = Some(self.block(part)),
                _ => misplaced(&part),
            }
        }
        call
    }

    fn block(&mut self, pair: Pair<'_, Rule>) -> Block {
        Block { span: span_of(&pair), kind: self.items(pair.into_inner()) }
    }

    fn argument(&mut self, pair: Pair<'_, Rule>) -> Argument {
        let mut keyword = None;
        let mut value = None;
        for part in pair.into_inner() {
            match part.as_rule() {
                Rule::keyword => keyword = Some(name_of(&part)),
                Rule::item => value = Some(self.item(part).into_value()),
                Rule::value => value = Some(self.value(part)),
                Rule::literal | Rule::reference => value = Some(self.operand(part)),
                _ => misplaced(&part),
            }
        }
        Argument { keyword, value: value.expect("an argument has a value") }
    }

    fn value(&mut self, pair: Pair<'_, Rule>) -> Value {
        self.operand(only(pair))
    }

    fn operand(&mut self, pair: Pair<'_, Rule>) -> Value {
        let span = span_of(&pair);
        let kind = match pair.as_rule() {
            Rule::literal => self.literal(pair),
            Rule::reference => self.reference(pair),
            Rule::block => ValueKind::Block(self.block(pair)),
            _ => misplaced(&pair),
        };
        Value { kind, span }
    }

    fn reference(&mut self, pair: Pair<'_, Rule>) -> ValueKind {
        let mut parts = pair.into_inner();
        let name = name_of(&parts.next().expect("a reference has a name"));
        let Some(arguments) = parts.next() else { return ValueKind::Name(name.kind) };
        let arguments = arguments.into_inner().map(|argument| self.argument(argument)).collect();
        ValueKind::Call(Box::new(Entry { name, tail: Tail::Call(Call { arguments, block: None }) }))
    }

    fn literal(&mut self, pair: Pair<'_, Rule>) -> ValueKind {
        let pair = only(pair);
        let span = span_of(&pair);
        match pair.as_rule() {
            Rule::text => ValueKind::Text(literal::text(pair.as_str(), span.start, self.findings)),
            Rule::number => literal::number(pair.as_str(), span, self.findings),
            Rule::boolean => ValueKind::Boolean(pair.as_str() == "true"),
            Rule::list => self.list(pair),
            _ => misplaced(&pair),
        }
    }

    fn list(&mut self, pair: Pair<'_, Rule>) -> ValueKind {
        ValueKind::List(self.items(pair.into_inner()))
    }
}

#[cfg(test)]
mod tests;
