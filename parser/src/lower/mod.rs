//! From the syntax tree to the plan: what the names mean, and what follows from it.
//!
//! [`declare`] reads what the file declares; [`wire`] gives each stage its path, its inherited settings and what it waits for.

mod declare;
mod setting;
mod step;
mod wire;
mod word;

use std::collections::BTreeMap;

use model::{
    diagnostic::Span,
    manifest::{StepLibrary, StepManifest},
    plan::{PLAN_SCHEMA, Plan, PlanDocument},
};

use crate::{
    diagnostic::{Code, Finding, Findings, Lines, excerpt, quoted},
    grammar::Tree,
    suggest::did_you_mean,
    syntax::{Block, Call, Entry, Item, ItemKind, Tail, ValueKind},
};

/// The library that is in scope without being named.
const STANDARD_LIBRARY: &str = "stdlib";

/// The plan of a file; `None` only where `findings` say why.
pub(crate) fn lower(
    tree: &Tree,
    source: &str,
    lines: &Lines<'_>,
    libraries: &[StepLibrary],
    findings: &mut Findings,
) -> Option<PlanDocument> {
    let mut lowering =
        Lowering { source, lines, left_out: &tree.left_out, libraries, scope: BTreeMap::new(), findings, stages: 0, steps: 0 };
    let pipeline = lowering.file(&tree.items)?;
    let (settings, nodes) = lowering.pipeline(pipeline);
    let stages = wire::wire(&settings, nodes, lines, lowering.findings)?;
    if findings.has_errors() {
        return None;
    }
    let used = stages.iter().flat_map(|stage| &stage.steps).map(|step| step.library.as_str());
    let digest_of = |name| libraries.iter().find(|library| library.name == name).map(|library| library.digest);
    let libraries = used.filter_map(|name| Some((name.to_owned(), digest_of(name)?))).collect();
    Some(PlanDocument::new(Plan { schema: PLAN_SCHEMA, stages, libraries }))
}

/// What all parts of the declaring pass share.
struct Lowering<'a> {
    source: &'a str,
    lines: &'a Lines<'a>,
    left_out: &'a [Span],
    libraries: &'a [StepLibrary],
    /// The steps in scope, by symbol, each with its library's name.
    scope: BTreeMap<&'a str, (&'a str, &'a StepManifest)>,
    findings: &'a mut Findings,
    /// Stages and steps so far.
    stages: usize,
    steps: usize,
}

impl Lowering<'_> {
    fn error(&mut self, finding: Finding) {
        self.findings.add(finding);
    }

    /// Whether a syntax error made the inside of these braces be left out.
    fn is_left_out(&self, block: &Block) -> bool {
        self.left_out.contains(&block.span)
    }

    /// Refuses what stands a second time. `first` is where it stands already.
    fn doubled(&mut self, what: &str, span: Span, first: Span) {
        let line = self.lines.line(first.start);
        let finding = Finding::new(Code::Doubled, span, format!("{what} stands twice")).label("again here");
        self.error(finding.help(format!("it stands in line {line} already: leave one out")));
    }

    /// Refuses what is part of the language, but not of this version.
    fn not_yet(&mut self, what: &str, span: Span) {
        let finding = Finding::new(Code::NotYet, span, format!("{what} is not available in this version yet"));
        self.error(finding.label("not yet").help("it is part of the language and comes with a later version; until then, leave it out"));
    }

    /// The top level: brings the libraries into scope and gives the pipeline's block.
    fn file<'t>(&mut self, items: &'t [Item]) -> Option<&'t Block> {
        let mut used = vec![STANDARD_LIBRARY];
        let mut seen: BTreeMap<&str, Span> = BTreeMap::new();
        let mut pipeline = None;
        for item in items {
            let ItemKind::Entry(entry) = &item.kind else {
                let finding = Finding::new(Code::Shape, item.span, "a value alone means nothing here").label("expected a block");
                self.error(finding.help(word::top_level_help("")));
                continue;
            };
            let name = entry.name.kind.as_str();
            if name == "use" {
                self.used(entry, &mut used);
                continue;
            }
            if let Some(first) = seen.insert(name, entry.name.span) {
                seen.insert(name, first);
                self.doubled(&quoted(name), entry.name.span, first);
                continue;
            }
            match name {
                "pipeline" => pipeline = self.block(entry),
                "configure" | "parameters" | "credentials" | "environments" if is_empty_block(entry) => {}
                name if word::TOP_LEVEL_TO_COME.contains(&name) => self.not_yet(&quoted(name), entry.name.span),
                name => {
                    let finding =
                        Finding::new(Code::UnknownName, entry.name.span, format!("{} means nothing at the top level", quoted(name)));
                    self.error(finding.help(word::top_level_help(name)));
                }
            }
        }
        if !seen.contains_key("pipeline") && !seen.contains_key("blueprint") {
            let finding = Finding::new(Code::NoPipeline, Span::default(), "the file has no `pipeline` block");
            self.error(finding.help("begin with `pipeline { stage 'Build' { steps { sh 'make' } } }`"));
        }
        for library in self.libraries.iter().filter(|library| used.contains(&library.name.as_str())) {
            for step in &library.steps {
                self.scope.entry(&step.symbol).or_insert((&library.name, step));
            }
        }
        pipeline
    }

    /// `use stdlib` and `use { stdlib … }`.
    fn used<'t>(&mut self, entry: &'t Entry, used: &mut Vec<&'t str>) {
        let Tail::Call(call) = &entry.tail else {
            let finding = Finding::new(Code::Shape, entry.name.span, "`use` takes libraries");
            return self.error(finding.help("write `use stdlib` or `use { stdlib './common/slack' }`"));
        };
        if call.arguments.is_empty() && call.block.is_none() {
            let finding = Finding::new(Code::Shape, entry.name.span, "`use` of nothing");
            return self.error(finding.help("write `use stdlib` or `use { stdlib './common/slack' }`"));
        }
        for argument in &call.arguments {
            self.used_library(&argument.value.kind, argument.value.span, used);
        }
        for item in call.block.iter().flat_map(|block| &block.kind) {
            match &item.kind {
                ItemKind::Value(value) => self.used_library(value, item.span, used),
                ItemKind::Entry(Entry { name, tail: Tail::Call(Call { arguments, block: None }) }) => {
                    self.named_library(&name.kind, name.span, used);
                    for argument in arguments {
                        self.used_library(&argument.value.kind, argument.value.span, used);
                    }
                }
                ItemKind::Entry(_) | ItemKind::Condition => {
                    self.error(Finding::new(Code::Shape, item.span, "this is no library").help("a library is a name or a path in quotes"));
                }
            }
        }
    }

    fn used_library<'t>(&mut self, value: &'t ValueKind, span: Span, used: &mut Vec<&'t str>) {
        match value {
            ValueKind::Name(name) => self.named_library(name, span, used),
            ValueKind::Text(_) => self.not_yet("a library from a path or an address", span),
            ValueKind::List(items) => {
                for item in items {
                    match &item.kind {
                        ItemKind::Value(value) => self.used_library(value, item.span, used),
                        ItemKind::Entry(Entry { name, .. }) => self.named_library(&name.kind, name.span, used),
                        ItemKind::Condition => self.error(Finding::new(Code::Shape, item.span, "this is no library")),
                    }
                }
            }
            ValueKind::Integer(_)
            | ValueKind::Decimal(_)
            | ValueKind::Duration(_)
            | ValueKind::Size(_)
            | ValueKind::Boolean(_)
            | ValueKind::Call(_)
            | ValueKind::Condition => {
                self.error(Finding::new(Code::Shape, span, "this is no library").help("a library is a name or a path in quotes"));
            }
            ValueKind::Wrong => {}
        }
    }

    fn named_library<'t>(&mut self, name: &'t str, span: Span, used: &mut Vec<&'t str>) {
        let libraries = self.libraries;
        if libraries.iter().any(|library| library.name == name) {
            used.push(name);
            return;
        }
        let near = did_you_mean(name, libraries.iter().map(|library| library.name.as_str()));
        let help = format!("{near}\nthe path of a library stands in quotes: `use {{ './{}' }}`", excerpt(name));
        self.error(Finding::new(Code::UnknownLibrary, span, format!("there is no library {}", quoted(name))).help(help.trim_start()));
    }

    /// The block of an entry that has a block and nothing else.
    fn block<'t>(&mut self, entry: &'t Entry) -> Option<&'t Block> {
        match &entry.tail {
            Tail::Call(Call { arguments, block: Some(block) }) if arguments.is_empty() => Some(block),
            Tail::Assign(_) | Tail::Arrow(_) | Tail::Call(_) => {
                let name = &entry.name;
                let finding = Finding::new(Code::Shape, name.span, format!("{} takes a block and nothing else", quoted(&name.kind)));
                self.error(finding.help(format!("write `{} {{ … }}`", name.kind)));
                None
            }
        }
    }
}

fn is_empty_block(entry: &Entry) -> bool {
    matches!(&entry.tail, Tail::Call(Call { arguments, block: Some(block) }) if arguments.is_empty() && block.kind.is_empty())
}
