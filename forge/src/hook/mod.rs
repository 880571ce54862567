//! The post-receive hook of a bare repository: a push is stored beside the repository first and told to the forge then, so that it is
//! not lost while the forge is away.
//!
//! ```text
//! <repository>/hooks/post-receive        runs `otto hook post-receive`
//! <repository>/otto/hook.json            where the forge is, and the secret that it knows the hook by
//! <repository>/otto/pending/<id>.json    deliveries that were not accepted yet; the forge looks here, too
//! <repository>/otto/rejected/<id>.json   deliveries that never will be
//! ```

mod install;
mod post_receive;

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

pub use install::{InstallError, install};
pub use post_receive::{ANSWER_TIMEOUT, HookError, post_receive};

/// The most bytes of `hook.json`.
const CONFIG_BYTES_MAX: u64 = 64 * 1024;

/// What `hook.json` says. It has no `Debug`: it holds a secret.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HookConfig {
    /// The forge, such as `http://127.0.0.1:7482`.
    pub(crate) url: String,
    /// Shows the forge that the hook speaks.
    pub(crate) secret: String,
}

impl HookConfig {
    /// Reads the configuration of the hook of a repository.
    pub(crate) fn read(repository: &Path) -> io::Result<Self> {
        let path = config_path(repository);
        let length = fs::metadata(&path)?.len();
        if length > CONFIG_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is too large"));
        }
        serde_json::from_slice(&fs::read(&path)?).map_err(io::Error::from)
    }
}

pub(crate) fn folder(repository: &Path) -> PathBuf {
    repository.join("otto")
}

pub(crate) fn config_path(repository: &Path) -> PathBuf {
    folder(repository).join("hook.json")
}

pub(crate) fn pending(repository: &Path) -> PathBuf {
    folder(repository).join("pending")
}

pub(crate) fn rejected(repository: &Path) -> PathBuf {
    folder(repository).join("rejected")
}

/// Creates a folder of its owner only, and those above it.
pub(crate) fn create_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a file of its owner only that is there whole or not at all; after a loss of power it may be as it was before.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut file = tempfile::Builder::new().prefix(".otto-").tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

/// Writes a file that is there whole or not at all, and after a loss of power, too.
pub(crate) fn write_durably(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut file = tempfile::Builder::new().prefix(".otto-").permissions(fs::Permissions::from_mode(mode)).tempfile_in(folder)?;
    file.write_all(bytes)?;
    // The umask may have taken a hook's right to be run.
    file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
}
