//! Values: literals, names and functions, evaluated as far as they are known while planning, each with what of it came from outside.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use model::{diagnostic::Span, plan};

use super::{Lowering, condition::Decision, fact};
use crate::{
    diagnostic::{Code, Finding, excerpt, quoted},
    limits::VALUE_BYTES_MAX,
    literal,
    syntax::{Call, Entry, Item, ItemKind, Name, Spanned, Tail, Value, ValueKind},
};

/// A value, and whether something of it came from outside: then it is no code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) value: plan::Value,
    /// What came from outside, as the file names it: `params.target`, `branch`, `vars.colour`.
    pub(super) outside: Option<String>,
    /// A number as it is written, where that is not what `value` says: `10m`, `1G`, `007`.
    pub(super) written: Option<String>,
}

impl Known {
    /// What stands in the file, or in the commit.
    pub(super) fn inside(value: plan::Value) -> Self {
        Self { value, outside: None, written: None }
    }

    /// What comes from outside, and how the file names it.
    pub(super) fn outside(value: plan::Value, name: &str) -> Self {
        Self { value, outside: Some(name.to_owned()), written: None }
    }

    /// The text that it stands for: a number or a boolean as it is written. `None` for a list and for what is known in the run only.
    pub(super) fn as_text(&self) -> Option<String> {
        match (&self.written, &self.value) {
            (Some(written), _) => Some(written.clone()),
            (None, plan::Value::Text(text)) => Some(text.clone()),
            (None, plan::Value::Integer(number)) => Some(number.to_string()),
            (None, plan::Value::Decimal { decimal }) => Some(decimal.clone()),
            (None, plan::Value::Boolean(value)) => Some(value.to_string()),
            (None, plan::Value::Variable { .. } | plan::Value::Call { .. } | plan::Value::Steps { .. } | plan::Value::List(_)) => None,
        }
    }

    /// The unit of a duration or a size.
    pub(super) fn unit(&self) -> Option<char> {
        let integer = matches!(self.value, plan::Value::Integer(_));
        self.written.as_ref().filter(|_| integer).and_then(|written| written.chars().last()).filter(char::is_ascii_alphabetic)
    }

    /// What it is, for a message.
    pub(super) fn described(&self) -> &'static str {
        match (&self.value, self.unit()) {
            (plan::Value::Integer(_), Some('s' | 'm' | 'h' | 'd')) => "a duration",
            (plan::Value::Integer(_), Some(_)) => "a size",
            (plan::Value::Integer(_) | plan::Value::Decimal { .. }, _) => "a number",
            (plan::Value::Boolean(_), _) => "`true` or `false`",
            (plan::Value::Text(_), _) => "a text",
            (plan::Value::List(_), _) => "a list",
            (plan::Value::Steps { .. }, _) => "a block of steps",
            (plan::Value::Variable { .. } | plan::Value::Call { .. }, _) => "known in the run only",
        }
    }
}

/// What `it` and `params` mean in the place that is being read.
#[derive(Debug, Clone, Default)]
pub(super) struct Scope {
    /// In an `each`: its value, or its values by name.
    pub(super) it: Option<It>,
    /// The parameters of the pipeline, of the blueprint, or of the step made of steps.
    pub(super) parameters: Rc<BTreeMap<String, Known>>,
    /// Whether the parameters are declared in the older spelling, `vars { … }`: then `vars.x` is `params.x` where there is such a one.
    pub(super) older: bool,
    /// Parameters whose declaration or value is wrong, which is told already.
    pub(super) wrong: Rc<BTreeSet<String>>,
}

/// The value of an `each` for one branch.
#[derive(Debug, Clone)]
pub(super) enum It {
    /// `each('a', 'b')`: `it`.
    One(Known),
    /// `each(os: […])`: `it.os`.
    Named(Rc<Named>),
}

/// The values of an `each` by name, and those of the one around it.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) values: BTreeMap<String, Known>,
    pub(super) around: Option<Rc<Self>>,
}

impl Named {
    /// The value of the innermost `each` that has one of this name.
    pub(super) fn get(&self, name: &str) -> Option<&Known> {
        self.all().find_map(|named| named.values.get(name))
    }

    /// The names, those of the innermost first.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.all().flat_map(|named| named.values.keys())
    }

    fn all(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |named| named.around.as_deref())
    }
}

impl Lowering<'_, '_> {
    /// Evaluates a value in [`Lowering::scope`]; `None` if something in it is wrong, which is told, or has to be asked for.
    ///
    /// A few letters can name a long value, as often as they are written: what they stand for is counted like what is expanded.
    pub(super) fn known(&mut self, value: &Value) -> Option<Known> {
        let known = self.known_kind(&value.kind, value.span)?;
        let is_literal = !matches!(value.kind, ValueKind::Name(_) | ValueKind::Call(_) | ValueKind::List(_));
        (is_literal || self.expanded(bytes(&known.value), value.span)).then_some(known)
    }

    /// Goes on with another meaning of `it` and `params`.
    pub(super) fn with_scope<T>(&mut self, scope: Scope, work: impl FnOnce(&mut Self) -> T) -> T {
        let outer = std::mem::replace(&mut self.scope, scope);
        let result = work(self);
        self.scope = outer;
        result
    }

    /// [`Lowering::known`] of an item of a list.
    pub(super) fn known_item(&mut self, item: &Item) -> Option<Known> {
        match &item.kind {
            ItemKind::Value(kind) => self.known_kind(kind, item.span),
            ItemKind::Entry(Entry { name, tail: Tail::Call(Call { arguments, block: None }) }) if arguments.is_empty() => {
                self.named(&name.kind, item.span)
            }
            ItemKind::Entry(entry) => self.function(entry, item.span),
            ItemKind::Condition(condition) => {
                let decision = self.decide(condition)?;
                self.decided(&decision, item.span)
            }
        }
    }

    fn known_kind(&mut self, kind: &ValueKind, span: Span) -> Option<Known> {
        match kind {
            ValueKind::Text(text) => Some(Known::inside(plan::Value::Text(text.clone()))),
            ValueKind::Boolean(value) => Some(Known::inside(plan::Value::Boolean(*value))),
            ValueKind::Decimal(decimal) => Some(Known::inside(plan::Value::Decimal { decimal: decimal.clone() })),
            ValueKind::Integer(number) | ValueKind::Duration(number) | ValueKind::Size(number) => {
                let written = self.source.text.get(span.start..span.end).unwrap_or_default();
                let written = (written != number.to_string()).then(|| written.to_owned());
                Some(Known { written, ..Known::inside(plan::Value::Integer(*number)) })
            }
            ValueKind::List(items) => self.known_list(items, span),
            ValueKind::Name(name) => self.named(name, span),
            ValueKind::Call(call) => self.function(call, span),
            ValueKind::Condition(condition) => {
                let decision = self.decide(condition)?;
                self.decided(&decision, span)
            }
            ValueKind::Block(_) => {
                let brace = Span { start: span.start, end: span.start + 1 };
                let finding = Finding::new(Code::ValueType, brace, "a block, where a value belongs");
                self.error(finding.help("a value is a text in quotes, a number, `true`, `false`, a list, a name or a function"));
                None
            }
            ValueKind::Wrong => None,
        }
    }

    fn known_list(&mut self, items: &[Item], span: Span) -> Option<Known> {
        // Every item is looked at, so that every mistake is told.
        let known: Vec<Option<Known>> = items.iter().map(|item| self.flat_item(item)).collect();
        let known = known.into_iter().collect::<Option<Vec<Known>>>()?;
        let outside = known.iter().find_map(|item| item.outside.clone());
        let list = plan::Value::List(known.into_iter().map(|item| item.value).collect());
        self.bounded(Known { outside, ..Known::inside(list) }, span)
    }

    /// An item that is no list itself.
    fn flat_item(&mut self, item: &Item) -> Option<Known> {
        let known = self.known_item(item)?;
        if matches!(known.value, plan::Value::List(_)) {
            let finding = Finding::new(Code::ValueType, item.span, "a list in a list").label("this is a list");
            self.error(finding.help("a list holds texts, numbers and booleans; where it is the whole value, leave the outer brackets out"));
            return None;
        }
        Some(known)
    }

    /// A condition where a value belongs.
    fn decided(&mut self, decision: &Decision, span: Span) -> Option<Known> {
        match decision {
            Decision::Holds => Some(Known::inside(plan::Value::Boolean(true))),
            Decision::Fails { .. } => Some(Known::inside(plan::Value::Boolean(false))),
            Decision::InRun(_) => {
                let finding = Finding::new(Code::InRunOnly, span, "this condition is decided in the run, and a value must be known before");
                self.error(finding.help("write it as a condition of a stage: `gates { enter { … } }`"));
                None
            }
        }
    }

    /// The value, unless it is larger than the limit. Values of values grow fast.
    pub(super) fn bounded(&mut self, known: Known, span: Span) -> Option<Known> {
        if bytes(&known.value) <= VALUE_BYTES_MAX {
            return Some(known);
        }
        let finding = Finding::new(Code::ValueTooLarge, span, format!("the value would have more than {VALUE_BYTES_MAX} bytes"));
        self.error(finding.help("what is larger belongs into a file of the repository"));
        None
    }

    /// A text that is known while planning. A number or a boolean that comes from a name or a function stands for the text as it is
    /// written. `what` begins the message: `the name of a lock`.
    pub(super) fn text(&mut self, value: &Value, what: &str) -> Option<Name> {
        let known = self.planned(value, what)?;
        self.text_of(&known, value, what)
    }

    /// A text that may be known in the run only, with what of it came from outside.
    pub(super) fn text_value(&mut self, value: &Value, what: &str) -> Option<Known> {
        let known = self.known(value)?;
        if !known.value.is_known() && !matches!(known.value, plan::Value::List(_)) {
            return Some(known);
        }
        let Name { kind, .. } = self.text_of(&known, value, what)?;
        Some(Known { value: plan::Value::Text(kind), written: None, outside: known.outside })
    }

    /// A text that stands in the file as it is.
    pub(super) fn literal_text(&mut self, value: &Value, what: &str) -> Option<Name> {
        match &value.kind {
            ValueKind::Text(text) => Some(Name { kind: text.clone(), span: value.span }),
            ValueKind::Wrong => None,
            ValueKind::Name(name) if !fact::is_name(name) => {
                let finding = Finding::new(Code::NotALiteral, value.span, format!("{what} is a text in quotes"));
                self.error(finding.help(format!("write '{}'", excerpt(name))));
                None
            }
            ValueKind::Integer(_)
            | ValueKind::Decimal(_)
            | ValueKind::Duration(_)
            | ValueKind::Size(_)
            | ValueKind::Boolean(_)
            | ValueKind::List(_)
            | ValueKind::Name(_)
            | ValueKind::Call(_)
            | ValueKind::Block(_)
            | ValueKind::Condition(_) => {
                let finding = Finding::new(Code::NotALiteral, value.span, format!("{what} is a text in quotes"));
                self.error(finding.help("it must be known before anything is evaluated"));
                None
            }
        }
    }

    /// Texts that are known while planning: a list of them, or one.
    pub(super) fn texts(&mut self, value: &Value, what: &str) -> Option<Vec<Name>> {
        if let ValueKind::List(items) = &value.kind {
            let texts: Vec<Option<Name>> = items.iter().map(|item| self.text(&item.clone().into_value(), what)).collect();
            return texts.into_iter().collect();
        }
        let known = self.planned(value, what)?;
        let plan::Value::List(items) = known.value else { return self.text_of(&known, value, what).map(|text| vec![text]) };
        let text = |item| Some(Name { kind: Known::inside(item).as_text()?, span: value.span });
        items.into_iter().map(text).collect()
    }

    /// `true` or `false`, known while planning.
    pub(super) fn boolean(&mut self, value: &Value, what: &str) -> Option<bool> {
        let known = self.planned(value, what)?;
        if let plan::Value::Boolean(value) = known.value {
            return Some(value);
        }
        self.wrong_type(&known, value.span, &format!("{what} is `true` or `false`"), "write it without quotes")
    }

    /// A whole number without a unit, known while planning.
    pub(super) fn number(&mut self, value: &Value, what: &str) -> Option<i64> {
        let known = self.planned(value, what)?;
        if let (plan::Value::Integer(number), None) = (&known.value, known.unit()) {
            return Some(*number);
        }
        self.wrong_type(&known, value.span, &format!("{what} is a whole number"), "write it without quotes and without a unit")
    }

    /// A duration in milliseconds, known while planning. What comes from a name or a function may be a text: `10m`.
    pub(super) fn duration(&mut self, value: &Value, what: &str) -> Option<u64> {
        let known = self.planned(value, what)?;
        let ms = match (&known.value, known.unit(), &value.kind) {
            (plan::Value::Integer(ms), Some('s' | 'm' | 'h' | 'd'), _) => Some(*ms),
            (plan::Value::Integer(number), None, _) => {
                let help = format!("write `{number}s`, `{number}m`, `{number}h` or `{number}d`");
                self.error(Finding::new(Code::SettingValue, value.span, format!("{what} needs a unit")).help(help));
                return None;
            }
            (plan::Value::Text(text), _, ValueKind::Name(_) | ValueKind::Call(_)) => {
                if let ValueKind::Duration(ms) = number_of(text) {
                    Some(ms)
                } else {
                    None
                }
            }
            _ => None,
        };
        match ms.and_then(|ms| u64::try_from(ms).ok()) {
            None => self.wrong_type(&known, value.span, &format!("{what} is a duration"), "write it without quotes, such as `10m`"),
            ms => ms,
        }
    }

    /// A size in bytes, known while planning: `1G`, or the text `'1G'`.
    pub(super) fn size(&mut self, value: &Value, what: &str) -> Option<u64> {
        let known = self.planned(value, what)?;
        let bytes = match (&known.value, known.unit()) {
            (plan::Value::Integer(bytes), None | Some('K' | 'M' | 'G' | 'T')) => Some(*bytes),
            (plan::Value::Text(text), _) => {
                if let ValueKind::Size(bytes) | ValueKind::Integer(bytes) = number_of(text) {
                    Some(bytes)
                } else {
                    None
                }
            }
            _ => None,
        };
        match bytes.and_then(|bytes| u64::try_from(bytes).ok()) {
            None => self.wrong_type(&known, value.span, &format!("{what} is a size"), "write it with K, M, G or T, such as `512M`"),
            bytes => bytes,
        }
    }

    /// A text that is run as code, so nothing of it may come from outside. `what` is the code: `the script of a step`.
    pub(super) fn code(&mut self, value: &Value, what: &str) -> Option<String> {
        let known = self.known(value)?;
        self.no_outside(&known, value.span, what)?;
        self.text_of(&known, value, what).map(|text| text.kind)
    }

    /// Refuses a value for code if something of it came from outside. `what` is the code.
    pub(super) fn no_outside(&mut self, known: &Known, span: Span, what: &str) -> Option<()> {
        let Some(outside) = &known.outside else { return Some(()) };
        let name = outside.rsplit('.').next().unwrap_or_default();
        let variable: String = name.chars().map(|it| if it.is_ascii_alphanumeric() { it.to_ascii_uppercase() } else { '_' }).collect();
        let message = format!("{what} is code, and {} comes from outside", quoted(outside));
        let finding = Finding::new(Code::OutsideCode, span, message).label("text from outside would be run");
        // Where it stands by its own name, that is what the place knows it by; in another file, `outside` means nothing.
        let written = self.source.text.get(span.start..span.end).unwrap_or_default();
        let shown = match written {
            name if name.split('.').all(is_name) => name.to_owned(),
            _ if self.including.len() > 1 => "…".to_owned(),
            _ => excerpt(outside),
        };
        let help = format!("hand it over in the environment, `env {{ {variable} = {shown} }}`, and use \"${variable}\" in the script");
        self.error(finding.help(help));
        None
    }

    /// A value that nothing is left of to the run.
    pub(super) fn planned(&mut self, value: &Value, what: &str) -> Option<Known> {
        let known = self.known(value)?;
        if known.value.is_known() {
            return Some(known);
        }
        let variable = known.outside.as_deref().map_or_else(|| "a variable".to_owned(), quoted);
        let finding = Finding::new(Code::InRunOnly, value.span, format!("{what} must be known while planning, and {variable} is not"));
        self.error(finding.label("known in the run only").help("use `params.…`, a fact such as `branch`, or a text"));
        None
    }

    fn text_of(&mut self, known: &Known, value: &Value, what: &str) -> Option<Name> {
        let literal = !matches!(value.kind, ValueKind::Name(_) | ValueKind::Call(_));
        match known.as_text().filter(|_| !literal || known.value.as_text().is_some()) {
            Some(text) => Some(Spanned { kind: text, span: value.span }),
            None => self.wrong_type(known, value.span, &format!("{what} is a text"), "write it in quotes"),
        }
    }

    fn wrong_type<T>(&mut self, known: &Known, span: Span, message: &str, help: &str) -> Option<T> {
        let finding = Finding::new(Code::SettingValue, span, message).label(format!("this is {}", known.described()));
        self.error(finding.help(help));
        None
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// The number that a text is; [`ValueKind::Wrong`] if it is none.
fn number_of(text: &str) -> ValueKind {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.starts_with(|character: char| character.is_ascii_digit()) {
        literal::number(text, Span::default(), &mut crate::diagnostic::Findings::default())
    } else {
        ValueKind::Wrong
    }
}

/// The number without a unit that a text is.
pub(super) fn plain_number(text: &str) -> Option<plan::Value> {
    let number = number_of(text);
    if let ValueKind::Integer(number) = number {
        return Some(plan::Value::Integer(number));
    }
    if let ValueKind::Decimal(decimal) = number { Some(plan::Value::Decimal { decimal }) } else { None }
}

/// Bytes of a value, rounded up.
pub(super) fn bytes(value: &plan::Value) -> usize {
    match value {
        plan::Value::Text(text) | plan::Value::Decimal { decimal: text } | plan::Value::Variable { variable: text } => text.len(),
        plan::Value::Boolean(_) | plan::Value::Integer(_) | plan::Value::Steps { .. } => 8,
        plan::Value::List(items) | plan::Value::Call { arguments: items, .. } => items.iter().map(|item| 16 + bytes(item)).sum(),
    }
}
