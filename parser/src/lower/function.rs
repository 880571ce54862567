//! Functions: `concat`, `format`, `join`, `files`, and `json` (in [`super::json`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use model::{
    Digest,
    diagnostic::Span,
    plan::{self, Function},
};

use super::{Lowering, value::Known};
use crate::{
    diagnostic::{Code, Finding, quoted},
    syntax::{Condition, ConditionKind, Entry, Name, Tail, Value, ValueKind},
};

/// The functions that give a value.
pub(super) const FUNCTIONS: [&str; 5] = ["concat", "format", "join", "files", "json"];
/// The functions that are true or false.
pub(super) const QUESTIONS: [&str; 2] = ["changed", "exists"];

/// What was read of the commit once and is asked for again and again, as an expanded body does.
#[derive(Debug, Default)]
pub(super) struct Memo<'a> {
    /// By path.
    pub(super) json: BTreeMap<String, Option<Known>>,
    /// The commit's paths, and what changed, in order.
    pub(super) listed: Option<Rc<[&'a str]>>,
    pub(super) changed: Option<Rc<[&'a str]>>,
    /// What holding patterns against paths has cost so far.
    pub(super) path_steps: usize,
    /// By pattern, the files that match it; and by patterns, the digest of the files that match.
    matched: BTreeMap<String, Rc<[&'a str]>>,
    digests: BTreeMap<Vec<String>, Digest>,
    /// The different patterns for paths.
    pub(super) patterns: BTreeSet<String>,
    /// By question and pattern, the first path that answers it with yes.
    pub(super) first: BTreeMap<(&'static str, String), Option<String>>,
}

/// What a function of texts gives.
enum Made<T> {
    Known(T),
    /// A part is known in the run only.
    InRun,
}

impl<T> Made<T> {
    fn of(known: Option<T>) -> Self {
        known.map_or(Self::InRun, Self::Known)
    }
}

/// What is known of a function's argument.
struct Argument {
    known: Known,
    span: Span,
}

impl Lowering<'_, '_> {
    /// The value of a function.
    pub(super) fn function(&mut self, entry: &Entry, span: Span) -> Option<Known> {
        let name = &entry.name;
        match name.kind.as_str() {
            "concat" | "format" | "join" => {
                let values = self.function_values(entry)?;
                let arguments: Vec<Option<Argument>> = values.into_iter().map(|value| self.function_argument(value)).collect();
                let arguments = arguments.into_iter().collect::<Option<Vec<Argument>>>()?;
                let (function, parts) = match name.kind.as_str() {
                    "concat" => (Function::Concat, self.concat(name, &arguments)?),
                    "format" => (Function::Format, self.format(name, &arguments)?),
                    _ => (Function::Join, self.join(name, &arguments)?),
                };
                self.composed(function, parts, arguments, span)
            }
            "files" => self.files_digest(entry, span),
            "json" => {
                let values = self.function_values(entry)?;
                let [value] = values.as_slice() else { return self.wrong_arguments(name, "`json` takes one file", "json('matrix.json')") };
                let path = self.literal_text(value, "the file of `json`")?;
                self.json(&path)
            }
            question if QUESTIONS.contains(&question) => {
                let kind = ConditionKind::Value(ValueKind::Call(Box::new(entry.clone())));
                let decision = self.decide(&Condition { kind, span })?;
                Some(Known::inside(plan::Value::Boolean(decision == super::condition::Decision::Holds)))
            }
            other => {
                let help = self.did_you_mean(other, FUNCTIONS.into_iter().chain(QUESTIONS));
                self.error(Finding::new(Code::UnknownFunction, name.span, format!("there is no function {}", quoted(other))).help(help));
                None
            }
        }
    }

    /// The arguments of a function, which have no keywords.
    pub(super) fn function_values<'t>(&mut self, entry: &'t Entry) -> Option<Vec<&'t Value>> {
        let name = &entry.name;
        let usage = format!("{}('…')", name.kind);
        let Tail::Call(call) = &entry.tail else {
            return self.wrong_arguments(name, &format!("`{}` is a function, and its arguments stand in parentheses", name.kind), &usage);
        };
        if let Some(keyword) = call.arguments.iter().find_map(|argument| argument.keyword.as_ref()) {
            let keyword = Name { kind: name.kind.clone(), span: keyword.span };
            return self.wrong_arguments(&keyword, "the arguments of a function have no keywords", &usage);
        }
        if let Some(block) = &call.block {
            let brace = Name { kind: name.kind.clone(), span: Span { start: block.span.start, end: block.span.start + 1 } };
            return self.wrong_arguments(&brace, &format!("the function `{}` takes no block", name.kind), &usage);
        }
        Some(call.arguments.iter().map(|argument| &argument.value).collect())
    }

    pub(super) fn wrong_arguments<T>(&mut self, name: &Name, message: &str, usage: &str) -> Option<T> {
        self.error(Finding::new(Code::FunctionArguments, name.span, message).help(format!("write `{usage}`")));
        None
    }

    fn function_argument(&mut self, value: &Value) -> Option<Argument> {
        self.known(value).map(|known| Argument { known, span: value.span })
    }

    /// The value of a function of texts: the text, or what is left to the run.
    fn composed(&mut self, function: Function, text: Made<String>, arguments: Vec<Argument>, span: Span) -> Option<Known> {
        let outside = arguments.iter().find_map(|argument| argument.known.outside.clone());
        let value = match text {
            Made::Known(text) => plan::Value::Text(text),
            Made::InRun => {
                plan::Value::Call { function, arguments: arguments.into_iter().map(|argument| in_run(argument.known)).collect() }
            }
        };
        self.bounded(Known { outside, ..Known::inside(value) }, span)
    }

    /// The text of each argument; `None` if one is a list, which is told.
    fn parts(&mut self, name: &Name, arguments: &[Argument]) -> Option<Made<Vec<String>>> {
        let mut sound = true;
        for argument in arguments.iter().filter(|argument| matches!(argument.known.value, plan::Value::List(_))) {
            let finding = Finding::new(Code::FunctionArguments, argument.span, format!("`{}` takes texts, and this is a list", name.kind));
            self.error(finding.help("`join(list, ', ')` makes one text of a list"));
            sound = false;
        }
        sound.then(|| Made::of(arguments.iter().map(|argument| argument.known.as_text()).collect()))
    }

    fn concat(&mut self, name: &Name, arguments: &[Argument]) -> Option<Made<String>> {
        if arguments.is_empty() {
            return self.wrong_arguments(name, "`concat` of nothing", "concat('a', 'b')");
        }
        let Made::Known(parts) = self.parts(name, arguments)? else { return Some(Made::InRun) };
        Some(Made::Known(parts.concat()))
    }

    fn format(&mut self, name: &Name, arguments: &[Argument]) -> Option<Made<String>> {
        let Some((pattern, arguments)) = arguments.split_first() else {
            return self.wrong_arguments(name, "`format` begins with a text", "format('{}-{}', a, b)");
        };
        let plan::Value::Text(text) = &pattern.known.value else {
            let name = Name { kind: name.kind.clone(), span: pattern.span };
            return self.wrong_arguments(
                &name,
                "the first argument of `format` is a text that is known while planning",
                "format('{}-{}', a, b)",
            );
        };
        let pieces: Vec<&str> = text.split("{}").collect();
        let (places, given) = (pieces.len() - 1, arguments.len());
        if places != given {
            let finding = Finding::new(
                Code::FunctionArguments,
                pattern.span,
                format!("`format` has {places} `{{}}` for {given} {}", if given == 1 { "value" } else { "values" }),
            );
            self.error(finding.help("each `{}` stands for the next value"));
            return None;
        }
        let Made::Known(parts) = self.parts(name, arguments)? else { return Some(Made::InRun) };
        let mut formatted = String::new();
        for (place, piece) in pieces.into_iter().enumerate() {
            formatted.push_str(piece);
            formatted.push_str(parts.get(place).map_or("", String::as_str));
        }
        Some(Made::Known(formatted))
    }

    fn join(&mut self, name: &Name, arguments: &[Argument]) -> Option<Made<String>> {
        let usage = "join(['a', 'b'], ', ')";
        let [list, between] = arguments else {
            return self.wrong_arguments(name, "`join` takes a list and a text", usage);
        };
        let plan::Value::List(items) = &list.known.value else {
            let name = Name { kind: name.kind.clone(), span: list.span };
            return self.wrong_arguments(&name, "the first argument of `join` is a list", usage);
        };
        if matches!(between.known.value, plan::Value::List(_)) {
            let name = Name { kind: name.kind.clone(), span: between.span };
            return self.wrong_arguments(&name, "the second argument of `join` is a text", usage);
        }
        let parts: Option<Vec<String>> = items.iter().map(|item| Known::inside(item.clone()).as_text()).collect();
        Some(Made::of(parts.zip(between.known.as_text()).map(|(parts, between)| parts.join(&between))))
    }

    /// `files('Cargo.lock', 'src/**')`: a SHA-256 over the path and git's object id of every file that one of the patterns matches, each
    /// followed by a line break, in the order of the paths' bytes.
    fn files_digest(&mut self, entry: &Entry, span: Span) -> Option<Known> {
        let values = self.function_values(entry)?;
        if values.is_empty() {
            return self.wrong_arguments(&entry.name, "`files` of nothing", "files('Cargo.lock', 'src/**')");
        }
        let texts: Vec<Option<Name>> = values.iter().map(|value| self.literal_text(value, "a pattern of `files`")).collect();
        let texts = texts.into_iter().collect::<Option<Vec<Name>>>()?;
        let patterns = self.path_patterns(&texts)?;
        let paths = self.listed_paths()?;
        let mut sound = true;
        let mut matching = Vec::new();
        for (pattern, text) in patterns.iter().zip(&texts) {
            let matched = match self.memo.matched.get(&pattern.text) {
                Some(matched) => Rc::clone(matched),
                None => self.matching(pattern, &paths, usize::MAX, text.span)?.into(),
            };
            self.memo.matched.insert(pattern.text.clone(), Rc::clone(&matched));
            if matched.is_empty() {
                let message = format!("no file of the commit matches {}", quoted(&pattern.text));
                let near = if self.findings.is_full() { Vec::new() } else { near_paths(&paths, &pattern.text) };
                let near = self.did_you_mean(&pattern.text, near.iter().copied());
                self.error(Finding::new(Code::NoMatch, text.span, message).help(near));
                sound = false;
            }
            matching.push(matched);
        }
        if !sound {
            return None;
        }
        let key: Vec<String> = patterns.iter().map(|pattern| pattern.text.clone()).collect();
        let digest = match self.memo.digests.get(&key).copied() {
            Some(digest) => digest,
            None => self.digest_of(&matching, span)?,
        };
        self.memo.digests.insert(key, digest);
        self.bounded(Known::inside(plan::Value::Text(digest.hex())), span)
    }
}

impl<'a> Lowering<'_, 'a> {
    /// The digest of files, in the order of their paths; `None` if these are too many, which is told.
    fn digest_of(&mut self, matching: &[Rc<[&'a str]>], span: Span) -> Option<Digest> {
        let listing = self.input.listing?;
        let found: usize = matching.iter().map(|paths| paths.len()).sum();
        if !self.path_steps_left(found.saturating_mul(FILE_STEPS), span) {
            return None;
        }
        let mut all: Vec<&str> = matching.iter().flat_map(|paths| paths.iter().copied()).collect();
        all.sort_unstable();
        all.dedup();
        let mut builder = Digest::builder();
        for (path, id) in all.into_iter().filter_map(|path| listing.get_key_value(path)) {
            builder.update(format!("{path}\n{id}\n").as_bytes());
        }
        Some(builder.finish())
    }
}

/// What one file of `files` costs, in steps of matching: it is sorted, looked up and hashed.
const FILE_STEPS: usize = 128;

/// Paths of the commit that could be meant: those in the same folder, and those at the root.
fn near_paths<'l>(paths: &[&'l str], pattern: &str) -> Vec<&'l str> {
    let folder = pattern.rsplit_once('/').map_or("", |(folder, _)| folder);
    let begin = paths.partition_point(|path| *path < folder);
    let inside = paths[begin..].iter().copied().take_while(|path| path.starts_with(folder)).take(NEAR_PATHS_MAX);
    inside.filter(|path| path.rsplit_once('/').map_or("", |(other, _)| other) == folder).collect()
}

/// Paths that are looked at for one that could be meant.
const NEAR_PATHS_MAX: usize = 10_000;

/// A value as the run gets it: what is known is a text.
fn in_run(known: Known) -> plan::Value {
    match known.as_text() {
        Some(text) => plan::Value::Text(text),
        None => match known.value {
            plan::Value::List(items) => plan::Value::List(items.into_iter().map(|item| in_run(Known::inside(item))).collect()),
            value @ (plan::Value::Boolean(_)
            | plan::Value::Integer(_)
            | plan::Value::Text(_)
            | plan::Value::Decimal { .. }
            | plan::Value::Variable { .. }
            | plan::Value::Call { .. }
            | plan::Value::Steps { .. }) => value,
        },
    }
}
