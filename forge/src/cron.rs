//! Lines of `cron` in the pipelines of protected default branches: each due minute is one run.
//!
//! ```text
//! start, a push, every LOOK_PAUSE ─▶ default branch ─▶ pipeline ─▶ parser (over the bus) ─▶ cron/<project>.json: line ─▶ minute
//! a minute that is due ─▶ the same look ─▶ still there? ─▶ trigger on the bus ─▶ the minute is written down
//! ```
//!
//! **Invariant:** a trigger's id is its project, its minute and its line, so it is one run whichever forges fire it, how often, and by which
//! clocks (RFC 0021). What is written down only says where to go on: without it, nothing that was missed is fired.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use eventbus::{BusError, Subject};
use model::{
    ProjectName,
    cron::Schedule,
    planning::{TriggersReply, TriggersRequest},
};
use serde::{Deserialize, Serialize};
use service::supervisor::{TaskError, chain};
use tokio::{
    sync::{Notify, Semaphore},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    accept::{AcceptError, Acceptor},
    clock::Clock,
    git::ObjectId,
    happened::{Happened, RefName, What},
    hook::{create_folder, write_whole},
};

/// The most lines of one project that are fired; each is looked at every minute.
pub(crate) const LINES_MAX: usize = 64;
/// Projects whose default branch is looked at at once, of those on this machine and of those elsewhere: each is a git and a question to the
/// parser, and what does not answer elsewhere keeps nobody waiting here.
const LOOKS_MAX: usize = 4;
/// Between two looks at a default branch of which nobody tells: another forge may have been told, or `HEAD` was set to another branch.
const LOOK_PAUSE: Duration = Duration::from_mins(15);
/// After a look that failed, and after a trigger that was not stored; it doubles up to [`RETRY_PAUSE_MAX`].
const RETRY_PAUSE: Duration = Duration::from_secs(5);
/// The longest pause until the next try.
const RETRY_PAUSE_MAX: Duration = Duration::from_mins(2);
/// How long the parser may take: longer than a plan may.
const PARSER_DEADLINE: Duration = Duration::from_secs(15);
/// The most bytes of what is written down of a project.
const STATE_BYTES_MAX: u64 = 1024 * 1024;
/// Without this word in it, a pipeline has no lines, and the parser need not be asked.
const WORD: &str = "cron";

/// What all projects' looks share.
#[derive(Debug)]
pub(crate) struct Looks {
    folder: PathBuf,
    here: Semaphore,
    elsewhere: Semaphore,
    /// Rung when something was pushed.
    bells: BTreeMap<ProjectName, Arc<Notify>>,
}

impl Looks {
    /// Looks whose results lie in `folder`, which is made when it is needed.
    pub(crate) fn new(folder: PathBuf, projects: impl IntoIterator<Item = ProjectName>) -> Self {
        let bells = projects.into_iter().map(|project| (project, Arc::default())).collect();
        Self { folder, here: Semaphore::new(LOOKS_MAX), elsewhere: Semaphore::new(LOOKS_MAX), bells }
    }

    /// Something was pushed to the project.
    pub(crate) fn pushed(&self, project: &ProjectName) {
        if let Some(bell) = self.bells.get(project) {
            bell.notify_one();
        }
    }
}

/// Where a default branch is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) branch: RefName,
    pub(crate) commit: ObjectId,
}

/// What is known of one project, as it is written down.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    /// The default branch; empty if there is none that is protected.
    branch: String,
    /// Its commit.
    commit: String,
    /// What the pipeline is known by: the path of its file, or which text it is.
    pipeline: String,
    /// Each line, with the minute up to which nothing of it is to be fired any more.
    lines: BTreeMap<String, u64>,
}

/// Why lines are not known, or not fired.
#[derive(Debug, thiserror::Error)]
enum CronError {
    #[error("the default branch cannot be read")]
    Look(#[source] AcceptError),
    #[error("the parser cannot be asked what starts runs")]
    Ask(#[source] BusError),
    #[error("the parser cannot tell what starts runs: {0}")]
    Parser(String),
    #[error("the trigger of the line '{line}' is not stored")]
    Fire { line: String, source: AcceptError },
    #[error("what is known of the project's lines cannot be kept in {}", path.display())]
    Keep { path: PathBuf, source: io::Error },
}

/// One project whose lines are fired.
struct Watched {
    acceptor: Arc<Acceptor>,
    project: ProjectName,
    path: PathBuf,
    known: Known,
}

/// Fires the lines of a project until it is cancelled.
pub(crate) async fn watch(
    acceptor: Arc<Acceptor>,
    project: ProjectName,
    mut clock: Clock,
    cancelled: CancellationToken,
) -> Result<(), TaskError> {
    let looks = acceptor.looks();
    let bell = looks.bells.get(&project).cloned().unwrap_or_default();
    let path = looks.folder.join(format!("{project}.json"));
    let known = read(&path).unwrap_or_else(|error| {
        warn!(%project, path = %path.display(), error = chain(&error), "what was known of lines of cron does not read: nothing missed is fired");
        Known::default()
    });
    let mut watched = Watched { acceptor, project, path, known };
    let (mut look_at, mut fire_at, mut pause) = (Instant::now(), Instant::now(), RETRY_PAUSE);
    loop {
        let now = Instant::now();
        let minute = clock.minute();
        let is_due = fire_at <= now && !watched.due(minute).is_empty();
        if is_due || look_at <= now {
            // What is cut short here is found again by the next forge.
            let done = tokio::select! {
                () = cancelled.cancelled() => return Ok(()),
                done = watched.go(minute) => done,
            };
            let after = match done {
                Ok(()) => {
                    pause = RETRY_PAUSE;
                    LOOK_PAUSE
                }
                Err(error) => {
                    warn!(project = %watched.project, error = chain(&error), retry_seconds = pause.as_secs(), "lines of cron are not looked after");
                    let after = pause;
                    fire_at = Instant::now() + after;
                    pause = RETRY_PAUSE_MAX.min(pause * 2);
                    after
                }
            };
            look_at = Instant::now() + after;
        }
        tokio::select! {
            () = cancelled.cancelled() => return Ok(()),
            () = clock.tick() => {}
            () = bell.notified() => look_at = Instant::now(),
            () = tokio::time::sleep_until(look_at) => {}
        }
    }
}

impl Watched {
    /// The lines that are due, each with its last minute.
    fn due(&self, minute: u64) -> Vec<(String, u64)> {
        // What the parser has said is a line; one that is none, as an older parser may let pass, is never due.
        let last = |(line, after): (&String, &u64)| Some((line.clone(), line.parse::<Schedule>().ok()?.last_due(*after, minute)?));
        self.known.lines.iter().filter_map(last).collect()
    }

    /// Looks at the default branch, and fires what is due there.
    async fn go(&mut self, minute: u64) -> Result<(), CronError> {
        let acceptor = self.acceptor.clone();
        let Looks { here, elsewhere, .. } = acceptor.looks();
        let permits = if acceptor.is_elsewhere(&self.project) { elsewhere } else { here };
        let _permit = permits.acquire().await.expect("it is never closed");
        let head = self.look(minute).await?;
        for (line, due) in self.due(minute) {
            let Some(head) = &head else { break };
            let branch = self.known.branch.clone();
            let what = What::Cron { branch, line: line.clone(), minute: due };
            let happened = Happened { what, name: head.branch.clone(), commit: head.commit.clone(), actor: None };
            let answer = acceptor.accept_happened(&self.project, &happened).await;
            let answer = answer.map_err(|source| CronError::Fire { line: line.clone(), source })?;
            info!(project = %self.project, line, due, runs = answer.runs.len(), ignored = answer.ignored.len(), "a line of cron was due");
            self.known.lines.insert(line, due);
            self.keep()?;
        }
        Ok(())
    }

    /// Learns the lines, if anything has changed, and where the branch is, if it has any.
    async fn look(&mut self, minute: u64) -> Result<Option<Head>, CronError> {
        let mut known = self.known.clone();
        let (head, pipeline) = match self.acceptor.head(&self.project).await.map_err(CronError::Look)? {
            Some((head, pipeline)) => (Some(head), pipeline),
            None => (None, String::new()),
        };
        let commit = head.as_ref().map(|head| head.commit.to_string()).unwrap_or_default();
        let branch = head.as_ref().and_then(|head| head.branch.branch_name()).unwrap_or_default().to_owned();
        if (&known.commit, &known.branch, &known.pipeline) != (&commit, &branch, &pipeline) {
            let lines = match &head {
                Some(head) => self.ask(head, &pipeline).await?,
                None => BTreeSet::new(),
            };
            let before = std::mem::take(&mut known.lines);
            known.lines = lines.into_iter().map(|line| (line.clone(), before.get(&line).copied().unwrap_or(minute))).collect();
            (known.branch, known.commit, known.pipeline) = (branch, commit, pipeline);
        }
        // A clock that was put back: its minutes come once more, and are the same triggers.
        known.lines.values_mut().for_each(|after| *after = minute.min(*after));
        if known != self.known {
            debug!(project = %self.project, lines = known.lines.len(), commit = known.commit, "lines of cron are known");
            self.known = known;
            self.keep()?;
        }
        Ok(head)
    }

    /// What the pipeline of a commit says.
    async fn ask(&self, head: &Head, pipeline: &str) -> Result<BTreeSet<String>, CronError> {
        let text = match self.acceptor.pipeline(&self.project, head).await {
            Ok(text) if text.contains(WORD) => text,
            Ok(_) => return Ok(BTreeSet::new()),
            Err(AcceptError::Git(error)) if error.is_final() => {
                debug!(project = %self.project, error = chain(&error), "the default branch has no pipeline");
                return Ok(BTreeSet::new());
            }
            Err(error) => return Err(CronError::Look(error)),
        };
        let source = self.acceptor.text(text.into_bytes()).await.map_err(CronError::Look)?;
        let request = TriggersRequest { path: pipeline.to_owned(), source };
        match self.acceptor.bus().request(&Subject::triggers(), &request, PARSER_DEADLINE).await.map_err(CronError::Ask)? {
            TriggersReply::Read { rules } => {
                let lines: BTreeSet<String> = rules.into_iter().map(|rule| rule.cron).filter(|line| !line.is_empty()).collect();
                if lines.len() > LINES_MAX {
                    warn!(project = %self.project, lines = lines.len(), LINES_MAX, "the project has too many lines of cron: the rest is not fired");
                }
                Ok(lines.into_iter().take(LINES_MAX).collect())
            }
            TriggersReply::Refused { diagnostics } => {
                let first = diagnostics.first().map(|diagnostic| diagnostic.message.as_str());
                warn!(project = %self.project, first, "the pipeline of the default branch is refused: no line of cron is fired");
                Ok(BTreeSet::new())
            }
            TriggersReply::Unavailable { message } => Err(CronError::Parser(message)),
        }
    }

    fn keep(&self) -> Result<(), CronError> {
        let json = serde_json::to_vec(&self.known).expect("what is known has text keys only");
        // After a loss of power it may be as it was: what was fired is fired once more, under the same id.
        let kept = create_folder(&self.acceptor.looks().folder).and_then(|()| write_whole(&self.path, &json));
        kept.map_err(|source| CronError::Keep { path: self.path.clone(), source })
    }
}

fn read(path: &Path) -> io::Result<Known> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Known::default()),
        Err(error) => Err(error),
        Ok(metadata) if metadata.len() > STATE_BYTES_MAX => Err(io::Error::new(io::ErrorKind::InvalidData, "it is too large")),
        Ok(_) => Ok(serde_json::from_slice(&fs::read(path)?)?),
    }
}
