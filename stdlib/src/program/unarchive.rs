//! `unarchive`: puts an artifact of a stage before this one into the work directory.

use std::path::Path;

use tree::{Archive, Rules, unpack_into};

use super::{
    End, ProgramError,
    agent::{Agent, encoded},
    arguments::{Arguments, path_below},
    say,
};

pub(super) fn run(arguments: &Arguments, agent: &Agent) -> Result<End, ProgramError> {
    let name = arguments.text("name")?;
    let path = path_below("path", arguments.optional_text("path")?.unwrap_or("."))?;
    let archive = agent.archive(&format!("/v1/artifacts/{}", encoded(name)))?;
    let unpacked = unpack_into(Archive::tar(archive), (Path::new("."), Path::new(&path)), &Rules::TREE, &|| false)?;
    say(&format!("{name}: {} files, directories and links, {} bytes", unpacked.entries, unpacked.bytes))?;
    Ok(End::Success)
}
