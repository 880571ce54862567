//! `configure { slack { channel = '#otto' } }`: what holds for every call of a step; and what of the libraries stands in the plan.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    diagnostic::Span,
    manifest::{ConfigurationManifest, StepManifest},
    plan::{Notify, Plan, Step, Value},
};

use super::{Lowering, library::Library};
use crate::{
    diagnostic::{Code, Finding, quoted},
    syntax::{Call, Entry, ItemKind, Tail},
};

/// What is set for a step.
#[derive(Debug, Default)]
pub(super) struct Configured {
    values: BTreeMap<String, Value>,
    /// Keys that stand in the file, also those of which the value is wrong.
    given: BTreeSet<String>,
}

impl Lowering<'_, '_> {
    /// The top-level block.
    pub(super) fn configure(&mut self, entry: &Entry) {
        let Some(block) = self.block(entry) else { return };
        let mut seen: BTreeMap<&str, Span> = BTreeMap::new();
        for item in &block.kind {
            let ItemKind::Entry(step) = &item.kind else {
                let finding = Finding::new(Code::Shape, item.span, "a value alone means nothing in `configure`");
                self.error(finding.help("write the name of a step and a block: `configure { slack { channel = '#otto' } }`"));
                continue;
            };
            if let Some(first) = seen.get(step.name.kind.as_str()).copied() {
                self.doubled(&quoted(&step.name.kind), step.name.span, first);
                continue;
            }
            seen.insert(&step.name.kind, step.name.span);
            self.configured_step(step);
        }
    }

    fn configured_step(&mut self, entry: &Entry) {
        let name = &entry.name;
        let Some(block) = self.block(entry) else { return };
        let scope = self.scope_of_steps();
        let Some(callable) = scope.get(&name.kind) else {
            return self.unknown_step(name);
        };
        let mut configured = Configured::default();
        let mut seen: BTreeMap<&str, Span> = BTreeMap::new();
        for item in &block.kind {
            let ItemKind::Entry(key) = &item.kind else {
                let finding = Finding::new(Code::Shape, item.span, "a value alone means nothing here");
                self.error(finding.help("write `key = value`"));
                continue;
            };
            if let Some(first) = seen.get(key.name.kind.as_str()).copied() {
                self.doubled(&quoted(&key.name.kind), key.name.span, first);
                continue;
            }
            seen.insert(&key.name.kind, key.name.span);
            configured.given.insert(key.name.kind.clone());
            let Some(declared) = callable.manifest.configuration.get(&key.name.kind) else {
                self.unknown_key(key, &callable.manifest);
                continue;
            };
            if let Some(value) = self.configured_value(key, declared) {
                configured.values.insert(key.name.kind.clone(), value);
            }
        }
        self.shelf.configured.insert(name.kind.clone(), configured);
    }

    fn unknown_key(&mut self, key: &Entry, manifest: &StepManifest) {
        let message = if manifest.configuration.is_empty() {
            format!("the step `{}` takes no configuration", manifest.symbol)
        } else {
            format!("the step `{}` has no configuration {}", manifest.symbol, quoted(&key.name.kind))
        };
        let help = self.did_you_mean(&key.name.kind, manifest.configuration.keys().map(String::as_str));
        self.error(Finding::new(Code::Configuration, key.name.span, message).help(help));
    }

    fn configured_value(&mut self, key: &Entry, declared: &ConfigurationManifest) -> Option<Value> {
        let value = match &key.tail {
            Tail::Assign(value) => value,
            Tail::Call(Call { arguments, block: None })
                if arguments.len() == 1 && arguments.iter().all(|argument| argument.keyword.is_none()) =>
            {
                &arguments.first()?.value
            }
            Tail::Arrow(_) | Tail::Call(_) => {
                let finding = Finding::new(Code::Shape, key.name.span, format!("{} takes one value", quoted(&key.name.kind)));
                self.error(finding.help(format!("write `{} = …`", key.name.kind)));
                return None;
            }
        };
        let known = self.known(value)?;
        if !known.value.is_known() {
            let finding = Finding::new(Code::Configuration, value.span, "a configuration is known while planning");
            self.error(finding.help("what is known in the run only belongs into an argument of the step"));
            return None;
        }
        if let Some(default) = &declared.default
            && std::mem::discriminant(default) != std::mem::discriminant(&known.value)
            && !(is_number(default) && is_number(&known.value))
        {
            let message = format!("{} is not of the type of its default, `{}`", quoted(&key.name.kind), shown(default));
            self.error(Finding::new(Code::Configuration, value.span, message).help(declared.description.clone()));
            return None;
        }
        Some(known.value)
    }

    /// Notes that a step of a library is called: what it must be configured with, and the library's digest.
    pub(super) fn used(&mut self, library: &Library, manifest: &StepManifest, span: Span) {
        if self.shelf.called.contains(&manifest.symbol) {
            return;
        }
        self.shelf.called.insert(manifest.symbol.clone());
        self.shelf.libraries.insert(library.name.to_string(), library.digest);
        let configured = self.shelf.configured.get(&manifest.symbol);
        let mut values = configured.map(|configured| configured.values.clone()).unwrap_or_default();
        let missing: Vec<(String, String)> = manifest
            .configuration
            .iter()
            .filter(|(key, declared)| declared.required && !configured.is_some_and(|configured| configured.given.contains(*key)))
            .map(|(key, declared)| (key.clone(), declared.description.clone()))
            .collect();
        for (key, declared) in &manifest.configuration {
            if let (Some(default), false) = (&declared.default, values.contains_key(key)) {
                values.insert(key.clone(), default.clone());
            }
        }
        if !values.is_empty() {
            self.shelf.configuration.insert(manifest.symbol.clone(), values);
        }
        for (key, description) in missing {
            let message = format!("the step `{}` must be configured with `{key}`", manifest.symbol);
            let help = format!("write at the top level: `configure {{ {} {{ {key} = … }} }}`\n{description}", manifest.symbol);
            self.error(Finding::new(Code::Configuration, span, message).label("called here").help(help.trim_end()));
        }
    }

    /// Puts into the plan the libraries and the configuration of the steps that are in it.
    pub(super) fn libraries_of(&mut self, plan: &mut Plan) {
        let mut used = BTreeSet::new();
        for stage in &plan.stages {
            collect(&stage.steps, &mut used);
            notified(&stage.notify, &mut used);
        }
        notified(&plan.notify, &mut used);
        let libraries = used.iter().map(|(library, _)| *library);
        let libraries = libraries.filter_map(|name| Some((name.to_owned(), *self.shelf.libraries.get(name)?))).collect();
        let symbols: BTreeSet<&str> = used.iter().map(|(_, symbol)| *symbol).collect();
        let configuration =
            symbols.into_iter().filter_map(|symbol| Some((symbol.to_owned(), self.shelf.configuration.get(symbol)?.clone())));
        let configuration = configuration.collect();
        plan.libraries = libraries;
        plan.configuration = configuration;
    }
}

fn notified<'p>(notify: &'p Notify, used: &mut BTreeSet<(&'p str, &'p str)>) {
    for steps in [&notify.success, &notify.failure, &notify.complete] {
        collect(steps, used);
    }
}

/// Library and symbol of every step, as deep as blocks of steps may be nested.
fn collect<'p>(steps: &'p [Step], used: &mut BTreeSet<(&'p str, &'p str)>) {
    for step in steps {
        used.insert((&step.library, &step.symbol));
        for value in step.parameters.values() {
            if let Value::Steps { steps } = value {
                collect(steps, used);
            }
        }
    }
}

fn is_number(value: &Value) -> bool {
    matches!(value, Value::Integer(_) | Value::Decimal { .. })
}

fn shown(value: &Value) -> String {
    match value {
        Value::Text(text) => format!("'{text}'"),
        Value::Boolean(value) => value.to_string(),
        Value::Integer(number) => number.to_string(),
        Value::Decimal { decimal } => decimal.clone(),
        Value::Variable { .. } | Value::Call { .. } | Value::Steps { .. } | Value::List(_) => "a list".to_owned(),
    }
}
