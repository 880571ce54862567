//! From the syntax tree to the plan: what the names mean, and what follows from it.
//!
//! [`declare`] reads what the file declares; [`wire`] gives each stage its path, its inherited settings and what it waits for.

mod blueprint;
mod condition;
mod configure;
mod credential;
mod declare;
mod each;
mod environment;
mod fact;
mod function;
mod glob;
mod include;
mod json;
mod library;
mod lock;
mod mention;
mod notify;
mod parameter;
mod setting;
mod step;
mod top;
mod trigger;
mod value;
mod verb;
mod wire;
mod word;

use std::{collections::BTreeMap, rc::Rc};

use model::{
    Digest,
    context::EventKind,
    diagnostic::Span,
    lock::Lock,
    plan::{Credential, Plan, PlanDocument},
    planning::{LOCK_FILE, PlanNotes, TriggerRule},
};

use self::{function::Memo, library::Shelf, value::Scope};
use crate::{
    Needs, PlanInput,
    diagnostic::{Code, FileId, Files, Finding, Findings, quoted},
    grammar::Tree,
    limits::{PLAN_DEPTH_MAX, json_depth},
    suggest::did_you_mean,
    syntax::{Block, Call, Entry, Tail},
};

/// The library that is in scope without being named.
const STANDARD_LIBRARY: &str = "stdlib";

/// Every word that has a meaning somewhere, some more than once. Keys of blocks that have few of their own are not among them.
pub(crate) fn words() -> impl Iterator<Item = &'static str> {
    let tables: [&[&str]; 6] =
        [&function::FUNCTIONS, &function::QUESTIONS, &fact::FACTS, &parameter::KEYS, &setting::gate::WAITS, &setting::runtime::KNOWN];
    let events = EventKind::ALL.into_iter().map(EventKind::as_str);
    word::all().chain(tables.into_iter().flatten().copied()).chain(events)
}

/// What comes of a syntax tree.
#[derive(Debug)]
pub(crate) struct Lowered {
    /// The plan; `None` only where findings say why, or something is needed.
    pub(crate) document: Option<PlanDocument>,
    /// What has no part in the plan's meaning.
    pub(crate) notes: PlanNotes,
    /// What is needed to go on.
    pub(crate) needs: Needs,
    /// What is brought in, where a lock file is made.
    pub(crate) locked: Lock,
}

/// The plan of the pipeline file, which is the first of `files`.
///
/// While a lock file is made, `locking` has the digests of remote libraries, by address.
pub(crate) fn lower<'a>(
    tree: Tree,
    input: &'a PlanInput<'a>,
    locking: Option<&'a BTreeMap<String, Digest>>,
    files: &mut Files<'a>,
    findings: &mut Findings,
) -> Lowered {
    let mut lowering = Lowering::new(tree, input, files, findings);
    lowering.shelf.locking = locking;
    let document = lowering.document();
    let Lowering { notes, needs, shelf, .. } = lowering;
    Lowered { document, notes, needs, locked: shelf.locked }
}

/// What starts runs of the pipeline file, which is the first of `files`; nothing else of it is looked at.
pub(crate) fn triggers<'a>(tree: Tree, input: &'a PlanInput<'a>, files: &mut Files<'a>, findings: &mut Findings) -> Vec<TriggerRule> {
    let mut lowering = Lowering::new(tree, input, files, findings);
    let tree = Rc::clone(&lowering.source.tree);
    let top = lowering.top_level(&tree.items);
    lowering.triggers(top.triggers);
    lowering.notes.triggers
}

/// A file that was read as far as its syntax.
#[derive(Debug, Clone)]
struct Source<'a> {
    id: FileId,
    text: &'a str,
    tree: Rc<Tree>,
}

/// What all parts of the declaring pass share.
struct Lowering<'l, 'a> {
    input: &'a PlanInput<'a>,
    files: &'l mut Files<'a>,
    /// The file that is being read. Spans of its tree mean nothing in another: see [`Lowering::within`].
    source: Source<'a>,
    /// The other files that were read, by path; `None` for one that is refused.
    loaded: BTreeMap<&'a str, Option<Source<'a>>>,
    /// The steps of the files that were read, and what is known of their calls.
    shelf: Shelf<'a>,
    /// What `it` and `params` mean here.
    scope: Scope,
    memo: Memo<'a>,
    findings: &'l mut Findings,
    needs: Needs,
    notes: PlanNotes,
    /// The files that are being read, each named by the one before; the first is the pipeline file.
    including: Vec<String>,
    /// What the stage that is being read names; taken when it ends.
    mentions: Vec<mention::Mention>,
    /// What steps on the outcome of stages name besides credentials, of which their stage must list each.
    notified: Vec<mention::Mention>,
    /// The credentials that the pipeline file declares, by name.
    declared_credentials: BTreeMap<String, Credential>,
    /// The environments that the pipeline file declares, by name.
    environments: BTreeMap<String, environment::Environment>,
    /// The blocks that can be copied, of files that copy some.
    stage_blocks: BTreeMap<FileId, Rc<setting::Stages>>,
    /// The groups around what is being read, and what tells the branches of `each` around it from their siblings.
    groups: Vec<String>,
    suffixes: Vec<String>,
    /// Whether something wrong was left out, so that not every stage is there.
    incomplete: bool,
    /// Bytes of source that were read once more, by `each`, `from` and steps made of steps.
    expanded_bytes: usize,
    /// Stages and steps so far.
    stages: usize,
    steps: usize,
}

impl<'l, 'a> Lowering<'l, 'a> {
    fn new(tree: Tree, input: &'a PlanInput<'a>, files: &'l mut Files<'a>, findings: &'l mut Findings) -> Self {
        let pipeline = Source { id: findings.file(), text: str::from_utf8(input.source).unwrap_or_default(), tree: Rc::new(tree) };
        Self {
            input,
            files,
            source: pipeline,
            loaded: BTreeMap::new(),
            shelf: Shelf::default(),
            scope: Scope::default(),
            memo: Memo::default(),
            findings,
            needs: Needs::default(),
            notes: PlanNotes::default(),
            including: vec![input.path.to_owned()],
            mentions: Vec::new(),
            notified: Vec::new(),
            declared_credentials: BTreeMap::new(),
            environments: BTreeMap::new(),
            stage_blocks: BTreeMap::new(),
            groups: Vec::new(),
            suffixes: Vec::new(),
            incomplete: false,
            expanded_bytes: 0,
            stages: 0,
            steps: 0,
        }
    }
}

impl<'a> Lowering<'_, 'a> {
    fn document(&mut self) -> Option<PlanDocument> {
        let tree = Rc::clone(&self.source.tree);
        let top = self.top_level(&tree.items);
        let pipeline = self.whole(&top)?;
        // What is asked for may be what a stage needs. The lock file never is.
        self.incomplete |= self.needs.listing || self.needs.changed || self.needs.files.iter().any(|file| file != LOCK_FILE);
        let newer = pipeline.newer;
        let wire::Wired { stages, notify } = wire::wire(pipeline, self)?;
        if self.findings.has_errors() || !self.needs.is_empty() {
            return None;
        }
        let credentials = self.used_credentials(&stages);
        let mut plan = Plan { credentials, newer, notify, ..Plan::new(stages) };
        self.libraries_of(&mut plan);
        let document = PlanDocument::new(plan);
        let depth = json_depth(document.bytes());
        if depth > PLAN_DEPTH_MAX {
            let message = format!("the plan would be nested {depth} deep, over the limit of {PLAN_DEPTH_MAX}");
            let help = "blocks of steps, functions of variables and conditions on variables make it deep: nest them less";
            self.error(Finding::new(Code::PlanTooDeep, Span::default(), message).help(help));
            return None;
        }
        Some(document)
    }

    /// The bytes of a file of the commit; `None` if it has to be asked for, or if there is none, which is told at `span`.
    fn bytes(&mut self, path: &str, span: Span) -> Option<(&'a str, &'a [u8])> {
        match self.input.files.get_key_value(path) {
            None => {
                self.needs.files.insert(path.to_owned());
                None
            }
            Some((_, None)) => {
                let finding = Finding::new(Code::NoFile, span, format!("there is no file {}", quoted(path)));
                self.error(finding.help("paths begin at the repository's root, or with `./` at this file's folder"));
                None
            }
            Some((path, Some(bytes))) => {
                self.notes.files.insert(path.clone(), Digest::of(bytes));
                Some((path, bytes))
            }
        }
    }

    /// Another `.otto` or `.blueprint` file; `None` if it has to be asked for, or is refused, which is told.
    fn load(&mut self, path: &str, span: Span) -> Option<Source<'a>> {
        if let Some(loaded) = self.loaded.get(path) {
            return loaded.clone();
        }
        let (path, bytes) = self.bytes(path, span)?;
        self.pinned_file(path, Digest::of(bytes), span);
        let id = self.files.add(path, bytes);
        let outer = self.findings.enter(id);
        let source = crate::tree(bytes, self.files, self.findings).map(|tree| {
            let text = str::from_utf8(bytes).expect("it has a tree, so it is UTF-8");
            Source { id, text, tree: Rc::new(tree) }
        });
        self.findings.enter(outer);
        self.loaded.insert(path, source.clone());
        source
    }

    /// Goes on within another file.
    fn within<T>(&mut self, source: Source<'a>, work: impl FnOnce(&mut Self) -> T) -> T {
        let outer = self.findings.enter(source.id);
        let outer_source = std::mem::replace(&mut self.source, source);
        let result = work(self);
        self.source = outer_source;
        self.findings.enter(outer);
        result
    }

    /// The line of a byte of the file that is being read.
    fn line(&self, offset: usize) -> usize {
        self.files.get(self.source.id).lines.line(offset)
    }

    /// "Did you mean …?", unless the finding will not be shown: there may be a hundred thousand of them.
    fn did_you_mean<'c>(&self, name: &str, candidates: impl IntoIterator<Item = &'c str> + Clone) -> String {
        if self.findings.is_full() { String::new() } else { did_you_mean(name, candidates) }
    }

    fn error(&mut self, finding: Finding) {
        self.findings.add(finding);
    }

    /// Adds a finding that stands in another file than the one that is being read.
    fn error_in(&mut self, file: FileId, finding: Finding) {
        let outer = self.findings.enter(file);
        self.findings.add(finding);
        self.findings.enter(outer);
    }

    /// Whether a syntax error made the inside of these braces be left out.
    fn is_left_out(&self, block: &Block) -> bool {
        self.source.tree.left_out.contains(&block.span)
    }

    /// Refuses what stands a second time. `first` is where it stands already.
    fn doubled(&mut self, what: &str, span: Span, first: Span) {
        let line = self.line(first.start);
        let finding = Finding::new(Code::Doubled, span, format!("{what} stands twice")).label("again here");
        self.error(finding.help(format!("it stands in line {line} already: leave one out")));
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
