//! Between an agent and the program of a step: one JSON file, an exit code, and HTTP over a unix socket.
//!
//! The agent runs the program with one argument, the path of an [`Invocation`] as JSON. What it writes on its standard output and standard
//! error is the step's output. While it runs it may call the agent over the socket [`InvocationConfiguration::ipc`], with
//! `Authorization: Bearer <`[`Endpoints::secret`]`>`; each step has a secret of its own, which ends with it.
//!
//! | request | body | effect |
//! |---|---|---|
//! | `POST /v1/status` | `{"status": text}` | shown as what the step is doing now |
//! | `POST /v1/terminate` | `{"outcome": "success" \| "unstable" \| "failure" \| "aborted", "reason": text}` | the stage ends after this step |
//! | `PUT /v1/variables/NAME` | the text, at most [`VARIABLE_BYTES_MAX`] bytes | sets a variable, as `into` does |
//! | `DELETE /v1/variables/NAME` | | drops a variable |
//! | `PUT /v1/artifacts/NAME` | a tar archive | keeps an artifact |
//! | `GET /v1/artifacts/NAME` | | the tar archive of one that a stage before this one kept |
//! | `GET /v1/source` | | the tar archive of the run's source |
//! | `POST /v1/tests` | a [`TestReport`](crate::event::run::TestReport) | adds to the stage's test report |
//! | `POST /v1/runs` | a [`RunRequest`] | starts a run of another pipeline: `{"run": id}` |
//! | `GET /v1/runs/ID` | | `{"outcome": text or null}` |
//!
//! An error is answered with a problem document (RFC 9457).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// The most bytes of a variable that a step captures.
pub const VARIABLE_BYTES_MAX: usize = 64 * 1024;

/// What a step's program finds in the file that its one argument names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invocation {
    /// What Otto and the pipeline's `configure` say.
    pub configuration: InvocationConfiguration,
    /// The step's arguments, by keyword: texts, numbers, booleans, lists. Decimals are texts, so that they keep their digits.
    pub parameters: BTreeMap<String, Json>,
}

/// The part of an invocation that is not the step's arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvocationConfiguration {
    /// The run's id.
    pub pipeline: String,
    /// The id of this call, unlike that of every other.
    pub uuid: String,
    /// A folder that is kept for the step between calls on this agent, if its manifest asks for one.
    pub cache: Option<String>,
    /// The path of the unix socket.
    pub ipc: String,
    /// What can be asked for over it.
    pub endpoints: Endpoints,
    /// The step's own configuration, with defaults filled in, by key.
    #[serde(flatten)]
    pub declared: BTreeMap<String, Json>,
}

/// How the agent is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// Sent as a bearer token (RFC 6750, section 2.1).
    pub secret: String,
    /// The path of the first resource and so on, by name: `status`, `terminate`, `variables`, `artifacts`, `source`, `tests`, `runs`.
    #[serde(flatten)]
    pub paths: BTreeMap<String, String>,
}

/// How a step's program ends, by its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepEnd {
    /// 0.
    Success,
    /// 1, and every other code.
    Failure,
    /// 2: the stage is aborted.
    Aborted,
    /// 3: the stage goes on, and is unstable.
    Unstable,
}

impl StepEnd {
    /// What an exit code means.
    pub fn of_code(code: i32) -> Self {
        match code {
            0 => Self::Success,
            2 => Self::Aborted,
            3 => Self::Unstable,
            _ => Self::Failure,
        }
    }
}

/// Asks for a run of another pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RunRequest {
    /// The pipeline's file, from the root of this run's source.
    pub pipeline: String,
    /// The other project; `None` for this one.
    #[serde(default)]
    pub project: Option<String>,
    /// Values of its parameters.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
}
