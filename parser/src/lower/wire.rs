//! What follows from what a file declares: each stage's path and id, the settings that it inherits, and what it waits for.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use model::{
    diagnostic::Span,
    plan::{Need, NeedReason, Stage, Step, Value},
};

use super::{
    declare::{self, Content, Node},
    setting::{CredentialPlaces, Inherited, Settings},
};
use crate::{
    diagnostic::{Code, Finding, Findings, Lines, quoted},
    limits::{EDGES_MAX, PLAN_BYTES_MAX, json_bytes},
};

/// The name of steps without a stage; the second in a group is `steps-2`, and so on.
const ORPHANS_NAME: &str = "steps";
/// Bytes of a stage in the plan besides its path, environment, steps and needs, rounded up.
const STAGE_BYTES: usize = 256;
/// Bytes of a step in the plan besides its parameters, rounded up.
const STEP_BYTES: usize = 64;
/// Bytes of an edge in the plan, rounded up.
const NEED_BYTES: usize = 64;

/// The stages of the plan, in the order in which they are written. `None` only where `findings` say why.
pub(super) fn wire(
    settings: &Settings,
    nodes: Vec<Node>,
    credential_places: &CredentialPlaces,
    lines: &Lines<'_>,
    findings: &mut Findings,
) -> Option<Vec<Stage>> {
    let mut wiring = Wiring { credential_places, lines, findings, stages: Vec::new(), paths: BTreeMap::new(), edges: 0, bytes: 0 };
    let pipeline = Around { settings: Inherited::pipeline(settings), prefix: "", doubled: false };
    wiring.group(nodes, &pipeline, &Rc::from([]))?;
    Some(wiring.stages)
}

/// Where a stage stands.
#[derive(Clone, Copy)]
struct Around<'a> {
    settings: Inherited<'a>,
    /// The path of the group and a `/`; empty for the pipeline.
    prefix: &'a str,
    /// Two groups have this name, which is told already: what follows from it is not.
    doubled: bool,
}

struct Wiring<'a> {
    credential_places: &'a CredentialPlaces,
    lines: &'a Lines<'a>,
    findings: &'a mut Findings,
    stages: Vec<Stage>,
    paths: BTreeMap<String, Span>,
    edges: usize,
    bytes: usize,
}

/// The names of one group. Branches of a `parallel` belong to the group around it.
#[derive(Default)]
struct Names {
    /// The names that are written, with where they stand first.
    taken: BTreeMap<String, Span>,
    /// Where names stand that another stage has.
    doubled: BTreeSet<Span>,
    orphans: usize,
}

impl Names {
    /// The name of the next steps without a stage: one that no stage of the group has.
    fn next_orphan(&mut self) -> String {
        loop {
            self.orphans += 1;
            let name = if self.orphans == 1 { ORPHANS_NAME.to_owned() } else { format!("{ORPHANS_NAME}-{}", self.orphans) };
            if !self.taken.contains_key(&name) {
                return name;
            }
        }
    }
}

/// Stages by their place in the plan: those that all must end before what comes next.
type Ends = Rc<[usize]>;

impl Wiring<'_> {
    fn refuse<T>(&mut self, finding: Finding) -> Option<T> {
        self.findings.add(finding);
        None
    }

    fn group(&mut self, nodes: Vec<Node>, around: &Around<'_>, before: &Ends) -> Option<Ends> {
        let mut names = Names::default();
        self.names(&nodes, &mut names);
        let mut before = Rc::clone(before);
        for node in nodes {
            before = self.node(node, around, &mut names, &before)?;
        }
        Some(before)
    }

    /// Collects the names that are written, and refuses those that are written twice.
    fn names(&mut self, nodes: &[Node], names: &mut Names) {
        for node in nodes {
            match node {
                Node::Parallel(branches) => self.names(branches, names),
                Node::Stage(stage) => {
                    let Some(name) = &stage.name else { continue };
                    match names.taken.get(&name.kind) {
                        Some(first) => {
                            names.doubled.insert(name.span);
                            let line = self.lines.line(first.start);
                            let message = format!("two stages of this group are named {}", quoted(&name.kind));
                            let finding = Finding::new(Code::StageTwice, name.span, message).label("again here");
                            self.findings
                                .add(finding.help(format!("the other one stands in line {line}; a name is unique within its group")));
                        }
                        None => drop(names.taken.insert(name.kind.clone(), name.span)),
                    }
                }
            }
        }
    }

    fn node(&mut self, node: Node, around: &Around<'_>, names: &mut Names, before: &Ends) -> Option<Ends> {
        match node {
            Node::Parallel(branches) => {
                let mut ends = Vec::new();
                for branch in branches {
                    ends.extend_from_slice(&self.node(branch, around, names, before)?);
                }
                Some(if ends.is_empty() { Rc::clone(before) } else { ends.into() })
            }
            Node::Stage(stage) => {
                let declare::Stage { name, span, settings, content } = *stage;
                let name = name.map_or_else(|| names.next_orphan(), |name| name.kind);
                let path = format!("{}{name}", around.prefix);
                let prefix = format!("{path}/");
                let doubled = around.doubled || names.doubled.contains(&span);
                let inside = Around { settings: around.settings.inside(&settings), prefix: &prefix, doubled };
                match content {
                    Content::Group(nodes) => self.group(nodes, &inside, before),
                    Content::Steps(steps) => self.stage(&path, span, steps, &inside, before),
                }
            }
        }
    }

    fn stage(&mut self, path: &str, span: Span, steps: Vec<Step>, around: &Around<'_>, before: &Ends) -> Option<Ends> {
        self.within_limits(path, span, &steps, around, before)?;
        if let Some(first) = self.paths.insert(path.to_owned(), span) {
            // This is `a/b` beside `b` in the group `a`.
            if !around.doubled {
                let line = self.lines.line(first.start);
                let finding =
                    Finding::new(Code::StageTwice, span, format!("two stages have the path {}", quoted(path))).label("again here");
                self.findings.add(finding.help(format!("the other one stands in line {line}; give one of them another name")));
            }
        }
        let needs = before.iter().map(|stage| Need { stage: self.stages[*stage].id.clone(), reason: NeedReason::Order }).collect();
        let mut stage = Stage { needs, steps, ..Stage::new(path) };
        around.settings.check(self.credential_places, self.findings);
        around.settings.apply(&mut stage);
        self.stages.push(stage);
        Some(Rc::from([self.stages.len() - 1]))
    }

    /// Checks what this stage adds to the plan before it is made.
    fn within_limits(&mut self, path: &str, span: Span, steps: &[Step], around: &Around<'_>, before: &Ends) -> Option<()> {
        self.edges += before.len();
        if self.edges > EDGES_MAX {
            let message = format!("the plan would have more than {EDGES_MAX} edges: each stage here waits for {} others", before.len());
            let help = "an empty stage between two `parallel` blocks, `stage 'Both' { }`, makes it one edge each";
            return self.refuse(Finding::new(Code::TooManyEdges, span, message).help(help));
        }
        let steps: usize = steps.iter().map(|step| STEP_BYTES + parameter_bytes(step)).sum();
        self.bytes += STAGE_BYTES + json_bytes(path) + around.settings.bytes() + steps + before.len() * NEED_BYTES;
        if self.bytes > PLAN_BYTES_MAX {
            let message = format!("the plan would be larger than {PLAN_BYTES_MAX} bytes");
            let help = "every stage carries its whole path and environment: shorten what stands in `env`, or split the pipeline";
            return self.refuse(Finding::new(Code::PlanTooLarge, span, message).help(help));
        }
        Some(())
    }
}

fn parameter_bytes(step: &Step) -> usize {
    step.parameters.iter().map(|(name, value)| json_bytes(name) + value_bytes(value)).sum()
}

fn value_bytes(value: &Value) -> usize {
    match value {
        Value::Boolean(_) | Value::Integer(_) => 20,
        Value::Text(text) => json_bytes(text),
        Value::Decimal { decimal } => json_bytes(decimal) + "{decimal:}".len() + 2,
        Value::Variable { variable } => json_bytes(variable) + "{variable:}".len() + 2,
        Value::Call { arguments, .. } => 64 + arguments.iter().map(value_bytes).sum::<usize>(),
        Value::Steps { steps } => 64 + steps.iter().map(|step| STEP_BYTES + parameter_bytes(step)).sum::<usize>(),
        Value::List(values) => 2 + values.iter().map(value_bytes).sum::<usize>(),
    }
}
