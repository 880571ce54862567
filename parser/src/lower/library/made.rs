//! Files of steps made of steps: `step 'name' { parameters { … } steps { … } }`.

use std::{borrow::Cow, collections::BTreeSet, rc::Rc};

use model::{
    diagnostic::Span,
    manifest::{ParameterKind, ParameterManifest, StepManifest, is_name},
};

use super::{Callable, InScope, Made, Origin};
use crate::{
    diagnostic::{Code, Finding, quoted},
    lower::{Lowering, Source},
    syntax::{Block, Call, Entry, ItemKind, Name, Tail, ValueKind},
};

/// What may stand in a step made of steps.
const WORDS: [&str; 3] = ["description", "parameters", "steps"];
/// What may stand in a file of such steps.
const FILE_WORDS: [&str; 2] = ["step", "use"];

/// The name and the block of `step 'name' { … }`.
fn parts(entry: &Entry) -> Option<(Name, &Block)> {
    let Tail::Call(Call { arguments, block: Some(block) }) = &entry.tail else { return None };
    match arguments.as_slice() {
        [argument] if argument.keyword.is_none() => {
            let ValueKind::Text(name) = &argument.value.kind else { return None };
            Some((Name { kind: name.clone(), span: argument.value.span }, block))
        }
        _ => None,
    }
}

/// The entry of this name in a block.
pub(in crate::lower) fn entry_in<'t>(block: &'t Block, name: &str) -> Option<&'t Entry> {
    block.kind.iter().find_map(|item| match &item.kind {
        ItemKind::Entry(entry) if entry.name.kind == name => Some(entry),
        ItemKind::Entry(_) | ItemKind::Value(_) | ItemKind::Condition(_) => None,
    })
}

/// The value of `key = 'text'` or `key 'text'` in a block.
fn text_in<'t>(block: &'t Block, name: &str) -> Option<&'t str> {
    let ValueKind::Text(text) = value_in(block, name)? else { return None };
    Some(text)
}

fn value_in<'t>(block: &'t Block, name: &str) -> Option<&'t ValueKind> {
    match &entry_in(block, name)?.tail {
        Tail::Assign(value) => Some(&value.kind),
        Tail::Call(Call { arguments, block: None }) => arguments.first().map(|argument| &argument.value.kind),
        Tail::Arrow(_) | Tail::Call(_) => None,
    }
}

/// What is said of a parameter, for messages and for the order of positional arguments. Its type and default are checked where it is bound.
fn parameter(entry: &Entry) -> ParameterManifest {
    let Tail::Call(Call { block, .. }) = &entry.tail else { return described(entry, None) };
    described(entry, block.as_ref())
}

fn described(entry: &Entry, block: Option<&Block>) -> ParameterManifest {
    let kind = match block.and_then(|block| value_in(block, "type")) {
        Some(ValueKind::Name(name)) if name == "boolean" => ParameterKind::Boolean,
        Some(ValueKind::Name(name)) if name == "number" => ParameterKind::Number,
        Some(ValueKind::Name(name)) if name == "list" => ParameterKind::List,
        _ => ParameterKind::String,
    };
    ParameterManifest {
        name: entry.name.kind.clone(),
        kind,
        required: block.is_none_or(|block| entry_in(block, "default").is_none()),
        default: None,
        description: block.and_then(|block| text_in(block, "description")).unwrap_or_default().to_owned(),
        names: None,
        unit: None,
    }
}

impl<'a> Lowering<'_, 'a> {
    /// `use './common/slack.otto'`: every step of that file.
    pub(super) fn file_library(&mut self, path: &str, span: Span, scope: &mut InScope<'a>) -> Option<()> {
        let source = self.load(path, span)?;
        let steps = self.within(source.clone(), |lowering| lowering.steps_made_in(&source));
        for step in steps? {
            self.brought(step, span, scope);
        }
        Some(())
    }

    /// The steps that a file makes; `None` if it is no file of steps, which is told.
    fn steps_made_in(&mut self, source: &Source<'a>) -> Option<Vec<Callable<'a>>> {
        let tree = Rc::clone(&source.tree);
        let mut steps: Vec<Callable<'a>> = Vec::new();
        let mut symbols = BTreeSet::new();
        let mut sound = true;
        for (item, place) in tree.items.iter().zip(0..) {
            let ItemKind::Entry(entry) = &item.kind else {
                self.error(Finding::new(Code::Shape, item.span, "a value alone means nothing here").help(FILE_HELP));
                sound = false;
                continue;
            };
            match entry.name.kind.as_str() {
                "use" => {}
                "step" => match self.step_made(entry, source, place) {
                    Some(step) if !symbols.insert(step.manifest.symbol.clone()) => {
                        let message = format!("two steps of this file are named {}", quoted(&step.manifest.symbol));
                        self.error(Finding::new(Code::StepTwice, step.place, message).label("again here").help("rename one of the two"));
                        sound = false;
                    }
                    Some(step) => steps.push(step),
                    None => sound = false,
                },
                name => {
                    let message = format!("{} means nothing in a file of steps", quoted(name));
                    let help = match name {
                        "pipeline" => "a pipeline file is no step library; `use` takes a file of `step 'name' { … }`".to_owned(),
                        "blueprint" => "a blueprint is brought in with `from` in the pipeline".to_owned(),
                        name => self.did_you_mean(name, FILE_WORDS),
                    };
                    self.error(Finding::new(Code::UnknownName, entry.name.span, message).help(help));
                    sound = false;
                }
            }
        }
        if steps.is_empty() && sound {
            self.error(Finding::new(Code::NoSteps, Span::default(), "there is no step in this file").help(FILE_HELP));
            sound = false;
        }
        sound.then_some(steps)
    }

    /// `step 'name' { description = '…' parameters { … } steps { … } }`.
    fn step_made(&mut self, entry: &Entry, source: &Source<'a>, item: usize) -> Option<Callable<'a>> {
        let Some((name, block)) = parts(entry) else {
            self.error(Finding::new(Code::Shape, entry.name.span, "a step needs a name in quotes and a block").help(FILE_HELP));
            return None;
        };
        if !is_name(&name.kind) || name.kind == "when" {
            let finding = Finding::new(Code::StepName, name.span, format!("{} cannot be the name of a step", quoted(&name.kind)));
            self.error(finding.help("a name begins with a letter and has letters, digits, `_` and `-`; `when` is taken"));
            return None;
        }
        let mut sound = !self.is_left_out(block);
        let mut seen = std::collections::BTreeMap::new();
        for item in &block.kind {
            let ItemKind::Entry(entry) = &item.kind else {
                self.error(Finding::new(Code::Shape, item.span, "a value alone means nothing in a step").help(FILE_HELP));
                sound = false;
                continue;
            };
            let word = &entry.name;
            if let Some(first) = seen.get(word.kind.as_str()).copied() {
                self.doubled(&quoted(&word.kind), word.span, first);
                sound = false;
            } else if !WORDS.contains(&word.kind.as_str()) {
                let message = format!("{} means nothing in a step made of steps", quoted(&word.kind));
                self.error(Finding::new(Code::UnknownName, word.span, message).help(self.did_you_mean(&word.kind, WORDS)));
                sound = false;
            }
            seen.insert(word.kind.as_str(), word.span);
        }
        if sound && !seen.contains_key("steps") {
            let message = format!("the step {} has no `steps`", quoted(&name.kind));
            self.error(Finding::new(Code::NoSteps, name.span, message).help(FILE_HELP));
            sound = false;
        }
        if !sound {
            return None;
        }
        let declared = entry_in(block, "parameters").and_then(|entry| self.block(entry));
        let entries = declared.iter().flat_map(|block| &block.kind).filter_map(|item| match &item.kind {
            ItemKind::Entry(entry) => Some(parameter(entry)),
            ItemKind::Value(_) | ItemKind::Condition(_) => None,
        });
        let manifest = StepManifest {
            symbol: name.kind.clone(),
            description: text_in(block, "description").unwrap_or_default().to_owned(),
            parameters: entries.collect(),
            configuration: std::collections::BTreeMap::new(),
            credentials: Vec::new(),
            cache: false,
            includes: Vec::new(),
            entrypoint: None,
        };
        let path = Rc::from(self.files.get(source.id).path);
        let origin = Origin::Made(Made { path, source: source.clone(), item });
        Some(Callable { manifest: Cow::Owned(manifest), origin, place: name.span })
    }

    /// In a file of steps, each can call the others.
    pub(super) fn own_steps(&mut self, scope: &mut InScope<'a>) {
        let source = self.source.clone();
        let Some(steps) = self.steps_made_in(&source) else {
            scope.incomplete = true;
            return;
        };
        for step in steps {
            let place = step.place;
            self.brought(step, place, scope);
        }
    }
}

const FILE_HELP: &str = "write `step 'deploy' { parameters { target { } } steps { sh './deploy.sh' } }`";
