//! `otto start`: a run of a project's own code on the services.

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use apispec::{Code, ProjectRunCreate, RevisionCreate, RunCreated};
use clap::Args;
use data_encoding::HEXLOWER;
use model::ProjectName;
use tokio::time::{Instant, sleep};

use super::Terminal;
use crate::client::Client;

/// How long a source that is still being fetched is asked for again.
const FETCH_DEADLINE: Duration = Duration::from_mins(5);
/// Between two such requests.
const FETCH_PAUSE: Duration = Duration::from_secs(1);

/// Start a run of a project on the services, of what its source has now
///
/// The run is as trusted as a push of the same branch or tag; a pipeline that has `triggers` is run if they name `manual`. `otto log -f` follows the run.
#[derive(Debug, Args)]
pub struct StartArgs {
    /// The project: `otto projects` lists them
    project: ProjectName,
    /// This branch [default: where the repository's HEAD leads]
    #[arg(long, value_name = "NAME", conflicts_with = "tag")]
    branch: Option<String>,
    /// This tag
    #[arg(long, value_name = "NAME")]
    tag: Option<String>,
    /// A parameter of the pipeline
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = parameter)]
    parameters: Vec<(String, String)>,
    /// How long the whole run may take, such as `90s`, `30m` or `2h`
    #[arg(long, value_parser = crate::run::time)]
    timeout: Option<Duration>,
    /// Print what the API answers
    #[arg(long)]
    json: bool,
}

/// Starts the run, and prints its id.
pub async fn run(args: StartArgs) -> anyhow::Result<ExitCode> {
    let client = Client::from_environment()?;
    let revision = match (args.branch, args.tag) {
        (_, Some(name)) => RevisionCreate::Tag { name },
        (Some(name), None) => RevisionCreate::Branch { name },
        (None, None) => RevisionCreate::DefaultBranch,
    };
    let timeout_ms = args.timeout.map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
    let create = ProjectRunCreate { revision, parameters: args.parameters.into_iter().collect(), timeout_ms };
    let mut random = [0; 16];
    getrandom::fill(&mut random).context("the system gives no random bytes")?;
    // Asked again, it is the same run.
    let key = HEXLOWER.encode(&random);
    let deadline = Instant::now() + FETCH_DEADLINE;
    let run = loop {
        match client.start(&args.project, &create, &key).await {
            Err(error) if error.is(Code::SourceUnavailable) && Instant::now() < deadline => sleep(FETCH_PAUSE).await,
            started => break started?,
        }
    };
    // Whoever says `latest` next means this one.
    client.until_listed(&run).await;
    let text = if args.json { format!("{}\n", serde_json::to_string_pretty(&RunCreated { run })?) } else { format!("{run}\n") };
    Terminal::stdout().print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn parameter(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        Some(_) => Err("the name is missing before `=`".to_owned()),
        None => Err("expected NAME=VALUE".to_owned()),
    }
}
