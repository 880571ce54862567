//! `otto events`: what happens to runs, a line each.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    process::ExitCode,
};

use anyhow::bail;
use apispec::{AnswerView, EventView, RunEventView};
use clap::Args;
use model::{ProjectName, RunId, StageId, Timestamp, context::EventKind, event::run::RunEvent};

use super::{
    Terminal,
    text::{self, printable},
    words,
};
use crate::{
    client::{Client, EventMessage},
    exit,
    store::{Source, reach},
};

/// Runs whose stages' paths are remembered; of others they are asked for again.
const RUNS_MAX: usize = 256;
/// Milliseconds of a day.
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// What exit codes mean, for the command's help.
const FOLLOWED_HELP: &str = "Exit codes of a run that is followed to its end: 0 success or nothing to do · 1 failed · 2 refused · 3 unstable · 4 aborted · 5 unknown. \
                             All runs are followed until Ctrl-C";

/// Print the events of a run, or those of all runs as they happen
///
/// Each line has the time of day (UTC), the run, its project and stage, and what happened. A connection that breaks is made again: no event is
/// missing then, and none comes twice.
#[derive(Debug, Args)]
#[command(after_help = FOLLOWED_HELP)]
pub struct EventsArgs {
    /// Go on with what comes; of one run, until it has ended
    #[arg(short, long)]
    follow: bool,
    /// The run: its id, the beginning of it, or `latest`; without one, all runs of the services
    #[arg(required_unless_present = "follow")]
    run: Option<String>,
    /// Of the runs of this project only
    #[arg(long, conflicts_with = "run")]
    project: Option<ProjectName>,
    /// Print each event as JSON, one object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source: Source,
}

/// Prints them.
pub async fn run(args: EventsArgs) -> anyhow::Result<ExitCode> {
    let printed = match &args.run {
        Some(run) => of_run(&args, run).await,
        None => of_all(&args).await,
    };
    match printed {
        // Whoever read our output has read enough.
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) => {
            Ok(ExitCode::SUCCESS)
        }
        printed => printed,
    }
}

async fn of_run(args: &EventsArgs, run: &str) -> anyhow::Result<ExitCode> {
    let reader = reach(args.source, Some(run)).await?;
    let client = &reader.client;
    let told = async {
        let detail = client.show(&client.pick(run).await?).await?;
        let mut printer = Printer::new(args.json);
        let (run, project) = (detail.run.id.clone(), detail.run.project.clone());
        printer.know(&run, detail.stages.into_iter().map(|stage| (stage.id, stage.path)).collect());
        let view = |event: EventView| RunEventView { run: run.clone(), project: project.clone(), event };
        if !args.follow {
            client.events(&run).await?.into_iter().try_for_each(|event| printer.print(&view(event)))?;
            return anyhow::Ok(ExitCode::SUCCESS);
        }
        let mut events = client.follow_events(&run);
        loop {
            match events.next().await? {
                Some(EventMessage::Event(event)) => printer.print(&view(*event))?,
                Some(EventMessage::End(end)) => return exit::of_followed(client, &run, Ok(end.outcome)).await,
                None => bail!("the run {run} was followed to no end"),
            }
        }
    };
    let told = told.await;
    reader.end().await;
    told
}

async fn of_all(args: &EventsArgs) -> anyhow::Result<ExitCode> {
    let client = Client::from_environment()?;
    let mut events = client.follow_all(args.project.as_ref());
    let mut printer = Printer::new(args.json);
    while let Some(event) = events.next().await? {
        if !printer.knows(&event) {
            // A run that cannot be shown now has ids for its stages.
            let stages = client.show(&event.run).await.map(|detail| detail.stages).unwrap_or_default();
            printer.know(&event.run, stages.into_iter().map(|stage| (stage.id, stage.path)).collect());
        }
        printer.print(&event)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints events.
struct Printer {
    terminal: Terminal,
    json: bool,
    /// The paths of stages, by their run.
    paths: BTreeMap<RunId, BTreeMap<StageId, String>>,
}

impl Printer {
    fn new(json: bool) -> Self {
        Self { terminal: Terminal::stdout(), json, paths: BTreeMap::new() }
    }

    /// Whether the event's stage, if it has one, has a name here, or needs none.
    fn knows(&self, event: &RunEventView) -> bool {
        self.json || event.event.event.stage().is_none() || self.paths.contains_key(&event.run)
    }

    fn know(&mut self, run: &RunId, paths: BTreeMap<StageId, String>) {
        if self.paths.len() >= RUNS_MAX {
            // Any will do.
            self.paths.pop_first();
        }
        self.paths.insert(run.clone(), paths);
    }

    fn print(&mut self, view: &RunEventView) -> io::Result<()> {
        let out = &mut self.terminal.out;
        if self.json {
            serde_json::to_writer(&mut *out, view)?;
            out.write_all(b"\n")?;
        } else {
            let paths = self.paths.get(&view.run);
            let path = |stage: &StageId| paths.and_then(|paths| paths.get(stage)).cloned().unwrap_or_else(|| stage.to_string());
            writeln!(out, "{}", line(view, path))?;
        }
        out.flush()
    }
}

fn line(view: &RunEventView, path: impl Fn(&StageId) -> String) -> String {
    let RunEventView { run, project, event: EventView { at, event, .. } } = view;
    let stage = event.stage().map(|stage| format!("  {}", path(stage))).unwrap_or_default();
    let what = words_of(event, *at, &path);
    printable(format!("{}  {run}  {project}{stage}  {what}", time_of_day(*at)).trim_end(), false)
}

/// The time of day, in UTC.
fn time_of_day(at: Timestamp) -> String {
    let ms = at.0 % DAY_MS;
    let (s, ms) = (ms / 1000, ms % 1000);
    format!("{:02}:{:02}:{:02}.{ms:03}Z", s / 3600, s / 60 % 60, s % 60)
}

/// What happened, in the words of the log's kinds, with what belongs to it.
fn words_of(event: &RunEvent, at: Timestamp, path: &impl Fn(&StageId) -> String) -> String {
    let with = |what: String| format!("{} {what}", event.kind().replace('_', " "));
    match event {
        RunEvent::RunAccepted { trigger, .. } => {
            let branch = if trigger.context.branch.is_empty() { String::new() } else { format!(" of {}", trigger.context.branch) };
            with(format!("by {}{branch}", kind_of(trigger.context.event)))
        }
        RunEvent::StageReady { attempt, .. } => with(format!("for try {attempt}")),
        RunEvent::StageAwarded { agent, attempt, offers, .. } => with(format!("try {attempt} to {agent}, of {} offers", offers.len())),
        RunEvent::StageDeclined { agent, reason, .. } => with(format!("by {agent}: {reason}")),
        RunEvent::StageFinished { outcome, reason, .. } | RunEvent::StageEnded { outcome, reason, .. } => {
            with(format!("{outcome}{}", reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default()))
        }
        RunEvent::StageRetried { attempt, after, due_at, .. } => {
            let (why, pause) = (words::after(words::retry_reason(*after)), text::duration(due_at.since(at)));
            with(format!("as try {attempt} in {pause}, as {why}"))
        }
        RunEvent::StageReused { of, outcome, .. } => with(format!("{outcome}, as in {of}")),
        RunEvent::WaitOpened { question, .. } => with(words::asked(&question.into())),
        RunEvent::WaitAnswered { answer, by, .. } => with(words::answered(&AnswerView::new(answer, by.as_ref()))),
        RunEvent::LockQueued { lock, .. } | RunEvent::LockAcquired { lock, .. } => with(lock.clone()),
        RunEvent::StageLost { reason, .. } => with(reason.clone()),
        RunEvent::StageCancelRequested { failed, .. } => with(format!("as {} failed", path(failed))),
        RunEvent::StageLogStored { log, .. } => with(format!("{} bytes", log.length)),
        RunEvent::RunHeld { older } => with(format!("until {older} has ended")),
        RunEvent::CancelRequested { by, reason, force } => words::cancelled(by, reason, *force),
        RunEvent::RunFinished { outcome } => with(outcome.to_string()),
        RunEvent::StageStarted { .. } | RunEvent::StageSkipped { .. } | RunEvent::RunReleased => event.kind().replace('_', " "),
    }
}

/// What made a run start.
fn kind_of(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Push => "a push",
        EventKind::Tag => "a tag",
        EventKind::PullRequest => "a pull request",
        EventKind::MergeQueue => "a merge queue",
        EventKind::Cron => "the clock",
        EventKind::Manual => "hand",
    }
}

#[cfg(test)]
mod tests {
    use model::{RunOutcome, StageOutcome, TriggerId, event::run::Outputs};

    use super::*;

    fn told(at: u64, event: RunEvent) -> String {
        let run = RunId::of(&TriggerId::of("t", "1"));
        let view = RunEventView {
            run: run.clone(),
            project: "demo".parse().unwrap(),
            event: EventView { sequence: 1, index: 0, at: Timestamp(at), event },
        };
        line(&view, |stage| if *stage == StageId::of("Build") { "Build".to_owned() } else { stage.to_string() })
            .replace(run.as_str(), "RUN")
    }

    #[test]
    fn an_event_is_a_line_with_its_time_its_run_and_its_stage() {
        let finished = RunEvent::StageFinished {
            stage: StageId::of("Build"),
            attempt: 1,
            outcome: StageOutcome::Failure,
            reason: Some("`sh` ended\u{1b}[2J with 1".to_owned()),
            started_at: None,
            finished_at: Timestamp(0),
            outputs: Outputs::default(),
        };
        assert_eq!(told(3_723_004, finished), "01:02:03.004Z  RUN  demo  Build  stage finished failure: `sh` ended with 1");
        assert_eq!(told(DAY_MS, RunEvent::RunFinished { outcome: RunOutcome::Success }), "00:00:00.000Z  RUN  demo  run finished success");
        let ready = RunEvent::StageReady { stage: StageId::of("Build"), attempt: 2 };
        assert_eq!(told(1, ready), "00:00:00.001Z  RUN  demo  Build  stage ready for try 2");
    }
}
