//! The programs of the standard steps that need a process: they speak the step protocol as those of any library do, and run where the
//! stage's own processes run. What user code can have touched is opened here, never by the agent.
//!
//! **Invariant:** a program is given its invocation file and nothing else; it looks at no variable of the environment, and where a path is
//! its argument, at nothing outside of the folder that it runs in.

mod agent;
mod archive;
mod arguments;
mod checkout;
mod git;
mod http;
mod junit;
mod trigger;
mod unarchive;

use std::{
    error::Error,
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use model::protocol::step::Invocation;

use self::{agent::Agent, arguments::Arguments};

/// The longest invocation file: a stage's is smaller.
const INVOCATION_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// How a program ended that could do its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Success,
    Failure,
    /// The stage goes on, and is unstable.
    Unstable,
}

impl End {
    /// Its exit code, as [`model::protocol::step`] has them.
    fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            Self::Unstable => 3,
        }
    }
}

/// Why a program could not do its work.
#[derive(Debug, thiserror::Error)]
enum ProgramError {
    /// It was not called by an agent.
    #[error("cannot read the invocation file {}", path.display())]
    Invocation {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: io::Error,
    },
    /// There is no such step.
    #[error("`{0}` is no step of the standard library that has a program")]
    Unknown(String),
    /// An argument does not do.
    #[error(transparent)]
    Argument(#[from] arguments::ArgumentError),
    /// The agent says no.
    #[error(transparent)]
    Agent(#[from] agent::AgentError),
    /// Files cannot be archived.
    #[error(transparent)]
    Archive(#[from] archive::ArchiveError),
    /// An archive cannot be put there.
    #[error(transparent)]
    Unpack(#[from] tree::UnpackError),
    /// A clone does not come about.
    #[error(transparent)]
    Git(#[from] git::GitError),
    /// A request does not.
    #[error(transparent)]
    Http(#[from] http::HttpError),
    /// A test report is none.
    #[error(transparent)]
    Junit(#[from] junit::JunitError),
    /// The log does not take it.
    #[error("cannot write to the log")]
    Output(#[source] io::Error),
}

/// The program of a step.
type Program = fn(&Arguments, &Agent) -> Result<End, ProgramError>;

/// The programs, by the step's symbol.
const PROGRAMS: [(&str, Program); 7] = [
    ("archive", archive::run),
    ("checkout", checkout::run),
    ("git", git::run),
    ("http", http::run),
    ("junit", junit::run),
    ("trigger", trigger::run),
    ("unarchive", unarchive::run),
];

/// The steps that have a program here.
pub fn symbols() -> impl Iterator<Item = &'static str> {
    PROGRAMS.iter().map(|(symbol, _)| *symbol)
}

/// Runs the program of a step in this process's working directory; gives the exit code.
pub fn run(symbol: &str, invocation: &Path) -> u8 {
    match called(symbol, invocation) {
        Ok(end) => end.code(),
        Err(error) => {
            let mut text = error.to_string();
            let mut source = error.source();
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            // Nobody is left to be told that the log does not take it.
            let _muted = writeln!(io::stderr(), "{text}");
            End::Failure.code()
        }
    }
}

fn called(symbol: &str, path: &Path) -> Result<End, ProgramError> {
    let (_, program) = PROGRAMS.iter().find(|(known, _)| *known == symbol).ok_or_else(|| ProgramError::Unknown(symbol.to_owned()))?;
    let unreadable = |source| ProgramError::Invocation { path: path.to_owned(), source };
    if fs::metadata(path).map_err(unreadable)?.len() > INVOCATION_BYTES_MAX {
        return Err(unreadable(io::Error::other(format!("it has more than {INVOCATION_BYTES_MAX} bytes"))));
    }
    let text = fs::read(path).map_err(unreadable)?;
    let Invocation { configuration, parameters } = serde_json::from_slice(&text).map_err(|error| unreadable(error.into()))?;
    program(&Arguments(parameters), &Agent::new(&configuration))
}

/// A line of the log.
fn say(text: &str) -> Result<(), ProgramError> {
    writeln!(io::stdout(), "{text}").map_err(ProgramError::Output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_call_fails() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("invocation.json");
        assert_eq!(run("git", &path), 1);
        fs::write(&path, "{}").unwrap();
        assert_eq!(run("git", &path), 1);
        assert_eq!(run("sh", &path), 1);
    }

    #[test]
    fn every_program_has_a_manifest() {
        let library = crate::library();
        assert!(symbols().all(|symbol| library.steps.iter().any(|step| step.symbol == symbol)));
    }
}
