//! Values of settings: read where they have to be known while planning, each with its own error.

use std::{collections::BTreeMap, ops::RangeInclusive};

use model::{diagnostic::Span, plan};

use super::{
    Lowering,
    copy::{is_from, unquoted},
};
use crate::{
    diagnostic::{Code, Finding, excerpt, quoted},
    limits::{DURATION_MS_MAX, SETTING_TEXT_BYTES_MAX, SETTING_TEXTS_MAX},
    syntax::{Block, Call, Entry, Item, ItemKind, Name, Tail, Value, ValueKind},
};

/// The keys of a block, and where it stands in a message.
pub(in crate::lower) struct Keys {
    /// As in "means nothing in `retry`".
    pub(in crate::lower) within: &'static str,
    pub(in crate::lower) names: &'static [&'static str],
}

impl Lowering<'_, '_> {
    /// The value of `key = value` or `key value`.
    pub(in crate::lower) fn value_of<'t>(&mut self, entry: &'t Entry) -> Option<&'t Value> {
        match &entry.tail {
            Tail::Assign(value) => Some(value),
            Tail::Call(Call { arguments, block: None }) => match arguments.as_slice() {
                [argument] if argument.keyword.is_none() => Some(&argument.value),
                _ => self.one_value(&entry.name),
            },
            Tail::Call(Call { block: Some(_), .. }) if entry.name.kind == "environment" => {
                let finding = Finding::new(Code::Shape, entry.name.span, "`environment` names where the stage delivers to");
                self.error(finding.help("write `environment -> preprod`; variables stand in `env { … }`"));
                None
            }
            Tail::Arrow(_) | Tail::Call(_) => self.one_value(&entry.name),
        }
    }

    fn one_value<T>(&mut self, name: &Name) -> Option<T> {
        let finding = Finding::new(Code::Shape, name.span, format!("{} takes one value", quoted(&name.kind)));
        self.error(finding.help(format!("write `{} = …`", excerpt(&name.kind))));
        None
    }

    /// The block of `key { … }` or `key = { … }`; `None` if it has none, which is not told.
    pub(in crate::lower) fn block_of(entry: &Entry) -> Option<&Block> {
        match &entry.tail {
            Tail::Call(Call { arguments, block: Some(block) }) if arguments.is_empty() => Some(block),
            Tail::Assign(Value { kind: ValueKind::Block(block), .. }) => Some(block),
            Tail::Assign(_) | Tail::Arrow(_) | Tail::Call(_) => None,
        }
    }

    /// Refuses a value, unless it is refused already.
    pub(in crate::lower) fn wrong_value<T>(&mut self, value: &Value, message: impl Into<String>, help: impl Into<String>) -> Option<T> {
        if value.kind != ValueKind::Wrong {
            self.error(Finding::new(Code::SettingValue, value.span, message).help(help));
        }
        None
    }

    /// The entries of a block that knows its keys, by key; what is unknown or stands twice is refused.
    pub(in crate::lower) fn keyed<'t>(&mut self, items: &'t [Item], keys: &Keys) -> BTreeMap<&'static str, &'t Entry> {
        let mut entries = BTreeMap::new();
        for entry in self.entries(items, keys.within) {
            let name = &entry.name;
            if let Some(key) = keys.names.iter().find(|key| **key == name.kind) {
                entries.insert(*key, entry);
            } else {
                let message = format!("{} means nothing {}", quoted(&name.kind), keys.within);
                let help = self.did_you_mean(&name.kind, keys.names.iter().copied());
                self.error(Finding::new(Code::UnknownName, name.span, message).help(help));
            }
        }
        entries
    }

    /// The entries of a block in order; what is none or stands twice is refused. `from '…'` is left out: see [`super::copy`].
    pub(in crate::lower) fn entries<'t>(&mut self, items: &'t [Item], within: &str) -> Vec<&'t Entry> {
        let mut seen: BTreeMap<&str, Span> = BTreeMap::new();
        let mut entries = Vec::new();
        let mut items = items.iter().peekable();
        while let Some(item) = items.next() {
            let ItemKind::Entry(entry) = &item.kind else {
                let message = format!("a value alone means nothing {within}");
                self.error(Finding::new(Code::Shape, item.span, message).help("write `name = value`"));
                continue;
            };
            if is_from(entry) {
                // The name behind a `from` without quotes is told there.
                items.next_if(|next| unquoted(entry, Some(*next)).is_some());
                continue;
            }
            if let Some(first) = seen.get(entry.name.kind.as_str()).copied() {
                self.doubled(&quoted(&entry.name.kind), entry.name.span, first);
                continue;
            }
            seen.insert(&entry.name.kind, entry.name.span);
            entries.push(entry);
        }
        entries
    }

    /// Says that a block lacks a key, unless an unknown one stands there, which may be meant, or its inside could not be read.
    pub(in crate::lower) fn missing_key(&mut self, of: &Name, block: &Block, keys: &Keys, key: &str, help: &str) {
        let is_unknown = |item: &Item| match &item.kind {
            ItemKind::Entry(entry) => !keys.names.contains(&entry.name.kind.as_str()),
            ItemKind::Value(_) | ItemKind::Condition(_) => true,
        };
        if !self.is_left_out(block) && !block.kind.iter().any(is_unknown) {
            let finding = Finding::new(Code::MissingSetting, of.span, format!("{} needs `{key}`", quoted(&of.kind)));
            self.error(finding.help(help));
        }
    }

    /// `key = true` or `key = false`.
    pub(in crate::lower) fn flag(&mut self, entry: &Entry) -> Option<bool> {
        let value = self.value_of(entry)?;
        self.boolean(value, &quoted(&entry.name.kind))
    }

    /// A whole number in a range.
    pub(in crate::lower) fn number_within(&mut self, value: &Value, what: &str, range: RangeInclusive<i64>) -> Option<i64> {
        let number = self.number(value, what)?;
        if range.contains(&number) {
            return Some(number);
        }
        let help = format!("write a whole number from {} to {}", range.start(), range.end());
        self.wrong_value(value, format!("{what} is {number}, out of its range"), help)
    }

    /// A duration of at least `least_ms` and at most [`DURATION_MS_MAX`], in milliseconds.
    pub(in crate::lower) fn duration_within(&mut self, value: &Value, what: &str, least_ms: u64) -> Option<u64> {
        let ms = self.duration(value, what)?;
        if ms < least_ms {
            let least = if least_ms.is_multiple_of(1000) { format!("{}s", least_ms / 1000) } else { "a millisecond".to_owned() };
            return self.wrong_value(value, format!("{what} is too short"), format!("it is at least {least}"));
        }
        if ms > DURATION_MS_MAX {
            let help = format!("it is at most {}d", DURATION_MS_MAX / (24 * 60 * 60 * 1000));
            return self.wrong_value(value, format!("{what} is too long"), help);
        }
        Some(ms)
    }

    /// A text that is known while planning, on one line, not empty, and not too long.
    pub(in crate::lower) fn line_of_text(&mut self, value: &Value, what: &str) -> Option<String> {
        let text = self.text(value, what)?.kind;
        self.is_line(value.span, &text, what).then_some(text)
    }

    /// A text on one line, or what becomes one in the run.
    pub(in crate::lower) fn line_or_variable(&mut self, value: &Value, what: &str) -> Option<plan::Value> {
        let known = self.text_value(value, what)?.value;
        let sound = known.as_text().is_none_or(|text| self.is_line(value.span, text, what));
        sound.then_some(known)
    }

    fn is_line(&mut self, span: Span, text: &str, what: &str) -> bool {
        let (problem, help) = if text.trim().is_empty() {
            (format!("{what} is empty"), "write a text".to_owned())
        } else if text.len() > SETTING_TEXT_BYTES_MAX {
            (format!("{what} has {} bytes", text.len()), format!("it has at most {SETTING_TEXT_BYTES_MAX}"))
        } else if text.chars().any(char::is_control) {
            (format!("{what} has a line break or another control character"), "write it on one line".to_owned())
        } else {
            return true;
        };
        self.error(Finding::new(Code::SettingValue, span, problem).help(help));
        false
    }

    /// Lines of text in brackets, each once, or one alone.
    pub(in crate::lower) fn lines_of_text(&mut self, value: &Value, what: &str) -> Option<Vec<Name>> {
        let texts = self.texts(value, what)?;
        if texts.len() > SETTING_TEXTS_MAX {
            let message = format!("here are {} values, and at most {SETTING_TEXTS_MAX} can stand here", texts.len());
            return self.wrong_value(value, message, "name fewer");
        }
        let mut sound = true;
        let mut seen: BTreeMap<&str, Span> = BTreeMap::new();
        for text in &texts {
            sound &= self.is_line(text.span, &text.kind, what);
            match seen.get(text.kind.as_str()).copied() {
                Some(first) => self.doubled(&quoted(&text.kind), text.span, first),
                None => drop(seen.insert(&text.kind, text.span)),
            }
        }
        sound.then_some(texts)
    }
}
