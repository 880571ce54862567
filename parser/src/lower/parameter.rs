//! Parameters: `parameters { target { type = choice … } }`, or `vars { … }` in the older spelling, and what is given for them.
//!
//! A text that is given from outside becomes what the type says: `true` and `false`, a number as it is written in a file, and a list as JSON
//! (`["a", "b"]`) or with commas (`a, b`; blanks around an item mean nothing, the empty text is the empty list). What a file gives, a
//! number or boolean becomes the text as it is written where a text is wanted, and the other way round where it can be read.

mod kind;

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use model::{diagnostic::Span, planning::ParameterNote};

use self::kind::Kind;
use super::{
    Lowering,
    value::{Known, Scope},
};
use crate::{
    diagnostic::{Code, FileId, Finding, excerpt, quoted},
    syntax::{Block, Call, Entry, ItemKind, Name, Tail, Value, ValueKind},
};

pub(super) const KEYS: [&str; 4] = ["description", "type", "default", "options"];
const FORM: &str = "write `target { description = '…' type = string default = 'preprod' }`";

/// A parameter as it is declared.
struct Declared {
    name: Name,
    kind: Kind,
    description: String,
    default: Option<Known>,
    options: Vec<String>,
}

/// What a block declares.
#[derive(Default)]
struct Declarations {
    /// In the order in which they are written.
    sound: Vec<Declared>,
    /// Those that are declared wrongly, which is told.
    wrong: BTreeSet<String>,
}

/// What the caller of a blueprint or of a step made of steps gives.
pub(super) struct Given {
    /// The values, and where each is given.
    pub(super) values: Vec<(Name, Known)>,
    /// The caller's file, and where the call stands in it.
    pub(super) file: FileId,
    pub(super) call: Span,
    /// Who takes them: ``the blueprint `blueprints/rubygem` ``.
    pub(super) taker: String,
}

impl Lowering<'_, '_> {
    /// The parameters of the pipeline, or of a blueprint that is planned by itself: what the context gives, else the defaults. They are in
    /// [`Lowering::scope`] afterwards, and in the notes. All of them count as text from outside.
    pub(super) fn context_parameters(&mut self, entry: Option<&Entry>) {
        let Declarations { sound, wrong } = self.declarations(entry);
        self.unknown_given(entry, &sound, &wrong);
        let older = entry.is_some_and(|entry| entry.name.kind == "vars");
        let mut scope = Scope { older, ..Scope::default() };
        let (mut parameters, mut wrong) = (BTreeMap::new(), wrong);
        for declared in sound {
            let Some(known) = self.context_value(&declared) else {
                wrong.insert(declared.name.kind);
                continue;
            };
            let name = format!("{}.{}", if older { "vars" } else { "params" }, declared.name.kind);
            let note = ParameterNote {
                description: declared.description,
                kind: declared.kind.as_str().to_owned(),
                value: known.value.clone(),
                given: self.input.context.parameters.contains_key(&declared.name.kind),
                options: declared.options,
            };
            self.notes.parameters.insert(declared.name.kind.clone(), note);
            parameters.insert(declared.name.kind, Known { outside: Some(name), ..known });
        }
        (scope.parameters, scope.wrong) = (Rc::new(parameters), Rc::new(wrong));
        self.scope = scope;
    }

    /// The parameters of the file that is being read, a blueprint's or those of a step made of steps, with what the caller gives. `None` if
    /// something is missing or wrong, which is told. Values that came from outside still do.
    pub(super) fn bind_parameters(&mut self, entry: Option<&Entry>, given: Given) -> Option<Scope> {
        let Declarations { sound, wrong } = self.declarations(entry);
        let mut parameters = BTreeMap::new();
        let mut right = wrong.is_empty();
        let mut values: BTreeMap<String, (Span, Known)> = BTreeMap::new();
        let names: BTreeSet<&str> =
            sound.iter().map(|declared| declared.name.kind.as_str()).chain(wrong.iter().map(String::as_str)).collect();
        for (name, known) in given.values {
            if names.contains(name.kind.as_str()) {
                values.insert(name.kind, (name.span, known));
                continue;
            }
            let message = format!("{} has no parameter {}", given.taker, quoted(&name.kind));
            let near = if self.findings.is_full() { String::new() } else { self.did_you_mean(&name.kind, names.iter().copied()) };
            let help = if near.is_empty() { "it takes no parameter".to_owned() } else { near };
            self.error_in(given.file, Finding::new(Code::UnknownKeyword, name.span, message).help(help));
            right = false;
        }
        for declared in sound {
            let known = match values.remove(&declared.name.kind) {
                Some((span, known)) => match declared.kind.of(known, &declared.options) {
                    Ok(known) => Some(known),
                    Err(problem) => {
                        let message = format!("{}: {problem}", quoted(&declared.name.kind));
                        self.error_in(given.file, Finding::new(Code::ParameterGiven, span, message).help(declared.help()));
                        None
                    }
                },
                None if declared.default.is_some() => declared.default,
                None => {
                    let message = format!("{} needs {}", given.taker, quoted(&declared.name.kind));
                    let help = format!("give it: `{}: …`\n{}", excerpt(&declared.name.kind), declared.help());
                    self.error_in(given.file, Finding::new(Code::MissingParameter, given.call, message).help(help.trim_end()));
                    None
                }
            };
            match known {
                Some(known) => drop(parameters.insert(declared.name.kind, known)),
                None => right = false,
            }
        }
        let older = entry.is_some_and(|entry| entry.name.kind == "vars");
        right.then(|| Scope { parameters: Rc::new(parameters), older, ..Scope::default() })
    }

    /// What the context gives, else the default; `None` if there is neither or it is wrong, which is told.
    fn context_value(&mut self, declared: &Declared) -> Option<Known> {
        let name = &declared.name;
        let context = self.input.context;
        let Some(given) = context.parameters.get(&name.kind) else {
            if declared.default.is_none() {
                let message = format!("the parameter {} has no value", quoted(&name.kind));
                let help = format!("pass one, `--param {}=…`, or give it a default: `default = …`", excerpt(&name.kind));
                self.error(Finding::new(Code::MissingParameter, name.span, message).label("neither given nor with a default").help(help));
            }
            return declared.default.clone();
        };
        match declared.kind.read(given, &declared.options) {
            Ok(value) => self.bounded(Known::inside(value), name.span),
            Err(problem) => {
                let message = format!("{} is given for {}: {problem}", quoted(given), quoted(&name.kind));
                self.error(Finding::new(Code::ParameterGiven, name.span, message).label("declared here").help(declared.help()));
                None
            }
        }
    }

    /// Refuses what the context gives and nothing declares.
    fn unknown_given(&mut self, entry: Option<&Entry>, sound: &[Declared], wrong: &BTreeSet<String>) {
        let declared: BTreeSet<&str> =
            sound.iter().map(|declared| declared.name.kind.as_str()).chain(wrong.iter().map(String::as_str)).collect();
        let context = self.input.context;
        for name in context.parameters.keys().filter(|name| !declared.contains(name.as_str())) {
            let span = entry.map_or(Span::default(), |entry| entry.name.span);
            let near = if self.findings.is_full() { String::new() } else { self.did_you_mean(name, declared.iter().copied()) };
            let help = if declared.is_empty() { "the file declares no parameters".to_owned() } else { near };
            self.error(Finding::new(Code::UnknownParameter, span, format!("there is no parameter {}", quoted(name))).help(help));
        }
    }

    fn declarations(&mut self, entry: Option<&Entry>) -> Declarations {
        let mut declarations = Declarations::default();
        let Some(block) = entry.and_then(|entry| self.block(entry)) else { return declarations };
        let mut seen: BTreeMap<&str, Span> = BTreeMap::new();
        for item in &block.kind {
            let ItemKind::Entry(entry) = &item.kind else {
                self.error(Finding::new(Code::Shape, item.span, "a value alone declares no parameter").help(FORM));
                continue;
            };
            let name = &entry.name;
            if let Some(first) = seen.get(name.kind.as_str()).copied() {
                self.doubled(&quoted(&name.kind), name.span, first);
                continue;
            }
            seen.insert(&name.kind, name.span);
            match self.with_scope(Scope::default(), |this| this.declaration(entry)) {
                Some(declared) => declarations.sound.push(declared),
                None => drop(declarations.wrong.insert(name.kind.clone())),
            }
        }
        declarations
    }

    /// `target { description = '…' type = choice default = 'preprod' options = ['preprod', 'production'] }`.
    fn declaration(&mut self, entry: &Entry) -> Option<Declared> {
        let name = &entry.name;
        let block = match &entry.tail {
            Tail::Call(Call { arguments, block: Some(block) }) if arguments.is_empty() => block,
            Tail::Assign(Value { kind: ValueKind::Block(block), .. }) => block,
            Tail::Assign(_) | Tail::Arrow(_) | Tail::Call(_) => {
                let finding = Finding::new(Code::ParameterDeclaration, name.span, "a parameter is declared with a block");
                self.error(finding.help(format!("write `{} {{ default = … }}`", excerpt(&name.kind))));
                return None;
            }
        };
        if name.kind.contains('.') {
            let message = format!("{} cannot be the name of a parameter", quoted(&name.kind));
            self.error(Finding::new(Code::ParameterDeclaration, name.span, message).help("use letters, digits, `_` and `-`"));
            return None;
        }
        let values = self.declared_values(block)?;
        let description = match values.get("description") {
            Some(value) => self.text(value, "the description of a parameter")?.kind,
            None => String::new(),
        };
        let options = match values.get("options") {
            Some(value) => self.options(value)?,
            None => Vec::new(),
        };
        let default = match values.get("default") {
            Some(value) => Some((value.span, self.planned(value, "the default of a parameter")?)),
            None => None,
        };
        let kind = match values.get("type") {
            Some(value) => self.kind_of_parameter(value)?,
            None if !options.is_empty() => Kind::Choice,
            None => default.as_ref().map_or(Kind::String, |(_, known)| Kind::of_default(known)),
        };
        self.options_fit(name, kind, values.get("options").map(|value| value.span))?;
        let mut declared = Declared { name: name.clone(), kind, description, default: None, options };
        if let Some((span, known)) = default {
            match kind.of(known, &declared.options) {
                Ok(known) => declared.default = Some(known),
                Err(problem) => {
                    let message = format!("the default of {}: {problem}", quoted(&name.kind));
                    self.error(Finding::new(Code::ParameterDeclaration, span, message).help(declared.help()));
                    return None;
                }
            }
        }
        Some(declared)
    }

    /// The values of a declaration, by key; `None` if a key is unknown or stands twice.
    fn declared_values<'t>(&mut self, block: &'t Block) -> Option<BTreeMap<&'t str, &'t Value>> {
        let mut values: BTreeMap<&str, &Value> = BTreeMap::new();
        let mut sound = true;
        for item in &block.kind {
            let entry = match &item.kind {
                ItemKind::Entry(entry) if KEYS.contains(&entry.name.kind.as_str()) => entry,
                ItemKind::Entry(Entry { name, .. }) => {
                    let message = format!("{} means nothing in the declaration of a parameter", quoted(&name.kind));
                    self.error(Finding::new(Code::UnknownName, name.span, message).help(self.did_you_mean(&name.kind, KEYS)));
                    sound = false;
                    continue;
                }
                ItemKind::Value(_) | ItemKind::Condition(_) => {
                    self.error(Finding::new(Code::Shape, item.span, "a value alone means nothing here").help(FORM));
                    sound = false;
                    continue;
                }
            };
            let Some(value) = self.value_of(entry) else {
                sound = false;
                continue;
            };
            if let Some(first) = values.get(entry.name.kind.as_str()) {
                let first = first.span;
                self.doubled(&quoted(&entry.name.kind), entry.name.span, first);
                sound = false;
                continue;
            }
            values.insert(&entry.name.kind, value);
        }
        sound.then_some(values)
    }

    fn options(&mut self, value: &Value) -> Option<Vec<String>> {
        let texts = self.texts(value, "an option")?;
        if texts.is_empty() {
            let finding = Finding::new(Code::ParameterDeclaration, value.span, "there is nothing to choose");
            self.error(finding.help("write `options = ['preprod', 'production']`"));
            return None;
        }
        let mut seen = BTreeSet::new();
        for text in &texts {
            if !seen.insert(text.kind.as_str()) {
                let message = format!("the option {} stands twice", quoted(&text.kind));
                self.error(Finding::new(Code::ParameterDeclaration, text.span, message).help("leave one out"));
                return None;
            }
        }
        Some(texts.into_iter().map(|text| text.kind).collect())
    }

    fn kind_of_parameter(&mut self, value: &Value) -> Option<Kind> {
        let word = if let ValueKind::Name(word) | ValueKind::Text(word) = &value.kind { word.as_str() } else { "" };
        let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == word);
        if kind.is_none() && value.kind != ValueKind::Wrong {
            let message = format!("{} is no type of a parameter", if word.is_empty() { "this".to_owned() } else { quoted(word) });
            let help = self.did_you_mean(word, Kind::ALL.map(Kind::as_str));
            self.error(Finding::new(Code::ParameterDeclaration, value.span, message).help(help));
        }
        kind
    }

    fn options_fit(&mut self, name: &Name, kind: Kind, options: Option<Span>) -> Option<()> {
        let (span, message) = match (kind, options) {
            (Kind::Choice, Some(_)) | (Kind::String | Kind::Boolean | Kind::Number | Kind::List, None) => return Some(()),
            (Kind::Choice, None) => (name.span, "a choice needs its options".to_owned()),
            (_, Some(span)) => (span, format!("options belong to a choice, and this is a {}", kind.as_str())),
        };
        let finding = Finding::new(Code::ParameterDeclaration, span, message);
        self.error(finding.help("write `type = choice options = ['preprod', 'production']`"));
        None
    }
}

impl Declared {
    /// What it takes, and what it is for.
    fn help(&self) -> String {
        let takes = match self.kind {
            Kind::Choice => format!("one of {}", self.options.iter().map(|option| quoted(option)).collect::<Vec<_>>().join(", ")),
            Kind::String | Kind::Boolean | Kind::Number | Kind::List => self.kind.described().to_owned(),
        };
        let name = excerpt(&self.name.kind);
        if self.description.is_empty() {
            format!("`{name}` is {takes}")
        } else {
            format!("`{name}` is {takes}: {}", excerpt(&self.description))
        }
    }
}
