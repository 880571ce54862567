//! The runs of a folder: `.otto/runs/`, which `otto run` writes and which every command of the same folder reads.
//!
//! ```text
//! .otto/runs/.gitignore                     *
//! .otto/runs/callback.key                   from which the addresses of webhooks are made, once a run waits for one; its owner's alone
//! .otto/runs/hints                          the caches that runs have left for later ones
//! .otto/runs/depot/                         the bytes of all: plans, sources, output, artifacts, caches
//! .otto/runs/<began>-<run>/journal          what the bus has stored: triggers and run logs
//! .otto/runs/<began>-<run>/lock             held by the process that runs it
//! .otto/runs/<began>-<run>/workplace        the path of the folder in which its stages work, while there is one
//! .otto/runs/<began>-<run>/isolation        how far its stages are kept apart
//! .otto/runs/<began>-<run>/outcome          how it ended, once it has
//! ```
//!
//! **Invariants:** a run is written by the one process that holds its lock; what it refers to in the depot stays as long as its folder; no
//! folder of a run goes while its lock is held.

mod reader;
mod sweep;

use std::{
    env::current_dir,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process,
    thread::sleep,
    time::Duration,
};

use agent::Isolation;
use anyhow::{Context as _, bail};
use blob::{DiskStore, disk::Durability};
use model::{RunId, RunOutcome};
use orchestrator::{callbacks::CallbackKey, engine::Hint};
use service::{clock, file::LockFile};

pub use reader::{Reader, Source, reach};
pub use sweep::sweep;

/// The store, from the root of a repository.
pub const FOLDER: &str = ".otto/runs";
/// Nothing of the store is ever part of a commit, or of the source of a run.
const GITIGNORE: &str = "# What `otto run` keeps of its runs. It may be removed at any time.\n*\n";
const DEPOT: &str = "depot";
const JOURNAL: &str = "journal";
const LOCK: &str = "lock";
/// The agent's data folder, in the one in which stages work.
pub const AGENT: &str = "agent";
const WORKPLACE: &str = "workplace";
const HINTS: &str = "hints";
const OUTCOME: &str = "outcome";
const ISOLATION: &str = "isolation";
const CALLBACK_KEY: &str = "callback.key";
/// Digits of a time in milliseconds until the year 2286, so that names sort by it.
const TIME_DIGITS: usize = 13;

/// How often a run's lock is tried: whoever looks whether a run is live holds it for some microseconds.
const HOLD_TRIES: u32 = 4;
/// Between two tries.
const HOLD_PAUSE: Duration = Duration::from_millis(2);

/// The store of a folder.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
}

/// A run of the store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kept {
    folder: PathBuf,
    /// The run.
    pub run: RunId,
}

/// A run that this process writes.
#[derive(Debug)]
pub struct Held {
    /// The run.
    pub kept: Kept,
    _lock: LockFile,
}

impl Store {
    /// The store of the repository, or of the folder, at `root`.
    pub fn of(root: &Path) -> Self {
        Self { folder: root.join(FOLDER) }
    }

    /// The store of the current folder, or of the nearest one above it that has one; a repository's is not looked for outside of it.
    pub fn here() -> Option<Self> {
        let folder = current_dir().ok()?;
        for folder in folder.ancestors() {
            let store = Self::of(folder);
            if store.folder.is_dir() {
                return Some(store);
            }
            if folder.join(".git").exists() {
                return None;
            }
        }
        None
    }

    /// The folder whose runs these are.
    pub fn root(&self) -> &Path {
        self.folder.ancestors().nth(Path::new(FOLDER).components().count()).expect("it lies below its root")
    }

    /// Where it lies.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn depot_folder(&self) -> PathBuf {
        self.folder.join(DEPOT)
    }

    /// The bytes of all runs.
    pub fn depot(&self) -> anyhow::Result<DiskStore> {
        Ok(DiskStore::open(&self.depot_folder(), Durability::None)?)
    }

    /// Makes the store, if it is not there.
    pub fn make(&self) -> anyhow::Result<()> {
        let doing = || format!("cannot write in {}", self.folder.display());
        let ignore = self.folder.join(".gitignore");
        if !ignore.exists() {
            fs::create_dir_all(&self.folder).with_context(doing)?;
            fs::write(&ignore, GITIGNORE).with_context(doing)?;
        }
        Ok(())
    }

    /// Makes room for a run, which is this process's then.
    pub fn begin(&self, run: &RunId) -> anyhow::Result<Held> {
        let doing = || format!("the run cannot be kept in {}", self.folder.display());
        self.make()?;
        let name = format!("{:0TIME_DIGITS$}-{run}", clock::unix_ms());
        let kept = Kept { folder: self.folder.join(name), run: run.clone() };
        fs::create_dir(&kept.folder).with_context(doing)?;
        kept.hold()?.with_context(doing)
    }

    /// The runs that are kept, the oldest first.
    pub fn kept(&self) -> Vec<Kept> {
        let Ok(entries) = fs::read_dir(&self.folder) else { return Vec::new() };
        let mut kept: Vec<Kept> = entries.filter_map(|entry| Kept::at(entry.ok()?.path())).collect();
        kept.sort_unstable();
        kept
    }

    /// The caches that earlier runs left. One whose bytes are gone is only not found.
    pub fn hints(&self) -> Vec<Hint> {
        fs::read(self.folder.join(HINTS)).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    /// Notes which caches there are for later runs. Of two runs that end at once, the later one's word counts.
    pub fn set_hints(&self, run: &RunId, hints: &[Hint]) -> anyhow::Result<()> {
        if hints.is_empty() {
            return Ok(());
        }
        let aside = self.folder.join(format!("{HINTS}-{run}"));
        fs::write(&aside, serde_json::to_vec(hints)?)?;
        Ok(fs::rename(aside, self.folder.join(HINTS))?)
    }

    /// The key of the addresses at which the webhooks of all runs are called. It stays, so that a run that goes on takes a call of the same
    /// secret.
    pub fn callback_key(&self) -> anyhow::Result<CallbackKey> {
        let path = self.folder.join(CALLBACK_KEY);
        let doing = || format!("cannot keep the key of webhooks in {}", path.display());
        if !path.exists() {
            let aside = self.folder.join(format!("{CALLBACK_KEY}-{}", process::id()));
            let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&aside).with_context(doing)?;
            file.write_all(CallbackKey::generate()?.text().as_bytes()).with_context(doing)?;
            // Of two processes, the first one's key is that of both.
            let linked = fs::hard_link(&aside, &path);
            fs::remove_file(&aside).with_context(doing)?;
            if let Err(error) = linked
                && error.kind() != io::ErrorKind::AlreadyExists
            {
                return Err(error).with_context(doing);
            }
        }
        let text = fs::read_to_string(&path).with_context(doing)?;
        text.parse().with_context(|| format!("{} is damaged: remove it, and run the pipeline anew", path.display()))
    }

    /// The run that is meant to go on: the one of this name, else the newest that has not ended.
    pub fn interrupted(&self, name: Option<&str>) -> anyhow::Result<Kept> {
        let mut kept = self.kept();
        kept.retain(|kept| name.is_none_or(|name| kept.is_named(name)));
        if name.is_none() {
            kept.retain(|kept| kept.has_begun() && kept.outcome().is_none());
        }
        match (kept.pop(), name) {
            (Some(_), Some(name)) if !kept.is_empty() => bail!("several runs begin with `{name}`: type more of it"),
            (Some(kept), _) => match kept.outcome() {
                Some(outcome) => bail!("{} has ended already: {outcome}", kept.run),
                None if !kept.has_begun() => bail!("{} was interrupted before it began: run the pipeline anew", kept.run),
                None => Ok(kept),
            },
            (None, Some(name)) => bail!("no run of {} begins with `{name}`: `otto runs` lists them", self.folder.display()),
            (None, None) => bail!("every run of {} has ended: there is nothing to go on with", self.folder.display()),
        }
    }
}

impl Kept {
    fn at(folder: PathBuf) -> Option<Self> {
        let run = folder.file_name()?.to_str()?.split_once('-')?.1.parse().ok()?;
        Some(Self { folder, run })
    }

    /// Where its log lies.
    pub fn journal(&self) -> PathBuf {
        self.folder.join(JOURNAL)
    }

    /// Whether something was stored of it: its trigger is the first.
    fn has_begun(&self) -> bool {
        fs::metadata(self.journal()).is_ok_and(|metadata| metadata.len() > 0)
    }

    /// How it ended, if it did.
    pub fn outcome(&self) -> Option<RunOutcome> {
        let text = fs::read(self.folder.join(OUTCOME)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// How far its stages are kept apart; `None` of a run that an older Otto began.
    pub fn isolation(&self) -> Option<Isolation> {
        fs::read_to_string(self.folder.join(ISOLATION)).ok()?.parse().ok()
    }

    /// Whether `text` is its id, or the beginning of it.
    pub fn is_named(&self, text: &str) -> bool {
        let wanted = text.strip_prefix(RunId::PREFIX).unwrap_or(text);
        !wanted.is_empty() && self.run.as_str().strip_prefix(RunId::PREFIX).is_some_and(|rest| rest.starts_with(wanted))
    }

    fn lock(&self) -> io::Result<LockFile> {
        LockFile::open(&self.folder.join(LOCK))
    }

    /// Takes the run for this process; `None` while another one has it.
    pub fn hold(&self) -> io::Result<Option<Held>> {
        let lock = self.lock()?;
        for _ in 0..HOLD_TRIES {
            if lock.try_hold()? {
                return Ok(Some(Held { kept: self.clone(), _lock: lock }));
            }
            sleep(HOLD_PAUSE);
        }
        Ok(None)
    }

    /// Whether a process runs it now.
    pub fn is_live(&self) -> bool {
        self.lock().is_ok_and(|lock| matches!(lock.try_share(), Ok(false)))
    }

    /// The folder in which its stages work, if it is there, and its owner's. It lies where everybody may make folders.
    pub fn workplace(&self) -> Option<PathBuf> {
        let path = PathBuf::from(fs::read_to_string(self.folder.join(WORKPLACE)).ok()?);
        let (found, own) = (fs::symlink_metadata(&path).ok()?, fs::metadata(&self.folder).ok()?);
        (found.is_dir() && found.uid() == own.uid()).then_some(path)
    }
}

impl Held {
    /// Notes in which folder the stages work, so that a later process finds what they left.
    pub fn set_workplace(&self, path: &Path) -> anyhow::Result<()> {
        let text = path.to_str().context("the folder for temporary files is not UTF-8: set TMPDIR to another one")?;
        Ok(fs::write(self.kept.folder.join(WORKPLACE), text)?)
    }

    /// Removes the run, which has not begun.
    pub fn forget(self) -> io::Result<()> {
        fs::remove_dir_all(&self.kept.folder)
    }

    /// Notes how far the run's stages are kept apart, so that who goes on with it does the same.
    pub fn set_isolation(&self, isolation: Isolation) -> anyhow::Result<()> {
        Ok(fs::write(self.kept.folder.join(ISOLATION), isolation.to_string())?)
    }

    /// Notes how the run ended.
    pub fn set_outcome(&self, outcome: RunOutcome) -> anyhow::Result<()> {
        Ok(fs::write(self.kept.folder.join(OUTCOME), serde_json::to_vec(&outcome)?)?)
    }
}

#[cfg(test)]
mod tests {
    use model::TriggerId;

    use super::*;

    fn run(number: u32) -> RunId {
        RunId::of(&TriggerId::of("test", &number.to_string()))
    }

    #[test]
    fn a_run_is_one_processs_and_the_newest_that_has_not_ended_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::of(folder.path());
        assert!(store.kept().is_empty() && store.interrupted(None).is_err());
        let held = store.begin(&run(1)).unwrap();
        assert!(held.kept.is_live() && held.kept.hold().unwrap().is_none());
        let kept = held.kept.clone();
        drop(held);
        assert!(store.interrupted(None).is_err() && store.interrupted(Some(run(1).as_str())).is_err(), "nothing of it was stored");
        fs::write(kept.journal(), "x").unwrap();
        assert!(!kept.is_live());
        assert_eq!(store.interrupted(None).unwrap(), kept);
        assert_eq!(store.interrupted(Some(run(1).as_str().get(..9).unwrap())).unwrap(), kept);
        kept.hold().unwrap().unwrap().set_outcome(RunOutcome::Unknown).unwrap();
        let error = store.interrupted(Some(run(1).as_str())).unwrap_err().to_string();
        assert!(error.contains("has ended already: unknown"), "{error}");
        assert!(store.interrupted(None).is_err());
        assert_eq!(fs::read_to_string(folder.path().join(FOLDER).join(".gitignore")).unwrap(), GITIGNORE);
    }

    #[test]
    fn the_key_of_webhooks_stays_and_is_its_owners() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::of(folder.path());
        store.make().unwrap();
        let key = store.callback_key().unwrap().text();
        assert_eq!(store.callback_key().unwrap().text(), key);
        let path = folder.path().join(FOLDER).join(CALLBACK_KEY);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path().join(FOLDER)).unwrap().count(), 2, "the key, and what git ignores");
        fs::write(path, "short").unwrap();
        assert!(store.callback_key().unwrap_err().to_string().contains("is damaged"));
    }

    #[test]
    fn a_workplace_that_is_a_link_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let held = Store::of(folder.path()).begin(&run(1)).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/", &link).unwrap();
        held.set_workplace(&link).unwrap();
        assert_eq!(held.kept.workplace(), None);
        held.set_workplace(folder.path()).unwrap();
        assert_eq!(held.kept.workplace().as_deref(), Some(folder.path()));
    }
}
