//! `otto run`: the pipeline of this folder, by the same code as the services, in one process and without any server.
//!
//! The working tree is the source, uncommitted changes included and without what git ignores. The plan is the one that a push of the same
//! file gives, with the same digest.

mod house;
mod source;

use std::{
    collections::BTreeMap, io, num::NonZeroU32, path::PathBuf, pin::pin, process::ExitCode, thread::available_parallelism, time::Duration,
};

use anyhow::{Context as _, bail};
use clap::Args;
use futures_util::{StreamExt as _, stream};
use model::{
    RunId, RunOutcome, Timestamp,
    context::EventKind,
    event::run::RunEvent,
    planning::{INLINE_BYTES_MAX, LOCK_FILE, Text, is_address},
    trigger::Trigger,
};
use orchestrator::{
    Orchestrator,
    output::{Output, Piece},
    runs::Appended,
};
use parser::Changed;
use service::signals::Signals;
use tokio::sync::broadcast::error::RecvError;

use self::{house::House, source::Source};
use crate::{
    command::{Terminal, follow::Follow},
    exit,
    pipeline::{ContextArgs, Pipeline, Planned},
    up::colours_on_stderr,
};

/// How long a run may take from its trigger to its first event; it takes a millisecond.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// Run the pipeline of this folder here, without any server
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The pipeline file
    #[arg(default_value = "Ottofile")]
    file: PathBuf,
    /// How many stages run at once [default: the number of cores]
    #[arg(long, short)]
    jobs: Option<NonZeroU32>,
    #[command(flatten)]
    context: ContextArgs,
}

/// Runs the pipeline, and says with the exit code how it ended.
pub async fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let source = Source::find(&args.file)?;
    let mut terminal = Terminal::stdout();
    let Some(planned) = plan(&source, &args.context)? else { return Ok(exit::bad_input()) };
    let slots = args.jobs.or_else(|| NonZeroU32::new(u32::try_from(available_parallelism().ok()?.get()).ok()?)).unwrap_or(NonZeroU32::MIN);
    let mut signals = Signals::listen()?;
    let house = House::start(slots).await?;
    let outcome = tokio::select! {
        outcome = deliver(&house, &source, &planned, &mut terminal) => outcome,
        // The first signal is dealt with in there; what comes a second time ends all at once.
        () = second_signal(&mut signals, &house.orchestrator, &source) => Ok(RunOutcome::Aborted),
    };
    house.end().await?;
    match outcome {
        // Whoever read what is printed is gone (`otto run | head`): as with any program, that is the end of it.
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) => {
            Ok(exit::of_run(RunOutcome::Aborted))
        }
        outcome => Ok(exit::of_run(outcome?)),
    }
}

/// The plan, with its warnings shown; `None` after the errors of a file that is refused.
fn plan(source: &Source, context: &ContextArgs) -> anyhow::Result<Option<Planned>> {
    let planned = source.pipeline.plan(context, EventKind::Manual)?;
    source.pipeline.complain(&planned, &mut io::stderr(), colours_on_stderr())?;
    Ok(planned.plan.is_some().then_some(planned))
}

/// The trigger of the run. What the parser asked for here lies in the store, where it will ask for it again.
async fn trigger(house: &House, source: &Source, planned: &Planned) -> anyhow::Result<Trigger> {
    let Pipeline { path, source: bytes, .. } = &source.pipeline;
    let tree = forge::source::pack_working_tree(source.pipeline.root())?.store(&house.blobs).await?;
    let listing = match &planned.listing {
        Some(listing) => Some(house.blobs.put(serde_json::to_vec(listing)?.into()).await?),
        None => None,
    };
    let changed = match &planned.changed {
        Some(Changed::Paths(paths)) => Some(house.blobs.put(serde_json::to_vec(paths)?.into()).await?),
        Some(Changed::Unknown) | None => None,
    };
    let (document, _) = planned.plan.as_ref().context("what is delivered has a plan")?;
    for (address, digest) in document.plan().libraries.iter().filter(|(name, _)| is_address(name)) {
        // The plan was made with it, so it is kept here.
        house.blobs.put(Pipeline::archive(address, digest)?.into()).await?;
    }
    Ok(Trigger {
        id: source.trigger.clone(),
        project: source.project.clone(),
        context: planned.context.clone(),
        pipeline_path: path.clone(),
        pipeline: text(bytes.clone(), house).await?,
        source: Some(tree),
        listing,
        changed,
        lock: match source.pipeline.file(LOCK_FILE)? {
            Some(lock) => Some(text(lock, house).await?),
            None => None,
        },
        missing_libraries: BTreeMap::new(),
        rerun: None,
        timeout_ms: None,
        only: None,
        stop_at_failure: false,
    })
}

/// A text as it travels.
async fn text(bytes: Vec<u8>, house: &House) -> anyhow::Result<Text> {
    if bytes.len() <= INLINE_BYTES_MAX && str::from_utf8(&bytes).is_ok() {
        return Ok(Text::Inline(String::from_utf8(bytes)?));
    }
    Ok(Text::Depot(house.blobs.put(bytes.into()).await?))
}

async fn deliver(house: &House, source: &Source, planned: &Planned, terminal: &mut Terminal) -> anyhow::Result<RunOutcome> {
    let trigger = trigger(house, source, planned).await?;
    let (document, _) = planned.plan.as_ref().context("what is delivered has a plan")?;
    let stages = document.plan().stages.iter().map(|stage| (stage.id.clone(), stage.path.clone()));
    let mut follow = Follow::new(&mut terminal.out, terminal.colour);
    follow.know(stages);
    show(&house.orchestrator, &trigger, &mut follow).await
}

/// Starts the run and prints it as it happens, until it has ended and everything that its stages said was printed.
async fn show(orchestrator: &Orchestrator, trigger: &Trigger, follow: &mut Follow<impl io::Write>) -> anyhow::Result<RunOutcome> {
    let mut appended = orchestrator.runs.follow();
    let run = orchestrator.create(trigger).await?;
    let snapshot = orchestrator.runs.get_soon(&run, START_DEADLINE).await.context("the run did not start: see the lines above")?;
    follow.say(run.as_str())?;
    let mut shown = Shown { sequence: 0, held: None };
    for record in snapshot.records.iter() {
        shown.record(record, follow)?;
    }
    let output = Output::follow(orchestrator.clone(), snapshot.run, None);
    let mut pieces = pin!(stream::unfold(output, |mut output| async move { output.next().await.map(|piece| (piece, output)) }));
    loop {
        tokio::select! {
            biased;
            piece = pieces.next() => match piece {
                Some(Piece::Chunk(chunk)) => follow.output(&chunk)?,
                Some(Piece::Gap(gap)) => follow.gap(&gap)?,
                Some(Piece::End(_)) | None => break,
            },
            record = appended.recv() => match record {
                Ok(record) if record.run == run => shown.record(&record, follow)?,
                Ok(_) => {}
                // Output and events are in the log as well; what was missed is read there.
                Err(RecvError::Lagged(_)) => catch_up(orchestrator, &run, &mut shown, follow)?,
                Err(RecvError::Closed) => bail!("the orchestrator is gone"),
            },
        }
    }
    catch_up(orchestrator, &run, &mut shown, follow)?;
    shown.release(follow)?;
    follow.finish()?;
    follow.outcome().context("the run ended without an outcome")
}

fn catch_up(orchestrator: &Orchestrator, run: &RunId, shown: &mut Shown, follow: &mut Follow<impl io::Write>) -> anyhow::Result<()> {
    let snapshot = orchestrator.runs.get(run).context("the run is gone")?;
    snapshot.records.iter().try_for_each(|record| shown.record(record, follow))
}

/// How much of the run's log was printed.
struct Shown {
    sequence: u64,
    /// The run's end, which is printed after the last of its output.
    held: Option<(RunEvent, Timestamp)>,
}

impl Shown {
    fn record(&mut self, appended: &Appended, follow: &mut Follow<impl io::Write>) -> anyhow::Result<()> {
        if appended.sequence <= self.sequence {
            return Ok(());
        }
        self.sequence = appended.sequence;
        for event in &appended.record.events {
            if matches!(event, RunEvent::RunFinished { .. }) {
                self.held = Some((event.clone(), appended.record.at));
            } else {
                follow.event(event, appended.record.at)?;
            }
        }
        Ok(())
    }

    fn release(&mut self, follow: &mut Follow<impl io::Write>) -> anyhow::Result<()> {
        self.held.take().map_or(Ok(()), |(event, at)| Ok(follow.event(&event, at)?))
    }
}

/// Returns at the second signal; the first one cancels the run.
async fn second_signal(signals: &mut Signals, orchestrator: &Orchestrator, source: &Source) {
    signals.next().await;
    // A run that has not begun, or has ended already, needs no cancel.
    let _no_matter = orchestrator.cancel(&RunId::of(&source.trigger), "a signal").await;
    signals.next().await;
}
