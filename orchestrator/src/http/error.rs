//! From what went wrong to the problem document that says so. The codes, their statuses and their texts are `apispec`'s one table.

use std::{collections::BTreeMap, time::Duration};

use actix_web::{
    HttpResponse, ResponseError,
    error::JsonPayloadError,
    http::{StatusCode, header},
};
use apispec::Code;
use blob::BlobError;
use eventbus::BusError;
use model::{Digest, RunId};
use service::supervisor::chain;
use tracing::error;
use utoipa::{
    IntoResponses,
    openapi::{
        Content, HeaderBuilder, Ref, RefOr, Response, ResponseBuilder,
        schema::{ObjectBuilder, Type},
    },
};

use crate::{CommandError, admission::Full, core::wait::Unfit, views::ViewError};

/// The media type of a problem document (RFC 9457, section 3).
const PROBLEM_JSON: &str = "application/problem+json";
/// When to try again what is refused because too much is going on, in seconds.
const RETRY_AFTER_S: &str = "1";
/// The same, where runs must end first, or somebody must make room.
const RETRY_FULL_S: &str = "10";

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The body is not what the request asks for.
    #[error("{0}")]
    InvalidBody(String),
    /// A query parameter is not what it should be.
    #[error("{0}")]
    InvalidQuery(String),
    /// A header is not what it should be.
    #[error("the header `{name}` {why}")]
    InvalidHeader {
        /// Which.
        name: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The token is missing or wrong.
    #[error("{0}")]
    Unauthorized(&'static str),
    /// The token is for something else.
    #[error("{0}")]
    Forbidden(String),
    /// The answer is asked of others.
    #[error("{0}")]
    NotAsked(String),
    /// The API is called under a name that is not its own.
    #[error("the header `Host` names `{0}`")]
    ForeignHost(String),
    /// A page of an unknown origin calls.
    #[error("the header `Origin` names `{0}`")]
    Origin(String),
    /// There is no such run.
    #[error("there is no run `{0}`")]
    UnknownRun(String),
    /// There is no such stage.
    #[error("the run {run} has no stage `{stage}`")]
    UnknownStage {
        /// The run.
        run: RunId,
        /// What was asked for.
        stage: String,
    },
    /// There is no such project.
    #[error("the configuration has no project `{0}` that the token is for")]
    UnknownProject(String),
    /// There is no such environment.
    #[error("no project that the token is for has an environment `{0}`")]
    UnknownEnvironment(String),
    /// No such agent is enrolled.
    #[error("no agent `{0}` is enrolled")]
    UnknownAgent(String),
    /// The records of agents cannot be changed now.
    #[error("{0}")]
    Enrolment(String),
    /// There is no such attempt.
    #[error("the stage `{stage}` of {run} has no such attempt")]
    UnknownAttempt {
        /// The run.
        run: RunId,
        /// The stage, as it was asked for.
        stage: String,
    },
    /// There is no such artifact.
    #[error("the run {run} has no artifact `{name}`, or not of that stage")]
    UnknownArtifact {
        /// The run.
        run: RunId,
        /// What was asked for.
        name: String,
    },
    /// The project's source has nothing to run there.
    #[error("{0}")]
    NothingToRun(String),
    /// The project's source cannot be had now.
    #[error("{0}")]
    Source(String),
    /// Nothing waits for this answer.
    #[error("{0}")]
    NoSuchWait(&'static str),
    /// There is no such path.
    #[error("there is no path `{0}`")]
    UnknownPath(String),
    /// The path has other methods.
    #[error("the path takes {allow}")]
    MethodNotAllowed {
        /// Those that it has.
        allow: String,
    },
    /// The body is over the limit.
    #[error("the body has over {} bytes", super::BODY_BYTES_MAX)]
    BodyTooLarge,
    /// The source is over the limit.
    #[error("the body has over {} bytes", apispec::SOURCE_BYTES_MAX)]
    SourceTooLarge,
    /// The body stopped coming.
    #[error("nothing of the body came for {} s", .0.as_secs())]
    SlowBody(Duration),
    /// The body did not come in time.
    #[error("the body did not come within {} s", .0.as_secs())]
    LateBody(Duration),
    /// Too many bring sources.
    #[error("{} sources are being brought", super::sources::UPLOADS_MAX)]
    TooManyUploads,
    /// Too many get artifacts.
    #[error("{} artifacts are being sent", super::artifacts::DOWNLOADS_MAX)]
    TooManyDownloads,
    /// The body is not JSON.
    #[error("the body is not declared as JSON")]
    UnsupportedMediaType,
    /// The source is not in the depot.
    #[error("the depot has no {0}")]
    UnknownSource(Digest),
    /// Too many requests.
    #[error("these are more requests than one token, or one address without a token, may make in a second")]
    TooManyRequests {
        /// After how long there is room for one.
        wait: Duration,
    },
    /// Too many streams.
    #[error("{} streams are being followed", super::FOLLOWERS_MAX)]
    TooManyFollowers,
    /// A callback was called before.
    #[error("it was called before, or what it was for is over")]
    CallbackUsed,
    /// The orchestrator did not do it.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The depot did not do it.
    #[error("the depot did not do its part")]
    Depot(#[from] BlobError),
    /// The read models did not answer.
    #[error(transparent)]
    Views(#[from] ViewError),
    /// The system has no randomness for an id.
    #[error("the system gives no random bytes: {0}")]
    Randomness(getrandom::Error),
}

impl ApiError {
    pub(super) fn of_json(error: &JsonPayloadError) -> Self {
        match error {
            JsonPayloadError::Overflow { .. } | JsonPayloadError::OverflowKnownLength { .. } => Self::BodyTooLarge,
            JsonPayloadError::ContentType => Self::UnsupportedMediaType,
            JsonPayloadError::Deserialize(_) | JsonPayloadError::Serialize(_) | JsonPayloadError::Payload(_) | _ => {
                Self::InvalidBody(error.to_string())
            }
        }
    }

    /// The row of the table.
    pub fn code(&self) -> Code {
        match self {
            Self::InvalidBody(_) => Code::InvalidBody,
            Self::InvalidQuery(_) => Code::InvalidQuery,
            Self::InvalidHeader { .. } => Code::InvalidHeader,
            Self::Unauthorized(_) => Code::Unauthorized,
            Self::Forbidden(_) => Code::Forbidden,
            Self::NotAsked(_) => Code::NotAsked,
            Self::ForeignHost(_) => Code::ForeignHost,
            Self::Origin(_) => Code::OriginRefused,
            Self::UnknownRun(_) | Self::Command(CommandError::UnknownRun(_)) => Code::UnknownRun,
            Self::UnknownStage { .. } | Self::Command(CommandError::UnknownStage { .. }) => Code::UnknownStage,
            Self::UnknownProject(_) => Code::UnknownProject,
            Self::UnknownEnvironment(_) => Code::UnknownEnvironment,
            Self::UnknownAgent(_) => Code::UnknownAgent,
            Self::Enrolment(_) => Code::EnrolmentUnavailable,
            Self::UnknownAttempt { .. } => Code::UnknownAttempt,
            Self::UnknownArtifact { .. } => Code::UnknownArtifact,
            Self::NothingToRun(_) => Code::NothingToRun,
            Self::Source(_) => Code::SourceUnavailable,
            Self::TooManyDownloads => Code::TooManyDownloads,
            Self::NoSuchWait(_) => Code::NoSuchWait,
            Self::Command(CommandError::Unfit { why, .. }) => match why {
                Unfit::Unknown | Unfit::Early => Code::NoSuchWait,
                Unfit::Answered | Unfit::Late | Unfit::Other(_) => Code::WrongAnswer,
            },
            Self::Command(CommandError::UnknownCallback) => Code::UnknownCallback,
            Self::CallbackUsed => Code::CallbackUsed,
            Self::UnknownPath(_) => Code::UnknownPath,
            Self::MethodNotAllowed { .. } => Code::MethodNotAllowed,
            Self::SlowBody(_) | Self::LateBody(_) => Code::SlowBody,
            Self::TooManyUploads => Code::TooManyUploads,
            Self::BodyTooLarge | Self::SourceTooLarge | Self::Command(CommandError::Bus(BusError::TooLarge { .. })) => Code::BodyTooLarge,
            Self::UnsupportedMediaType => Code::UnsupportedMediaType,
            Self::UnknownSource(_) => Code::UnknownSource,
            Self::TooManyRequests { .. } => Code::TooManyRequests,
            Self::TooManyFollowers => Code::TooManyFollowers,
            Self::Command(CommandError::Ended(_)) => Code::RunEnded,
            Self::Command(CommandError::NoPlan(_) | CommandError::PlanGone { .. }) => Code::NoPlan,
            Self::Command(CommandError::Damaged { .. }) => Code::RunDamaged,
            Self::Command(CommandError::Open(_)) => Code::RunOpen,
            Self::Command(CommandError::Late(_)) => Code::OutcomeUnknown,
            Self::Command(CommandError::Bus(_)) => Code::BusUnavailable,
            Self::Depot(_) | Self::Command(CommandError::Depot(_) | CommandError::Plan(_)) => Code::DepotUnavailable,
            Self::Views(
                ViewError::NotWhole | ViewError::Database(_) | ViewError::Unreadable(_) | ViewError::Malformed(_) | ViewError::Closed,
            ) => Code::ListsUnavailable,
            Self::Command(CommandError::Full(Full::Depot { .. })) => Code::DepotFull,
            Self::Command(CommandError::Full(Full::Runs { .. } | Full::Stages { .. })) => Code::TooBusy,
            Self::Randomness(_) => Code::Internal,
        }
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.code().status()).expect("the table has HTTP statuses")
    }

    fn error_response(&self) -> HttpResponse {
        let (status, code) = (self.status_code(), self.code());
        if status.is_server_error() {
            error!(code = code.as_str(), error = chain(self), "a request failed");
        }
        let mut response = HttpResponse::build(status);
        if status == StatusCode::UNAUTHORIZED {
            response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            let is_full = matches!(code, Code::DepotFull | Code::TooBusy);
            response.insert_header((header::RETRY_AFTER, if is_full { RETRY_FULL_S } else { RETRY_AFTER_S }));
        }
        if let Self::TooManyRequests { wait } = self {
            // Whole seconds, and not too few (RFC 9110, section 10.2.3).
            let whole = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            response.insert_header((header::RETRY_AFTER, whole));
        }
        if let Self::MethodNotAllowed { allow } = self {
            response.insert_header((header::ALLOW, allow.as_str()));
        }
        let problem = code.problem(chain(self));
        response.content_type(PROBLEM_JSON).body(serde_json::to_vec(&problem).expect("a problem has text keys only"))
    }
}

/// The header that every response of the status has, and what it says.
fn header_of(status: u16) -> Option<(&'static str, &'static str)> {
    match status {
        401 => Some(("WWW-Authenticate", "`Bearer`")),
        405 => Some(("Allow", "the methods that the path takes")),
        429 | 503 => Some(("Retry-After", "when to try again, in seconds")),
        _ => None,
    }
}

/// One response for each status of the table; it names every code that has the status.
impl IntoResponses for ApiError {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut codes: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
        for code in Code::ALL {
            codes.entry(code.status()).or_default().push(*code);
        }
        let response = |status: u16, codes: &[Code]| {
            let lines: Vec<String> = codes.iter().map(|code| format!("`{}`: {}", code.as_str(), code.title())).collect();
            let content = Content::new(Some(Ref::from_schema_name("Problem")));
            let response = ResponseBuilder::new().description(lines.join("; ")).content(PROBLEM_JSON, content);
            let with_header = match header_of(status) {
                None => response,
                Some((name, description)) => {
                    let schema = ObjectBuilder::new().schema_type(Type::String).build();
                    response.header(name, HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build())
                }
            };
            with_header.build()
        };
        codes.iter().map(|(status, codes)| (status.to_string(), RefOr::T(response(*status, codes)))).collect()
    }
}
