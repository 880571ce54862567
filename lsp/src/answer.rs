//! Answers to what an editor asks of a place: what it is, where it is declared, what could stand there, and what the file has.

use lsp_types::{
    CompletionItem, CompletionItemKind, CompletionTextEdit, DocumentSymbol, Documentation, Hover, HoverContents, Location, MarkupContent,
    MarkupKind, Position, Range, SymbolKind, TextEdit,
};
use model::{
    diagnostic::Span,
    manifest::{ParameterKind, ParameterManifest, StepManifest},
};

use crate::{
    cursor::{Bracket, Cursor, Last, TokenKind},
    index::{Declared, Stage},
    reference::{Facts, Reference, Wanted},
    text::Text,
    words::{Place, values},
};

/// What stands at a position, for people.
pub(crate) fn hover(facts: &Facts<'_>, text: &Text, position: Position) -> Option<Hover> {
    let cursor = Cursor::at(text.source(), text.offset(position));
    let span = cursor.token.as_ref()?.span;
    let value = match facts.reference(&cursor)? {
        Reference::Stage(stage) => format!("**stage** `{}`", stage.path),
        Reference::Parameter(parameter) => declaration("parameter", parameter),
        Reference::Credential(credential) => declaration("credential", credential),
        Reference::Environment(environment) => declaration("environment", environment),
        Reference::Cache(cache) => declaration("cache", cache),
        Reference::File(path) => format!("`{path}`"),
        Reference::Step(step) => manifest(&step),
        Reference::StepParameter(step, parameter) => format!("**{}**\n\n{}", step.symbol, describe(&parameter)),
        Reference::Word(word, meaning) => format!("**{word}**\n\n{meaning}"),
    };
    Some(Hover { contents: HoverContents::Markup(markdown(value)), range: Some(text.range(span)) })
}

/// Where what stands at a position is declared.
pub(crate) fn definition(facts: &Facts<'_>, text: &Text, position: Position) -> Option<Location> {
    let cursor = Cursor::at(text.source(), text.offset(position));
    let place = match facts.reference(&cursor)? {
        Reference::Stage(stage) => stage.place,
        Reference::Parameter(declared)
        | Reference::Credential(declared)
        | Reference::Environment(declared)
        | Reference::Cache(declared) => declared.place,
        Reference::File(path) => {
            let uri = facts.workspace.uri(facts.uri, &path)?;
            return Some(Location { uri, range: Range::default() });
        }
        Reference::Step(_) | Reference::StepParameter(..) | Reference::Word(..) => return None,
    };
    Some(Location { uri: facts.uri.clone(), range: text.range(place) })
}

/// What could stand at a position.
pub(crate) fn completion(facts: &Facts<'_>, text: &Text, position: Position) -> Vec<CompletionItem> {
    let offset = text.offset(position);
    let cursor = Cursor::at(text.source(), offset);
    if cursor.in_comment {
        return Vec::new();
    }
    let span = cursor.token.as_ref().map_or(Span { start: offset, end: offset }, |token| token.span);
    let range = text.range(span);
    candidates(facts, &cursor).into_iter().map(|candidate| candidate.item(range)).collect()
}

/// Something that could stand there.
struct Candidate {
    label: String,
    kind: CompletionItemKind,
    detail: String,
    documentation: String,
}

impl Candidate {
    fn new(label: impl Into<String>, kind: CompletionItemKind, documentation: impl Into<String>) -> Self {
        Self { label: label.into(), kind, detail: String::new(), documentation: documentation.into() }
    }

    fn detail(self, detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), ..self }
    }

    fn item(self, range: Range) -> CompletionItem {
        let edit = TextEdit { range, new_text: self.label.clone() };
        CompletionItem {
            label: self.label,
            kind: Some(self.kind),
            detail: Some(self.detail).filter(|detail| !detail.is_empty()),
            documentation: Some(self.documentation)
                .filter(|text| !text.is_empty())
                .map(|text| Documentation::MarkupContent(markdown(text))),
            text_edit: Some(CompletionTextEdit::Edit(edit)),
            ..CompletionItem::default()
        }
    }
}

fn candidates(facts: &Facts<'_>, cursor: &Cursor) -> Vec<Candidate> {
    let place = Place::of(cursor);
    let frame = cursor.frame();
    let written = cursor.token.as_ref().map_or("", |token| token.written.as_str());
    let is_string = cursor.token.as_ref().is_some_and(|token| token.kind == TokenKind::String);
    if is_string || frame.last == Last::Arrow {
        return named(facts, Wanted::at(cursor, place, &facts.steps));
    }
    if let Some((scope @ ("params" | "vars" | "pr"), _)) = written.split_once('.') {
        return members(facts, scope);
    }
    let is_value =
        matches!(frame.last, Last::Equals | Last::Colon) || frame.last == Last::Name && matches!(frame.entry.as_str(), "type" | "use");
    if is_value && frame.last == Last::Name && frame.entry == "use" {
        return declared(&facts.index.caches, CompletionItemKind::VALUE, "cache");
    }
    if is_value || frame.bracket == Bracket::Parenthesis && place != Place::Conditions {
        let words = values(place, &frame.entry).iter().map(|word| Candidate::new(*word, CompletionItemKind::ENUM_MEMBER, ""));
        return words.chain(members(facts, "params")).chain(words_of(Place::Other)).collect();
    }
    let mut found: Vec<Candidate> = Vec::new();
    if place == Place::Steps {
        if let Some(step) = facts.step(&frame.entry) {
            found.extend(step.parameters.iter().map(keyword));
        }
        found.extend(
            facts
                .steps
                .iter()
                .map(|step| Candidate::new(&step.symbol, CompletionItemKind::FUNCTION, manifest(step)).detail(signature(step))),
        );
    }
    found.extend(words_of(place));
    if place == Place::Conditions {
        found.extend(members(facts, "params"));
    }
    found
}

fn words_of(place: Place) -> impl Iterator<Item = Candidate> {
    place.words().map(|(word, meaning)| Candidate::new(word, CompletionItemKind::KEYWORD, meaning))
}

fn named(facts: &Facts<'_>, wanted: Wanted) -> Vec<Candidate> {
    match wanted {
        Wanted::Stage => {
            let stages = facts.index.stages.iter();
            stages.map(|stage| Candidate::new(&stage.path, CompletionItemKind::REFERENCE, "").detail("stage")).collect()
        }
        Wanted::Credential => declared(&facts.index.credentials, CompletionItemKind::REFERENCE, "credential"),
        Wanted::Environment => declared(&facts.index.environments, CompletionItemKind::REFERENCE, "environment"),
        Wanted::Blueprint | Wanted::Library | Wanted::File | Wanted::Nothing => Vec::new(),
    }
}

fn declared(declared: &[Declared], kind: CompletionItemKind, what: &str) -> Vec<Candidate> {
    declared.iter().map(|one| Candidate::new(&one.name, kind, declaration(what, one)).detail(what)).collect()
}

fn members(facts: &Facts<'_>, scope: &str) -> Vec<Candidate> {
    if scope == "pr" {
        let facts = Place::Conditions.words().filter(|(word, _)| word.starts_with("pr."));
        return facts.map(|(word, meaning)| Candidate::new(word, CompletionItemKind::VARIABLE, meaning)).collect();
    }
    let parameters = facts.index.parameters.iter();
    let candidate = |parameter: &Declared| {
        Candidate::new(format!("{scope}.{}", parameter.name), CompletionItemKind::VARIABLE, declaration("parameter", parameter))
    };
    parameters.map(candidate).collect()
}

fn keyword(parameter: &ParameterManifest) -> Candidate {
    let detail = if parameter.required { format!("{}, required", kind(parameter.kind)) } else { kind(parameter.kind).to_owned() };
    Candidate::new(format!("{}:", parameter.name), CompletionItemKind::PROPERTY, &parameter.description).detail(detail)
}

/// What a file has, as a tree: the blocks of the top level, and the stages.
pub(crate) fn outline(facts: &Facts<'_>, text: &Text) -> Vec<DocumentSymbol> {
    let index = &facts.index;
    let mut symbols = Vec::new();
    for block in &index.blocks {
        let inner: Vec<DocumentSymbol> = match block.name.as_str() {
            "parameters" | "vars" => within(&index.parameters, block, SymbolKind::VARIABLE, text),
            "credentials" => within(&index.credentials, block, SymbolKind::KEY, text),
            "environments" => within(&index.environments, block, SymbolKind::NAMESPACE, text),
            "pipeline" | "blueprint" => {
                let stages: Vec<&Stage> = index.stages.iter().filter(|stage| is_within(stage.span, block.span)).collect();
                nested(&stages, 0, text)
            }
            _ => Vec::new(),
        };
        symbols.push(symbol(&block.name, SymbolKind::MODULE, text, (block.span, block.place), inner));
    }
    symbols
}

fn within(declared: &[Declared], block: &Declared, kind: SymbolKind, text: &Text) -> Vec<DocumentSymbol> {
    let inner = declared.iter().filter(|one| is_within(one.span, block.span));
    inner.map(|one| symbol(&one.name, kind, text, (one.span, one.place), Vec::new())).collect()
}

/// Stages in the order in which they are written, each after the group that it is in. Groups are as deep as blocks can be nested.
fn nested(stages: &[&Stage], depth: usize, text: &Text) -> Vec<DocumentSymbol> {
    let mut symbols = Vec::new();
    let mut rest = stages;
    while let Some((stage, after)) = rest.split_first() {
        let count = after.iter().take_while(|inner| inner.depth > depth).count();
        let (inner, next) = after.split_at(count);
        let kind = if inner.is_empty() { SymbolKind::FUNCTION } else { SymbolKind::NAMESPACE };
        let children = nested(inner, depth + 1, text);
        symbols.push(symbol(&stage.name, kind, text, (stage.span, stage.place), children));
        rest = next;
    }
    symbols
}

fn is_within(inner: Span, outer: Span) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

#[expect(deprecated, reason = "the field `deprecated` has to be given")]
fn symbol(name: &str, kind: SymbolKind, text: &Text, (span, place): (Span, Span), children: Vec<DocumentSymbol>) -> DocumentSymbol {
    // A symbol without a name is refused by editors.
    let name = if name.trim().is_empty() { "…".to_owned() } else { name.to_owned() };
    DocumentSymbol {
        name,
        detail: None,
        kind,
        tags: None,
        deprecated: None,
        range: text.range(span),
        selection_range: text.range(place),
        children: Some(children).filter(|children| !children.is_empty()),
    }
}

fn markdown(value: String) -> MarkupContent {
    MarkupContent { kind: MarkupKind::Markdown, value }
}

/// A step's manifest, for people.
fn manifest(step: &StepManifest) -> String {
    let parameters: Vec<String> = step.parameters.iter().map(|parameter| format!("- {}", describe(parameter))).collect();
    let parts = [format!("```otto\n{}\n```", signature(step)), step.description.clone(), parameters.join("\n")];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n\n")
}

fn signature(step: &StepManifest) -> String {
    let parameters =
        step.parameters.iter().map(|parameter| if parameter.required { parameter.name.clone() } else { format!("[{}]", parameter.name) });
    std::iter::once(step.symbol.clone()).chain(parameters).collect::<Vec<_>>().join(" ")
}

fn describe(parameter: &ParameterManifest) -> String {
    let required = if parameter.required { ", required" } else { "" };
    format!("`{}` ({}{required}): {}", parameter.name, kind(parameter.kind), parameter.description)
}

fn kind(kind: ParameterKind) -> &'static str {
    match kind {
        ParameterKind::String => "string",
        ParameterKind::Code => "code",
        ParameterKind::Boolean => "boolean",
        ParameterKind::Number => "number",
        ParameterKind::List => "list",
        ParameterKind::Block => "block of steps",
    }
}

fn declaration(what: &str, declared: &Declared) -> String {
    let settings = declared.settings.iter().map(|(name, value)| format!("- {name}: {value}"));
    std::iter::once(format!("**{what}** `{}`\n", declared.name)).chain(settings).collect::<Vec<_>>().join("\n")
}
