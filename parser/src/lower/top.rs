//! The top level of a file: which blocks it has, each at most once but `use`.

use std::collections::BTreeMap;

use model::diagnostic::Span;

use super::{Lowering, word};
use crate::{
    diagnostic::{Code, Finding, quoted},
    syntax::{Block, Entry, Item, ItemKind},
};

/// What stands at the top level of a file, in the order of its meaning: each block may use what those before it bring in.
#[derive(Debug, Default)]
pub(super) struct Top<'t> {
    pub(super) uses: Vec<&'t Entry>,
    pub(super) configure: Option<&'t Entry>,
    /// `parameters`, or `vars`, the older spelling.
    pub(super) parameters: Option<&'t Entry>,
    pub(super) triggers: Option<&'t Entry>,
    pub(super) environments: Option<&'t Entry>,
    pub(super) credentials: Option<&'t Entry>,
    pub(super) pipeline: Option<&'t Entry>,
    pub(super) blueprint: Option<&'t Entry>,
}

impl Lowering<'_, '_> {
    /// Sorts what stands at the top level, and refuses what does not belong there.
    pub(super) fn top_level<'t>(&mut self, items: &'t [Item]) -> Top<'t> {
        let mut top = Top::default();
        let mut seen: BTreeMap<&str, Span> = BTreeMap::new();
        for item in items {
            let ItemKind::Entry(entry) = &item.kind else {
                let finding = Finding::new(Code::Shape, item.span, "a value alone means nothing here").label("expected a block");
                self.error(finding.help(word::top_level_help("")));
                continue;
            };
            let name = entry.name.kind.as_str();
            if name == "use" {
                top.uses.push(entry);
                continue;
            }
            // `vars` is the older spelling of `parameters`: both at once are one block twice.
            let meant = if name == "vars" { "parameters" } else { name };
            if let Some(first) = seen.get(meant).copied() {
                self.doubled(&quoted(name), entry.name.span, first);
                continue;
            }
            seen.insert(meant, entry.name.span);
            let place = match meant {
                "configure" => &mut top.configure,
                "parameters" => &mut top.parameters,
                "triggers" => &mut top.triggers,
                "environments" => &mut top.environments,
                "credentials" => &mut top.credentials,
                "pipeline" => &mut top.pipeline,
                "blueprint" => &mut top.blueprint,
                _ => {
                    let message = format!("{} means nothing at the top level", quoted(name));
                    self.error(Finding::new(Code::UnknownName, entry.name.span, message).help(word::top_level_help(name)));
                    continue;
                }
            };
            *place = Some(entry);
        }
        top
    }

    /// Everything of a pipeline file but the pipeline itself.
    pub(super) fn surroundings(&mut self, top: &Top<'_>) {
        self.context_parameters(top.parameters);
        self.triggers(top.triggers);
        self.scope_of_steps();
        if let Some(block) = top.credentials.and_then(|entry| self.block(entry)) {
            self.declare_credentials(block);
        }
        if let Some(block) = top.environments.and_then(|entry| self.block(entry)) {
            self.declare_environments(block);
        }
        if let Some(entry) = top.configure {
            self.configure(entry);
        }
    }

    /// The block of the pipeline; `None` if there is none, which is told.
    pub(super) fn pipeline_of<'t>(&mut self, top: &Top<'t>) -> Option<&'t Block> {
        if let Some(entry) = top.pipeline {
            return self.block(entry);
        }
        let finding = Finding::new(Code::NoPipeline, Span::default(), "the file has no `pipeline` block");
        self.error(finding.help("begin with `pipeline { stage 'Build' { steps { sh 'make' } } }`"));
        None
    }
}
