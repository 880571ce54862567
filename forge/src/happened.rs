//! What has happened at a forge, whoever told of it: the common form of webhooks, hooks of git and polls.
//!
//! **Invariant:** its identity is what happened, not who told of it how often, so the same thing is one run for ever.

use std::{collections::BTreeMap, fmt};

use model::{
    ProjectName, TriggerId,
    context::{EventKind, PullRequest, TriggerContext},
};

use crate::{delivery::REF_BYTES_MAX, git::ObjectId};

/// What the names of branches begin with.
pub(crate) const BRANCHES: &str = "refs/heads/";
/// What the names of tags begin with.
pub(crate) const TAGS: &str = "refs/tags/";

/// What the branches of GitHub's merge queue begin with. What is pushed there is told as a merge group, too.
pub(crate) const QUEUE: &str = "gh-readonly-queue/";

/// The name of a ref as `git check-ref-format` lets pass, of a length that fits into the views of a run. It is no option, no revision
/// expression and no pattern.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RefName(String);

impl RefName {
    /// The name, if it is one below `refs/`.
    pub(crate) fn new(name: impl Into<String>) -> Option<Self> {
        let name = name.into();
        let forbidden = |c: char| c.is_control() || matches!(c, ' ' | '~' | '^' | ':' | '?' | '*' | '[' | '\\');
        let part_is_good = |part: &str| !part.is_empty() && !part.starts_with('.') && part.strip_suffix(".lock").is_none();
        let is_good = name.strip_prefix("refs/").is_some_and(|rest| rest.split('/').all(part_is_good))
            && name.len() <= REF_BYTES_MAX
            && !name.contains(forbidden)
            && !name.contains("..")
            && !name.contains("@{")
            && !name.ends_with('.');
        is_good.then_some(Self(name))
    }

    /// The branch that it is, without `refs/heads/`.
    pub(crate) fn branch_name(&self) -> Option<&str> {
        self.0.strip_prefix(BRANCHES)
    }

    /// A branch by its short name.
    pub(crate) fn branch(name: &str) -> Option<Self> {
        Self::new(format!("{BRANCHES}{name}"))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RefName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Something that may start a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Happened {
    pub(crate) what: What,
    /// The ref that leads to the commit.
    pub(crate) name: RefName,
    /// The commit that is to be run.
    pub(crate) commit: ObjectId,
    /// Who caused it, as the forge knows them.
    pub(crate) actor: Option<String>,
}

/// What kind of thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// A branch was pushed, and was at `previous` before; `None` if it is new.
    Push { branch: String, previous: Option<ObjectId> },
    /// A tag was pushed.
    Tag { tag: String },
    /// A pull request was opened or has new commits.
    PullRequest(PullRequest),
    /// A merge queue asks about what it would make of `branch`, which is at `base`.
    MergeQueue { branch: String, base: Option<ObjectId> },
    /// A line of `cron` was due on the default branch, in this minute since 1970.
    Cron { branch: String, line: String, minute: u64 },
    /// Somebody who may asked for a run of the branch or tag; the other one is empty.
    Asked { branch: String, tag: String, parameters: BTreeMap<String, String>, timeout_ms: Option<u64> },
}

impl Happened {
    /// What the pipeline may ask for, but for the base.
    pub(crate) fn context(&self) -> TriggerContext {
        let context = TriggerContext { commit: self.commit.to_string(), ..TriggerContext::default() };
        match &self.what {
            What::Push { branch, .. } => TriggerContext { event: EventKind::Push, branch: branch.clone(), ..context },
            What::Tag { tag } => TriggerContext { event: EventKind::Tag, tag: tag.clone(), ..context },
            What::PullRequest(pull_request) => {
                TriggerContext { event: EventKind::PullRequest, pull_request: Some(pull_request.clone()), ..context }
            }
            What::MergeQueue { branch, .. } => TriggerContext { event: EventKind::MergeQueue, branch: branch.clone(), ..context },
            What::Cron { branch, line, .. } => {
                TriggerContext { event: EventKind::Cron, branch: branch.clone(), cron: line.clone(), ..context }
            }
            What::Asked { branch, tag, parameters, timeout_ms: _ } => TriggerContext {
                event: EventKind::Manual,
                branch: branch.clone(),
                tag: tag.clone(),
                parameters: parameters.clone(),
                ..context
            },
        }
    }

    /// The trigger that it is for a project.
    pub(crate) fn trigger(&self, project: &ProjectName) -> TriggerId {
        let (kind, what) = match &self.what {
            What::Push { .. } => (EventKind::Push, self.name.to_string()),
            What::Tag { .. } => (EventKind::Tag, self.name.to_string()),
            // A pull request's ref is named after its number, and never by another forge's way, as the project has one forge.
            What::PullRequest(pull_request) => (EventKind::PullRequest, pull_request.number.to_string()),
            What::MergeQueue { .. } => (EventKind::MergeQueue, self.name.to_string()),
            // Who asks says which requests are one; this is for whoever does not.
            What::Asked { .. } => (EventKind::Manual, self.name.to_string()),
            // The commit is not part of it: two forges may see two, and the minute is one.
            What::Cron { line, minute, .. } => return TriggerId::of("cron", &format!("{project} {minute} {line}")),
        };
        // No part but the last can have a space in it.
        TriggerId::of("forge", &format!("{project} {} {what} {}", kind.as_str(), self.commit))
    }

    /// How long the whole run may take, where whoever asked for it has said so.
    pub(crate) fn timeout_ms(&self) -> Option<u64> {
        match &self.what {
            What::Asked { timeout_ms, .. } => *timeout_ms,
            What::Push { .. } | What::Tag { .. } | What::PullRequest(_) | What::MergeQueue { .. } | What::Cron { .. } => None,
        }
    }

    /// What it is of, for people.
    pub(crate) fn shown(&self) -> String {
        match &self.what {
            What::Push { branch, .. } | What::MergeQueue { branch, .. } | What::Cron { branch, .. } => branch.clone(),
            What::Tag { tag } => tag.clone(),
            What::Asked { branch, tag, .. } => if tag.is_empty() { branch } else { tag }.clone(),
            What::PullRequest(pull_request) => format!("#{}", pull_request.number),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_git_takes_for_a_ref_is_a_ref() {
        for name in ["refs/heads/main", "refs/heads/a/b-c", "refs/heads/-x", "refs/heads/ü", "refs/pull/7/head", "refs/heads/a@b"] {
            assert!(RefName::new(name).is_some(), "{name}");
        }
        let long = format!("refs/heads/{}", "x".repeat(REF_BYTES_MAX));
        for name in [
            "",
            "main",
            "-u",
            "refs/",
            "refs/heads/",
            "refs/heads//x",
            "refs/heads/a..b",
            "refs/heads/a b",
            "refs/heads/a\nb",
            "refs/heads/a:b",
            "refs/heads/*",
            "refs/heads/a^{tree}",
            "refs/heads/a@{1}",
            "refs/heads/.a",
            "refs/heads/a.lock",
            "refs/heads/a.",
            "refs/../x",
            "+refs/heads/a",
            &long,
        ] {
            assert!(RefName::new(name).is_none(), "{name}");
        }
    }
}
