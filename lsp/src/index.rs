//! What a file declares: read from its syntax tree, so also from a file that has no plan.

use std::collections::BTreeMap;

use model::diagnostic::Span;
use parser::syntax::{Block, Call, Entry, Item, ItemKind, Tail, Value, ValueKind};

/// What a file declares.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) stages: Vec<Stage>,
    pub(crate) parameters: Vec<Declared>,
    pub(crate) credentials: Vec<Declared>,
    pub(crate) environments: Vec<Declared>,
    pub(crate) caches: Vec<Declared>,
    /// Steps that are made of steps.
    pub(crate) steps: Vec<StepDefined>,
    /// What `use` names in quotes.
    pub(crate) libraries: Vec<String>,
    /// The blocks of the top level, for the outline.
    pub(crate) blocks: Vec<Declared>,
}

/// A stage as it is written; `each` and blueprints are not expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stage {
    /// The names from the outermost group, joined by `/`.
    pub(crate) path: String,
    pub(crate) name: String,
    /// Groups around it.
    pub(crate) depth: usize,
    /// All of it.
    pub(crate) span: Span,
    /// Its name.
    pub(crate) place: Span,
}

/// Something with a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Declared {
    pub(crate) name: String,
    pub(crate) span: Span,
    pub(crate) place: Span,
    /// Its settings, as written.
    pub(crate) settings: BTreeMap<String, String>,
}

/// A step that is made of steps.
#[derive(Debug)]
pub(crate) struct StepDefined {
    pub(crate) declared: Declared,
    pub(crate) parameters: Vec<Declared>,
}

impl Index {
    pub(crate) fn of(source: &str) -> Self {
        let mut index = Self::default();
        for item in &parser::syntax_tree(source) {
            if let Some(entry) = entry_of(item) {
                index.top(source, item, entry);
            }
        }
        index
    }

    fn top(&mut self, source: &str, item: &Item, entry: &Entry) {
        let Tail::Call(call) = &entry.tail else { return };
        let items = call.block.as_ref().map_or(&[][..], |block| &block.kind);
        match entry.name.kind.as_str() {
            "parameters" | "vars" => self.parameters.extend(declared(source, items)),
            "credentials" => self.credentials.extend(declared(source, items)),
            "environments" => self.environments.extend(declared(source, items)),
            "pipeline" => self.body(source, items, "", 0),
            "blueprint" => {
                for (name, block) in
                    items.iter().filter_map(entry_of).filter_map(|entry| Some((entry.name.kind.as_str(), block_of(entry)?)))
                {
                    match name {
                        "parameters" | "vars" => self.parameters.extend(declared(source, &block.kind)),
                        _ => self.body(source, &block.kind, "", 0),
                    }
                }
            }
            "use" => {
                self.libraries.extend(call.arguments.iter().filter_map(|argument| text_of(&argument.value.kind)));
                self.libraries.extend(items.iter().filter_map(|item| match &item.kind {
                    ItemKind::Value(kind) => text_of(kind),
                    ItemKind::Entry(Entry { tail: Tail::Call(call), .. }) => text_of(&call.arguments.first()?.value.kind),
                    ItemKind::Entry(_) | ItemKind::Condition(_) => None,
                }));
            }
            "step" => self.step(source, item, call),
            _ => {}
        }
        self.blocks.push(named(source, item, entry));
    }

    fn step(&mut self, source: &str, item: &Item, call: &Call) {
        let Some(value) = call.arguments.first().map(|argument| &argument.value) else { return };
        let Some(name) = text_of(&value.kind) else { return };
        let items = call.block.as_ref().map_or(&[][..], |block| &block.kind);
        let parameters = items.iter().filter_map(entry_of).filter(|entry| entry.name.kind == "parameters").filter_map(block_of);
        let parameters = parameters.flat_map(|block| declared(source, &block.kind)).collect();
        let declared = Declared { name, span: item.span, place: value.span, settings: settings(source, items) };
        self.steps.push(StepDefined { declared, parameters });
    }

    /// Stages of a block; it recurses as deep as the parser lets blocks be nested.
    fn body(&mut self, source: &str, items: &[Item], group: &str, depth: usize) {
        for (item, entry) in items.iter().filter_map(|item| Some((item, entry_of(item)?))) {
            let Some(block) = block_of(entry) else { continue };
            match entry.name.kind.as_str() {
                "stage" => {
                    let Some((name, place)) = stage_name(source, entry) else { continue };
                    let path = if group.is_empty() { name.clone() } else { format!("{group}/{name}") };
                    self.stages.push(Stage { path: path.clone(), name, depth, span: item.span, place });
                    self.body(source, &block.kind, &path, depth + 1);
                }
                "stages" | "parallel" | "fanout" | "each" | "plan" => self.body(source, &block.kind, group, depth),
                "cache" => {
                    let made = declared(source, &block.kind).into_iter().filter(|cache| !matches!(cache.name.as_str(), "use" | "from"));
                    self.caches.extend(made);
                }
                _ => {}
            }
        }
    }

    /// The stage that is named from outside: by its path, or by the last part of it.
    pub(crate) fn stage(&self, name: &str) -> Option<&Stage> {
        self.stages.iter().find(|stage| stage.path == name).or_else(|| self.stages.iter().find(|stage| stage.name == name))
    }
}

/// The one of this name.
pub(crate) fn find<'a>(declared: &'a [Declared], name: &str) -> Option<&'a Declared> {
    declared.iter().find(|declared| declared.name == name)
}

fn entry_of(item: &Item) -> Option<&Entry> {
    if let ItemKind::Entry(entry) = &item.kind { Some(entry) } else { None }
}

/// The block of `name { … }` and `name = { … }`.
fn block_of(entry: &Entry) -> Option<&Block> {
    match &entry.tail {
        Tail::Call(call) => call.block.as_ref(),
        Tail::Assign(Value { kind: ValueKind::Block(block), .. }) => Some(block),
        Tail::Assign(_) | Tail::Arrow(_) => None,
    }
}

fn text_of(kind: &ValueKind) -> Option<String> {
    if let ValueKind::Text(text) = kind { Some(text.clone()) } else { None }
}

fn written(source: &str, span: Span) -> String {
    source.get(span.start..span.end).unwrap_or_default().to_owned()
}

/// The name of a stage: its text, or what is written where it is no literal.
fn stage_name(source: &str, entry: &Entry) -> Option<(String, Span)> {
    let Tail::Call(call) = &entry.tail else { return None };
    let value = match call.arguments.first() {
        Some(argument) => Some(&argument.value),
        None => call
            .block
            .iter()
            .flat_map(|block| &block.kind)
            .filter_map(entry_of)
            .filter(|entry| entry.name.kind == "name")
            .find_map(value_of),
    }?;
    Some((text_of(&value.kind).unwrap_or_else(|| written(source, value.span)), value.span))
}

/// The value of `name = value` and `name value`.
fn value_of(entry: &Entry) -> Option<&Value> {
    match &entry.tail {
        Tail::Assign(value) => Some(value),
        Tail::Call(Call { arguments, block: None }) => arguments.first().map(|argument| &argument.value),
        Tail::Call(_) | Tail::Arrow(_) => None,
    }
}

fn declared(source: &str, items: &[Item]) -> Vec<Declared> {
    items.iter().filter_map(|item| Some(named(source, item, entry_of(item)?))).collect()
}

fn named(source: &str, item: &Item, entry: &Entry) -> Declared {
    let settings = block_of(entry).map(|block| settings(source, &block.kind)).unwrap_or_default();
    Declared { name: entry.name.kind.clone(), span: item.span, place: entry.name.span, settings }
}

fn settings(source: &str, items: &[Item]) -> BTreeMap<String, String> {
    let of = |entry: &Entry| {
        let value = value_of(entry)?;
        Some((entry.name.kind.clone(), text_of(&value.kind).unwrap_or_else(|| written(source, value.span))))
    };
    items.iter().filter_map(entry_of).filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_declared_is_found_beside_a_mistake() {
        let source = "parameters { x { type = choice options = ['a'] } } credentials { k = vault('a#b') }
            pipeline { stages { stage 'A' { cache { c = ['d/'] use e } stage { name = 'B' } } } stage 'C' { steps { = } } }
            use './lib' step 's' { parameters { p { type = string } } steps [ sh 'x' ] }";
        let index = Index::of(source);
        let paths: Vec<&str> = index.stages.iter().map(|stage| stage.path.as_str()).collect();
        assert_eq!(paths, ["A", "A/B", "C"]);
        assert_eq!(index.stage("B").map(|stage| stage.depth), Some(1));
        assert_eq!(find(&index.parameters, "x").unwrap().settings.get("type").map(String::as_str), Some("choice"));
        assert_eq!((index.credentials.len(), index.caches.len(), index.libraries.len()), (1, 1, 1));
        assert_eq!(index.steps.first().unwrap().parameters.first().unwrap().name, "p");
    }
}
