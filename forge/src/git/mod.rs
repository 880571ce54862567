//! Git, asked for the tree of one commit.
//!
//! `git cat-file --batch` reads objects and nothing else: no hook, filter, pager or transport runs, no configuration but the
//! repository's own is read, and of what comes from outside, only
//! object ids become arguments. The archive is made here and not by `git archive`, which
//! leaves out what `.gitattributes` marks `export-ignore` (often the tests) and differs between versions of git.

pub(crate) mod mirror;
mod tree;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    fs::File,
    io::{self, Read as _, Seek as _},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    str::FromStr,
    time::Duration,
};

use model::planning::Listing;
use tokio::io::AsyncWriteExt as _;

use crate::{
    cron::Head,
    happened::{BRANCHES, RefName, TAGS},
    source::{Packed, SourceError},
};

/// The most bytes of a pipeline file.
pub const PIPELINE_BYTES_MAX: u64 = 1024 * 1024;
/// How long reading a commit may take: a tree of the largest size from a slow disk.
const GIT_TIMEOUT: Duration = Duration::from_mins(2);
/// The most bytes of what git says of an error that are shown.
const STDERR_BYTES_MAX: usize = 2048;

/// The id of a git object: 40 (SHA-1) or 64 (SHA-256) lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectId(String);

/// Why a text is no [`ObjectId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no object id: expected 40 or 64 lower-case hexadecimal digits")]
pub struct InvalidObjectId(String);

impl ObjectId {
    /// Whether it stands for "nothing": git's way to say that a ref did not exist before, or does not any more.
    pub fn is_null(&self) -> bool {
        self.0.bytes().all(|byte| byte == b'0')
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ObjectId {
    type Err = InvalidObjectId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if hex && [40, 64].contains(&text.len()) { Ok(Self(text.to_owned())) } else { Err(InvalidObjectId(text.to_owned())) }
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a commit is not read.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// The repository does not have it (any more).
    #[error("there is no commit {0}")]
    NoCommit(ObjectId),
    /// The commit has no pipeline file.
    #[error("there is no `{0}` in this commit")]
    NoPipeline(String),
    /// The branch into which a pull request of a fork would be merged, and whose pipeline it takes.
    #[error("there is no branch `{0}`, whose pipeline it would take")]
    NoTarget(String),
    /// The pipeline file cannot be read as one.
    #[error("`{path}` {why}")]
    BadPipeline {
        /// Its path.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The tree cannot be packed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Git cannot be started.
    #[error("cannot start git")]
    Start(#[source] io::Error),
    /// Git failed.
    #[error("git failed in {repository}: {stderr}")]
    Failed {
        /// The repository.
        repository: PathBuf,
        /// What it said.
        stderr: String,
        /// How that was noticed.
        #[source]
        source: io::Error,
    },
    /// The address of a repository elsewhere is not answered as it should be, or not asked.
    #[error("cannot fetch from {address}: {why}")]
    Unreachable {
        /// The address.
        address: String,
        /// What is wrong.
        why: String,
    },
    /// The repository elsewhere does not have the ref (any more).
    #[error("it is not there any more: {0}")]
    NoRef(String),
    /// A fetch is too large.
    #[error("what is to be fetched from {address} has over {bytes_max} bytes: `fetch_mib` of the project's `source` says how many are")]
    FetchTooLarge {
        /// The address.
        address: String,
        /// The limit.
        bytes_max: u64,
    },
    /// A fetch took too long.
    #[error("the fetch from {0} took too long")]
    FetchTimeout(String),
    /// Git took too long.
    #[error("git took over {} s in {repository}", GIT_TIMEOUT.as_secs())]
    Timeout {
        /// The repository.
        repository: PathBuf,
    },
}

impl GitError {
    /// Whether another try would end the same.
    pub fn is_final(&self) -> bool {
        match self {
            Self::NoCommit(_) | Self::NoRef(_) | Self::NoPipeline(_) | Self::NoTarget(_) | Self::BadPipeline { .. } => true,
            Self::Source(error) => match error {
                SourceError::TooLarge { .. } | SourceError::TooManyFiles | SourceError::Path { .. } => true,
                SourceError::Changed { .. } | SourceError::List(_) | SourceError::Pack { .. } => false,
            },
            Self::Start(_)
            | Self::Failed { .. }
            | Self::Timeout { .. }
            | Self::Unreachable { .. }
            | Self::FetchTooLarge { .. }
            | Self::FetchTimeout(_) => false,
        }
    }
}

/// What a run needs of a commit.
#[derive(Debug)]
pub(crate) struct Checkout {
    /// The text of the pipeline file, if that was wanted.
    pub(crate) pipeline: Option<String>,
    /// The tree.
    pub(crate) source: Packed,
    /// Its files, with the ids of their contents.
    pub(crate) listing: Listing,
    /// The paths that differ from the commit that is compared with; `None` if that is not known.
    pub(crate) changed: Option<Vec<String>>,
    /// The lock file, if there is one.
    pub(crate) lock: Option<Vec<u8>>,
}

/// Which commit is read.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// The commit.
    pub(crate) commit: ObjectId,
    /// The commit that it is compared with.
    pub(crate) base: Option<ObjectId>,
    /// The path of the pipeline file, if the commit's own is wanted.
    pub(crate) pipeline: Option<String>,
    /// The commit whose pipeline and lock file are taken, if it is another one.
    pub(crate) pipeline_of: Option<ObjectId>,
}

/// Reads a commit of a bare repository. A large archive lies in `folder` meanwhile.
pub(crate) async fn read_commit(repository: &Path, wanted: &Wanted, folder: &Path) -> Result<Checkout, GitError> {
    let (wanted, folder) = (wanted.clone(), folder.to_owned());
    read_objects(repository, move |objects| tree::read(objects, &wanted, &folder)).await
}

/// Reads the pipeline file of a commit, and nothing else of it.
pub(crate) async fn read_pipeline(repository: &Path, commit: &ObjectId, path: &str) -> Result<String, GitError> {
    let (commit, path) = (commit.clone(), path.to_owned());
    read_objects(repository, move |objects| tree::pipeline(objects, &commit, &path)).await
}

async fn read_objects<T: Send + 'static>(
    repository: &Path,
    read: impl FnOnce(tree::Objects) -> Result<T, tree::ReadError> + Send + 'static,
) -> Result<T, GitError> {
    let failed = |source| GitError::Failed { repository: repository.to_owned(), stderr: String::new(), source };
    let stderr = tempfile::tempfile().map_err(failed)?;
    let said = stderr.try_clone().map_err(failed)?;
    let mut child = command(repository).args(["cat-file", "--batch"]).stderr(stderr).spawn().map_err(GitError::Start)?;
    let stdin = child.stdin.take().expect("it is piped").into_owned_fd().map_err(failed)?;
    let stdout = child.stdout.take().expect("it is piped").into_owned_fd().map_err(failed)?;
    let objects = tree::Objects::new(File::from(stdin), File::from(stdout));
    let reading = tokio::task::spawn_blocking(move || read(objects));
    let Ok(read) = tokio::time::timeout(GIT_TIMEOUT, reading).await else {
        // With the process dies the pipe, and with the pipe the reading.
        child.kill().await.map_err(failed)?;
        return Err(GitError::Timeout { repository: repository.to_owned() });
    };
    match read.expect("reading a tree does not panic") {
        Ok(read) => {
            // Its input has ended, so it ends; if not, it is killed with its handle.
            let _status = tokio::time::timeout(GIT_TIMEOUT, child.wait()).await;
            Ok(read)
        }
        Err(tree::ReadError::Final(error)) => Err(error),
        Err(tree::ReadError::Git(source)) => Err(GitError::Failed { repository: repository.to_owned(), stderr: text_of(said), source }),
    }
}

/// The default branch of a repository, if it has a commit.
pub(crate) async fn head(repository: &Path) -> Result<Option<Head>, GitError> {
    let mut command = command(repository);
    command.args(["symbolic-ref", "--quiet", "HEAD"]).stdin(Stdio::null()).stderr(Stdio::piped());
    let name = end(repository, command.spawn().map_err(GitError::Start)?).await?;
    let Some(branch) = RefName::new(name.trim_end()).filter(|name| name.branch_name().is_some()) else { return Ok(None) };
    Ok(resolve(repository, &branch).await?.map(|commit| Head { branch, commit }))
}

/// The commit that a ref leads to, if there is one.
pub(crate) async fn resolve(repository: &Path, name: &RefName) -> Result<Option<ObjectId>, GitError> {
    commit_of(repository, name.as_str()).await
}

/// The commit of a ref or of an object id.
async fn commit_of(repository: &Path, name: &str) -> Result<Option<ObjectId>, GitError> {
    let mut child = command(repository).args(["cat-file", "--batch-check"]).stderr(Stdio::piped()).spawn().map_err(GitError::Start)?;
    let failed = |source| GitError::Failed { repository: repository.to_owned(), stderr: String::new(), source };
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(format!("{name}^{{commit}}\n").as_bytes()).await.map_err(failed)?;
    drop(stdin);
    let output = end(repository, child).await?;
    let mut words = output.split(' ');
    Ok(words.next().and_then(|id| id.parse().ok()).filter(|_| words.next() == Some("commit")))
}

/// The commit at which two parted, if they have one in common.
pub(crate) async fn merge_base(repository: &Path, one: &ObjectId, other: &ObjectId) -> Result<Option<ObjectId>, GitError> {
    let mut command = command(repository);
    command.args(["merge-base", one.as_str(), other.as_str()]).stdin(Stdio::null()).stderr(Stdio::piped());
    let output = end(repository, command.spawn().map_err(GitError::Start)?).await?;
    Ok(output.trim_end().parse().ok())
}

/// What git prints until it ends. That it found nothing is no error.
async fn end(repository: &Path, child: tokio::process::Child) -> Result<String, GitError> {
    let failed = |stderr, source| GitError::Failed { repository: repository.to_owned(), stderr, source };
    let ended = tokio::time::timeout(GIT_TIMEOUT, child.wait_with_output()).await;
    let output =
        ended.map_err(|_| GitError::Timeout { repository: repository.to_owned() })?.map_err(|source| failed(String::new(), source))?;
    match output.status.code() {
        Some(0 | 1) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        _ => Err(failed(said_in(&output.stderr), io::Error::other(output.status.to_string()))),
    }
}

/// What every git is told of its surroundings: it asks nobody, and reads no configuration but what it is given.
const SURROUNDINGS: [(&str, &str); 6] = [
    ("LC_ALL", "C"),
    ("HOME", "/nonexistent"),
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_NO_LAZY_FETCH", "1"),
];

/// Git in this repository, with nothing of this process's surroundings but `PATH`.
fn command(repository: &Path) -> tokio::process::Command {
    let option = |name: &str, value: &Path| {
        let mut option = OsString::from(name);
        option.push(value);
        option
    };
    let mut command = tokio::process::Command::new("git");
    command
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .envs(SURROUNDINGS)
        .envs([
            ("GIT_OPTIONAL_LOCKS", "0"),
            // A pushed replacement must not stand in for what was asked.
            ("GIT_NO_REPLACE_OBJECTS", "1"),
        ])
        .arg(option("--git-dir=", repository))
        .arg("-c")
        .arg(option("safe.directory=", repository))
        .args(["-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "protocol.allow=never"])
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// `git http-backend` of this repository. Without hooks, and without what git would do by itself: nothing runs here but what was asked for.
pub(crate) fn http_backend(repository: &Path) -> tokio::process::Command {
    let directory = repository.to_str().expect("the configuration takes UTF-8 only");
    let settings = [
        ("core.hooksPath", "/dev/null"),
        ("core.fsmonitor", "false"),
        ("safe.directory", directory),
        ("protocol.allow", "never"),
        ("http.uploadpack", "true"),
        ("http.receivepack", "true"),
        ("http.uploadarchive", "false"),
        ("http.getanyfile", "false"),
        ("receive.fsckObjects", "true"),
        ("receive.autogc", "false"),
        ("receive.updateServerInfo", "false"),
        ("maintenance.auto", "false"),
        ("gc.auto", "0"),
    ];
    let mut command = tokio::process::Command::new("git");
    command
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .envs(SURROUNDINGS)
        .env("GIT_CONFIG_COUNT", settings.len().to_string())
        .arg("http-backend")
        .current_dir("/")
        .kill_on_drop(true);
    for (at, (key, value)) in settings.iter().enumerate() {
        command.env(format!("GIT_CONFIG_KEY_{at}"), key).env(format!("GIT_CONFIG_VALUE_{at}"), value);
    }
    command
}

/// The branches and tags of a repository on this machine, and their commits.
pub(crate) async fn refs(repository: &Path) -> Result<BTreeMap<String, String>, GitError> {
    let mut command = command(repository);
    command.args(["for-each-ref", "--format=%(objectname)%09%(refname)%0a%(*objectname)%09%(refname)^{}", BRANCHES, TAGS]);
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    let listed = end(repository, command.spawn().map_err(GitError::Start)?).await?;
    Ok(mirror::read_refs(&listed))
}

/// What git said, on one line.
pub(crate) fn text_of(mut said: File) -> String {
    let mut bytes = Vec::new();
    let read = said.rewind().and_then(|()| said.take(STDERR_BYTES_MAX as u64).read_to_end(&mut bytes));
    match read {
        Ok(0) => "it said nothing".to_owned(),
        Ok(_) => said_in(&bytes),
        Err(error) => format!("what it said cannot be read: {error}"),
    }
}

/// The same, of what was read.
fn said_in(bytes: &[u8]) -> String {
    let shown = bytes.get(..STDERR_BYTES_MAX).unwrap_or(bytes);
    String::from_utf8_lossy(shown).trim().replace('\n', "; ")
}

/// A path within a repository, for people.
pub(crate) fn shown(path: &[u8]) -> String {
    std::ffi::OsStr::from_bytes(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hexadecimal_digits_are_an_object_id() {
        assert!("0".repeat(40).parse::<ObjectId>().unwrap().is_null());
        assert!(!"0123456789abcdef".repeat(4).parse::<ObjectId>().unwrap().is_null());
        let long = "a".repeat(65);
        for text in ["", "HEAD", "--batch", &long, &"A".repeat(40), &format!("{}\n", "a".repeat(39))] {
            assert!(text.parse::<ObjectId>().is_err(), "{text}");
        }
    }
}
