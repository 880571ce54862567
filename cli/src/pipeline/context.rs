//! The facts that a plan is made for: as the command line gives them, else as the repository has them.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, ensure};
use clap::{Args, ValueEnum};
use model::context::{EventKind, PullRequest, TriggerContext};

use super::git::{Head, asked, head};

/// For which trigger the plan is made
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Context, taken from the repository unless given")]
pub struct ContextArgs {
    /// The branch
    #[arg(long)]
    branch: Option<String>,
    /// The tag; the event is then `tag`
    #[arg(long, conflicts_with_all = ["branch", "pr"])]
    tag: Option<String>,
    /// The event
    #[arg(long, value_enum)]
    event: Option<Event>,
    /// A pull request between two branches; `:fork` if its commits are in another repository. The event is then `pull_request`
    #[arg(long, value_name = "SOURCE:TARGET[:fork]", value_parser = pull_request, conflicts_with = "branch")]
    pr: Option<PullRequest>,
    /// A parameter of the pipeline; can be given several times
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = parameter)]
    parameters: Vec<(String, String)>,
    /// Take these paths for what changed, instead of asking git
    #[arg(long, value_name = "PATH", num_args = 1..)]
    changed: Option<Vec<String>>,
    /// The commit that changes are compared with
    #[arg(long, conflicts_with = "changed")]
    base: Option<String>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Event {
    /// A branch was pushed
    Push,
    /// A tag was pushed
    Tag,
    /// A pull request was opened or changed
    PullRequest,
    /// A merge queue asks whether its next state is good
    MergeQueue,
    /// A time of the pipeline's `cron` has come
    Cron,
    /// Somebody asked for the run
    Manual,
}

impl From<Event> for EventKind {
    fn from(event: Event) -> Self {
        match event {
            Event::Push => Self::Push,
            Event::Tag => Self::Tag,
            Event::PullRequest => Self::PullRequest,
            Event::MergeQueue => Self::MergeQueue,
            Event::Cron => Self::Cron,
            Event::Manual => Self::Manual,
        }
    }
}

impl ContextArgs {
    /// These, with a value for each parameter that has none.
    #[must_use]
    pub fn with_missing(&self, values: BTreeMap<String, String>) -> Self {
        let is_missing = |name: &String| !self.parameters.iter().any(|(given, _)| given == name);
        let missing = values.into_iter().filter(|(name, _)| is_missing(name));
        Self { parameters: missing.chain(self.parameters.clone()).collect(), ..self.clone() }
    }

    /// The paths that were given for what changed.
    pub(super) fn changed(&self) -> Option<&[String]> {
        self.changed.as_deref()
    }

    /// The facts, but for the commit that changes are compared with. `commit` is the one whose files are planned; without one, it is the one
    /// that is checked out at `root`, if that is a repository. `event` is what happened where nothing tells.
    pub(super) fn resolve(&self, root: &Path, commit: Option<&str>, event: EventKind) -> anyhow::Result<TriggerContext> {
        let head = if root.join(".git").exists() { head(root) } else { Head::default() };
        let commit = commit.map_or(head.commit, ToOwned::to_owned);
        let branch = match &self.branch {
            Some(branch) => branch.clone(),
            None if self.tag.is_some() || self.pr.is_some() => String::new(),
            None => head.branch,
        };
        let is_untold = branch.is_empty() && self.pr.is_none() && !commit.is_empty();
        let tag = self.tag.clone().unwrap_or_else(|| if is_untold { tag_of(root, &commit) } else { String::new() });
        let event = match self.event {
            Some(event) => event.into(),
            None if self.pr.is_some() => EventKind::PullRequest,
            None if self.tag.is_some() => EventKind::Tag,
            None => event,
        };
        ensure!(event != EventKind::PullRequest || self.pr.is_some(), "say which pull request: --pr SOURCE:TARGET");
        let base = match &self.base {
            Some(base) => {
                let commit = asked(root, &["rev-parse", "--verify", "-q", "--end-of-options", &format!("{base}^{{commit}}")]);
                commit.with_context(|| format!("there is no commit `{base}`"))?
            }
            None => String::new(),
        };
        let parameters = self.parameters.iter().cloned().collect();
        Ok(TriggerContext { event, branch, tag, pull_request: self.pr.clone(), commit, base, cron: String::new(), parameters })
    }

    /// The merge base with what the commit would be merged into; else the commit before it. Git takes its time for it, and few pipelines ask.
    pub(super) fn base_of(&self, root: &Path, commit: &str) -> String {
        if commit.is_empty() || self.changed.is_some() {
            return String::new();
        }
        let target = self.pr.as_ref().map(|pr| pr.target.as_str());
        let remote = target.map(|target| format!("refs/remotes/origin/{target}"));
        let own = target.map(|target| format!("refs/heads/{target}"));
        let others = ["refs/remotes/origin/HEAD", "refs/heads/main", "refs/heads/master", "@{upstream}"];
        let candidates = [remote.as_deref(), own.as_deref()].into_iter().flatten().chain(others);
        let merge_base = candidates.filter_map(|other| asked(root, &["merge-base", commit, other])).find(|base| base != commit);
        merge_base.or_else(|| asked(root, &["rev-parse", "--verify", "-q", &format!("{commit}^")])).unwrap_or_default()
    }
}

/// The tag of a commit that is checked out without a branch.
fn tag_of(root: &Path, commit: &str) -> String {
    asked(root, &["describe", "--tags", "--exact-match", commit]).unwrap_or_default()
}

fn pull_request(text: &str) -> Result<PullRequest, String> {
    // A branch's name cannot have a colon (git-check-ref-format(1)).
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, fork) = match *parts.as_slice() {
        [source, target] => (source, target, false),
        [source, target, "fork"] => (source, target, true),
        _ => return Err("expected SOURCE:TARGET or SOURCE:TARGET:fork, such as `topic:main`".to_owned()),
    };
    if source.is_empty() || target.is_empty() {
        return Err("both branches need a name, as in `topic:main`".to_owned());
    }
    Ok(PullRequest { number: 0, target: target.to_owned(), source: source.to_owned(), fork })
}

fn parameter(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| "expected NAME=VALUE".to_owned())?;
    if name.is_empty() { Err("the name is missing before `=`".to_owned()) } else { Ok((name.to_owned(), value.to_owned())) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{super::git::git, *};

    fn commit(root: &Path, name: &str) -> String {
        fs::write(root.join(name), name).unwrap();
        git(root, &["add", "."]).unwrap();
        git(root, &["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", name]).unwrap();
        asked(root, &["rev-parse", "HEAD"]).unwrap()
    }

    #[test]
    fn the_repository_gives_what_the_command_line_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        git(root, &["init", "-q", "-b", "main"]).unwrap();
        let first = commit(root, "one");
        let second = commit(root, "two");
        let on_main = ContextArgs::default().resolve(root, None, EventKind::Push).unwrap();
        assert_eq!((on_main.branch.as_str(), on_main.commit.as_str()), ("main", second.as_str()));
        assert_eq!(ContextArgs::default().base_of(root, &second), first);
        git(root, &["tag", "topic"]).unwrap();
        git(root, &["checkout", "-q", "-b", "topic"]).unwrap();
        commit(root, "three");
        let last = commit(root, "four");
        let on_topic = ContextArgs::default().resolve(root, None, EventKind::Push).unwrap();
        assert_eq!((on_topic.branch.as_str(), ContextArgs::default().base_of(root, &on_topic.commit)), ("topic", second));
        git(root, &["pack-refs", "--all"]).unwrap();
        assert_eq!(ContextArgs::default().resolve(root, None, EventKind::Push).unwrap(), on_topic, "however refs are kept");
        git(root, &["tag", "v1"]).unwrap();
        git(root, &["checkout", "-q", "--detach"]).unwrap();
        let detached = ContextArgs::default().resolve(root, None, EventKind::Manual).unwrap();
        assert_eq!((detached.branch.as_str(), detached.tag.as_str(), detached.commit), ("", "v1", last));
    }

    #[test]
    fn a_pull_request_has_no_branch() {
        let args = ContextArgs { pr: Some(pull_request("topic:main:fork").unwrap()), ..ContextArgs::default() };
        let context = args.resolve(Path::new("/"), None, EventKind::Push).unwrap();
        assert_eq!((context.event, context.branch.as_str()), (EventKind::PullRequest, ""));
        assert!(context.pull_request.unwrap().fork);
        for wrong in ["topic", ":main", "topic:", "a:b:c", "a:b:fork:d"] {
            assert!(pull_request(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_parameters_value_may_have_every_character() {
        assert_eq!(parameter("a=b=c").unwrap(), ("a".to_owned(), "b=c".to_owned()));
        assert!(parameter("a").is_err() && parameter("=b").is_err());
    }
}
