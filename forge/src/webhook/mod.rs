//! Webhooks of forges: who sent one, and what it tells of.
//!
//! **Invariant:** no byte of a body is read as anything before its signature has held over all of them.

mod github;
mod gitlab;
mod signature;

use std::{fmt, io, path::PathBuf};

use actix_web::http::header::HeaderMap;
use config::{ForgeKind, Project, project::Source};

use crate::{delivery::Ignored, happened::Happened};

pub(crate) use signature::{Secret, Unsigned};

/// The most bytes of a webhook. What a push of thousands of commits tells is cut by the forges themselves long before.
pub(crate) const WEBHOOK_BYTES_MAX: usize = 5 * 1024 * 1024;
/// The most characters of a person's name; the forges allow 255 at most.
const ACTOR_CHARACTERS_MAX: usize = 255;
/// The most bytes of a file with a secret.
const SECRET_BYTES_MAX: u64 = 4096;

/// The webhooks of one project.
pub(crate) struct Hook {
    forge: ForgeKind,
    secret: Secret,
    repository: Option<String>,
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hook").field("forge", &self.forge).field("repository", &self.repository).finish_non_exhaustive()
    }
}

/// Why the webhooks of a project cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It holds no secret.
    #[error("{} {why}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// What a webhook comes to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// It may start a run.
    Happened(Happened),
    /// It starts none, whatever the project says.
    Ignored(Ignored),
}

impl Told {
    fn ignored(name: &str, reason: impl Into<String>) -> Self {
        Self::Ignored(Ignored::new(name, reason))
    }
}

/// Why a webhook that its forge has signed is not understood.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WebhookError {
    #[error("the header {0} is missing, which says what has happened")]
    NoEvent(&'static str),
    #[error("the body is not what this event has")]
    Body(#[source] serde_json::Error),
    #[error("`{field}` is `{value}`, {why}")]
    Field { field: &'static str, value: String, why: &'static str },
}

impl WebhookError {
    fn field(field: &'static str, value: &str, why: &'static str) -> Self {
        Self::Field { field, value: value.chars().take(100).collect(), why }
    }
}

impl Hook {
    /// Those of a project, if it takes any.
    pub(crate) fn of(project: &Project) -> Result<Option<Self>, SecretError> {
        let Some(webhook) = &project.webhook else { return Ok(None) };
        let path = &webhook.secret_file;
        let failed = |source| SecretError::Read { path: path.clone(), source };
        let wrong = |why| SecretError::Wrong { path: path.clone(), why };
        if std::fs::metadata(path).map_err(failed)?.len() > SECRET_BYTES_MAX {
            return Err(wrong("is too large for a secret"));
        }
        let text = std::fs::read_to_string(path).map_err(failed)?;
        let secret = Secret::new(webhook.forge, text.trim()).map_err(wrong)?;
        let repository = webhook.repository.clone().or_else(|| match &project.source {
            Source::Remote(address) => Some(path_of(address).to_owned()),
            Source::Repository(_) => None,
        });
        Ok(Some(Self { forge: webhook.forge, secret, repository }))
    }

    /// Whether the forge has sent these bytes.
    pub(crate) fn verify(&self, headers: &HeaderMap, body: &[u8]) -> Result<(), Unsigned> {
        self.secret.verify(self.forge, headers, body)
    }

    /// Whether the headers have what [`Hook::verify`] needs, so that it is worth reading a body.
    pub(crate) fn is_signed(&self, headers: &HeaderMap) -> bool {
        self.secret.is_signed(self.forge, headers)
    }

    /// What a verified webhook tells.
    pub(crate) fn read(&self, headers: &HeaderMap, body: &[u8]) -> Result<Told, WebhookError> {
        let name = match self.forge {
            ForgeKind::Github => "x-github-event",
            ForgeKind::Gitlab => "x-gitlab-event",
            ForgeKind::Gitea => "x-gitea-event",
            ForgeKind::Forgejo => "x-forgejo-event",
        };
        let event = headers.get(name).and_then(|value| value.to_str().ok()).ok_or(WebhookError::NoEvent(name))?;
        let (told, repository) = match self.forge {
            ForgeKind::Github | ForgeKind::Gitea | ForgeKind::Forgejo => github::read(event, body)?,
            ForgeKind::Gitlab => gitlab::read(event, body)?,
        };
        match (&self.repository, repository) {
            (Some(own), Some(named)) if !is_same(own, &named) => {
                Ok(Told::ignored(event, format!("it is of the repository `{}`", named.chars().take(200).collect::<String>())))
            }
            _ => Ok(told),
        }
    }
}

/// The name of a person as a forge has it, as far as it can be shown.
fn actor(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(ACTOR_CHARACTERS_MAX).collect()
}

/// The path of an address, without slashes around it and without `.git`.
fn path_of(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let path = rest.split_once('/').map_or("", |(_, path)| path).trim_matches('/');
    path.strip_suffix(".git").unwrap_or(path)
}

/// Whether the repository of a path is that of a name: a forge may lie below a path of its host.
fn is_same(path: &str, name: &str) -> bool {
    let (path, name) = (path.to_lowercase(), name.to_lowercase());
    path == name || path.strip_suffix(&name).is_some_and(|above| above.ends_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_known_by_the_end_of_its_address() {
        for address in ["https://git.test/octo/shop.git", "http://127.0.0.1:3000/git/octo/shop/", "https://git.test/Octo/Shop"] {
            assert!(is_same(path_of(address), "octo/shop"), "{address}");
        }
        for address in ["https://git.test/xocto/shop.git", "https://git.test/octo/shop2", "https://git.test/octo", "https://octo/shop"] {
            assert!(!is_same(path_of(address), "octo/shop"), "{address}");
        }
    }
}
