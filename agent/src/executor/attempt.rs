//! One attempt: its source, its steps one after the other, and at last those of its `notify`.
//!
//! A step that fails ends the steps; one that is unstable does not. What `notify` has to say does not change how its stage ended, but that a
//! success is unstable if it could not be said.

use std::{
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use model::{
    StageOutcome, Timestamp,
    event::run::{Outputs, StepTime},
    plan::{Notify, Step},
    protocol::{agent::Assignment, log::Stream, step::StepEnd},
};
use service::{clock, supervisor::chain};
use tokio::time::{Instant, sleep};
use tracing::{trace, warn};

use super::{
    End, Means, environment,
    environment::Variables,
    floor::{Floor, Trouble},
    folder,
    gathered::Gathered,
    ground::Ground,
    halt::{Halt, Stop},
    output::OutputError,
    process::{Process, ProcessEnd},
    protocol::Call,
    sink::{Capture, StepSink},
    steps::{self, Action, Origin, Script},
    workspace::Reach,
};
use crate::{
    sandbox::Launch,
    spool::{Line, leftovers},
};

/// The pause before a step is tried a second time; it doubles each time.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(30);
/// How long the steps of `notify` may take together; the stage's own time may be over. Whoever is told answers in seconds.
const NOTIFY_TIME: Duration = Duration::from_mins(5);
/// The same after a cancel. With the grace of the step that was cancelled, it takes effect within ten seconds.
const NOTIFY_TIME_CANCELLED: Duration = Duration::from_secs(4);

/// Why no further step is run.
#[derive(Debug)]
enum Break {
    Stopped(Stop),
    Failed(String),
    Aborted(String),
    /// A step wanted the stage to end.
    Terminated(StageOutcome, String),
}

impl From<Trouble> for Break {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Stopped(stop) => Self::Stopped(stop),
            Trouble::Failed(reason) => Self::Failed(reason),
        }
    }
}

/// Where a step stands.
#[derive(Debug, Clone, Copy)]
struct Place<'a> {
    /// From 0; see [`steps::count`].
    number: u32,
    /// The folder that it runs in.
    folder: &'a Path,
}

impl Place<'_> {
    fn failed(self, step: &Step, reason: &str) -> Break {
        Break::Failed(self.named(step, reason))
    }

    fn named(self, step: &Step, reason: &str) -> String {
        format!("step {} `{}`: {reason}", self.number + 1, step.symbol)
    }
}

/// The attempt.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    assignment: &'a Assignment,
    means: Means<'a>,
    gathered: Arc<Mutex<Gathered>>,
    /// What every process finds.
    variables: Variables,
    /// Of the steps that are running, the outermost first.
    captures: Vec<Capture>,
    /// Why it is not a success although it goes on.
    unstable: Option<String>,
    started_at: Option<Timestamp>,
    /// What its work directory is made of.
    floor: &'a mut Floor,
}

impl<'a> Attempt<'a> {
    pub(super) fn new(assignment: &'a Assignment, means: Means<'a>, floor: &'a mut Floor) -> Self {
        let variables = environment::variables(assignment, &means.tools.passthrough, means.entry);
        let gathered = Arc::new(Mutex::new(Gathered::new(assignment.variables.clone())));
        Self { assignment, means, gathered, variables, captures: Vec::new(), unstable: None, started_at: None, floor }
    }

    /// When the first step started, and what is left to others.
    pub(super) fn dissolve(self) -> (Option<Timestamp>, Outputs) {
        let outputs = lock(&self.gathered).conclude();
        (self.started_at, outputs)
    }

    /// Runs it to its end.
    pub(super) async fn run(&mut self, halt: &mut Halt) -> End {
        let result = self.work(halt).await;
        let (outcome, reason) = match result {
            Ok(()) | Err(Break::Terminated(StageOutcome::Success, _)) => match self.unstable.take() {
                None => (StageOutcome::Success, None),
                Some(reason) => (StageOutcome::Unstable, Some(reason)),
            },
            Err(Break::Failed(reason)) => (StageOutcome::Failure, Some(self.means.confined.explain(reason))),
            Err(Break::Aborted(reason)) => (StageOutcome::Aborted, Some(reason)),
            Err(Break::Terminated(outcome, reason)) => (outcome, Some(reason)),
            Err(Break::Stopped(Stop::StepTimedOut | Stop::TimedOut | Stop::Overdue)) => {
                (StageOutcome::Failure, Some(format!("timed out after {}", duration(self.assignment.stage.timeout_ms))))
            }
            Err(Break::Stopped(Stop::Cancelled)) => (StageOutcome::Aborted, Some("cancelled".to_owned())),
            Err(Break::Stopped(Stop::Killed)) => return End::Result(StageOutcome::Aborted, Some("cancelled by force".to_owned())),
            Err(Break::Stopped(Stop::DiskFull)) => {
                let reason = "the agent's disk is nearly full, and this stage has written the most to it".to_owned();
                return End::Result(StageOutcome::Failure, Some(reason));
            }
            Err(Break::Stopped(Stop::Superseded)) => return End::Superseded,
            Err(Break::Stopped(Stop::Unrenewed)) => return End::Unrenewed,
            Err(Break::Stopped(Stop::ShuttingDown)) => return End::ShuttingDown,
        };
        self.unstable = None;
        self.notify(outcome, reason, halt).await
    }

    async fn work(&mut self, halt: &mut Halt) -> Result<(), Break> {
        let reach = self.reach();
        let Means { tools, entry, output, .. } = &mut self.means;
        Ground { assignment: self.assignment, tools, entry, reach: reach.clone(), output }.lay(self.floor, halt).await?;
        let folder = self.means.entry.workspace().source();
        let end = self.steps(&self.assignment.stage.steps, Place { number: 0, folder: &folder }, halt).await;
        if matches!(end, Ok(()) | Err(Break::Terminated(StageOutcome::Success | StageOutcome::Unstable, _))) {
            let Means { tools, entry, output, .. } = &mut self.means;
            let kept = Ground { assignment: self.assignment, tools, entry, reach, output }.keep(halt).await?;
            let mut gathered = lock(&self.gathered);
            for (name, tree) in kept {
                gathered.add_cache(name, tree).map_err(|error| Break::Failed(error.to_string()))?;
            }
        }
        end
    }

    /// The work directory, as the agent reaches it.
    fn reach(&self) -> Reach {
        let workspace = self.means.entry.workspace();
        match self.means.confined.mounted() {
            Some(folder) => Reach::through(folder, workspace.shared_user()),
            None => workspace.reach_source(),
        }
    }

    /// Runs the steps on the outcome, and then those that always run.
    async fn notify(&mut self, outcome: StageOutcome, reason: Option<String>, halt: &Halt) -> End {
        let Notify { success, failure, complete } = &self.assignment.stage.notify;
        let of_success = self.total();
        let of_failure = of_success + steps::count(success);
        let of_all = of_failure + steps::count(failure);
        let (of_outcome, first) = match outcome {
            StageOutcome::Success | StageOutcome::Unstable => (success.as_slice(), of_success),
            StageOutcome::Failure => (failure.as_slice(), of_failure),
            StageOutcome::Aborted => ([].as_slice(), of_failure),
        };
        let folder = self.means.entry.workspace().source();
        let mut halt = halt.for_the_last_words(NOTIFY_TIME, NOTIFY_TIME_CANCELLED);
        let mut problem = None;
        for (steps, number) in [(of_outcome, first), (complete.as_slice(), of_all)] {
            match self.steps(steps, Place { number, folder: &folder }, &mut halt).await {
                Ok(()) => {}
                Err(Break::Failed(reason) | Break::Aborted(reason) | Break::Terminated(_, reason)) => problem = Some(reason),
                Err(Break::Stopped(Stop::StepTimedOut | Stop::TimedOut | Stop::Overdue | Stop::Cancelled)) => {
                    problem = Some("its time was over".to_owned());
                }
                Err(Break::Stopped(Stop::Killed | Stop::DiskFull)) => break,
                Err(Break::Stopped(Stop::Superseded)) => return End::Superseded,
                Err(Break::Stopped(Stop::Unrenewed)) => return End::Unrenewed,
                Err(Break::Stopped(Stop::ShuttingDown)) => return End::ShuttingDown,
            }
        }
        let Some(problem) = problem.or_else(|| self.unstable.take()).map(|problem| format!("notify: {problem}")) else {
            return End::Result(outcome, reason);
        };
        if outcome == StageOutcome::Success {
            return End::Result(StageOutcome::Unstable, Some(problem));
        }
        if let Err(error) = self.means.output.say(&problem).await {
            warn!(lease = ?self.assignment.lease, error = chain(&error), "a failed notification is not in the output");
        }
        End::Result(outcome, reason)
    }

    /// Runs steps one after the other until one fails. Boxed, because steps stand in steps.
    fn steps<'s>(
        &'s mut self,
        steps: &'s [Step],
        first: Place<'s>,
        halt: &'s mut Halt,
    ) -> Pin<Box<dyn Future<Output = Result<(), Break>> + Send + 's>> {
        Box::pin(async move {
            let mut number = first.number;
            for step in steps {
                let started_at = Timestamp(clock::unix_ms());
                let result = self.step(step, Place { number, ..first }, halt).await;
                let failed = matches!(&result, Err(failure) if !matches!(failure, Break::Terminated(StageOutcome::Success | StageOutcome::Unstable, _)));
                lock(&self.gathered).note_step(StepTime { step: number, started_at, finished_at: Timestamp(clock::unix_ms()), failed });
                let terminated = lock(&self.gathered).take_termination();
                match (result, terminated) {
                    (Ok(()), None) => number += steps::count(std::slice::from_ref(step)),
                    (Ok(()), Some((outcome, reason))) => return Err(Break::Terminated(outcome, reason)),
                    (Err(Break::Failed(_)), Some((outcome @ (StageOutcome::Failure | StageOutcome::Aborted), reason))) => {
                        return Err(Break::Terminated(outcome, reason));
                    }
                    (Err(failure), _) => return Err(failure),
                }
            }
            Ok(())
        })
    }

    /// Runs a step, as often as it may be tried.
    async fn step(&mut self, step: &Step, place: Place<'_>, halt: &mut Halt) -> Result<(), Break> {
        let tries = step.attempts.unwrap_or(1);
        let mut pause = RETRY_PAUSE;
        let mut number = 1;
        loop {
            if let Some(stop) = halt.now() {
                return Err(Break::Stopped(stop));
            }
            let reason = match self.try_step(step, place, number, halt).await {
                Err(Break::Failed(reason)) if number < tries && !lock(&self.gathered).is_terminated() => reason,
                result => return result,
            };
            number += 1;
            let again = format!("{reason}; trying again after {}, {number} of {tries}", duration(pause.as_millis()));
            self.means.output.announce(place.number, &again).await.map_err(|error| Break::Failed(chain(&error)))?;
            tokio::select! {
                () = sleep(pause) => {}
                stop = halt.stopped() => return Err(Break::Stopped(stop)),
            }
            pause = (2 * pause).min(RETRY_PAUSE_MAX);
        }
    }

    /// Runs a step once, within its time, and keeps what it captures.
    async fn try_step(&mut self, step: &Step, place: Place<'_>, number: u32, halt: &Halt) -> Result<(), Break> {
        self.started_at.get_or_insert_with(|| Timestamp(clock::unix_ms()));
        let deadline = step.timeout_ms.and_then(|ms| Instant::now().checked_add(Duration::from_millis(ms)));
        let mut halt = halt.until(deadline);
        if step.into.is_some() {
            self.captures.push(Capture::default());
        }
        let result = self.act(step, place, number, &mut halt).await;
        let captured = step.into.as_ref().and_then(|name| Some((name, self.captures.pop()?)));
        match result {
            Err(Break::Stopped(Stop::StepTimedOut)) if deadline.is_some_and(|at| Instant::now() >= at) => {
                return Err(place.failed(step, &format!("timed out after {}", duration(step.timeout_ms.unwrap_or_default()))));
            }
            result => result?,
        }
        if let Some((name, capture)) = captured {
            let kept = capture.text().and_then(|text| lock(&self.gathered).set_variable(name, text).map_err(|error| error.to_string()));
            kept.map_err(|reason| place.failed(step, &reason))?;
        }
        Ok(())
    }

    async fn act(&mut self, step: &Step, place: Place<'_>, number: u32, halt: &mut Halt) -> Result<(), Break> {
        let muted = |error: OutputError| Break::Failed(chain(&error));
        let announcement = match self.total() {
            total if place.number < total => format!("step {}/{total}: {}", place.number + 1, steps::title(step)),
            _ => format!("notify: {}", steps::title(step)),
        };
        let action = steps::action(step);
        if let Ok(Action::Script(script)) = action {
            return self.script(step, place, script, &announcement, halt).await;
        }
        self.means.output.announce(place.number, &announcement).await.map_err(muted)?;
        match action.map_err(|reason| place.failed(step, &reason))? {
            Action::Script(_) => unreachable!("a script is run above"),
            Action::Say(message) => {
                let mut sink = StepSink::new(self.means.output, place.number, &mut self.captures);
                sink.write(Stream::Out, format!("{message}\n").as_bytes()).await.map_err(muted)
            }
            Action::Fail(message) => Err(place.failed(step, message)),
            Action::Sleep(time) => tokio::select! {
                () = sleep(time) => Ok(()),
                stop = halt.stopped() => Err(Break::Stopped(stop)),
            },
            Action::Drop(name) => lock(&self.gathered).drop_variable(name).map_err(|error| place.failed(step, &error.to_string())),
            Action::Folder(path, inside) => {
                let (root, path) = (self.means.entry.workspace().source(), path.to_owned());
                let within = place.folder.strip_prefix(&root).unwrap_or(Path::new("")).to_owned();
                let reach = self.reach();
                let made = tokio::task::spawn_blocking(move || folder::make(&reach, &within, Path::new(&path))).await;
                let made = made.map_err(|error| place.failed(step, &chain(&error)))?;
                let folder = root.join(made.map_err(|error| place.failed(step, &chain(&error)))?);
                self.steps(inside, Place { number: place.number + 1, folder: &folder }, halt).await
            }
            Action::Program(origin) => self.program(step, place, number, origin, halt).await,
        }
    }

    /// Runs the script of `sh`: one process.
    async fn script(
        &mut self,
        step: &Step,
        place: Place<'_>,
        script: Script<'_>,
        announcement: &str,
        halt: &mut Halt,
    ) -> Result<(), Break> {
        let workspace = self.means.entry.workspace();
        let path = workspace.script(place.number);
        let reached = |root: &Path| script.program(&path, &root.join(path.file_name().unwrap_or_default()));
        let program = workspace.reach_root().within(reached).and_then(|program| program);
        let started = match program {
            Ok((program, arguments)) => self.start(step, (program, arguments), place, halt).await,
            Err(error) => Err(place.failed(step, &format!("cannot start: {error}"))),
        };
        // The process is on its way while this is written, and what it says is read only afterwards.
        let announced = self.means.output.announce(place.number, announcement).await;
        let process = started?;
        let noted = self.note(&process);
        let mut sink = StepSink::new(self.means.output, place.number, &mut self.captures).decoding(script.encoding);
        let end = process.finish(&mut sink, halt).await;
        let ended = sink.end().await;
        noted.await;
        announced.and(ended).map_err(|error| Break::Failed(chain(&error)))?;
        match end {
            ProcessEnd::Exited(status) => steps::complaint(status).map_or(Ok(()), |complaint| Err(place.failed(step, &complaint))),
            ProcessEnd::Stopped(stop) => Err(Break::Stopped(stop)),
            ProcessEnd::Muted(error) => Err(Break::Failed(chain(&error))),
        }
    }

    /// Runs a program that speaks the step protocol.
    async fn program(&mut self, step: &Step, place: Place<'_>, number: u32, origin: Origin<'_>, halt: &mut Halt) -> Result<(), Break> {
        let open = Call::open(step, origin, (place.number, number), self.assignment, &self.means, &self.gathered);
        let (call, notes) = tokio::select! {
            call = open => call.map_err(|error| place.failed(step, &chain(&error)))?,
            stop = halt.stopped() => return Err(Break::Stopped(stop)),
        };
        let process = self.start(step, call.command(), place, halt).await?;
        let noted = self.note(&process);
        let mut sink = StepSink::new(self.means.output, place.number, &mut self.captures).noting(notes);
        let end = tokio::select! {
            biased;
            end = process.finish(&mut sink, halt) => end,
            never = call.serve() => match never {},
        };
        drop(call);
        noted.await;
        sink.end().await.map_err(|error| Break::Failed(chain(&error)))?;
        let status = match end {
            ProcessEnd::Exited(status) => status,
            ProcessEnd::Stopped(stop) => return Err(Break::Stopped(stop)),
            ProcessEnd::Muted(error) => return Err(Break::Failed(chain(&error))),
        };
        let complaint = steps::complaint(status).unwrap_or_default();
        match steps::end(status) {
            StepEnd::Success => Ok(()),
            StepEnd::Failure => Err(place.failed(step, &complaint)),
            StepEnd::Aborted => Err(Break::Aborted(place.named(step, "it aborted the stage"))),
            StepEnd::Unstable => {
                let reason = place.named(step, "it ended as unstable");
                self.means.output.announce(place.number, &reason).await.map_err(|error| Break::Failed(chain(&error)))?;
                self.unstable.get_or_insert(reason);
                Ok(())
            }
        }
    }

    /// Starts a process. Who holds it may stand still: the attempt's end does not wait for that.
    async fn start(&self, step: &Step, command: (PathBuf, Vec<String>), place: Place<'_>, halt: &mut Halt) -> Result<Process, Break> {
        let mark = self.means.entry.mark(&self.assignment.lease);
        let environment =
            environment::of_step(&self.variables, (&self.assignment.lease.attempt, place.number), lock(&self.gathered).variables(), &mark);
        let (program, arguments) = command;
        let launch = Launch { program, arguments, environment, folder: place.folder.to_owned() };
        trace!(target: crate::WATERFALL, point = "step started", lease = ?self.assignment.lease);
        tokio::select! {
            biased;
            started = Process::spawn(self.means.confined, &launch) => {
                started.map_err(|error| place.failed(step, &format!("cannot start: {error}")))
            }
            stop = halt.stopped() => Err(Break::Stopped(stop)),
        }
    }

    /// Writes down that a process was started, while it runs.
    fn note(&self, process: &Process) -> impl Future<Output = ()> + use<> {
        let (entry, leader, lease) = (self.means.entry.clone(), process.leader(), self.assignment.lease.clone());
        let noted =
            tokio::task::spawn_blocking(move || entry.write(&Line::Spawned { group: leader, start_ticks: leftovers::start_ticks(leader) }));
        async move {
            if let Ok(Err(error)) = noted.await {
                warn!(?lease, %error, "a process is not in the journal");
            }
        }
    }

    /// How many steps there are, without those of `notify`: they come only as they are due.
    fn total(&self) -> u32 {
        steps::count(&self.assignment.stage.steps)
    }
}

pub(super) fn lock(gathered: &Mutex<Gathered>) -> MutexGuard<'_, Gathered> {
    gathered.lock().expect("no holder of this lock panics")
}

/// Milliseconds as people say them.
fn duration(ms: impl TryInto<u64>) -> String {
    match ms.try_into().unwrap_or(u64::MAX) {
        ms if ms > 0 && ms.is_multiple_of(60_000) => format!("{}m", ms / 60_000),
        ms if ms > 0 && ms.is_multiple_of(1_000) => format!("{}s", ms / 1_000),
        ms => format!("{ms}ms"),
    }
}
