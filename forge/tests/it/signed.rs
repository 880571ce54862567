//! Webhooks as the forges send them: bodies after their documentation, and their signatures.

use data_encoding::{BASE64, HEXLOWER};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

/// The secret of every webhook here, as its file has it.
pub(crate) const SECRET: &str = "a secret of the tests";
/// The same as a signing token of GitLab.
pub(crate) const SIGNING_TOKEN: &str = "whsec_YSBzZWNyZXQgb2YgdGhlIHRlc3Rz";
/// "Nothing", where there is an object id.
pub(crate) const NULL: &str = "0000000000000000000000000000000000000000";

/// Headers and body of one webhook.
pub(crate) struct Webhook {
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
}

impl Webhook {
    pub(crate) fn headers(&self) -> Vec<(&str, &str)> {
        self.headers.iter().map(|(name, value)| (*name, value.as_str())).collect()
    }

    /// The same once more, as a forge delivers it again.
    pub(crate) fn with_delivery(mut self, id: &str) -> Self {
        self.headers.push(("x-github-delivery", id.to_owned()));
        self
    }
}

pub(crate) fn code(parts: &[&[u8]]) -> Vec<u8> {
    let mut code = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    for part in parts {
        code.update(part);
    }
    code.finalize().into_bytes().to_vec()
}

pub(crate) fn github(event: &str, body: &Value) -> Webhook {
    let body = body.to_string();
    let signature = format!("sha256={}", HEXLOWER.encode(&code(&[body.as_bytes()])));
    Webhook { headers: vec![("x-github-event", event.to_owned()), ("x-hub-signature-256", signature)], body }
}

/// Forgejo sends Gitea's headers, too.
pub(crate) fn forgejo(event: &str, body: &Value) -> Webhook {
    let mut webhook = gitea(event, body);
    let signature = webhook.headers[1].1.clone();
    webhook.headers.extend([("x-forgejo-event", event.to_owned()), ("x-forgejo-signature", signature)]);
    webhook
}

pub(crate) fn gitea(event: &str, body: &Value) -> Webhook {
    let body = body.to_string();
    let signature = HEXLOWER.encode(&code(&[body.as_bytes()]));
    Webhook { headers: vec![("x-gitea-event", event.to_owned()), ("x-gitea-signature", signature)], body }
}

pub(crate) fn gitlab_token(event: &str, body: &Value) -> Webhook {
    Webhook { headers: vec![("x-gitlab-event", event.to_owned()), ("x-gitlab-token", SECRET.to_owned())], body: body.to_string() }
}

pub(crate) fn gitlab_signed(event: &str, body: &Value) -> Webhook {
    let body = body.to_string();
    let (id, time) = ("f5e5f430-f57b-4e6e-9fac-d9128cd7232f", "1784542800");
    let signature = format!("v1,{}", BASE64.encode(&code(&[id.as_bytes(), b".", time.as_bytes(), b".", body.as_bytes()])));
    let headers = [("x-gitlab-event", event), ("webhook-id", id), ("webhook-timestamp", time), ("webhook-signature", &signature)];
    Webhook { headers: headers.map(|(name, value)| (name, value.to_owned())).to_vec(), body }
}

/// A push event of GitHub, Gitea and Forgejo.
pub(crate) fn push(name: &str, before: &str, after: &str) -> Value {
    json!({
        "ref": name, "before": before, "after": after, "deleted": after == NULL, "head_commit": { "id": after, "message": "a change" },
        "repository": { "id": 1, "full_name": "octo/shop" }, "sender": { "login": "ann" },
    })
}

/// A pull request event of GitHub, Gitea and Forgejo; without `from`, the fork is gone.
pub(crate) fn pull_request(action: &str, from: Option<&str>, head: &str) -> Value {
    let from = from.map(|name| json!({ "full_name": name }));
    json!({
        "action": action, "number": 7,
        "pull_request": {
            "number": 7, "head": { "ref": "fix", "sha": head, "repo": from },
            "base": { "ref": "main", "sha": NULL, "repo": { "full_name": "octo/shop" } },
        },
        "repository": { "full_name": "octo/shop" }, "sender": { "login": "eve" },
    })
}

/// A push or tag push event of GitLab.
pub(crate) fn gitlab_push(name: &str, before: &str, after: &str) -> Value {
    json!({
        "object_kind": "push", "ref": name, "before": before, "after": after, "checkout_sha": after, "user_username": "ann",
        "project_id": 15, "project": { "id": 15, "path_with_namespace": "octo/shop" }, "total_commits_count": 1,
    })
}

/// A merge request event of GitLab.
pub(crate) fn merge_request(action: &str, source_project: u64, oldrev: Option<&str>, head: &str) -> Value {
    let mut event = json!({
        "object_kind": "merge_request", "user": { "id": 1, "username": "eve" }, "project": { "id": 15, "path_with_namespace": "octo/shop" },
        "object_attributes": {
            "id": 99, "iid": 7, "action": action, "source_branch": "fix", "target_branch": "main", "state": "opened",
            "source_project_id": source_project, "target_project_id": 15, "last_commit": { "id": head },
        },
    });
    if let Some(oldrev) = oldrev {
        event["object_attributes"]["oldrev"] = json!(oldrev);
    }
    event
}
