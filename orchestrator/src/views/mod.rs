//! Read models: what is listed and searched of all runs, also of those that have left memory. They lie in `SQLite`.
//!
//! They are derived from the logs and nothing is decided upon them: a database that is gone, damaged, of another version or of another store of
//! logs is thrown away and made again.
//!
//! One thread has the database. A question is answered after all that was taken up before it was asked, so who has seen a run begin finds it in
//! the list. Where the disk takes nothing, what is owed waits, and the lists stay as they were; what is more than may wait is read from the logs
//! again.

mod database;
mod entry;
pub(crate) mod rebuild;
mod worker;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    time::Duration,
};

use apispec::RunView;
use model::{ProjectName, RunId, Timestamp, context::EventKind};
use tokio::{
    sync::{Notify, oneshot, watch},
    time::timeout,
};

pub use entry::{Action, AuditEntry, Delivery, DeliveryStatus, Standing};
pub use rebuild::{RebuildError, rebuild_file};

use self::{
    database::{Database, Place},
    entry::matters,
    worker::{Job, Taken, Worker},
};
use crate::{core::Run, runs::Appended};

/// What is on its way to the database: what comes on top is read from the logs later.
const JOBS_MAX: usize = 16 * 1024;
/// How long a question waits for lists that are being made. A hundred thousand runs take longer; their reader is told so.
const WHOLE_WAIT: Duration = Duration::from_secs(2);

/// The read models. Clones are the same ones.
#[derive(Debug, Clone)]
pub struct Views(Arc<Shared>);

/// Where the read models are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ViewsPlace {
    /// Nowhere: nobody lists runs of this process.
    Nowhere,
    /// In memory; they end with the process.
    #[default]
    Memory,
    /// In this file.
    File(PathBuf),
}

#[derive(Debug)]
struct Shared {
    /// To the thread; none where nothing is kept.
    jobs: Option<SyncSender<Job>>,
    /// Somebody should read the logs anew, as not all that they say is here.
    stale: Arc<Notify>,
    /// Whether all that the logs say is here, as far as is known: nothing is answered without it.
    whole: watch::Sender<bool>,
}

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The database says no.
    #[error("the lists of runs cannot be read")]
    Database(#[from] rusqlite::Error),
    /// The same, told to who asked.
    #[error("the lists of runs cannot be read: {0}")]
    Unreadable(String),
    /// They are being made.
    #[error("the lists of runs are being made anew from the logs")]
    NotWhole,
    /// A row does not read as what was written.
    #[error("a row of the lists of runs does not read as what was written")]
    Malformed(#[from] serde_json::Error),
    /// None are kept, or the thread has ended, as the process does.
    #[error("the lists of runs are closed")]
    Closed,
}

/// Which runs are meant: those that fit all that is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// Of one of these projects; of any where there is none.
    pub projects: Option<Vec<ProjectName>>,
    /// That stand so.
    pub standing: Option<Standing>,
    /// Of this branch.
    pub branch: Option<String>,
    /// Of this commit, or of one that begins so.
    pub commit: Option<String>,
    /// That this made start.
    pub event: Option<EventKind>,
    /// Taken up at this time or later.
    pub since: Option<Timestamp>,
    /// Taken up before this time.
    pub until: Option<Timestamp>,
}

/// Which deliveries are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeliveryFilter {
    /// Of one of these projects; of any where there is none.
    pub projects: Option<Vec<ProjectName>>,
    /// To this environment.
    pub environment: Option<String>,
    /// Only the newest one of each environment of each project.
    pub newest_only: bool,
    /// Without those that were cancelled or skipped before anything was done.
    pub happens_only: bool,
}

/// Which entries of the audit are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Of one of these projects; of any where there is none.
    pub projects: Option<Vec<ProjectName>>,
    /// Of this person or program.
    pub actor: Option<String>,
    /// Of this run.
    pub run: Option<RunId>,
    /// At this time or later.
    pub since: Option<Timestamp>,
    /// Before this time.
    pub until: Option<Timestamp>,
}

impl Views {
    /// The views of this file; those of a file that is gone or not of this version are empty, and wait to be made again.
    pub fn open(file: PathBuf) -> Self {
        Self::of(Place::File(file))
    }

    /// Views that end with the process.
    pub fn in_memory() -> Self {
        Self::of(Place::Memory)
    }

    /// Views that keep nothing, and answer no question.
    pub fn none() -> Self {
        Self(Arc::new(Shared { jobs: None, stale: Arc::default(), whole: watch::Sender::new(true) }))
    }

    /// The views of this place.
    pub fn at(place: ViewsPlace) -> Self {
        match place {
            ViewsPlace::Nowhere => Self::none(),
            ViewsPlace::Memory => Self::in_memory(),
            ViewsPlace::File(file) => Self::open(file),
        }
    }

    /// Whether they keep anything.
    pub(crate) fn are_kept(&self) -> bool {
        self.0.jobs.is_some()
    }

    fn of(place: Place) -> Self {
        // What a file has is not known before the logs were looked at.
        let whole = watch::Sender::new(matches!(place, Place::Memory));
        let (jobs, received) = sync_channel(JOBS_MAX);
        let stale = Arc::new(Notify::new());
        let told = stale.clone();
        let worker = move || Worker::new(place, told).run(&received);
        // It ends when the last handle is gone. Without a thread, every question is answered by `Closed`.
        if let Err(error) = std::thread::Builder::new().name("views".to_owned()).spawn(worker) {
            tracing::error!(%error, "there is no thread for the lists of runs");
        }
        Self(Arc::new(Shared { jobs: Some(jobs), stale, whole }))
    }

    /// Takes up what these records of the run say, whose newest state is `run`.
    pub(crate) fn take(&self, run: &Arc<Run>, records: &[Arc<Appended>]) {
        if !self.are_kept() {
            return;
        }
        let records: Vec<_> = records.iter().filter(|appended| matters(run, appended)).cloned().collect();
        if !records.is_empty() {
            self.job(Job::Take(Taken { run: run.clone(), records, damaged: false }));
        }
    }

    /// The run is not run upon any more, or is after all.
    pub(crate) fn set_damaged(&self, run: &Arc<Run>, records: &[Arc<Appended>], damaged: bool) {
        self.job(Job::Take(Taken { run: run.clone(), records: records.to_vec(), damaged }));
    }

    /// The same as [`Views::take`], of a run whose log was read, however many wait before it.
    async fn take_waiting(&self, run: Arc<Run>, records: Vec<Arc<Appended>>, damaged: bool) -> Result<(), ViewError> {
        self.send(Job::Take(Taken { run, records, damaged })).await
    }

    fn job(&self, job: Job) {
        if self.0.jobs.as_ref().is_some_and(|jobs| jobs.try_send(job).is_err()) {
            self.0.stale.notify_one();
        }
    }

    /// Waits until the logs are to be read anew.
    pub(crate) async fn stale(&self) {
        self.0.stale.notified().await;
    }

    /// Says whether all that the logs say is here.
    pub(crate) fn say_whole(&self, is_whole: bool) {
        self.0.whole.send_replace(is_whole);
    }

    /// Waits a little for lists that are being made: a list that is half made would be taken for the whole.
    async fn until_whole(&self) -> Result<(), ViewError> {
        let mut whole = self.0.whole.subscribe();
        let is_whole = timeout(WHOLE_WAIT, whole.wait_for(|is_whole| *is_whole)).await;
        is_whole.map_or(Err(ViewError::NotWhole), |_| Ok(()))
    }

    /// Forgets everything, where all is to be made again.
    pub(crate) async fn clear(&self) -> Result<(), ViewError> {
        self.ask(Database::clear).await
    }

    /// All that the logs say is here now.
    pub(crate) async fn set_whole(&self) -> Result<(), ViewError> {
        self.ask(Database::set_whole).await
    }

    /// Whether all that the logs say up to `end` is here, and nothing else.
    pub(crate) async fn is_whole(&self, end: u64) -> Result<bool, ViewError> {
        self.ask(move |database| database.is_whole(end)).await
    }

    /// Runs, the one that was taken up last first, at most `limit`, older than the place `before` where one is given; each with its place, which is
    /// the sequence of its first record. A damaged run is shown as its log has it.
    pub async fn runs(&self, filter: RunFilter, before: Option<u64>, limit: usize) -> Result<Vec<(u64, RunView)>, ViewError> {
        self.until_whole().await?;
        self.ask(move |database| database.runs(&filter, before, limit)).await
    }

    /// Deliveries to environments, the newest first, at most `limit`, older than the [`Delivery::place`] `before` where one is given.
    pub async fn deliveries(&self, filter: DeliveryFilter, before: Option<u64>, limit: usize) -> Result<Vec<Delivery>, ViewError> {
        self.until_whole().await?;
        self.ask(move |database| database.deliveries(&filter, before, limit)).await
    }

    /// Who did what, the newest first, at most `limit`, older than the [`AuditEntry::place`] `before` where one is given.
    pub async fn audit(&self, filter: AuditFilter, before: Option<u64>, limit: usize) -> Result<Vec<AuditEntry>, ViewError> {
        self.until_whole().await?;
        self.ask(move |database| database.audit(&filter, before, limit)).await
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Database) -> Result<T, ViewError> + Send + 'static,
    ) -> Result<T, ViewError> {
        let (answer, answered) = oneshot::channel();
        let job = Job::Ask(Box::new(move |database| {
            let mut failure = None;
            let result = database.map_err(ViewError::from).and_then(question).map_err(|error| match error {
                ViewError::Database(error) => {
                    let told = ViewError::Unreadable(error.to_string());
                    failure = Some(error);
                    told
                }
                other @ (ViewError::NotWhole | ViewError::Unreadable(_) | ViewError::Malformed(_) | ViewError::Closed) => other,
            });
            // Who asked may be gone.
            let _gone = answer.send(result);
            failure
        }));
        self.send(job).await?;
        answered.await.map_err(|_| ViewError::Closed)?
    }

    async fn send(&self, job: Job) -> Result<(), ViewError> {
        let Some(jobs) = &self.0.jobs else { return Err(ViewError::Closed) };
        match jobs.try_send(job) {
            Ok(()) => Ok(()),
            Err(TrySendError::Disconnected(_)) => Err(ViewError::Closed),
            Err(TrySendError::Full(job)) => {
                let jobs = jobs.clone();
                let sent = tokio::task::spawn_blocking(move || jobs.send(job).is_ok()).await;
                if sent.unwrap_or(false) { Ok(()) } else { Err(ViewError::Closed) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lists_that_are_being_made_are_waited_for_a_little_and_never_taken_for_whole() {
        let views = Views::in_memory();
        views.say_whole(false);
        let (asked, ()) = tokio::join!(views.runs(RunFilter::default(), None, 9), async { views.say_whole(true) });
        assert_eq!(asked.unwrap(), []);
        views.say_whole(false);
        let asked = views.audit(AuditFilter::default(), None, 9).await;
        assert!(matches!(asked, Err(ViewError::NotWhole)), "{asked:?}");
    }
}
