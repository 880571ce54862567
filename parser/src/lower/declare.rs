//! What a pipeline declares: stages, groups and blocks of parallel branches, with the settings that are written at each.

use std::collections::BTreeMap;

use model::{diagnostic::Span, plan::Step};

use super::{
    Lowering,
    setting::Settings,
    word::{BODY_TO_COME, Place},
};
use crate::{
    diagnostic::{Code, Finding, excerpt, quoted},
    limits::STAGES_MAX,
    suggest::did_you_mean,
    syntax::{Block, Call, Entry, Item, ItemKind, Name, Tail, ValueKind},
};

/// What stands in a pipeline or a group, in order.
#[derive(Debug)]
pub(super) enum Node {
    Stage(Box<Stage>),
    /// Branches that run at once.
    Parallel(Vec<Node>),
}

/// A stage, a group of them, or steps without a stage.
#[derive(Debug)]
pub(super) struct Stage {
    /// Steps without a stage have none.
    pub(super) name: Option<Name>,
    /// Where a message about it points.
    pub(super) span: Span,
    pub(super) settings: Settings,
    pub(super) content: Content,
}

#[derive(Debug)]
pub(super) enum Content {
    Steps(Vec<Step>),
    Group(Vec<Node>),
}

/// What was found in a body.
#[derive(Default)]
struct Body<'t> {
    name: Option<Name>,
    settings: Settings,
    children: Vec<Child<'t>>,
    /// Where each setting stands.
    seen: BTreeMap<&'static str, Span>,
}

#[derive(Clone, Copy)]
enum Child<'t> {
    Steps(&'t Entry),
    Stage(&'t Entry),
    Parallel(&'t Entry),
}

/// The `Build` of `stage Build { … }`, which reads as two entries.
fn unquoted_name<'t>(item: &Item, next: &'t Item) -> Option<&'t Name> {
    match (&item.kind, &next.kind) {
        (
            ItemKind::Entry(Entry { name: stage, tail: Tail::Call(Call { arguments, block: None }) }),
            ItemKind::Entry(Entry { name, tail: Tail::Call(Call { block: Some(_), .. }) }),
        ) if stage.kind == "stage" && arguments.is_empty() => Some(name),
        _ => None,
    }
}

impl Lowering<'_, '_> {
    /// The pipeline's own settings, and what stands in it.
    pub(super) fn pipeline(&mut self, block: &Block) -> (Settings, Vec<Node>) {
        let body = self.body(&block.kind, Place::Pipeline);
        let nodes = self.children(&body.children);
        (body.settings, nodes)
    }

    fn children(&mut self, children: &[Child<'_>]) -> Vec<Node> {
        children.iter().filter_map(|child| self.child(*child)).collect()
    }

    fn child(&mut self, child: Child<'_>) -> Option<Node> {
        match child {
            Child::Steps(entry) => {
                let content = Content::Steps(self.steps_of(entry));
                let stage = Stage { name: None, span: entry.name.span, settings: Settings::default(), content };
                self.counted(stage.span).then(|| Node::Stage(Box::new(stage)))
            }
            Child::Stage(entry) => self.stage(entry).map(|stage| Node::Stage(Box::new(stage))),
            Child::Parallel(entry) => {
                let block = self.block(entry)?;
                let body = self.body(&block.kind, Place::Parallel);
                if block.kind.is_empty() && !self.is_left_out(block) {
                    let finding = Finding::new(Code::NothingToDo, entry.name.span, "this `parallel` has no stage, so it does nothing");
                    self.error(finding.help("leave it out, or write its branches: `stage 'Unit' { … }`"));
                }
                Some(Node::Parallel(self.children(&body.children)))
            }
        }
    }

    fn stage(&mut self, entry: &Entry) -> Option<Stage> {
        let Tail::Call(Call { arguments, block: Some(block) }) = &entry.tail else {
            let finding = Finding::new(Code::Shape, entry.name.span, "a stage needs a block").label("begins here");
            self.error(finding.help("write `stage 'Build' { steps { sh 'make' } }`"));
            return None;
        };
        let mut body = self.body(&block.kind, Place::Stage);
        for (place, argument) in arguments.iter().enumerate() {
            match (&argument.keyword, &argument.value.kind) {
                (None, ValueKind::Text(name)) if place == 0 => {
                    let name = Name { kind: name.clone(), span: argument.value.span };
                    if let Some(first) = body.seen.get("name") {
                        self.doubled("the name of the stage", *first, name.span);
                    }
                    body.name = self.stage_name(name);
                    body.seen.insert("name", argument.value.span);
                }
                _ => {
                    let finding = Finding::new(Code::Shape, argument.value.span, "a stage takes one argument, its name in quotes");
                    self.error(finding.help("write `stage 'Build' { … }`"));
                    body.seen.insert("name", argument.value.span);
                }
            }
        }
        if !body.seen.contains_key("name") && !self.is_left_out(block) {
            let finding = Finding::new(Code::StageWithoutName, entry.name.span, "this stage has no name");
            self.error(finding.help("write `stage 'Build' { … }` or `stage { name = 'Build' … }`"));
        }
        let span = body.name.as_ref().map_or(entry.name.span, |name| name.span);
        let content = self.content(&body.children, span)?;
        Some(Stage { name: body.name, span, settings: body.settings, content })
    }

    /// Steps alone make a stage; a stage inside makes it a group, in which steps beside it are a stage without a name.
    fn content(&mut self, children: &[Child<'_>], span: Span) -> Option<Content> {
        let mut steps = children.iter().map(|child| match child {
            Child::Steps(entry) => Some(*entry),
            Child::Stage(_) | Child::Parallel(_) => None,
        });
        match (steps.next(), steps.next()) {
            (None, _) => self.counted(span).then(|| Content::Steps(Vec::new())),
            (Some(Some(entry)), None) => {
                let steps = self.steps_of(entry);
                self.counted(span).then_some(Content::Steps(steps))
            }
            (Some(Some(first)), Some(Some(second))) if steps.all(|step| step.is_some()) => {
                self.doubled("`steps`", second.name.span, first.name.span);
                None
            }
            _ => Some(Content::Group(self.children(children))),
        }
    }

    /// Counts one more stage of the plan. `false` if there are too many; the first of those too many is told.
    fn counted(&mut self, span: Span) -> bool {
        self.stages += 1;
        if self.stages == STAGES_MAX + 1 {
            self.error(Finding::new(Code::TooManyStages, span, format!("a plan has at most {STAGES_MAX} stages")).label("one too many"));
        }
        self.stages <= STAGES_MAX
    }

    fn body<'t>(&mut self, items: &'t [Item], place: Place) -> Body<'t> {
        let mut body = Body::default();
        let mut items = items.iter().peekable();
        while let Some(item) = items.next() {
            if let Some(name) = items.peek().and_then(|next| unquoted_name(item, next)) {
                let finding = Finding::new(Code::StageName, name.span, "the name of a stage stands in quotes");
                self.error(finding.help(format!("write `stage '{}' {{ … }}`", excerpt(&name.kind))));
                items.next();
                continue;
            }
            match &item.kind {
                ItemKind::Entry(entry) => self.body_entry(entry, place, &mut body),
                ItemKind::Value(_) | ItemKind::Condition(_) => {
                    let message = format!("a value alone means nothing {}", place.within());
                    self.error(Finding::new(Code::Shape, item.span, message).help("a setting is written `name = value`"));
                }
            }
        }
        body
    }

    fn body_entry<'t>(&mut self, entry: &'t Entry, place: Place, body: &mut Body<'t>) {
        let name = entry.name.kind.as_str();
        let Some(word) = place.words().iter().find(|word| **word == name) else {
            return self.unknown_in_body(entry, place);
        };
        match *word {
            "steps" => body.children.push(Child::Steps(entry)),
            "stage" => body.children.push(Child::Stage(entry)),
            "parallel" => body.children.push(Child::Parallel(entry)),
            "stages" => {
                if let Some(block) = self.block(entry) {
                    let inside = if place == Place::Parallel { Place::Parallel } else { Place::Stages };
                    body.children.extend(self.body(&block.kind, inside).children);
                }
            }
            setting => {
                if let Some(first) = body.seen.get(setting).copied() {
                    return self.doubled(&quoted(setting), entry.name.span, first);
                }
                body.seen.insert(setting, entry.name.span);
                match setting {
                    "name" => body.name = self.name_setting(entry),
                    setting => self.setting(setting, entry, &mut body.settings),
                }
            }
        }
    }

    fn unknown_in_body(&mut self, entry: &Entry, place: Place) {
        let (name, span) = (entry.name.kind.as_str(), entry.name.span);
        if BODY_TO_COME.contains(&name) {
            return self.not_yet(&quoted(name), span);
        }
        let help = match (place, name) {
            (Place::Parallel, "steps" | "parallel") => "a branch is a stage: write `stage 'Unit' { … }` around it".to_owned(),
            (Place::Parallel | Place::Stages, "env" | "timeout" | "effect") => "it stands in a stage or in the pipeline".to_owned(),
            (_, "pipeline" | "use") => "it stands at the top level of the file".to_owned(),
            _ if self.scope_of_steps().get(name).is_some() => format!("steps stand in a block of their own: `steps {{ {name} … }}`"),
            _ => match did_you_mean(name, place.words().iter().chain(&BODY_TO_COME).copied()) {
                near if near.is_empty() => did_you_mean(name, place.words().iter().copied()),
                near => near,
            },
        };
        self.error(Finding::new(Code::UnknownName, span, format!("{} means nothing {}", quoted(name), place.within())).help(help));
    }
}
