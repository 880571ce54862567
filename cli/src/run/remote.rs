//! `otto run --remote`: the pipeline of this folder on the services, with the working tree as its source.
//!
//! ```text
//! plan it here (what is refused is told, and nothing is sent) ─▶ POST /v1/runs ─▶ follow it, ask, cancel
//!                                                     └ the depot has not this tree ─▶ POST /v1/sources ─▶ once more
//! ```
//!
//! With `--from-failed`, the newest run of the same pipeline file there is run again, if it was of the same pipeline and the same tree.
//!
//! Whoever asks may have written the files, so the run is untrusted, as every run from source text.

use std::{
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use apispec::{Code, PlanView, RerunCreate, RerunStages, RunCreate, RunDetail, RunStatus};
use clap::Args;
use data_encoding::HEXLOWER;
use model::{
    Digest, ProjectName, RunId, RunOutcome,
    access::Role,
    context::{EventKind, TriggerContext},
    event::{self, run::RunEvent},
    plan::Plan,
    planning::{LOCK_FILE, Text, is_address},
};
use parser::Changed;
use service::signals::Signals;
use tempfile::NamedTempFile;
use tokio_util::io::ReaderStream;

use super::{
    RunArgs, START_DEADLINE,
    follow_remote::{self, Remote},
    plan, plan_of,
    source::Source,
    view::View,
};
use crate::{
    client::Client,
    command::Terminal,
    exit,
    pipeline::{Pipeline, Planned},
};

/// Between two looks for a run that was just created.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// How many of a project's newest runs are looked at for one of the same pipeline file: as many as one answer has.
const LOOKED_AT_MAX: usize = 500;
/// Bytes of a file that are sent at once.
const SEND_BYTES: usize = 256 * 1024;

/// On the services instead of here
#[derive(Debug, Args)]
#[command(next_help_heading = "On the services")]
pub(super) struct RemoteArgs {
    /// Run it on the services: the pipeline and the working tree are sent there, and the run is untrusted
    #[arg(
        long,
        conflicts_with_all = ["jobs", "keep_going", "resume", "isolation", "in_place", "tag", "event", "pr"]
    )]
    remote: bool,
    /// Print the run's id once it is accepted, and do not wait for it
    #[arg(long, requires = "remote", conflicts_with_all = ["yes", "answers"])]
    detach: bool,
    /// The project [default: the folder's name]
    #[arg(long, requires = "remote", value_name = "NAME")]
    project: Option<ProjectName>,
}

impl RemoteArgs {
    pub(super) fn is_wanted(&self) -> bool {
        self.remote
    }
}

/// Sends the run, and says with the exit code how it ended.
pub(super) async fn run(args: &RunArgs, has_begun: &mut bool) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let client = Client::from_environment()?;
    let source = Source::find(&args.file)?;
    let Some(planned) = plan(&source, &args.context)? else { return Ok(exit::bad_input()) };
    args.given().fits(plan_of(&planned)?)?;
    let only = args.stage.as_deref().map(|path| super::stage_at(&planned, path)).transpose()?.map(|stage| stage.path.clone());
    let begun = async {
        let (create, brought) = prepare(args, &source, &planned, only).await?;
        if args.from_failed {
            return again(&client, &create, has_begun).await;
        }
        // Of a request that breaks off, nobody knows what became.
        *has_begun = true;
        begin(&client, &source, &planned, &create, brought).await
    };
    let run = tokio::select! {
        run = begun => run?,
        // Nothing runs that would have to be ended in order.
        _ = signals.next() => return Ok(exit::of_run(RunOutcome::Aborted)),
    };
    if args.remote.detach {
        let line = if args.json { format!("{}\n", serde_json::json!({ "run": run })) } else { format!("{run}\n") };
        Terminal::stdout().print(&line)?;
        return Ok(ExitCode::SUCCESS);
    }
    let detail = appeared(&client, &run).await?;
    let is_refused = matches!(detail.run.plan, PlanView::Refused { .. });
    let plan = plan_there(&client, &run, plan_of(&planned)?, &detail).await?;
    let may_answer = client.token().await.is_ok_and(|token| token.role >= Role::Approve);
    let view = View::new(args.form(), Terminal::stdout(), &run, &plan)?;
    let given = args.given();
    let followed = Remote::new(client.clone(), &detail, view, &given, may_answer).follow(&mut signals).await;
    let code = match followed {
        Ok(follow_remote::Followed::Ended(end)) if is_refused && end.outcome == RunOutcome::Failure => exit::bad_input(),
        Ok(follow_remote::Followed::Ended(end)) => exit::of_run(end.outcome),
        Ok(follow_remote::Followed::Waits(asks)) => {
            super::told_waits(&asks, |ask| ask.how_there(&run))?;
            writeln!(io::stderr(), "{run} waits there; `otto log -f {run}` follows it")?;
            exit::waits()
        }
        Ok(follow_remote::Followed::Left) => {
            writeln!(io::stderr(), "{run} is left as it is; `otto log -f {run}` follows it")?;
            exit::of_run(RunOutcome::Aborted)
        }
        // Whoever read what is printed is gone: the run goes on.
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) => ExitCode::SUCCESS,
        Err(error) => return Err(error).with_context(|| format!("{run} is not followed any more; `otto log -f {run}` does so again")),
    };
    Ok(code)
}

/// What is asked for, and what must lie in the depot for it.
async fn prepare(args: &RunArgs, source: &Source, planned: &Planned, only: Option<String>) -> anyhow::Result<(RunCreate, Vec<Spooled>)> {
    let context = &planned.context;
    ensure!(
        context.event == EventKind::Manual,
        "a run with a source of your own is asked for by hand: `--event`, `--tag` and `--pr` are for runs of a commit"
    );
    let Pipeline { path, source: text, .. } = &source.pipeline;
    let pipeline = String::from_utf8(text.clone()).with_context(|| format!("{path} is not UTF-8"))?;
    let root = source.pipeline.root().to_owned();
    let tree = tokio::task::spawn_blocking(move || Spooled::tree(&root)).await.context("packing does not panic")??;
    let listing = planned.listing.as_ref().map(Spooled::json).transpose()?;
    let changed = match &planned.changed {
        Some(Changed::Paths(paths)) => Some(Spooled::json(paths)?),
        Some(Changed::Unknown) | None => None,
    };
    let timeout_ms = args.timeout.map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
    let create = RunCreate {
        project: args.remote.project.clone().unwrap_or_else(|| source.project.clone()),
        pipeline,
        pipeline_path: path.clone(),
        branch: context.branch.clone(),
        commit: context.commit.clone(),
        source: Some(tree.digest),
        listing: listing.as_ref().map(|listing| listing.digest),
        changed: changed.as_ref().map(|changed| changed.digest),
        parameters: context.parameters.clone(),
        stage: only,
        timeout_ms,
    };
    Ok((create, [Some(tree), listing, changed].into_iter().flatten().collect()))
}

/// Creates the run, with its source in the depot.
async fn begin(client: &Client, source: &Source, planned: &Planned, create: &RunCreate, brought: Vec<Spooled>) -> anyhow::Result<RunId> {
    for (address, digest) in plan_of(planned)?.libraries.iter().filter(|(name, _)| is_address(name)) {
        // The services fetch nothing: what the lock file names lies in their depot, or is brought.
        ensure!(source.pipeline.file(LOCK_FILE)?.is_some(), "{address} is locked by {LOCK_FILE}, which is gone");
        client.bring(Pipeline::archive(address, digest)?).await?;
    }
    let key = key()?;
    match client.create(create, Some(&key)).await {
        // What is there already is not sent again.
        Err(error) if error.is(Code::UnknownSource) => {
            for spooled in brought {
                spooled.bring(client).await?;
            }
            Ok(client.create(create, Some(&key)).await?)
        }
        created => Ok(created?),
    }
}

/// Runs again what failed in the newest run of the pipeline file, if nothing has changed since.
async fn again(client: &Client, create: &RunCreate, has_begun: &mut bool) -> anyhow::Result<RunId> {
    let newest = client.find(LOOKED_AT_MAX, &[("project", create.project.to_string())]).await?;
    let earlier = newest.runs.into_iter().find(|run| run.pipeline_path == create.pipeline_path);
    let Some(earlier) = earlier else { return Err(Unfit::None(create.pipeline_path.clone(), create.project.clone()).into()) };
    let run = earlier.id;
    match earlier.status {
        RunStatus::Ended { outcome: outcome @ (RunOutcome::Success | RunOutcome::Skipped), .. } => {
            return Err(Unfit::Succeeded(run, outcome).into());
        }
        RunStatus::Ended { .. } => {}
        RunStatus::Running | RunStatus::Held { .. } | RunStatus::Cancelling { .. } => return Err(Unfit::Open(run).into()),
        RunStatus::Damaged { .. } => return Err(Unfit::Damaged(run).into()),
    }
    let events = client.events(&run).await?;
    let Some(RunEvent::RunAccepted { trigger, planned }) = events.into_iter().next().map(|first| first.event) else {
        return Err(Unfit::NoPlan(run).into());
    };
    if !matches!(planned, event::run::Planned::Plan { .. }) {
        return Err(Unfit::NoPlan(run).into());
    }
    let is_same_text = match &trigger.pipeline {
        Text::Inline(text) => *text == create.pipeline,
        Text::Depot(digest) => *digest == Digest::of(create.pipeline.as_bytes()),
    };
    let is_same = |context: &TriggerContext| context.branch == create.branch && context.parameters == create.parameters;
    if !is_same_text || !is_same(&trigger.context) {
        return Err(Unfit::Pipeline(run).into());
    }
    if trigger.source != create.source {
        return Err(Unfit::Source(run).into());
    }
    *has_begun = true;
    Ok(client.rerun(&run, &RerunCreate { stages: RerunStages::Failed }).await?)
}

/// Why nothing is run again. Each says what to do instead.
#[derive(Debug, thiserror::Error)]
enum Unfit {
    #[error("no run of {0} is among the newest {LOOKED_AT_MAX} of the project {1} there: run it without --from-failed")]
    None(String, ProjectName),
    #[error("{0} has not ended: `otto log -f {0}` follows it")]
    Open(RunId),
    #[error("{0} has ended as {1}: there is nothing to run again")]
    Succeeded(RunId, RunOutcome),
    #[error("{0} is damaged, and is not run upon: `otto show {0}` says what can be done")]
    Damaged(RunId),
    #[error("{0} had no plan: run the pipeline without --from-failed")]
    NoPlan(RunId),
    #[error("the pipeline, its branch or its parameters are others than those of {0}: run the pipeline without --from-failed")]
    Pipeline(RunId),
    #[error("the files have changed since {0}, and what succeeded then may fail now: run the pipeline without --from-failed")]
    Source(RunId),
}

/// Makes the same request, sent again, the same run.
fn key() -> anyhow::Result<String> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).context("the system gives no random bytes")?;
    Ok(HEXLOWER.encode(&random))
}

/// The run as soon as it is there: its trigger is stored, and its pipeline is being planned.
async fn appeared(client: &Client, run: &RunId) -> anyhow::Result<RunDetail> {
    let looked = async {
        loop {
            match client.show(run).await {
                Err(error) if error.is(Code::UnknownRun) || error.is_passing() => tokio::time::sleep(LOOK_PAUSE).await,
                found => return found,
            }
        }
    };
    match tokio::time::timeout(START_DEADLINE, looked).await {
        Ok(found) => Ok(found?),
        Err(_) => bail!("{run} is accepted, and does not begin: see what the services say; `otto log -f {run}` follows it when it does"),
    }
}

/// The plan that the services run: what protects the project there may have made another one of it.
async fn plan_there(client: &Client, run: &RunId, here: &Plan, detail: &RunDetail) -> anyhow::Result<Plan> {
    if !matches!(detail.run.plan, PlanView::Planned { .. }) {
        return Ok(Plan::new(Vec::new()));
    }
    match client.plan(run).await?.document {
        Some(document) => {
            serde_json::from_value(document).context("the plan of the services does not read: is this otto older than they are?")
        }
        None => Ok(here.clone()),
    }
}

/// Bytes in a file of their own, with their digest.
struct Spooled {
    file: NamedTempFile,
    digest: Digest,
}

impl Spooled {
    /// The working tree as an archive.
    fn tree(root: &std::path::Path) -> anyhow::Result<Self> {
        Self::of(&mut *forge::source::pack_working_tree(root)?.read()?)
    }

    fn json(value: &impl serde::Serialize) -> anyhow::Result<Self> {
        Self::of(&mut serde_json::to_vec(value)?.as_slice())
    }

    fn of(bytes: &mut dyn io::Read) -> anyhow::Result<Self> {
        let mut file = NamedTempFile::new().context("there is no room for the archive of the working tree")?;
        let (mut hasher, mut piece) = (Digest::builder(), vec![0; SEND_BYTES]);
        loop {
            let count = bytes.read(&mut piece)?;
            let Some(read) = piece.get(..count).filter(|read| !read.is_empty()) else { break };
            hasher.update(read);
            file.write_all(read).context("there is no room for the archive of the working tree")?;
        }
        file.flush()?;
        Ok(Self { file, digest: hasher.finish() })
    }

    async fn bring(self, client: &Client) -> anyhow::Result<()> {
        let file = tokio::fs::File::open(self.file.path()).await?;
        let brought = client.bring(reqwest::Body::wrap_stream(ReaderStream::with_capacity(file, SEND_BYTES))).await?;
        ensure!(
            brought == self.digest,
            "the depot has {brought} instead of {}: something between here and there changes what is sent",
            self.digest
        );
        Ok(())
    }
}
