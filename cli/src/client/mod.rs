//! A client of the orchestrator's HTTP API: its requests and views are `apispec`'s types.
//!
//! An error says what was tried, where, and how to mend it, because a person reads it.

mod connection;
mod follow;
mod pick;

#[cfg(test)]
mod tests;

use std::time::Duration;

use apispec::{
    AgentList, AnswerCreate, ArtifactList, Code, EnrolmentView, EventView, PlanDetail, Problem, ProjectList, ProjectRunCreate, RerunCreate,
    RunCreate, RunCreated, RunDetail, RunList, RunView, SourceCreated, TokenView, WaitList, WhyView,
};
use bytes::Bytes;
use futures_util::{Stream, TryStreamExt as _};
use model::{AgentName, Digest, ProjectName, RunId};
use reqwest::{Method, RequestBuilder, Response, header};
use serde::de::DeserializeOwned;
use service::web;

pub use connection::{Connection, Login};
pub use follow::{AllFollower, EventFollower, EventMessage, LogFollower, LogMessage};
pub use pick::{LATEST, PickError};

/// How long the API has to accept a connection: it is near, or it is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one answer may take; a cancel waits up to 15 s for its place in the log.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a stream may be silent: three of the API's heartbeats.
const SILENCE_MAX: Duration = Duration::from_secs(45);

/// A client of one orchestrator. Clones share its connections.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    connection: Connection,
}

/// Why the API did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens, or the connection broke.
    #[error("the orchestrator at {url} does not answer: start it with `otto up`, or set OTTO_API_URL to where it is")]
    Unreachable {
        /// Where it should be.
        url: String,
        /// What went wrong.
        #[source]
        source: reqwest::Error,
    },
    /// Somebody listens, and may be anybody.
    #[error("{url} does not prove that it is that server: {why}. Of an authority of your own, SSL_CERT_FILE names the certificate")]
    Untrusted {
        /// Where it should be.
        url: String,
        /// What is wrong with its certificate.
        why: String,
    },
    /// It is elsewhere.
    #[error("{url} sends its callers to {to}: set OTTO_API_URL, or log in, to where the API itself is")]
    Moved {
        /// What was asked.
        url: String,
        /// Where it says that it is.
        to: String,
    },
    /// A stream broke, and could not be taken up again.
    #[error("the orchestrator at {0} is gone: see what `otto up` says; the run goes on when it is back")]
    Lost(String),
    /// It answered, and refused.
    #[error("{}: {} ({}); {}", .0.title, .0.detail, .0.code.as_str(), hint(.0))]
    Refused(Box<Problem>),
    /// It answered with something that is not its API's.
    #[error("what answers at {url} is no orchestrator of this version (HTTP {status}): is OTTO_API_URL right?")]
    Foreign {
        /// What was asked.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// The address is none.
    #[error("`{0}` is no address of the API: it begins with https://, such as https://otto.example.org, or with http://")]
    Address(String),
}

impl Client {
    /// A client of the API at `connection`.
    pub fn new(connection: Connection) -> Result<Self, ClientError> {
        let url: reqwest::Url = connection.url.parse().map_err(|_| ClientError::Address(connection.url.clone()))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(ClientError::Address(connection.url.clone()));
        }
        let builder = web::client(&connection.url).connect_timeout(CONNECT_TIMEOUT).read_timeout(SILENCE_MAX).tcp_nodelay(true);
        let unreachable = |source| ClientError::Unreachable { url: connection.url.clone(), source };
        let http = builder.build().map_err(unreachable)?;
        Ok(Self { http, connection })
    }

    /// The client that the environment of this process describes; see [`Connection::from_environment`].
    pub fn from_environment() -> anyhow::Result<Self> {
        Ok(Self::new(Connection::from_environment()?)?)
    }

    /// Where the API is.
    pub fn url(&self) -> &str {
        &self.connection.url
    }

    /// Creates a run. The same `key` again is the same run.
    pub async fn create(&self, create: &RunCreate, key: Option<&str>) -> Result<RunId, ClientError> {
        let mut request = self.request(Method::POST, "/v1/runs").json(create);
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        let created: RunCreated = self.read(request).await?;
        Ok(created.run)
    }

    /// Creates a run of a project's own code. The same `key` again is the same run.
    pub async fn start(&self, project: &ProjectName, create: &ProjectRunCreate, key: &str) -> Result<RunId, ClientError> {
        let request = self.request(Method::POST, &format!("/v1/projects/{project}/runs")).json(create).header("Idempotency-Key", key);
        let created: RunCreated = self.read(request).await?;
        Ok(created.run)
    }

    /// The artifacts of a run.
    pub async fn artifacts(&self, run: &RunId) -> Result<ArtifactList, ClientError> {
        self.read(self.request(Method::GET, &format!("/v1/runs/{run}/artifacts"))).await
    }

    /// An artifact of a run, or of one of its stages, as it arrives.
    pub async fn artifact(
        &self,
        run: &RunId,
        name: &str,
        stage: Option<&str>,
    ) -> Result<impl Stream<Item = Result<Bytes, ClientError>> + Unpin, ClientError> {
        let request = with_stage(self.request(Method::GET, &format!("/v1/runs/{run}/artifact")).query(&[("name", name)]), stage);
        let response = self.send(request).await?;
        let client = self.clone();
        Ok(response.bytes_stream().map_err(move |source| client.unreachable(source)))
    }

    /// Brings bytes that a run is made of, however long that takes.
    pub async fn bring(&self, bytes: impl Into<reqwest::Body>) -> Result<Digest, ClientError> {
        let request = self.request(Method::POST, "/v1/sources").header(header::CONTENT_TYPE, "application/octet-stream");
        let created: SourceCreated = self.read_in_time(request.body(bytes)).await?;
        Ok(created.digest)
    }

    /// The plan of a run.
    pub async fn plan(&self, run: &RunId) -> Result<PlanDetail, ClientError> {
        self.read(self.request(Method::GET, &format!("/v1/runs/{run}/plan"))).await
    }

    /// Some runs, the newest first; `cursor` is that of the answer before.
    pub async fn list(&self, limit: usize, cursor: Option<&str>) -> Result<RunList, ClientError> {
        let mut request = self.request(Method::GET, "/v1/runs").query(&[("limit", limit.to_string())]);
        if let Some(cursor) = cursor {
            request = request.query(&[("cursor", cursor)]);
        }
        self.read(request).await
    }

    /// Runs that are so, the newest first: `filters` are the parameters of the API.
    pub async fn find(&self, limit: usize, filters: &[(&str, String)]) -> Result<RunList, ClientError> {
        self.read(self.request(Method::GET, "/v1/runs").query(&[("limit", limit.to_string())]).query(filters)).await
    }

    /// The token of this client.
    pub async fn token(&self) -> Result<TokenView, ClientError> {
        self.read(self.request(Method::GET, "/v1/token")).await
    }

    /// The projects of the server.
    pub async fn projects(&self) -> Result<ProjectList, ClientError> {
        self.read(self.request(Method::GET, "/v1/projects")).await
    }

    /// The agents, by name, at most so many.
    pub async fn agents(&self, limit: usize) -> Result<AgentList, ClientError> {
        self.read(self.request(Method::GET, "/v1/agents").query(&[("limit", limit.to_string())])).await
    }

    /// Has an agent take no new work, or take it again.
    pub async fn drain(&self, agent: &AgentName, undo: bool) -> Result<EnrolmentView, ClientError> {
        let request = self.request(Method::POST, &format!("/v1/agents/{agent}/drain"));
        self.read(request.query(&[("undo", undo.to_string())])).await
    }

    /// Why stages run where they do, or wait.
    pub async fn why(&self, run: &RunId, stage: Option<&str>) -> Result<WhyView, ClientError> {
        self.read(with_stage(self.request(Method::GET, &format!("/v1/runs/{run}/why")), stage)).await
    }

    /// A run with its stages.
    pub async fn show(&self, run: &RunId) -> Result<RunDetail, ClientError> {
        self.read(self.request(Method::GET, &format!("/v1/runs/{run}"))).await
    }

    /// Gives a run that was just asked for a moment to be among those that are listed.
    pub async fn until_listed(&self, run: &RunId) {
        // It exists or will, whatever is said here.
        let _it_is_there = self.show(run).await;
    }

    /// The events of a run so far.
    pub async fn events(&self, run: &RunId) -> Result<Vec<EventView>, ClientError> {
        self.read(self.request(Method::GET, &format!("/v1/runs/{run}/events"))).await
    }

    /// Asks for the end of a run; at once, if `force` says so.
    pub async fn cancel(&self, run: &RunId, force: bool) -> Result<RunView, ClientError> {
        let request = self.request(Method::POST, &format!("/v1/runs/{run}/cancel"));
        self.read(request.query(&[("force", force.to_string())])).await
    }

    /// Answers something that waits for a person.
    pub async fn answer(&self, run: &RunId, answer: &AnswerCreate) -> Result<RunView, ClientError> {
        self.read(self.request(Method::POST, &format!("/v1/runs/{run}/answer")).json(answer)).await
    }

    /// Runs an ended run again.
    pub async fn rerun(&self, run: &RunId, rerun: &RerunCreate) -> Result<RunId, ClientError> {
        let created: RunCreated = self.read(self.request(Method::POST, &format!("/v1/runs/{run}/rerun")).json(rerun)).await?;
        Ok(created.run)
    }

    /// What waits for a person now, in all runs.
    pub async fn waits(&self) -> Result<WaitList, ClientError> {
        self.read(self.request(Method::GET, "/v1/waits")).await
    }

    /// The output of a run so far, or of one of its stages, as it arrives.
    pub async fn log(
        &self,
        run: &RunId,
        stage: Option<&str>,
    ) -> Result<impl Stream<Item = Result<Bytes, ClientError>> + Unpin, ClientError> {
        let request = with_stage(self.request(Method::GET, &format!("/v1/runs/{run}/log")), stage);
        let response = self.send(request).await?;
        let client = self.clone();
        Ok(response.bytes_stream().map_err(move |source| client.unreachable(source)))
    }

    /// A part of the output of a stage, as it arrives; `part` are the parameters of the API.
    pub async fn output(
        &self,
        run: &RunId,
        part: &[(&str, String)],
    ) -> Result<impl Stream<Item = Result<Bytes, ClientError>> + Unpin, ClientError> {
        let response = self.send(self.request(Method::GET, &format!("/v1/runs/{run}/output")).query(part)).await?;
        let client = self.clone();
        Ok(response.bytes_stream().map_err(move |source| client.unreachable(source)))
    }

    /// The events of a run as they happen, from its first.
    pub fn follow_events(&self, run: &RunId) -> EventFollower {
        EventFollower::new(self.clone(), run)
    }

    /// The output of a run as it comes, from its beginning.
    pub fn follow_log(&self, run: &RunId, stage: Option<&str>) -> LogFollower {
        LogFollower::new(self.clone(), run, stage)
    }

    /// The events of all runs as they happen, from now on; of one project, where it is named.
    pub fn follow_all(&self, project: Option<&ProjectName>) -> AllFollower {
        AllFollower::new(self.clone(), project)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", self.connection.url);
        self.http.request(method, url).bearer_auth(self.connection.token())
    }

    async fn read<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ClientError> {
        self.read_in_time(request.timeout(REQUEST_TIMEOUT)).await
    }

    /// The same, in the time that the request has.
    async fn read_in_time<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ClientError> {
        let response = self.send(request).await?;
        let (url, status) = (response.url().to_string(), response.status().as_u16());
        let bytes = response.bytes().await.map_err(|source| self.unreachable(source))?;
        serde_json::from_slice(&bytes).map_err(|_| ClientError::Foreign { url, status })
    }

    /// Sends a request; an answer that is no success becomes an error.
    async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let response = request.send().await.map_err(|source| self.unreachable(source))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let (url, status) = (response.url().to_string(), response.status().as_u16());
        if let Some(to) = response.headers().get(header::LOCATION).filter(|_| response.status().is_redirection()) {
            return Err(ClientError::Moved { url, to: String::from_utf8_lossy(to.as_bytes()).into_owned() });
        }
        let is_problem = response.headers().get(header::CONTENT_TYPE).is_some_and(|media| media == "application/problem+json");
        let bytes = response.bytes().await.map_err(|source| self.unreachable(source))?;
        match serde_json::from_slice(&bytes) {
            Ok(problem) if is_problem => Err(ClientError::Refused(Box::new(problem))),
            Ok(_) | Err(_) => Err(ClientError::Foreign { url, status }),
        }
    }

    fn unreachable(&self, source: reqwest::Error) -> ClientError {
        let url = self.connection.url.clone();
        match web::distrust(&source) {
            Some(why) => ClientError::Untrusted { url, why },
            None => ClientError::Unreachable { url, source },
        }
    }
}

impl ClientError {
    /// Whether the API refused with this code.
    pub(crate) fn is(&self, code: Code) -> bool {
        matches!(self, Self::Refused(problem) if problem.code == code)
    }

    /// Whether the same may succeed a little later.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused(problem) => matches!(problem.code, Code::BusUnavailable | Code::DepotUnavailable | Code::TooManyFollowers),
            Self::Lost(_) | Self::Foreign { .. } | Self::Address(_) | Self::Untrusted { .. } | Self::Moved { .. } => false,
        }
    }
}

/// How to mend it with the commands and settings of this program, where the API's own hint speaks of requests.
fn hint(problem: &Problem) -> &str {
    let own = [
        (Code::Unauthorized, "set OTTO_API_TOKEN_FILE to the file of that API's token, or unset it to speak with the last `otto up`"),
        (Code::UnknownPath, "the server is older than this otto and has no such thing: update it"),
        (Code::Forbidden, "ask an administrator for a token that may, made with `otto token new`, and log in with it"),
        (Code::UnknownRun, "`otto runs` lists the runs"),
        (Code::UnknownStage, "`otto show` lists the run's stages"),
        (Code::UnknownArtifact, "`otto artifacts` lists the run's artifacts"),
        (Code::UnknownProject, "`otto projects` lists the projects of your token"),
        (Code::SourceUnavailable, "try again; if it stays so, see what the forge says: `otto up` prints it"),
        (Code::NoSuchWait, "`otto show` says for what a run's stages wait, and `otto waits` what waits for a person in all runs"),
    ];
    own.into_iter().find(|(code, _)| *code == problem.code).map_or(&problem.hint, |(_, hint)| hint)
}

fn with_stage(request: RequestBuilder, stage: Option<&str>) -> RequestBuilder {
    match stage {
        Some(stage) => request.query(&[("stage", stage)]),
        None => request,
    }
}
