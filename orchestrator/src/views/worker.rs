//! The thread that has the database.

use std::{
    collections::VecDeque,
    mem,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::Duration,
};

use rusqlite::ErrorCode;
use tokio::sync::Notify;
use tracing::{error, info};

use super::{
    database::{Database, Place},
    entry,
};
use crate::{core::Run, runs::Appended};

/// What is written in one transaction.
const TOGETHER_MAX: usize = 256;
/// What may wait for a disk that takes nothing: an hour of a busy installation. What comes on top is read from the logs later.
const OWED_MAX: usize = 16 * 1024;
/// Between two tries to write to such a disk.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// A question, which hands its answer to whoever asked, and says where it failed because of the database.
pub(super) type Question = Box<dyn FnOnce(Result<&mut Database, rusqlite::Error>) -> Option<rusqlite::Error> + Send>;

/// Something to be done with the database.
pub(super) enum Job {
    /// Takes up what was appended.
    Take(Taken),
    /// Answers a question, or says why not.
    Ask(Question),
}

/// What was appended to a run.
pub(super) struct Taken {
    pub(super) run: Arc<Run>,
    /// Those from which something follows.
    pub(super) records: Vec<Arc<Appended>>,
    /// Whether it is not run upon any more.
    pub(super) damaged: bool,
}

pub(super) struct Worker {
    place: Place,
    database: Option<Database>,
    owed: VecDeque<Taken>,
    stale: Arc<Notify>,
    /// Not all that was appended is owed.
    missed: bool,
    /// The last try failed; it was said once.
    failing: bool,
}

impl Worker {
    pub(super) fn new(place: Place, stale: Arc<Notify>) -> Self {
        Self { place, database: None, owed: VecDeque::new(), stale, missed: false, failing: false }
    }

    /// Works until the last handle is gone.
    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        loop {
            let job = if self.failing {
                match jobs.recv_timeout(RETRY_PAUSE) {
                    Ok(job) => Some(job),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            } else {
                let Ok(job) = jobs.recv() else { return };
                Some(job)
            };
            let mut asked = self.sort(job);
            while asked.is_none() && self.owed.len() < TOGETHER_MAX {
                let Ok(job) = jobs.try_recv() else { break };
                asked = self.sort(Some(job));
            }
            self.write();
            if let Some(question) = asked
                && let Some(error) = question(self.database())
            {
                self.judge(&error);
            }
        }
    }

    fn sort(&mut self, job: Option<Job>) -> Option<Question> {
        match job? {
            Job::Take(taken) if self.owed.len() < OWED_MAX => self.owed.push_back(taken),
            Job::Take(_) => self.missed = true,
            Job::Ask(question) => return Some(question),
        }
        None
    }

    fn database(&mut self) -> Result<&mut Database, rusqlite::Error> {
        let database = match self.database.take() {
            Some(database) => database,
            None => Database::open(&self.place)?,
        };
        Ok(self.database.insert(database))
    }

    /// Throws a database away that is damaged: all of it is made again.
    fn judge(&mut self, error: &rusqlite::Error) {
        if matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)) {
            error!(%error, "the lists of runs are damaged, and are made again");
            self.database = None;
            self.place.remove();
            self.stale.notify_one();
        }
    }

    fn write(&mut self) {
        while !self.owed.is_empty() {
            let together = self.owed.len().min(TOGETHER_MAX);
            let owed = mem::take(&mut self.owed);
            let written = self.database().and_then(|database| database.write(owed.iter().take(together)));
            self.owed = owed;
            match written {
                Ok(()) => drop(self.owed.drain(..together)),
                Err(error) => {
                    self.judge(&error);
                    if !mem::replace(&mut self.failing, true) {
                        error!(%error, "the lists of runs cannot be written, and stay as they are until they can");
                    }
                    return;
                }
            }
        }
        if mem::take(&mut self.failing) {
            info!("the lists of runs can be written again");
        }
        if mem::take(&mut self.missed) {
            self.stale.notify_one();
        }
    }
}

impl Taken {
    /// The last record from which something follows.
    pub(super) fn last(&self) -> u64 {
        self.records.last().map_or(0, |appended| appended.sequence)
    }

    /// The word for where the run stands, and the run as it is listed.
    pub(super) fn row(&self) -> (&'static str, apispec::RunView) {
        let view = entry::run(&self.run);
        (if self.damaged { "damaged" } else { entry::word(&view) }, view)
    }
}
