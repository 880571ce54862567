//! Git over HTTP, served by Otto: `git http-backend` for the bare repositories of projects whose file says `serve: true`.
//!
//! ```text
//! git push ─▶ /git/<project>.git/git-receive-pack ─▶ token ─▶ feed ─▶ git http-backend ─▶ pump ─▶ the pusher
//!                                                                            └─ ended ─▶ look for what was pushed ─▶ triggers
//! ```
//!
//! **Invariant:** of a request, nothing becomes a path, an argument or a variable: a table of paths says which of git's two programs is run on
//! which configured repository. What was begun ends with the connection, and all that it has started with it (RFC 0023).

mod process;
mod turns;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder,
    http::{Method, StatusCode, header},
    web,
};
use config::{Project, load_tokens, token::WrongTokens};
use data_encoding::BASE64;
use futures_util::StreamExt as _;
use model::{Digest, ProjectName, access::Role};
use service::{OnError, Supervisor, supervisor::chain};
use tokio::{sync::Notify, time::timeout};
use tracing::{error, info};

pub(crate) use process::ServeError;

use process::{Running, Wish};
use turns::Turns;

/// Where repositories are served: this, a slash, and the project's name with `.git`.
pub(crate) const PATH: &str = "/git";
/// How long a request waits for others.
const TURN_DEADLINE: Duration = Duration::from_secs(20);
/// How long the next piece of a request may take.
const PIECE_DEADLINE: Duration = Duration::from_mins(1);
/// The most bytes of what is asked for: a line for each commit that the other side has.
const QUESTION_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// One of git's two programs for this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    /// Gives objects.
    UploadPack,
    /// Takes them.
    ReceivePack,
}

impl Service {
    fn name(self) -> &'static str {
        match self {
            Self::UploadPack => "git-upload-pack",
            Self::ReceivePack => "git-receive-pack",
        }
    }

    fn of(name: &str) -> Option<Self> {
        [Self::UploadPack, Self::ReceivePack].into_iter().find(|service| service.name() == name)
    }

    fn role(self) -> Role {
        match self {
            Self::UploadPack => Role::View,
            Self::ReceivePack => Role::Run,
        }
    }
}

/// What is asked of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked {
    service: Service,
    /// Whether only the list of its refs is asked for.
    is_list: bool,
}

impl Asked {
    /// The table of paths below a repository's.
    fn of(method: &Method, tail: &str, query: &str) -> Option<Self> {
        if *method == Method::GET && tail == "info/refs" {
            return Some(Self { service: Service::of(query.strip_prefix("service=")?)?, is_list: true });
        }
        (*method == Method::POST && query.is_empty()).then(|| Service::of(tail)).flatten().map(|service| Self { service, is_list: false })
    }
}

/// The repositories that are served.
pub(crate) struct Repositories {
    served: BTreeMap<ProjectName, Served>,
    /// The file of the API's tokens.
    tokens: Option<PathBuf>,
    turns: Turns,
    supervisor: Supervisor,
}

struct Served {
    repository: PathBuf,
    bytes_max: u64,
    bell: Arc<Notify>,
}

impl Repositories {
    pub(crate) fn new(projects: &[Project], tokens: Option<PathBuf>, supervisor: Supervisor) -> Self {
        let served = projects.iter().filter(|project| project.serve).filter_map(|project| {
            let repository = project.source.repository()?.to_owned();
            Some((project.name.clone(), Served { repository, bytes_max: project.fetch.bytes_max, bell: Arc::default() }))
        });
        Self { served: served.collect(), tokens, turns: Turns::default(), supervisor }
    }

    /// The projects whose repositories are served, each with what is rung when something was pushed.
    pub(crate) fn bells(&self) -> impl Iterator<Item = (&ProjectName, &Arc<Notify>)> {
        self.served.iter().map(|(project, served)| (project, &served.bell))
    }

    /// The name of whoever may do this with the project; without a token, the client is asked for one.
    async fn caller(&self, request: &HttpRequest, project: &str, service: Service) -> Result<String, ServeError> {
        let value = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).ok_or(ServeError::NoToken)?;
        let secret = secret_of(value).ok_or(ServeError::NoToken)?;
        let Some(file) = self.tokens.clone() else { return Err(ServeError::NoToken) };
        // The file is small, and as it is now: a token that was taken away is worth nothing at once.
        let known = web::block(move || load_tokens(&file)).await.map_err(|_| ServeError::Cancelled)?;
        let known = known.map_err(|wrong: WrongTokens| {
            error!(error = chain(&wrong), "nobody is served: the file of tokens is wrong");
            ServeError::NoToken
        })?;
        let digest = Digest::of(secret.as_bytes());
        let token = known.into_iter().find(|token| token.digest == digest).ok_or(ServeError::NoToken)?;
        let is_of = |names: &std::collections::BTreeSet<ProjectName>| names.iter().any(|name| name.as_str() == project);
        if !token.projects.as_ref().is_none_or(is_of) {
            return Err(ServeError::NoRepository);
        }
        if token.role < service.role() {
            return Err(ServeError::Forbidden { has: token.role, needs: service.role() });
        }
        Ok(token.name.to_string())
    }
}

/// The password of `Basic`, whoever the user is said to be.
fn secret_of(value: &str) -> Option<String> {
    let (scheme, rest) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(BASE64.decode(rest.trim().as_bytes()).ok()?).ok()?;
    Some(text.split_once(':')?.1.to_owned())
}

/// Serves one request of git.
pub(crate) async fn serve(
    repositories: web::Data<Repositories>,
    request: HttpRequest,
    path: web::Path<(String, String)>,
    body: web::Payload,
) -> Result<HttpResponse, ServeError> {
    let (name, tail) = path.into_inner();
    let asked = Asked::of(request.method(), &tail, request.query_string()).ok_or(ServeError::NoRepository)?;
    let project = name.strip_suffix(".git").unwrap_or_default();
    // Who shows no token learns nothing of which repositories there are.
    let caller = repositories.caller(&request, project, asked.service).await?;
    let found = repositories.served.iter().find(|(known, _)| known.as_str() == project);
    let (project, served) = found.ok_or(ServeError::NoRepository)?;
    let is_packed = match header_of(&request, header::CONTENT_ENCODING.as_str()) {
        None | Some("identity") => false,
        Some("gzip" | "x-gzip") => true,
        Some(_) => return Err(ServeError::Encoding),
    };
    let turn = timeout(TURN_DEADLINE, repositories.turns.next(&caller)).await.map_err(|_| ServeError::Busy)?;
    let wish = Wish {
        asked,
        repository: &served.repository,
        caller: &caller,
        is_packed,
        version: header_of(&request, "git-protocol").filter(|version| ["version=1", "version=2"].contains(version)),
        bytes_max: if asked.service == Service::ReceivePack { served.bytes_max } else { QUESTION_BYTES_MAX },
    };
    let bytes_max = wish.bytes_max;
    let (mut running, pump) = Running::start(&wish)?;
    let (bell, is_push) = (served.bell.clone(), asked == Asked { service: Service::ReceivePack, is_list: false });
    repositories.supervisor.spawn(format!("forge: git of {project}"), OnError::Log, {
        let token = repositories.supervisor.token().clone();
        async move {
            let _turn = turn;
            pump.run(token).await;
            // Also after a connection that was lost: something may have been taken.
            if is_push {
                bell.notify_one();
            }
            Ok(())
        }
    });
    feed(&mut running, body, bytes_max).await?;
    let (status, headers) = running.head().await?;
    if is_push {
        info!(%project, caller, %status, "something was pushed");
    }
    let mut response: HttpResponseBuilder = HttpResponse::build(status);
    for header in headers {
        response.insert_header(header);
    }
    Ok(response.streaming(running.body()))
}

/// Gives the body of a request to git, piece by piece.
async fn feed(running: &mut Running, mut body: web::Payload, bytes_max: u64) -> Result<(), ServeError> {
    let mut bytes: u64 = 0;
    while let Some(piece) = timeout(PIECE_DEADLINE, body.next()).await.map_err(|_| ServeError::Slow)? {
        let piece = piece.map_err(|_| ServeError::Cut)?;
        bytes += piece.len() as u64;
        if bytes > bytes_max {
            return Err(ServeError::TooLarge { bytes_max });
        }
        if !timeout(PIECE_DEADLINE, running.write(&piece)).await.map_err(|_| ServeError::Slow)? {
            break;
        }
    }
    running.end_of_input();
    Ok(())
}

fn header_of<'r>(request: &'r HttpRequest, name: &str) -> Option<&'r str> {
    request.headers().get(name)?.to_str().ok()
}

impl ServeError {
    /// The line of the table: status, code, title.
    pub(crate) fn line(&self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::NoToken => (StatusCode::UNAUTHORIZED, "unauthorized", "no valid token"),
            Self::Forbidden { .. } => (StatusCode::FORBIDDEN, "forbidden", "the token is not for this"),
            Self::NoRepository => (StatusCode::NOT_FOUND, "no_repository", "no such repository"),
            Self::Encoding => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "encoding", "not an encoding of git's"),
            Self::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too_large", "too large"),
            Self::Slow | Self::Cut => (StatusCode::REQUEST_TIMEOUT, "incomplete", "the body did not arrive"),
            Self::Busy | Self::Cancelled => (StatusCode::SERVICE_UNAVAILABLE, "not_now", "cannot be served now"),
            Self::Git(_) | Self::NoAnswer => (StatusCode::INTERNAL_SERVER_ERROR, "git", "git fails"),
        }
    }
}

/// A path that no request can name.
pub(crate) fn is_served(path: &str) -> bool {
    path.strip_prefix(PATH).is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_git_itself_asks_is_in_the_table() {
        let asked = |method: Method, tail: &str, query: &str| Asked::of(&method, tail, query);
        assert!(asked(Method::GET, "info/refs", "service=git-upload-pack").is_some_and(|asked| asked.is_list));
        assert!(asked(Method::POST, "git-receive-pack", "").is_some_and(|asked| asked.service == Service::ReceivePack && !asked.is_list));
        for (method, tail, query) in [
            (Method::GET, "info/refs", ""),
            (Method::GET, "info/refs", "service=git-upload-archive"),
            (Method::GET, "info/refs", "service=git-upload-pack&x=1"),
            (Method::GET, "HEAD", ""),
            (Method::GET, "config", ""),
            (Method::GET, "objects/info/packs", ""),
            (Method::GET, "../shop.git/info/refs", "service=git-upload-pack"),
            (Method::GET, "git-upload-pack", ""),
            (Method::POST, "git-upload-archive", ""),
            (Method::POST, "git-receive-pack/", ""),
            (Method::POST, "info/refs", "service=git-upload-pack"),
            (Method::PUT, "git-receive-pack", ""),
        ] {
            assert_eq!(asked(method.clone(), tail, query), None, "{method} {tail}?{query}");
        }
    }

    #[test]
    fn the_password_is_the_token() {
        let basic = |text: &str| format!("Basic {}", BASE64.encode(text.as_bytes()));
        assert_eq!(secret_of(&basic("ann:otto_1")).as_deref(), Some("otto_1"));
        assert_eq!(secret_of(&basic(":a:b")).as_deref(), Some("a:b"));
        for other in ["Bearer x".to_owned(), basic("ann"), "Basic !".to_owned(), "Basic".to_owned()] {
            assert_eq!(secret_of(&other), None, "{other}");
        }
    }
}
