//! `otto cancel`: ask for the end of a run.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use apispec::Code;
use clap::Args;

use super::{Terminal, text};
use crate::client::{Client, ClientError};

/// Ask for the end of a run
///
/// Stages that run are ended, and those that have not begun are skipped. It has taken effect when the run has ended: `otto log -f` shows it.
#[derive(Debug, Args)]
pub struct CancelArgs {
    /// The run: its id, the beginning of it, or `latest`
    run: String,
    /// At once: nothing that runs is left time to clear up, no `notify` is run, and what cannot be reached counts as ended
    #[arg(long)]
    force: bool,
    /// Print what the API answers
    #[arg(long)]
    json: bool,
}

/// Asks for the end of the run. A run that has ended is left as it is.
pub async fn run(args: CancelArgs) -> anyhow::Result<ExitCode> {
    let client = Client::from_environment()?;
    let run = client.pick(&args.run).await?;
    match client.cancel(&run, args.force).await {
        Ok(view) if args.json => Terminal::stdout().print(&format!("{}\n", serde_json::to_string_pretty(&view)?))?,
        Ok(view) => Terminal::stdout().print(&format!("{run} {}\n", text::status(&view.status)))?,
        Err(ClientError::Refused(problem)) if problem.code == Code::RunEnded => writeln!(io::stderr(), "{run} has ended before")?,
        Err(error) => return Err(error.into()),
    }
    Ok(ExitCode::SUCCESS)
}
