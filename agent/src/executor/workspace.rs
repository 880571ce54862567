//! The directories of one attempt: fresh when it begins, gone when it is over.
//!
//! ```text
//! <n>/source     where steps run
//!    /home, /tmp, …
//! <n>.layers/    what is written to a source that is mounted: out of the reach of steps
//! ```

use std::{
    fs::DirBuilder,
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::DirBuilderExt as _,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::{
    fcntl::{OFlag, open},
    mount::{MntFlags, umount2},
    sys::stat::Mode,
};

use crate::sandbox::{UPPER, WORK};

/// `<root>/source`, where steps run, and beside it what is not part of the source.
#[derive(Debug, Clone)]
pub(crate) struct Workspace {
    root: PathBuf,
    /// Where steps run instead: a person's own directory, which is neither filled nor removed.
    foreign: Option<PathBuf>,
}

/// A folder of an attempt, as the agent itself reaches it.
#[derive(Debug, Clone)]
pub(crate) struct Reach {
    path: PathBuf,
    /// What the path goes through.
    held: Option<Arc<OwnedFd>>,
}

impl Reach {
    /// A folder that others see, too.
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path, held: None }
    }

    /// A folder that only the attempt's processes see at its path.
    pub(crate) fn through(folder: Arc<OwnedFd>) -> Self {
        Self { path: PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())), held: Some(folder) }
    }

    /// Holds the folder. Where the path is one that steps see, one of them may have put a link there: that is not followed.
    pub(crate) fn hold(&self) -> nix::Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let is_plain = self.held.is_none();
        open(&self.path, if is_plain { flags | OFlag::O_NOFOLLOW } else { flags }, Mode::empty())
    }

    /// The folder, for as long as this is there.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Workspace {
    /// The one at `root`, which need not exist.
    pub(crate) fn at(root: PathBuf) -> Self {
        Self { root, foreign: None }
    }

    /// The same, whose steps run in a person's own directory.
    pub(crate) fn in_place(self, directory: PathBuf) -> Self {
        Self { foreign: Some(directory), ..self }
    }

    /// Whether steps run in a person's own directory.
    pub(crate) fn is_foreign(&self) -> bool {
        self.foreign.is_some()
    }

    /// Makes the directories. Only the agent's user can enter them.
    pub(crate) fn create(&self) -> io::Result<()> {
        for path in [&self.root, &self.source(), &self.home(), &self.temporary()] {
            DirBuilder::new().mode(0o700).create(path)?;
        }
        Ok(())
    }

    /// The directory that holds the others.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where steps run: the source tree.
    pub(crate) fn source(&self) -> PathBuf {
        self.foreign.clone().unwrap_or_else(|| self.root.join("source"))
    }

    /// The steps' `HOME`.
    pub(crate) fn home(&self) -> PathBuf {
        self.root.join("home")
    }

    /// The steps' `TMPDIR`.
    pub(crate) fn temporary(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// Where the script of a step is written that cannot be an argument.
    pub(crate) fn script(&self, step: u32) -> PathBuf {
        self.root.join(format!("step-{step}"))
    }

    /// Where a call of a step's program lies: what it is given, and its socket.
    pub(crate) fn call(&self, step: u32, number: u32) -> PathBuf {
        self.root.join(format!("call-{step}-{number}"))
    }

    /// Makes the folder for what is written to a source that is mounted, with the two that this needs.
    pub(crate) fn layers(&self) -> io::Result<PathBuf> {
        let folder = self.layers_folder();
        for path in [&folder, &folder.join(UPPER), &folder.join(WORK)] {
            DirBuilder::new().mode(0o700).create(path)?;
        }
        Ok(folder)
    }

    fn layers_folder(&self) -> PathBuf {
        self.root.with_extension("layers")
    }

    /// Where what its stage writes takes room on the disk.
    pub(crate) fn trees(&self) -> [PathBuf; 2] {
        [self.root.clone(), self.layers_folder()]
    }

    /// Removes everything. It is no error if nothing is there.
    pub(crate) fn remove(&self) -> io::Result<()> {
        let [root, layers] = self.trees().map(|tree| remove_tree(&tree));
        root.and(layers)
    }
}

/// Removes a tree that stages have made, with whatever they have done to keep it; see [`tree::remove`]. What they have mounted in it is
/// unmounted, and not looked into: behind it may be the machine's own files.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    tree::remove(path, &|mounted| Ok(umount2(mounted, MntFlags::MNT_DETACH)?))
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::PermissionsExt as _,
    };

    use super::*;

    #[test]
    fn a_tree_that_cannot_be_written_to_is_removed_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace::at(folder.path().join("w"));
        workspace.create().unwrap();
        let locked = workspace.source().join("locked");
        fs::create_dir(&locked).unwrap();
        fs::write(locked.join("file"), "x").unwrap();
        fs::set_permissions(&locked, Permissions::from_mode(0o555)).unwrap();
        workspace.remove().unwrap();
        assert!(!folder.path().join("w").exists());
        workspace.remove().unwrap();
    }

    #[test]
    fn a_persons_own_directory_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("own");
        fs::create_dir(&own).unwrap();
        let workspace = Workspace::at(folder.path().join("w"));
        workspace.create().unwrap();
        let workspace = workspace.in_place(own.clone());
        assert_eq!(workspace.source(), own);
        workspace.remove().unwrap();
        assert!(own.is_dir() && !folder.path().join("w").exists());
    }
}
