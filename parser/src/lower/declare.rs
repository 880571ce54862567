//! What a pipeline declares: stages, groups, and blocks of branches, with the settings that are written at each.

use std::collections::BTreeMap;

use model::{
    diagnostic::Span,
    plan::{Newer, Step, Wait},
    planning::LeftOut,
};

use super::{
    Lowering,
    each::mentions_it,
    mention::{Mention, Mentioned},
    setting::Settings,
    word::{self, Place},
};
use crate::{
    diagnostic::{Code, FileId, Finding, excerpt, quoted},
    limits::STAGES_MAX,
    syntax::{Block, Call, Entry, Item, ItemKind, Name, Tail, Value, ValueKind},
};

/// What stands in a pipeline or a group, in order.
#[derive(Debug)]
pub(super) enum Node {
    Stage(Box<Stage>),
    /// One after the other: a branch of several stages, or those of a blueprint.
    Sequence(Vec<Node>),
    /// Branches that run at once, each to its end.
    Parallel(Vec<Node>),
    /// Branches that run at once until one fails.
    Fanout(Vec<Node>),
}

/// A stage, a group of them, or something else that becomes a stage of the plan.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) label: Label,
    /// Where a message about it points.
    pub(super) file: FileId,
    pub(super) span: Span,
    /// Where its word stands.
    pub(super) declared: Span,
    pub(super) settings: Settings,
    /// What its `needs` name.
    pub(super) needs: Vec<Name>,
    /// What its settings and steps name; what stands in a group's stages is not among the group's.
    pub(super) mentions: Vec<Mention>,
    pub(super) content: Content,
    /// What undoes it.
    pub(super) rollbacks: Vec<Stage>,
}

/// The name of a stage.
#[derive(Debug)]
pub(super) enum Label {
    Named(String),
    /// The word stands for it, with a number from the second in its group on.
    Unnamed {
        word: &'static str,
        /// What tells it from the other branches of an `each`.
        suffix: String,
    },
}

#[derive(Debug)]
pub(super) enum Content {
    Steps(Vec<Step>),
    Group(Vec<Node>),
    Wait(Wait),
    Rollback(Vec<Step>),
}

/// A whole pipeline.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) settings: Settings,
    pub(super) nodes: Vec<Node>,
    /// What its own settings name, for all its stages.
    pub(super) mentions: Vec<Mention>,
    /// What the steps of its `notify` name.
    pub(super) notified: Vec<Mention>,
    pub(super) newer: Option<Newer>,
    /// `order = auto`.
    pub(super) auto: bool,
}

/// What was found in a body.
#[derive(Default)]
pub(super) struct Body<'t> {
    pub(super) name: Option<Spelled>,
    pub(super) settings: Settings,
    pub(super) children: Vec<Child<'t>>,
    /// Where each setting stands.
    pub(super) seen: BTreeMap<&'static str, Span>,
    needs: Vec<Name>,
    notified: Vec<Mention>,
    newer: Option<Newer>,
    auto: bool,
}

/// A name as a body or an argument gives it.
pub(super) struct Spelled {
    pub(super) name: Name,
    /// Whether `it` stands in it.
    pub(super) of_it: bool,
}

/// Something that makes stages.
#[derive(Clone, Copy)]
pub(super) struct Child<'t> {
    /// One of the words of its place.
    verb: &'static str,
    pub(super) entry: &'t Entry,
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
    pub(super) fn pipeline(&mut self, block: &Block) -> Pipeline {
        let body = self.body(&block.kind, Place::Pipeline);
        let mentions = std::mem::take(&mut self.mentions);
        let nodes = self.children(&body.children);
        let Body { settings, notified, newer, auto, .. } = body;
        Pipeline { settings, nodes, mentions, notified, newer, auto }
    }

    pub(super) fn children(&mut self, children: &[Child<'_>]) -> Vec<Node> {
        children.iter().filter_map(|child| self.child(*child)).collect()
    }

    fn child(&mut self, child: Child<'_>) -> Option<Node> {
        let Child { verb, entry } = child;
        let left_out = self.notes.left_out.len();
        let node = self.node_of(verb, entry);
        // What is neither there nor left out by a condition is wrong, or waits for a file.
        self.incomplete |= node.is_none() && self.notes.left_out.len() == left_out;
        node
    }

    fn node_of(&mut self, verb: &'static str, entry: &Entry) -> Option<Node> {
        match verb {
            "steps" => self.orphan(entry).map(|stage| Node::Stage(Box::new(stage))),
            "stage" => self.stage(entry).map(|stage| Node::Stage(Box::new(stage))),
            "parallel" => self.at_once(entry, Place::Parallel).map(Node::Parallel),
            "fanout" => self.at_once(entry, Place::Fanout).map(Node::Fanout),
            "each" => self.each(entry),
            "from" => self.blueprint(entry),
            "rollback" => self.rollback(entry).map(|stage| Node::Stage(Box::new(stage))),
            verb => self.waiting(verb, entry).map(|stage| Node::Stage(Box::new(stage))),
        }
    }

    fn at_once(&mut self, entry: &Entry, place: Place) -> Option<Vec<Node>> {
        let block = self.block(entry)?;
        let body = self.body(&block.kind, place);
        if block.kind.is_empty() && !self.is_left_out(block) {
            let message = format!("this {} has no stage, so it does nothing", quoted(&entry.name.kind));
            let finding = Finding::new(Code::NothingToDo, entry.name.span, message);
            self.error(finding.help("leave it out, or write its branches: `stage 'Unit' { … }`"));
        }
        Some(self.children(&body.children))
    }

    /// Steps without a stage.
    fn orphan(&mut self, entry: &Entry) -> Option<Stage> {
        let outer = std::mem::take(&mut self.mentions);
        let steps = self.steps_of(entry);
        let mentions = std::mem::replace(&mut self.mentions, outer);
        let stage = self.unnamed("steps", entry.name.span, Content::Steps(steps));
        self.counted(entry.name.span).then_some(Stage { mentions, ..stage })
    }

    /// A stage that a word stands for.
    pub(super) fn unnamed(&self, word: &'static str, span: Span, content: Content) -> Stage {
        Stage {
            label: Label::Unnamed { word, suffix: self.suffix(0) },
            file: self.source.id,
            span,
            declared: span,
            settings: Settings::default(),
            needs: Vec::new(),
            mentions: Vec::new(),
            content,
            rollbacks: Vec::new(),
        }
    }

    fn stage(&mut self, entry: &Entry) -> Option<Stage> {
        let Tail::Call(Call { arguments, block: Some(block) }) = &entry.tail else {
            let finding = Finding::new(Code::Shape, entry.name.span, "a stage needs a block").label("begins here");
            self.error(finding.help("write `stage 'Build' { steps { sh 'make' } }`"));
            return None;
        };
        let outer = std::mem::take(&mut self.mentions);
        let mut body = self.body(&block.kind, Place::Stage);
        for (place, argument) in arguments.iter().enumerate() {
            if argument.keyword.is_some() || place > 0 {
                let finding = Finding::new(Code::Shape, argument.value.span, "a stage takes one argument, its name in quotes");
                self.error(finding.help("write `stage 'Build' { … }`"));
            } else if let Some(first) = body.seen.get("name") {
                self.doubled("the name of the stage", *first, argument.value.span);
            } else {
                body.name = self.name_given(&argument.value);
            }
            body.seen.insert("name", argument.value.span);
        }
        if !body.seen.contains_key("name") && !self.is_left_out(block) {
            self.incomplete = true;
            let finding = Finding::new(Code::StageWithoutName, entry.name.span, "this stage has no name");
            self.error(finding.help("write `stage 'Build' { … }` or `stage { name = 'Build' … }`"));
        }
        let stage = self.named_stage(body, entry.name.span);
        self.mentions = outer;
        stage
    }

    /// The stage of a body; `None` if a condition about `it` leaves it out, or there are too many.
    fn named_stage(&mut self, mut body: Body<'_>, word: Span) -> Option<Stage> {
        let span = body.name.as_ref().map_or(word, |spelled| spelled.name.span);
        let label = self.label(body.name.take(), "stage");
        let text = match &label {
            Label::Named(name) => name.clone(),
            Label::Unnamed { word, suffix } => format!("{word}{suffix}"),
        };
        if let Some(skip) = body.settings.gates.left_out.take() {
            let path = self.path_here(&text);
            self.left_out(LeftOut { path, condition: skip.condition }, span);
            return None;
        }
        body.settings.gates.read();
        // What stands in a group is told apart by the group's name.
        let suffixes = std::mem::take(&mut self.suffixes);
        self.groups.push(text);
        let content = self.content(&body.children, span);
        self.groups.pop();
        self.suffixes = suffixes;
        let (content, rollbacks) = content?;
        let mut mentions = std::mem::take(&mut self.mentions);
        let (credentials, others): (Vec<Mention>, Vec<Mention>) =
            body.notified.into_iter().partition(|mention| mention.kind == Mentioned::CredentialUsed);
        mentions.extend(credentials);
        self.notified.extend(others);
        Some(Stage {
            label,
            file: self.source.id,
            span,
            declared: word,
            settings: body.settings,
            needs: body.needs,
            mentions,
            content,
            rollbacks,
        })
    }

    /// The name with what tells it from other branches of an `each`; without one, the word.
    pub(super) fn label(&mut self, spelled: Option<Spelled>, word: &'static str) -> Label {
        let Some(Spelled { name, of_it }) = spelled else { return Label::Unnamed { word, suffix: self.suffix(0) } };
        let full = format!("{}{}", name.kind, self.suffix(usize::from(of_it)));
        if let Some(name) = self.stage_name(Name { kind: full, span: name.span }) {
            return Label::Named(name.kind);
        }
        self.incomplete = true;
        Label::Unnamed { word, suffix: String::new() }
    }

    /// Notes what is left out; their paths can be many and long.
    pub(super) fn left_out(&mut self, left_out: LeftOut, span: Span) {
        if self.expanded(left_out.path.len() + left_out.condition.len(), span) {
            self.notes.left_out.push(left_out);
        }
    }

    /// The path of something here that is left out.
    pub(super) fn path_here(&self, name: &str) -> String {
        self.groups.iter().map(String::as_str).chain([name]).collect::<Vec<_>>().join("/")
    }

    /// A name, which must be known while planning.
    pub(super) fn name_given(&mut self, value: &Value) -> Option<Spelled> {
        let of_it = mentions_it(value);
        let name = self.text(value, "the name of a stage");
        self.incomplete |= name.is_none();
        name.map(|name| Spelled { name, of_it })
    }

    /// Steps alone make a stage; a stage inside makes it a group, in which steps beside it are a stage without a name.
    fn content(&mut self, children: &[Child<'_>], span: Span) -> Option<(Content, Vec<Stage>)> {
        if children.iter().any(|child| !["steps", "rollback"].contains(&child.verb)) {
            return Some((Content::Group(self.children(children)), Vec::new()));
        }
        let (steps, rollbacks): (Vec<Child<'_>>, Vec<Child<'_>>) = children.iter().partition(|child| child.verb == "steps");
        if let [first, second, ..] = steps.as_slice() {
            self.doubled("`steps`", second.entry.name.span, first.entry.name.span);
            return None;
        }
        let steps = steps.first().map(|child| self.steps_of(child.entry)).unwrap_or_default();
        if !self.counted(span) {
            return None;
        }
        let rollbacks = rollbacks.iter().filter_map(|child| self.rollback(child.entry)).collect();
        Some((Content::Steps(steps), rollbacks))
    }

    /// Counts one more stage of the plan. `false` if there are too many; the first of those too many is told.
    pub(super) fn counted(&mut self, span: Span) -> bool {
        self.stages += 1;
        if self.stages == STAGES_MAX + 1 {
            self.error(Finding::new(Code::TooManyStages, span, format!("a plan has at most {STAGES_MAX} stages")).label("one too many"));
        }
        self.stages <= STAGES_MAX
    }

    pub(super) fn body<'t>(&mut self, items: &'t [Item], place: Place) -> Body<'t> {
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
        let Some(word) = place.words().find(|word| *word == name) else {
            return self.unknown_in_body(entry, place);
        };
        match word {
            "stages" => {
                if let Some(block) = self.block(entry) {
                    let inside = if matches!(place, Place::Parallel | Place::Fanout) { place } else { Place::Stages };
                    body.children.extend(self.body(&block.kind, inside).children);
                }
            }
            verb if Place::Stages.words().any(|word| word == verb) => body.children.push(Child { verb, entry }),
            setting => {
                // `when` is the older spelling of conditions of `gates`: both may stand in one stage.
                if let Some(first) = body.seen.get(setting).copied() {
                    return self.doubled(&quoted(setting), entry.name.span, first);
                }
                body.seen.insert(setting, entry.name.span);
                self.body_setting(setting, entry, body);
            }
        }
    }

    fn body_setting(&mut self, setting: &'static str, entry: &Entry, body: &mut Body<'_>) {
        match setting {
            "name" => {
                if let Some(value) = self.value_of(entry) {
                    body.name = self.name_given(value);
                }
            }
            "needs" => body.needs = self.needs(entry),
            "order" => body.auto = self.word(entry, &["auto"]).is_some(),
            "newer" => {
                body.newer = self.word(entry, &["cancel", "wait"]).map(|word| if word == "wait" { Newer::Wait } else { Newer::Cancel });
            }
            "notify" => {
                let outer = std::mem::take(&mut self.mentions);
                body.settings.notify = self.notify(entry);
                body.notified = std::mem::replace(&mut self.mentions, outer);
            }
            setting => self.setting(setting, entry, &mut body.settings),
        }
    }

    /// `key = word`, one of these.
    fn word(&mut self, entry: &Entry, words: &'static [&'static str]) -> Option<&'static str> {
        let value = self.value_of(entry)?;
        let written = if let ValueKind::Name(word) = &value.kind { word.as_str() } else { "" };
        if let Some(word) = words.iter().find(|word| **word == written) {
            return Some(word);
        }
        let choice = words.iter().map(|word| format!("`{} = {word}`", entry.name.kind)).collect::<Vec<_>>().join(" or ");
        let help = format!("write {choice}, or leave it out");
        self.wrong_value(value, format!("{} is a word without quotes", quoted(&entry.name.kind)), help)
    }

    /// `needs = ['Build', 'Deploy/Production']`.
    fn needs(&mut self, entry: &Entry) -> Vec<Name> {
        self.value_of(entry).and_then(|value| self.texts(value, "a stage in `needs`")).unwrap_or_default()
    }

    fn unknown_in_body(&mut self, entry: &Entry, place: Place) {
        let (name, span) = (entry.name.kind.as_str(), entry.name.span);
        let at_once = matches!(place, Place::Parallel | Place::Fanout);
        let is_setting = Place::Stage.words().chain(Place::Pipeline.words()).any(|word| word == name);
        let help = match name {
            "steps" | "parallel" | "fanout" | "confirm" | "prompt" | "wait" | "pause" | "rollback" if at_once => {
                "a branch is a stage: write `stage 'Unit' { … }` around it".to_owned()
            }
            "pipeline" | "use" | "configure" | "parameters" | "triggers" | "environments" | "blueprint" | "vars" => {
                "it stands at the top level of the file".to_owned()
            }
            "environment" if matches!(&entry.tail, Tail::Call(Call { block: Some(_), .. })) => "variables stand in `env { … }`".to_owned(),
            "newer" | "order" => "it stands in `pipeline`, for the whole of it".to_owned(),
            "credentials" if place == Place::Pipeline => {
                "credentials are declared at the top level of the file; a stage lists those that its steps may use".to_owned()
            }
            _ if is_setting && place == Place::Pipeline => "it stands in a stage".to_owned(),
            _ if is_setting => "it stands in a stage or in the pipeline".to_owned(),
            _ if self.scope_of_steps().get(name).is_some() => format!("steps stand in a block of their own: `steps {{ {name} … }}`"),
            _ => word::foreign_help(name).map_or_else(|| self.did_you_mean(name, place.words()), str::to_owned),
        };
        self.error(Finding::new(Code::UnknownName, span, format!("{} means nothing {}", quoted(name), place.within())).help(help));
    }
}
