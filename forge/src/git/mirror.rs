//! Mirrors of repositories that lie elsewhere: bare, one for each project, fetched over HTTP when something has happened.
//!
//! **Invariants:** only the address of the project's configuration is asked, at the addresses that were checked, without redirects, and by no
//! protocol but its own; names of refs go to git's standard input; no hook, submodule or helper runs. A mirror is a cache: whatever is odd
//! about one, it is removed and fetched again.

use std::{
    collections::BTreeMap,
    fs, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use config::project::Fetch;
use data_encoding::BASE64;
use model::ProjectName;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tracing::{info, warn};
use ureq::http::Uri;

use super::{GitError, ObjectId, command, said_in};
use crate::{cron::Head, happened::RefName, library::is_public};

/// How long a fetch may take: the largest one over a slow line.
const FETCH_TIMEOUT: Duration = Duration::from_mins(10);
/// How long a connection may be slower than [`SLOW_BYTES`] a second, in seconds.
const SLOW_SECONDS: u64 = 30;
/// What is too slow.
const SLOW_BYTES: u64 = 1000;
/// A mirror that has grown beyond this many of the largest fetches is made anew: nothing else removes what branches have left.
const GROWTH_MAX: u64 = 4;

/// The most bytes of a list of branches and tags: over 100,000 of them.
const LIST_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The mirrors of all projects.
#[derive(Debug)]
pub(crate) struct Mirrors {
    folder: PathBuf,
    /// One fetch of a project at a time: git would refuse the second.
    locks: Mutex<BTreeMap<ProjectName, Arc<tokio::sync::Mutex<()>>>>,
}

/// What is fetched, and from where.
#[derive(Debug)]
pub(crate) struct Wish<'a> {
    pub(crate) project: &'a ProjectName,
    pub(crate) address: &'a str,
    pub(crate) fetch: &'a Fetch,
    /// The refs.
    pub(crate) names: &'a [RefName],
    /// The commit that is to be there then.
    pub(crate) commit: &'a ObjectId,
    /// Whether the refs matter even if the commit is there already.
    pub(crate) refresh: bool,
}

impl Mirrors {
    /// Those in a folder of this forge's own, which is made when it is needed.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, locks: Mutex::default() }
    }

    /// A bare repository that has what is wished, as far as it exists.
    pub(crate) async fn fetch(&self, wish: &Wish<'_>) -> Result<PathBuf, GitError> {
        let (_alone, mirror) = self.lock(wish.project).await;
        let failed = |source| GitError::Failed { repository: mirror.clone(), stderr: String::new(), source };
        prepare(&mirror, wish.fetch).await?;
        if !wish.refresh && has(&mirror, wish.commit).await? {
            return Ok(mirror);
        }
        let refspecs: Vec<String> = wish.names.iter().map(|name| format!("+{name}:{name}\n")).collect();
        let fetched = run(&mirror, wish, refspecs.concat()).await;
        if matches!(fetched, Err(GitError::FetchTimeout(_) | GitError::FetchTooLarge { .. })) {
            fs::remove_dir_all(&mirror).map_err(failed)?;
        }
        fetched?;
        if !has(&mirror, wish.commit).await? {
            // The ref has moved on. Most servers give what they still have.
            let by_id = format!("+{0}:refs/otto/commits/{0}\n", wish.commit);
            if let Err(error) = run(&mirror, wish, by_id).await {
                info!(project = %wish.project, commit = %wish.commit, error = service::supervisor::chain(&error), "the commit is not there any more");
            }
        }
        Ok(mirror)
    }
}

impl Mirrors {
    /// The branches and tags of the repository elsewhere, and their commits.
    pub(crate) async fn list(&self, project: &ProjectName, address: &str, fetch: &Fetch) -> Result<BTreeMap<String, String>, GitError> {
        self.ls_remote(project, address, fetch, &["--heads", "--tags", "--", address]).await.map(|text| read_refs(&text))
    }

    /// The default branch of the repository elsewhere, if it has a commit.
    pub(crate) async fn head(&self, project: &ProjectName, address: &str, fetch: &Fetch) -> Result<Option<Head>, GitError> {
        self.ls_remote(project, address, fetch, &["--symref", "--", address, "HEAD"]).await.map(|text| read_head(&text))
    }

    async fn ls_remote(&self, project: &ProjectName, address: &str, fetch: &Fetch, arguments: &[&str]) -> Result<String, GitError> {
        let (_alone, mirror) = self.lock(project).await;
        prepare(&mirror, fetch).await?;
        let failed = |source| GitError::Failed { repository: mirror.clone(), stderr: String::new(), source };
        let mut command = asking(&mirror, address, fetch).await?;
        command.arg("ls-remote").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(GitError::Start)?;
        let listing = child.stdout.take().expect("it is piped").take(LIST_BYTES_MAX);
        let reading = async {
            let mut text = String::new();
            BufReader::new(listing).read_to_string(&mut text).await?;
            Ok::<_, io::Error>((text, child.wait_with_output().await?))
        };
        let read = tokio::time::timeout(FETCH_TIMEOUT, reading).await.map_err(|_| GitError::FetchTimeout(address.to_owned()))?;
        let (text, output) = read.map_err(failed)?;
        if output.status.success() {
            return Ok(text);
        }
        Err(GitError::Unreachable { address: address.to_owned(), why: said_in(&output.stderr) })
    }

    /// Where it is written down which branches and tags were seen.
    pub(crate) fn seen(&self, project: &ProjectName) -> PathBuf {
        self.folder.join(format!("{project}.seen.json"))
    }

    async fn lock(&self, project: &ProjectName) -> (tokio::sync::OwnedMutexGuard<()>, PathBuf) {
        let lock = self.locks.lock().expect("no holder of this lock panics").entry(project.clone()).or_default().clone();
        (lock.lock_owned().await, self.folder.join(format!("{project}.git")))
    }
}

/// Sees to it that there is a mirror in order.
async fn prepare(mirror: &Path, fetch: &Fetch) -> Result<(), GitError> {
    let failed = |source| GitError::Failed { repository: mirror.to_owned(), stderr: String::new(), source };
    if mirror.is_dir() {
        // What a git left that was killed; there is no other one, as the mirror is locked.
        sweep(mirror).map_err(failed)?;
        let size = size_of(&mirror.join("objects")).map_err(failed)?;
        if size <= fetch.bytes_max.saturating_mul(GROWTH_MAX) {
            return Ok(());
        }
        info!(mirror = %mirror.display(), size, "the mirror has grown large, and is made anew");
        fs::remove_dir_all(mirror).map_err(failed)?;
    }
    fs::create_dir_all(mirror).map_err(failed)?;
    let mut init = command(mirror);
    init.args(["init", "--quiet", "--bare", "--template="]).stdin(Stdio::null()).stderr(Stdio::piped());
    super::end(mirror, init.spawn().map_err(GitError::Start)?).await.map(drop)
}

async fn has(mirror: &Path, commit: &ObjectId) -> Result<bool, GitError> {
    super::commit_of(mirror, commit.as_str()).await.map(|found| found.is_some())
}

/// Git, ready to ask the address and nothing else.
async fn asking(mirror: &Path, address: &str, fetch: &Fetch) -> Result<tokio::process::Command, GitError> {
    let unreachable = |why: String| GitError::Unreachable { address: address.to_owned(), why };
    let pinned = check(address, fetch.private_network).await.map_err(unreachable)?;
    let mut command = command(mirror);
    let scheme = if address.starts_with("https:") { "https" } else { "http" };
    let slow = [format!("http.lowSpeedLimit={SLOW_BYTES}"), format!("http.lowSpeedTime={SLOW_SECONDS}")];
    let pinned = pinned.map(|pinned| format!("http.curloptResolve={pinned}"));
    for option in [format!("protocol.{scheme}.allow=always")].into_iter().chain(slow).chain(pinned) {
        command.arg("-c").arg(option);
    }
    // An empty proxy is none; a redirect, or an alternate that the server names, could lead anywhere.
    command.args(["-c", "http.followRedirects=false", "-c", "http.proxy=", "-c", "credential.helper=", "-c", "core.askPass="]);
    if let Some(path) = &fetch.credentials_file {
        let credentials = fs::read_to_string(path).map_err(|error| unreachable(format!("cannot read {}: {error}", path.display())))?;
        let header = format!("Authorization: Basic {}", BASE64.encode(credentials.trim().as_bytes()));
        // Not as an argument, which every process of the machine can read.
        command.envs([("GIT_CONFIG_COUNT", "1"), ("GIT_CONFIG_KEY_0", "http.extraHeader"), ("GIT_CONFIG_VALUE_0", header.as_str())]);
    }
    Ok(command)
}

async fn run(mirror: &Path, wish: &Wish<'_>, refspecs: String) -> Result<(), GitError> {
    let (address, bytes_max) = (wish.address, wish.fetch.bytes_max);
    let failed = |source| GitError::Failed { repository: mirror.to_owned(), stderr: String::new(), source };
    let mut command = asking(mirror, address, wish.fetch).await?;
    command.args(["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", "--no-recurse-submodules"]);
    command.args(["--stdin", "--", address]).stderr(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().map_err(GitError::Start)?;
    // Git asks nobody before it has read its standard input to the end, so the limit is there in time, and its helpers inherit it.
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let most = getrlimit(Resource::Fsize).maximum.map_or(bytes_max, |most| most.min(bytes_max));
    let limit = Rlimit { current: Some(most), maximum: Some(most) };
    prlimit(pid, Resource::Fsize, limit).map_err(|error| failed(error.into()))?;
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(refspecs.as_bytes()).await.map_err(failed)?;
    drop(stdin);
    let ended = tokio::time::timeout(FETCH_TIMEOUT, child.wait_with_output()).await;
    let output = ended.map_err(|_| GitError::FetchTimeout(address.to_owned()))?.map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let said = said_in(&output.stderr);
    warn!(project = %wish.project, said, "the fetch failed");
    if size_of(&mirror.join("objects")).map_err(failed)? >= bytes_max || said.contains("File too large") || said.contains("signal 25") {
        return Err(GitError::FetchTooLarge { address: address.to_owned(), bytes_max });
    }
    if said.contains("couldn't find remote ref") {
        return Err(GitError::NoRef(said));
    }
    Err(GitError::Unreachable { address: address.to_owned(), why: said })
}

/// What the lines of `git ls-remote` say. A tag with a message leads to its commit, which stands under its name and `^{}`.
pub(super) fn read_refs(text: &str) -> BTreeMap<String, String> {
    let mut refs = BTreeMap::new();
    for (id, name) in text.lines().filter_map(|line| line.split_once('\t')) {
        let name = name.strip_suffix("^{}").unwrap_or(name);
        if id.parse::<ObjectId>().is_ok() && RefName::new(name).is_some() {
            refs.insert(name.to_owned(), id.to_owned());
        }
    }
    refs
}

/// What the lines of `git ls-remote --symref … HEAD` say.
fn read_head(text: &str) -> Option<Head> {
    let ends = |line: &str| line.strip_suffix("\tHEAD").map(str::to_owned);
    let mut lines = text.lines().filter_map(ends);
    let branch = RefName::new(lines.next()?.strip_prefix("ref: ")?).filter(|name| name.branch_name().is_some())?;
    Some(Head { branch, commit: lines.next()?.parse().ok()? })
}

/// Looks the address's host up, and gives what git is to take for its addresses, so that it does not look up another one.
async fn check(address: &str, private_network: bool) -> Result<Option<String>, String> {
    let uri: Uri = address.parse().map_err(|error| format!("the address is none: {error}"))?;
    let host = uri.host().ok_or("the address has no host")?;
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
    let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
    let found: Vec<SocketAddr> = match literal {
        Some(ip) => vec![SocketAddr::new(ip, port)],
        None => tokio::net::lookup_host((host, port)).await.map_err(|error| format!("{host} is not known: {error}"))?.collect(),
    };
    if let Some(private) = found.iter().find(|found| !private_network && !is_public(found.ip())) {
        return Err(format!(
            "{host} has the address {}, which is not of the public internet: `private_network: true` of the project's `source` allows it",
            private.ip()
        ));
    }
    if found.is_empty() {
        return Err(format!("{host} has no address"));
    }
    let shown = |ip: IpAddr| if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
    let all = found.iter().map(|found| shown(found.ip())).collect::<Vec<_>>().join(",");
    Ok(literal.is_none().then(|| format!("{host}:{port}:{all}")))
}

/// Removes locks and unfinished packs.
fn sweep(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (name, path) = (entry.file_name(), entry.path());
        let name = name.as_encoded_bytes();
        if entry.file_type()?.is_dir() {
            // Objects that are not in packs are as good as those that are.
            if !(name.len() == 2 && folder.ends_with("objects")) {
                sweep(&path)?;
            }
        } else if name.ends_with(b".lock") || name.starts_with(b"tmp_") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn size_of(folder: &Path) -> io::Result<u64> {
    let mut size = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        size += if metadata.is_dir() { size_of(&entry.path())? } else { metadata.len() };
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_that_leads_to_no_branch_is_none() {
        let id = "1".repeat(40);
        let head = read_head(&format!("ref: refs/heads/main\tHEAD\n{id}\tHEAD\n{id}\trefs/remotes/HEAD\n")).unwrap();
        assert_eq!((head.branch.as_str(), head.commit.as_str()), ("refs/heads/main", id.as_str()));
        for other in [
            format!("{id}\tHEAD\n"),
            String::new(),
            format!("ref: refs/tags/x\tHEAD\n{id}\tHEAD\n"),
            "ref: refs/heads/x\tHEAD\n".to_owned(),
        ] {
            assert_eq!(read_head(&other), None, "{other}");
        }
    }

    #[tokio::test]
    async fn only_public_addresses_are_asked_unless_the_configuration_says_so() {
        for address in ["http://127.0.0.1:1/x", "http://localhost/x", "https://[::1]/x", "https://169.254.169.254/x", "https://10.0.0.1/x"]
        {
            let refused = check(address, false).await.unwrap_err();
            assert!(refused.contains("not of the public internet"), "{address}: {refused}");
        }
        assert_eq!(check("https://93.184.216.34/x.git", false).await, Ok(None));
        assert_eq!(check("http://127.0.0.1:3000/x.git", true).await, Ok(None));
        let pinned = check("http://localhost:3000/x.git", true).await.unwrap().unwrap();
        assert!(pinned.starts_with("localhost:3000:") && pinned.contains('1'), "{pinned}");
    }
}
