//! The syntax tree: what stands in the file, before anything is known of its meaning.

use model::diagnostic::{Diagnostic, Span};

use crate::{
    diagnostic::{Files, Findings},
    limits::SOURCE_BYTES_MAX,
};

/// What could be read of a file as far as its syntax.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// What stands at the top level; empty where nothing could be read. Braces around a syntax error are empty.
    pub items: Vec<Item>,
    /// Errors and warnings, the first of the file first.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads a file of any kind as far as its syntax, without what it means. `path` stands in the diagnostics.
pub fn read(path: &str, source: &[u8]) -> Reading {
    let (mut files, mut findings) = (Files::default(), Findings::default());
    files.add(path, source.get(..SOURCE_BYTES_MAX).unwrap_or(source));
    let tree = crate::tree(source, &files, &mut findings);
    Reading { items: tree.map(|tree| tree.items).unwrap_or_default(), diagnostics: findings.finish(&files) }
}

/// A node and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spanned<T> {
    /// What it is.
    pub kind: T,
    /// Where it stands.
    pub span: Span,
}

/// One thing in a file, a block or a list.
pub type Item = Spanned<ItemKind>;

/// What one thing in a file, a block or a list can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ItemKind {
    /// A name with what belongs to it.
    Entry(Entry),
    /// A value without a name.
    Value(ValueKind),
    /// Something with `!`, `==`, `in`, `matches`, `&&`, `||` or parentheses around it.
    Condition(Box<Condition>),
}

/// A condition and where it stands.
pub type Condition = Spanned<ConditionKind>;

/// What a condition can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConditionKind {
    /// A value that is true or not: `changed('docs/**')`, `params.deploy`, `tag`.
    Value(ValueKind),
    /// `a == b`, or `a != b`.
    Equal {
        /// What stands left.
        left: Value,
        /// Whether it is `!=`.
        negated: bool,
        /// What stands right.
        right: Value,
    },
    /// `a in [b, c]`.
    In {
        /// What is looked for.
        value: Value,
        /// Where; the span is that of the brackets.
        among: Spanned<Vec<Item>>,
    },
    /// `a matches 'pattern'`.
    Matches {
        /// What is compared.
        value: Value,
        /// The pattern, a text.
        pattern: Spanned<String>,
    },
    /// `!a`.
    Not(Box<Condition>),
    /// `a && b`, at least two.
    All(Vec<Condition>),
    /// `a || b`, at least two; `&&` binds more tightly.
    Any(Vec<Condition>),
}

/// A name as it is written; may have dots.
pub type Name = Spanned<String>;

/// A name with what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name.
    pub name: Name,
    /// What belongs to it.
    pub tail: Tail,
}

/// What can belong to a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tail {
    /// `= value`.
    Assign(Value),
    /// `-> name`.
    Arrow(Name),
    /// Arguments and a block; the bare name is a call without either.
    Call(Call),
}

/// Arguments and a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// In the order in which they are written.
    pub arguments: Vec<Argument>,
    /// The block in braces; one in brackets is the last argument, a list.
    pub block: Option<Block>,
}

/// One argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    /// The name before the colon; a positional argument has none.
    pub keyword: Option<Name>,
    /// The value.
    pub value: Value,
}

/// What stands between braces; the span is that of the braces.
pub type Block = Spanned<Vec<Item>>;

/// A value and where it stands.
pub type Value = Spanned<ValueKind>;

/// What a value can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueKind {
    /// A string, with its escapes resolved.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction, as written.
    Decimal(String),
    /// In milliseconds.
    Duration(i64),
    /// In bytes.
    Size(i64),
    /// `true` or `false`.
    Boolean(bool),
    /// What stands between brackets: values, variables or steps, as the place says.
    List(Vec<Item>),
    /// What stands between braces after `=` or `name:`: settings, or a list of steps.
    Block(Block),
    /// A name: a word such as `safe`, or a variable.
    Name(String),
    /// A function with its arguments, or a step in a list.
    Call(Box<Entry>),
    /// As in [`ItemKind::Condition`].
    Condition(Box<Condition>),
    /// A number that is none; its error is told already.
    Wrong,
}

impl Item {
    /// The thing as a value.
    pub fn into_value(self) -> Value {
        let kind = match self.kind {
            ItemKind::Value(kind) => kind,
            ItemKind::Condition(condition) => ValueKind::Condition(condition),
            ItemKind::Entry(Entry { name, tail: Tail::Call(Call { arguments, block: None }) }) if arguments.is_empty() => {
                ValueKind::Name(name.kind)
            }
            ItemKind::Entry(entry) => ValueKind::Call(Box::new(entry)),
        };
        Value { kind, span: self.span }
    }

    /// The thing as a side of a comparison: of a value in parentheses, the value.
    pub fn into_operand(self) -> Value {
        let span = self.span;
        match self.kind {
            ItemKind::Condition(condition) => match *condition {
                Spanned { kind: ConditionKind::Value(kind), .. } => Value { kind, span },
                condition => Value { kind: ValueKind::Condition(Box::new(condition)), span },
            },
            kind @ (ItemKind::Entry(_) | ItemKind::Value(_)) => Self { kind, span }.into_value(),
        }
    }

    /// The thing as a condition.
    pub fn into_condition(self) -> Condition {
        let span = self.span;
        match self.into_value().kind {
            ValueKind::Condition(condition) => *condition,
            kind @ (ValueKind::Text(_)
            | ValueKind::Integer(_)
            | ValueKind::Decimal(_)
            | ValueKind::Duration(_)
            | ValueKind::Size(_)
            | ValueKind::Boolean(_)
            | ValueKind::List(_)
            | ValueKind::Block(_)
            | ValueKind::Name(_)
            | ValueKind::Call(_)
            | ValueKind::Wrong) => Condition { kind: ConditionKind::Value(kind), span },
        }
    }
}
