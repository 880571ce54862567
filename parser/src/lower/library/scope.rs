//! The steps that a file may call, by symbol.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use model::{Digest, diagnostic::Span, lock::Lock, manifest::StepManifest, plan::Value};

use crate::{
    diagnostic::FileId,
    lower::{Source, configure::Configured, lock::LockFile},
};

/// What is known of libraries, and of the calls of their steps.
#[derive(Debug, Default)]
pub(in crate::lower) struct Shelf<'a> {
    /// The scopes that were made, by file.
    pub(in crate::lower) in_scope: BTreeMap<FileId, Rc<InScope<'a>>>,
    /// Blocks of steps around the one that is being read.
    pub(in crate::lower) depth: usize,
    /// What `configure` says, by symbol.
    pub(in crate::lower) configured: BTreeMap<String, Configured>,
    /// The steps that were called, by symbol.
    pub(in crate::lower) called: BTreeSet<String>,
    /// Their configuration, with defaults filled in, by symbol.
    pub(in crate::lower) configuration: BTreeMap<String, BTreeMap<String, Value>>,
    /// Their libraries.
    pub(in crate::lower) libraries: BTreeMap<String, Digest>,
    pub(in crate::lower) lock_file: LockFile,
    /// A lock file is made: the digests of remote libraries, by address.
    pub(in crate::lower) locking: Option<&'a BTreeMap<String, Digest>>,
    /// What is brought in, while a lock file is made.
    pub(in crate::lower) locked: Lock,
}

/// The steps in scope of one file.
#[derive(Debug, Default)]
pub(in crate::lower) struct InScope<'a> {
    steps: BTreeMap<Rc<str>, Rc<Callable<'a>>>,
    /// A library could not be read, which is told or asked for: a step that is not here may be there.
    pub(in crate::lower) incomplete: bool,
}

impl<'a> InScope<'a> {
    /// The step of this name.
    pub(in crate::lower) fn get(&self, symbol: &str) -> Option<Rc<Callable<'a>>> {
        self.steps.get(symbol).map(Rc::clone)
    }

    /// Every name, in the order of the alphabet.
    pub(in crate::lower) fn symbols(&self) -> impl Iterator<Item = &str> + Clone {
        self.steps.keys().map(|symbol| &**symbol)
    }

    pub(super) fn insert(&mut self, callable: Callable<'a>) {
        self.steps.insert(Rc::from(callable.manifest.symbol.as_str()), Rc::new(callable));
    }
}

/// A step that can be called.
#[derive(Debug)]
pub(in crate::lower) struct Callable<'a> {
    /// How it is called.
    pub(in crate::lower) manifest: Cow<'a, StepManifest>,
    /// What a call of it is.
    pub(in crate::lower) origin: Origin<'a>,
    /// Where the file brings it in.
    pub(super) place: Span,
}

impl<'a> Callable<'a> {
    pub(super) fn of_library(manifest: Cow<'a, StepManifest>, library: &Rc<Library>) -> Self {
        Self { manifest, origin: Origin::Library(Rc::clone(library)), place: Span::default() }
    }
}

/// What a call of a step is.
#[derive(Debug)]
pub(in crate::lower) enum Origin<'a> {
    /// A program of a library.
    Library(Rc<Library>),
    /// Other steps, which stand in its place.
    Made(Made<'a>),
}

impl Origin<'_> {
    /// What the step comes from, for people.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Library(library) => &library.name,
            Self::Made(made) => &made.path,
        }
    }
}

/// A library whose steps stand in the plan.
#[derive(Debug)]
pub(in crate::lower) struct Library {
    /// Its key in [`Plan::libraries`](model::plan::Plan::libraries).
    pub(in crate::lower) name: Rc<str>,
    pub(in crate::lower) digest: Digest,
}

/// A step made of steps: `step 'name' { … }`.
#[derive(Debug)]
pub(in crate::lower) struct Made<'a> {
    /// The path of its file, from the repository's root.
    pub(in crate::lower) path: Rc<str>,
    pub(in crate::lower) source: Source<'a>,
    /// Its place among the items of that file.
    pub(in crate::lower) item: usize,
}
