//! `otto log`: the output of a run, whole or as it comes.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    num::NonZeroU64,
    process::ExitCode,
};

use anyhow::Context as _;
use apispec::{EventView, RunDetail, RunStatus};
use bytes::Bytes;
use clap::Args;
use futures_util::{Stream, StreamExt as _, stream};
use model::{RunId, RunOutcome, StageId, event::run::RunEvent};
use serde_json::json;

use super::{
    follow::Follow,
    terminal::{Terminal, or_closed},
    text::{Lines, shown},
};
use crate::{
    client::{Client, ClientError, EventMessage, LATEST, LogFollower, LogMessage},
    exit,
    store::{Source, reach},
};

/// `--lines 0`.
const NO_LINE: u64 = 0;
/// What exit codes mean, for the command's help.
const FOLLOWED_HELP: &str = "Exit codes with --follow, once the run has ended: 0 success or nothing to do · 1 failed · 2 refused: nothing was run · 3 unstable · 4 aborted · \
                             5 unknown: a person must say how it ended. Without it, 0: the output was printed";

/// Print the output of a run
#[derive(Debug, Args)]
#[command(after_help = FOLLOWED_HELP)]
pub struct LogArgs {
    /// Go on with what comes, until the run has ended; the exit code says how
    #[arg(short, long)]
    follow: bool,
    /// The run: its id, the beginning of it, or `latest`
    #[arg(default_value = LATEST)]
    run: String,
    /// Only this stage: its path, the last part of it, or its id
    #[arg(long)]
    stage: Option<String>,
    /// With --follow: print events and output as JSON, one object a line, as `otto run --json` does
    #[arg(long, requires = "follow")]
    json: bool,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    part: Part,
}

/// A part of a stage's output
#[derive(Debug, Args)]
struct Part {
    /// Of this attempt of the stage, from 1 [default: the last]
    #[arg(long, value_name = "NUMBER", requires = "stage", conflicts_with = "follow")]
    attempt: Option<u32>,
    /// From this line of the stage's output, from 1
    #[arg(long, value_name = "LINE", requires = "stage", conflicts_with_all = ["follow", "tail"])]
    from: Option<NonZeroU64>,
    /// So many lines of the stage's output
    #[arg(long, value_name = "N", requires = "stage", conflicts_with_all = ["follow", "tail"])]
    lines: Option<u64>,
    /// So many lines at the end of the stage's output
    #[arg(long, value_name = "N", requires = "stage", conflicts_with = "follow")]
    tail: Option<u64>,
}

impl Part {
    /// As the API is asked for it; `None` where all is wanted.
    fn query(&self, stage: &str) -> Option<Vec<(&'static str, String)>> {
        let range = match (self.from.map(NonZeroU64::get), self.lines, self.tail) {
            (None, None, None) => None,
            (_, _, Some(tail)) => Some(format!("tail={tail}")),
            (from, None, None) => Some(format!("lines={}-", from.unwrap_or(1))),
            // No line is so many lines at the end.
            (_, Some(NO_LINE), None) => Some("tail=0".to_owned()),
            (from, Some(lines), None) => {
                let first = from.unwrap_or(1);
                Some(format!("lines={first}-{}", first.saturating_add(lines - 1)))
            }
        };
        let wanted = [("attempt", self.attempt.map(|attempt| attempt.to_string())), ("range", range)];
        let mut query: Vec<_> = wanted.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        if query.is_empty() {
            return None;
        }
        query.push(("stage", stage.to_owned()));
        Some(query)
    }
}

/// Prints the output.
pub async fn run(args: LogArgs) -> anyhow::Result<ExitCode> {
    let reader = reach(args.source, Some(&args.run)).await?;
    let client = &reader.client;
    let run = client.pick(&args.run).await?;
    let mut terminal = Terminal::stdout();
    let stage = args.stage.as_deref();
    let part = stage.and_then(|stage| args.part.query(stage));
    let printed = if args.json {
        let end = follow_as_json(client, &run, stage, &mut terminal.out).await;
        exit::of_followed(client, &run, end).await
    } else if args.follow {
        let end = follow(client, &run, stage, &mut terminal.out, terminal.colour).await;
        exit::of_followed(client, &run, end).await
    } else if let Some(part) = part {
        print(client.output(&run, &part).await?, terminal).await.map(|()| ExitCode::SUCCESS)
    } else {
        print(client.log(&run, stage).await?, terminal).await.map(|()| ExitCode::SUCCESS)
    };
    reader.end().await;
    match printed {
        // Whoever read our output has read enough.
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) => {
            Ok(ExitCode::SUCCESS)
        }
        printed => printed,
    }
}

/// Prints output as it is; on a terminal, without what would steer it.
async fn print(mut pieces: impl Stream<Item = Result<Bytes, ClientError>> + Unpin, terminal: Terminal) -> anyhow::Result<()> {
    let Terminal { mut out, colour, is_terminal } = terminal;
    let mut lines = Lines::default();
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        if !is_terminal {
            out.write_all(&piece)?;
            continue;
        }
        lines.take(&piece, |line| writeln!(out, "{}", shown(line, colour)))?;
    }
    lines.end(|line| writeln!(out, "{}", shown(line, colour)))?;
    Ok(or_closed(out.flush())?)
}

/// What a followed run tells.
enum Told {
    Event(EventMessage),
    Output(LogMessage),
}

/// Prints each message of a run, or of one stage's output, on a line; gives the run's outcome.
async fn follow_as_json(client: &Client, run: &RunId, stage: Option<&str>, out: &mut impl Write) -> anyhow::Result<RunOutcome> {
    let mut told = told(client, run, stage);
    let (mut end, mut last) = (None, None);
    let mut line = |message: serde_json::Value| writeln!(out, "{message}").and_then(|()| out.flush());
    line(json!({ "run": run }))?;
    while let Some(message) = told.next().await {
        match message? {
            Told::Event(EventMessage::Event(_)) if stage.is_some() => {}
            Told::Event(EventMessage::Event(event)) if matches!(event.event, RunEvent::RunFinished { .. }) => last = Some(event),
            Told::Event(EventMessage::Event(event)) => line(json!({ "event": event }))?,
            Told::Output(LogMessage::Chunk(chunk)) => line(json!({ "chunk": chunk }))?,
            Told::Output(LogMessage::Gap(gap)) => line(json!({ "gap": gap }))?,
            Told::Event(EventMessage::End(ended)) | Told::Output(LogMessage::End(ended)) => end = Some(ended),
        }
    }
    let end = end.with_context(|| format!("the run {run} was followed to no end"))?;
    last.map_or(Ok(()), |event| line(json!({ "event": event })))?;
    line(json!({ "end": end }))?;
    Ok(end.outcome)
}

/// Prints a run, or one stage of it, as it happens; gives its outcome when it has ended and all its output was printed.
pub async fn follow(client: &Client, run: &RunId, stage: Option<&str>, out: impl Write, colour: bool) -> anyhow::Result<RunOutcome> {
    let detail = client.show(run).await?;
    let follow = Follow::new(out, colour);
    // Of one stage, only its output is asked for.
    let mut follow = if stage.is_some() { follow.output_only() } else { follow };
    follow.know_views(&detail.stages);
    if let RunStatus::Ended { outcome, .. } = detail.run.status
        && stage.is_none()
    {
        ended(client, &detail, &mut follow).await?;
        return Ok(outcome);
    }
    let mut told = told(client, run, stage);
    let (mut outcome, mut last) = (None, None);
    while let Some(message) = told.next().await {
        match message? {
            Told::Event(EventMessage::Event(_)) if stage.is_some() => {}
            // The run's end is printed behind the last of its output.
            Told::Event(EventMessage::Event(event)) if matches!(event.event, RunEvent::RunFinished { .. }) => last = Some(event),
            Told::Event(EventMessage::Event(event)) => follow.event_view(&event)?,
            Told::Output(LogMessage::Chunk(chunk)) => follow.output(&chunk)?,
            Told::Output(LogMessage::Gap(gap)) => follow.gap(&gap)?,
            Told::Event(EventMessage::End(end)) | Told::Output(LogMessage::End(end)) => outcome = Some(end.outcome),
        }
    }
    last.map_or(Ok(()), |event| follow.event_view(&event))?;
    follow.finish()?;
    outcome.ok_or_else(|| anyhow::anyhow!("the run {run} was followed to no end"))
}

/// Prints a run that has ended. Its events would be here long before its output, which lies in the depot; so it is told stage by stage, in
/// the order of the plan as the output comes, each attempt's output before its end.
async fn ended(client: &Client, detail: &RunDetail, follow: &mut Follow<impl Write>) -> anyhow::Result<()> {
    let run = &detail.run.id;
    let mut by_stage: BTreeMap<StageId, Vec<EventView>> = BTreeMap::new();
    let mut last = Vec::new();
    for event in client.events(run).await? {
        match (&event.event, event.event.stage()) {
            (_, Some(stage)) => by_stage.entry(stage.clone()).or_default().push(event),
            (RunEvent::RunAccepted { .. }, None) => follow.event_view(&event)?,
            (_, None) => last.push(event),
        }
    }
    let mut output = Ahead { follower: client.follow_log(run, None), next: None };
    for stage in &detail.stages {
        for event in by_stage.remove(&stage.id).unwrap_or_default() {
            if let RunEvent::StageFinished { attempt, .. } | RunEvent::StageLost { attempt, .. } = event.event {
                output.print(follow, |of, up_to| *of == stage.id && up_to <= attempt).await?;
            }
            follow.event_view(&event)?;
        }
    }
    output.print(follow, |_, _| true).await?;
    last.iter().try_for_each(|event| follow.event_view(event))?;
    Ok(follow.finish()?)
}

/// The output of a run, of which one message is looked at before it is printed.
struct Ahead {
    follower: LogFollower,
    next: Option<LogMessage>,
}

impl Ahead {
    /// Prints what comes next as long as it is of a stage and an attempt that are wanted.
    async fn print(&mut self, follow: &mut Follow<impl Write>, wanted: impl Fn(&StageId, u32) -> bool) -> anyhow::Result<()> {
        loop {
            if self.next.is_none() {
                self.next = self.follower.next().await?;
            }
            match &self.next {
                Some(LogMessage::Chunk(chunk)) if wanted(&chunk.stage, chunk.attempt) => follow.output(chunk)?,
                Some(LogMessage::Gap(gap)) if wanted(&gap.stage, gap.attempt) => follow.gap(gap)?,
                Some(LogMessage::Chunk(_) | LogMessage::Gap(_) | LogMessage::End(_)) | None => return Ok(()),
            }
            self.next = None;
        }
    }
}

/// Both streams of a run at once. They are streams, not calls in a `select!`: a connection that is being made again goes on being made
/// while the other stream speaks.
fn told(client: &Client, run: &RunId, stage: Option<&str>) -> impl Stream<Item = Result<Told, ClientError>> + Unpin {
    let events = stream::try_unfold(client.follow_events(run), |mut events| async move {
        Ok(events.next().await?.map(|message| (Told::Event(message), events)))
    });
    let output = stream::try_unfold(client.follow_log(run, stage), |mut output| async move {
        Ok(output.next().await?.map(|message| (Told::Output(message), output)))
    });
    // Output first: what a stage wrote was sent before its end was told.
    stream::select_with_strategy(Box::pin(output), Box::pin(events), |()| stream::PollNext::Left)
}
