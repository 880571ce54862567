//! Holds what a pipeline brings in against the lock file, or collects it for a new one.

use std::{collections::BTreeMap, rc::Rc};

use model::{Digest, diagnostic::Span, lock::Lock, planning::LOCK_FILE};

use super::{Lowering, library::Locked};
use crate::diagnostic::{Code, FileId, Finding, quoted};

/// How a file of a blueprint ends.
const BLUEPRINT_ENDING: &str = ".blueprint";

/// What is known of the lock file.
#[derive(Debug, Clone, Default)]
pub(super) enum LockFile {
    /// It was not looked at yet.
    #[default]
    Unread,
    /// The commit has none.
    Absent,
    /// It has to be asked for, or does not read, which is told.
    Unknown,
    Read {
        file: FileId,
        lock: Rc<Lock>,
    },
}

impl Lowering<'_, '_> {
    fn lock_file(&mut self) -> LockFile {
        if let LockFile::Unread = self.shelf.lock_file {
            self.shelf.lock_file = self.read_lock_file();
        }
        self.shelf.lock_file.clone()
    }

    fn read_lock_file(&mut self) -> LockFile {
        let (path, bytes) = match self.input.files.get_key_value(LOCK_FILE) {
            None => {
                self.needs.files.insert(LOCK_FILE.to_owned());
                return LockFile::Unknown;
            }
            Some((_, None)) => return LockFile::Absent,
            Some((path, Some(bytes))) => (path, bytes),
        };
        let file = self.files.add(path, bytes);
        self.notes.files.insert(path.clone(), Digest::of(bytes));
        match Lock::read(bytes) {
            Ok(lock) => LockFile::Read { file, lock: Rc::new(lock) },
            Err(error) => {
                let start = offset_of(bytes, error.line, error.column);
                let finding = Finding::new(Code::LockFile, Span { start, end: start }, format!("this is no lock file: {}", error.message));
                self.error_in(file, finding.help("run `otto lock` to write it anew, and look at what has changed"));
                LockFile::Unknown
            }
        }
    }

    /// The digest of a remote library.
    pub(super) fn locked_library(&mut self, address: &str) -> Locked {
        if let Some(remote) = self.shelf.locking {
            let Some(digest) = remote.get(address) else {
                self.needs.files.insert(address.to_owned());
                return Locked::Asked;
            };
            self.shelf.locked.libraries.insert(address.to_owned(), *digest);
            return Locked::At(*digest);
        }
        match self.lock_file() {
            LockFile::Unread | LockFile::Unknown => Locked::Asked,
            LockFile::Absent => Locked::Missing,
            LockFile::Read { lock, .. } => lock.libraries.get(address).map_or(Locked::Missing, |digest| Locked::At(*digest)),
        }
    }

    /// Holds a library against the lock file. `span` is where it is brought in; without it, the lock file's own line is marked.
    pub(super) fn pinned_library(&mut self, name: &str, digest: Digest, span: Option<Span>) {
        self.pinned(name, digest, span, |lock| &mut lock.libraries, |lock| &lock.libraries);
    }

    /// Holds a file that is brought in against the lock file.
    pub(super) fn pinned_file(&mut self, path: &str, digest: Digest, span: Span) {
        if path.ends_with(BLUEPRINT_ENDING) {
            self.pinned(path, digest, Some(span), |lock| &mut lock.blueprints, |lock| &lock.blueprints);
        } else {
            self.pinned(&format!("./{path}"), digest, Some(span), |lock| &mut lock.libraries, |lock| &lock.libraries);
        }
    }

    fn pinned(
        &mut self,
        name: &str,
        digest: Digest,
        span: Option<Span>,
        new: fn(&mut Lock) -> &mut BTreeMap<String, Digest>,
        old: fn(&Lock) -> &BTreeMap<String, Digest>,
    ) {
        if self.shelf.locking.is_some() {
            new(&mut self.shelf.locked).insert(name.to_owned(), digest);
            return;
        }
        let LockFile::Read { file, lock } = self.lock_file() else { return };
        let Some(locked) = old(&lock).get(name).filter(|locked| **locked != digest) else { return };
        let message = format!("{} is not what {LOCK_FILE} says", quoted(name));
        let finding = |span| {
            let finding = Finding::new(Code::LockMismatch, span, message).label(format!("this is {digest}"));
            finding
                .help(format!("{LOCK_FILE} has {locked}\nif the change is meant, run `otto lock`, look at the difference, and commit it"))
        };
        if let Some(span) = span {
            return self.error(finding(span));
        }
        let span = self.place_in_lock(name);
        self.error_in(file, finding(span));
    }

    /// Where a name stands in the lock file.
    fn place_in_lock(&self, name: &str) -> Span {
        let text = self.input.files.get(LOCK_FILE).and_then(Option::as_deref).map(String::from_utf8_lossy).unwrap_or_default();
        let name = format!("\"{name}\"");
        text.find(&name).map_or_else(Span::default, |start| Span { start, end: start + name.len() })
    }
}

/// The byte at a place, of which line and column are from 1 and in bytes.
fn offset_of(bytes: &[u8], line: usize, column: usize) -> usize {
    let before: usize = bytes.split_inclusive(|byte| *byte == b'\n').take(line - 1).map(<[u8]>::len).sum();
    (before + column - 1).min(bytes.len())
}
