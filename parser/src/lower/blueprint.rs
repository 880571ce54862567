//! `from`: the stages of a blueprint stand in its place. And a blueprint by itself, which is checked with its defaults.

use std::{collections::BTreeMap, rc::Rc};

use model::diagnostic::Span;

use super::{
    Lowering,
    declare::{Node, Pipeline},
    parameter::Given,
    setting::Settings,
    top::Top,
    value::{Known, Scope},
    word::Place,
};
use crate::{
    diagnostic::{Code, FileId, Finding, quoted},
    suggest::did_you_mean,
    syntax::{Argument, Call, Entry, ItemKind, Name, Tail, Value},
};

/// The ending of a blueprint's file.
pub(super) const ENDING: &str = ".blueprint";
/// The ending of a pipeline's file.
const PIPELINE_ENDING: &str = ".otto";
const HELP: &str = "write `from 'blueprints/rubygem'`, or `from blueprint: 'blueprints/rubygem', rubyVersion: '2.6'`";
const FORM: &str = "write `blueprint { parameters { … } plan { stage 'Build' { … } } }`";

/// The call of a blueprint: what is given, and where the call stands.
struct BlueprintCall {
    given: Vec<(Name, Known)>,
    file: FileId,
    span: Span,
    path: String,
}

impl Lowering<'_, '_> {
    /// `from 'blueprints/rubygem'`, `from blueprint: '…', rubyVersion: '2.6'`.
    pub(super) fn blueprint(&mut self, entry: &Entry) -> Option<Node> {
        let arguments = match &entry.tail {
            Tail::Call(Call { arguments, block: None }) if !arguments.is_empty() => arguments,
            Tail::Assign(_) | Tail::Arrow(_) | Tail::Call(_) => {
                self.error(Finding::new(Code::Shape, entry.name.span, "`from` takes a blueprint and its parameters").help(HELP));
                return None;
            }
        };
        let (file, given) = self.blueprint_arguments(&entry.name, arguments)?;
        let written = self.literal_text(file, "a blueprint")?;
        let path = self.blueprint_path(&written)?;
        let given: Vec<Option<(Name, Known)>> = given.into_iter().map(|(name, value)| Some((name.clone(), self.known(value)?))).collect();
        let given = given.into_iter().collect::<Option<Vec<_>>>()?;
        let source = self.load(&path, written.span)?;
        if !self.expanded(source.text.len(), written.span) {
            return None;
        }
        let call = BlueprintCall { given, file: self.source.id, span: written.span, path };
        let path = call.path.clone();
        let nodes = self.included(&path, written.span, |this| this.within(source, |this| this.blueprint_nodes(call)))?;
        Some(Node::Sequence(nodes))
    }

    /// The blueprint's file, and the parameters that are given.
    fn blueprint_arguments<'t>(&mut self, word: &Name, arguments: &'t [Argument]) -> Option<(&'t Value, Vec<(&'t Name, &'t Value)>)> {
        let mut file: Option<&Value> = None;
        let mut given = Vec::new();
        let mut sound = true;
        for argument in arguments {
            match &argument.keyword {
                Some(keyword) if keyword.kind != "blueprint" => given.push((keyword, &argument.value)),
                Some(_) | None => {
                    if let Some(first) = file.replace(&argument.value) {
                        self.doubled("the blueprint", argument.value.span, first.span);
                        sound = false;
                    }
                }
            }
        }
        if file.is_none() {
            self.error(Finding::new(Code::Shape, word.span, "`from` does not say which blueprint").help(HELP));
        }
        Some((file.filter(|_| sound)?, given))
    }

    fn blueprint_path(&mut self, written: &Name) -> Option<String> {
        if written.kind.contains("://") {
            let finding = Finding::new(Code::PathOutside, written.span, "a blueprint is a file of the repository");
            self.error(finding.help("copy it into the repository, and name its path"));
            return None;
        }
        let path = self.path_of(&written.kind, written.span)?;
        let whole = path.ends_with(ENDING) || path.ends_with(PIPELINE_ENDING) || path.rsplit('/').next() == Some("Ottofile");
        Some(if whole { path } else { path + ENDING })
    }

    /// The stages of the blueprint that is being read, called from elsewhere.
    fn blueprint_nodes(&mut self, call: BlueprintCall) -> Option<Vec<Node>> {
        let tree = Rc::clone(&self.source.tree);
        let top = self.top_level(&tree.items);
        let Some(blueprint) = top.blueprint else {
            let finding = if top.pipeline.is_some() {
                let message = format!("{} holds a pipeline and no blueprint", quoted(&call.path));
                Finding::new(Code::WrongFile, call.span, message).help("a blueprint begins with `blueprint { plan { … } }`")
            } else {
                Finding::new(Code::WrongFile, call.span, format!("{} holds no blueprint", quoted(&call.path))).help(FORM)
            };
            self.error_in(call.file, finding);
            return None;
        };
        self.only_blueprint(&top);
        self.blueprint_body(blueprint, |this, parameters| {
            let BlueprintCall { given: values, file, span: call, path } = call;
            this.bind_parameters(parameters, Given { values, file, call, taker: format!("the blueprint {}", quoted(&path)) })
        })
    }

    /// Refuses what belongs into a pipeline's file.
    fn only_blueprint(&mut self, top: &Top<'_>) {
        let blocks = [top.configure, top.parameters, top.triggers, top.environments, top.credentials, top.pipeline];
        for entry in blocks.into_iter().flatten() {
            let name = &entry.name;
            let help = match name.kind.as_str() {
                "parameters" | "vars" => "write it into `blueprint { parameters { … } plan { … } }`",
                "pipeline" => "a pipeline takes its stages with `from`, from a file of its own",
                _ => "it stands in the pipeline's file; a blueprint takes parameters",
            };
            let message = format!("{} cannot stand in a blueprint's file", quoted(&name.kind));
            self.error(Finding::new(Code::WrongFile, name.span, message).help(help));
        }
    }

    /// The stages of `blueprint { parameters { … } plan { … } }`; `bind` gives the parameters their values.
    fn blueprint_body(&mut self, blueprint: &Entry, bind: impl FnOnce(&mut Self, Option<&Entry>) -> Option<Scope>) -> Option<Vec<Node>> {
        let block = self.block(blueprint)?;
        let mut parts: BTreeMap<&'static str, &Entry> = BTreeMap::new();
        for item in &block.kind {
            let ItemKind::Entry(entry) = &item.kind else {
                self.error(Finding::new(Code::Shape, item.span, "a value alone means nothing in `blueprint`").help(FORM));
                continue;
            };
            let part = match entry.name.kind.as_str() {
                "parameters" | "vars" => "parameters",
                "plan" | "stages" => "plan",
                other => {
                    let help = if Place::Pipeline.words().any(|word| word == other) {
                        format!("it stands in the blueprint's plan: `plan {{ {other} … }}`")
                    } else {
                        did_you_mean(other, ["parameters", "plan"])
                    };
                    let message = format!("{} means nothing in `blueprint`", quoted(other));
                    self.error(Finding::new(Code::UnknownName, entry.name.span, message).help(help));
                    continue;
                }
            };
            if let Some(first) = parts.get(part).map(|first| first.name.span) {
                self.doubled(&quoted(&entry.name.kind), entry.name.span, first);
                continue;
            }
            parts.insert(part, entry);
        }
        let scope = bind(self, parts.get("parameters").copied())?;
        let Some(plan) = parts.get("plan") else {
            if !self.is_left_out(block) {
                self.error(Finding::new(Code::Shape, blueprint.name.span, "this blueprint has no `plan`").help(FORM));
            }
            return None;
        };
        let plan = self.block(plan)?;
        Some(self.with_scope(scope, |this| {
            let body = this.body(&plan.kind, Place::Stages);
            this.children(&body.children)
        }))
    }

    /// The parameters of a blueprint that is checked by itself. A default that stands in the file as a text did not come from outside.
    fn bound_alone(&mut self, parameters: Option<&Entry>) -> Option<Scope> {
        self.context_parameters(parameters);
        if !self.scope.wrong.is_empty() {
            return Some(self.scope.clone());
        }
        let span = parameters.map_or(Span::default(), |entry| entry.name.span);
        let given = &self.input.context.parameters;
        let values = self.scope.parameters.iter().filter(|(name, _)| given.contains_key(*name));
        let values = values.map(|(name, known)| (Name { kind: name.clone(), span }, known.clone())).collect();
        self.bind_parameters(parameters, Given { values, file: self.source.id, call: span, taker: "the blueprint".to_owned() })
    }

    /// A blueprint that is the file to be planned: with the parameters of the context, and its defaults.
    pub(super) fn blueprint_alone(&mut self, top: &Top<'_>, blueprint: &Entry) -> Option<Pipeline> {
        self.only_blueprint(top);
        self.scope_of_steps();
        let nodes = self.blueprint_body(blueprint, Self::bound_alone)?;
        Some(Pipeline { settings: Settings::default(), nodes, mentions: Vec::new(), notified: Vec::new(), newer: None, auto: false })
    }
}
