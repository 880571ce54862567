//! Settings of stages, groups and the pipeline.

mod inherited;

use std::collections::BTreeMap;

use model::{
    diagnostic::Span,
    plan::{self, CacheDefinition, Container, Deployment, Effect, Notify, Requirements, Retry, Service, Skip, Wait},
};

pub(super) use self::inherited::Inherited;
use super::Lowering;
use crate::{
    diagnostic::{Code, FileId, Finding, excerpt, quoted},
    limits::STAGE_NAME_BYTES_MAX,
    syntax::{Call, Entry, ItemKind, Name, Spanned, Tail, Value, ValueKind},
};

/// What is written at one stage, group or pipeline; what is not, is inherited.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// The file that the spans stand in.
    pub(super) file: FileId,
    pub(super) environment: BTreeMap<String, plan::Value>,
    pub(super) timeout_ms: Option<u64>,
    pub(super) retry: Option<Spanned<Retry>>,
    pub(super) effect: Option<Effect>,
    pub(super) deployment: Option<Deployment>,
    pub(super) credentials: Option<Vec<Name>>,
    pub(super) lock: Option<String>,
    pub(super) allow_failure: Option<bool>,
    /// `checkout = false`.
    pub(super) bare: Option<bool>,
    pub(super) runtime: Option<Runtime>,
    pub(super) services: Option<Vec<Service>>,
    pub(super) cache: Option<Cache>,
    /// Of `gates` and `when`.
    pub(super) gates: Gates,
    pub(super) notify: Option<Notify>,
    /// Blocks that are copied from other stages.
    pub(super) from: Vec<From>,
}

/// `runtime { … }`.
#[derive(Debug, Clone, Default)]
pub(super) struct Runtime {
    pub(super) requires: Requirements,
    pub(super) container: Option<Container>,
}

/// `cache { … }`.
#[derive(Debug, Clone, Default)]
pub(super) struct Cache {
    pub(super) defined: BTreeMap<String, CacheDefinition>,
    pub(super) used: Vec<Name>,
}

/// `gates { … }` and `when { … }`. What it says of a leaf stage's waits, [`Inherited::apply`] puts into the stage; those of a group are
/// stages of their own.
#[derive(Debug, Clone, Default)]
pub(super) struct Gates {
    /// A condition is false: the stage is skipped.
    pub(super) skip: Option<Skip>,
    /// A condition that asks for nothing but `it` is false: the combination is left out of the plan.
    pub(super) left_out: Option<Skip>,
    /// Decided in the run.
    pub(super) conditions: Vec<plan::Condition>,
    pub(super) enter: Vec<Wait>,
    pub(super) exit: Vec<Wait>,
}

/// A block that is copied: `runtime { from 'Build' }`.
#[derive(Debug, Clone)]
pub(super) struct From {
    /// `runtime`, `cache`, `gates`, `when` or `env`.
    pub(super) block: &'static str,
    /// The path of the stage as the file has it, without what `each` or a blueprint's place adds; the span is that of the text after `from`.
    pub(super) stage: Name,
    /// Where that stage stands in the same file: the span of its word `stage`.
    pub(super) declared: Span,
}

impl Lowering<'_, '_> {
    /// The value of `key = value` or `key value`.
    fn value_of<'t>(&mut self, entry: &'t Entry) -> Option<&'t Value> {
        match &entry.tail {
            Tail::Assign(value) => Some(value),
            Tail::Call(Call { arguments, block: None }) => match arguments.as_slice() {
                [argument] if argument.keyword.is_none() => Some(&argument.value),
                _ => self.one_value(&entry.name),
            },
            Tail::Arrow(_) | Tail::Call(_) => self.one_value(&entry.name),
        }
    }

    fn one_value<T>(&mut self, name: &Name) -> Option<T> {
        let finding = Finding::new(Code::Shape, name.span, format!("{} takes one value", quoted(&name.kind)));
        self.error(finding.help(format!("write `{} = …`", excerpt(&name.kind))));
        None
    }

    /// Refuses a value, unless it is refused already.
    fn wrong_value<T>(&mut self, value: &Value, message: &str, help: &str) -> Option<T> {
        if value.kind != ValueKind::Wrong {
            self.error(Finding::new(Code::SettingValue, value.span, message).help(help));
        }
        None
    }

    /// `name = 'Build'`.
    pub(super) fn name_setting(&mut self, entry: &Entry) -> Option<Name> {
        let value = self.value_of(entry)?;
        let ValueKind::Text(name) = &value.kind else {
            return self.wrong_value(value, "the name of a stage is a text in quotes", "write `name = 'Build'`");
        };
        self.stage_name(Name { kind: name.clone(), span: value.span })
    }

    /// The name, if it can be one.
    pub(super) fn stage_name(&mut self, name: Name) -> Option<Name> {
        let problem = if name.kind.trim().is_empty() {
            "the name of a stage is empty".to_owned()
        } else if name.kind.len() > STAGE_NAME_BYTES_MAX {
            format!("the name of a stage has {} bytes, over the limit of {STAGE_NAME_BYTES_MAX}", name.kind.len())
        } else if name.kind.chars().any(char::is_control) {
            "the name of a stage has a line break or another control character".to_owned()
        } else {
            return Some(name);
        };
        self.error(Finding::new(Code::StageName, name.span, problem).help("a name is a few words on one line"));
        None
    }

    /// `timeout = 10m`, in milliseconds.
    fn timeout(&mut self, entry: &Entry) -> Option<u64> {
        let value = self.value_of(entry)?;
        if let ValueKind::Integer(number) = value.kind {
            let help = format!("write `{number}s`, `{number}m`, `{number}h` or `{number}d`");
            return self.wrong_value(value, "a timeout needs a unit", &help);
        }
        let ValueKind::Duration(ms) = value.kind else {
            return self.wrong_value(value, "a timeout is a duration", "write it without quotes, such as `timeout = 10m`");
        };
        if ms == 0 {
            return self.wrong_value(value, "no stage ends in no time", "write a longer one, such as `timeout = 10m`");
        }
        u64::try_from(ms).ok()
    }

    /// `effect = safe` or `effect = once`.
    fn effect(&mut self, entry: &Entry) -> Option<Effect> {
        let value = self.value_of(entry)?;
        let word = if let ValueKind::Name(word) = &value.kind { word } else { "" };
        match word {
            "safe" => Some(Effect::Safe),
            "once" => Some(Effect::Once),
            _ => self.wrong_value(
                value,
                "an effect is `safe` or `once`, without quotes",
                "`safe`: starting the stage again does no harm; `once`: it never starts a second time without a person",
            ),
        }
    }

    /// A setting of a stage, a group or the pipeline; whether it may stand there and stands there once is checked already.
    pub(super) fn setting(&mut self, word: &'static str, entry: &Entry, settings: &mut Settings) {
        settings.file = self.source.id;
        match word {
            "env" => settings.environment = self.environment(entry),
            "timeout" => settings.timeout_ms = self.timeout(entry),
            "effect" => settings.effect = self.effect(entry),
            _ => self.not_yet(&quoted(word), entry.name.span),
        }
    }

    /// `env { K = 'v' }`.
    fn environment(&mut self, entry: &Entry) -> BTreeMap<String, plan::Value> {
        let mut environment = BTreeMap::new();
        let mut seen: BTreeMap<&str, Span> = BTreeMap::new();
        let Some(block) = self.block(entry) else { return environment };
        for item in &block.kind {
            let ItemKind::Entry(entry) = &item.kind else {
                self.error(Finding::new(Code::Shape, item.span, "a value alone means nothing in `env`").help("write `NAME = 'value'`"));
                continue;
            };
            let Name { kind: name, span } = &entry.name;
            if name == "from" {
                self.not_yet("`from` in `env`", *span);
                continue;
            }
            if let Some(first) = seen.get(name.as_str()).copied() {
                self.doubled(&quoted(name), *span, first);
                continue;
            }
            seen.insert(name, *span);
            if name.contains(['-', '.']) {
                let message = format!("{} cannot be the name of a variable", quoted(name));
                self.error(Finding::new(Code::VariableName, *span, message).help("use letters, digits and `_`"));
                continue;
            }
            if let Some(text) = self.value_of(entry).and_then(|value| self.environment_value(value)) {
                environment.insert(name.clone(), plan::Value::Text(text));
            }
        }
        environment
    }

    /// A text; a number or a boolean stands for the text as it is written.
    fn environment_value(&mut self, value: &Value) -> Option<String> {
        match &value.kind {
            ValueKind::Text(text) => Some(text.clone()),
            ValueKind::Integer(_) | ValueKind::Decimal(_) | ValueKind::Boolean(_) => {
                self.source.text.get(value.span.start..value.span.end).map(|written| written.trim().to_owned())
            }
            ValueKind::Name(_) | ValueKind::Call(_) | ValueKind::Condition(_) | ValueKind::Wrong => {
                self.resolved(value).map(|_| String::new())
            }
            ValueKind::Duration(_) | ValueKind::Size(_) | ValueKind::List(_) | ValueKind::Block(_) => {
                self.wrong_value(value, "a variable of the environment is a text", "write it in quotes")
            }
        }
    }
}
