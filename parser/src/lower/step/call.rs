//! The arguments of a call: to keywords in the manifest's order, each of its parameter's type, with the manifest's defaults.

use std::collections::BTreeMap;

use model::{
    diagnostic::Span,
    manifest::{Named, ParameterKind, ParameterManifest, StepManifest, Unit},
    plan::{self, Step},
};

use super::{
    Lowering,
    every::{Every, is_for_every_step, is_variable_name},
    kind::{described, kind_of, usage},
};
use crate::{
    diagnostic::{Code, Finding, quoted},
    lower::{
        mention::Mentioned,
        value::{Known, bytes},
    },
    syntax::{Argument, Call, Name, Value, ValueKind},
};

/// The arguments of a call, each with what it is for.
pub(super) struct Matched<'t, 'm> {
    /// For the step's own parameters, in the order in which they are written.
    pub(super) own: Vec<(&'m ParameterManifest, &'t Argument)>,
    /// For what every step takes.
    pub(super) every: Vec<(&'t Name, &'t Value)>,
    /// The parameter that the block in braces is for.
    pub(super) block: Option<&'m ParameterManifest>,
    /// Whether nothing was wrong.
    pub(super) sound: bool,
}

impl Lowering<'_, '_> {
    /// One call of a program of a library; its library is not set yet. `None` if something is wrong, which is told.
    pub(super) fn call(&mut self, name: &Name, call: &Call, manifest: &StepManifest) -> Option<Step> {
        let matched = self.matched(name, call, manifest)?;
        let mut sound = matched.sound;
        let mut parameters = BTreeMap::new();
        let mut credentials = Vec::new();
        for (parameter, argument) in &matched.own {
            let Some(Known { value, outside, .. }) = self.argument(&argument.value, parameter) else {
                sound = false;
                continue;
            };
            if manifest.credentials.contains(&parameter.name) {
                match self.credential(&value, outside, argument.value.span) {
                    Some(credential) => credentials.push((&parameter.name, credential)),
                    None => sound = false,
                }
            }
            parameters.insert(parameter.name.clone(), value);
        }
        if let (Some(parameter), Some(block)) = (matched.block, &call.block) {
            match self.block_value(&block.kind, block.span, Some(block)) {
                Some(value) => drop(parameters.insert(parameter.name.clone(), value)),
                None => sound = false,
            }
        }
        sound &= self.none_missing(name, manifest, &matched);
        let Every { timeout_ms, attempts, into } = self.every(&matched.every)?;
        if !sound {
            return None;
        }
        // A few letters of a call can stand for long names and defaults.
        let defaults = manifest.parameters.iter().filter(|parameter| !parameters.contains_key(&parameter.name));
        let defaults = defaults.filter_map(|parameter| Some(parameter.name.len() + bytes(parameter.default.as_ref()?))).sum::<usize>();
        if !self.expanded(defaults + parameters.keys().map(String::len).sum::<usize>(), name.span) {
            return None;
        }
        for parameter in &manifest.parameters {
            if let (Some(default), false) = (&parameter.default, parameters.contains_key(&parameter.name)) {
                parameters.insert(parameter.name.clone(), default.clone());
            }
        }
        let order = |name: &str| manifest.parameters.iter().position(|parameter| parameter.name == name);
        credentials.sort_by_key(|(name, _)| order(name));
        let credentials = credentials.into_iter().map(|(_, credential)| credential).collect();
        Some(Step { timeout_ms, attempts, into, credentials, ..Step::new("", &manifest.symbol, parameters) })
    }

    /// What each argument is for; `None` if that cannot be said, which is told.
    pub(super) fn matched<'t, 'm>(&mut self, name: &Name, call: &'t Call, manifest: &'m StepManifest) -> Option<Matched<'t, 'm>> {
        let mut matched = Matched { own: Vec::new(), every: Vec::new(), block: None, sound: true };
        let positional = call.arguments.iter().filter(|argument| argument.keyword.is_none()).count();
        let keywords = call.arguments.iter().filter_map(|argument| argument.keyword.as_ref());
        if positional != 0 && keywords.clone().any(|keyword| !is_for_every_step(&keyword.kind, manifest)) {
            let message = "positional and keyword arguments are mixed in one call";
            self.error(Finding::new(Code::MixedArguments, name.span, message).label("this step").help(usage(manifest)));
            return None;
        }
        if positional > manifest.parameters.len() {
            return self.too_many(call, positional, manifest);
        }
        let mut given: BTreeMap<&str, Span> = BTreeMap::new();
        let mut place = 0;
        for argument in &call.arguments {
            let (known, span) = match &argument.keyword {
                None => {
                    place += 1;
                    (manifest.parameters[place - 1].name.as_str(), argument.value.span)
                }
                Some(keyword) => (keyword.kind.as_str(), keyword.span),
            };
            let parameter = manifest.parameters.iter().find(|parameter| parameter.name == known);
            if let Some(first) = given.insert(known, span) {
                self.given_twice(known, span, first);
                matched.sound = false;
            } else if let Some(parameter) = parameter {
                matched.own.push((parameter, argument));
            } else if let (Some(keyword), true) = (&argument.keyword, is_for_every_step(known, manifest)) {
                matched.every.push((keyword, &argument.value));
            } else if let Some(keyword) = &argument.keyword {
                self.unknown_keyword(keyword, manifest);
                matched.sound = false;
            }
        }
        if let Some(block) = &call.block {
            let takes = |parameter: &&ParameterManifest| parameter.kind == ParameterKind::Block;
            matched.block = manifest.parameters.iter().find(|parameter| takes(parameter) && !given.contains_key(parameter.name.as_str()));
            if matched.block.is_none() {
                let span = Span { start: block.span.start, end: block.span.start + 1 };
                let what = if manifest.parameters.iter().any(|parameter| takes(&parameter)) { "one block only" } else { "no block" };
                let message = format!("the step `{}` takes {what}", manifest.symbol);
                self.error(Finding::new(Code::ArgumentType, span, message).help(usage(manifest)));
                matched.sound = false;
            }
        }
        Some(matched)
    }

    fn too_many<T>(&mut self, call: &Call, positional: usize, manifest: &StepManifest) -> Option<T> {
        let first = call.arguments.iter().filter(|argument| argument.keyword.is_none()).nth(manifest.parameters.len());
        let span = first.map_or_else(Span::default, |argument| argument.value.span);
        let count = match manifest.parameters.len() {
            0 => "no argument".to_owned(),
            1 => "one argument".to_owned(),
            count => format!("at most {count} arguments"),
        };
        let message = format!("the step `{}` takes {count}, and here are {positional}", manifest.symbol);
        self.error(Finding::new(Code::TooManyArguments, span, message).label("one too many").help(usage(manifest)));
        None
    }

    fn given_twice(&mut self, name: &str, span: Span, first: Span) {
        let line = self.line(first.start);
        let finding = Finding::new(Code::DoubledKeyword, span, format!("`{name}` is given twice")).label("again here");
        self.error(finding.help(format!("it is given in line {line} already: leave one out")));
    }

    fn unknown_keyword(&mut self, keyword: &Name, manifest: &StepManifest) {
        let near = self.did_you_mean(&keyword.kind, manifest.parameters.iter().map(|parameter| parameter.name.as_str()));
        let message = format!("the step `{}` has no parameter {}", manifest.symbol, quoted(&keyword.kind));
        let help = if near.is_empty() { usage(manifest) } else { format!("{near}\n{}", usage(manifest)) };
        self.error(Finding::new(Code::UnknownKeyword, keyword.span, message).help(help));
    }

    /// Whether every required parameter is given. Where a keyword is not known, the missing one may be meant: one mistake is told once.
    fn none_missing(&mut self, name: &Name, manifest: &StepManifest, matched: &Matched<'_, '_>) -> bool {
        let given = |parameter: &ParameterManifest| {
            let is_it = |other: &ParameterManifest| other.name == parameter.name;
            matched.own.iter().any(|(other, _)| is_it(other)) || matched.block.is_some_and(is_it)
        };
        let mut none = true;
        for parameter in manifest.parameters.iter().filter(|parameter| parameter.required && !given(parameter)) {
            if matched.sound {
                let message = format!("the step `{}` needs `{}`", manifest.symbol, parameter.name);
                self.error(Finding::new(Code::MissingArgument, name.span, message).label("here").help(described(parameter)));
            }
            none = false;
        }
        none
    }

    /// The value, if it is of its parameter's type.
    fn argument(&mut self, value: &Value, parameter: &ParameterManifest) -> Option<Known> {
        if parameter.kind == ParameterKind::Block {
            let steps = match &value.kind {
                ValueKind::List(items) => self.block_value(items, value.span, None),
                ValueKind::Block(block) => self.block_value(&block.kind, block.span, Some(block)),
                ValueKind::Wrong => None,
                ValueKind::Text(_)
                | ValueKind::Integer(_)
                | ValueKind::Decimal(_)
                | ValueKind::Duration(_)
                | ValueKind::Size(_)
                | ValueKind::Boolean(_)
                | ValueKind::Name(_)
                | ValueKind::Call(_)
                | ValueKind::Condition(_) => self.wrong_argument_type(parameter, value.span, "no block"),
            };
            return steps.map(Known::inside);
        }
        if let (ValueKind::Integer(number @ 1..), Some(unit)) = (&value.kind, parameter.unit) {
            let (message, help) = match unit {
                Unit::Time => ("a time needs a unit", format!("write `{number}s`, `{number}m`, `{number}h` or `{number}d`")),
                Unit::Size => ("a size needs a unit", format!("write `{number}K`, `{number}M` or `{number}G`")),
            };
            self.error(Finding::new(Code::ArgumentType, value.span, message).help(help));
            return None;
        }
        let known = self.known(value)?;
        self.of_type(&known.value, parameter, value.span)?;
        if parameter.kind == ParameterKind::Code {
            self.no_outside(&known, value.span, &format!("`{}`", parameter.name))?;
        }
        if parameter.names.is_some() && known.value.as_text().is_none() {
            let message = format!("`{}` names something that other stages use, so it must be known while planning", parameter.name);
            self.error(Finding::new(Code::ArgumentType, value.span, message).help(described(parameter)));
            return None;
        }
        if let (Some(names), Some(text)) = (parameter.names, known.value.as_text()) {
            self.named_by(names, text, value.span)?;
        }
        Some(known)
    }

    /// What a parameter names that other stages use.
    fn named_by(&mut self, names: Named, text: &str, span: Span) -> Option<()> {
        if names == Named::VariableDropped && !is_variable_name(text) {
            return self.no_variable_name(text, span);
        }
        self.mention_of_parameter(names, text, span);
        Some(())
    }

    fn wrong_argument_type<T>(&mut self, parameter: &ParameterManifest, span: Span, what: &str) -> Option<T> {
        let message = format!("`{}` takes {}, and this is {what}", parameter.name, kind_of(parameter.kind));
        let finding = Finding::new(Code::ArgumentType, span, message).label(format!("expected {}", kind_of(parameter.kind)));
        let brackets = if parameter.kind == ParameterKind::List { "a list stands in brackets: `[…]`\n" } else { "" };
        self.error(finding.help(format!("{brackets}{}", described(parameter))));
        None
    }

    fn of_type(&mut self, value: &plan::Value, parameter: &ParameterManifest, span: Span) -> Option<()> {
        match parameter.kind.mismatch(value) {
            None => Some(()),
            Some(what) => self.wrong_argument_type(parameter, span, what),
        }
    }

    /// The name of a credential that the step gets. Whether the stage lists it is known when the stage is wired.
    fn credential(&mut self, value: &plan::Value, outside: Option<String>, span: Span) -> Option<String> {
        if let Some(outside) = outside {
            let message = format!("{} comes from outside, and must not choose a credential", quoted(&outside));
            self.error(Finding::new(Code::ArgumentType, span, message).help("write the name that `credentials { … }` gives it"));
            return None;
        }
        let name = value.as_text()?;
        if !self.declared_credentials.contains_key(name) {
            self.unknown_credential(&Name { kind: name.to_owned(), span });
            return None;
        }
        self.mention(Mentioned::CredentialUsed, name, span);
        Some(name.to_owned())
    }
}
