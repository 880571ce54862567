//! The requests: the table of [`model::protocol::step`], row by row.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue},
    http::request::Parts,
};
use model::{
    Digest, RunId, StageOutcome,
    event::run::{StoredTree, TestReport},
    protocol::{
        agent::StartedRun,
        step::{RunRequest, VARIABLE_BYTES_MAX},
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use service::supervisor::chain;
use tokio::{sync::oneshot, task::spawn_blocking};

use super::{
    super::{Ask, attempt::lock, gathered},
    body::{Body, Transfer, pass_over, read},
    problem::Problem,
    server::Desk,
};

/// The first part of every resource's path after `/v1/`.
pub(super) const RESOURCES: [&str; 7] = ["status", "terminate", "variables", "artifacts", "source", "tests", "runs"];

/// The longest body that says something to people, or asks for a run.
const WORDS_BYTES_MAX: usize = 64 * 1024;
/// The longest test report as JSON: [`TestReport::FAILURES_MAX`] failures with long names.
const TESTS_BYTES_MAX: usize = 1024 * 1024;
/// The largest artifact: what the depot takes.
const ARTIFACT_BYTES_MAX: u64 = 8 * 1024 * 1024 * 1024;
/// Entries of an artifact's archive.
const ARTIFACT_ENTRIES_MAX: u64 = 1_000_000;
/// Characters of a reason or of what a step does that are shown.
const WORDS_CHARACTERS_MAX: usize = 500;

/// Numbers the files through which bodies go, so that no two share one.
static TRANSFERS: AtomicU64 = AtomicU64::new(0);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Status {
    status: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Terminate {
    outcome: StageOutcome,
    #[serde(default)]
    reason: String,
}

#[derive(Debug, Serialize)]
struct Started {
    run: RunId,
}

#[derive(Debug, Serialize)]
struct Outcome {
    outcome: Option<model::RunOutcome>,
}

/// Does what is asked for.
pub(super) async fn answer(request: Request<Incoming>, desk: &Desk<'_>) -> Response<Body> {
    let (parts, mut body) = request.into_parts();
    match route(&parts, &mut body, desk).await {
        Ok(response) => response,
        Err(problem) => {
            pass_over(&mut body).await;
            problem.response()
        }
    }
}

async fn route(parts: &Parts, body: &mut Incoming, desk: &Desk<'_>) -> Result<Response<Body>, Problem> {
    let said = parts.headers.get(AUTHORIZATION).map_or(&[][..], HeaderValue::as_bytes);
    if !desk.secret.is(said.strip_prefix(b"Bearer ").unwrap_or_default()) {
        return Err(Problem::Secret);
    }
    let path = parts.uri.path().strip_prefix("/v1/").ok_or(Problem::Path)?;
    let (resource, name) = path.split_once('/').map_or((path, None), |(resource, name)| (resource, Some(name)));
    let name = name.map(decoded).transpose()?;
    match (resource, name.as_deref(), &parts.method) {
        ("status", None, &Method::POST) => status(&json(body, WORDS_BYTES_MAX).await?, desk).await,
        ("terminate", None, &Method::POST) => {
            let Terminate { outcome, reason } = json(body, WORDS_BYTES_MAX).await?;
            let reason = if reason.is_empty() { "a step ended the stage".to_owned() } else { words(&reason) };
            lock(&desk.gathered).terminate(outcome, reason);
            Ok(done())
        }
        ("variables", Some(name), &Method::PUT) => {
            let text = read(body, VARIABLE_BYTES_MAX).await?;
            let text = String::from_utf8(text.into()).map_err(|_| Problem::Body("a variable is a text in UTF-8".to_owned()))?;
            lock(&desk.gathered).set_variable(name, text)?;
            Ok(done())
        }
        ("variables", Some(name), &Method::DELETE) => {
            lock(&desk.gathered).drop_variable(name)?;
            Ok(done())
        }
        ("artifacts", Some(name), &Method::PUT) => put_artifact(name, body, desk).await,
        ("artifacts", Some(name), &Method::GET) => get_artifact(name, desk).await,
        ("source", None, &Method::GET) => get_source(desk).await,
        ("tests", None, &Method::POST) => {
            let report: TestReport = json(body, TESTS_BYTES_MAX).await?;
            lock(&desk.gathered).add_tests(report)?;
            Ok(done())
        }
        ("runs", None, &Method::POST) => {
            let request: RunRequest = json(body, WORDS_BYTES_MAX).await?;
            let number = lock(&desk.gathered).request_run(request.clone())?;
            let StartedRun { run, outcome: _ } = ask(number, request, desk).await?;
            lock(&desk.gathered).run_started(run.clone(), number);
            Ok(answered(&Started { run }))
        }
        ("runs", Some(id), &Method::GET) => {
            let missing = || Problem::Missing(format!("this stage did not start the run `{id}`"));
            let run: RunId = id.parse().map_err(|_| missing())?;
            let (number, request) = lock(&desk.gathered).run_requested(&run).ok_or_else(missing)?;
            let StartedRun { run: _, outcome } = ask(number, request, desk).await?;
            Ok(answered(&Outcome { outcome }))
        }
        (resource, ..) if RESOURCES.contains(&resource) => Err(Problem::Method),
        _ => Err(Problem::Path),
    }
}

async fn status(status: &Status, desk: &Desk<'_>) -> Result<Response<Body>, Problem> {
    // Closed only when the call has ended.
    let _closed = desk.notes.send(words(&status.status)).await;
    Ok(done())
}

async fn put_artifact(name: &str, body: &mut Incoming, desk: &Desk<'_>) -> Result<Response<Body>, Problem> {
    gathered::check_artifact_name(name)?;
    let transfer = transfer(desk);
    transfer.take(body, ARTIFACT_BYTES_MAX).await?;
    let file = File::open(transfer.path())?;
    let (bytes, entries) = spawn_blocking(move || measured(&file)).await.map_err(io::Error::other)??;
    let archive = desk.blobs.put_file(transfer.path()).await.map_err(|error| Problem::Upstream(chain(&error)))?;
    lock(&desk.gathered).add_artifact(name, StoredTree { archive, bytes, entries })?;
    Ok(done())
}

/// Bytes and entries of an archive. What is in it is looked at by whoever unpacks it.
fn measured(file: &File) -> Result<(u64, u64), Problem> {
    let broken = |error: io::Error| Problem::Body(format!("it is no tar archive: {error}"));
    let mut archive = tar::Archive::new(file);
    let mut entries = 0;
    for entry in archive.entries_with_seek().map_err(broken)? {
        entry.map_err(broken)?;
        entries += 1;
        if entries > ARTIFACT_ENTRIES_MAX {
            return Err(Problem::Body(format!("the archive has more than {ARTIFACT_ENTRIES_MAX} entries")));
        }
    }
    Ok((file.metadata()?.len(), entries))
}

async fn get_artifact(name: &str, desk: &Desk<'_>) -> Result<Response<Body>, Problem> {
    let made_here = lock(&desk.gathered).outputs().artifacts.get(name).cloned();
    let tree = made_here.or_else(|| desk.assignment.artifacts.get(name).cloned());
    let missing = || {
        let left_out = match desk.assignment.artifacts_left_out {
            0 => String::new(),
            count => format!(
                ", or it is among the {count} artifacts over the limit of what one stage can be given: name it in this stage with `unarchive`, or \
                 archive fewer and larger ones"
            ),
        };
        Problem::Missing(format!("no stage before this one has archived `{name}`{left_out}"))
    };
    let StoredTree { archive, .. } = tree.ok_or_else(missing)?;
    stored(&archive, desk).await
}

async fn get_source(desk: &Desk<'_>) -> Result<Response<Body>, Problem> {
    let digest = desk.assignment.source.as_ref().ok_or_else(|| Problem::Missing("the run has no source".to_owned()))?;
    stored(digest, desk).await
}

/// Bytes of the depot, through a file that is gone as soon as it is open.
async fn stored(digest: &Digest, desk: &Desk<'_>) -> Result<Response<Body>, Problem> {
    let transfer = transfer(desk);
    desk.blobs.get_file(digest, transfer.path()).await.map_err(|error| Problem::Upstream(chain(&error)))?;
    let file = OpenOptions::new().read(true).custom_flags(nix::libc::O_NOFOLLOW).open(transfer.path())?;
    Ok(archive(Body::file(file).await?))
}

fn transfer(desk: &Desk<'_>) -> Transfer {
    Transfer::at(desk.entry.transfer(TRANSFERS.fetch_add(1, Ordering::Relaxed)))
}

/// Asks for a run, or how it is, until somebody answers.
async fn ask(number: u32, request: RunRequest, desk: &Desk<'_>) -> Result<StartedRun, Problem> {
    let (answer, hears) = oneshot::channel();
    let gone = |_| Problem::Upstream("the attempt ends".to_owned());
    desk.asks.send(Ask { number, request, answer }).await.map_err(|_| Problem::Upstream("the attempt ends".to_owned()))?;
    hears.await.map_err(gone)?.map_err(Problem::Upstream)
}

async fn json<T: DeserializeOwned>(body: &mut Incoming, limit: usize) -> Result<T, Problem> {
    let bytes = read(body, limit).await?;
    serde_json::from_slice(&bytes).map_err(|error| Problem::Body(error.to_string()))
}

/// A name in a path (RFC 3986, section 2.1).
fn decoded(name: &str) -> Result<String, Problem> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16)).and_then(|digit| u8::try_from(digit).ok());
        let (Some(high), Some(low)) = (digit(), digit()) else { return Err(Problem::Path) };
        bytes.push(high * 16 + low);
    }
    String::from_utf8(bytes).map_err(|_| Problem::Path)
}

/// A step's words on one line of the log.
fn words(text: &str) -> String {
    text.chars().take(WORDS_CHARACTERS_MAX).map(|character| if character.is_control() { ' ' } else { character }).collect()
}

fn done() -> Response<Body> {
    let mut response = Response::new(Body::whole(Bytes::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

fn answered<T: Serialize>(answer: &T) -> Response<Body> {
    let bytes = serde_json::to_vec(answer).expect("an answer has text keys only");
    with_type("application/json", Body::whole(Bytes::from(bytes)))
}

fn archive(body: Body) -> Response<Body> {
    with_type("application/x-tar", body)
}

fn with_type(kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_paths_are_decoded() {
        assert_eq!(decoded("target%2Fapp%20x").unwrap(), "target/app x");
        for wrong in ["%", "%2", "%zz", "%ff"] {
            assert!(decoded(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_steps_words_stay_on_their_line() {
        assert_eq!(words("a\n[otto] forged\x1b[2J"), "a [otto] forged [2J");
        assert_eq!(words(&"x".repeat(9_000)).len(), WORDS_CHARACTERS_MAX);
    }
}
