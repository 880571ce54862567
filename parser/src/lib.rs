//! `.otto` files: from text to the plan, or to diagnostics.
//!
//! ```text
//! text ─ scan ─ tokens ─ grammar (pest) ─ syntax tree ─ lower/declare ─ what the file declares ─ lower/wire ─ plan
//! ```
//!
//! Each pass only ever sees what the one before let pass. `GRAMMAR.md` beside this crate is the language as it is read here.
//!
//! **Invariant:** pure: no IO, no clock, no randomness, no user code. The same input gives the same plan, byte for byte. No input makes it
//! panic, recurse deeper than its limits, or take more than linear time.

pub mod diagnostic;
pub mod explain;
pub mod limits;
pub mod render;
pub mod syntax;

mod format;
mod grammar;
mod literal;
mod lower;
mod scan;
mod suggest;
mod token;

use std::collections::{BTreeMap, BTreeSet};

use model::{
    Digest,
    context::TriggerContext,
    diagnostic::{Diagnostic, Span},
    manifest::StepLibrary,
    plan::PlanDocument,
    planning::{Listing, PlanNotes, TriggerRule},
};

pub use diagnostic::Code;
pub use explain::{explain, graph_of};
pub use format::format;
pub use model::lock::{self, Lock};
pub use render::render;

use crate::{
    diagnostic::{Files, Finding, Findings},
    grammar::Tree,
    limits::SOURCE_BYTES_MAX,
};

/// All that a plan is made from.
#[derive(Debug, Clone, Copy)]
pub struct PlanInput<'a> {
    /// The file's path from the repository's root. It stands in diagnostics and notes, never in the plan.
    pub path: &'a str,
    /// The file's bytes.
    pub source: &'a [u8],
    /// The trigger's facts.
    pub context: &'a TriggerContext,
    /// Files that an earlier answer asked for, by path from the repository's root; `None` for one that there is not. By the address of a
    /// remote library: the bytes of its `manifest.yml`, from the archive that has the digest in the lock file. By a path through a `.tar.gz`
    /// (`x.tar.gz/manifest.yml`): the file in that archive, and by [`ARCHIVE_DIGEST`](model::planning::ARCHIVE_DIGEST) in its place
    /// the archive's own digest. [`LOCK_FILE`](model::planning::LOCK_FILE) is always asked for: given at
    /// once, it saves a round.
    pub files: &'a BTreeMap<String, Option<Vec<u8>>>,
    /// The commit's files; `None` asks for them with [`Needs::listing`] where they are needed.
    pub listing: Option<&'a Listing>,
    /// What changed; `None` asks for it with [`Needs::changed`] where it is needed.
    pub changed: Option<&'a Changed>,
    /// The step libraries that may be used by name. `stdlib` is in scope without being named.
    pub libraries: &'a [StepLibrary],
}

/// What changed since the commit that is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// There is nothing to compare with: every `changed(…)` is true.
    Unknown,
    /// These paths, from the repository's root.
    Paths(Vec<String>),
}

/// What comes of a file.
#[expect(clippy::large_enum_variant, reason = "there is one for each file")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Planning {
    /// A plan.
    Plan {
        /// The plan, its bytes and its digest.
        document: PlanDocument,
        /// What has no part in the plan's meaning, for people.
        notes: Box<PlanNotes>,
        /// What may not be meant as it is written.
        warnings: Vec<Diagnostic>,
    },
    /// The file is refused: every independent error and every warning, the first of the file first.
    Refused(Vec<Diagnostic>),
    /// Ask again with this, too.
    Needs(Needs),
}

/// What else is needed to make a plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// What is to be added to [`PlanInput::files`]: paths from the repository's root, and addresses of remote libraries.
    pub files: BTreeSet<String>,
    /// Whether [`PlanInput::listing`] is needed.
    pub listing: bool,
    /// Whether [`PlanInput::changed`] is needed.
    pub changed: bool,
}

impl Needs {
    /// Whether nothing is needed.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && !self.listing && !self.changed
    }
}

/// Makes the plan of a pipeline file.
pub fn plan(input: &PlanInput<'_>) -> Planning {
    let Read { lowered, refused, diagnostics } = read(input, None);
    match lowered {
        // First what is needed: all mistakes of a file are told in one go, and some are seen only with it.
        Some(lowered) if !lowered.needs.is_empty() => Planning::Needs(lowered.needs),
        _ if refused => Planning::Refused(diagnostics),
        Some(lower::Lowered { document: Some(document), notes, .. }) => {
            Planning::Plan { document, notes: Box::new(notes), warnings: diagnostics }
        }
        Some(lower::Lowered { document: None, .. }) | None => unreachable!("without a plan there is an error, or something is needed"),
    }
}

/// What starts runs of a pipeline file, or what is wrong with its syntax or its `triggers`. Nothing that it brings in is needed, and nothing
/// is known of whether it has a plan.
pub fn triggers(path: &str, source: &[u8]) -> Result<Vec<TriggerRule>, Vec<Diagnostic>> {
    let (context, none) = (TriggerContext::default(), BTreeMap::new());
    let input = PlanInput { path, source, context: &context, files: &none, listing: None, changed: None, libraries: &[] };
    let (mut files, mut findings) = (Files::default(), Findings::default());
    files.add(path, source.get(..SOURCE_BYTES_MAX).unwrap_or(source));
    let rules = tree(source, &files, &mut findings).map(|tree| lower::triggers(tree, &input, &mut files, &mut findings));
    if findings.has_errors() { Err(findings.finish(&files)) } else { Ok(rules.unwrap_or_default()) }
}

/// What comes of a file for which a lock file is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Locking {
    /// Everything that the file brings in. A repository's lock file has that of all its pipelines: see [`Lock::extend`].
    Locked(Lock),
    /// The file is refused.
    Refused(Vec<Diagnostic>),
    /// Ask again with this, too. An address among the files asks for its digest in `remote`, and for the library's manifest in the files.
    Needs(Needs),
}

/// What a pipeline file brings in, for `otto lock`: the lock file that there is already is not looked at. `remote` has the digest of each
/// remote library that an earlier answer asked for, by its address: the SHA-256 of the `.tar.gz` that lies there.
pub fn lock(input: &PlanInput<'_>, remote: &BTreeMap<String, Digest>) -> Locking {
    let Read { lowered, refused, diagnostics } = read(input, Some(remote));
    match lowered {
        Some(lowered) if !refused && lowered.needs.is_empty() => Locking::Locked(lowered.locked),
        Some(lowered) if !refused => Locking::Needs(lowered.needs),
        Some(_) | None => Locking::Refused(diagnostics),
    }
}

/// What was read of a file, and what was found.
struct Read {
    lowered: Option<lower::Lowered>,
    refused: bool,
    diagnostics: Vec<Diagnostic>,
}

fn read<'a>(input: &'a PlanInput<'a>, locking: Option<&'a BTreeMap<String, Digest>>) -> Read {
    let mut files = Files::default();
    let mut findings = Findings::default();
    let source = input.source.get(..SOURCE_BYTES_MAX).unwrap_or(input.source);
    files.add(input.path, source);
    let lowered = tree(input.source, &files, &mut findings).map(|tree| lower::lower(tree, input, locking, &mut files, &mut findings));
    let refused = findings.has_errors();
    Read { lowered, refused, diagnostics: findings.finish(&files) }
}

/// The syntax tree of the file that is being read; `None` only where `findings` say why.
fn tree(source: &[u8], files: &Files<'_>, findings: &mut Findings) -> Option<Tree> {
    let text = text_of(source, findings)?;
    let tokens = scan::scan(text, &files.get(findings.file()).lines, findings)?;
    grammar::parse(text, tokens, findings)
}

/// Every word that has a meaning somewhere in the language, some more than once: for what lists, highlights or explains them.
pub fn words() -> impl Iterator<Item = &'static str> {
    lower::words()
}

/// What could be read of a source, for editors: where there is a syntax error, the braces around it are empty. Nothing if there is one outside
/// of all braces.
pub fn syntax_tree(source: &str) -> Vec<syntax::Item> {
    let mut files = Files::default();
    files.add("", source.as_bytes());
    tree(source.as_bytes(), &files, &mut Findings::default()).map(|tree| tree.items).unwrap_or_default()
}

/// Says that a file is over [`limits::SOURCE_BYTES_MAX`], where its bytes are too many even to be handed in.
pub fn too_large(path: &str, bytes: u64) -> Diagnostic {
    let mut files = Files::default();
    files.add(path, b"");
    let mut findings = Findings::default();
    findings.add(size_finding(bytes));
    findings.finish(&files).remove(0)
}

fn size_finding(bytes: u64) -> Finding {
    let message = format!("the file has {bytes} bytes, over the limit of {SOURCE_BYTES_MAX}");
    Finding::new(Code::SourceTooLarge, Span::default(), message)
}

fn text_of<'a>(source: &'a [u8], findings: &mut Findings) -> Option<&'a str> {
    if source.len() > SOURCE_BYTES_MAX {
        findings.add(size_finding(source.len() as u64));
        return None;
    }
    match std::str::from_utf8(source) {
        Ok(text) => Some(text),
        Err(error) => {
            let start = error.valid_up_to();
            let message =
                format!("the file is not UTF-8: byte {start} (from 0) is {:#04x}", source.get(start).copied().unwrap_or_default());
            findings.add(Finding::new(Code::NotUtf8, Span { start, end: start + 1 }, message).help("save the file as UTF-8"));
            None
        }
    }
}
