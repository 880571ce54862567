//! Libraries from an address: never read without a digest in the lock file.

use std::rc::Rc;

use model::{diagnostic::Span, planning::LOCK_FILE};

use super::{Callable, InScope, Library};
use crate::{
    diagnostic::{Code, Finding, quoted},
    lower::Lowering,
};

/// Why an address names no library.
fn problem_of(address: &str) -> Option<&'static str> {
    let loopback = ["http://127.0.0.1:", "http://[::1]:", "http://localhost:"].iter().any(|start| address.starts_with(start));
    let rest = address.split_once("://").map_or("", |(_, rest)| rest);
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let version = path.rsplit_once('@').map(|(_, version)| version);
    let is_version = |version: &str| {
        !version.is_empty()
            && version.chars().all(|character| character.is_ascii_alphanumeric() || matches!(character, '.' | '-' | '_' | '+'))
    };
    if !address.starts_with("https://") && !loopback {
        Some("is no address of a library: it begins with `https://`")
    } else if host.contains('@') {
        Some("has a user or a password in it")
    } else if host.is_empty() || address.chars().any(|character| character.is_whitespace() || character.is_control()) {
        Some("is no address")
    } else if !version.is_some_and(is_version) {
        Some("has no version")
    } else {
        None
    }
}

impl<'a> Lowering<'_, 'a> {
    /// `use 'https://example.org/steps/deploy@1.4.0'`: the lock file has its digest, and its manifest is asked for by the address.
    pub(super) fn remote_library(&mut self, address: &str, span: Span, scope: &mut InScope<'a>) {
        scope.incomplete |= self.read_remote(address, span, scope).is_none();
    }

    fn read_remote(&mut self, address: &str, span: Span, scope: &mut InScope<'a>) -> Option<()> {
        if let Some(problem) = problem_of(address) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_https_with_a_version() {
        for (address, sound) in [
            ("https://example.org/steps/deploy@1.4.0", true),
            ("http://127.0.0.1:8080/deploy@1", true),
            ("http://example.org/deploy@1", false),
            ("http://127.0.0.1.example.org/deploy@1", false),
            ("https://user:secret@example.org/deploy@1", false),
            ("https://example.org/deploy", false),
            ("https://example.org/deploy@", false),
            ("https://example.org@1.0", false),
            ("https:///deploy@1", false),
            ("git://example.org/deploy@1", false),
            ("https://example.org/de ploy@1", false),
        ] {
            assert_eq!(problem_of(address).is_none(), sound, "{address}");
        }
    }
}
