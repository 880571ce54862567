//! The one table of what the API answers when it does not do what it was asked.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A problem document (RFC 9457), sent as `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// What went wrong, as a URI: `urn:otto:problem:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// What went wrong, in general.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What went wrong, for programs.
    pub code: Code,
    /// What went wrong, this time.
    pub detail: String,
    /// How to mend it.
    pub hint: String,
}

/// A row of the table.
struct Row {
    code: &'static str,
    status: u16,
    title: &'static str,
    hint: &'static str,
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])* $name:ident = $code:literal, $status:literal, $title:literal, $hint:literal;)*) => {
        /// What can go wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum Code {
            $($(#[doc = $doc])* $name,)*
        }

        impl Code {
            /// Every code, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            fn row(self) -> Row {
                match self {
                    $(Self::$name => Row { code: $code, status: $status, title: $title, hint: $hint },)*
                }
            }
        }
    };
}

codes! {
    /// The body is not the JSON of the request.
    InvalidBody = "invalid_body", 400, "the body does not read as the request",
        "send what the schema of this request in /v1/openapi.json asks for";
    /// A query parameter is wrong.
    InvalidQuery = "invalid_query", 400, "a query parameter does not read",
        "see the parameters of this path in /v1/openapi.json";
    /// A header is wrong.
    InvalidHeader = "invalid_header", 400, "a header does not read",
        "see the headers of this path in /v1/openapi.json";
    /// No token, or a wrong one.
    Unauthorized = "unauthorized", 401, "no valid token",
        "send the header `Authorization: Bearer TOKEN`; `otto token new` makes a token";
    /// A page of another origin asks.
    OriginRefused = "origin_refused", 403, "the page's origin is not allowed",
        "serve the page from the API's own origin, or allow its origin in the orchestrator's settings";
    /// The token's role, or its projects, are others.
    Forbidden = "forbidden", 403, "the token may not do this",
        "ask an administrator for a token with the role, and for the project, that the detail names: `otto token new`";
    /// Others are asked.
    NotAsked = "not_asked", 403, "the answer is not asked of you",
        "ask one of those whom the detail names: their answer counts";
    /// There is no such run.
    UnknownRun = "unknown_run", 404, "no such run",
        "list the runs with GET /v1/runs; a run that was just created is there as soon as its pipeline is planned: ask again";
    /// There is no such project.
    UnknownProject = "unknown_project", 404, "no such project",
        "GET /v1/projects lists the projects of the token";
    /// There is no such environment.
    UnknownEnvironment = "unknown_environment", 404, "no such environment",
        "GET /v1/environments lists the environments of the token's projects";
    /// No such agent is enrolled.
    UnknownAgent = "unknown_agent", 404, "no such agent is enrolled",
        "`otto agent list`, on the administrator's machine, says who is enrolled";
    /// There is no such callback.
    UnknownCallback = "unknown_callback", 404, "no such address",
        "check the address for missing characters";
    /// There is no such path.
    UnknownPath = "unknown_path", 404, "no such path",
        "all paths are in /v1/openapi.json";
    /// The path exists, with other methods.
    MethodNotAllowed = "method_not_allowed", 405, "the path does not take this method",
        "the header `Allow` names the methods of this path";
    /// The body stopped coming.
    SlowBody = "slow_body", 408, "the body stopped coming",
        "send it again, without pauses";
    /// The run has no such stage.
    UnknownStage = "unknown_stage", 409, "the run has no such stage",
        "GET /v1/runs/{run} lists the run's stages; name one by its path or its id";
    /// There is no such attempt of the stage.
    UnknownAttempt = "unknown_attempt", 409, "the stage has no such attempt",
        "GET /v1/runs/{run} lists the attempts of the run's stages; without a number, the last one is meant";
    /// The run has no such artifact.
    UnknownArtifact = "unknown_artifact", 409, "the run has no such artifact",
        "GET /v1/runs/{run}/artifacts lists what its stages have left so far";
    /// The project's source has nothing to run there.
    NothingToRun = "nothing_to_run", 409, "there is nothing to run",
        "the detail says why: name a branch or a tag that the project's source has, and that its configuration delivers";
    /// Nothing waits for this answer.
    NoSuchWait = "no_such_wait", 409, "nothing waits for that",
        "GET /v1/runs/{run} shows what its stages wait for, GET /v1/waits what waits for a person in all runs";
    /// The depot has no such source.
    UnknownSource = "unknown_source", 409, "the depot has no such source",
        "bring the source tree's tar archive with POST /v1/sources first; a token of some projects names only what it has brought itself";
    /// The run has ended.
    RunEnded = "run_ended", 409, "the run has ended",
        "nothing is left to do: its outcome stands";
    /// The run has not ended.
    RunOpen = "run_open", 409, "the run has not ended",
        "wait for its end, or ask for it: only an ended run is run again";
    /// The run has no plan, or its plan is gone.
    NoPlan = "no_plan", 409, "the run has no plan to run again",
        "run the pipeline anew, by a push or with POST /v1/runs";
    /// The run's log is damaged.
    RunDamaged = "run_damaged", 409, "the run is damaged, and is not run upon",
        "the detail says what is wrong, and what can be done";
    /// The answer does not fit the question, or is about another delivery.
    WrongAnswer = "wrong_answer", 409, "the answer does not fit what is waited for",
        "look at what is waited for again, and answer that";
    /// The callback was used.
    CallbackUsed = "callback_used", 409, "this address was called before",
        "nothing is left to do: each address takes one call";
    /// The body has too many bytes.
    BodyTooLarge = "body_too_large", 413, "the body is too large",
        "a pipeline file has at most 1 MiB; bring sources with POST /v1/sources, up to 4 GiB, and name their digest";
    /// The body is no JSON.
    UnsupportedMediaType = "unsupported_media_type", 415, "the body's type is not supported",
        "send `Content-Type: application/json`";
    /// The request came under another host's name.
    ForeignHost = "foreign_host", 421, "asked for another host",
        "call the API as localhost or by a loopback address, or allow the host's name in the orchestrator's settings";
    /// More requests than one may make.
    TooManyRequests = "too_many_requests", 429, "too many requests",
        "wait as long as the header `Retry-After` says; follow a run instead of asking for it again and again";
    /// A mistake of the orchestrator.
    Internal = "internal", 500, "the orchestrator made a mistake",
        "its log has more; please report it";
    /// The bus does not take what must be stored first.
    BusUnavailable = "bus_unavailable", 503, "the bus is not there",
        "nothing was done: try again; if it stays so, see whether nats-server runs and has room on its disk";
    /// The records of agents cannot be changed now.
    EnrolmentUnavailable = "enrolment_unavailable", 503, "the records of agents cannot be changed now",
        "look at the eventbus role: GET /health there says how it is; then ask again";
    /// The depot does not answer.
    DepotUnavailable = "depot_unavailable", 503, "the depot is not there",
        "nothing was done: try again; if it stays so, see whether the depot runs and has room on its disk";
    /// The depot's disk is full.
    DepotFull = "depot_full", 503, "the depot's disk is full",
        "nothing was done: runs that have begun go on; make room on the depot's disk, and try again";
    /// As many runs or stages are under way as may be.
    TooBusy = "too_busy", 503, "as many runs are under way as may be",
        "nothing was done: try again when some have ended";
    /// The lists of runs cannot be read.
    ListsUnavailable = "lists_unavailable", 503, "the lists of runs are not there",
        "try again: the lists are made anew from the logs by themselves; if it stays so, see whether the orchestrator's disk is full";
    /// As many sources are being brought as may be at once.
    TooManyUploads = "too_many_uploads", 503, "too many bring sources already",
        "try again in a few seconds";
    /// The project's source cannot be had now.
    SourceUnavailable = "source_unavailable", 503, "the project's source cannot be had now",
        "try again with the same Idempotency-Key: a source that is being fetched goes on; if it stays so, see what the forge role says";
    /// As many artifacts are being sent as may be at once.
    TooManyDownloads = "too_many_downloads", 503, "too many get artifacts already",
        "try again in a few seconds";
    /// As many follow as the orchestrator serves at once.
    TooManyFollowers = "too_many_followers", 503, "too many follow already",
        "close streams that nobody reads, or try again later";
    /// What was asked may or may not take effect.
    OutcomeUnknown = "outcome_unknown", 504, "the outcome is not known yet",
        "ask for the run: it shows whether it took effect; asking again does no harm";
}

impl Code {
    /// The code as it is written.
    pub fn as_str(self) -> &'static str {
        self.row().code
    }

    /// The HTTP status.
    pub fn status(self) -> u16 {
        self.row().status
    }

    /// What it means, in general.
    pub fn title(self) -> &'static str {
        self.row().title
    }

    /// How to mend it.
    pub fn hint(self) -> &'static str {
        self.row().hint
    }

    /// The document that says so; `detail` is what went wrong this time.
    pub fn problem(self, detail: impl Into<String>) -> Problem {
        let Row { code, status, title, hint } = self.row();
        let kind = format!("urn:otto:problem:{code}");
        Problem { kind, title: title.to_owned(), status, code: self, detail: detail.into(), hint: hint.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_written_as_the_table_has_it() {
        for code in Code::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
            assert!((400..600).contains(&code.status()), "{code:?}");
            assert!(!code.hint().is_empty() && !code.title().is_empty(), "{code:?}");
        }
    }

    #[test]
    fn the_table_is_ordered_by_status() {
        assert!(Code::ALL.is_sorted_by_key(|code| code.status()));
    }

    #[test]
    fn a_problem_reads_back() {
        let problem = Code::UnknownRun.problem("there is no run run_x");
        let text = serde_json::to_string(&problem).unwrap();
        assert!(text.starts_with(r#"{"type":"urn:otto:problem:unknown_run","title":"no such run","status":404,"#), "{text}");
        assert_eq!(serde_json::from_str::<Problem>(&text).unwrap(), problem);
    }
}
