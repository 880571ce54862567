//! Where the API is, and what it wants to see.

use std::{fmt, path::PathBuf};

use anyhow::Context as _;
use service::{env, settings::Settings};

use crate::{home, provision::ClientEnv};

/// Where the API is unless told otherwise: where `otto up` puts it unless told otherwise.
const URL_DEFAULT: &str = "http://127.0.0.1:7480";

/// The address of an API, and its token.
#[derive(Clone)]
pub struct Connection {
    pub(super) url: String,
    token: String,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Connection {
    /// The API at `url`, such as `http://127.0.0.1:7480`, that wants `token`.
    pub fn new(url: &str, token: &str) -> Self {
        Self { url: url.trim_end_matches('/').to_owned(), token: token.trim().to_owned() }
    }

    /// The API that the environment names: `OTTO_API_URL` with the token in `OTTO_API_TOKEN`, or in the file that
    /// `OTTO_API_TOKEN_FILE` names. What is not named is taken from what the last `otto up` wrote.
    pub fn from_environment() -> anyhow::Result<Self> {
        let up = home::up_folder().ok().map(|folder| ClientEnv::read(&folder)).transpose()?.flatten();
        Self::from_settings(Settings::from_environment(), up)
    }

    fn from_settings(mut settings: Settings, up: Option<ClientEnv>) -> anyhow::Result<Self> {
        let (up_url, up_file) = up.map(|up| (up.api_url, up.api_token_file)).unzip();
        let url = settings.optional::<String>(env::API_URL).or(up_url).unwrap_or_else(|| URL_DEFAULT.to_owned());
        if let Some(token) = settings.optional::<String>(env::API_TOKEN) {
            return Ok(Self::new(&url, &token));
        }
        let file = settings.optional::<PathBuf>(env::API_TOKEN_FILE).or(up_file).with_context(|| {
            format!("no token for the API at {url}: start Otto with `otto up`, or set {} to the file that holds it", env::API_TOKEN_FILE)
        })?;
        let token = std::fs::read_to_string(&file).with_context(|| format!("cannot read the API's token from {}", file.display()))?;
        Ok(Self::new(&url, &token))
    }

    pub(super) fn token(&self) -> &str {
        &self.token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(values: &[(&str, &str)]) -> Settings {
        Settings::new(values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn what_is_not_named_is_what_otto_up_wrote() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "from up\n").unwrap();
        let up = || Some(ClientEnv { api_url: "http://127.0.0.1:9/".to_owned(), api_token_file: file.clone() });
        let seen = |values: &[(&str, &str)], up| {
            let connection = Connection::from_settings(settings(values), up).unwrap();
            (connection.url, connection.token)
        };
        assert_eq!(seen(&[], up()), ("http://127.0.0.1:9".to_owned(), "from up".to_owned()));
        let all = [(env::API_URL, "http://127.0.0.1:8"), (env::API_TOKEN, "t"), (env::API_TOKEN_FILE, "/nowhere")];
        assert_eq!(seen(&all, up()), ("http://127.0.0.1:8".to_owned(), "t".to_owned()));
        assert_eq!(seen(&all[1..], None), (URL_DEFAULT.to_owned(), "t".to_owned()));
    }

    #[test]
    fn without_a_token_the_error_says_where_one_comes_from() {
        let error = Connection::from_settings(settings(&[]), None).unwrap_err().to_string();
        assert!(error.contains("otto up") && error.contains(env::API_TOKEN_FILE), "{error}");
        assert!(!format!("{:?}", Connection::new("http://x", "s3cret")).contains("s3cret"));
    }
}
