//! Lays the stages out in the order in which they are written, with their paths, settings, and the edges of that order.

use std::{collections::BTreeMap, rc::Rc};

use model::{
    diagnostic::Span,
    plan::{Effect, NeedReason, Notify, Stage, StageKind, Step, Wait},
};

use super::{Edge, Laid, Reference, Wiring, name::Names, size};
use crate::{
    diagnostic::{Code, FileId, Finding, excerpt, quoted},
    limits::{PLAN_BYTES_MAX, STAGES_MAX, json_bytes},
    lower::{
        declare::{self, Content, Node},
        mention::{Mention, Mentioned},
        setting::{Inherited, Settings},
    },
};

/// Bytes of a stage in the plan besides its path, environment, steps and needs, rounded up.
const STAGE_BYTES: usize = 256;
/// Bytes of an edge in the plan, rounded up.
const NEED_BYTES: usize = 64;

/// What helps where one place of a file gives two stages one name.
const TWICE: &str = "in `each`, use every value in the name, `concat('Test ', it.os, ' ', it.jdk)`, or none\n\
                     around a blueprint that is used twice, write a stage: `stage 'First' { from … }`";

/// Where a stage stands.
#[derive(Clone, Copy)]
struct Around<'s> {
    outer: Option<&'s Around<'s>>,
    settings: Inherited<'s>,
    /// What the settings of this group name.
    mentions: &'s Rc<[Mention]>,
    /// The path of the group and a `/`; empty for the pipeline.
    prefix: &'s Rc<str>,
    /// Two groups have this name, which is told already: what follows from it is not.
    doubled: bool,
}

impl Around<'_> {
    /// From here to the pipeline.
    fn outwards(&self) -> impl Iterator<Item = &Around<'_>> {
        std::iter::successors(Some(self), |around| around.outer)
    }

    /// What the settings of all groups around name.
    fn mentions(&self) -> Vec<Rc<[Mention]>> {
        self.outwards().filter(|around| !around.mentions.is_empty()).map(|around| Rc::clone(around.mentions)).collect()
    }
}

/// What comes before something.
#[derive(Clone)]
struct Before {
    /// The stages that all must end first.
    ends: Rc<[usize]>,
    /// What the `needs` of groups that begin here name.
    needs: Rc<[Reference]>,
}

impl Before {
    fn of(ends: Vec<usize>) -> Self {
        Self { ends: ends.into(), needs: Rc::from([]) }
    }
}

/// What becomes one stage of the plan.
struct Leaf {
    path: String,
    name: String,
    file: FileId,
    span: Span,
    kind: StageKind,
    steps: Vec<Step>,
    /// The path is another stage's, which is told already.
    doubled: bool,
}

/// What stands where the others of its group wait for it, or it for them, also without an order.
enum Keeps {
    Nothing,
    /// All before it come first, and all after it wait for it.
    Place,
    /// All before it come first.
    End,
}

fn keeps(node: &Node) -> Keeps {
    match node {
        Node::Stage(stage) => match stage.content {
            Content::Wait(_) => Keeps::Place,
            Content::Rollback(_) => Keeps::End,
            Content::Steps(_) | Content::Group(_) => Keeps::Nothing,
        },
        Node::Sequence(_) | Node::Parallel(_) | Node::Fanout(_) => Keeps::Nothing,
    }
}

impl Wiring<'_, '_, '_> {
    pub(super) fn lay(&mut self, nodes: Vec<Node>, settings: &Settings, mentions: Vec<Mention>) -> Option<()> {
        let (mentions, prefix) = (Rc::from(mentions), Rc::from(""));
        let around = Around { outer: None, settings: Inherited::pipeline(settings), mentions: &mentions, prefix: &prefix, doubled: false };
        let mut names = Names::default();
        self.names(&nodes, &mut names);
        self.sequence(nodes, &around, &mut names, &Before::of(Vec::new())).map(|_| ())
    }

    /// Collects the names that are written, and refuses those that are written twice.
    fn names(&mut self, nodes: &[Node], names: &mut Names) {
        for node in nodes {
            let stage = match node {
                Node::Sequence(inner) | Node::Parallel(inner) | Node::Fanout(inner) => {
                    self.names(inner, names);
                    continue;
                }
                Node::Stage(stage) => stage,
            };
            let declare::Label::Named(name) = &stage.label else { continue };
            let Some((file, span)) = names.taken.get(name).copied() else {
                names.taken.insert(name.clone(), (stage.file, stage.span));
                continue;
            };
            let message = format!("two stages of this group are named {}", quoted(name));
            let finding = Finding::new(Code::StageTwice, stage.span, message);
            let finding = if (file, span) == (stage.file, stage.span) {
                finding.label("it comes here twice").help(TWICE)
            } else {
                let line = self.line_from(stage.file, file, span);
                finding.label("again here").help(format!("the other one stands in {line}; a name is unique within its group"))
            };
            self.lowering.error_in(stage.file, finding);
        }
    }

    fn sequence(&mut self, nodes: Vec<Node>, around: &Around<'_>, names: &mut Names, before: &Before) -> Option<Before> {
        let mut before = before.clone();
        if !self.auto {
            for node in nodes {
                before = self.node(node, around, names, &before)?;
            }
            return Some(before);
        }
        // What ends since the last wait; it waits for nothing of what is written before it.
        let mut loose: Vec<usize> = Vec::new();
        for node in nodes {
            let keeps = keeps(&node);
            if let Keeps::Nothing = keeps {
                let after = self.node(node, around, names, &before)?;
                loose.extend(after.ends.iter());
                continue;
            }
            loose.sort_unstable();
            loose.dedup();
            let ends = if loose.is_empty() { Rc::clone(&before.ends) } else { Rc::from(loose.as_slice()) };
            let all = Before { ends, needs: Rc::clone(&before.needs) };
            let after = self.node(node, around, names, &all)?;
            if let Keeps::Place = keeps {
                before = after;
                loose.clear();
            }
        }
        Some(if loose.is_empty() { before } else { Before::of(loose) })
    }

    fn branches(&mut self, branches: Vec<Node>, around: &Around<'_>, names: &mut Names, before: &Before) -> Option<Before> {
        let mut ends = Vec::new();
        for branch in branches {
            let after = self.node(branch, around, names, before)?;
            // A branch without a stage ends where it begins; that the others begin there, too, says enough.
            if !Rc::ptr_eq(&after.ends, &before.ends) {
                ends.extend_from_slice(&after.ends);
            }
        }
        Some(if ends.is_empty() { before.clone() } else { Before::of(ends) })
    }

    fn node(&mut self, node: Node, around: &Around<'_>, names: &mut Names, before: &Before) -> Option<Before> {
        match node {
            Node::Parallel(branches) => self.branches(branches, around, names, before),
            Node::Fanout(branches) => {
                let id = format!("{}{}", around.prefix, names.of_fanout());
                self.fanouts.push(id);
                let after = self.branches(branches, around, names, before);
                self.fanouts.pop();
                after
            }
            Node::Sequence(nodes) => {
                self.enter();
                let after = self.sequence(nodes, around, names, before);
                self.within.pop();
                after
            }
            Node::Stage(stage) => self.stage(*stage, around, names, before),
        }
    }

    /// Begins a unit in which what is made there is preferred.
    fn enter(&mut self) {
        self.units += 1;
        self.within.push(self.units);
    }

    fn stage(&mut self, stage: declare::Stage, around: &Around<'_>, names: &mut Names, before: &Before) -> Option<Before> {
        let declare::Stage { label, file, span, declared, settings, needs, mentions, content, rollbacks } = stage;
        let name = names.of(&label);
        let doubled = around.doubled || !names.placed.insert(name.clone());
        let path = format!("{}{name}", around.prefix);
        self.counted_references(before.needs.len() + needs.len(), file, span)?;
        let own = needs.into_iter().map(|name| Reference { name, file, prefix: Rc::clone(around.prefix) });
        let before = Before { ends: Rc::clone(&before.ends), needs: before.needs.iter().cloned().chain(own).collect::<Vec<_>>().into() };
        let (mentions, prefix) = (Rc::from(mentions), Rc::from(format!("{path}/")));
        let inside =
            Around { outer: Some(around), settings: around.settings.inside(&settings), mentions: &mentions, prefix: &prefix, doubled };
        let leaf = |kind, steps| Leaf { path: path.clone(), name: name.clone(), file, span, kind, steps, doubled };
        match content {
            Content::Group(nodes) => {
                let after = self.group(nodes, &settings, &inside, &before, (file, span))?;
                self.groups.add(&path, &name, &after.ends);
                self.groups.declare(file, declared, &after.ends);
                Some(after)
            }
            Content::Wait(wait) => self.leaf(leaf(StageKind::Wait(wait), Vec::new()), &inside, &before).map(one),
            Content::Rollback(steps) => {
                self.leaf(leaf(StageKind::Rollback, steps), &inside, &before)?;
                Some(before)
            }
            Content::Steps(steps) => {
                let stage = self.leaf(leaf(StageKind::Work, steps), &inside, &before)?;
                self.groups.declare(file, declared, &[stage]);
                self.rollbacks(rollbacks, &inside, stage)?;
                Some(one(stage))
            }
        }
    }

    /// What undoes a stage stands in it.
    fn rollbacks(&mut self, rollbacks: Vec<declare::Stage>, around: &Around<'_>, stage: usize) -> Option<()> {
        if rollbacks.is_empty() {
            return Some(());
        }
        let mut names = Names::default();
        let nodes: Vec<Node> = rollbacks.into_iter().map(|rollback| Node::Stage(Box::new(rollback))).collect();
        self.names(&nodes, &mut names);
        // What the stage makes, its rollback does not make again.
        let used: Rc<[Mention]> = around.mentions.iter().filter(|mention| mention.kind == Mentioned::VariableUsed).cloned().collect();
        let around = Around { mentions: &used, ..*around };
        for node in nodes {
            self.node(node, &around, &mut names, &one(stage))?;
        }
        Some(())
    }

    /// A group: what its gates wait for stands at its beginning and its end.
    fn group(
        &mut self,
        nodes: Vec<Node>,
        settings: &Settings,
        around: &Around<'_>,
        before: &Before,
        place: (FileId, Span),
    ) -> Option<Before> {
        let mut names = Names::default();
        self.names(&nodes, &mut names);
        self.enter();
        let before = self.gate(("enter", &settings.gates.enter), around, &mut names, before, place)?;
        let after = self.sequence(nodes, around, &mut names, &before)?;
        let after = self.gate(("exit", &settings.gates.exit), around, &mut names, &after, place)?;
        self.within.pop();
        Some(after)
    }

    fn gate(
        &mut self,
        (word, waits): (&'static str, &[Wait]),
        around: &Around<'_>,
        names: &mut Names,
        before: &Before,
        (file, span): (FileId, Span),
    ) -> Option<Before> {
        let mut ends = Vec::new();
        for wait in waits {
            let name = names.of_word(word, "");
            let path = format!("{}{name}", around.prefix);
            let leaf = Leaf { path, name, file, span, kind: StageKind::Wait(wait.clone()), steps: Vec::new(), doubled: around.doubled };
            ends.push(self.leaf(leaf, around, before)?);
        }
        Some(if ends.is_empty() { before.clone() } else { Before::of(ends) })
    }

    /// One stage of the plan. `around` has its own settings.
    fn leaf(&mut self, leaf: Leaf, around: &Around<'_>, before: &Before) -> Option<usize> {
        self.within_limits(&leaf, &around.settings, before)?;
        let Leaf { path, name, file, span, kind, steps, doubled } = leaf;
        if let Some((other, first)) = self.paths.insert(path.clone(), (file, span)) {
            // This is `a/b` beside `b` in the group `a`.
            if !doubled {
                let line = self.line_from(file, other, first);
                let finding = Finding::new(Code::StageTwice, span, format!("two stages have the path {}", quoted(&path)));
                let help = format!("the other one stands in {line}; give one of them another name");
                self.lowering.error_in(file, finding.label("again here").help(help));
            }
        }
        let reason = match (&kind, self.auto) {
            (StageKind::Rollback, _) => NeedReason::Rollback,
            (StageKind::Work | StageKind::Wait(_), true) => NeedReason::Barrier,
            (StageKind::Work | StageKind::Wait(_), false) => NeedReason::Order,
        };
        let edges = before.ends.iter().map(|first| Edge { first: *first, reason: reason.clone(), place: None }).collect();
        let waits = matches!(kind, StageKind::Wait(_));
        if !waits {
            around.settings.check(&self.credential_places, self.lowering.findings);
            self.credentials(around);
        }
        let stage = settled(&path, kind, steps, &around.settings);
        let place = self.place_of(file, span);
        self.lowering.notes.places.insert(stage.id.clone(), place);
        let cache = around.settings.cache().filter(|_| !waits).map(|(file, cache)| (file, cache.used.clone()));
        let from = around.settings.from().map(|(file, from)| (file, from.clone())).collect();
        if stage.kind != StageKind::Rollback {
            self.groups.add(&path, &name, &[self.laid.len()]);
        }
        self.laid.push(Laid {
            stage,
            within: Rc::from(self.within.as_slice()),
            file,
            span,
            edges,
            needs: before.needs.to_vec(),
            from,
            cache,
            mentions: around.mentions(),
        });
        if let Some(laid) = self.laid.last_mut() {
            laid.stage.fanouts.clone_from(&self.fanouts);
        }
        Some(self.laid.len() - 1)
    }

    /// Refuses a step that gets a credential which its stage does not list.
    fn credentials(&mut self, around: &Around<'_>) {
        let listed = around.settings.credentials().map(|(_, names)| names).unwrap_or_default();
        // Its own steps, and the `notify` that it has or inherits.
        let last = around.outwards().position(|around| around.settings.notifies()).unwrap_or(0);
        let used = around.outwards().take(last + 1).flat_map(|around| around.mentions.iter());
        let used = used.filter(|mention| mention.kind == Mentioned::CredentialUsed);
        for Mention { name, file, span, .. } in used.filter(|mention| listed.iter().all(|listed| listed.kind != mention.name)) {
            let message = format!("a step gets the credential {}, which its stage does not list", quoted(name));
            let finding = Finding::new(Code::CredentialNotListed, *span, message);
            self.lowering.error_in(*file, finding.help(format!("write `credentials = ['{}']` into the stage", excerpt(name))));
        }
    }

    /// Refuses credentials where no stage could list them.
    pub(super) fn without_stage(&mut self, notified: &[Mention]) {
        for Mention { name, file, span, .. } in notified.iter().filter(|mention| mention.kind == Mentioned::CredentialUsed) {
            let message = format!("a step gets the credential {}, and belongs to no stage that could list it", quoted(name));
            let help = "write it into the `notify` of a stage with `credentials = […]`";
            self.lowering.error_in(*file, Finding::new(Code::CredentialNotListed, *span, message).help(help));
        }
    }

    /// Checks what this stage adds to the plan before it is made.
    fn within_limits(&mut self, leaf: &Leaf, settings: &Inherited<'_>, before: &Before) -> Option<()> {
        let Leaf { path, file, span, steps, .. } = leaf;
        if self.laid.len() >= STAGES_MAX {
            let finding = Finding::new(Code::TooManyStages, *span, format!("a plan has at most {STAGES_MAX} stages"));
            return self.refuse(*file, finding.label("one too many"));
        }
        self.counted_edges(before.ends.len(), *file, *span)?;
        let fanouts: usize = self.fanouts.iter().map(|id| json_bytes(id)).sum();
        self.bytes += STAGE_BYTES + json_bytes(path) + settings.bytes() + size::of_steps(steps) + fanouts + before.ends.len() * NEED_BYTES;
        if self.bytes > PLAN_BYTES_MAX {
            let message = format!("the plan would be larger than {PLAN_BYTES_MAX} bytes");
            let help = "every stage carries its whole path and environment: shorten what stands in `env`, or split the pipeline";
            return self.refuse(*file, Finding::new(Code::PlanTooLarge, *span, message).help(help));
        }
        Some(())
    }
}

fn one(stage: usize) -> Before {
    Before::of(vec![stage])
}

/// The stage with all that is said of it and of its groups. What waits has only conditions of them: it holds no agent, and a refusal fails
/// the run whatever the stages around it may. What undoes a stage tells nobody that the stage went well: it has only a `notify` of its own.
fn settled(path: &str, kind: StageKind, steps: Vec<Step>, settings: &Inherited<'_>) -> Stage {
    let mut stage = Stage { steps, ..Stage::new(path) };
    settings.apply(&mut stage);
    match kind {
        StageKind::Work => stage,
        StageKind::Rollback => {
            let notify = if settings.notifies() { std::mem::take(&mut stage.notify) } else { Notify::default() };
            Stage { kind, caches: BTreeMap::new(), notify, ..stage }
        }
        StageKind::Wait(_) => {
            let Stage { skipped, conditions, .. } = stage;
            Stage { kind, skipped, conditions, retry: None, effect: Effect::Safe, ..Stage::new(path) }
        }
    }
}
