//! Containers: a stage's image and its services, by podman or docker, whichever works here (RFC 0015).
//!
//! ```text
//! agent ─▶ client `run -i IMAGE` ─▶ /bin/sh, which waits at its standard input; the stage's network, shared by its services
//!      ├─▶ client `exec` for each step's process                 (its signals go through that shell)
//!      └─▶ client `run SERVICE` for each service, in the same network
//! ```
//!
//! The services of steps without an image have a network of their own, which this machine reaches ([`Neighbours`]).
//!
//! **Invariants:** nothing is started by a shell of this machine, and no text of a pipeline becomes an option of the client; when
//! [`Place::end`] returns, every container of the attempt is gone; what a killed agent leaves ends with its standard input, or is removed by
//! the next agent, which knows it by its labels.

mod image;
mod leftovers;
mod neighbours;
mod place;
mod probe;
mod services;

use std::{io, path::PathBuf, process::Stdio, time::Duration};

use tokio::{process::Command, time::timeout};

pub use self::probe::{ContainerOptions, Containers, Unusable, probe};
pub(crate) use self::{
    leftovers::remove as remove_leftovers,
    neighbours::Neighbours,
    place::{Place, PlaceError, Running, Wanted, give_up},
};

/// The clients that are tried, in this order.
const CLIENTS: [&str; 2] = ["podman", "docker"];
/// How long the client may take for what it does in an instant. Cleaning up after a crash of the machine takes podman some seconds.
const CLIENT_DEADLINE: Duration = Duration::from_secs(30);
/// The most of what a client says that is kept for a reason.
const SAID_BYTES_MAX: usize = 4 * 1024;

/// What runs containers on this machine, tried and found to work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    /// The client's program.
    program: PathBuf,
    /// Before its command: `--runtime runc`.
    global: Vec<String>,
    /// For each container: `--ulimit …`.
    run: Vec<String>,
    /// Its name and version, for people.
    name: String,
}

/// Why the client did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// It cannot be started.
    #[error("cannot start {program}")]
    Start {
        /// The client.
        program: String,
        #[source]
        source: io::Error,
    },
    /// It failed.
    #[error("`{command}` failed: {said}")]
    Failed {
        /// What it was told.
        command: String,
        /// What it says.
        said: String,
    },
    /// It has not come to an end.
    #[error("`{command}` has not ended after {} s", .after.as_secs())]
    Late {
        /// What it was told.
        command: String,
        after: Duration,
    },
}

impl Runtime {
    /// Its name and version, for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The client with a command; the agent's own environment is its.
    fn command(&self, command: &str) -> Command {
        let mut client = Command::new(&self.program);
        client.args(&self.global).arg(command).stdin(Stdio::null()).kill_on_drop(true);
        client
    }

    /// What it prints.
    async fn ask(&self, command: &str, arguments: &[&str], deadline: Duration) -> Result<String, ClientError> {
        let told = || format!("{} {command} {}", self.program.display(), arguments.join(" "));
        let mut client = self.command(command);
        client.args(arguments);
        let output = timeout(deadline, client.output()).await.map_err(|_| ClientError::Late { command: told(), after: deadline })?;
        let output = output.map_err(|source| ClientError::Start { program: self.program.display().to_string(), source })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        Err(ClientError::Failed { command: told(), said: last_of(&output.stderr) })
    }
}

/// The end of what a client says, on one line: there it says why.
fn last_of(said: &[u8]) -> String {
    let from = said.len().saturating_sub(SAID_BYTES_MAX);
    let text = String::from_utf8_lossy(said.get(from..).unwrap_or_default()).trim().replace('\n', "; ");
    if text.is_empty() { "it does not say why".to_owned() } else { text }
}
