//! `checkout`: puts this run's own source into the work directory.

use std::path::Path;

use tree::{Archive, Rules, unpack_into};

use super::{
    End, ProgramError,
    agent::Agent,
    arguments::{Arguments, path_below},
    say,
};

pub(super) fn run(arguments: &Arguments, agent: &Agent) -> Result<End, ProgramError> {
    let path = path_below("path", arguments.optional_text("path")?.unwrap_or("."))?;
    let archive = agent.archive("/v1/source")?;
    let unpacked = unpack_into(Archive::tar(archive), (Path::new("."), Path::new(&path)), &Rules::SOURCE, &|| false)?;
    say(&format!("the source: {} files, directories and links", unpacked.entries))?;
    Ok(End::Success)
}
