//! The exit codes of commands that end with a run's outcome, or that read a pipeline file.

use std::process::ExitCode;

use apispec::PlanView;
use model::{RunId, RunOutcome};

use crate::client::Client;

/// What they mean, for the help of a command.
pub const HELP: &str = "Exit codes: 0 success, also where there was nothing to do · 1 failed · 2 bad input: nothing was run · 3 unstable · \
                        4 aborted · 5 unknown: a person must say how it ended · 6 waits for somebody who is not here: `--resume` goes on";

/// The pipeline file is refused, and nothing was run. clap ends a process with the same code when its arguments are wrong.
pub fn bad_input() -> ExitCode {
    ExitCode::from(2)
}

/// 0 success, also where there was nothing to do, 1 failure, 3 unstable, 4 aborted, 5 unknown.
pub fn of_run(outcome: RunOutcome) -> ExitCode {
    match outcome {
        RunOutcome::Success | RunOutcome::Skipped => ExitCode::SUCCESS,
        RunOutcome::Failure => ExitCode::FAILURE,
        RunOutcome::Unstable => ExitCode::from(3),
        RunOutcome::Aborted => ExitCode::from(4),
        RunOutcome::Unknown => ExitCode::from(5),
    }
}

/// The same of a run of the services that was followed to its end. Of a refused one, nothing was run.
pub async fn of_followed(client: &Client, run: &RunId, outcome: anyhow::Result<RunOutcome>) -> anyhow::Result<ExitCode> {
    let outcome = outcome?;
    let is_refused = outcome == RunOutcome::Failure && matches!(client.show(run).await?.run.plan, PlanView::Refused { .. });
    Ok(if is_refused { bad_input() } else { of_run(outcome) })
}

/// The run has not ended: it waits for somebody, and nobody can be asked.
pub fn waits() -> ExitCode {
    ExitCode::from(6)
}
