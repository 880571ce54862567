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
//!   refspec: ['refs/heads/*']        # the same in git's words
//! webhook:                           # see [`Webhook`]; without it, none is taken
//!   forge: github                    # or gitlab, gitea, forgejo
//!   secret_file: /etc/otto/webhooks/shop
//! statuses:                          # see [`Statuses`]; without it, no forge is told how runs go
//!   token_file: /etc/otto/statuses/shop
//! pipeline: Ottofile                 # the pipeline file's path; this is the default. `{ inline: … }` is the pipeline itself
//! libraries:
//!   hosts: [steps.example.lan]       # hosts of step libraries that may have an address of this network
//! protection:                        # see [`Protection`]
//!   trust: trusted                   # or untrusted: nothing of the project is trusted
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

use model::{Digest, ProjectName, context::TriggerContext};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};

use crate::{
    statuses::{Statuses, StatusesFile},
    trust::{Protection, PullRequests, RefPattern, Refs},
    yaml::{self, At, Entry, Malformed, Node},
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
    /// What is run.
    pub pipeline: Pipeline,
    /// Hosts of step libraries that may have an address that is not of the public internet.
    pub library_hosts: Vec<String>,
    /// What protects it.
    pub protection: Protection,
}

/// The pipeline of a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pipeline {
    /// The file of this path, from the repository's root, as each commit has it.
    File(String),
    /// This text, whatever a commit has: it is the administrator's.
    Inline(String),
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
    /// The path of the pipeline file; of a pipeline that stands in the project's file, the name of that.
    pub fn pipeline_path(&self) -> String {
        match &self.pipeline {
            Pipeline::File(path) => path.clone(),
            Pipeline::Inline(_) => format!("{}.yml", self.name),
        }
    }

    /// What changes when another pipeline is configured.
    pub fn pipeline_id(&self) -> String {
        match &self.pipeline {
            Pipeline::File(path) => path.clone(),
            Pipeline::Inline(text) => format!("{}.yml {}", self.name, Digest::of(text.as_bytes())),
        }
    }

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

/// Something that is wrong with a project's file.
#[derive(Debug, thiserror::Error)]
#[error("{}{}: {what}", path.display(), at.map(|(line, column)| format!(":{line}:{column}")).unwrap_or_default())]
pub struct WrongProject {
    path: PathBuf,
    at: Option<At>,
    what: String,
}

impl fmt::Display for WrongProjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} wrong project setting(s):", self.0.len())?;
        self.0.iter().try_for_each(|wrong| write!(f, "\n  {wrong}"))
    }
}

/// The keys that each part of the file may have. A test holds them against the forms below.
const KEYS: [(&[&str], &[&str]); 9] = [
    (&[], &["title", "description", "source", "webhook", "statuses", "pipeline", "libraries", "protection"]),
    (&["source"], &["url", "refs", "refspec", "serve", "private_network", "fetch_mib", "credentials_file", "poll"]),
    (&["source", "refs"], REFS),
    (&["webhook"], &["forge", "secret_file", "repository"]),
    (&["statuses"], &["forge", "api", "repository", "token_file", "private_network"]),
    (&["pipeline"], &["inline"]),
    (&["libraries"], &["hosts"]),
    (&["protection"], &["trust", "protected", "pull_requests", "forks", "environments"]),
    (&["protection", "protected"], REFS),
];
const REFS: &[&str] = &["branches", "tags"];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProjectFile {
    title: Option<String>,
    description: Option<String>,
    source: SourceFile,
    webhook: Option<Webhook>,
    statuses: Option<StatusesFile>,
    #[serde(default)]
    pipeline: Pipeline,
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
    refspec: Option<Vec<String>>,
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

impl Default for Pipeline {
    fn default() -> Self {
        Self::File("Ottofile".to_owned())
    }
}

impl<'de> Deserialize<'de> for Pipeline {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PipelineReader)
    }
}

struct PipelineReader;

impl<'de> Visitor<'de> for PipelineReader {
    type Value = Pipeline;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the path of a pipeline file, or `inline` with a pipeline")
    }

    fn visit_str<E>(self, path: &str) -> Result<Pipeline, E> {
        Ok(Pipeline::File(path.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pipeline, A::Error> {
        let mut inline = None;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "inline" => inline = Some(map.next_value()?),
                _ => return Err(A::Error::unknown_field(&key, &["inline"])),
            }
        }
        inline.map(Pipeline::Inline).ok_or_else(|| A::Error::missing_field("inline"))
    }
}

/// Reads all projects of a folder, in the order of their names.
pub fn load(folder: &Path) -> Result<Vec<Project>, WrongProjects> {
    let wrong = |path: &Path, what: String| WrongProject { path: path.to_owned(), at: None, what };
    let mut paths = list(folder).map_err(|error| WrongProjects(vec![wrong(folder, error.to_string())]))?;
    paths.sort();
    if paths.len() > PROJECTS_MAX {
        return Err(WrongProjects(vec![wrong(folder, format!("there are over {PROJECTS_MAX} projects"))]));
    }
    let (mut projects, mut errors) = (Vec::new(), Vec::new());
    for path in paths {
        match read(&path) {
            Ok(project) => projects.push(project),
            Err(wrong) => errors.extend(wrong.into_iter().map(|Malformed { at, what }| WrongProject { path: path.clone(), at, what })),
        }
    }
    if errors.is_empty() { Ok(projects) } else { Err(WrongProjects(errors)) }
}

fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let files = entries.filter(|path| path.as_ref().map_or(true, |path| path.extension().is_some_and(|extension| extension == "yml")));
    files.collect()
}

/// The project of a file, or all that is wrong with it.
fn read(path: &Path) -> Result<Project, Vec<Malformed>> {
    let whole = |what: String| vec![Malformed { at: None, what }];
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let name: ProjectName = stem.parse().map_err(|error| whole(format!("the file's name is the project's: {error}")))?;
    let length = fs::metadata(path).map_err(|error| whole(error.to_string()))?.len();
    if length > FILE_BYTES_MAX {
        return Err(whole(format!("it has {length} bytes, over the limit of {FILE_BYTES_MAX}")));
    }
    let text = fs::read_to_string(path).map_err(|error| whole(error.to_string()))?;
    let entries = yaml::parse(&text).map_err(|malformed| vec![malformed])?;
    let mut wrong = Vec::new();
    refuse_unknown(&entries, &mut Vec::new(), &mut wrong);
    let file: ProjectFile = match serde_saphyr::from_str(&text) {
        Ok(file) if wrong.is_empty() => file,
        Ok(_) => return Err(wrong),
        // An unknown key is what serde stops at, too, and was said better.
        Err(_) if !wrong.is_empty() => return Err(wrong),
        Err(error) => return Err(vec![Malformed::from(&error)]),
    };
    let mut judge = Judge { entries: &entries, wrong };
    let project = resolve(name, file, &mut judge);
    if judge.wrong.is_empty() { project.ok_or_else(Vec::new) } else { Err(judge.wrong) }
}

/// What is wrong with a file whose form is right.
struct Judge<'a> {
    entries: &'a [Entry],
    wrong: Vec<Malformed>,
}

impl Judge<'_> {
    /// The value, if there is one; else it is said what is wrong with the setting.
    fn take<T>(&mut self, path: &str, value: Result<T, String>) -> Option<T> {
        match value {
            Ok(value) => Some(value),
            Err(what) => {
                let keys: Vec<&str> = path.split('.').collect();
                self.wrong.push(Malformed { at: yaml::place(self.entries, &keys), what: format!("{path}: {what}") });
                None
            }
        }
    }

    fn demand(&mut self, path: &str, holds: bool, what: &str) {
        self.take(path, if holds { Ok(()) } else { Err(what.to_owned()) });
    }

    fn absolute(&mut self, path: &str, file: Option<&Path>) {
        if let Some(file) = file.filter(|file| !file.is_absolute()) {
            self.take::<()>(path, Err(format!("`{}` is no absolute path", file.display())));
        }
    }
}

/// What the file comes to; `None` only where something is wrong.
fn resolve(name: ProjectName, file: ProjectFile, judge: &mut Judge<'_>) -> Option<Project> {
    let ProjectFile { title, description, source: from, webhook, statuses, pipeline, libraries, protection } = file;
    let SourceFile { url, refs, refspec, serve, private_network, fetch_mib, credentials_file, poll } = from;
    let source = judge.take("source.url", source(&url).map_err(|what| format!("`{url}` {what}")));
    let poll = poll.and_then(|text| judge.take("source.poll", pause(&text).map_err(|what| format!("`{text}` {what}"))));
    let is_here = source.as_ref().map(|source| source.repository().is_some());
    judge.demand(
        "source.poll",
        poll.is_none() || is_here != Some(true),
        "a repository on this machine tells of pushes itself: `otto hook install`",
    );
    judge.demand("source.serve", !serve || is_here != Some(false), "only a repository on this machine is served");
    judge.demand("source.refspec", refs.is_none() || refspec.is_none(), "`refs` says the same: leave one of them out");
    let of_refspec = refspec.and_then(|patterns| judge.take("source.refspec", refs_of(&patterns)));
    judge.absolute("source.credentials_file", credentials_file.as_deref());
    judge.absolute("webhook.secret_file", webhook.as_ref().map(|webhook| webhook.secret_file.as_path()));
    match &pipeline {
        Pipeline::File(path) => {
            judge.take(
                "pipeline",
                is_plain_path(path).then_some(()).ok_or_else(|| format!("`{path}` is no path below the repository's root")),
            );
        }
        Pipeline::Inline(text) => judge.demand("pipeline", !text.trim().is_empty(), "`inline` has no pipeline"),
    }
    let fetch = Fetch { private_network, bytes_max: u64::from(fetch_mib) * 1024 * 1024, credentials_file, poll };
    let statuses = match (statuses, &source) {
        (Some(statuses), Some(source)) => {
            let resolved = statuses.resolve(webhook.as_ref(), source, &fetch);
            let (path, resolved) = match resolved {
                Ok(statuses) => ("statuses", Ok(statuses)),
                Err((path, what)) => (path, Err(what)),
            };
            Some(judge.take(path, resolved)?)
        }
        (Some(_), None) | (None, _) => None,
    };
    Some(Project {
        name,
        title,
        description,
        source: source?,
        serve,
        fetch,
        refs: refs.or(of_refspec),
        webhook,
        statuses,
        pipeline,
        library_hosts: libraries.hosts,
        protection,
    })
}

/// Names every key that is none, and what was probably meant.
fn refuse_unknown<'a>(entries: &'a [Entry], path: &mut Vec<&'a str>, wrong: &mut Vec<Malformed>) {
    let environments = ["protection", "environments"];
    let known: &[&str] = match (KEYS.iter().find(|(of, _)| *of == path.as_slice()), path.as_slice()) {
        (Some((_, known)), _) => known,
        // The environments are named by who writes the file.
        (None, [first, second, rest @ ..]) if [*first, *second] == environments => match rest.len() {
            0 => &[],
            1 => &["from", "approvers"],
            _ => REFS,
        },
        (None, _) => return,
    };
    for entry in entries {
        if path.as_slice() != environments && !known.contains(&entry.key.as_str()) {
            let meant = yaml::suggestion(&entry.key, known.iter().copied());
            let help = meant.map_or_else(|| format!("expected {}", known.join(", ")), |meant| format!("did you mean `{meant}`?"));
            let place = if path.is_empty() { String::new() } else { format!(" of `{}`", path.join(".")) };
            wrong.push(Malformed { at: Some(entry.key_at), what: format!("there is no key `{}`{place}: {help}", entry.key) });
        } else if let Node::Map(inside) = &entry.value {
            path.push(&entry.key);
            refuse_unknown(inside, path, wrong);
            path.pop();
        }
    }
}

/// The branches and tags of git's refspecs, of which only the side of the source counts. Their `*` goes across slashes.
fn refs_of(refspecs: &[String]) -> Result<Refs, String> {
    let mut refs = Refs::default();
    for refspec in refspecs {
        let (from, to) =
            refspec.strip_prefix('+').unwrap_or(refspec).split_once(':').map_or((refspec.as_str(), None), |(from, to)| (from, Some(to)));
        if to.is_some() {
            return Err(format!("`{refspec}`: leave out where it is fetched to: write `{from}`"));
        }
        let from = from.trim_start_matches('+');
        let branch = from.strip_prefix("refs/heads/").map(|name| (name, &mut refs.branches));
        let (name, patterns) = match branch {
            Some(branch) => branch,
            None => match from.strip_prefix("refs/tags/") {
                Some(name) => (name, &mut refs.tags),
                None => return Err(format!("`{refspec}`: expected `refs/heads/…` or `refs/tags/…`")),
            },
        };
        patterns.push(RefPattern::new(&name.replace('*', "**")).map_err(|error| format!("`{refspec}`: {error}"))?);
    }
    Ok(refs)
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
            assert_eq!((project.name.as_str(), project.title.as_deref(), project.pipeline_path().as_str()), (name, title, pipeline));
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
            let said = error.lines().find(|line| line.contains(&format!("/{name}.yml:")));
            assert!(said.is_some_and(|said| said.contains(what)), "{name}: {error}");
        }
        assert!(load(&folder.path().join("none")).is_err());
    }

    #[test]
    fn all_that_is_wrong_with_a_project_is_said_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let said = |text: &str| {
            fs::write(folder.path().join("a.yml"), text).unwrap();
            let WrongProjects(wrong) = load(folder.path()).unwrap_err();
            wrong.iter().map(|wrong| wrong.to_string().rsplit_once("/a.yml:").unwrap().1.to_owned()).collect::<Vec<_>>()
        };
        let semantic =
            "source:\n  url: shop.git\n  poll: 60\n  credentials_file: x\npipeline: ../x\nwebhook:\n  forge: gitea\n  secret_file: s\n";
        let places = [
            "2:8: source.url: ",
            "3:9: source.poll: ",
            "4:21: source.credentials_file: ",
            "8:16: webhook.secret_file: ",
            "5:11: pipeline: ",
        ];
        let wrong = said(semantic);
        assert_eq!(wrong.len(), places.len(), "{wrong:#?}");
        assert!(wrong.iter().zip(places).all(|(wrong, place)| wrong.starts_with(place)), "{wrong:#?}");
        let keys = "tittle: x\nsource: { url: /x, pol: 60s }\nprotection:\n  environments:\n    prod: { form: {} }\n    test: { from: { branch: [a] } }\n";
        assert_eq!(
            said(keys),
            [
                "1:1: there is no key `tittle`: did you mean `title`?",
                "2:20: there is no key `pol` of `source`: did you mean `poll`?",
                "5:13: there is no key `form` of `protection.environments.prod`: did you mean `from`?",
                "6:21: there is no key `branch` of `protection.environments.test.from`: did you mean `branches`?",
            ]
        );
        let form = said("source:\n  url: /x\n  fetch_mib: many\n");
        assert!(form.len() == 1 && form[0].starts_with("3:14: "), "{form:?}");
    }

    #[test]
    fn a_key_is_known_where_a_form_has_it() {
        let known = |form: &str, path: &[&str], whole: &str| {
            // serde names the keys that it knows.
            let error = serde_saphyr::from_str::<ProjectFile>(whole).unwrap_err().to_string();
            let (_, known) = KEYS.iter().find(|(of, _)| *of == path).unwrap_or_else(|| panic!("{form}"));
            let named = known.iter().filter(|known| error.contains(&known.to_string())).count();
            assert_eq!(named, known.len(), "{form}: {error}");
            assert_eq!(error.matches(", ").count().max(known.len() - 1), error.matches(", ").count(), "{form}: {error}");
        };
        known("the file", &[], "zz: 1");
        known("the source", &["source"], "source: { zz: 1 }");
        known("the webhook", &["webhook"], "webhook: { zz: 1 }");
        known("the statuses", &["statuses"], "statuses: { zz: 1 }");
        known("the libraries", &["libraries"], "libraries: { zz: 1 }");
        known("the protection", &["protection"], "protection: { zz: 1 }");
        known("what is protected", &["protection", "protected"], "protection: { protected: { zz: 1 } }");
    }

    #[test]
    fn a_pipeline_is_a_file_of_the_commit_or_the_administrators_own() {
        let folder = tempfile::tempdir().unwrap();
        let url = repository_in(folder.path()).display().to_string();
        let read = |pipeline: &str| {
            fs::write(folder.path().join("a.yml"), format!("source: {{ url: {url} }}\n{pipeline}")).unwrap();
            load(folder.path()).map(|mut projects| projects.remove(0))
        };
        assert_eq!(read("").unwrap().pipeline, Pipeline::File("Ottofile".to_owned()));
        let inline = read("pipeline:\n  inline: |\n    pipeline { stage 'A' { sh 'make' } }\n").unwrap();
        assert_eq!(inline.pipeline, Pipeline::Inline("pipeline { stage 'A' { sh 'make' } }\n".to_owned()));
        assert_eq!(inline.pipeline_path(), "a.yml");
        assert_ne!(inline.pipeline_id(), read("pipeline: { inline: x }").unwrap().pipeline_id());
        for wrong in ["pipeline: { inline: '' }", "pipeline: {}", "pipeline: { path: x }", "pipeline: [x]"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_refspec_says_which_branches_and_tags() {
        let of = |refspecs: &[&str]| refs_of(&refspecs.iter().map(|&refspec| refspec.to_owned()).collect::<Vec<_>>());
        let refs = of(&["refs/heads/main", "+refs/heads/release/*", "refs/tags/v*"]).unwrap();
        assert!(refs.has_branch("main") && refs.has_branch("release/1/2") && !refs.has_branch("other"));
        assert!(refs.tags[0].matches("v1") && !refs.tags[0].matches("w1"));
        for wrong in ["main", "refs/pull/1/head", "+refs/heads/*:refs/remotes/origin/*", "refs/heads/[a"] {
            assert!(of(&[wrong]).is_err(), "{wrong}");
        }
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
