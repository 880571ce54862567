//! Calls of steps: from what is written to keywords and values, as the step's manifest has them.

use std::collections::BTreeMap;

use model::{
    diagnostic::Span,
    manifest::{ParameterKind, ParameterManifest, StepManifest},
    plan,
};

use super::{
    Lowering,
    word::{ARGUMENTS_TO_COME, STEPS_TO_COME},
};
use crate::{
    diagnostic::{Code, Finding, excerpt, quoted},
    suggest::did_you_mean,
    syntax::{Argument, Call, Entry, Item, ItemKind, Name, Tail, Value, ValueKind},
};

/// The functions of the language.
const FUNCTIONS: [&str; 5] = ["concat", "format", "join", "files", "json"];
/// What a variable's name may begin with.
const VARIABLES: [&str; 9] = ["it", "params", "vars", "pr", "branch", "tag", "event", "commit", "env"];

impl Lowering<'_, '_> {
    /// One call of a step.
    pub(super) fn step(&mut self, item: &Item) -> Option<plan::Step> {
        let ItemKind::Entry(entry) = &item.kind else {
            let finding = Finding::new(Code::NotAStep, item.span, "this is no step").label("expected a step");
            self.error(finding.help("a step begins with its name: `sh 'make'`"));
            return None;
        };
        let name = &entry.name;
        let Tail::Call(call) = &entry.tail else {
            let finding = Finding::new(Code::NotAStep, item.span, "this is a setting, not a step").label("expected a step");
            self.error(finding.help("settings stand beside `steps`; an argument of a step is written `name: value`"));
            return None;
        };
        let Some((library, manifest)) = self.steps_in_scope.get(name.kind.as_str()).copied() else {
            self.unknown_step(name);
            return None;
        };
        if let Some(block) = &call.block {
            let span = Span { start: block.span.start, end: block.span.start + 1 };
            let message = format!("the step `{}` takes no block", manifest.symbol);
            self.error(Finding::new(Code::ArgumentType, span, message).help(usage(manifest)));
        }
        let parameters = self.parameters(name, call, manifest)?;
        Some(plan::Step::new(library, &manifest.symbol, parameters))
    }

    fn unknown_step(&mut self, name: &Name) {
        if STEPS_TO_COME.contains(&name.kind.as_str()) {
            return self.not_yet(&format!("the step {}", quoted(&name.kind)), name.span);
        }
        let help = did_you_mean(&name.kind, self.steps_in_scope.keys().copied());
        self.error(Finding::new(Code::UnknownStep, name.span, format!("no library has a step {}", quoted(&name.kind))).help(help));
    }

    /// The arguments by keyword; `None` if one of them is wrong.
    fn parameters(&mut self, name: &Name, call: &Call, manifest: &StepManifest) -> Option<BTreeMap<String, plan::Value>> {
        let positional = call.arguments.iter().filter(|argument| argument.keyword.is_none()).count();
        if positional != 0 && positional != call.arguments.len() {
            let message = "positional and keyword arguments are mixed in one call";
            self.error(Finding::new(Code::MixedArguments, name.span, message).label("this step").help(usage(manifest)));
            return None;
        }
        if positional > manifest.parameters.len() {
            let span = call.arguments[manifest.parameters.len()].value.span;
            let count = match manifest.parameters.len() {
                0 => "no argument".to_owned(),
                1 => "one argument".to_owned(),
                count => format!("at most {count} arguments"),
            };
            let message = format!("the step `{}` takes {count}, and here are {positional}", manifest.symbol);
            self.error(Finding::new(Code::TooManyArguments, span, message).label("one too many").help(usage(manifest)));
            return None;
        }
        let mut given: BTreeMap<&str, Span> = BTreeMap::new();
        let mut parameters = BTreeMap::new();
        let mut sound = true;
        for (place, argument) in call.arguments.iter().enumerate() {
            let Some(parameter) = self.parameter(argument, place, manifest) else {
                sound = false;
                continue;
            };
            let span = argument.keyword.as_ref().map_or(argument.value.span, |keyword| keyword.span);
            if let Some(first) = given.insert(&parameter.name, span) {
                let line = self.line(first.start);
                let message = format!("`{}` is given twice", parameter.name);
                let finding = Finding::new(Code::DoubledKeyword, span, message).label("again here");
                self.error(finding.help(format!("it is given in line {line} already: leave one out")));
                sound = false;
            }
            match self.argument(&argument.value, parameter) {
                Some(value) => drop(parameters.insert(parameter.name.clone(), value)),
                None => sound = false,
            }
        }
        for parameter in manifest.parameters.iter().filter(|parameter| parameter.required && !given.contains_key(parameter.name.as_str())) {
            // Where a keyword is not known, this one may be meant: one mistake is told once.
            if sound || positional != 0 {
                let message = format!("the step `{}` needs `{}`", manifest.symbol, parameter.name);
                self.error(Finding::new(Code::MissingArgument, name.span, message).label("here").help(described(parameter)));
            }
            sound = false;
        }
        sound.then_some(parameters)
    }

    /// The parameter that an argument is for.
    fn parameter<'m>(&mut self, argument: &Argument, place: usize, manifest: &'m StepManifest) -> Option<&'m ParameterManifest> {
        let Some(keyword) = &argument.keyword else { return manifest.parameters.get(place) };
        let known = manifest.parameters.iter().find(|parameter| parameter.name == keyword.kind);
        if known.is_none() && ARGUMENTS_TO_COME.contains(&keyword.kind.as_str()) {
            self.not_yet(&format!("the argument {} of steps", quoted(&keyword.kind)), keyword.span);
        } else if known.is_none() {
            let near = did_you_mean(&keyword.kind, manifest.parameters.iter().map(|parameter| parameter.name.as_str()));
            let message = format!("the step `{}` has no parameter {}", manifest.symbol, quoted(&keyword.kind));
            let help = if near.is_empty() { usage(manifest) } else { format!("{near}\n{}", usage(manifest)) };
            self.error(Finding::new(Code::UnknownKeyword, keyword.span, message).help(help));
        }
        known
    }

    /// The value, if it is of its parameter's type.
    fn argument(&mut self, value: &Value, parameter: &ParameterManifest) -> Option<plan::Value> {
        let resolved = self.resolved(value)?;
        let fits = match (parameter.kind, &resolved) {
            (ParameterKind::String | ParameterKind::Code, plan::Value::Text(_))
            | (ParameterKind::Boolean, plan::Value::Boolean(_))
            | (ParameterKind::Number, plan::Value::Integer(_) | plan::Value::Decimal { .. })
            | (ParameterKind::List, plan::Value::List(_))
            | (ParameterKind::Block, plan::Value::Steps { .. }) => true,
            (
                ParameterKind::String
                | ParameterKind::Code
                | ParameterKind::Boolean
                | ParameterKind::Number
                | ParameterKind::List
                | ParameterKind::Block,
                plan::Value::Boolean(_)
                | plan::Value::Integer(_)
                | plan::Value::Text(_)
                | plan::Value::Decimal { .. }
                | plan::Value::Variable { .. }
                | plan::Value::Call { .. }
                | plan::Value::Steps { .. }
                | plan::Value::List(_),
            ) => false,
        };
        if fits {
            return Some(resolved);
        }
        let message = format!("`{}` takes {}, and this is {}", parameter.name, kind_of(parameter.kind), kind_of_value(&resolved));
        let finding = Finding::new(Code::ArgumentType, value.span, message).label(format!("expected {}", kind_of(parameter.kind)));
        self.error(finding.help(described(parameter)));
        None
    }

    /// A value without a name left to look up.
    pub(super) fn resolved(&mut self, value: &Value) -> Option<plan::Value> {
        self.resolved_kind(&value.kind, value.span)
    }

    fn resolved_kind(&mut self, kind: &ValueKind, span: Span) -> Option<plan::Value> {
        match kind {
            ValueKind::Text(text) => Some(plan::Value::Text(text.clone())),
            ValueKind::Integer(number) | ValueKind::Duration(number) | ValueKind::Size(number) => Some(plan::Value::Integer(*number)),
            ValueKind::Decimal(digits) => Some(plan::Value::Decimal { decimal: digits.clone() }),
            ValueKind::Boolean(value) => Some(plan::Value::Boolean(*value)),
            ValueKind::List(items) => {
                let values: Vec<Option<plan::Value>> = items.iter().map(|item| self.resolved_item(item)).collect();
                values.into_iter().collect::<Option<Vec<_>>>().map(plan::Value::List)
            }
            ValueKind::Name(name) => self.unresolved_name(name, span),
            ValueKind::Call(call) => self.unresolved_call(call, span),
            ValueKind::Condition(_) => self.unresolved_condition(span),
            ValueKind::Block(_) => {
                let finding = Finding::new(Code::ArgumentType, span, "this is a block of settings").label("expected a value");
                self.error(finding.help("steps as an argument stand in brackets: `[ sh 'make' ]`"));
                None
            }
            ValueKind::Wrong => None,
        }
    }

    /// An item of a list.
    fn resolved_item(&mut self, item: &Item) -> Option<plan::Value> {
        match &item.kind {
            ItemKind::Value(kind) => self.resolved_kind(kind, item.span),
            ItemKind::Entry(Entry { name, tail: Tail::Call(call) }) if call.arguments.is_empty() && call.block.is_none() => {
                self.unresolved_name(&name.kind, item.span)
            }
            ItemKind::Entry(entry) => self.unresolved_call(entry, item.span),
            ItemKind::Condition(_) => self.unresolved_condition(item.span),
        }
    }

    fn unresolved_condition<T>(&mut self, span: Span) -> Option<T> {
        self.not_yet("a condition as a value", span);
        None
    }

    fn unresolved_call<T>(&mut self, call: &Entry, span: Span) -> Option<T> {
        let name = &call.name;
        if FUNCTIONS.contains(&name.kind.as_str()) {
            self.not_yet(&format!("the function `{}`", name.kind), span);
        } else {
            let message = format!("there is no function {}", quoted(&name.kind));
            self.error(Finding::new(Code::UnknownVariable, name.span, message).help(did_you_mean(&name.kind, FUNCTIONS)));
        }
        None
    }

    fn unresolved_name<T>(&mut self, name: &str, span: Span) -> Option<T> {
        if name.split('.').next().is_some_and(|first| VARIABLES.contains(&first)) {
            self.not_yet(&format!("the variable {}", quoted(name)), span);
        } else {
            let finding = Finding::new(Code::UnknownVariable, span, format!("there is no variable {}", quoted(name)));
            self.error(finding.help(format!("if it is a text, write it in quotes: '{}'", excerpt(name))));
        }
        None
    }
}

fn kind_of(kind: ParameterKind) -> &'static str {
    match kind {
        ParameterKind::String => "a text",
        ParameterKind::Code => "a script",
        ParameterKind::Boolean => "`true` or `false`",
        ParameterKind::Number => "a number",
        ParameterKind::List => "a list",
        ParameterKind::Block => "a block of steps",
    }
}

fn kind_of_value(value: &plan::Value) -> &'static str {
    match value {
        plan::Value::Boolean(_) => "`true` or `false`",
        plan::Value::Integer(_) | plan::Value::Decimal { .. } => "a number",
        plan::Value::Text(_) | plan::Value::Variable { .. } | plan::Value::Call { .. } => "a text",
        plan::Value::Steps { .. } => "a block of steps",
        plan::Value::List(_) => "a list",
    }
}

/// A parameter as its manifest describes it.
fn described(parameter: &ParameterManifest) -> String {
    format!("`{}` ({}): {}", parameter.name, kind_of(parameter.kind), parameter.description)
}

/// How a step is called, and what it does.
fn usage(manifest: &StepManifest) -> String {
    let parameter = |parameter: &ParameterManifest| format!("{}: …{}", parameter.name, if parameter.required { "" } else { " (optional)" });
    let parameters = manifest.parameters.iter().map(parameter).collect::<Vec<_>>().join(", ");
    format!("`{}`\n{}", format!("{} {parameters}", manifest.symbol).trim_end(), manifest.description)
}
