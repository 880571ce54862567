//! How a command in another terminal reaches the API: `client.env` of the folder, lines of `NAME=value`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use service::env;

use super::files::{self, FileError};

/// What a client needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientEnv {
    /// Where the API is.
    pub api_url: String,
    /// The file of its token.
    pub api_token_file: PathBuf,
}

impl ClientEnv {
    /// The file in an `otto up` folder.
    pub fn file(data: &Path) -> PathBuf {
        data.join("client.env")
    }

    /// Reads what the `otto up` of this folder wrote; `None` if there was none.
    pub fn read(data: &Path) -> Result<Option<Self>, FileError> {
        let path = Self::file(data);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(FileError::new("read", &path, source)),
        };
        let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned);
        match (value(env::API_URL), value(env::API_TOKEN_FILE)) {
            (Some(api_url), Some(api_token_file)) => Ok(Some(Self { api_url, api_token_file: api_token_file.into() })),
            _ => Err(FileError::new("understand", &path, io::ErrorKind::InvalidData.into())),
        }
    }

    pub(super) fn write(&self, data: &Path) -> Result<(), FileError> {
        let text = format!("{}={}\n{}={}\n", env::API_URL, self.api_url, env::API_TOKEN_FILE, self.api_token_file.display());
        files::write_secret(&Self::file(data), &text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_what_it_wrote() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(ClientEnv::read(folder.path()).unwrap(), None);
        let env = ClientEnv { api_url: "http://127.0.0.1:1".to_owned(), api_token_file: "/a b/=c".into() };
        env.write(folder.path()).unwrap();
        assert_eq!(ClientEnv::read(folder.path()).unwrap(), Some(env));
        fs::write(ClientEnv::file(folder.path()), "OTTO_API_URL=x\n").unwrap();
        assert!(ClientEnv::read(folder.path()).is_err());
    }
}
