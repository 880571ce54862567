//! What forges are to show, as it is written down: one file for each status of a commit.
//!
//! **Invariant:** a file is written before anything is said, and says what is to be shown last. What is on its way while a later word comes is
//! followed by that word, and a word that was overtaken before it was said is never said.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use config::Statuses;
use model::{
    Digest, ProjectName, RunId, RunOutcome, Timestamp,
    context::EventKind,
    event::run::{Planned, RunEvent, RunRecord},
    trigger::{Trigger, Trust},
};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tracing::warn;

use super::api::Report;
use crate::{
    git::ObjectId,
    happened::{Happened, RefName, TAGS, What},
    hook::{create_folder, write_durably, write_whole},
};

/// The most statuses that are kept, of runs that go on and of what is not said yet. What is over it is not shown.
const WANTED_MAX: usize = 50_000;
/// The most bytes of one file.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// How far the runs' logs were read.
const CURSOR: &str = "cursor";

/// What one status of one commit is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    project: ProjectName,
    commit: String,
    name: String,
    /// The run that it is of, and the place of its first record: a later run takes its place.
    run: RunId,
    accepted: u64,
    /// How the run has ended; `None` while it has not.
    outcome: Option<RunOutcome>,
    /// When that was decided.
    pub(super) since: Timestamp,
    /// Whether it was said.
    said: bool,
}

impl Wanted {
    /// What the forge is told, with a link below this address.
    pub(super) fn report(&self, public: Option<&str>) -> Option<Report> {
        let link = public.map(|public| format!("{}/v1/runs/{}", public.trim_end_matches('/'), self.run));
        Some(Report { commit: self.commit.parse().ok()?, name: self.name.clone(), outcome: self.outcome, link })
    }

    pub(super) fn run(&self) -> &RunId {
        &self.run
    }

    fn json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a status has text keys only")
    }

    /// The name of its file.
    fn key(&self) -> String {
        Digest::of(format!("{} {} {}", self.project, self.commit, self.name).as_bytes()).hex()
    }
}

/// All statuses.
#[derive(Debug)]
pub(crate) struct Board {
    folder: PathBuf,
    /// Where each project's are shown.
    pub(super) places: BTreeMap<ProjectName, Place>,
    state: Mutex<State>,
}

/// Where a project's statuses are shown.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) statuses: Statuses,
    /// Rung when there is something to say.
    pub(super) bell: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    wanted: BTreeMap<String, Wanted>,
    runs: BTreeMap<RunId, String>,
    /// How often each was tried in vain.
    tries: BTreeMap<String, u32>,
}

impl Board {
    /// The one of a folder, which is made, for these projects.
    pub(crate) fn open(folder: PathBuf, places: impl IntoIterator<Item = (ProjectName, Statuses)>) -> io::Result<Self> {
        let places: BTreeMap<_, _> =
            places.into_iter().map(|(project, statuses)| (project, Place { statuses, bell: Arc::default() })).collect();
        let mut state = State::default();
        if !places.is_empty() {
            create_folder(&folder)?;
            for entry in fs::read_dir(&folder)? {
                let path = entry?.path();
                if path.extension().is_none_or(|extension| extension != "json") {
                    continue;
                }
                match read(&path) {
                    Ok(wanted) if places.contains_key(&wanted.project) => state.put(wanted),
                    Ok(_) => fs::remove_file(&path)?,
                    Err(error) => {
                        warn!(path = %path.display(), %error, "a status does not read, and is not shown");
                        fs::remove_file(&path)?;
                    }
                }
            }
        }
        Ok(Self { folder, places, state: Mutex::new(state) })
    }

    /// The projects that have statuses.
    pub(crate) fn projects(&self) -> impl Iterator<Item = &ProjectName> {
        self.places.keys()
    }

    /// Whether nobody wants statuses.
    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// How far the runs' logs were read; `None` if never.
    pub(super) fn cursor(&self) -> io::Result<Option<u64>> {
        match fs::read_to_string(self.folder.join(CURSOR)) {
            Ok(text) => text.trim().parse().map(Some).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it holds no number")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes down how far they were read, after what was read there was written down.
    pub(super) fn set_cursor(&self, cursor: u64) -> io::Result<()> {
        write_durably(&self.folder.join(CURSOR), cursor.to_string().as_bytes(), 0o600)
    }

    /// Takes up what a record says of a run.
    pub(super) fn see(&self, sequence: u64, run: &RunId, record: &RunRecord) -> io::Result<()> {
        for event in &record.events {
            match event {
                RunEvent::RunAccepted { trigger, planned } => {
                    let Some(name) = self.name_of(trigger, planned) else { continue };
                    let (project, commit) = (trigger.project.clone(), trigger.context.commit.clone());
                    let since = record.at;
                    let wanted = Wanted { project, commit, name, run: run.clone(), accepted: sequence, outcome: None, since, said: false };
                    let mut state = self.lock();
                    let is_old = state.wanted.get(&wanted.key()).is_some_and(|before| before.accepted >= sequence);
                    if is_old {
                        continue;
                    }
                    if state.wanted.len() >= WANTED_MAX {
                        warn!(%run, WANTED_MAX, "too many statuses are not shown yet: this run's is not");
                        continue;
                    }
                    self.keep(&wanted)?;
                    state.put(wanted);
                }
                RunEvent::RunFinished { outcome } => {
                    let mut state = self.lock();
                    let Some(mut wanted) = state.of_run(run).cloned() else { continue };
                    if wanted.outcome == Some(*outcome) {
                        continue;
                    }
                    (wanted.outcome, wanted.since, wanted.said) = (Some(*outcome), record.at, false);
                    self.keep(&wanted)?;
                    state.put(wanted);
                }
                RunEvent::StageReady { .. }
                | RunEvent::StageAwarded { .. }
                | RunEvent::StageDeclined { .. }
                | RunEvent::StageStarted { .. }
                | RunEvent::StageFinished { .. }
                | RunEvent::StageRetried { .. }
                | RunEvent::StageEnded { .. }
                | RunEvent::StageReused { .. }
                | RunEvent::WaitOpened { .. }
                | RunEvent::WaitAnswered { .. }
                | RunEvent::LockQueued { .. }
                | RunEvent::LockAcquired { .. }
                | RunEvent::StageLost { .. }
                | RunEvent::StageSkipped { .. }
                | RunEvent::StageLogStored { .. }
                | RunEvent::StageCancelRequested { .. }
                | RunEvent::RunHeld { .. }
                | RunEvent::RunReleased
                | RunEvent::CancelRequested { .. } => {}
            }
        }
        Ok(())
    }

    /// Rings for every project that has something to say.
    pub(super) fn ring(&self) {
        self.places.values().for_each(|place| place.bell.notify_one());
    }

    /// What a project says next: what was tried least often, the oldest first.
    pub(super) fn next(&self, project: &ProjectName) -> Option<Wanted> {
        let state = self.lock();
        let unsaid = state.wanted.iter().filter(|(_, wanted)| wanted.project == *project && !wanted.said);
        unsaid.min_by_key(|(key, wanted)| (state.tries.get(*key).copied().unwrap_or(0), wanted.accepted)).map(|(_, wanted)| wanted.clone())
    }

    /// It was said, or never will be.
    pub(super) fn said(&self, wanted: &Wanted) -> io::Result<()> {
        let key = wanted.key();
        let mut state = self.lock();
        state.tries.remove(&key);
        // A later word has come meanwhile.
        if state.wanted.get(&key) != Some(wanted) {
            return Ok(());
        }
        if wanted.outcome.is_some() {
            state.runs.remove(&wanted.run);
            state.wanted.remove(&key);
            return fs::remove_file(self.path(&key));
        }
        let said = Wanted { said: true, ..wanted.clone() };
        // After a loss of power it may be said once more.
        write_whole(&self.path(&key), &said.json())?;
        state.put(said);
        Ok(())
    }

    /// It was not said this time.
    pub(super) fn failed(&self, wanted: &Wanted) {
        *self.lock().tries.entry(wanted.key()).or_default() += 1;
    }

    /// What the status of a run is called, if it has one: nobody shows a state of a commit that nobody vouches for.
    fn name_of(&self, trigger: &Trigger, planned: &Planned) -> Option<String> {
        let is_triggered = match planned {
            Planned::Plan { .. } | Planned::Refused { .. } => true,
            Planned::NotTriggered { .. } => false,
        };
        let is_wanted = is_triggered && self.places.contains_key(&trigger.project) && trigger.generation == 0;
        trigger.context.commit.parse::<ObjectId>().ok()?;
        (is_wanted && is_vouched_for(trigger)).then(|| format!("otto/{}/{}", trigger.project, trigger.context.event.as_str()))
    }

    fn keep(&self, wanted: &Wanted) -> io::Result<()> {
        write_durably(&self.path(&wanted.key()), &wanted.json(), 0o600)
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{key}.json"))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

impl State {
    fn put(&mut self, wanted: Wanted) {
        let key = wanted.key();
        if let Some(before) = self.wanted.get(&key)
            && before.run != wanted.run
        {
            let run = before.run.clone();
            self.runs.remove(&run);
        }
        self.runs.insert(wanted.run.clone(), key.clone());
        self.wanted.insert(key, wanted);
    }

    fn of_run(&self, run: &RunId) -> Option<&Wanted> {
        self.wanted.get(self.runs.get(run)?)
    }
}

/// Whether the commit is what a forge has told, and nobody typed it: it is trusted, or it is the very trigger that a push, a tag or a pull
/// request makes, or a rerun of that.
fn is_vouched_for(trigger: &Trigger) -> bool {
    if trigger.claims.trust == Trust::Trusted {
        return true;
    }
    let context = &trigger.context;
    let (name, what) = match (context.event, &context.pull_request) {
        (EventKind::PullRequest, Some(pull_request)) => (RefName::new("refs/pull"), What::PullRequest(pull_request.clone())),
        // Of a project of which nothing is trusted.
        (EventKind::Push, None) => (RefName::branch(&context.branch), What::Push { branch: context.branch.clone(), previous: None }),
        (EventKind::Tag, None) => (RefName::new(format!("{TAGS}{}", context.tag)), What::Tag { tag: context.tag.clone() }),
        (EventKind::Push | EventKind::Tag | EventKind::PullRequest | EventKind::MergeQueue | EventKind::Cron | EventKind::Manual, _) => {
            return false;
        }
    };
    let (Some(name), Ok(commit)) = (name, context.commit.parse()) else { return false };
    let happened = Happened { what, name, commit, actor: None };
    let told = happened.trigger(&trigger.project);
    trigger.id == told || trigger.rerun.as_ref().is_some_and(|rerun| rerun.of == RunId::of(&told))
}

fn read(path: &Path) -> io::Result<Wanted> {
    if fs::metadata(path)?.len() > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too large"));
    }
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}
