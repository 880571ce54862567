//! The top level of a file: which blocks it has, each at most once but `use`.

use std::collections::BTreeMap;

use model::diagnostic::Span;

use super::{Lowering, blueprint::ENDING, declare::Pipeline, word};
use crate::{
    diagnostic::{Code, Finding, quoted},
    syntax::{Entry, Item, ItemKind},
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
                    let help = if self.findings.is_full() { String::new() } else { word::top_level_help(name) };
                    self.error(Finding::new(Code::UnknownName, entry.name.span, message).help(help));
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

    /// What the file holds: a pipeline, or a blueprint that is checked by itself. `None` if it is neither, which is told.
    pub(super) fn whole(&mut self, top: &Top<'_>) -> Option<Pipeline> {
        if top.pipeline.is_some() || top.blueprint.is_none() {
            self.surroundings(top);
        }
        match (top.pipeline, top.blueprint) {
            (Some(pipeline), None) => {
                let block = self.block(pipeline)?;
                Some(self.pipeline(block))
            }
            (None, Some(blueprint)) => self.blueprint_alone(top, blueprint),
            (Some(_), Some(blueprint)) => {
                let finding = Finding::new(Code::WrongFile, blueprint.name.span, "a pipeline and a blueprint cannot stand in one file");
                self.error(finding.help("write the blueprint into a file of its own, and take its stages with `from`"));
                None
            }
            (None, None) => {
                let blueprint = self.input.path.ends_with(ENDING);
                let finding = if blueprint {
                    Finding::new(Code::NoPipeline, Span::default(), "the file has no `blueprint` block")
                        .help("begin with `blueprint { plan { stage 'Build' { steps { sh 'make' } } } }`")
                } else {
                    Finding::new(Code::NoPipeline, Span::default(), "the file has no `pipeline` block")
                        .help("begin with `pipeline { stage 'Build' { steps { sh 'make' } } }`")
                };
                self.error(finding);
                None
            }
        }
    }
}
