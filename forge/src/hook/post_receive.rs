//! What the hook does: store the push, tell the forge, and tell the pusher.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use config::project::bare_repository;
use data_encoding::HEXLOWER;
use serde::Deserialize;
use service::web;
use tracing::debug;

use super::{HookConfig, create_folder, pending, write_durably};
use crate::delivery::{Answer, DELIVERY_BYTES_MAX, Delivery, DeliveryId, UPDATES_MAX, Update};

/// How long the pusher waits for the forge in all; what it has not accepted by then it picks up by itself.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the connection may take: the forge is on this machine or near.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The most bytes that git may say of one push: tens of thousands of refs.
const INPUT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The most bytes of updates in one delivery, so that its JSON (at most six bytes for one) stays below [`DELIVERY_BYTES_MAX`].
const CHUNK_BYTES_MAX: usize = DELIVERY_BYTES_MAX / 8;
/// The most bytes that are read of the forge's answer.
const ANSWER_BYTES_MAX: usize = 4 * DELIVERY_BYTES_MAX;
/// Bytes of a delivery's random id.
const ID_BYTES: usize = 16;

/// Why a push is not stored. The push itself has succeeded all the same.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// It is not run in a bare repository.
    #[error("`{}` is no bare git repository", path.display())]
    Repository {
        /// Where it is run.
        path: PathBuf,
        /// Why it is none.
        #[source]
        source: io::Error,
    },
    /// Git's list of refs cannot be read.
    #[error("cannot read which refs were pushed")]
    Input(#[source] io::Error),
    /// The system gives no random bytes.
    #[error("the system gives no random bytes for the delivery's id")]
    NoRandomness,
    /// The delivery cannot be stored.
    #[error("cannot store the push as `{}`", path.display())]
    Store {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// Why the forge has not accepted a delivery yet.
enum Away {
    NoAnswer(String),
    Refused(String),
}

/// Does the work of a post-receive hook: reads from `input` which refs were pushed to `repository`, and gives the lines for the pusher.
/// When this returns, every push is accepted by the forge or stored for it.
pub async fn post_receive(repository: &Path, input: impl Read) -> Result<Vec<String>, HookError> {
    let repository = bare_repository(repository).map_err(|source| HookError::Repository { path: repository.to_owned(), source })?;
    let mut text = Vec::new();
    input.take(INPUT_BYTES_MAX).read_to_end(&mut text).map_err(HookError::Input)?;
    let (updates, mut lines) = read_updates(&text);
    let mut stored = Vec::new();
    for updates in chunks(updates) {
        stored.push(store(&repository, updates)?);
    }
    let deadline = tokio::time::Instant::now() + ANSWER_TIMEOUT;
    for (path, delivery) in stored {
        match tokio::time::timeout_at(deadline, deliver(&repository, &delivery)).await {
            Ok(Ok(answer)) => {
                // The forge may have been faster: it looks for what is stored, too.
                let removed = fs::remove_file(&path);
                debug!(path = %path.display(), ?removed, "delivery accepted");
                lines.extend(answer_lines(&answer));
            }
            Ok(Err(Away::NoAnswer(why))) => {
                lines.push(line(&format!("the forge is not reachable ({why}); the push is stored and will be picked up")));
            }
            Ok(Err(Away::Refused(why))) => lines.push(line(&format!("the forge has not accepted the push yet: {why}; it is stored"))),
            Err(_) => lines.push(line("the forge is slow; the push is stored and will be picked up")),
        }
    }
    Ok(lines)
}

/// The updates that git names, and lines about those that cannot be told.
fn read_updates(text: &[u8]) -> (Vec<Update>, Vec<String>) {
    let (mut updates, mut lines) = (Vec::new(), Vec::new());
    for row in text.split(|byte| *byte == b'\n').filter(|row| !row.is_empty()) {
        let Ok(row) = std::str::from_utf8(row) else {
            lines.push(line(&format!("{} ignored: its name is no UTF-8", String::from_utf8_lossy(row))));
            continue;
        };
        let mut words = row.splitn(3, ' ');
        match (words.next(), words.next(), words.next()) {
            (Some(old), Some(new), Some(name)) => {
                updates.push(Update { old: old.to_owned(), new: new.to_owned(), name: name.to_owned() });
            }
            _ => lines.push(line(&format!("`{row}` ignored: it names no ref"))),
        }
    }
    (updates, lines)
}

/// Updates in as many deliveries as they need.
fn chunks(updates: Vec<Update>) -> Vec<Vec<Update>> {
    let mut chunks: Vec<Vec<Update>> = Vec::new();
    let mut bytes = 0;
    for update in updates {
        let length = update.old.len() + update.new.len() + update.name.len();
        bytes += length;
        match chunks.last_mut() {
            Some(chunk) if chunk.len() < UPDATES_MAX && bytes <= CHUNK_BYTES_MAX => chunk.push(update),
            _ => {
                bytes = length;
                chunks.push(vec![update]);
            }
        }
    }
    chunks
}

fn store(repository: &Path, updates: Vec<Update>) -> Result<(PathBuf, Delivery), HookError> {
    let mut id = [0; ID_BYTES];
    getrandom::fill(&mut id).map_err(|_| HookError::NoRandomness)?;
    let delivery: DeliveryId = HEXLOWER.encode(&id).parse().expect("hexadecimal digits are a delivery id");
    let folder = pending(repository);
    let path = folder.join(format!("{delivery}.json"));
    let repository = repository.to_str().expect("bare_repository gives UTF-8 only").to_owned();
    let delivery = Delivery { repository, delivery, updates };
    let bytes = serde_json::to_vec(&delivery).expect("a delivery has text keys only");
    let failed = |source| HookError::Store { path: path.clone(), source };
    create_folder(&folder).map_err(failed)?;
    write_durably(&path, &bytes, 0o600).map_err(failed)?;
    Ok((path, delivery))
}

async fn deliver(repository: &Path, delivery: &Delivery) -> Result<Answer, Away> {
    let config = HookConfig::read(repository).map_err(|error| Away::Refused(format!("otto/hook.json cannot be read: {error}")))?;
    let no_answer = |error: reqwest::Error| Away::NoAnswer(service::supervisor::chain(&error.without_url()));
    let client = web::client(&config.url).connect_timeout(CONNECT_TIMEOUT).build().map_err(no_answer)?;
    let url = format!("{}{}", config.url.trim_end_matches('/'), crate::HOOK_PATH);
    let mut response = client.post(url).bearer_auth(config.secret).json(delivery).send().await.map_err(no_answer)?;
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(no_answer)? {
        body.extend_from_slice(&piece);
        if body.len() > ANSWER_BYTES_MAX {
            return Err(Away::Refused("its answer is too long".to_owned()));
        }
    }
    if !response.status().is_success() {
        #[derive(Deserialize)]
        struct Problem {
            detail: String,
        }
        let problem = serde_json::from_slice::<Problem>(&body).map(|problem| problem.detail);
        return Err(Away::Refused(problem.unwrap_or_else(|_| response.status().to_string())));
    }
    serde_json::from_slice(&body).map_err(|error| Away::Refused(format!("its answer does not read as one: {error}")))
}

fn answer_lines(answer: &Answer) -> Vec<String> {
    let runs = answer.runs.iter().map(|started| line(&format!("run {} started ({}, {})", started.run, started.project, started.name)));
    let ignored = answer.ignored.iter().map(|ignored| line(&format!("{} starts no run: {}", ignored.name, ignored.reason)));
    runs.chain(ignored).collect()
}

/// A line for the pusher's terminal, which must not be steered by a branch's name.
fn line(text: &str) -> String {
    format!("otto: {}", text.replace(char::is_control, "\u{fffd}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(name: &str) -> Update {
        Update { old: "0".repeat(40), new: "1".repeat(40), name: name.to_owned() }
    }

    #[test]
    fn what_git_says_is_read_line_by_line() {
        let (zeros, ones) = ("0".repeat(40), "1".repeat(40));
        let text = format!("{zeros} {ones} refs/heads/a b\n{zeros} {ones} refs/tags/ü\nnonsense\n");
        let mut text = text.into_bytes();
        text.extend_from_slice(b"0 1 refs/heads/\xff\x1b[2J\n");
        let (updates, lines) = read_updates(&text);
        assert_eq!(updates, [update("refs/heads/a b"), update("refs/tags/ü")]);
        assert_eq!(lines.len(), 2);
        assert!(lines.iter().all(|line| !line.contains('\u{1b}')), "{lines:?}");
    }

    #[test]
    fn a_push_of_many_refs_is_several_deliveries() {
        let count = UPDATES_MAX * 2 + 1;
        let lengths: Vec<_> = chunks(vec![update("refs/heads/a"); count]).iter().map(Vec::len).collect();
        assert_eq!(lengths, [UPDATES_MAX, UPDATES_MAX, 1]);
        let long = update(&format!("refs/heads/{}", "x".repeat(CHUNK_BYTES_MAX / 2)));
        let lengths: Vec<_> = chunks(vec![long; 3]).iter().map(Vec::len).collect();
        assert_eq!(lengths, [1, 1, 1]);
        assert!(chunks(Vec::new()).is_empty());
    }
}
