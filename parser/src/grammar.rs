//! From tokens to the syntax tree. The only module that knows the rules of `otto.pest`; it knows nothing of what they mean.

use std::{iter::Peekable, ops::Range};

use model::diagnostic::Span;
use pest::{
    Parser as _,
    error::{ErrorVariant, InputLocation},
    iterators::{Pair, Pairs},
};

use crate::{
    diagnostic::{Code, Finding, Findings, quoted},
    limits::{REREAD_TOKENS_MAX, SYNTAX_ERRORS_MAX},
    literal,
    syntax::{Argument, Block, Call, Condition, ConditionKind, Entry, Item, ItemKind, Name, Spanned, Tail, Value, ValueKind},
    token::Tokens,
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

/// Reads the tokens of a source. Where there is a syntax error, the braces around it are emptied and the rest is read, so that a file's
/// independent errors are found in one go. `None` if there is an error outside of all braces.
pub(crate) fn parse(source: &str, mut tokens: Tokens, findings: &mut Findings) -> Option<Tree> {
    let mut left_out = Vec::new();
    let rounds = (REREAD_TOKENS_MAX / tokens.len().max(1)).min(SYNTAX_ERRORS_MAX);
    for _ in 0..=rounds {
        let error = match Grammar::parse(Rule::file, tokens.text()) {
            Ok(mut pairs) => {
                let mut builder = Builder { source, tokens: &tokens, findings };
                let items = pairs.next().map(|file| builder.items(file.into_inner())).unwrap_or_default();
                return Some(Tree { items, left_out });
            }
            Err(error) => error_of(source, &tokens, &error),
        };
        findings.add(error.finding);
        left_out.push(tokens.leave_out_around(error.token)?);
    }
    None
}

struct SyntaxError {
    token: usize,
    finding: Finding,
}

fn error_of(source: &str, tokens: &Tokens, error: &pest::error::Error<Rule>) -> SyntaxError {
    let (InputLocation::Pos(token) | InputLocation::Span((token, _))) = error.location;
    let expected = match &error.variant {
        ErrorVariant::ParsingError { positives, .. } => expectation(positives),
        ErrorVariant::CustomError { message } => {
            let finding = Finding::new(Code::Syntax, tokens.span(token..token), format!("the parser gave up here: {message}"));
            return SyntaxError { token, finding };
        }
    };
    // What stands before a colon is a name; the colon is what does not belong there.
    let (token, expected) = if tokens.class(token) == b'k' { (token + 1, expectation(&[])) } else { (token, expected) };
    let span = if token < tokens.len() { tokens.span(token..token + 1) } else { Span { start: source.len(), end: source.len() } };
    let found = if span.end == span.start {
        "the end of the file".to_owned()
    } else {
        quoted(source.get(span.start..span.end).unwrap_or_default())
    };
    let mut finding = Finding::new(Code::Syntax, span, format!("did not expect {found} here")).label(format!("expected {expected}"));
    if token.checked_sub(1).is_some_and(|before| tokens.class(before) == b',') {
        finding = finding.label("expected an argument after the comma").help("steps and settings need no comma between them");
    }
    SyntaxError { token, finding }
}

fn expectation(positives: &[Rule]) -> &'static str {
    let has = |rule| positives.contains(&rule);
    if has(Rule::target) {
        "a name"
    } else if has(Rule::entry) {
        "a setting, a block or a step"
    } else if has(Rule::reference) {
        "a value"
    } else if has(Rule::text) && !has(Rule::keyword) {
        "a string"
    } else {
        "`=`, a value or a block"
    }
}

/// The indices of a pair's tokens.
fn tokens_of(pair: &Pair<'_, Rule>) -> Range<usize> {
    let span = pair.as_span();
    span.start()..span.end()
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

/// What lies side by side in a file, in brackets, or among arguments.
type Row<'p> = Peekable<Pairs<'p, Rule>>;

/// Makes the nodes. It recurses as deep as the brackets are nested, which the scanner has limited.
struct Builder<'a> {
    source: &'a str,
    tokens: &'a Tokens,
    findings: &'a mut Findings,
}

#[expect(clippy::wildcard_enum_match_arm, reason = "what the grammar does not put into a place is a mistake of this module")]
impl Builder<'_> {
    fn span_of(&self, pair: &Pair<'_, Rule>) -> Span {
        self.tokens.span(tokens_of(pair))
    }

    fn text_of(&self, span: Span) -> &str {
        self.source.get(span.start..span.end).unwrap_or_default()
    }

    fn name_at(&self, token: usize) -> Name {
        let span = self.tokens.span(token..token + 1);
        Spanned { kind: self.text_of(span).to_owned(), span }
    }

    fn items(&mut self, pairs: Pairs<'_, Rule>) -> Vec<Item> {
        let mut row = pairs.peekable();
        let mut items = Vec::new();
        while let Some(first) = row.next_if(|pair| pair.as_rule() != Rule::EOI) {
            items.push(self.item(first, &mut row));
        }
        items
    }

    fn item(&mut self, first: Pair<'_, Rule>, row: &mut Row<'_>) -> Item {
        let is_join = |pair: &Pair<'_, Rule>| matches!(pair.as_rule(), Rule::and | Rule::or);
        let term = self.term(first, row);
        if !row.peek().is_some_and(is_join) {
            return term;
        }
        let mut any = Vec::new();
        let mut all = vec![term];
        while let Some(join) = row.next_if(is_join) {
            if join.as_rule() == Rule::or {
                any.push(std::mem::take(&mut all));
            }
            let first = row.next().expect("a term follows");
            all.push(self.term(first, row));
        }
        any.push(all);
        joined(any.into_iter().map(|all| joined(all, ConditionKind::All)).collect(), ConditionKind::Any)
    }

    fn term(&mut self, first: Pair<'_, Rule>, row: &mut Row<'_>) -> Item {
        let start = tokens_of(&first).start;
        let mut negations = 0;
        let mut part = first;
        while part.as_rule() == Rule::not {
            negations += 1;
            part = row.next().expect("something follows what negates it");
        }
        let span = self.span_of(&part);
        let mut end = tokens_of(&part).end;
        let mut item = match part.as_rule() {
            Rule::entry => Item { kind: ItemKind::Entry(self.entry(part)), span },
            Rule::group => {
                let mut inside = part.into_inner().peekable();
                let first = inside.next().expect("parentheses have something inside");
                let condition = Condition { span, ..self.item(first, &mut inside).into_condition() };
                Item { kind: ItemKind::Condition(Box::new(condition)), span }
            }
            _ => Item { kind: ItemKind::Value(self.value(part).kind), span },
        };
        if let Some(comparison) = row.next_if(|pair| pair.as_rule() == Rule::comparison) {
            end = tokens_of(&comparison).end;
            let left = item.into_operand();
            let span = Span { start: left.span.start, end: self.span_of(&comparison).end };
            let condition = Condition { kind: self.comparison(left, comparison), span };
            item = Item { kind: ItemKind::Condition(Box::new(condition)), span };
        }
        if negations == 0 {
            return item;
        }
        // Only the last of them counts, so that a row of them is no tree as deep as it is long.
        let span = self.tokens.span(start..end);
        let inner = item.into_condition();
        let condition =
            if negations % 2 == 0 { Condition { span, ..inner } } else { Condition { kind: ConditionKind::Not(Box::new(inner)), span } };
        Item { kind: ItemKind::Condition(Box::new(condition)), span }
    }

    fn comparison(&mut self, left: Value, pair: Pair<'_, Rule>) -> ConditionKind {
        let operator = tokens_of(&pair).start;
        let class = self.tokens.class(operator);
        let right = pair.into_inner().next().expect("a comparison has a right side");
        let span = self.span_of(&right);
        match class {
            b'I' => ConditionKind::In { value: left, among: Spanned { kind: self.items(right.into_inner()), span } },
            b'M' => {
                let pattern = Spanned { kind: self.text(span), span };
                ConditionKind::Matches { value: left, pattern }
            }
            _ => {
                let negated = self.text_of(self.tokens.span(operator..operator + 1)) == "!=";
                ConditionKind::Equal { left, negated, right: self.value(right) }
            }
        }
    }

    fn entry(&mut self, pair: Pair<'_, Rule>) -> Entry {
        let first = tokens_of(&pair).start;
        let name = self.name_at(first);
        if self.tokens.class(first) == b'u' {
            let Name { kind, span } = self.name_at(first + 1);
            let value = Value { kind: ValueKind::Name(kind), span };
            return Entry { name, tail: Tail::Call(Call { arguments: vec![Argument { keyword: None, value }], block: None }) };
        }
        let mut call = Call { arguments: Vec::new(), block: None };
        for part in pair.into_inner() {
            match part.as_rule() {
                Rule::assignment => {
                    let value = part.into_inner().next().expect("an assignment has a value");
                    return Entry { name, tail: Tail::Assign(self.value(value)) };
                }
                Rule::arrow => return Entry { name, tail: Tail::Arrow(self.name_at(first + 2)) },
                Rule::parenthesised | Rule::bare => call.arguments = self.arguments(part),
                Rule::list => call.arguments.push(Argument { keyword: None, value: self.value(part) }),
                Rule::block => call.block = Some(self.block(part)),
                _ => misplaced(&part),
            }
        }
        Entry { name, tail: Tail::Call(call) }
    }

    fn block(&mut self, pair: Pair<'_, Rule>) -> Block {
        Block { span: self.span_of(&pair), kind: self.items(pair.into_inner()) }
    }

    fn arguments(&mut self, pair: Pair<'_, Rule>) -> Vec<Argument> {
        let are_items = pair.as_rule() == Rule::parenthesised;
        let mut row = pair.into_inner().peekable();
        let mut arguments = Vec::new();
        while let Some(part) = row.next() {
            arguments.push(match part.as_rule() {
                Rule::keyword => {
                    let value = row.next().expect("a keyword has a value");
                    Argument { keyword: Some(self.name_at(tokens_of(&part).start)), value: self.value(value) }
                }
                _ if are_items => Argument { keyword: None, value: self.item(part, &mut row).into_value() },
                _ => Argument { keyword: None, value: self.value(part) },
            });
        }
        arguments
    }

    fn value(&mut self, pair: Pair<'_, Rule>) -> Value {
        let span = self.span_of(&pair);
        let kind = match pair.as_rule() {
            Rule::text => ValueKind::Text(self.text(span)),
            Rule::number => {
                let written = self.source.get(span.start..span.end).unwrap_or_default();
                literal::number(written, span, self.findings)
            }
            Rule::boolean => ValueKind::Boolean(self.text_of(span) == "true"),
            Rule::list => ValueKind::List(self.items(pair.into_inner())),
            Rule::block => ValueKind::Block(self.block(pair)),
            Rule::reference => self.reference(pair),
            _ => misplaced(&pair),
        };
        Value { kind, span }
    }

    fn reference(&mut self, pair: Pair<'_, Rule>) -> ValueKind {
        let name = self.name_at(tokens_of(&pair).start);
        let Some(arguments) = pair.into_inner().next() else { return ValueKind::Name(name.kind) };
        let arguments = self.arguments(arguments);
        ValueKind::Call(Box::new(Entry { name, tail: Tail::Call(Call { arguments, block: None }) }))
    }

    fn text(&mut self, span: Span) -> String {
        let written = self.source.get(span.start..span.end).unwrap_or_default();
        literal::text(written, span.start, self.findings)
    }
}

#[cfg(test)]
mod tests;
