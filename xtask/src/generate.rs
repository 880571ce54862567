//! Files that are made from others. They are committed, so that one can read them without building anything, and checked to be fresh.

mod lints;
mod rfc_index;

use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::{command, repository::Repository, say};

/// A generated file, and what makes it.
struct Generated {
    /// From the root.
    path: &'static str,
    /// Gives its whole text. One that needs another crate of the workspace may run that crate's binary with [`command::output`].
    produce: fn(&Repository) -> Result<String>,
}

/// Files that are made here: a new one is one more row.
const GENERATED: [Generated; 2] = [
    Generated { path: "rfc/README.md", produce: rfc_index::produce },
    Generated { path: "orchestrator/clippy.toml", produce: lints::produce },
];

/// Generated files that a test of their own crate compares, and writes where it is asked to.
struct OfTest {
    /// From the root: a file, or folders.
    path: &'static str,
    /// The test, as cargo is told to run it.
    test: &'static [&'static str],
    /// Set, the test writes them.
    variable: &'static str,
}

/// Files that are made from the code of another crate, on which this one must not depend.
const OF_TESTS: [OfTest; 4] = [
    OfTest {
        path: "docs/settings.md",
        test: &["cargo", "test", "--quiet", "--package", "service", "--lib", "the_documented_settings_are_fresh"],
        variable: "UPDATE_SPEC",
    },
    OfTest {
        path: "stdlib/library.json",
        test: &["cargo", "test", "--quiet", "--package", "stdlib", "--lib", "the_committed_library_is_fresh"],
        variable: "UPDATE_SPEC",
    },
    OfTest {
        path: "apispec/openapi/orchestrator.json",
        test: &["cargo", "test", "--quiet", "--package", "orchestrator", "--test", "it", "the_committed_document_is_fresh"],
        variable: "UPDATE_SPEC",
    },
    OfTest {
        path: "apispec/asyncapi and apispec/schema",
        test: &["cargo", "test", "--quiet", "--package", "eventbus", "--test", "it", "the_committed_documents_of_the_bus_are_fresh"],
        variable: "UPDATE_SPEC",
    },
];

/// Writes those that are not fresh.
pub(crate) fn write(repository: &Repository) -> Result<()> {
    for (path, text) in stale(repository)? {
        fs::write(repository.root.join(path), text).with_context(|| format!("cannot write {path}"))?;
        say(&format!("wrote {path}"));
    }
    for OfTest { path, test, variable } in OF_TESTS {
        say(&format!("the test that has {path} writes it"));
        command::run_with(&repository.root, test, &[(variable, "1")])?;
    }
    Ok(())
}

/// Fails if one is not fresh. Those of tests are checked where all tests are run.
pub(crate) fn check(repository: &Repository) -> Result<()> {
    let stale: Vec<&str> = stale(repository)?.into_iter().map(|(path, _)| path).collect();
    ensure!(stale.is_empty(), "not fresh: {}; `cargo xtask generate` writes what they should be", stale.join(", "));
    Ok(())
}

/// Those that are not fresh, as they should be.
fn stale(repository: &Repository) -> Result<Vec<(&'static str, String)>> {
    let mut stale = Vec::new();
    for Generated { path, produce } in GENERATED {
        let text = produce(repository).with_context(|| format!("cannot make {path}"))?;
        if repository.file(path).is_none_or(|file| file.text != text) {
            stale.push((path, text));
        }
    }
    Ok(stale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_files_are_fresh() {
        check(&Repository::load().unwrap()).unwrap();
    }
}
