//! Where the API is, and what it wants to see.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use service::{env, file::write_secret, settings::Settings};

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

    /// The API that the environment names, else that of `otto login`, else that of the last `otto up`: `OTTO_API_URL` with the token in
    /// `OTTO_API_TOKEN`, or in the file that `OTTO_API_TOKEN_FILE` names. The token of a login goes to its own server only.
    pub fn from_environment() -> anyhow::Result<Self> {
        let up = home::up_folder().ok().map(|folder| ClientEnv::read(&folder)).transpose()?.flatten();
        Self::from_settings(Settings::from_environment(), Login::kept()?, up)
    }

    fn from_settings(mut settings: Settings, login: Option<Login>, up: Option<ClientEnv>) -> anyhow::Result<Self> {
        let (up_url, up_file) = up.map(|up| (up.api_url, up.api_token_file)).unzip();
        let login = login.map(|Login(login)| login);
        let kept_url = login.as_ref().map(|login| login.url.clone());
        let url = settings.optional::<String>(env::API_URL).or(kept_url).or(up_url).unwrap_or_else(|| URL_DEFAULT.to_owned());
        if let Some(token) = settings.optional::<String>(env::API_TOKEN) {
            return Ok(Self::new(&url, &token));
        }
        let file = settings.optional::<PathBuf>(env::API_TOKEN_FILE);
        if let Some(login) = login.filter(|login| file.is_none() && Self::new(&url, "").url == login.url) {
            return Ok(login);
        }
        let file = file.or(up_file).with_context(|| {
            format!("no token for the API at {url}: start Otto with `otto up`, or set {} to the file that holds it", env::API_TOKEN_FILE)
        })?;
        let token = std::fs::read_to_string(&file).with_context(|| format!("cannot read the API's token from {}", file.display()))?;
        Ok(Self::new(&url, &token))
    }

    pub(super) fn token(&self) -> &str {
        &self.token
    }
}

/// The server and the token that `otto login` keeps: lines of `NAME=value`, in a file that only its owner reads.
#[derive(Debug, Clone)]
pub struct Login(Connection);

impl Login {
    /// The API at `url`, and a token for it.
    pub fn new(url: &str, token: &str) -> Self {
        Self(Connection::new(url, token))
    }

    fn file() -> anyhow::Result<PathBuf> {
        Ok(home::folder()?.join("login.env"))
    }

    /// Keeps it in place of what was kept; gives where.
    pub fn keep(&self) -> anyhow::Result<PathBuf> {
        let file = Self::file()?;
        self.write(&file)?;
        Ok(file)
    }

    fn write(&self, file: &Path) -> anyhow::Result<()> {
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let text = format!("{}={}\n{}={}\n", env::API_URL, self.0.url, env::API_TOKEN, self.0.token);
        write_secret(file, &text).with_context(|| format!("cannot write {}", file.display()))
    }

    /// Forgets what is kept; `false` if nothing was.
    pub fn forget() -> anyhow::Result<bool> {
        let file = Self::file()?;
        match std::fs::remove_file(&file) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).with_context(|| format!("cannot remove {}", file.display())),
        }
    }

    fn kept() -> anyhow::Result<Option<Self>> {
        Self::read(&Self::file()?)
    }

    fn read(file: &Path) -> anyhow::Result<Option<Self>> {
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
        };
        let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        let (url, token) = value(env::API_URL)
            .zip(value(env::API_TOKEN))
            .with_context(|| format!("{} is not what `otto login` writes: log in again", file.display()))?;
        Ok(Some(Self::new(url, token)))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

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
            let connection = Connection::from_settings(settings(values), None, up).unwrap();
            (connection.url, connection.token)
        };
        assert_eq!(seen(&[], up()), ("http://127.0.0.1:9".to_owned(), "from up".to_owned()));
        let all = [(env::API_URL, "http://127.0.0.1:8"), (env::API_TOKEN, "t"), (env::API_TOKEN_FILE, "/nowhere")];
        assert_eq!(seen(&all, up()), ("http://127.0.0.1:8".to_owned(), "t".to_owned()));
        assert_eq!(seen(&all[1..], None), (URL_DEFAULT.to_owned(), "t".to_owned()));
    }

    #[test]
    fn a_login_is_kept_by_its_owner_and_its_token_goes_to_its_own_server() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("home/login.env");
        assert!(Login::read(&file).unwrap().is_none());
        Login::new("http://127.0.0.1:7/", "kept").write(&file).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let seen = |values: &[(&str, &str)]| {
            let up = ClientEnv { api_url: "http://127.0.0.1:9".to_owned(), api_token_file: "/nowhere".into() };
            let connection = Connection::from_settings(settings(values), Login::read(&file).unwrap(), Some(up));
            connection.map(|connection| (connection.url, connection.token)).ok()
        };
        let kept = Some(("http://127.0.0.1:7".to_owned(), "kept".to_owned()));
        assert_eq!(seen(&[]), kept);
        assert_eq!(seen(&[(env::API_URL, "http://127.0.0.1:7/")]), kept);
        assert_eq!(seen(&[(env::API_URL, "http://127.0.0.1:8")]), None, "another server is not shown the token");
        let own = [(env::API_URL, "http://127.0.0.1:8"), (env::API_TOKEN, "t")];
        assert_eq!(seen(&own), Some(("http://127.0.0.1:8".to_owned(), "t".to_owned())));
        assert_eq!(seen(&own[1..]), Some(("http://127.0.0.1:7".to_owned(), "t".to_owned())), "another token for the same server");
        std::fs::write(&file, "x").unwrap();
        assert!(Login::read(&file).is_err());
    }

    #[test]
    fn without_a_token_the_error_says_where_one_comes_from() {
        let error = Connection::from_settings(settings(&[]), None, None).unwrap_err().to_string();
        assert!(error.contains("otto up") && error.contains(env::API_TOKEN_FILE), "{error}");
        assert!(!format!("{:?}", Connection::new("http://x", "s3cret")).contains("s3cret"));
    }
}
