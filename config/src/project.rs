//! The projects' configuration: one `<name>.yml` each in one folder.
//!
//! ```yaml
//! title: The web shop                # optional, like all but the source
//! description: What we sell.
//! source:
//!   url: /srv/git/shop.git           # a bare repository on this machine, or https://…, which is fetched
//!   serve: false                     # whether Otto serves that repository over HTTP
//!   private_network: false           # whether https://… may be an address that is not of the public internet
//!   fetch_mib: 4096                  # the most that one fetch may bring
//!   poll: 60s                        # how often is looked for pushes of which nobody tells; without it, never
//!   credentials_file: /etc/otto/git/shop   # `user:password` or `user:token`, if the repository is not public
//!   refs: { branches: ['**'] }       # what is delivered at all; without it, every branch and tag
//! webhook:                           # see [`Webhook`]; without it, none is taken
//!   forge: github                    # or gitlab, gitea, forgejo
//!   secret_file: /etc/otto/webhooks/shop
//! statuses:                          # see [`Statuses`]; without it, no forge is told how runs go
//!   token_file: /etc/otto/statuses/shop
//! pipeline: Ottofile                 # the pipeline file's path; this is the default
//! libraries:
//!   hosts: [steps.example.lan]       # hosts of step libraries that may have an address of this network
//! protection:                        # see [`Protection`]
//!   protected: { branches: [main, 'release/*'], tags: ['v*'] }
//!   pull_requests: run               # run or ignore
//!   forks: ignore
//!   environments:
//!     production: { from: { tags: ['v*'] }, approvers: [ann] }
//! ```

use std::{
    fmt, fs, io,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use model::{ProjectName, context::TriggerContext};
use serde::Deserialize;

use crate::{
    statuses::{Statuses, StatusesFile},
    trust::{Protection, PullRequests, Refs},
};

/// The most bytes of one project's file.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// The most projects of one installation. Each repository is looked at every few seconds.
pub const PROJECTS_MAX: usize = 1000;

/// A project: a repository that is delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// The name of its file, without `.yml`.
    pub name: ProjectName,
    /// What people call it.
    pub title: Option<String>,
    /// What it is.
    pub description: Option<String>,
    /// Where its commits come from.
    pub source: Source,
    /// Whether the forge serves the repository over HTTP; it lies on this machine then.
    pub serve: bool,
    /// How it is fetched, if it lies elsewhere.
    pub fetch: Fetch,
    /// What is delivered at all; without it, every branch and tag.
    pub refs: Option<Refs>,
    /// Which forge tells of it; without it, none is believed.
    pub webhook: Option<Webhook>,
    /// Where it is told how runs go; without it, nowhere.
    pub statuses: Option<Statuses>,
    /// The pipeline file's path, from the repository's root.
    pub pipeline: String,
    /// Hosts of step libraries that may have an address that is not of the public internet.
    pub library_hosts: Vec<String>,
    /// What protects it.
    pub protection: Protection,
}

/// Where a project's commits come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A bare repository on this machine, without symbolic links; it is UTF-8.
    Repository(PathBuf),
    /// An `https://` or `http://` address, without a user or a password in it, from which is fetched.
    Remote(String),
}

/// How a repository that lies elsewhere is fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// Whether it may have an address that is not of the public internet.
    pub private_network: bool,
    /// The most bytes of one fetch.
    pub bytes_max: u64,
    /// The absolute path of a file with `user:password`.
    pub credentials_file: Option<PathBuf>,
    /// How long after one look for pushes the next one follows; without it, nobody looks.
    pub poll: Option<Duration>,
}

/// A kind of forge: what its webhooks look like, and how they are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ForgeKind {
    /// GitHub, and GitHub Enterprise.
    Github,
    /// GitLab. A secret that begins with `whsec_` is a signing token; any other one is a secret token.
    Gitlab,
    /// Gitea.
    Gitea,
    /// Forgejo.
    Forgejo,
}

/// The webhooks that are believed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// Who sends them.
    pub forge: ForgeKind,
    /// The absolute path of a file with nothing but the secret that the forge has for this webhook.
    pub secret_file: PathBuf,
    /// The repository as the forge names it, such as `octo/shop`; without it, the end of the source's address must be that. Webhooks of
    /// other repositories are ignored, even if they have the same secret.
    pub repository: Option<String>,
}

impl Source {
    /// The repository on this machine, if it is one.
    pub fn repository(&self) -> Option<&Path> {
        match self {
            Self::Repository(path) => Some(path),
            Self::Remote(_) => None,
        }
    }
}

impl Project {
    /// Why what has happened starts no run by this configuration, if it starts none.
    pub fn refuses(&self, context: &TriggerContext) -> Option<&'static str> {
        let Some(pull_request) = &context.pull_request else {
            let is_delivered = self.refs.as_ref().is_none_or(|refs| refs.matches(context));
            return (!is_delivered).then_some("its configuration delivers other branches and tags");
        };
        let (rule, refused) = if pull_request.fork {
            (self.protection.forks, "its configuration ignores pull requests of forks")
        } else {
            (self.protection.pull_requests, "its configuration ignores pull requests")
        };
        match rule {
            PullRequests::Ignore => Some(refused),
            PullRequests::Run if self.refs.as_ref().is_none_or(|refs| refs.has_branch(&pull_request.target)) => None,
            PullRequests::Run => Some("its configuration delivers other branches than the pull request's target"),
        }
    }
}

/// Every project's file that is wrong.
#[derive(Debug, thiserror::Error)]
pub struct WrongProjects(Vec<WrongProject>);

/// A project's file that is wrong.
#[derive(Debug, thiserror::Error)]
#[error("{}: {what}", path.display())]
pub struct WrongProject {
    path: PathBuf,
    what: String,
}

impl fmt::Display for WrongProjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} wrong project(s):", self.0.len())?;
        self.0.iter().try_for_each(|wrong| write!(f, "\n  {wrong}"))
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProjectFile {
    title: Option<String>,
    description: Option<String>,
    source: SourceFile,
    webhook: Option<Webhook>,
    statuses: Option<StatusesFile>,
    #[serde(default = "default_pipeline")]
    pipeline: String,
    #[serde(default)]
    libraries: LibrariesFile,
    #[serde(default)]
    protection: Protection,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LibrariesFile {
    #[serde(default)]
    hosts: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SourceFile {
    url: String,
    refs: Option<Refs>,
    #[serde(default)]
    serve: bool,
    #[serde(default)]
    private_network: bool,
    #[serde(default = "default_fetch_mib")]
    fetch_mib: u32,
    credentials_file: Option<PathBuf>,
    poll: Option<String>,
}

/// Large enough for the history of the largest source tree that is run.
fn default_fetch_mib() -> u32 {
    4096
}

fn default_pipeline() -> String {
    "Ottofile".to_owned()
}

/// Reads all projects of a folder, in the order of their names.
pub fn load(folder: &Path) -> Result<Vec<Project>, WrongProjects> {
    let wrong = |path: &Path, what: String| WrongProject { path: path.to_owned(), what };
    let mut paths = list(folder).map_err(|error| WrongProjects(vec![wrong(folder, error.to_string())]))?;
    paths.sort();
    if paths.len() > PROJECTS_MAX {
        return Err(WrongProjects(vec![wrong(folder, format!("there are over {PROJECTS_MAX} projects"))]));
    }
    let (mut projects, mut errors) = (Vec::new(), Vec::new());
    for path in paths {
        match read(&path) {
            Ok(project) => projects.push(project),
            Err(what) => errors.push(wrong(&path, what)),
        }
    }
    if errors.is_empty() { Ok(projects) } else { Err(WrongProjects(errors)) }
}

fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let files = entries.filter(|path| path.as_ref().map_or(true, |path| path.extension().is_some_and(|extension| extension == "yml")));
    files.collect()
}

fn read(path: &Path) -> Result<Project, String> {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let name: ProjectName = stem.parse().map_err(|error| format!("the file's name is the project's: {error}"))?;
    let length = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > FILE_BYTES_MAX {
        return Err(format!("it has {length} bytes, over the limit of {FILE_BYTES_MAX}"));
    }
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    let file: ProjectFile = serde_saphyr::from_str(&text).map_err(|error| error.to_string())?;
    let source = source(&file.source.url).map_err(|what| format!("source.url: `{}` {what}", file.source.url))?;
    if !is_plain_path(&file.pipeline) {
        return Err(format!("pipeline: `{}` is no path below the repository's root", file.pipeline));
    }
    let ProjectFile { title, description, source: from, webhook, statuses, pipeline, libraries, protection } = file;
    let SourceFile { url: _, refs, serve, private_network, fetch_mib, credentials_file, poll } = from;
    let poll = poll.map(|text| pause(&text).map_err(|what| format!("source.poll: `{text}` {what}"))).transpose()?;
    if poll.is_some() && source.repository().is_some() {
        return Err("source.poll: a repository on this machine tells of pushes itself: `otto hook install`".to_owned());
    }
    if serve && source.repository().is_none() {
        return Err("source.serve: only a repository on this machine is served".to_owned());
    }
    if let Some(webhook) = webhook.as_ref().filter(|webhook| !webhook.secret_file.is_absolute()) {
        return Err(format!("webhook.secret_file: `{}` is no absolute path", webhook.secret_file.display()));
    }
    if let Some(path) = credentials_file.as_ref().filter(|path| !path.is_absolute()) {
        return Err(format!("source.credentials_file: `{}` is no absolute path", path.display()));
    }
    let fetch = Fetch { private_network, bytes_max: u64::from(fetch_mib) * 1024 * 1024, credentials_file, poll };
    let statuses = statuses.map(|statuses| statuses.resolve(webhook.as_ref(), &source, &fetch)).transpose()?;
    Ok(Project {
        name,
        title,
        description,
        source,
        serve,
        fetch,
        refs,
        webhook,
        statuses,
        pipeline,
        library_hosts: libraries.hosts,
        protection,
    })
}

/// `90s`, `5m` or `1h`.
fn pause(text: &str) -> Result<Duration, &'static str> {
    let wrong = "is no time: write `60s`, `5m` or `1h`";
    let (number, seconds) = [("s", 1), ("m", 60), ("h", 3600)]
        .into_iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)))
        .ok_or(wrong)?;
    let number: u32 = number.parse().map_err(|_| wrong)?;
    if number == 0 { Err("is too short: a second is the least") } else { Ok(Duration::from_secs(u64::from(number) * seconds)) }
}

fn source(url: &str) -> Result<Source, String> {
    if let Some((scheme, rest)) = url.split_once("://").filter(|(scheme, _)| *scheme != "file") {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        return match scheme {
            "https" | "http" if authority.contains('@') => Err("holds a user: name a file with the credentials instead".to_owned()),
            "https" | "http" if !authority.is_empty() => Ok(Source::Remote(url.to_owned())),
            _ => Err("is neither a path nor an https:// address".to_owned()),
        };
    }
    let path = Path::new(url.strip_prefix("file://").unwrap_or(url));
    if !path.is_absolute() {
        return Err("is no absolute path".to_owned());
    }
    bare_repository(path).map(Source::Repository).map_err(|error| error.to_string())
}

/// The path of a bare repository without symbolic links. Fails for what is none, or has a path that is no UTF-8.
pub fn bare_repository(path: &Path) -> io::Result<PathBuf> {
    let path = path.canonicalize()?;
    if path.to_str().is_none() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path is no UTF-8"));
    }
    if !path.join("HEAD").is_file() || !path.join("objects").is_dir() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no bare git repository: `git init --bare` makes one"));
    }
    Ok(path)
}

fn is_plain_path(path: &str) -> bool {
    let normal = Path::new(path).components().all(|component| matches!(component, Component::Normal(_)));
    // As git has it: without a doubled or trailing slash.
    normal && !path.is_empty() && !path.contains("//") && !path.ends_with('/') && !path.contains('\0')
}

#[cfg(test)]
mod tests {
    use model::context::{EventKind, PullRequest};

    use super::*;

    fn repository_in(folder: &Path) -> PathBuf {
        let repository = folder.join("shop.git");
        fs::create_dir_all(repository.join("objects")).unwrap();
        fs::write(repository.join("HEAD"), "ref: refs/heads/main\n").unwrap();
        repository.canonicalize().unwrap()
    }

    #[test]
    fn projects_are_read_in_the_order_of_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let repository = repository_in(folder.path());
        let url = repository.display();
        fs::write(folder.path().join("b.yml"), format!("title: B\nsource:\n  url: file://{url}\npipeline: ci/Ottofile\n")).unwrap();
        fs::write(folder.path().join("a.yml"), format!("source: {{ url: {url} }}\n")).unwrap();
        fs::write(folder.path().join("README"), "not a project").unwrap();
        let projects = load(folder.path()).unwrap();
        let expected = [("a", None, "Ottofile"), ("b", Some("B"), "ci/Ottofile")];
        assert_eq!(projects.len(), expected.len());
        for (project, (name, title, pipeline)) in projects.iter().zip(expected) {
            assert_eq!((project.name.as_str(), project.title.as_deref(), project.pipeline.as_str()), (name, title, pipeline));
            assert_eq!(project.source, Source::Repository(repository.clone()));
        }
    }

    #[test]
    fn every_wrong_project_is_reported_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let url = repository_in(folder.path()).display().to_string();
        for (name, text, _) in wrong(&url) {
            fs::write(folder.path().join(format!("{name}.yml")), text).unwrap();
        }
        let error = load(folder.path()).unwrap_err().to_string();
        for (name, _, what) in wrong(&url) {
            let line = error.lines().position(|line| line.contains(&format!("/{name}.yml: "))).unwrap_or_else(|| panic!("{name}: {error}"));
            let said = error.lines().skip(line).take(6).collect::<Vec<_>>().join("\n");
            assert!(said.contains(what), "{name}: {said}");
        }
        assert!(load(&folder.path().join("none")).is_err());
    }

    #[test]
    fn a_repository_elsewhere_has_an_address_without_credentials() {
        assert_eq!(source("https://git.test/shop.git"), Ok(Source::Remote("https://git.test/shop.git".to_owned())));
        for wrong in ["https://ann:pw@git.test/x", "https://", "ext::sh -c id", "ssh://git.test/x", "git@git.test:x", "-u", "https:///x"] {
            assert!(source(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_configuration_says_which_pull_requests_are_delivered() {
        let folder = tempfile::tempdir().unwrap();
        let url = repository_in(folder.path()).display().to_string();
        let refused = |text: &str, fork: bool, target: &str| {
            fs::write(folder.path().join("a.yml"), format!("{text}\n")).unwrap();
            let pull_request = PullRequest { number: 1, target: target.into(), source: "main".into(), fork };
            let context = TriggerContext { event: EventKind::PullRequest, pull_request: Some(pull_request), ..TriggerContext::default() };
            load(folder.path()).unwrap()[0].refuses(&context)
        };
        let plain = format!("source: {{ url: {url} }}");
        assert_eq!(refused(&plain, false, "main"), None);
        assert!(refused(&plain, true, "main").unwrap().contains("forks"), "without a word, those of forks are not");
        assert_eq!(refused(&format!("{plain}\nprotection: {{ forks: run }}"), true, "main"), None);
        assert!(refused(&format!("{plain}\nprotection: {{ pull_requests: ignore }}"), false, "main").is_some());
        let some = format!("source: {{ url: {url}, refs: {{ branches: [main] }} }}");
        assert_eq!((refused(&some, false, "main"), refused(&some, false, "old").is_some()), (None, true));
    }

    fn wrong(url: &str) -> [(&'static str, String, &'static str); 12] {
        [
            ("Upper", format!("source: {{ url: {url} }}"), "no project name"),
            ("a-unknown", format!("tittle: x\nsource: {{ url: {url} }}"), "tittle"),
            ("b-missing", "title: x".to_owned(), "source"),
            ("c-relative", "source: { url: shop.git }".to_owned(), "no absolute path"),
            ("d-nowhere", "source: { url: /nonexistent/otto.git }".to_owned(), "No such file"),
            ("e-bare", "source: { url: /usr }".to_owned(), "no bare git repository"),
            ("i-poll", "source: { url: 'https://git.test/x', poll: 60 }".to_owned(), "write `60s`"),
            ("k-serve", "source: { url: 'https://git.test/x', serve: true }".to_owned(), "on this machine"),
            ("j-poll", format!("source: {{ url: {url}, poll: 60s }}"), "otto hook install"),
            ("g-forge", format!("source: {{ url: {url} }}\nwebhook: {{ forge: sourceforge, secret_file: /s }}"), "sourceforge"),
            ("h-secret", format!("source: {{ url: {url} }}\nwebhook: {{ forge: gitea, secret_file: s }}"), "no absolute path"),
            ("f-escape", format!("source: {{ url: {url} }}\npipeline: ../Ottofile"), "no path below"),
        ]
    }
}
