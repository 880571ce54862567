//! Step libraries: what `use` brings into a file, and the steps that this file may call.
//!
//! A scope belongs to a file: what a blueprint or a library calls is looked up in what that file uses, never in its caller's libraries.

mod made;
mod manifest;
mod remote;
mod scope;

use std::{borrow::Cow, rc::Rc};

use model::{
    Digest,
    diagnostic::Span,
    lock::Lock,
    planning::{ARCHIVE_DIGEST, ARCHIVE_ENDING},
};

pub(super) use self::{
    made::entry_in,
    remote::Locked,
    scope::{Callable, InScope, Library, Made, Origin, Shelf},
};
use super::{Lowering, STANDARD_LIBRARY};
use crate::{
    diagnostic::{Code, Finding, excerpt, quoted},
    syntax::{Call, Entry, Item, ItemKind, Tail, ValueKind},
};

/// The file of a folder that says what step it is.
const MANIFEST_FILE: &str = "manifest.yml";
/// How a file of steps made of steps ends.
const FILE_ENDING: &str = ".otto";

impl<'a> Lowering<'_, 'a> {
    /// The steps that the file that is being read may call.
    pub(super) fn scope_of_steps(&mut self) -> Rc<InScope<'a>> {
        let id = self.source.id;
        if let Some(scope) = self.shelf.in_scope.get(&id) {
            return Rc::clone(scope);
        }
        let mut scope = InScope::default();
        let tree = Rc::clone(&self.source.tree);
        let is = |words: &[&str]| {
            tree.items.iter().any(|item| matches!(&item.kind, ItemKind::Entry(entry) if words.contains(&entry.name.kind.as_str())))
        };
        if is(&["step"]) && !is(&["pipeline", "blueprint"]) {
            self.own_steps(&mut scope);
        }
        for item in &tree.items {
            match &item.kind {
                ItemKind::Entry(entry) if entry.name.kind == "use" => self.used_by(entry, &mut scope),
                ItemKind::Entry(_) | ItemKind::Value(_) | ItemKind::Condition(_) => {}
            }
        }
        self.standard_library(&mut scope);
        let scope = Rc::new(scope);
        self.shelf.in_scope.insert(id, Rc::clone(&scope));
        scope
    }

    /// `use stdlib` and `use { stdlib … }`.
    fn used_by(&mut self, entry: &Entry, scope: &mut InScope<'a>) {
        let help = "write `use stdlib` or `use { stdlib './common/slack' }`";
        let Tail::Call(call) = &entry.tail else {
            let finding = Finding::new(Code::Shape, entry.name.span, "`use` takes libraries");
            return self.error(finding.help(help));
        };
        if call.arguments.is_empty() && call.block.is_none() {
            let finding = Finding::new(Code::Shape, entry.name.span, "`use` of nothing");
            return self.error(finding.help(help));
        }
        for argument in &call.arguments {
            self.used_library(&argument.value.kind, argument.value.span, scope);
        }
        for item in call.block.iter().flat_map(|block| &block.kind) {
            self.used_item(item, scope);
        }
    }

    fn used_item(&mut self, item: &Item, scope: &mut InScope<'a>) {
        match &item.kind {
            ItemKind::Value(value) => self.used_library(value, item.span, scope),
            ItemKind::Entry(Entry { name, tail: Tail::Call(Call { arguments, block: None }) }) => {
                self.named_library(&name.kind, name.span, scope);
                for argument in arguments {
                    self.used_library(&argument.value.kind, argument.value.span, scope);
                }
            }
            ItemKind::Entry(_) | ItemKind::Condition(_) => self.no_library(item.span),
        }
    }

    fn used_library(&mut self, value: &ValueKind, span: Span, scope: &mut InScope<'a>) {
        match value {
            ValueKind::Name(name) => self.named_library(name, span, scope),
            ValueKind::Text(written) if written.contains("://") => self.remote_library(written, span, scope),
            ValueKind::Text(written) => self.local_library(written, span, scope),
            ValueKind::List(items) => {
                for item in items {
                    self.used_item(item, scope);
                }
            }
            ValueKind::Wrong => scope.incomplete = true,
            ValueKind::Integer(_)
            | ValueKind::Decimal(_)
            | ValueKind::Duration(_)
            | ValueKind::Size(_)
            | ValueKind::Boolean(_)
            | ValueKind::Block(_)
            | ValueKind::Call(_)
            | ValueKind::Condition(_) => self.no_library(span),
        }
    }

    fn no_library(&mut self, span: Span) {
        self.error(Finding::new(Code::Shape, span, "this is no library").help("a library is a name or a path in quotes"));
    }

    fn named_library(&mut self, name: &str, span: Span, scope: &mut InScope<'a>) {
        let libraries = self.input.libraries;
        if name == STANDARD_LIBRARY {
            return;
        }
        if let Some(library) = libraries.iter().find(|library| library.name == name) {
            self.pinned_library(name, library.digest, Some(span));
            let origin = Rc::new(Library { name: Rc::from(name), digest: library.digest });
            for manifest in &library.steps {
                self.brought(Callable::of_library(Cow::Borrowed(manifest), &origin), span, scope);
            }
            return;
        }
        scope.incomplete = true;
        let near = self.did_you_mean(name, libraries.iter().map(|library| library.name.as_str()));
        let help = format!("{near}\nthe path of a library stands in quotes: `use {{ './{}' }}`", excerpt(name));
        self.error(Finding::new(Code::UnknownLibrary, span, format!("there is no library {}", quoted(name))).help(help.trim_start()));
    }

    /// The steps of the standard library are in scope in every file; a library that a file names goes before it.
    fn standard_library(&mut self, scope: &mut InScope<'a>) {
        let libraries = self.input.libraries;
        let Some(library) = libraries.iter().find(|library| library.name == STANDARD_LIBRARY) else { return };
        self.pinned_library(STANDARD_LIBRARY, library.digest, None);
        let origin = Rc::new(Library { name: Rc::from(STANDARD_LIBRARY), digest: library.digest });
        for manifest in &library.steps {
            if let Some(taken) = scope.get(&manifest.symbol) {
                let message = format!("the step {} goes before that of the standard library", quoted(&manifest.symbol));
                let finding = Finding::new(Code::StandardStepHidden, taken.place, message).label("this one is called");
                self.error(finding.help("give it another name if the standard library's is meant, too"));
            } else {
                scope.insert(Callable::of_library(Cow::Borrowed(manifest), &origin));
            }
        }
    }

    /// `use './common/slack'`: a folder with a manifest, such a folder in one file, or a file of steps made of steps.
    fn local_library(&mut self, written: &str, span: Span, scope: &mut InScope<'a>) {
        let Some(path) = self.path_of(written, span) else {
            scope.incomplete = true;
            return;
        };
        let read = if path.ends_with(FILE_ENDING) {
            self.file_library(&path, span, scope)
        } else if path.ends_with(ARCHIVE_ENDING) {
            self.archive_library(&path, span, scope)
        } else {
            self.folder_or_file(&path, span, scope)
        };
        scope.incomplete |= read.is_none();
    }

    fn folder_or_file(&mut self, path: &str, span: Span, scope: &mut InScope<'a>) -> Option<()> {
        let (folder, file) = (format!("{path}/{MANIFEST_FILE}"), format!("{path}{FILE_ENDING}"));
        let (in_folder, in_file) = (self.is_there(&folder), self.is_there(&file));
        match (in_folder?, in_file?) {
            (true, false) => self.folder_library(path, span, scope),
            (false, true) => self.file_library(&file, span, scope),
            (true, true) => {
                let message = format!("there are a folder {} and a file {}", quoted(path), quoted(&file));
                self.error(
                    Finding::new(Code::NoFile, span, message)
                        .help("name the file with its ending, or the folder with a `/` and rename the file"),
                );
                None
            }
            (false, false) => {
                let message = format!("there is no library {}: neither {} nor {}", quoted(path), quoted(&folder), quoted(&file));
                let finding = Finding::new(Code::NoFile, span, message);
                self.error(finding.help("paths begin at the repository's root, or with `./` at this file's folder"));
                None
            }
        }
    }

    /// Whether there is a file; `None` if it has to be asked for.
    fn is_there(&mut self, path: &str) -> Option<bool> {
        let file = self.input.files.get(path);
        if file.is_none() {
            self.needs.files.insert(path.to_owned());
        }
        file.map(Option::is_some)
    }

    /// A folder with a manifest: one step.
    fn folder_library(&mut self, folder: &str, span: Span, scope: &mut InScope<'a>) -> Option<()> {
        let (path, bytes) = self.bytes(&format!("{folder}/{MANIFEST_FILE}"), span)?;
        let digest = self.folder_digest(folder, bytes);
        self.one_step((path, bytes), folder, digest, span, scope)
    }

    /// Such a folder in one file: it is what its bytes are.
    fn archive_library(&mut self, archive: &str, span: Span, scope: &mut InScope<'a>) -> Option<()> {
        let place = format!("{archive}/{ARCHIVE_DIGEST}");
        let told = self.input.files.get(&place);
        if told.is_none() {
            self.needs.files.insert(place);
        }
        let read = self.bytes(&format!("{archive}/{MANIFEST_FILE}"), span)?;
        let digest = told.map(|digest| str::from_utf8(digest.as_deref()?).ok()?.parse().ok());
        if digest == Some(None) {
            let finding = Finding::new(Code::NoFile, span, format!("there is no archive {}", quoted(archive)));
            self.error(finding.help("paths begin at the repository's root, or with `./` at this file's folder"));
            return None;
        }
        self.one_step(read, archive, digest.flatten(), span, scope)
    }

    /// The step of a manifest that was read from `path`, a folder or an archive. Without a digest, there is no plan of it yet, but its
    /// calls can be looked at.
    fn one_step(
        &mut self,
        (file, bytes): (&'a str, &'a [u8]),
        path: &str,
        digest: Option<Digest>,
        span: Span,
        scope: &mut InScope<'a>,
    ) -> Option<()> {
        let manifest = self.manifest(file, bytes)?;
        let name = format!("./{path}");
        if let Some(digest) = digest {
            self.pinned_library(&name, digest, Some(span));
        }
        let origin = Rc::new(Library { name: Rc::from(name), digest: digest.unwrap_or_else(|| Digest::of(bytes)) });
        self.brought(Callable::of_library(Cow::Owned(manifest), &origin), span, scope);
        Some(())
    }

    /// What names a folder's contents: its manifest, and git's object id of every file in it.
    fn folder_digest(&mut self, folder: &str, manifest: &[u8]) -> Option<Digest> {
        let Some(listing) = self.input.listing else {
            self.needs.listing = true;
            return None;
        };
        let prefix = format!("{folder}/");
        let inside = listing.range(prefix.clone()..).take_while(|(path, _)| path.starts_with(&prefix));
        let files = inside.filter_map(|(path, id)| Some((path.strip_prefix(&prefix)?, id.as_str())));
        Some(Lock::of_folder(manifest, files))
    }

    /// Brings a step into scope, unless another library has one of its name.
    fn brought(&mut self, callable: Callable<'a>, span: Span, scope: &mut InScope<'a>) {
        let callable = Callable { place: span, ..callable };
        let symbol = callable.manifest.symbol.clone();
        if let Some(first) = scope.get(&symbol) {
            if first.origin.name() == callable.origin.name() {
                return;
            }
            let message = format!("two libraries have a step {}: {} and {}", quoted(&symbol), first.origin.name(), callable.origin.name());
            let finding = Finding::new(Code::StepTwice, span, message).label("the second");
            return self.error(finding.help("rename one of the two steps, or leave out one of the libraries"));
        }
        scope.insert(callable);
    }
}
