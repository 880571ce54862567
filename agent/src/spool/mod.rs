//! What the agent must not forget when it is killed: which attempts it has begun, how they ended, and what they said.
//!
//! `<data>/spool/<number>/` holds one attempt under one fence, and `<data>/work/<number>/` is where it runs:
//!
//! - `journal`: one JSON object a line, each appended by one `write`: a kill loses no line that was written, and leaves at most the last one
//!   torn. Nothing is made durable (fsync): a power loss also ends every process of the attempt, and what is then not known here ends as a
//!   lapsed lease.
//! - `output`, `index`, `output-1`, `index-1`, …: what was said, in [`parts`].
//!
//! Making a folder costs about 80 µs on ext4, several times that where many were removed lately, and an attempt needs eight entries. So some
//! are made before they are needed, and what an attempt leaves is emptied and used again.
//!
//! **Invariants:** an attempt's first line is written before its first process starts, so no fence is started twice; what is used again is in
//! nobody else's hands.

pub(crate) mod leftovers;
pub(crate) mod parts;

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use model::{
    Digest,
    event::run::LogSegment,
    protocol::agent::{Lease, Report},
};
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};
use service::file::LockFile;
use tracing::warn;

use crate::{
    executor::{
        stamp::stamps_tell,
        workspace::{Workspace, remove_tree},
    },
    sandbox::Users,
};

/// Characters of the mark of a lease's processes: 64 bits of a SHA-256.
const MARK_CHARACTERS: usize = 16;
/// Folders that are made ahead: one for the next attempt, and one for the attempt after it, whose award may come before another is made.
const READY_MAX: usize = 2;
/// Folders that are kept to be used again: about as many as attempts end while those that come next are made ready.
const USED_MAX: usize = 16;
/// What an attempt's folder has from its beginning.
const JOURNAL: &str = "journal";
const OUTPUT: &str = "output";
const INDEX: &str = "index";

/// One line of a journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub(crate) enum Line {
    /// The attempt was taken up; always the first.
    Begun {
        /// The attempt and its fence.
        lease: Lease,
        /// For storing the output.
        depot_token: String,
    },
    /// A process was started, the leader of a group of its own.
    Spawned {
        /// Its id, which is the group's.
        group: i32,
        /// When it started, in the kernel's ticks since boot; `None` where the system does not tell.
        start_ticks: Option<u64>,
    },
    /// A part of the output lies in the depot.
    Stored {
        /// Which, from 0.
        part: u32,
        /// As what.
        segment: LogSegment,
    },
    /// Every process has ended, and this is what is reported.
    Ended {
        /// [`Report::Finished`] or [`Report::Lost`].
        report: Report,
    },
}

/// The open files of a part of an attempt's output.
#[derive(Debug)]
pub(crate) struct OutputFiles {
    output: File,
    index: File,
}

/// One attempt's folder.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    folder: PathBuf,
    journal: Arc<File>,
    workspace: Workspace,
}

/// What an earlier life of the agent has left of one attempt.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) entry: Entry,
    pub(crate) lease: Lease,
    pub(crate) depot_token: String,
    /// The parts of its output that lie in the depot.
    pub(crate) stored: BTreeMap<u32, LogSegment>,
    pub(crate) report: Report,
}

/// The agent's data folder, held by one agent at a time.
#[derive(Debug)]
pub(crate) struct Spool {
    attempts: PathBuf,
    work: PathBuf,
    stock: Mutex<Stock>,
    /// Something was made ahead, or could not be.
    made: Condvar,
    next: AtomicU64,
    /// Whether an agent has worked in the data folder before.
    is_used: bool,
    /// Whose the work directories are, if not the agent's own user's.
    users: Option<Arc<Users>>,
    /// Whether it can be told if somebody has touched a folder.
    stamps_tell: bool,
    /// Its lock ends with the process.
    _lock: LockFile,
}

/// What is made ahead.
#[derive(Debug, Default)]
struct Stock {
    ready: Vec<Ready>,
    /// What ended attempts have left, empty.
    used: Vec<Entry>,
    /// How many are being made.
    in_making: u32,
    /// How many more will be made ahead, all told.
    left: u32,
}

/// One that is being made ahead, until it is there or its making has failed, also by a panic.
#[derive(Debug)]
struct Making<'a>(&'a Spool);

impl Drop for Making<'_> {
    fn drop(&mut self) {
        self.0.stock().in_making -= 1;
        self.0.made.notify_all();
    }
}

/// Empty folders for an attempt that is not known yet.
type Ready = (Entry, OutputFiles);

/// Why a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Two agents must not share one.
    #[error("another agent works in {}: give each its own data folder", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The disk says no.
    #[error("cannot use the agent's data folder {}", path.display())]
    Disk {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

impl Spool {
    /// Opens the data folder, which is made if it is not there.
    /// Folders are made for so many attempts `ahead`, all told.
    pub(crate) fn open(data: &Path, ahead: u32) -> Result<Self, SpoolError> {
        let disk = |source| SpoolError::Disk { path: data.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(data).map_err(disk)?;
        // However the folder is named, it is the same one to a later life; and steps do not run in the agent's own directory.
        let data = &data.canonicalize().map_err(disk)?;
        let (spool, work) = (data.join("spool"), data.join("work"));
        let is_used = spool.exists();
        for folder in [&spool, &work] {
            DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(disk)?;
        }
        let stamps_tell = stamps_tell(&spool);
        let lock = LockFile::open(&data.join("lock")).map_err(disk)?;
        if !lock.try_hold().map_err(disk)? {
            return Err(SpoolError::InUse { path: data.to_owned() });
        }
        Ok(Self {
            attempts: spool,
            work,
            stock: Mutex::new(Stock { left: ahead, ..Stock::default() }),
            made: Condvar::new(),
            next: AtomicU64::new(0),
            is_used,
            users: None,
            stamps_tell,
            _lock: lock,
        })
    }

    /// Whether an agent has worked in the data folder before.
    pub(crate) fn is_used(&self) -> bool {
        self.is_used
    }

    /// The same, whose attempts have users of their own.
    pub(crate) fn of(self, users: Option<Arc<Users>>) -> io::Result<Self> {
        if users.is_some() {
            // Users go through it, and read nothing in it that is not theirs.
            fs::set_permissions(&self.work, Permissions::from_mode(0o711))?;
        }
        Ok(Self { users, ..self })
    }

    /// Writes down that an attempt begins, in folders of its own.
    pub(crate) fn begin(&self, lease: &Lease, depot_token: &str) -> io::Result<(Entry, OutputFiles)> {
        let (entry, files) = self.take_ready().map_or_else(|| self.make(), Ok)?;
        let line = Line::Begun { lease: lease.clone(), depot_token: depot_token.to_owned() };
        match entry.write(&line) {
            Ok(()) => Ok((entry, files)),
            Err(error) => {
                entry.remove();
                Err(error)
            }
        }
    }

    /// What was made ahead, or is about to be: its making was begun earlier than another one's would be.
    fn take_ready(&self) -> Option<Ready> {
        let mut stock = self.stock();
        loop {
            match stock.ready.pop() {
                None if stock.in_making > 0 => stock = self.made.wait(stock).expect("no holder of this lock panics"),
                ready => return ready,
            }
        }
    }

    fn stock(&self) -> MutexGuard<'_, Stock> {
        self.stock.lock().expect("no holder of this lock panics")
    }

    /// Makes folders ahead, and has `prepare` make what each needs besides. That this fails will be noticed by whoever needs one.
    pub(crate) fn make_ready(&self, prepare: impl Fn(&Workspace)) {
        while let Some(making) = self.begin_one_ahead() {
            match self.make() {
                Ok(ready) => {
                    prepare(ready.0.workspace());
                    self.stock().ready.push(ready);
                }
                Err(error) => return warn!(%error, "no folder could be made for the next attempt"),
            }
            drop(making);
        }
        if let Some(users) = &self.users {
            users.top_up();
        }
    }

    /// If one more is to be made ahead: who waits for it waits as long as this is there.
    fn begin_one_ahead(&self) -> Option<Making<'_>> {
        let mut stock = self.stock();
        let is_wanted = stock.left > 0 && stock.ready.len() < READY_MAX;
        is_wanted.then(|| {
            stock.left -= 1;
            stock.in_making += 1;
            Making(self)
        })
    }

    fn make(&self) -> io::Result<Ready> {
        let used = self.stock().used.pop();
        let entry = used.map_or_else(|| self.make_folder(), Ok)?;
        self.fill(entry.clone()).inspect_err(|_| entry.remove())
    }

    fn make_folder(&self) -> io::Result<Entry> {
        let number = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        let folder = self.attempts.join(&number);
        DirBuilder::new().mode(0o700).create(&folder)?;
        let journal = append_to(&folder.join(JOURNAL)).inspect_err(|_| clear(&folder))?;
        Ok(Entry { folder, journal: Arc::new(journal), workspace: Workspace::at(self.work.join(&number)) })
    }

    /// Makes what an attempt needs in its folder, so far as it is not there.
    fn fill(&self, entry: Entry) -> io::Result<Ready> {
        let user = self.users.as_ref().map(|users| users.claim()).transpose()?.map(Arc::new);
        let files = entry.open_part(0)?;
        Ok((Entry { workspace: entry.workspace.of(user).furnish(self.stamps_tell)?, ..entry }, files))
    }

    /// Forgets an attempt whose work directory is `renewed`. Its folder is used again, if nobody else can write to it.
    pub(crate) fn forget(&self, entry: Entry, renewed: Workspace) {
        let is_wanted = {
            let stock = self.stock();
            stock.left > 0 && stock.used.len() < USED_MAX
        };
        let entry = Entry { workspace: renewed, ..entry };
        match if is_wanted { entry.empty() } else { Err(entry) } {
            Ok(entry) => self.stock().used.push(entry),
            Err(entry) => entry.remove(),
        }
    }

    /// Ends what an earlier life has left running, removes its work directories, and gives what is still to be reported.
    /// Takes time: up to a second for each attempt that ran.
    pub(crate) fn recover(&self) -> io::Result<Vec<Recovered>> {
        let mut recovered = Vec::new();
        for folder in fs::read_dir(&self.attempts)? {
            let folder = folder?.path();
            if let Some(number) = folder.file_name().and_then(|name| name.to_str()?.parse::<u64>().ok()) {
                self.next.fetch_max(number + 1, Ordering::Relaxed);
            }
            match self.recover_one(&folder) {
                Ok(Some(entry)) => recovered.push(entry),
                // Nothing was started before the first line was written.
                Ok(None) => clear(&folder),
                Err(error) => warn!(folder = %folder.display(), %error, "an attempt that an earlier life left cannot be read"),
            }
        }
        for folder in fs::read_dir(&self.work)? {
            clear(&folder?.path());
        }
        Ok(recovered)
    }

    fn recover_one(&self, folder: &Path) -> io::Result<Option<Recovered>> {
        let mut lines = read_journal(&folder.join(JOURNAL))?.into_iter();
        let Some(Line::Begun { lease, depot_token }) = lines.next() else { return Ok(None) };
        let workspace = Workspace::at(self.work.join(folder.file_name().unwrap_or_default()));
        let entry = Entry { folder: folder.to_owned(), journal: Arc::new(append_to(&folder.join(JOURNAL))?), workspace };
        let mut groups = Vec::new();
        let (mut stored, mut ended) = (BTreeMap::new(), None);
        for line in lines {
            match line {
                Line::Begun { .. } => {}
                Line::Stored { part, segment } => drop(stored.insert(part, segment)),
                Line::Spawned { group, start_ticks } => groups.push((group, start_ticks)),
                Line::Ended { report } => ended = Some(report),
            }
        }
        if ended.is_none() {
            leftovers::end(&entry.mark(&lease), &groups, owner(&entry));
            let report = Report::Lost { reason: "its agent was restarted while it ran".to_owned() };
            entry.write(&Line::Ended { report: report.clone() })?;
            ended = Some(report);
        }
        Ok(ended.map(|report| Recovered { entry, lease, depot_token, stored, report }))
    }
}

/// Ends every process of every attempt in this data folder, at once. The agent that works in it may still be alive; it will notice.
pub(crate) fn end_attempts(data: &Path) -> io::Result<()> {
    let (attempts, work) = (data.join("spool"), data.join("work"));
    for folder in fs::read_dir(&attempts)? {
        let folder = folder?.path();
        let mut lines = read_journal(&folder.join(JOURNAL))?.into_iter();
        let Some(Line::Begun { lease, .. }) = lines.next() else { continue };
        let workspace = Workspace::at(work.join(folder.file_name().unwrap_or_default()));
        let entry = Entry { folder: folder.clone(), journal: Arc::new(append_to(&folder.join(JOURNAL))?), workspace };
        let mut groups = Vec::new();
        for line in lines {
            match line {
                Line::Begun { .. } | Line::Stored { .. } | Line::Ended { .. } => {}
                Line::Spawned { group, start_ticks } => groups.push((group, start_ticks)),
            }
        }
        leftovers::end(&entry.mark(&lease), &groups, owner(&entry));
    }
    Ok(())
}

impl Entry {
    /// Appends a line, by one `write`.
    pub(crate) fn write(&self, line: &Line) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(line).expect("a line has text keys only");
        bytes.push(b'\n');
        (&*self.journal).write_all(&bytes)
    }

    /// The same attempt, whose processes are the agent's own user's.
    pub(crate) fn taken_back(self) -> io::Result<Self> {
        Ok(Self { workspace: self.workspace.taken_back()?, ..self })
    }

    /// The same attempt, whose steps run in a person's own directory.
    pub(crate) fn in_place(self, directory: PathBuf) -> Self {
        Self { workspace: self.workspace.in_place(directory), ..self }
    }

    /// The attempt's directories.
    pub(crate) fn workspace(&self) -> &Workspace {
        &self.workspace
    }

    /// What the attempt's processes have in their environment. Nobody else's have it: two installations on one machine may have a lease
    /// of the same name, but not in the same folder.
    pub(crate) fn mark(&self, lease: &Lease) -> String {
        let mut mark = Digest::of(format!("{}/{} {}", lease.attempt, lease.fence, self.folder.display()).as_bytes()).hex();
        mark.truncate(MARK_CHARACTERS);
        mark
    }

    /// Where the bytes of a part of its output lie.
    pub(crate) fn output(&self, part: u32) -> PathBuf {
        self.part(OUTPUT, part)
    }

    fn part(&self, name: &str, part: u32) -> PathBuf {
        self.folder.join(if part == 0 { name.to_owned() } else { format!("{name}-{part}") })
    }

    /// Where what a step sends or is sent lies meanwhile: out of the reach of its processes.
    pub(crate) fn transfer(&self, number: u64) -> PathBuf {
        self.folder.join(format!("transfer-{number}"))
    }

    /// Makes the files of a part.
    fn open_part(&self, part: u32) -> io::Result<OutputFiles> {
        Ok(OutputFiles { output: append_to(&self.output(part))?, index: append_to(&self.part(INDEX, part))? })
    }

    /// Makes a part ready to be stored; `None` if it has no bytes. Nobody may be writing to it.
    pub(crate) fn ready(&self, part: u32) -> io::Result<Option<parts::Ready>> {
        parts::ready(&File::open(self.output(part))?, &File::open(self.part(INDEX, part))?)
    }

    /// Gives the room of a part back that lies in the depot.
    pub(crate) fn forget_part(&self, part: u32) -> io::Result<()> {
        let files = [self.part(INDEX, part), self.output(part)];
        if part == 0 { files.iter().try_for_each(|file| truncate(file)) } else { files.iter().try_for_each(fs::remove_file) }
    }

    /// What is left of the attempt is as it was made, if nobody else has it.
    fn empty(self) -> Result<Self, Self> {
        // Who has a clone may be about to write.
        let journal = match Arc::try_unwrap(self.journal) {
            Ok(journal) => journal,
            Err(journal) => return Err(Self { journal, ..self }),
        };
        // The journal comes first: without its first line, a later life sees that there was no attempt.
        let emptied = journal.set_len(0).and_then(|()| empty_folder(&self.folder));
        let entry = Self { journal: Arc::new(journal), ..self };
        match emptied {
            Ok(()) => Ok(entry),
            Err(error) => {
                warn!(folder = %entry.folder.display(), %error, "an attempt's folder is not used again");
                Err(entry)
            }
        }
    }

    /// Forgets the attempt.
    pub(crate) fn remove(&self) {
        for tree in self.workspace.trees() {
            clear(&tree);
        }
        clear(&self.folder);
    }
}

/// The user of an attempt that an earlier life has left, if that was not the agent's own: its work directory says so, which only a superuser can
/// have given away.
fn owner(entry: &Entry) -> Option<u32> {
    let owner = fs::symlink_metadata(entry.workspace.root()).ok()?.uid();
    (owner != geteuid().as_raw()).then_some(owner)
}

/// What cannot be removed, such as files that a stage made as another user, is in nobody's way.
fn clear(folder: &Path) {
    if let Err(error) = remove_tree(folder) {
        warn!(folder = %folder.display(), %error, "an attempt's files were not removed");
    }
}

/// Empties the files that an attempt's folder begins with, and removes the others.
fn empty_folder(folder: &Path) -> io::Result<()> {
    for file in fs::read_dir(folder)? {
        let file = file?;
        match file.file_name().to_str() {
            Some(JOURNAL) => {}
            Some(OUTPUT | INDEX) => truncate(&file.path())?,
            Some(_) | None => remove_tree(&file.path())?,
        }
    }
    Ok(())
}

fn truncate(path: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).truncate(true).open(path).map(drop)
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// The lines up to the first that is torn.
fn read_journal(path: &Path) -> io::Result<Vec<Line>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file?,
    };
    let mut lines = Vec::new();
    for line in BufReader::new(file).split(b'\n') {
        let Ok(line) = serde_json::from_slice(&line?) else { break };
        lines.push(line);
    }
    Ok(lines)
}

#[cfg(test)]
mod tests;
