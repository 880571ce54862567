//! `otto demo`: a real delivery on this machine, from nothing to a result, told as it happens; afterwards nothing of it is left.

mod content;
mod git;
mod page;
mod repository;

use std::{collections::BTreeMap, env::current_exe, num::NonZeroUsize, path::Path, process::ExitCode, time::Duration};

use anyhow::Context as _;
use apispec::{RunDetail, RunStatus, StageStatus, StageView};
use model::{
    RunId, RunOutcome,
    context::{EventKind, TriggerContext},
    planning::LOCK_FILE,
    protocol::enrolment::AgentTrust,
};
use parser::{PlanInput, Planning, explain::Explained};
use service::signals::Signals;
use tokio::time::{Instant, sleep};

use self::{
    page::{Page, quote, text},
    repository::{BRANCH, PROJECT, Repository},
};
use crate::{
    client::{Client, Connection},
    command::{Terminal, Unheard, log::follow},
    home,
    provision::PortChoice,
    up::{DEFAULT_PROCFILE, Fleet, FleetOptions},
};

/// How long the run may take to begin after the push was accepted: longer than a killed orchestrator's triggers take to come again.
const RUN_DEADLINE: Duration = Duration::from_secs(10);
/// Between two looks for it.
const RUN_PAUSE: Duration = Duration::from_millis(20);

/// See Otto at work: a small program is delivered on this machine, and nothing is left behind
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// Keep the folder with the repository, the data and the logs
    #[arg(long)]
    keep: bool,
}

/// Runs `otto demo`.
pub async fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen().context("cannot listen to signals")?;
    let folder = tempfile::Builder::new().prefix("otto-demo-").tempdir().context("there is no temporary folder")?;
    let mut page = Page::new();
    text("Otto builds, tests and tries a small Rust program: a real delivery, on this machine only.");
    let end = tell(folder.path(), &mut page, &mut signals).await;
    // What failed is left to be looked at; whoever interrupts does not want to look.
    if args.keep || matches!(end, Err(_) | Ok(Some(RunOutcome::Failure | RunOutcome::Aborted | RunOutcome::Unknown))) {
        let path = folder.keep();
        text(&format!("Everything is in {0}; what the processes said is in {0}/otto/logs.", path.display()));
    } else {
        let path = folder.path().to_owned();
        folder.close().with_context(|| format!("{} cannot be removed", path.display()))?;
        text("None is left, and their folder is removed. Your own repository is next: `otto up` starts the same processes to stay.");
    }
    let success = end?.context("interrupted")? == RunOutcome::Success;
    Ok(if success { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The demo from its begin to the end of all processes; `None` if it was interrupted.
async fn tell(folder: &Path, page: &mut Page, signals: &mut Signals) -> anyhow::Result<Option<RunOutcome>> {
    let (fleet, repository) = tokio::select! {
        prepared = prepare(folder, page) => prepared?,
        _ = signals.next() => return Ok(None),
    };
    let end = tokio::select! {
        end = deliver(&fleet, &repository, page) => end.map(Some),
        _ = signals.next() => Ok(None),
        () = fleet.failed() => Err(anyhow::anyhow!("the processes cannot be kept running")),
    };
    page.heading("Ending all processes");
    fleet.stop().await;
    end
}

/// From nothing to processes that know the repository; on an error none is running.
async fn prepare(folder: &Path, page: &mut Page) -> anyhow::Result<(Fleet, Repository)> {
    page.heading("Making a git repository");
    let repository = Repository::create(folder).await?;
    let data = folder.join("otto");
    repository.register(&data.join("projects"))?;
    text(&format!(
        "{} is the team's, {} its clone with a program in it.\nIts {} says what happens to every push:\n",
        repository.bare.display(),
        repository.clone.display(),
        content::PIPELINE
    ));
    quote(content::pipeline());

    page.heading("Starting Otto's processes");
    let options = FleetOptions {
        data,
        procfile: DEFAULT_PROCFILE.parse()?,
        agents: NonZeroUsize::MIN,
        trust: AgentTrust::Any,
        ports: PortChoice::Auto,
        otto: current_exe().context("cannot find this program")?,
        home: home::folder()?,
        bus: None,
        config: None,
        shown: false,
    };
    let names: Vec<String> = options.procfile.entries.iter().map(|entry| entry.name.clone()).collect();
    let fleet = Fleet::launch(options, &text).await?;
    text(&format!("{}, each a process of its own", names.join(", ")));
    Ok((fleet, repository))
}

/// From starting processes to the result.
async fn deliver(fleet: &Fleet, repository: &Repository, page: &mut Page) -> anyhow::Result<RunOutcome> {
    let (provision, launched) = (fleet.provision(), Instant::now());
    fleet.ready(&text).await?;
    text(&format!("All are ready after {} ms; the API is at {}.", launched.elapsed().as_millis(), provision.api_url()));
    forge::hook::install(&repository.bare, &provision.forge_url(), &current_exe().context("cannot find this program")?)?;
    text(&format!("The repository has a hook that tells the forge, at {}, of every push.", provision.forge_url()));

    page.heading("The plan: all that will happen, known before anything happens");
    text(&plan(repository)?);

    page.heading("Pushing");
    text(&format!("$ git push origin {BRANCH}"));
    quote(&repository.push().await?);

    let token_file = provision.api_token_file();
    let token = std::fs::read_to_string(&token_file).with_context(|| format!("cannot read {}", token_file.display()))?;
    let client = Client::new(Connection::new(&provision.api_url(), &token))?;
    let run = newest_run(&client).await?;
    page.heading(&format!("The run {run}, as it happens"));
    let mut terminal = Terminal::stdout();
    let outcome = follow(&client, &run, None, Unheard(&mut terminal.out), terminal.colour).await?;
    drop(terminal);

    page.heading(&format!("The result: {outcome}"));
    text(&summary(&client.show(&run).await?));
    Ok(outcome)
}

/// What each stage came to, and where its time went.
fn summary(detail: &RunDetail) -> String {
    let mut lines: Vec<String> = detail.stages.iter().map(stage_line).collect();
    if let RunStatus::Ended { at, .. } = &detail.run.status {
        lines.push(format!("{:<12} {:>6} ms, from the accepted push to the end", "all", at.since(detail.run.accepted_at).as_millis()));
    }
    lines.join("\n")
}

fn stage_line(stage: &StageView) -> String {
    let agent = stage.attempts.last().map(|attempt| format!(" on {}", attempt.agent)).unwrap_or_default();
    match &stage.status {
        StageStatus::Ended { outcome, started_at: Some(started), at, .. } => {
            format!("{:<12} {:>6} ms{agent}: {outcome}", stage.path, at.since(*started).as_millis())
        }
        StageStatus::Ended { .. }
        | StageStatus::Waiting { .. }
        | StageStatus::Gated { .. }
        | StageStatus::Queued { .. }
        | StageStatus::Pausing { .. }
        | StageStatus::Exiting { .. }
        | StageStatus::Ready { .. }
        | StageStatus::Awarded { .. }
        | StageStatus::Running { .. }
        | StageStatus::Lost { .. }
        | StageStatus::Skipped { .. } => format!("{:<12} did not run to its end", stage.path),
    }
}

/// The plan, made by the same parser as in the parser's process.
fn plan(repository: &Repository) -> anyhow::Result<String> {
    let context = TriggerContext {
        event: EventKind::Push,
        branch: BRANCH.to_owned(),
        commit: repository.commit.clone(),
        ..TriggerContext::default()
    };
    let input = PlanInput {
        path: content::PIPELINE,
        source: content::pipeline().as_bytes(),
        context: &context,
        files: &BTreeMap::from([(LOCK_FILE.to_owned(), None)]),
        listing: None,
        changed: None,
        libraries: &[stdlib::library()],
    };
    match parser::plan(&input) {
        Planning::Plan { document, .. } => Ok(parser::explain(&Explained::new(content::PIPELINE, &document))),
        Planning::Refused(_) | Planning::Needs(_) => anyhow::bail!("the demo's own {} is refused", content::PIPELINE),
    }
}

/// The run of the push: it is stored already, and listed as soon as its plan is made.
async fn newest_run(client: &Client) -> anyhow::Result<RunId> {
    let deadline = Instant::now() + RUN_DEADLINE;
    loop {
        if let Some(run) = client.list(1, None).await?.runs.into_iter().find(|run| run.project.as_str() == PROJECT) {
            return Ok(run.id);
        }
        anyhow::ensure!(Instant::now() < deadline, "the push has not become a run within {} s", RUN_DEADLINE.as_secs());
        sleep(RUN_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demos_plan_is_made_without_a_warning() {
        let repository = Repository { bare: "a".into(), clone: "b".into(), commit: String::new() };
        let plan = plan(&repository).unwrap();
        for stage in ["Build", "Test", "Document", "Try it"] {
            assert!(plan.contains(stage), "{plan}");
        }
    }
}
