//! Patterns of the file: for texts, as in `matches`, and for paths, as in `changed`.

use model::glob::{Glob, GlobError};

use super::Lowering;
use crate::{
    diagnostic::{Code, Finding, excerpt, quoted},
    limits::PATH_PATTERNS_MAX,
    syntax::Name,
};

/// A pattern for paths from the repository's root.
#[derive(Debug, Clone)]
pub(super) struct PathPattern {
    /// The pattern, from the repository's root.
    pub(super) text: String,
    glob: Glob,
    /// Where nothing is special in the pattern, it may be a folder: what its paths begin with.
    folder: Option<String>,
}

impl PathPattern {
    /// A pattern from the repository's root.
    pub(super) fn new(text: String) -> Result<Self, GlobError> {
        let glob = Glob::new(&text)?;
        let folder = glob.literal().map(|literal| format!("{literal}/"));
        Ok(Self { text, glob, folder })
    }

    /// Whether it is the path, matches it, or is a folder that the path lies in.
    pub(super) fn matches(&self, path: &str) -> bool {
        self.glob.matches(path) || self.folder.as_ref().is_some_and(|folder| path.starts_with(folder.as_str()))
    }
}

impl Lowering<'_, '_> {
    /// A pattern for a text; `None` if it is none, which is told.
    pub(super) fn glob(&mut self, pattern: &Name) -> Option<Glob> {
        match Glob::new(&pattern.kind) {
            Ok(glob) => Some(glob),
            Err(error) => {
                let message = format!("{} is no pattern: {error}", quoted(&pattern.kind));
                let help = "`*` is anything but `/`, `**` anything, `?` one character, `[a-z]` one of these, `{a,b}` a choice; `\\*` is `*` itself";
                self.error(Finding::new(Code::Pattern, pattern.span, message).help(help));
                None
            }
        }
    }

    /// A pattern for paths: `./x` begins at the file's folder, `x` at the repository's root. One without special characters stands for a
    /// file, or for all that is in a folder.
    pub(super) fn path_pattern(&mut self, pattern: &Name) -> Option<PathPattern> {
        if pattern.kind.is_empty() {
            self.glob(pattern)?;
        }
        let Name { kind, span } = pattern;
        let text = self.path_of(kind, *span)?;
        self.glob(&Name { kind: text.clone(), span: *span })?;
        let (before, patterns) = (self.memo.patterns.len(), &mut self.memo.patterns);
        if before <= PATH_PATTERNS_MAX {
            patterns.insert(text.clone());
        }
        if patterns.len() > PATH_PATTERNS_MAX {
            if before == PATH_PATTERNS_MAX {
                let message = format!("a plan has at most {PATH_PATTERNS_MAX} different patterns for paths");
                let finding = Finding::new(Code::TooManyPatterns, *span, message).label("one too many");
                self.error(finding.help("write one pattern for several: `{a,b}/**`"));
            }
            return None;
        }
        PathPattern::new(text).ok()
    }

    /// [`Lowering::path_pattern`] of each; `None` if one is wrong.
    pub(super) fn path_patterns(&mut self, patterns: &[Name]) -> Option<Vec<PathPattern>> {
        let patterns: Vec<Option<PathPattern>> = patterns.iter().map(|pattern| self.path_pattern(pattern)).collect();
        patterns.into_iter().collect()
    }
}

/// The patterns in a message.
pub(super) fn listed(patterns: &[PathPattern]) -> String {
    patterns.iter().map(|pattern| excerpt(&pattern.text)).collect::<Vec<_>>().join(", ")
}
