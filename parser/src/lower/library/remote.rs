//! Libraries from an address: never read without a digest in the lock file.

use std::rc::Rc;

use model::{diagnostic::Span, lock::address_problem, planning::LOCK_FILE};

use super::{Callable, InScope, Library};
use crate::{
    diagnostic::{Code, Finding, quoted},
    lower::Lowering,
};

impl<'a> Lowering<'_, 'a> {
    /// `use 'https://example.org/steps/deploy@1.4.0'`: the lock file has its digest, and its manifest is asked for by the address.
    pub(super) fn remote_library(&mut self, address: &str, span: Span, scope: &mut InScope<'a>) {
        scope.incomplete |= self.read_remote(address, span, scope).is_none();
    }

    fn read_remote(&mut self, address: &str, span: Span, scope: &mut InScope<'a>) -> Option<()> {
        if let Some(problem) = address_problem(address) {
            // A password is not shown.
            let shown = if problem.contains("password") { "the address".to_owned() } else { quoted(address) };
            let finding = Finding::new(Code::LibraryAddress, span, format!("{shown} {problem}"));
            self.error(finding.help("write it with its version: `use 'https://example.org/steps/deploy@1.4.0'`"));
            return None;
        }
        let digest = match self.locked_library(address) {
            Locked::At(digest) => digest,
            Locked::Asked => return None,
            Locked::Missing => {
                let message = format!("the library {} is not locked: {LOCK_FILE} has no digest of it", quoted(address));
                let finding = Finding::new(Code::NotLocked, span, message);
                self.error(finding.help(format!("run `otto lock`, look at what it brings in, and commit {LOCK_FILE}")));
                return None;
            }
        };
        let (path, bytes) = self.bytes(address, span)?;
        let manifest = self.manifest(path, bytes)?;
        let origin = Rc::new(Library { name: Rc::from(address), digest });
        self.brought(Callable::of_library(std::borrow::Cow::Owned(manifest), &origin), span, scope);
        Some(())
    }
}

/// What the lock file has of a library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::lower) enum Locked {
    /// Its digest.
    At(model::Digest),
    /// Nothing.
    Missing,
    /// The lock file, or the digest, has to be asked for; or the lock file does not read, which is told.
    Asked,
}
