//! `otto rerun`: an ended run once more, with the same plan and source.

use std::process::ExitCode;

use apispec::{RerunCreate, RerunStages, RunCreated};
use clap::Args;

use super::Terminal;
use crate::client::Client;

/// Run an ended run again: the same plan on the same source
///
/// What is not run again keeps its outcome, and what it has left: variables, artifacts, caches. `otto log -f` follows the new run.
#[derive(Debug, Args)]
pub struct RerunArgs {
    /// The run: its id, the beginning of it, or `latest`
    run: String,
    /// Only what did not succeed, and what waits for it
    #[arg(long, conflicts_with = "stage")]
    failed: bool,
    /// Only this stage, by its path, and what waits for it
    #[arg(long)]
    stage: Option<String>,
    /// Print what the API answers
    #[arg(long)]
    json: bool,
}

/// Starts the new run, and prints its id.
pub async fn run(args: RerunArgs) -> anyhow::Result<ExitCode> {
    let client = Client::from_environment()?;
    let of = client.pick(&args.run).await?;
    let stages = match (args.failed, args.stage) {
        (_, Some(stage)) => RerunStages::Stage { stage },
        (true, None) => RerunStages::Failed,
        (false, None) => RerunStages::All,
    };
    let run = client.rerun(&of, &RerunCreate { stages }).await?;
    // Whoever says `latest` next means this one.
    client.until_listed(&run).await;
    let text = if args.json { format!("{}\n", serde_json::to_string_pretty(&RunCreated { run })?) } else { format!("{run}\n") };
    Terminal::stdout().print(&text)?;
    Ok(ExitCode::SUCCESS)
}
