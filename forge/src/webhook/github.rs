//! Payloads of GitHub; those of Gitea and Forgejo have the same form.

use model::context::PullRequest;
use serde::{Deserialize, de::DeserializeOwned};

use super::{Told, WebhookError};
use crate::{
    git::ObjectId,
    happened::{BRANCHES, Happened, QUEUE, RefName, TAGS, What},
};

#[derive(Debug, Deserialize)]
struct Repository {
    full_name: String,
}

#[derive(Debug, Deserialize)]
struct User {
    login: String,
}

#[derive(Debug, Deserialize)]
struct AnyEvent {
    repository: Option<Repository>,
}

#[derive(Debug, Deserialize)]
struct Commit {
    id: String,
}

#[derive(Debug, Deserialize)]
struct PushEvent {
    #[serde(rename = "ref")]
    name: String,
    before: String,
    after: String,
    /// For a tag with a message, `after` is the tag, and this is the commit.
    head_commit: Option<Commit>,
    repository: Repository,
    sender: Option<User>,
}

#[derive(Debug, Deserialize)]
struct PullRequestEvent {
    action: String,
    pull_request: PullRequestBody,
    repository: Repository,
    sender: Option<User>,
}

#[derive(Debug, Deserialize)]
struct PullRequestBody {
    number: u64,
    head: Side,
    base: Side,
}

#[derive(Debug, Deserialize)]
struct Side {
    #[serde(rename = "ref")]
    name: String,
    sha: String,
    /// `null` when a fork was deleted.
    repo: Option<Repository>,
}

#[derive(Debug, Deserialize)]
struct MergeGroupEvent {
    action: String,
    merge_group: MergeGroup,
    repository: Repository,
    sender: Option<User>,
}

#[derive(Debug, Deserialize)]
struct MergeGroup {
    head_sha: String,
    head_ref: String,
    base_sha: String,
    base_ref: String,
}

/// What the event tells, and of which repository.
pub(super) fn read(event: &str, body: &[u8]) -> Result<(Told, Option<String>), WebhookError> {
    match event {
        "push" => {
            let event: PushEvent = parse(body)?;
            Ok((push(&event)?, Some(event.repository.full_name)))
        }
        "pull_request" | "pull_request_sync" => {
            let event: PullRequestEvent = parse(body)?;
            Ok((pull_request(&event)?, Some(event.repository.full_name)))
        }
        "merge_group" => {
            let event: MergeGroupEvent = parse(body)?;
            Ok((merge_group(&event)?, Some(event.repository.full_name)))
        }
        other => {
            let event: AnyEvent = parse(body)?;
            Ok((Told::ignored(other, "events of this kind start no run"), event.repository.map(|repository| repository.full_name)))
        }
    }
}

fn push(event: &PushEvent) -> Result<Told, WebhookError> {
    let after = object(&event.after, "after")?;
    if after.is_null() {
        return Ok(Told::ignored(&event.name, "it was deleted"));
    }
    let Some(name) = RefName::new(&*event.name) else { return Ok(Told::ignored(&event.name, "its name is none that git takes")) };
    let actor = login(event.sender.as_ref());
    if let Some(branch) = event.name.strip_prefix(BRANCHES) {
        if branch.starts_with(QUEUE) {
            return Ok(Told::ignored(&event.name, "it is the merge queue's own, which tells of it itself"));
        }
        let previous = Some(object(&event.before, "before")?).filter(|before| !before.is_null());
        let what = What::Push { branch: branch.to_owned(), previous };
        return Ok(Told::Happened(Happened { what, name, commit: after, actor }));
    }
    let Some(tag) = event.name.strip_prefix(TAGS) else { return Ok(Told::ignored(&event.name, "it is neither a branch nor a tag")) };
    let commit = event.head_commit.as_ref().map_or(Ok(after), |commit| object(&commit.id, "head_commit.id"))?;
    Ok(Told::Happened(Happened { what: What::Tag { tag: tag.to_owned() }, name, commit, actor }))
}

fn pull_request(event: &PullRequestEvent) -> Result<Told, WebhookError> {
    let PullRequestBody { number, head, base } = &event.pull_request;
    let shown = format!("#{number}");
    // Gitea and Forgejo say `synchronized`.
    if !["opened", "reopened", "synchronize", "synchronized", "ready_for_review"].contains(&event.action.as_str()) {
        return Ok(Told::ignored(&shown, format!("`{}` starts no run", event.action.chars().take(40).collect::<String>())));
    }
    if RefName::branch(&base.name).is_none() || RefName::branch(&head.name).is_none() {
        return Ok(Told::ignored(&shown, "the name of one of its branches is none that git takes"));
    }
    let name = RefName::new(format!("refs/pull/{number}/head")).expect("a number is a part of a name");
    // What is not known to be the project's own is not.
    let fork = head.repo.as_ref().is_none_or(|repo| repo.full_name != event.repository.full_name);
    let what = What::PullRequest(PullRequest { number: *number, target: base.name.clone(), source: head.name.clone(), fork });
    let commit = object(&head.sha, "pull_request.head.sha")?;
    Ok(Told::Happened(Happened { what, name, commit, actor: login(event.sender.as_ref()) }))
}

fn merge_group(event: &MergeGroupEvent) -> Result<Told, WebhookError> {
    let MergeGroup { head_sha, head_ref, base_sha, base_ref } = &event.merge_group;
    if event.action != "checks_requested" {
        return Ok(Told::ignored(head_ref, "only `checks_requested` starts a run"));
    }
    let (Some(name), Some(branch), Some(_)) = (RefName::new(&**head_ref), base_ref.strip_prefix(BRANCHES), RefName::new(&**base_ref))
    else {
        return Ok(Told::ignored(head_ref, "the name of one of its branches is none that git takes"));
    };
    let base = Some(object(base_sha, "merge_group.base_sha")?).filter(|base| !base.is_null());
    let what = What::MergeQueue { branch: branch.to_owned(), base };
    let commit = object(head_sha, "merge_group.head_sha")?;
    Ok(Told::Happened(Happened { what, name, commit, actor: login(event.sender.as_ref()) }))
}

fn login(user: Option<&User>) -> Option<String> {
    user.map(|user| super::actor(&user.login))
}

pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, WebhookError> {
    serde_json::from_slice(body).map_err(WebhookError::Body)
}

pub(super) fn object(text: &str, field: &'static str) -> Result<ObjectId, WebhookError> {
    text.parse().map_err(|_| WebhookError::field(field, text, "which is no object id"))
}
