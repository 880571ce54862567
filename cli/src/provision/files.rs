//! Files that are written whole or not at all, and secrets that only their owner reads.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

/// A file or folder could not be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {}", .path.display())]
pub struct FileError {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl FileError {
    pub(super) fn new(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self { doing, path: path.to_owned(), source }
    }
}

/// Creates a folder and those above it. What is new is its owner's only.
pub(super) fn create_private_folder(path: &Path) -> Result<(), FileError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| FileError::new("create", path, source))
}

/// Writes a file that only its owner reads: when this returns it is on disk, and at no time there is half of it.
pub(crate) fn write_secret(path: &Path, text: &str) -> Result<(), FileError> {
    service::file::write_secret(path, text).map_err(|source| FileError::new("write", path, source))
}

/// The text of a file, which is made if it is missing.
pub(super) fn read_or_create_secret<E: From<FileError>>(path: &Path, make: impl FnOnce() -> Result<String, E>) -> Result<String, E> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let text = make()?;
            write_secret(path, &text)?;
            Ok(text)
        }
        Err(source) => Err(FileError::new("read", path, source).into()),
    }
}
