//! `otto run`: the pipeline of this folder, by the same code as the services, in one process and without any server.
//!
//! The working tree is the source, uncommitted changes included and without what git ignores. The plan is the one that a push of the same
//! file gives, with the same digest. The run is kept in the folder's [store](crate::store): it can be looked at, and goes on where it was
//! when its process was killed.

mod again;
mod ask;
mod fit;
mod follow;
mod follow_remote;
mod house;
mod keys;
mod remote;
mod seat;
mod source;
mod talk;
mod tree;
mod view;

use std::{
    io::{self, IsTerminal as _, Write as _},
    num::NonZeroU32,
    path::{Path, PathBuf},
    process::ExitCode,
    thread::available_parallelism,
    time::Duration,
};

use agent::{Isolation, Level, Nursery};
use anyhow::Context as _;
use blob::Blobs;
use clap::Args;
use eventbus::memory::Journal;
use model::{
    Digest, RunOutcome, Timestamp,
    context::EventKind,
    plan::{Plan, Stage, Step, Value},
    planning::{INLINE_BYTES_MAX, LOCK_FILE, Text, is_address},
    trigger::{Claims, Trigger},
};
use orchestrator::runs::Snapshot;
use parser::Changed;
use service::{clock, settings::Settings, signals::Signals};

use self::{
    again::Earlier,
    ask::{Ask, Given},
    fit::Fit,
    follow::{Followed, Follower},
    house::{House, Means},
    source::Source,
    view::{Form, View},
};
use crate::{
    client::LATEST,
    command::{Terminal, complain},
    exit,
    pipeline::{ContextArgs, Pipeline, Planned},
    store::{Held, Store, sweep},
    up::colours_on_stderr,
};

/// How long a run may take from its trigger to its first event; it takes a millisecond.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// Run the pipeline of this folder here, without any server; or on the services, with `--remote`
///
/// On a terminal, the stages are shown as a tree, and what the run asks is asked there; in a pipe, output comes as plain lines. Runs are kept
/// in `.otto/runs`: `otto runs`, `otto show` and `otto log` read them. Ctrl-C ends the run in order, a second one at once.
#[derive(Debug, Args)]
#[command(after_help = exit::HELP)]
pub struct RunArgs {
    /// The pipeline file
    #[arg(default_value = "Ottofile")]
    file: PathBuf,
    /// Run only this stage, and what it needs: its path, or the last part of it
    #[arg(long, value_name = "PATH")]
    stage: Option<String>,
    /// How many stages run at once [default: the number of cores]
    #[arg(long, short)]
    jobs: Option<NonZeroU32>,
    /// Go on after a failure with all that does not need what failed, as the services do; else nothing new starts
    #[arg(long, short)]
    keep_going: bool,
    /// Run again what did not succeed in the last run of this file; plan and files must be the same
    #[arg(long, conflicts_with = "stage")]
    from_failed: bool,
    /// Go on with a run that was interrupted: the last one, or the one of this id
    #[arg(long, value_name = "RUN", num_args = 0..=1, default_missing_value = LATEST, conflicts_with_all = ["stage", "from_failed", "keep_going", "timeout"])]
    resume: Option<String>,
    /// How long the whole run may take, such as `90s`, `30m` or `2h`
    #[arg(long, value_parser = time)]
    timeout: Option<Duration>,
    /// Print the run's events and output as JSON, one object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: remote::RemoteArgs,
    #[command(flatten)]
    where_stages_run: PlaceArgs,
    #[command(flatten)]
    answers: AnswerArgs,
    #[command(flatten)]
    context: ContextArgs,
}

/// Where stages run.
#[derive(Debug, Args)]
struct PlaceArgs {
    /// How far stages are kept apart from this machine: auto, namespaces, landlock or group [default: group, or auto if a stage demands one]
    #[arg(long)]
    isolation: Option<Isolation>,
    /// Run stages in this directory itself, one at a time: nothing is put there or removed, and what they leave stays
    #[arg(long, conflicts_with = "jobs")]
    in_place: bool,
}

/// What is answered without being asked on the terminal.
#[derive(Debug, Args)]
struct AnswerArgs {
    /// Approve what asks for a confirmation, and resume what is paused
    #[arg(long, short)]
    yes: bool,
    /// Answer a prompt, named by its variable or its stage; can be given several times
    #[arg(long = "answer", value_name = "NAME=TEXT", value_parser = answer)]
    answers: Vec<(String, String)>,
}

impl RunArgs {
    /// Whether the services run it.
    pub(crate) fn is_remote(&self) -> bool {
        self.remote.is_wanted()
    }

    fn slots(&self) -> NonZeroU32 {
        let cores = || NonZeroU32::new(u32::try_from(available_parallelism().ok()?.get()).ok()?);
        self.jobs.or_else(cores).unwrap_or(NonZeroU32::MIN)
    }

    /// How far stages are kept apart. One's own pipeline is trusted with one's own machine, so it is isolated only if somebody wants that.
    fn isolation(&self, plan: Option<&Plan>) -> Isolation {
        let default = || if plan.is_none_or(demands_isolation) { Isolation::Auto } else { Isolation::Level(Level::Group) };
        self.where_stages_run.isolation.unwrap_or_else(default)
    }

    /// How stages are run. Of a run without a record, the plan is not known yet.
    fn means(&self, store: &Store, root: &Path, (fit, isolation): (Fit, Isolation), plan: Option<&Plan>) -> anyhow::Result<Means> {
        let in_place = self.where_stages_run.in_place.then(|| root.to_owned());
        // A notification is one more.
        let stages = plan.and_then(|plan| u32::try_from(plan.stages.len() + usize::from(!plan.notify.is_empty())).ok()).unwrap_or(u32::MAX);
        let is_called = plan.is_none_or(|plan| plan.stages.iter().any(Stage::waits_for_a_call));
        let callback_key = is_called.then(|| store.callback_key()).transpose()?;
        let limits_stages = plan.is_none_or(|plan| plan.stages.iter().any(demands_limits));
        // One that waits for another run does nothing meanwhile, and must not keep that one from running.
        let waiting =
            plan.map_or(0, |plan| plan.stages.iter().filter(|stage| Step::with_nested(&stage.steps).any(waits_for_a_run)).count());
        let slots = self.slots().saturating_add(u32::try_from(waiting).unwrap_or(u32::MAX));
        Ok(Means { slots, fit, isolation, nursery: None, in_place, stages, limits_stages, callback_key })
    }

    /// What the command line answers.
    fn given(&self) -> Given {
        Given { yes: self.answers.yes, answers: self.answers.answers.clone() }
    }

    /// How the run is shown.
    fn form(&self) -> Form {
        let is_dumb = Settings::from_environment().optional::<String>("TERM").is_none_or(|term| term == "dumb");
        match self.json {
            true => Form::Json,
            false if io::stdout().is_terminal() && !is_dumb => Form::Tree,
            false => Form::Plain,
        }
    }
}

/// Runs the pipeline, and says with the exit code how it ended.
pub async fn run(args: RunArgs, nursery: Option<Nursery>) -> anyhow::Result<ExitCode> {
    let mut has_begun = false;
    let ended = if args.is_remote() {
        remote::run(&args, &mut has_begun).await
    } else if let Some(run) = &args.resume {
        resume(&args, nursery, Some(run.as_str()).filter(|run| *run != LATEST), &mut has_begun).await
    } else {
        begin(&args, nursery, &mut has_begun).await
    };
    match ended {
        Err(error) if !has_begun => {
            complain(&error);
            Ok(exit::bad_input())
        }
        ended => ended,
    }
}

async fn begin(args: &RunArgs, nursery: Option<Nursery>, has_begun: &mut bool) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let source = Source::find(&args.file)?;
    let Some(planned) = plan(&source, &args.context)? else { return Ok(exit::bad_input()) };
    let only = args.stage.as_ref().map(|path| stage_at(&planned, path)).transpose()?.map(|stage| stage.id.clone());
    let plan = plan_of(&planned)?;
    args.given().fits(plan)?;
    let isolation = args.isolation(Some(plan));
    let found = fit::of(&fit::chosen(plan, only.as_ref()), isolation).await?;
    let place = Place::open(&source)?;
    let means = Means { nursery, ..args.means(&place.store, source.pipeline.root(), (found, isolation), Some(plan))? };
    let earlier = args.from_failed.then(|| Earlier::find(&place.store, &source.pipeline.path)).transpose()?;
    let blobs = Blobs::Disk(place.store.depot()?);
    let held = place.store.begin(&model::RunId::of(&source.trigger))?;
    let mut journal = Journal::open(&held.kept.journal())?;
    let prepared = async {
        held.set_isolation(isolation)?;
        let (house, trigger) = if let Some(earlier) = &earlier {
            let tree = forge::source::pack_working_tree(source.pipeline.root())?.store(&blobs).await?;
            let trigger = earlier.again(source.trigger.clone(), digest(&planned)?, tree)?;
            journal.import(&earlier.kept.journal())?;
            (House::start(blobs.clone(), &held, journal, place.store.hints(), means).await?, trigger)
        } else {
            let house = House::start(blobs.clone(), &held, journal, place.store.hints(), means);
            tokio::try_join!(house, trigger(&blobs, &source, &planned))?
        };
        let timeout_ms = args.timeout.map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
        let trigger = Trigger { only, stop_at_failure: !args.keep_going, timeout_ms, ..trigger };
        house.orchestrator.create(&trigger).await?;
        anyhow::Ok(house)
    };
    let prepared = tokio::select! {
        prepared = prepared => prepared,
        // Nothing has begun that would have to be ended in order.
        _ = signals.next() => {
            held.forget()?;
            return Ok(exit::of_run(RunOutcome::Aborted));
        }
    };
    let house = match prepared {
        Ok(house) => house,
        Err(error) => {
            held.forget()?;
            return Err(error);
        }
    };
    // At the end of the run its store is looked through, which nobody does who has it open.
    drop(blobs);
    *has_begun = true;
    go(args, house, &place.store, held, &mut signals, false).await
}

/// Whether the stage demands so much of the machine, which is then all that it gets.
fn demands_limits(stage: &Stage) -> bool {
    let demands = stage.demands();
    agent::LIMITED_FACTS.iter().any(|fact| demands.contains_key(*fact))
}

/// Whether the step starts a run and waits for its end.
fn waits_for_a_run(step: &Step) -> bool {
    let is_trigger = step.library == stdlib::NAME && step.symbol == "trigger";
    is_trigger && step.parameters.get("wait") == Some(&Value::Boolean(true))
}

fn demands_isolation(plan: &Plan) -> bool {
    plan.stages.iter().any(|stage| stage.demands().contains_key("isolation"))
}

/// Goes on with a run that was interrupted.
async fn resume(args: &RunArgs, nursery: Option<Nursery>, run: Option<&str>, has_begun: &mut bool) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let store = Store::here().context("no run is kept here: `otto run` begins one")?;
    let kept = store.interrupted(run)?;
    let held = kept.hold()?.with_context(|| format!("another process goes on with {}: `otto log -f {0}` shows it", kept.run))?;
    let blobs = Blobs::Disk(store.depot()?);
    let snapshot = again::read(&held.kept, blobs.clone()).await?;
    let journal = Journal::open(&held.kept.journal())?;
    let plan = snapshot.as_ref().map(|snapshot| snapshot.run.shape.plan());
    // As it began: where it was killed before it had a plan, that does not say so.
    let isolation = args.where_stages_run.isolation.or_else(|| held.kept.isolation()).unwrap_or_else(|| args.isolation(plan));
    let found = match &snapshot {
        None => fit::of_machine().await,
        Some(Snapshot { run, .. }) => {
            let open = (0..run.shape.len()).filter(|at| !run.stages[*at].is_over()).map(|at| run.shape.stage(at));
            let open: Vec<&Stage> = open.filter(|stage| stage.skipped.is_none()).collect();
            fit::of(&open, isolation).await?
        }
    };
    let means = Means { nursery, ..args.means(&store, store.root(), (found, isolation), plan)? };
    let house = House::start(blobs, &held, journal, store.hints(), means).await?;
    *has_begun = true;
    go(args, house, &store, held, &mut signals, true).await
}

/// Goes along with the run until it ends, or until this process does.
async fn go(args: &RunArgs, house: House, store: &Store, held: Held, signals: &mut Signals, goes_on: bool) -> anyhow::Result<ExitCode> {
    let run = held.kept.run.clone();
    let given = args.given();
    let mut is_refused = false;
    let followed = async {
        let snapshot =
            house.orchestrator.runs.get_soon(&run, START_DEADLINE).await.context("the run did not start: see the lines above")?;
        is_refused = !snapshot.run.diagnostics().is_empty();
        let view = View::new(args.form(), Terminal::stdout(), &run, snapshot.run.shape.plan())?;
        let mut follower = Follower::new(&house, &run, view, &given);
        if goes_on {
            follower.skip_old_output(&snapshot);
        }
        follower.follow(snapshot, signals).await
    };
    let followed = followed.await;
    store.set_hints(&run, &house.orchestrator.hints())?;
    let runs = house.orchestrator.runs.clone();
    if let Ok(Followed::Forced) = &followed {
        house.end_now().await?;
    } else {
        house.end().await;
    }
    let code = match followed {
        Ok(Followed::Ended(end)) => {
            held.set_outcome(end.outcome)?;
            if is_refused { exit::bad_input() } else { exit::of_run(end.outcome) }
        }
        Ok(Followed::Waits(asks)) => {
            waits(&run, &asks)?;
            exit::waits()
        }
        Ok(Followed::Forced) => {
            writeln!(io::stderr(), "ended at once; `otto run --resume {run}` would go on with its end")?;
            exit::of_run(RunOutcome::Aborted)
        }
        // Whoever read what is printed is gone (`otto run | head`): as with any program, that is the end of it.
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) => {
            // The last of it may not have been read.
            if let Some((outcome, _)) = runs.get(&run).and_then(|snapshot| snapshot.run.ended) {
                held.set_outcome(outcome)?;
            }
            exit::of_run(RunOutcome::Aborted)
        }
        Err(error) => return Err(error),
    };
    drop(held);
    sweep(store)?;
    Ok(code)
}

/// Says what the run waits for, and how it goes on.
fn waits(run: &model::RunId, asks: &[Ask]) -> io::Result<()> {
    told_waits(asks, Ask::how)?;
    writeln!(io::stderr(), "{run} is left as it is; `otto run --resume {run}` goes on with it, and asks on a terminal")
}

fn told_waits(asks: &[Ask], how: impl Fn(&Ask) -> String) -> io::Result<()> {
    let now = Timestamp(clock::unix_ms());
    asks.iter().try_for_each(|ask| writeln!(io::stderr(), "waits for {}: {}", ask.words(now), how(ask)))
}

/// Where runs are kept.
struct Place {
    store: Store,
    /// Where the folder itself cannot be written.
    _instead: Option<tempfile::TempDir>,
}

impl Place {
    fn open(source: &Source) -> anyhow::Result<Self> {
        let root = source.pipeline.root();
        let store = Store::of(root);
        let Err(error) = store.make() else { return Ok(Self { store, _instead: None }) };
        writeln!(io::stderr(), "the run is not kept: {error:#}")?;
        let instead = tempfile::Builder::new().prefix("otto-run-").tempdir().context("there is no folder for the run")?;
        Ok(Self { store: Store::of(instead.path()), _instead: Some(instead) })
    }
}

/// The plan, with its warnings shown; `None` after the errors of a file that is refused.
fn plan(source: &Source, context: &ContextArgs) -> anyhow::Result<Option<Planned>> {
    let planned = source.pipeline.plan(context, EventKind::Manual)?;
    source.pipeline.complain(&planned, &mut io::stderr(), colours_on_stderr())?;
    Ok(planned.plan.is_some().then_some(planned))
}

fn plan_of(planned: &Planned) -> anyhow::Result<&Plan> {
    Ok(planned.plan.as_ref().context("what is run has a plan")?.0.plan())
}

fn digest(planned: &Planned) -> anyhow::Result<Digest> {
    Ok(planned.plan.as_ref().context("what is run has a plan")?.0.digest())
}

/// The stage of this path, or the only one whose path ends so.
fn stage_at<'a>(planned: &'a Planned, path: &str) -> anyhow::Result<&'a Stage> {
    let stages = &plan_of(planned)?.stages;
    let mut ends_so = stages.iter().filter(|stage| stage.path.rsplit('/').next() == Some(path));
    let unique = ends_so.next().filter(|_| ends_so.next().is_none());
    let found = stages.iter().find(|stage| stage.path == path).or(unique);
    let all = || stages.iter().map(|stage| stage.path.as_str()).collect::<Vec<_>>().join(", ");
    found.with_context(|| format!("there is no stage `{path}`, or several: the plan has {}", all()))
}

/// The trigger of the run. What the parser asked for here lies in the store, where it will ask for it again.
async fn trigger(blobs: &Blobs, source: &Source, planned: &Planned) -> anyhow::Result<Trigger> {
    let Pipeline { path, source: bytes, .. } = &source.pipeline;
    let tree = forge::source::pack_working_tree(source.pipeline.root())?.store(blobs).await?;
    let listing = match &planned.listing {
        Some(listing) => Some(blobs.put(serde_json::to_vec(listing)?.into()).await?),
        None => None,
    };
    let changed = match &planned.changed {
        Some(Changed::Paths(paths)) => Some(blobs.put(serde_json::to_vec(paths)?.into()).await?),
        Some(Changed::Unknown) | None => None,
    };
    for (address, digest) in plan_of(planned)?.libraries.iter().filter(|(name, _)| is_address(name)) {
        // The plan was made with it, so it is kept here.
        blobs.put(Pipeline::archive(address, digest)?.into()).await?;
    }
    let lock = match source.pipeline.file(LOCK_FILE)? {
        Some(lock) => Some(text(lock, blobs).await?),
        None => None,
    };
    let pipeline = text(bytes.clone(), blobs).await?;
    Ok(Trigger {
        context: planned.context.clone(),
        source: Some(tree),
        listing,
        changed,
        lock,
        claims: Claims::own(),
        ..Trigger::new(source.trigger.clone(), source.project.clone(), path, pipeline)
    })
}

/// A text as it travels.
async fn text(bytes: Vec<u8>, blobs: &Blobs) -> anyhow::Result<Text> {
    if bytes.len() <= INLINE_BYTES_MAX && str::from_utf8(&bytes).is_ok() {
        return Ok(Text::Inline(String::from_utf8(bytes)?));
    }
    Ok(Text::Depot(blobs.put(bytes.into()).await?))
}

fn answer(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, answer)) if !name.is_empty() => Ok((name.to_owned(), answer.to_owned())),
        Some(_) => Err("the name is missing before `=`".to_owned()),
        None => Err("expected NAME=TEXT".to_owned()),
    }
}

/// A time with its unit.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let expected = || "expected a number and a unit, such as `90s`, `30m` or `2h`".to_owned();
    let (_, ms) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(expected)?;
    let number: u64 = number.parse().map_err(|_| expected())?;
    let time = number.checked_mul(*ms).filter(|ms| *ms > 0).ok_or_else(expected)?;
    Ok(Duration::from_millis(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit() {
        let ms = |text: &str| time(text).map(|time| time.as_millis());
        assert_eq!((ms("90s"), ms("30m"), ms("2h"), ms("5ms")), (Ok(90_000), Ok(1_800_000), Ok(7_200_000), Ok(5)));
        for wrong in ["", "30", "m", "0s", "1d", "99999999999999999999h", "-1s", "1.5h"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }
}
