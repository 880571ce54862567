//! `otto runs`: the runs, the newest first.

use std::{collections::BTreeSet, process::ExitCode};

use apispec::{RunStatus, RunView};
use clap::Args;
use model::{ProjectName, RunId, Timestamp};
use service::clock;

use super::{Terminal, text};
use crate::store::{Source, reach};

/// List runs, the newest first
#[derive(Debug, Args)]
pub struct RunsArgs {
    /// How many at most
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=500))]
    limit: u16,
    /// Of this project only
    #[arg(long)]
    project: Option<ProjectName>,
    /// Of this branch only
    #[arg(long)]
    branch: Option<String>,
    /// Only those that stand so
    #[arg(long, value_parser = ["running", "held", "cancelling", "damaged", "ended"])]
    status: Option<String>,
    /// Only those that have ended so
    #[arg(long, value_parser = ["skipped", "success", "unstable", "failure", "aborted", "unknown"])]
    outcome: Option<String>,
    /// Print what the API answers
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source: Source,
}

/// Lists runs.
pub async fn run(args: RunsArgs) -> anyhow::Result<ExitCode> {
    let reader = reach(args.source, None).await?;
    let project = args.project.map(|project| project.to_string());
    let filters = [("project", project), ("branch", args.branch), ("status", args.status), ("outcome", args.outcome)];
    let filters: Vec<_> = filters.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    let list = reader.client.find(args.limit.into(), &filters).await?;
    let text = if args.json {
        format!("{}\n", serde_json::to_string_pretty(&list)?)
    } else {
        table(&list.runs, &reader.interrupted, Timestamp(clock::unix_ms()))
    };
    reader.end().await;
    Terminal::stdout().print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn table(runs: &[RunView], interrupted: &BTreeSet<RunId>, now: Timestamp) -> String {
    let title = ["RUN", "PROJECT", "BRANCH", "COMMIT", "STATUS", "BEGAN", "TOOK"].map(str::to_owned).to_vec();
    let row = |run: &RunView| {
        let until = match run.status {
            RunStatus::Ended { at, .. } => Some(at),
            // When it was interrupted is not known.
            _ if interrupted.contains(&run.id) => None,
            RunStatus::Running | RunStatus::Held { .. } | RunStatus::Cancelling { .. } | RunStatus::Damaged { .. } => Some(now),
        };
        vec![
            run.id.to_string(),
            run.project.to_string(),
            text::or_dash(&run.branch),
            text::or_dash(text::commit(&run.commit)),
            until.map_or_else(|| text::INTERRUPTED.to_owned(), |_| text::status(&run.status)),
            text::ago(run.accepted_at, now),
            until.map_or_else(|| text::or_dash(""), |until| text::duration(until.since(run.accepted_at))),
        ]
    };
    let rows: Vec<Vec<String>> = std::iter::once(title).chain(runs.iter().map(row)).collect();
    text::table(&rows)
}

#[cfg(test)]
mod tests {
    use apispec::PlanView;
    use model::{Digest, RunOutcome, TriggerId, context::EventKind};

    use super::*;

    fn run(delivery: &str, branch: &str, status: RunStatus) -> RunView {
        RunView {
            id: RunId::of(&TriggerId::of("t", delivery)),
            project: "demo".parse().unwrap(),
            event: EventKind::Push,
            branch: branch.to_owned(),
            commit: if branch.is_empty() { String::new() } else { "0123456789abcdef".to_owned() },
            pipeline_path: "Ottofile".to_owned(),
            accepted_at: Timestamp(1_000),
            plan: PlanView::Planned { digest: Digest::of(b"p"), stages: 1, warnings: Vec::new(), warnings_left_out: 0 },
            rerun_of: None,
            status,
        }
    }

    #[test]
    fn runs_stand_in_columns() {
        let runs = [
            run("1", "main", RunStatus::Running),
            run("2", "", RunStatus::Ended { outcome: RunOutcome::Failure, at: Timestamp(3_400), cancelled_by: None }),
            run("3", "", RunStatus::Running),
        ];
        let interrupted = BTreeSet::from([runs[2].id.clone()]);
        insta::assert_snapshot!(table(&runs, &interrupted, Timestamp(126_000)));
    }
}
