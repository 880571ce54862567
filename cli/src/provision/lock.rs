//! One `otto up` at a time uses a folder: it holds a lock on a file, which the system takes from it when it ends, however that is.

use std::{fs, path::Path};

use service::file::LockFile;

use super::{ProvisionError, files::FileError};

#[derive(Debug)]
pub(super) struct Lock {
    _file: LockFile,
}

impl Lock {
    pub(super) fn take(data: &Path) -> Result<Self, ProvisionError> {
        let path = data.join("lock");
        let failed = |source| FileError::new("lock", &path, source);
        let file = LockFile::open(&path).map_err(failed)?;
        if !file.try_hold().map_err(failed)? {
            let pid = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
            return Err(ProvisionError::Running { data: data.to_owned(), pid });
        }
        fs::write(&path, format!("{}\n", std::process::id())).map_err(failed)?;
        Ok(Self { _file: file })
    }
}
