//! Tasks are born here: each has a name, ends when it is told to, and is missed when it does not.

use std::{
    collections::BTreeMap,
    error::Error,
    fmt,
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{sync::mpsc, task::AbortHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, error, warn};

/// How long tasks have to end after they were told to.
pub const GRACE: Duration = Duration::from_secs(5);
/// Ends of tasks that have not been looked at yet. A task that finds it full waits to be counted, which harms nobody: it has ended.
const ENDED_MAX: usize = 64;

/// What the end of a task with an error, or by a panic, means to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// The process cannot do its work without it: end all.
    Shutdown,
    /// It concerned one thing only: write it down and go on.
    Log,
}

/// The error of a task.
pub type TaskError = Box<dyn Error + Send + Sync>;

/// Gives birth to tasks. Clones share them.
#[derive(Debug, Clone)]
pub struct Supervisor {
    token: CancellationToken,
    leaving: CancellationToken,
    tasks: Arc<Mutex<Tasks>>,
    ended: mpsc::Sender<()>,
    ends: Arc<tokio::sync::Mutex<mpsc::Receiver<()>>>,
}

#[derive(Debug, Default)]
struct Tasks {
    next: u64,
    running: BTreeMap<u64, (String, AbortHandle)>,
    failure: Option<String>,
}

/// How the supervised tasks ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// All of them, because they were told to.
    InOrder,
    /// A task that matters failed first.
    Failed(String),
    /// These did not end in time and were dropped.
    Stuck(Vec<String>),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InOrder => f.write_str("ended in order"),
            Self::Failed(what) => write!(f, "{what}"),
            Self::Stuck(names) => write!(f, "did not end in time: {}", names.join(", ")),
        }
    }
}

impl Default for Supervisor {
    fn default() -> Self {
        Self::new()
    }
}

impl Supervisor {
    /// Without a task yet.
    pub fn new() -> Self {
        let (ended, ends) = mpsc::channel(ENDED_MAX);
        Self {
            token: CancellationToken::new(),
            leaving: CancellationToken::new(),
            tasks: Arc::default(),
            ended,
            ends: Arc::new(tokio::sync::Mutex::new(ends)),
        }
    }

    /// Cancelled when everything is to end.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Cancelled when nothing new is to be begun: the end comes soon, and what runs may end before it. Who has nothing that it could wait for need not look.
    pub fn leaving(&self) -> &CancellationToken {
        &self.leaving
    }

    /// Starts a task that returns when [`Supervisor::token`] is cancelled.
    pub fn spawn<F>(&self, name: impl Into<String>, on_error: OnError, task: F)
    where
        F: Future<Output = Result<(), TaskError>> + Send + 'static,
    {
        let name = name.into();
        let supervisor = self.clone();
        let span = tracing::info_span!("task", name);
        let mut tasks = self.tasks.lock().expect("no holder of this lock panics");
        let id = tasks.next;
        tasks.next += 1;
        let guarded = async move {
            let mut end = EndOfTask { supervisor, id, on_error, done: false };
            let result = task.await;
            end.done = true;
            if let Err(error) = result {
                end.failed(&chain(&*error));
            }
        };
        #[expect(clippy::disallowed_methods, reason = "this is where tasks are born")]
        let handle = tokio::spawn(guarded.instrument(span));
        tasks.running.insert(id, (name, handle.abort_handle()));
    }

    /// Waits until [`Supervisor::token`] is cancelled, then until all tasks have ended, at most [`GRACE`].
    pub async fn wait(&self) -> Ended {
        self.token.cancelled().await;
        let mut ends = self.ends.lock().await;
        let drained = timeout(GRACE, async {
            while !self.tasks.lock().expect("no holder of this lock panics").running.is_empty() {
                ends.recv().await;
            }
        })
        .await;
        let mut tasks = self.tasks.lock().expect("no holder of this lock panics");
        if let Some(failure) = tasks.failure.take() {
            return Ended::Failed(failure);
        }
        if drained.is_ok() {
            return Ended::InOrder;
        }
        let stuck: Vec<String> = std::mem::take(&mut tasks.running)
            .into_values()
            .map(|(name, handle)| {
                handle.abort();
                name
            })
            .collect();
        warn!(?stuck, "tasks did not end in time");
        Ended::Stuck(stuck)
    }

    /// Tells all tasks to end, and waits for it.
    pub async fn shut_down(&self) -> Ended {
        self.token.cancel();
        self.wait().await
    }
}

/// Notices the end of a task even where it panics: its drop runs either way.
struct EndOfTask {
    supervisor: Supervisor,
    id: u64,
    on_error: OnError,
    done: bool,
}

impl EndOfTask {
    fn failed(&self, what: &str) {
        let mut tasks = self.supervisor.tasks.lock().expect("no holder of this lock panics");
        let name = tasks.running.get(&self.id).map_or("?", |(name, _)| name).to_owned();
        error!(task = name, error = what, "task failed");
        if self.on_error == OnError::Shutdown {
            tasks.failure.get_or_insert(format!("{name}: {what}"));
            self.supervisor.token.cancel();
        }
    }
}

impl Drop for EndOfTask {
    fn drop(&mut self) {
        if !self.done && std::thread::panicking() {
            self.failed("panicked");
        }
        self.supervisor.tasks.lock().expect("no holder of this lock panics").running.remove(&self.id);
        // A full queue already wakes whoever waits.
        let _full = self.supervisor.ended.try_send(());
    }
}

/// An error with all its causes on one line.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_panic_of_a_task_that_matters_ends_the_others_in_order() {
        let supervisor = Supervisor::new();
        let token = supervisor.token().clone();
        supervisor.spawn("waits", OnError::Log, async move {
            token.cancelled().await;
            Ok(())
        });
        supervisor.spawn("falls", OnError::Shutdown, async { panic!("on purpose") });
        assert_eq!(supervisor.wait().await, Ended::Failed("falls: panicked".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ignores_the_end_is_named() {
        let supervisor = Supervisor::new();
        supervisor.spawn("deaf", OnError::Log, std::future::pending());
        supervisor.spawn("fails", OnError::Log, async { Err("nobody minds".into()) });
        tokio::task::yield_now().await;
        assert_eq!(supervisor.shut_down().await, Ended::Stuck(vec!["deaf".to_owned()]));
    }
}
