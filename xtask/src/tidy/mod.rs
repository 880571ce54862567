//! The rules of the house that no compiler checks. Each check is a pure function of the repository, and says what is wrong, where, and
//! how it is mended.

mod arrows;
mod files;
mod manifests;
mod rust;
mod sources;

use std::fmt;

use anyhow::Result;

use crate::repository::Repository;

/// A rule that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// The file, with its line where there is one; or the crate.
    place: String,
    what: String,
    mend: String,
}

impl Finding {
    fn new(place: impl Into<String>, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into(), mend: mend.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}\n    {}", self.place, self.what, self.mend)
    }
}

/// Everything that does not hold. Whether generated files are fresh is checked with them, in [`crate::generate`].
pub(crate) fn tidy(repository: &Repository) -> Result<Vec<Finding>> {
    let mut findings = arrows::check(&repository.crates, &repository.arrows);
    findings.extend(manifests::check(repository)?);
    findings.extend(sources::check(repository));
    findings.extend(files::check(&repository.files));
    findings.sort();
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_house_is_tidy() {
        let findings = tidy(&Repository::load().unwrap()).unwrap();
        let lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
        assert!(lines.is_empty(), "{} to mend:\n{}", lines.len(), lines.join("\n"));
    }
}
