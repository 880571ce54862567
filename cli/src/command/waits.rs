//! `otto waits`: what waits for a person, in all runs.

use std::process::ExitCode;

use apispec::{OpenWaitView, WaitList};
use clap::Args;
use model::Timestamp;
use service::clock;

use super::{
    Terminal,
    text::{self, printable},
    words,
};
use crate::client::Client;

/// List what waits for a person, the longest first
#[derive(Debug, Args)]
pub struct WaitsArgs {
    /// Print what the API answers
    #[arg(long)]
    json: bool,
}

/// Lists it.
pub async fn run(args: WaitsArgs) -> anyhow::Result<ExitCode> {
    let list = Client::from_environment()?.waits().await?;
    let text = if args.json { format!("{}\n", serde_json::to_string_pretty(&list)?) } else { table(&list, Timestamp(clock::unix_ms())) };
    Terminal::stdout().print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn table(list: &WaitList, now: Timestamp) -> String {
    let title = ["RUN", "PROJECT", "BRANCH", "STAGE", "SINCE", "WAITS"].map(str::to_owned).to_vec();
    let row = |open: &OpenWaitView| {
        vec![
            open.run.to_string(),
            open.project.to_string(),
            text::or_dash(&open.branch),
            printable(&open.stage.path, false),
            text::ago(open.wait.since, now),
            printable(&words::asked(&open.wait.question), false),
        ]
    };
    let rows: Vec<Vec<String>> = std::iter::once(title).chain(list.waits.iter().map(row)).collect();
    let more = if list.more { "… and more\n" } else { "" };
    format!("{}{more}", text::table(&rows))
}

#[cfg(test)]
mod tests {
    use apispec::{QuestionView, StageRef, WaitView};
    use model::{RunId, StageId, TriggerId};

    use super::*;

    #[test]
    fn what_waits_stands_in_columns() {
        let wait = WaitView {
            wait: "itself".parse().unwrap(),
            question: QuestionView::Pause,
            since: Timestamp(1_000),
            due_at: None,
            answer: None,
        };
        let open = OpenWaitView {
            run: RunId::of(&TriggerId::of("t", "1")),
            project: "demo".parse().unwrap(),
            branch: "main".to_owned(),
            stage: StageRef { id: StageId::of("Hold"), path: "Hold".to_owned() },
            wait,
        };
        insta::assert_snapshot!(table(&WaitList { waits: vec![open], more: true }, Timestamp(126_000)));
    }
}
