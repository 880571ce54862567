//! Names of stages: unique in their group, and how a stage is found by its name.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use model::diagnostic::Span;

use crate::{diagnostic::FileId, lower::declare::Label};

/// The names of one group. Branches belong to the group around their block.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// The names that are written, with where they stand first.
    pub(super) taken: BTreeMap<String, (FileId, Span)>,
    /// The names of what is laid out already.
    pub(super) placed: BTreeSet<String>,
    fanouts: usize,
    /// How often a word stands for a name, with what tells it from the other branches of an `each`.
    words: BTreeMap<(&'static str, String), usize>,
}

impl Names {
    /// The name of what has none: one that nothing else in the group has.
    pub(super) fn of_word(&mut self, word: &'static str, suffix: &str) -> String {
        loop {
            let count = self.words.entry((word, suffix.to_owned())).or_default();
            *count += 1;
            let name = if *count == 1 { format!("{word}{suffix}") } else { format!("{word}-{count}{suffix}") };
            if !self.taken.contains_key(&name) {
                return name;
            }
        }
    }

    /// The name of the group's next `fanout` block.
    pub(super) fn of_fanout(&mut self) -> String {
        self.fanouts += 1;
        if self.fanouts == 1 { "fanout".to_owned() } else { format!("fanout-{}", self.fanouts) }
    }

    pub(super) fn of(&mut self, label: &Label) -> String {
        match label {
            Label::Named(name) => name.clone(),
            Label::Unnamed { word, suffix } => self.of_word(word, suffix),
        }
    }
}

/// Stages, and groups of them, by path and by name. A stage is known by its place in the order in which stages are written.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// What one waits for who waits for this path.
    paths: BTreeMap<String, Vec<usize>>,
    /// The same by where the word of a stage or a group stands, for all that `each` and blueprints make of it.
    declared: BTreeMap<(FileId, Span), Vec<usize>>,
    /// The paths that end with this name.
    last: BTreeMap<String, Vec<String>>,
    /// The paths that end with this name and what an `each` adds to it.
    combinations: BTreeMap<String, Vec<String>>,
}

impl Groups {
    /// Adds a stage, or a group with the stages that end it.
    pub(super) fn add(&mut self, path: &str, name: &str, ends: &[usize]) {
        let Entry::Vacant(vacant) = self.paths.entry(path.to_owned()) else { return };
        vacant.insert(ends.to_vec());
        self.last.entry(name.to_owned()).or_default().push(path.to_owned());
        if let Some((stem, _)) = name.split_once(" (").filter(|_| name.ends_with(')')) {
            self.combinations.entry(stem.to_owned()).or_default().push(path.to_owned());
        }
    }

    /// Adds what is made of a stage or a group that is written there.
    pub(super) fn declare(&mut self, file: FileId, word: Span, ends: &[usize]) {
        self.declared.entry((file, word)).or_default().extend_from_slice(ends);
    }

    /// What is made of the stage or the group that is written there.
    pub(super) fn declared(&self, file: FileId, word: Span) -> &[usize] {
        self.declared.get(&(file, word)).map(Vec::as_slice).unwrap_or_default()
    }

    /// What stands at this path.
    pub(super) fn at(&self, path: &str) -> Option<&[usize]> {
        self.paths.get(path).map(Vec::as_slice)
    }

    /// The paths that end with this name.
    pub(super) fn named(&self, name: &str) -> &[String] {
        self.last.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// The paths of the branches of an `each` that have this name but for what the `each` adds.
    pub(super) fn combinations(&self, name: &str) -> &[String] {
        self.combinations.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// Every path and every last name, for suggestions.
    pub(super) fn all(&self) -> impl Iterator<Item = &str> + Clone {
        self.paths.keys().chain(self.last.keys()).map(String::as_str)
    }
}
