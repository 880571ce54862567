//! What follows from what a file declares: each stage's path and id, the settings that it inherits, and what it waits for.
//!
//! First all stages are laid out, with the edges that follow from the order in which they are written. Then what they name is looked up:
//! [`target`] finds stages, [`flow`] finds who makes a cache, an artifact or a variable. Then the stages are put into an order in which
//! each stands after what it needs ([`order`]).

mod flow;
mod lay;
mod name;
mod order;
mod size;
mod target;

use std::{collections::BTreeMap, rc::Rc};

use model::{
    diagnostic::Span,
    plan::{NeedReason, Notify, Stage},
    planning::Place,
};

use self::{flow::Makers, name::Groups};
use super::{
    Lowering,
    declare::Pipeline,
    mention::Mention,
    setting::{CredentialPlaces, From},
};
use crate::{
    diagnostic::{Code, FileId, Finding},
    limits::EDGES_MAX,
    syntax::Name,
};

/// What is wired.
pub(super) struct Wired {
    /// The stages of the plan, each after those that it needs.
    pub(super) stages: Vec<Stage>,
    /// Steps when the whole has ended.
    pub(super) notify: Notify,
}

/// The stages of the plan. `None` only where findings say why.
pub(super) fn wire(pipeline: Pipeline, lowering: &mut Lowering<'_, '_>) -> Option<Wired> {
    let Pipeline { mut settings, nodes, mentions, notified, auto, .. } = pipeline;
    let notify = settings.notify.take().unwrap_or_default();
    let credential_places = lowering.credential_places();
    let mut wiring = Wiring {
        lowering,
        credential_places,
        sound: true,
        searches: 0,
        auto,
        laid: Vec::new(),
        groups: Groups::default(),
        paths: BTreeMap::new(),
        fanouts: Vec::new(),
        within: Vec::new(),
        units: 0,
        edges: 0,
        references: 0,
        bytes: 0,
    };
    wiring.lay(nodes, &settings, mentions)?;
    let makers = Makers::of(&wiring.laid);
    // Where stages are missing, what is not found may be what is missing.
    if wiring.lowering.incomplete {
        return None;
    }
    wiring.sound = !wiring.lowering.findings.has_errors();
    wiring.named(&makers)?;
    let order = wiring.order()?;
    wiring.used(&makers, &order);
    wiring.notified(&makers, &notified);
    wiring.without_stage(&notified);
    let of_stages = std::mem::take(&mut wiring.lowering.notified);
    wiring.notified(&makers, &of_stages);
    let stages = wiring.finished(&order);
    Some(Wired { stages, notify })
}

/// A stage of the plan that is being made.
struct Laid {
    stage: Stage,
    /// The groups, branches and blueprints in which it stands, the outermost first.
    within: Rc<[usize]>,
    /// Where it is written.
    file: FileId,
    span: Span,
    /// What it waits for, by place in the order in which stages are written.
    edges: Vec<Edge>,
    /// What its `needs`, and those of groups that begin with it, name.
    needs: Vec<Reference>,
    /// Where the blocks come from that it copies.
    from: Vec<(FileId, From)>,
    /// The caches that it uses.
    cache: Option<(FileId, Vec<Name>)>,
    /// What it and the groups around it name.
    mentions: Vec<Rc<[Mention]>>,
}

/// That a stage waits for another.
struct Edge {
    /// The other.
    first: usize,
    reason: NeedReason,
    /// Where the file says so, if it does.
    place: Option<(FileId, Span)>,
}

/// A stage that is named.
#[derive(Debug, Clone)]
struct Reference {
    name: Name,
    file: FileId,
    /// The group in which it is named, with a `/`.
    prefix: Rc<str>,
}

struct Wiring<'w, 'l, 'a> {
    lowering: &'w mut Lowering<'l, 'a>,
    credential_places: CredentialPlaces,
    /// `order = auto`.
    auto: bool,
    /// Whether no stage is wrong. Where one is, it may be what makes what another uses.
    sound: bool,
    /// How often the source was searched for what makes something.
    searches: usize,
    /// In the order in which they are written.
    laid: Vec<Laid>,
    groups: Groups,
    /// Where the stage with each path is written.
    paths: BTreeMap<String, (FileId, Span)>,
    /// The `fanout` blocks around what is being laid out, the outermost first.
    fanouts: Vec<String>,
    /// The groups, branches and blueprints around it, and how many there were so far.
    within: Vec<usize>,
    units: usize,
    edges: usize,
    /// How often `needs` were handed on to what begins there: each makes an edge, or is wrong.
    references: usize,
    bytes: usize,
}

impl Wiring<'_, '_, '_> {
    fn refuse<T>(&mut self, file: FileId, finding: Finding) -> Option<T> {
        self.lowering.error_in(file, finding);
        None
    }

    /// Counts edges that are about to be made. `None` if they are too many, which is told.
    fn counted_edges(&mut self, count: usize, file: FileId, span: Span) -> Option<()> {
        self.edges = self.edges.saturating_add(count);
        self.edges_within(self.edges, count, file, span)
    }

    /// Counts names of `needs` that are about to be handed on. `None` if they are too many, which is told.
    fn counted_references(&mut self, count: usize, file: FileId, span: Span) -> Option<()> {
        self.references = self.references.saturating_add(count);
        self.edges_within(self.references, count, file, span)
    }

    fn edges_within(&mut self, edges: usize, count: usize, file: FileId, span: Span) -> Option<()> {
        if edges > EDGES_MAX {
            let message = format!("the plan would have more than {EDGES_MAX} edges: this stage waits for {count} others");
            let help = "an empty stage between two blocks of branches, `stage 'Both' { }`, makes it one edge each";
            return self.refuse(file, Finding::new(Code::TooManyEdges, span, message).help(help));
        }
        Some(())
    }

    /// Where a stage is written, for people.
    fn place_of(&self, file: FileId, span: Span) -> Place {
        let file = self.lowering.files.get(file);
        let (line, column) = file.lines.place(span.start);
        Place { file: file.path.to_owned(), line, column }
    }

    /// `line 3`, or the file and its line where it is another file.
    fn line_from(&self, here: FileId, file: FileId, span: Span) -> String {
        let line = self.lowering.files.get(file).lines.line(span.start);
        if here == file { format!("line {line}") } else { format!("{}, line {line}", self.lowering.files.get(file).path) }
    }
}
