//! `otto agent doctor`: what this machine offers to isolate and limit stages.

use std::{env::current_exe, fmt::Write as _, process::ExitCode};

use agent::{Finding, Isolation, SandboxOptions, Variables, examine};
use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::Terminal;

/// Look at this machine as an agent does
#[derive(Debug, Args)]
pub struct AgentArgs {
    #[command(subcommand)]
    command: AgentCommand,
}

#[derive(Debug, Subcommand)]
enum AgentCommand {
    /// Try how stages can be isolated and limited here, and say how to get what is missing
    Doctor {
        /// Print what was found as JSON
        #[arg(long)]
        json: bool,
    },
}

/// Tries everything and prints it.
pub fn run(args: &AgentArgs) -> anyhow::Result<ExitCode> {
    let AgentCommand::Doctor { json } = args.command;
    let findings = findings()?;
    let text = if json { serde_json::to_string_pretty(&findings)? + "\n" } else { table(&findings) };
    Terminal::stdout().print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// What an agent that was started as this process finds.
pub(crate) fn findings() -> anyhow::Result<Vec<Finding>> {
    let environment: Variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect();
    let options = SandboxOptions::of(Isolation::Auto, current_exe().context("cannot find this program")?, &environment);
    let folder = tempfile::Builder::new().prefix("otto-doctor-").tempdir().context("there is no folder to try things in")?;
    Ok(examine(&options, &folder.path().canonicalize()?)?)
}

fn table(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.subject.len()).max().unwrap_or(0);
    let mut text = String::new();
    for finding in findings {
        let sign = if finding.there { '✔' } else { '✘' };
        // A string takes everything.
        let _taken = writeln!(text, "{sign} {:width$}  {}: {}", finding.subject, finding.found, finding.meaning);
        if let Some(remedy) = finding.remedy {
            let _taken = writeln!(text, "  {:width$}  to get it: {remedy}", "");
        }
    }
    text
}
