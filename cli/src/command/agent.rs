//! `otto agent doctor`: what this machine offers to isolate and limit stages, and to run those that have an image.

use std::{fmt::Write as _, process::ExitCode};

use agent::{Finding, container::probe};
use clap::{Args, Subcommand};

use super::Terminal;
use crate::machine::{container_options, findings, of_containers};

/// Look at this machine as an agent does
#[derive(Debug, Args)]
pub struct AgentArgs {
    #[command(subcommand)]
    command: AgentCommand,
}

#[derive(Debug, Subcommand)]
enum AgentCommand {
    /// Try how stages can be isolated and limited here, and whether containers run, and say how to get what is missing
    Doctor {
        /// Print what was found as JSON
        #[arg(long)]
        json: bool,
    },
}

/// Tries everything and prints it.
pub async fn run(args: &AgentArgs) -> anyhow::Result<ExitCode> {
    let AgentCommand::Doctor { json } = args.command;
    let mut findings = findings()?;
    findings.push(of_containers(&probe(&container_options()).await));
    let text = if json { serde_json::to_string_pretty(&findings)? + "\n" } else { table(&findings) };
    Terminal::stdout().print(&text)?;
    Ok(ExitCode::SUCCESS)
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
