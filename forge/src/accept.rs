//! Deliveries become triggers: each is on the bus before it is answered.

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use blob::{BlobError, Blobs};
use config::{Pipeline, Project, project::Source};
use eventbus::{Bus, BusError};
use model::{
    Digest, ProjectName, TriggerId,
    context::TriggerContext,
    lock::Lock,
    planning::{INLINE_BYTES_MAX, Text},
    protocol::forge::{ProjectRunReply, ProjectRunRequest, Revision},
    trigger::Trigger,
};
use serde::Serialize;
use tokio::sync::{OnceCell, Semaphore};
use tracing::info;

use crate::{
    cron::{Head, Looks},
    delivery::{Answer, Delivery, Ignored, REF_BYTES_MAX, StartedRun, UPDATES_MAX, Update},
    git::{
        self, GitError, ObjectId, Wanted,
        mirror::{Mirrors, Wish},
    },
    happened::{BRANCHES, Happened, RefName, TAGS, What},
    library,
    webhook::{Hook, Told},
};

/// Trees that are packed at once. Each keeps one processor busy; more would only take turns.
const PACKING_MAX: usize = 2;

/// Triggers that are remembered so that telling them again costs nothing; some hundred bytes each.
const RECENT_MAX: usize = 1000;

/// Why a delivery is not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AcceptError {
    #[error("the repository {0} is no project's: name it as the `url` of the `source` in a project's file, and start the forge again")]
    UnknownRepository(String),
    #[error("the delivery has {0} updates, over the limit of {UPDATES_MAX}")]
    TooManyUpdates(usize),
    #[error("the update of `{name}` has the object id `{id}`, which is none")]
    NoObjectId { name: String, id: String },
    /// The same delivery may be accepted later. So may those below.
    #[error(transparent)]
    Git(GitError),
    #[error("the source cannot be stored")]
    Store(#[source] BlobError),
    #[error("the trigger cannot be stored")]
    Bus(#[source] BusError),
}

impl AcceptError {
    /// Whether another try would end the same.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::UnknownRepository(_) | Self::TooManyUpdates(_) | Self::NoObjectId { .. } => true,
            Self::Git(_) | Self::Store(_) | Self::Bus(_) => false,
        }
    }
}

/// Accepts deliveries.
pub(crate) struct Acceptor {
    projects: Vec<Project>,
    hooks: BTreeMap<ProjectName, Hook>,
    bus: Bus,
    blobs: Blobs,
    folder: PathBuf,
    mirrors: Mirrors,
    looks: Looks,
    /// What was started of late.
    recent: Mutex<BTreeMap<TriggerId, Arc<OnceCell<StartedRun>>>>,
    packing: Semaphore,
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").field("projects", &self.projects).finish_non_exhaustive()
    }
}

impl Acceptor {
    /// Accepts deliveries for these projects; large archives lie in `folder` until they are stored.
    pub(crate) fn new(projects: Vec<Project>, hooks: BTreeMap<ProjectName, Hook>, bus: Bus, blobs: Blobs, folder: PathBuf) -> Self {
        let mirrors = Mirrors::new(folder.join("mirrors"));
        let looks = Looks::new(folder.join("cron"), projects.iter().map(|project| project.name.clone()));
        Self { projects, hooks, bus, blobs, folder, mirrors, looks, recent: Mutex::default(), packing: Semaphore::new(PACKING_MAX) }
    }

    /// The repositories of all projects, each once.
    pub(crate) fn repositories(&self) -> Vec<&Path> {
        let mut repositories: Vec<_> = self.projects.iter().filter_map(|project| project.source.repository()).collect();
        repositories.sort();
        repositories.dedup();
        repositories
    }

    /// The configured repository of this path.
    pub(crate) fn repository(&self, path: &str) -> Result<&Path, AcceptError> {
        let found =
            self.projects.iter().filter_map(|project| project.source.repository()).find(|repository| *repository == Path::new(path));
        found.ok_or_else(|| AcceptError::UnknownRepository(path.to_owned()))
    }

    /// Stores a trigger for each branch that was pushed to and each project of the repository. When this returns they are on the bus;
    /// accepting the delivery again changes nothing.
    pub(crate) async fn accept(&self, delivery: &Delivery) -> Result<Answer, AcceptError> {
        let repository = self.repository(&delivery.repository)?;
        if delivery.updates.len() > UPDATES_MAX {
            return Err(AcceptError::TooManyUpdates(delivery.updates.len()));
        }
        let updates = delivery.updates.iter().map(read_update).collect::<Result<Vec<_>, _>>()?;
        let mut answer = Answer::default();
        for happened in updates {
            let happened = match happened {
                Ok(happened) => happened,
                Err(ignored) => {
                    answer.ignored.push(ignored);
                    continue;
                }
            };
            for project in self.projects.iter().filter(|project| project.source.repository() == Some(repository)) {
                // A push tells of itself by the delivery: two that end at the same commit are two. Where the repository is looked at as well,
                // it is what the look finds.
                let id = if project.serve {
                    happened.trigger(&project.name)
                } else {
                    TriggerId::of("git", &format!("{} {} {}", project.name, happened.name, delivery.delivery))
                };
                self.take(project, &happened, id, &mut answer).await?;
            }
        }
        Ok(answer)
    }

    /// The webhooks of a project, if it takes any.
    pub(crate) fn hook(&self, project: &str) -> Option<(&Project, &Hook)> {
        let project = self.projects.iter().find(|known| known.name.as_str() == project)?;
        Some((project, self.hooks.get(&project.name)?))
    }

    /// Stores the trigger of what a project's forge has told. When this returns it is on the bus; told again, by whomever and whenever, it is
    /// the same run.
    pub(crate) async fn accept_told(&self, project: &ProjectName, told: Told) -> Result<Answer, AcceptError> {
        match told {
            Told::Ignored(ignored) => Ok(Answer { ignored: vec![ignored], ..Answer::default() }),
            Told::Happened(happened) => self.accept_happened(project, &happened).await,
        }
    }

    /// The same, of what starts a run.
    pub(crate) async fn accept_happened(&self, project: &ProjectName, happened: &Happened) -> Result<Answer, AcceptError> {
        let (project, mut answer) = (self.project(project)?, Answer::default());
        self.take(project, happened, happened.trigger(&project.name), &mut answer).await?;
        Ok(answer)
    }

    fn project(&self, name: &ProjectName) -> Result<&Project, AcceptError> {
        self.projects.iter().find(|known| known.name == *name).ok_or_else(|| AcceptError::UnknownRepository(name.to_string()))
    }

    /// Whether a project's repository is asked for over the network.
    pub(crate) fn is_elsewhere(&self, project: &ProjectName) -> bool {
        self.project(project).is_ok_and(|project| project.source.repository().is_none())
    }

    /// All projects.
    pub(crate) fn projects(&self) -> &[Project] {
        &self.projects
    }

    /// The names of all projects.
    pub(crate) fn names(&self) -> impl Iterator<Item = &ProjectName> {
        self.projects.iter().map(|project| &project.name)
    }

    /// What is shared by the looks for lines of `cron`.
    pub(crate) fn looks(&self) -> &Looks {
        &self.looks
    }

    pub(crate) fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Stores the trigger of a run that somebody who may asked for. When this says that it is accepted, it is on the bus.
    pub(crate) async fn accept_asked(&self, asked: &ProjectRunRequest) -> Result<ProjectRunReply, AcceptError> {
        let refused = |message: String| Ok(ProjectRunReply::Refused { message });
        let project = self.project(&asked.project)?;
        let found = match self.find(project, &asked.revision).await {
            Err(AcceptError::Git(error)) if error.is_final() => return refused(service::supervisor::chain(&error)),
            found => found?,
        };
        let Some((name, commit)) = found else {
            return refused(match &asked.revision {
                Revision::DefaultBranch => "the repository's `HEAD` leads to no branch that has a commit".to_owned(),
                Revision::Branch { name } => format!("the source has no branch `{name}`"),
                Revision::Tag { name } => format!("the source has no tag `{name}`"),
            });
        };
        let (branch, tag) = match &asked.revision {
            Revision::DefaultBranch | Revision::Branch { .. } => (name.branch_name().unwrap_or_default().to_owned(), String::new()),
            Revision::Tag { name } => (String::new(), name.clone()),
        };
        let what = What::Asked { branch, tag, parameters: asked.parameters.clone(), timeout_ms: asked.timeout_ms };
        let happened = Happened { what, name, commit, actor: Some(asked.actor.clone()) };
        if let Some(reason) = project.refuses(&happened.context()) {
            return refused(format!("project {}: {reason}", project.name));
        }
        match self.start_once(project, &happened, asked.id.clone()).await {
            Ok(started) => Ok(ProjectRunReply::Accepted { run: started.run }),
            Err(AcceptError::Git(error)) if error.is_final() => refused(service::supervisor::chain(&error)),
            Err(error) => Err(error),
        }
    }

    /// Where a branch or tag is now, and its ref.
    async fn find(&self, project: &Project, revision: &Revision) -> Result<Option<(RefName, ObjectId)>, AcceptError> {
        let name = match revision {
            Revision::DefaultBranch => {
                let head = match &project.source {
                    Source::Repository(path) => git::head(path).await,
                    Source::Remote(address) => self.mirrors.head(&project.name, address, &project.fetch).await,
                };
                return Ok(head.map_err(AcceptError::Git)?.map(|head| (head.branch, head.commit)));
            }
            Revision::Branch { name } => RefName::branch(name),
            Revision::Tag { name } => RefName::new(format!("{TAGS}{name}")),
        };
        let Some(name) = name else { return Ok(None) };
        let commit = match &project.source {
            Source::Repository(path) => git::resolve(path, &name).await,
            Source::Remote(address) => {
                let refs = self.mirrors.list(&project.name, address, &project.fetch).await;
                refs.map(|refs| refs.get(name.as_str()).and_then(|commit| commit.parse().ok()))
            }
        };
        Ok(commit.map_err(AcceptError::Git)?.map(|commit| (name, commit)))
    }

    /// The default branch of a project and what its pipeline is known by, if the branch is there, protected, and delivered.
    pub(crate) async fn head(&self, project: &ProjectName) -> Result<Option<(Head, String)>, AcceptError> {
        let project = self.project(project)?;
        let head = match &project.source {
            Source::Repository(path) => git::head(path).await,
            Source::Remote(address) => self.mirrors.head(&project.name, address, &project.fetch).await,
        };
        let Some(head) = head.map_err(AcceptError::Git)? else { return Ok(None) };
        let branch = head.branch.branch_name().unwrap_or_default();
        let is_delivered = project.refs.as_ref().is_none_or(|refs| refs.has_branch(branch));
        Ok((is_delivered && project.protection.protected.has_branch(branch)).then(|| (head, project.pipeline_id())))
    }

    /// The text of a project's pipeline at the head of its default branch.
    pub(crate) async fn pipeline(&self, project: &ProjectName, head: &Head) -> Result<String, AcceptError> {
        let project = self.project(project)?;
        let path = match &project.pipeline {
            Pipeline::Inline(text) => return Ok(text.clone()),
            Pipeline::File(path) => path,
        };
        let what = What::Push { branch: String::new(), previous: None };
        let pushed = Happened { what, name: head.branch.clone(), commit: head.commit.clone(), actor: None };
        let repository = self.repository_of(project, &pushed).await.map_err(AcceptError::Git)?;
        git::read_pipeline(&repository, &head.commit, path).await.map_err(AcceptError::Git)
    }

    /// The projects that are looked at for pushes, and how often.
    pub(crate) fn polled(&self) -> Vec<(ProjectName, Duration)> {
        self.projects.iter().filter_map(|project| Some((project.name.clone(), project.fetch.poll?))).collect()
    }

    /// The branches and tags of a project, and where it is written down which were seen.
    pub(crate) async fn refs(&self, project: &ProjectName) -> Result<(BTreeMap<String, String>, PathBuf), AcceptError> {
        let project = self.project(project)?;
        let refs = match &project.source {
            Source::Repository(path) => git::refs(path).await,
            Source::Remote(address) => self.mirrors.list(&project.name, address, &project.fetch).await,
        };
        let refs = refs.map_err(AcceptError::Git)?;
        Ok((refs, self.mirrors.seen(&project.name)))
    }

    async fn take(&self, project: &Project, happened: &Happened, id: TriggerId, answer: &mut Answer) -> Result<(), AcceptError> {
        let mut ignore =
            |reason: &str| answer.ignored.push(Ignored::new(happened.name.as_str(), format!("project {}: {reason}", project.name)));
        if let Some(reason) = project.refuses(&happened.context()) {
            ignore(reason);
            return Ok(());
        }
        match self.start_once(project, happened, id).await {
            Ok(run) => {
                answer.runs.push(run);
                if let What::Push { .. } = happened.what {
                    self.looks.pushed(&project.name);
                }
            }
            Err(AcceptError::Git(error)) if error.is_final() => ignore(&service::supervisor::chain(&error)),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The same trigger, told many times at once, is made once.
    async fn start_once(&self, project: &Project, happened: &Happened, id: TriggerId) -> Result<StartedRun, AcceptError> {
        let started = {
            let mut recent = self.recent.lock().expect("no holder of this lock panics");
            // Those that are forgotten are made again, and stored once all the same.
            if recent.len() >= RECENT_MAX {
                recent.clear();
            }
            recent.entry(id.clone()).or_default().clone()
        };
        started.get_or_try_init(|| self.start(project, happened, id)).await.cloned()
    }

    async fn start(&self, project: &Project, happened: &Happened, id: TriggerId) -> Result<StartedRun, AcceptError> {
        let repository = &*self.repository_of(project, happened).await.map_err(AcceptError::Git)?;
        let packing = self.packing.acquire().await.expect("it is never closed");
        let wanted = wanted(project, happened, repository).await.map_err(AcceptError::Git)?;
        let checkout = git::read_commit(repository, &wanted, &self.folder).await.map_err(AcceptError::Git)?;
        let source = checkout.source.store(&self.blobs).await.map_err(AcceptError::Store)?;
        let pipeline = match (&project.pipeline, checkout.pipeline) {
            (Pipeline::Inline(text), _) => text.clone(),
            (Pipeline::File(_), text) => text.expect("the file was wanted, and what is not there is an error"),
        };
        let pipeline = self.text(pipeline.into_bytes()).await?;
        let missing_libraries = self.libraries(project, checkout.lock.as_deref()).await?;
        let lock = match checkout.lock {
            Some(lock) => Some(self.text(lock).await?),
            None => None,
        };
        let listing = Some(self.json(&checkout.listing).await?);
        let base = wanted.base.as_ref().filter(|_| checkout.changed.is_some()).map(ObjectId::to_string).unwrap_or_default();
        let changed = match &checkout.changed {
            Some(changed) => Some(self.json(changed).await?),
            None => None,
        };
        drop(packing);
        let context = TriggerContext { base, ..happened.context() };
        let trigger = Trigger {
            claims: project.protection.claims(&context, happened.actor.clone()),
            context,
            source: Some(source),
            listing,
            changed,
            lock,
            missing_libraries,
            timeout_ms: happened.timeout_ms(),
            ..Trigger::new(id, project.name.clone(), &project.pipeline_path(), pipeline)
        };
        self.bus.store_trigger(&trigger).await.map_err(AcceptError::Bus)?;
        let run = trigger.run();
        info!(%run, project = %project.name, of = %happened.name, commit = %happened.commit, "accepted");
        Ok(StartedRun { run, project: project.name.clone(), name: happened.shown() })
    }
}

/// What is read of the repository. A pull request is compared with where it parted from its target, and takes the target's pipeline if it is
/// of a fork: whoever wrote it may not say what is done with it.
async fn wanted(project: &Project, happened: &Happened, repository: &Path) -> Result<Wanted, GitError> {
    let commit = happened.commit.clone();
    let (base, pipeline_of) = match &happened.what {
        What::Push { previous, .. } => (previous.clone(), None),
        What::MergeQueue { base, .. } => (base.clone(), None),
        What::Tag { .. } | What::Cron { .. } | What::Asked { .. } => (None, None),
        What::PullRequest(pull_request) => {
            let target = match RefName::branch(&pull_request.target) {
                Some(target) => git::resolve(repository, &target).await?,
                None => None,
            };
            let base = match &target {
                Some(target) => git::merge_base(repository, target, &commit).await?,
                None => None,
            };
            let pipeline_of = pull_request.fork.then(|| target.ok_or_else(|| GitError::NoTarget(pull_request.target.clone())));
            (base, pipeline_of.transpose()?)
        }
    };
    let pipeline = match &project.pipeline {
        Pipeline::File(path) => Some(path.clone()),
        Pipeline::Inline(_) => None,
    };
    Ok(Wanted { commit, base, pipeline, pipeline_of })
}

impl Acceptor {
    /// The repository of a project on this machine, with what has happened in it.
    async fn repository_of(&self, project: &Project, happened: &Happened) -> Result<PathBuf, GitError> {
        let address = match &project.source {
            Source::Repository(path) => return Ok(path.clone()),
            Source::Remote(address) => address,
        };
        let target = match &happened.what {
            What::PullRequest(pull_request) => RefName::branch(&pull_request.target),
            What::Push { .. } | What::Tag { .. } | What::MergeQueue { .. } | What::Cron { .. } | What::Asked { .. } => None,
        };
        let refresh = target.is_some();
        let names: Vec<RefName> = [happened.name.clone()].into_iter().chain(target).collect();
        let (fetch, commit) = (&project.fetch, &happened.commit);
        self.mirrors.fetch(&Wish { project: &project.name, address, fetch, names: &names, commit, refresh }).await
    }

    /// Brings the step libraries of the lock file into the depot; those that cannot be are given back with the reason. What is wrong with
    /// the lock file itself is told by the parser.
    async fn libraries(&self, project: &Project, lock: Option<&[u8]>) -> Result<BTreeMap<String, String>, AcceptError> {
        let Some(lock) = lock.and_then(|lock| Lock::read(lock).ok()) else { return Ok(BTreeMap::new()) };
        library::supply(&lock, &project.library_hosts, &self.blobs).await.map_err(AcceptError::Store)
    }

    /// A text as it travels.
    pub(crate) async fn text(&self, bytes: Vec<u8>) -> Result<Text, AcceptError> {
        match String::from_utf8(bytes) {
            Ok(text) if text.len() <= INLINE_BYTES_MAX => Ok(Text::Inline(text)),
            Ok(text) => self.blobs.put(text.into()).await.map(Text::Depot).map_err(AcceptError::Store),
            // The parser says what is wrong with it.
            Err(other) => self.blobs.put(other.into_bytes().into()).await.map(Text::Depot).map_err(AcceptError::Store),
        }
    }

    async fn json(&self, value: &impl Serialize) -> Result<Digest, AcceptError> {
        let json = serde_json::to_vec(value).expect("paths and ids have a JSON form");
        self.blobs.put(json.into()).await.map_err(AcceptError::Store)
    }
}

/// The push of an update, or why it starts no run.
fn read_update(update: &Update) -> Result<Result<Happened, Ignored>, AcceptError> {
    let ignored = |reason: &str| Ok(Err(Ignored::new(&*update.name, reason)));
    if update.name.len() > REF_BYTES_MAX {
        return ignored("its name is too long");
    }
    let Some(branch) = update.name.strip_prefix(BRANCHES).filter(|branch| !branch.is_empty()) else {
        return ignored("it is no branch");
    };
    let Some(name) = RefName::branch(branch) else { return ignored("its name is none that git takes") };
    let commit: ObjectId =
        update.new.parse().map_err(|_| AcceptError::NoObjectId { name: update.name.clone(), id: update.new.chars().take(80).collect() })?;
    if commit.is_null() {
        return ignored("it was deleted");
    }
    // A hook of an older git, or one by hand, may say nothing of what was: then nothing is compared.
    let previous = update.old.parse::<ObjectId>().ok().filter(|old| !old.is_null());
    Ok(Ok(Happened { what: What::Push { branch: branch.to_owned(), previous }, name, commit, actor: None }))
}

/// Removes archives that were being written when an earlier forge died. The folder is this forge's own.
pub(crate) fn remove_leftovers(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(crate::source::TEMPORARY.as_bytes()) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
