//! `otto log`: the output of a run, whole or as it comes.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Args;
use futures_util::{Stream, StreamExt as _, stream};
use model::{RunId, RunOutcome};

use super::{
    follow::Follow,
    terminal::{Terminal, or_closed},
};
use crate::client::{Client, ClientError, EventMessage, LogMessage};

/// Print the output of a run
#[derive(Debug, Args)]
pub struct LogArgs {
    /// Go on with what comes, until the run has ended
    #[arg(short, long)]
    follow: bool,
    /// The run: its id, the beginning of it, or `latest`
    run: String,
    /// Only this stage: its path, the last part of it, or its id
    #[arg(long)]
    stage: Option<String>,
}

/// Prints the output.
pub async fn run(args: LogArgs) -> anyhow::Result<ExitCode> {
    let client = Client::from_environment()?;
    let run = client.pick(&args.run).await?;
    let mut terminal = Terminal::stdout();
    let stage = args.stage.as_deref();
    let printed = if args.follow {
        follow(&client, &run, stage, &mut terminal.out, terminal.colour).await.map(|_| ())
    } else {
        whole(&client, &run, stage, &mut terminal.out).await
    };
    match printed {
        // Whoever read our output has read enough.
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) => {}
        printed => printed?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn whole(client: &Client, run: &RunId, stage: Option<&str>, out: &mut impl Write) -> anyhow::Result<()> {
    let mut pieces = client.log(run, stage).await?;
    while let Some(piece) = pieces.next().await {
        out.write_all(&piece?)?;
    }
    Ok(or_closed(out.flush())?)
}

/// What a followed run tells.
enum Told {
    Event(EventMessage),
    Output(LogMessage),
}

/// Prints a run, or one stage of it, as it happens; gives its outcome when it has ended and all its output was printed.
pub async fn follow(client: &Client, run: &RunId, stage: Option<&str>, out: impl Write, colour: bool) -> anyhow::Result<RunOutcome> {
    let detail = client.show(run).await?;
    let follow = Follow::new(out, colour);
    // Of one stage, only its output is asked for.
    let mut follow = if stage.is_some() { follow.output_only() } else { follow };
    follow.know_views(&detail.stages);
    let mut told = told(client, run, stage);
    let mut outcome = None;
    while let Some(message) = told.next().await {
        match message? {
            Told::Event(EventMessage::Event(event)) if stage.is_none() => follow.event_view(&event)?,
            Told::Event(EventMessage::Event(_)) => {}
            Told::Output(LogMessage::Chunk(chunk)) => follow.output(&chunk)?,
            Told::Output(LogMessage::Gap(gap)) => follow.gap(&gap)?,
            Told::Event(EventMessage::End(end)) | Told::Output(LogMessage::End(end)) => outcome = Some(end.outcome),
        }
    }
    follow.finish()?;
    outcome.ok_or_else(|| anyhow::anyhow!("the run {run} was followed to no end"))
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
