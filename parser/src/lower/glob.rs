//! Patterns of the file: for texts, as in `matches`, and for paths, as in `changed`.

use std::rc::Rc;

use model::{
    diagnostic::Span,
    glob::{Glob, GlobError},
};

use super::Lowering;
use crate::{
    Changed,
    diagnostic::{Code, Finding, excerpt, quoted},
    limits::{PATH_PATTERNS_MAX, PATH_STEPS_MAX},
    syntax::Name,
};

/// What a path that is kept costs, in steps of matching.
const FOUND_STEPS: usize = 16;

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
        self.matches_counting(path, &mut 0)
    }

    fn matches_counting(&self, path: &str, steps: &mut usize) -> bool {
        self.glob.matches_counting(path, steps) || self.folder.as_ref().is_some_and(|folder| path.starts_with(folder.as_str()))
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

impl<'a> Lowering<'_, 'a> {
    /// The commit's paths; `None` if they have to be asked for.
    pub(super) fn listed_paths(&mut self) -> Option<Rc<[&'a str]>> {
        let Some(listing) = self.input.listing else {
            self.needs.listing = true;
            return None;
        };
        let paths = self.memo.listed.get_or_insert_with(|| listing.keys().map(String::as_str).collect());
        Some(Rc::clone(paths))
    }

    /// What changed, in the order of the paths' bytes, whatever the order in which it is given; nothing where that is not known.
    /// `None` if it has to be asked for.
    pub(super) fn changed_paths(&mut self) -> Option<Rc<[&'a str]>> {
        let Some(changed) = self.input.changed else {
            self.needs.changed = true;
            return None;
        };
        let paths = self.memo.changed.get_or_insert_with(|| match changed {
            Changed::Unknown => Rc::from([]),
            Changed::Paths(paths) => {
                let mut paths: Vec<&str> = paths.iter().map(String::as_str).collect();
                paths.sort_unstable();
                paths.into()
            }
        });
        Some(Rc::clone(paths))
    }

    /// The first paths of these, which are in order, that a pattern matches, `count` at most. `None` if looking took too much, which is told.
    pub(super) fn matching(&mut self, pattern: &PathPattern, paths: &[&'a str], count: usize, span: Span) -> Option<Vec<&'a str>> {
        let prefix = pattern.glob.prefix();
        let begin = paths.partition_point(|path| *path < prefix);
        let mut found = Vec::new();
        for path in paths[begin..].iter().take_while(|path| path.starts_with(prefix)) {
            if self.memo.path_steps > PATH_STEPS_MAX || found.len() == count {
                break;
            }
            if pattern.matches_counting(path, &mut self.memo.path_steps) {
                self.memo.path_steps += FOUND_STEPS;
                found.push(*path);
            }
        }
        self.path_steps_left(0, span).then_some(found)
    }

    /// Counts work on paths. `false` if it is too much, which is told.
    pub(super) fn path_steps_left(&mut self, more: usize, span: Span) -> bool {
        self.memo.path_steps += more;
        if self.memo.path_steps > PATH_STEPS_MAX {
            let message = "the patterns of this plan are held against too many paths";
            let help = "begin patterns with a folder, `services/**` instead of `**/x`, or ask for the same ones again";
            self.error(Finding::new(Code::TooManyPatterns, span, message).help(help));
        }
        self.memo.path_steps <= PATH_STEPS_MAX
    }
}

/// The patterns in a message.
pub(super) fn listed(patterns: &[PathPattern]) -> String {
    patterns.iter().map(|pattern| excerpt(&pattern.text)).collect::<Vec<_>>().join(", ")
}
