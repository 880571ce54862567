//! A folder of the agent that is made when something is first put into it: a short run needs none of them, and a folder costs what a step does.

use std::{
    fs::DirBuilder,
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use super::workspace::remove_tree;

/// The folder, which only the agent's user may read.
#[derive(Debug)]
pub(super) struct LateFolder(PathBuf);

impl LateFolder {
    /// Removes what an earlier life left there: it was never made durable, so it is not trusted.
    pub(super) fn without_leftovers(path: PathBuf) -> io::Result<Self> {
        remove_tree(&path)?;
        Ok(Self(path))
    }

    /// Where it is, or will be.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The same, and there from now on.
    pub(super) fn made(&self) -> io::Result<&Path> {
        match DirBuilder::new().mode(0o700).create(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            Ok(()) | Err(_) => Ok(&self.0),
        }
    }
}
