//! What each kind of forge is asked to show, and what its answers mean.
//!
//! GitHub: `POST /repos/{owner}/{repo}/statuses/{sha}`; Gitea and Forgejo the same; GitLab: `POST /projects/{id}/statuses/{sha}`.
//!
//! **Invariant:** a token goes into a header of a request to the configured address, at a checked host, and nowhere else: no address, no
//! redirect, no message, no log has it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use config::{ForgeKind, Statuses};
use model::RunOutcome;
use serde_json::{Value, json};
use service::supervisor::chain;
use ureq::http::{HeaderMap, StatusCode};

use crate::{
    git::ObjectId,
    library::{Reach, agent},
};

/// How long one request may take in all.
const DEADLINE: Duration = Duration::from_secs(15);
/// The most bytes that are read of an answer.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;
/// The most characters of an answer that are told.
const SHOWN_CHARACTERS_MAX: usize = 300;
/// The most bytes of a file with a token.
const TOKEN_BYTES_MAX: u64 = 4096;
/// The longest pause that a forge may ask for.
const PAUSE_MAX: Duration = Duration::from_hours(1);

/// What is to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) commit: ObjectId,
    /// What the forge knows the status by: a later one of the same name takes its place.
    pub(super) name: String,
    /// How the run has ended; `None` while it has not.
    pub(super) outcome: Option<RunOutcome>,
    /// Where people see more.
    pub(super) link: Option<String>,
}

/// Why it is not shown.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// The token's file cannot be used.
    #[error("the token's file {} {why}", path.display())]
    Token { path: PathBuf, why: String },
    /// Nothing was answered.
    #[error("{api} cannot be asked: {why}")]
    Away { api: String, why: String },
    /// It may be shown later, after this pause if the forge has named one.
    #[error("the forge answers {status}: {said}")]
    Later { status: StatusCode, said: String, pause: Option<Duration> },
    /// It never will be.
    #[error("the forge refuses it for good ({status}): {said}")]
    Never { status: StatusCode, said: String },
}

/// Asks the forge to show it. Blocks.
pub(super) fn show(to: &Statuses, report: &Report, now_ms: u64) -> Result<(), Refusal> {
    let token = read_token(&to.token_file).map_err(|why| Refusal::Token { path: to.token_file.clone(), why })?;
    let (url, body) = request(to, report);
    let host = url.split("://").nth(1).unwrap_or_default().split(['/', ':']).next().unwrap_or_default();
    let besides = if to.private_network { vec![host.to_owned()] } else { Vec::new() };
    let away = |error: ureq::Error| Refusal::Away { api: to.api.clone(), why: chain(&error) };
    let agent = agent(&Reach::Public { besides }, to.api.starts_with("https://"), 0, DEADLINE);
    let (name, value) = match to.forge {
        ForgeKind::Github => ("authorization", format!("Bearer {token}")),
        ForgeKind::Gitea | ForgeKind::Forgejo => ("authorization", format!("token {token}")),
        ForgeKind::Gitlab => ("private-token", token),
    };
    let request = agent.post(&url).header(name, value).header("content-type", "application/json").header("user-agent", "otto");
    let request = match to.forge {
        ForgeKind::Github => request.header("accept", "application/vnd.github+json").header("x-github-api-version", "2022-11-28"),
        ForgeKind::Gitlab | ForgeKind::Gitea | ForgeKind::Forgejo => request.header("accept", "application/json"),
    };
    let mut response = request.send(body.to_string()).map_err(away)?;
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let said = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string().unwrap_or_default();
    judge(to.forge, status, response.headers(), &said, now_ms)
}

/// The address and the body.
fn request(to: &Statuses, report: &Report) -> (String, Value) {
    let Statuses { api, repository, .. } = to;
    let Report { commit, name, outcome, link } = report;
    let mut body = json!({ "state": state(to.forge, *outcome), "description": description(*outcome) });
    if let Some(link) = link {
        body["target_url"] = json!(link);
    }
    match to.forge {
        ForgeKind::Github | ForgeKind::Gitea | ForgeKind::Forgejo => {
            body["context"] = json!(name);
            (format!("{api}/repos/{repository}/statuses/{commit}"), body)
        }
        ForgeKind::Gitlab => {
            body["name"] = json!(name);
            // No other character of a repository's name means anything in an address.
            (format!("{api}/projects/{}/statuses/{commit}", repository.replace('/', "%2F")), body)
        }
    }
}

/// The forge's word for it.
fn state(forge: ForgeKind, outcome: Option<RunOutcome>) -> &'static str {
    let is_gitlab = forge == ForgeKind::Gitlab;
    match outcome {
        None => "pending",
        Some(RunOutcome::Success | RunOutcome::Skipped) => "success",
        Some(RunOutcome::Failure | RunOutcome::Unstable | RunOutcome::Unknown) if is_gitlab => "failed",
        Some(RunOutcome::Failure | RunOutcome::Unstable) => "failure",
        Some(RunOutcome::Aborted) if is_gitlab => "canceled",
        Some(RunOutcome::Aborted | RunOutcome::Unknown) => "error",
    }
}

fn description(outcome: Option<RunOutcome>) -> &'static str {
    match outcome {
        None => "the run has begun",
        Some(RunOutcome::Skipped) => "nothing was to be done",
        Some(RunOutcome::Success) => "the run succeeded",
        Some(RunOutcome::Unstable) => "the run is unstable",
        Some(RunOutcome::Failure) => "the run failed",
        Some(RunOutcome::Aborted) => "the run was cancelled",
        Some(RunOutcome::Unknown) => "nobody knows how the run has ended",
    }
}

/// What an answer means that is no success.
fn judge(forge: ForgeKind, status: StatusCode, headers: &HeaderMap, said: &str, now_ms: u64) -> Result<(), Refusal> {
    // GitLab refuses a state that it has already, or that the last one cannot be followed by: it was shown before, and its answer was lost.
    if forge == ForgeKind::Gitlab && status == StatusCode::BAD_REQUEST && said.contains("Cannot transition status") {
        return Ok(());
    }
    let shown: String = said.chars().filter(|c| !c.is_control()).take(SHOWN_CHARACTERS_MAX).collect();
    let number = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let reset = number("x-ratelimit-reset").filter(|_| number("x-ratelimit-remaining") == Some(0));
    let seconds = number("retry-after").or_else(|| reset.map(|at| at.saturating_sub(now_ms / 1000)));
    let pause = seconds.map(|seconds| Duration::from_secs(seconds.max(1)).min(PAUSE_MAX));
    Err(match status {
        StatusCode::BAD_REQUEST | StatusCode::GONE | StatusCode::UNPROCESSABLE_ENTITY => Refusal::Never { status, said: shown },
        // A token that has run out, a repository that it may not see, a redirect: somebody may mend it.
        _ => Refusal::Later { status, said: shown, pause },
    })
}

fn read_token(path: &Path) -> Result<String, String> {
    let failed = |error: io::Error| format!("cannot be read: {error}");
    if fs::metadata(path).map_err(failed)?.len() > TOKEN_BYTES_MAX {
        return Err("is too large for a token".to_owned());
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("holds no token: visible characters and nothing else".to_owned());
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(forge: ForgeKind, status: u16, headers: &[(&'static str, &str)], said: &str) -> Result<(), Refusal> {
        let headers = headers.iter().map(|(name, value)| (ureq::http::HeaderName::from_static(name), value.parse().unwrap())).collect();
        judge(forge, StatusCode::from_u16(status).unwrap(), &headers, said, 1_000_000)
    }

    #[test]
    fn a_forge_says_when_it_is_asked_again() {
        let pause = |headers: &[(&'static str, &str)]| match judged(ForgeKind::Github, 403, headers, "rate limit") {
            Err(Refusal::Later { pause, .. }) => pause.map(|pause| pause.as_secs()),
            other => panic!("{other:?}"),
        };
        assert_eq!(pause(&[]), None);
        assert_eq!(pause(&[("retry-after", "60")]), Some(60));
        assert_eq!(pause(&[("retry-after", "0")]), Some(1));
        assert_eq!(pause(&[("retry-after", "99999999999")]), Some(3600));
        assert_eq!(pause(&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1090")]), Some(90));
        assert_eq!(pause(&[("x-ratelimit-remaining", "7"), ("x-ratelimit-reset", "1090")]), None);
    }

    #[test]
    fn what_cannot_be_mended_is_not_asked_again() {
        for (status, never) in [(400, true), (422, true), (410, true), (401, false), (404, false), (429, false), (502, false), (301, false)]
        {
            let judged = judged(ForgeKind::Gitea, status, &[], "");
            assert_eq!(matches!(judged, Err(Refusal::Never { .. })), never, "{status}");
        }
        let said = "{\"message\":\"Cannot transition status via :enqueue from :pending\"}";
        assert!(judged(ForgeKind::Gitlab, 400, &[], said).is_ok());
        assert!(judged(ForgeKind::Github, 400, &[], said).is_err());
    }

    #[test]
    fn this_network_is_not_asked_unless_it_is_allowed() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let token_file = folder.path().join("token");
        fs::write(&token_file, "a-secret").unwrap();
        let address = listener.local_addr().unwrap();
        for api in [format!("https://{address}"), format!("http://localhost:{}", address.port())] {
            let repository = "octo/shop".to_owned();
            let to = Statuses { forge: ForgeKind::Github, api, repository, token_file: token_file.clone(), private_network: false };
            let report = Report { commit: "1".repeat(40).parse().unwrap(), name: String::new(), outcome: None, link: None };
            let refused = show(&to, &report, 0).unwrap_err().to_string();
            assert!(refused.contains("not of the public internet") && !refused.contains("a-secret"), "{refused}");
        }
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err(), "nobody has asked");
    }

    #[test]
    fn a_file_with_anything_but_a_token_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        for (text, good) in [("abc\n", true), ("", false), ("a b", false), ("a\nb", false), ("ä", false), (&"x".repeat(5000), false)] {
            fs::write(&path, text).unwrap();
            assert_eq!(read_token(&path).is_ok(), good, "{text:?}");
        }
    }
}
