//! Payloads of GitLab: push, tag push and merge request events.
//!
//! Merge trains tell nothing of themselves; their commits come as merge requests.

use model::context::PullRequest;
use serde::Deserialize;

use super::{
    Told, WebhookError, actor,
    github::{object, parse},
};
use crate::happened::{BRANCHES, Happened, RefName, TAGS, What};

#[derive(Debug, Deserialize)]
struct Project {
    path_with_namespace: String,
}

#[derive(Debug, Deserialize)]
struct User {
    username: String,
}

#[derive(Debug, Deserialize)]
struct AnyEvent {
    project: Option<Project>,
}

#[derive(Debug, Deserialize)]
struct PushEvent {
    #[serde(rename = "ref")]
    name: String,
    before: String,
    after: String,
    /// The commit; `null` when the ref was deleted.
    checkout_sha: Option<String>,
    user_username: Option<String>,
    project: Project,
}

#[derive(Debug, Deserialize)]
struct MergeRequestEvent {
    object_attributes: MergeRequest,
    user: Option<User>,
    project: Project,
}

#[derive(Debug, Deserialize)]
struct MergeRequest {
    iid: u64,
    /// Missing in tests that a person sends by the settings' button.
    action: Option<String>,
    source_branch: String,
    target_branch: String,
    source_project_id: Option<u64>,
    target_project_id: u64,
    last_commit: Option<Commit>,
    /// With `update`: what the head was before, if it has changed.
    oldrev: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Commit {
    id: String,
}

/// What the event tells, and of which repository.
pub(super) fn read(event: &str, body: &[u8]) -> Result<(Told, Option<String>), WebhookError> {
    match event {
        "Push Hook" | "Tag Push Hook" => {
            let event: PushEvent = parse(body)?;
            Ok((push(&event)?, Some(event.project.path_with_namespace)))
        }
        "Merge Request Hook" => {
            let event: MergeRequestEvent = parse(body)?;
            Ok((merge_request(&event)?, Some(event.project.path_with_namespace)))
        }
        other => {
            let event: AnyEvent = parse(body)?;
            Ok((Told::ignored(other, "events of this kind start no run"), event.project.map(|project| project.path_with_namespace)))
        }
    }
}

fn push(event: &PushEvent) -> Result<Told, WebhookError> {
    let after = object(&event.after, "after")?;
    if after.is_null() {
        return Ok(Told::ignored(&event.name, "it was deleted"));
    }
    let Some(name) = RefName::new(&*event.name) else { return Ok(Told::ignored(&event.name, "its name is none that git takes")) };
    let commit = event.checkout_sha.as_ref().map_or(Ok(after), |commit| object(commit, "checkout_sha"))?;
    let actor = event.user_username.as_deref().map(actor);
    let what = if let Some(branch) = event.name.strip_prefix(BRANCHES) {
        let previous = Some(object(&event.before, "before")?).filter(|before| !before.is_null());
        What::Push { branch: branch.to_owned(), previous }
    } else if let Some(tag) = event.name.strip_prefix(TAGS) {
        What::Tag { tag: tag.to_owned() }
    } else {
        return Ok(Told::ignored(&event.name, "it is neither a branch nor a tag"));
    };
    Ok(Told::Happened(Happened { what, name, commit, actor }))
}

fn merge_request(event: &MergeRequestEvent) -> Result<Told, WebhookError> {
    let request = &event.object_attributes;
    let shown = format!("!{}", request.iid);
    let starts = match request.action.as_deref() {
        Some("open" | "reopen") => true,
        Some("update") => request.oldrev.is_some(),
        Some(_) | None => false,
    };
    if !starts {
        return Ok(Told::ignored(&shown, "it has no new commits"));
    }
    let Some(commit) = &request.last_commit else { return Ok(Told::ignored(&shown, "it has no commits")) };
    if RefName::branch(&request.target_branch).is_none() || RefName::branch(&request.source_branch).is_none() {
        return Ok(Told::ignored(&shown, "the name of one of its branches is none that git takes"));
    }
    let name = RefName::new(format!("refs/merge-requests/{}/head", request.iid)).expect("a number is a part of a name");
    let pull_request = PullRequest {
        number: request.iid,
        target: request.target_branch.clone(),
        source: request.source_branch.clone(),
        // What is not known to be the project's own is not.
        fork: request.source_project_id != Some(request.target_project_id),
    };
    let commit = object(&commit.id, "object_attributes.last_commit.id")?;
    let actor = event.user.as_ref().map(|user| actor(&user.username));
    Ok(Told::Happened(Happened { what: What::PullRequest(pull_request), name, commit, actor }))
}
