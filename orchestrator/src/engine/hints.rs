//! What earlier runs left in caches, as hints for later ones: the newest for each cache and key.
//!
//! The table is derived from the logs of the runs in memory. A hint may be missing, and a stage must do without.
//!
//! **Invariant:** a branch reads what runs of that branch or of a main branch made, as the forge verified them: never what a pull request or a
//! merge queue made, nor a run that somebody asked for with a branch of their own saying.

use std::collections::BTreeMap;

use model::{
    ProjectName,
    context::{CacheScope, TriggerContext},
    event::run::StoredTree,
};
use serde::{Deserialize, Serialize};

/// Hints that are kept; the oldest goes first.
const HINTS_MAX: usize = 20_000;
/// Branches whose caches all branches of a project read, where they have none of their own.
const MAIN_BRANCHES: [&str; 3] = ["main", "master", "trunk"];

/// The scopes that a run of this context reads, the nearest first.
fn readable(context: &TriggerContext) -> Vec<CacheScope> {
    let mut scopes = vec![CacheScope::of(context)];
    let target = context.pull_request.as_ref().map_or(&context.branch, |pull_request| &pull_request.target);
    if !target.is_empty() {
        scopes.push(CacheScope::Branch(target.clone()));
    }
    scopes.extend(MAIN_BRANCHES.map(|branch| CacheScope::Branch(branch.to_owned())));
    scopes
}

/// A cache that an earlier run left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hint {
    /// The project.
    pub project: ProjectName,
    /// Whose it is.
    pub scope: CacheScope,
    /// The path of the stage that made it.
    pub stage: String,
    /// The cache's name there.
    pub cache: String,
    /// Its key, if it has one.
    pub key: Option<String>,
    /// What it has.
    pub tree: StoredTree,
}

/// Which cache is meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    project: ProjectName,
    scope: CacheScope,
    stage: String,
    cache: String,
    key: Option<String>,
}

/// All hints.
#[derive(Debug, Default)]
pub(crate) struct Hints {
    /// With the age of each: the sequence of the record that told of it, and its place in that.
    hints: BTreeMap<Name, ((u64, usize), StoredTree)>,
    by_age: BTreeMap<(u64, usize), Name>,
}

impl Hints {
    /// Notes a cache that a stage left, and when.
    pub(crate) fn note(&mut self, hint: Hint, age: (u64, usize)) {
        let Hint { project, scope, stage, cache, key, tree } = hint;
        let name = Name { project, scope, stage, cache, key };
        if let Some((known, _)) = self.hints.get(&name) {
            if *known >= age {
                return;
            }
            self.by_age.remove(known);
        }
        self.hints.insert(name.clone(), (age, tree));
        self.by_age.insert(age, name);
        if self.by_age.len() > HINTS_MAX
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.hints.remove(&oldest);
        }
    }

    /// The newest that fits, in the nearest scope that has one.
    pub(crate) fn find(
        &self,
        project: &ProjectName,
        context: &TriggerContext,
        stage: &str,
        cache: &str,
        key: Option<&str>,
    ) -> Option<&StoredTree> {
        readable(context).into_iter().find_map(|scope| {
            let name =
                Name { project: project.clone(), scope, stage: stage.to_owned(), cache: cache.to_owned(), key: key.map(str::to_owned) };
            self.hints.get(&name).map(|(_, tree)| tree)
        })
    }

    /// All, the oldest first.
    pub(crate) fn all(&self) -> Vec<Hint> {
        let hint = |name: &Name| {
            let (_, tree) = self.hints.get(name)?;
            let Name { project, scope, stage, cache, key } = name.clone();
            Some(Hint { project, scope, stage, cache, key, tree: tree.clone() })
        };
        self.by_age.values().filter_map(hint).collect()
    }
}

#[cfg(test)]
mod tests {
    use model::{
        Digest,
        context::{EventKind, PullRequest},
    };

    use super::*;

    fn on(branch: &str, event: EventKind) -> TriggerContext {
        TriggerContext { branch: branch.to_owned(), event, ..TriggerContext::default() }
    }

    fn pull_request(number: u64, target: &str) -> TriggerContext {
        let pull_request = Some(PullRequest { number, target: target.to_owned(), source: "topic".to_owned(), fork: true });
        TriggerContext { event: EventKind::PullRequest, pull_request, ..TriggerContext::default() }
    }

    fn tree(text: &str) -> StoredTree {
        StoredTree { archive: Digest::of(text.as_bytes()), bytes: 1, entries: 1 }
    }

    fn note(hints: &mut Hints, context: &TriggerContext, key: Option<&str>, text: &str, age: u64) {
        let hint = Hint {
            project: "demo".parse().unwrap(),
            scope: CacheScope::of(context),
            stage: "Build".to_owned(),
            cache: "cargo".to_owned(),
            key: key.map(str::to_owned),
            tree: tree(text),
        };
        hints.note(hint, (age, 0));
    }

    fn found(hints: &Hints, context: &TriggerContext, key: Option<&str>) -> Option<StoredTree> {
        hints.find(&"demo".parse().unwrap(), context, "Build", "cargo", key).cloned()
    }

    #[test]
    fn a_branch_reads_its_own_caches_and_then_the_main_branchs() {
        let mut hints = Hints::default();
        note(&mut hints, &on("main", EventKind::Push), None, "main", 1);
        assert_eq!(found(&hints, &on("topic", EventKind::Push), None), Some(tree("main")));
        note(&mut hints, &on("topic", EventKind::Push), None, "topic", 2);
        assert_eq!(found(&hints, &on("topic", EventKind::Push), None), Some(tree("topic")));
        assert_eq!(found(&hints, &on("main", EventKind::Push), None), Some(tree("main")));
        assert_eq!(found(&hints, &on("main", EventKind::Push), Some("k")), None, "another key");
    }

    #[test]
    fn what_nobody_verified_is_read_by_no_branch() {
        let mut hints = Hints::default();
        note(&mut hints, &pull_request(7, "main"), None, "from a fork", 1);
        note(&mut hints, &on("main", EventKind::Manual), None, "asked for", 2);
        note(&mut hints, &on("main", EventKind::MergeQueue), None, "not merged", 2);
        for context in [on("main", EventKind::Push), on("topic", EventKind::Push), pull_request(8, "main")] {
            assert_eq!(found(&hints, &context, None), None, "{context:?}");
        }
        assert_eq!(found(&hints, &pull_request(7, "main"), None), Some(tree("from a fork")));
        note(&mut hints, &on("main", EventKind::Push), None, "main", 3);
        assert_eq!(found(&hints, &pull_request(8, "main"), None), Some(tree("main")));
    }

    #[test]
    fn the_newest_counts_and_the_oldest_goes() {
        let mut hints = Hints::default();
        let main = on("main", EventKind::Push);
        note(&mut hints, &main, Some("k"), "new", 5);
        note(&mut hints, &main, Some("k"), "old", 4);
        assert_eq!(found(&hints, &main, Some("k")), Some(tree("new")));
        for age in 0..HINTS_MAX as u64 {
            note(&mut hints, &main, Some(&age.to_string()), "x", 10 + age);
        }
        assert_eq!(found(&hints, &main, Some("k")), None);
        assert_eq!((hints.all().len(), hints.hints.len()), (HINTS_MAX, HINTS_MAX));
    }
}
