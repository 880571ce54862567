//! Values as a condition that is told has them: in the canonical spelling, whatever the file's is.

use crate::{
    lower::Lowering,
    syntax::{Argument, Entry, Item, Tail, Value, ValueKind},
};

/// A text in single quotes.
pub(super) fn text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

impl Lowering<'_, '_> {
    /// The value in the canonical spelling.
    pub(super) fn spelled(&self, value: &Value) -> String {
        match &value.kind {
            ValueKind::Text(written) => text(written),
            ValueKind::Boolean(value) => value.to_string(),
            ValueKind::Name(name) => self.canonical(name),
            ValueKind::Call(entry) => self.spelled_call(entry),
            ValueKind::List(items) => {
                let items: Vec<String> = items.iter().map(|item: &Item| self.spelled(&item.clone().into_value())).collect();
                format!("[{}]", items.join(", "))
            }
            ValueKind::Integer(_) | ValueKind::Decimal(_) | ValueKind::Duration(_) | ValueKind::Size(_) => self.written(value),
            // These are refused, or a single condition in parentheses: shown as it stands, on one line.
            ValueKind::Condition(_) | ValueKind::Block(_) | ValueKind::Wrong => {
                self.written(value).split_whitespace().collect::<Vec<_>>().join(" ")
            }
        }
    }

    fn spelled_call(&self, entry: &Entry) -> String {
        let Tail::Call(call) = &entry.tail else { return entry.name.kind.clone() };
        let argument = |argument: &Argument| self.spelled(&argument.value);
        format!("{}({})", entry.name.kind, call.arguments.iter().map(argument).collect::<Vec<_>>().join(", "))
    }

    fn written(&self, value: &Value) -> String {
        self.source.text.get(value.span.start..value.span.end).unwrap_or_default().to_owned()
    }
}
