//! `archive`: keeps files and directories of the work directory under a name.

use std::{io, path::Path};

use tree::{Limits, PackError, Selection, SelectionError, Times};

use super::{
    End, ProgramError,
    agent::{Agent, encoded},
    arguments::Arguments,
    say,
};

/// Why nothing was archived.
#[derive(Debug, thiserror::Error)]
pub(super) enum ArchiveError {
    /// What is wanted is no path or pattern.
    #[error(transparent)]
    Selection(#[from] SelectionError),
    /// A file cannot be packed.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// What is wanted is not there.
    #[error("there is no `{0}`")]
    Missing(String),
}

pub(super) fn run(arguments: &Arguments, agent: &Agent) -> Result<End, ProgramError> {
    let name = arguments.text("name")?;
    let mut paths = arguments.texts("paths")?;
    if paths.is_empty() {
        paths.push(name.to_owned());
    }
    let selection = Selection::new(paths.iter().map(String::as_str)).map_err(ArchiveError::from)?;
    let mut packed = None;
    let sent = agent.put_archive(&format!("/v1/artifacts/{}", encoded(name)), &mut |output| {
        let result = tree::pack(Path::new("."), &selection, (Times::Kept, Limits::TREE), output, &|| false).map_err(ArchiveError::from);
        let result = result.and_then(|packed| match packed.missing.first() {
            Some(missing) => Err(ArchiveError::Missing(missing.clone())),
            None => Ok(packed),
        });
        let failed = result.is_err();
        packed = Some(result);
        // The agent keeps nothing that was not sent to its end.
        if failed { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    });
    let packed = match packed {
        Some(Err(ArchiveError::Pack(PackError::Write(_)))) | None => None,
        Some(result) => Some(result?),
    };
    sent?;
    if let Some(packed) = packed {
        say(&format!("{name}: {} files, directories and links, {} bytes", packed.entries, packed.bytes))?;
        for left_out in &packed.left_out {
            say(&format!("{left_out} was left out: it is no file, directory or link"))?;
        }
    }
    Ok(End::Success)
}
