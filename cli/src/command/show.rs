//! `otto show`: one run, stage by stage.

use std::{fmt::Write as _, process::ExitCode};

use apispec::{AttemptStatus, AttemptView, DeclineView, PlanView, RunDetail, RunStatus, SkipView, StageStatus, StageView};
use clap::Args;
use model::Timestamp;
use service::clock;

use super::{
    Terminal,
    text::{self, printable},
};
use crate::store::{Source, reach};

/// Show a run, stage by stage
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The run: its id, the beginning of it, or `latest`
    run: String,
    /// Print what the API answers
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source: Source,
}

/// Shows the run.
pub async fn run(args: ShowArgs) -> anyhow::Result<ExitCode> {
    let reader = reach(args.source, Some(&args.run)).await?;
    let detail = reader.client.show(&reader.client.pick(&args.run).await?).await?;
    reader.end().await;
    let text =
        if args.json { format!("{}\n", serde_json::to_string_pretty(&detail)?) } else { shown(&detail, Timestamp(clock::unix_ms())) };
    Terminal::stdout().print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn shown(detail: &RunDetail, now: Timestamp) -> String {
    let run = &detail.run;
    let took = |until: Timestamp| text::duration(until.since(run.accepted_at));
    let took = match run.status {
        RunStatus::Ended { at, .. } => format!("took {}", took(at)),
        RunStatus::Running | RunStatus::Cancelling { .. } => format!("{} so far", took(now)),
    };
    let cancelled = match &run.status {
        RunStatus::Cancelling { by, .. } | RunStatus::Ended { cancelled_by: Some(by), .. } => {
            format!(", cancelled by {}", printable(by, false))
        }
        RunStatus::Running | RunStatus::Ended { cancelled_by: None, .. } => String::new(),
    };
    let branch = if run.branch.is_empty() { String::new() } else { format!(", branch {}", printable(&run.branch, false)) };
    let commit = if run.commit.is_empty() { String::new() } else { format!(", commit {}", printable(text::commit(&run.commit), false)) };
    let mut shown = String::new();
    let mut line = |text: String| writeln!(shown, "{text}").expect("a string takes any text");
    line(run.id.to_string());
    line(format!("  {}{branch}{commit}, {}", run.project, printable(&run.pipeline_path, false)));
    line(format!("  {}{cancelled}, began {}, {took}", text::status(&run.status), text::ago(run.accepted_at, now)));
    match &run.plan {
        PlanView::Planned { digest, .. } => line(format!("  plan {digest}")),
        PlanView::NotTriggered { reason } => line(format!("  not started: {}", printable(reason, false))),
        PlanView::Refused { diagnostics } => diagnostics.iter().for_each(|one| {
            let place = format!("{}:{}:{}", one.file, one.line, one.column);
            let help = if one.help.is_empty() { String::new() } else { format!("; {}", one.help) };
            line(printable(&format!("  {} {place}: {}{help}", one.code, one.message), false));
        }),
    }
    if !detail.stages.is_empty() {
        let rows: Vec<Vec<String>> = detail.stages.iter().map(|one| row(one, now)).collect();
        shown.push('\n');
        shown.push_str(&text::table(&rows));
    }
    shown
}

fn row(stage: &StageView, now: Timestamp) -> Vec<String> {
    let (word, what) = words(stage, now);
    vec![printable(&stage.path, false), word, printable(&what, false)]
}

/// Where the stage stands, in a word, and what there is to say of it.
fn words(stage: &StageView, now: Timestamp) -> (String, String) {
    let agent = stage.attempts.last().map(|last| last.agent.to_string()).unwrap_or_default();
    let (word, what) = match &stage.status {
        StageStatus::Waiting { on } => {
            let paths: Vec<&str> = on.iter().map(|stage| stage.path.as_str()).collect();
            ("waiting", format!("for {}", paths.join(", ")))
        }
        StageStatus::Ready { since, declined, unplaced, .. } => {
            ("ready", format!("for {}, {}", text::duration(now.since(*since)), unplaced_words(declined, unplaced.as_deref())))
        }
        StageStatus::Awarded { agent, .. } => ("awarded", format!("to {agent}, which has not begun")),
        StageStatus::Running { agent, since } => ("running", format!("on {agent} for {}", text::duration(now.since(*since)))),
        StageStatus::Ended { outcome, reason, started_at, at } => {
            let took = started_at.map(|started| format!(" in {}", text::duration(at.since(started)))).unwrap_or_default();
            let why = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            return (outcome.to_string(), format!("on {agent}{took}{}{why}", tries(&stage.attempts)));
        }
        StageStatus::Lost { reason } => ("lost", format!("on {agent}{}: {reason}", tries(&stage.attempts))),
        StageStatus::Skipped { reason: SkipView::Cancelled } => ("skipped", "as the run was cancelled".to_owned()),
        StageStatus::Skipped { reason: SkipView::NeedFailed { stage } } => ("skipped", format!("as {} did not succeed", stage.path)),
    };
    (word.to_owned(), what)
}

/// Why no agent has the stage.
fn unplaced_words(declined: &[DeclineView], unplaced: Option<&[DeclineView]>) -> String {
    let of = |agents: &[DeclineView]| agents.iter().map(|one| format!("{} ({})", one.agent, one.reason)).collect::<Vec<_>>().join(", ");
    let turned_down = if declined.is_empty() { String::new() } else { format!("; turned down by {}", of(declined)) };
    let why = match unplaced {
        None => "its auction is held".to_owned(),
        Some([]) => "no agent answers".to_owned(),
        Some(agents) => format!("no agent can: {}", of(agents)),
    };
    format!("{why}{turned_down}")
}

/// How many tries there were, where there were several.
fn tries(attempts: &[AttemptView]) -> String {
    let lost = attempts.iter().filter(|attempt| matches!(attempt.status, AttemptStatus::Lost { .. })).count();
    if lost == 0 || attempts.len() == 1 { String::new() } else { format!(", after {lost} lost") }
}

#[cfg(test)]
mod tests {
    use apispec::{RunView, StageRef};
    use model::{
        AttemptId, AuctionId, Digest, RunId, RunOutcome, StageId, StageOutcome, TriggerId,
        context::EventKind,
        diagnostic::{Diagnostic, Severity, Span},
        plan::Effect,
    };

    use super::*;

    fn view(status: RunStatus, plan: PlanView) -> RunView {
        RunView {
            id: RunId::of(&TriggerId::of("t", "1")),
            project: "demo".parse().unwrap(),
            event: EventKind::Push,
            branch: "main".to_owned(),
            commit: "0123456789abcdef".to_owned(),
            pipeline_path: "Ottofile".to_owned(),
            accepted_at: Timestamp(1_000),
            plan,
            status,
        }
    }

    fn reference(path: &str) -> StageRef {
        StageRef { id: StageId::of(path), path: path.to_owned() }
    }

    fn attempt(number: u32, status: AttemptStatus) -> AttemptView {
        let id = AttemptId { run: RunId::of(&TriggerId::of("t", "1")), stage: StageId::of("a"), attempt: number };
        AttemptView {
            attempt: number,
            fence: 1,
            agent: format!("a{number}").parse().unwrap(),
            auction: AuctionId::of(&id, 1),
            offers: Vec::new(),
            awarded_at: Timestamp(1_100),
            status,
            output: None,
        }
    }

    fn stage(path: &str, status: StageStatus, attempts: Vec<AttemptView>) -> StageView {
        StageView { id: StageId::of(path), path: path.to_owned(), needs: Vec::new(), effect: Effect::Safe, status, attempts }
    }

    #[test]
    fn every_stage_says_where_it_stands() {
        let decline = |reason: &str| DeclineView { agent: "a9".parse().unwrap(), reason: reason.to_owned() };
        let ready =
            |unplaced| StageStatus::Ready { attempt: 1, since: Timestamp(2_000), declined: vec![decline("the slot is gone")], unplaced };
        let ended = |outcome, reason: Option<&str>| StageStatus::Ended {
            outcome,
            reason: reason.map(str::to_owned),
            started_at: Some(Timestamp(1_200)),
            at: Timestamp(1_540),
        };
        let lost = || attempt(1, AttemptStatus::Lost { reason: "silent".to_owned() });
        let since = Timestamp(2_000);
        let agent = || "a2".parse().unwrap();
        let stages = vec![
            stage("Build", ended(StageOutcome::Success, None), vec![lost(), attempt(2, AttemptStatus::Awarded)]),
            stage(
                "Checks/Lint",
                ended(StageOutcome::Failure, Some("`sh` ended with exit code 1")),
                vec![attempt(1, AttemptStatus::Awarded)],
            ),
            stage("Checks/Test", StageStatus::Running { agent: agent(), since }, vec![]),
            stage("Checks/Fuzz", StageStatus::Awarded { agent: agent(), since }, vec![]),
            stage("Windows", ready(Some(vec![decline("os is linux, not windows")])), vec![]),
            stage("Mac", ready(Some(vec![])), vec![]),
            stage("Linux", ready(None), vec![]),
            stage("Package", StageStatus::Waiting { on: vec![reference("Windows"), reference("Mac")] }, vec![]),
            stage("Deploy", StageStatus::Skipped { reason: SkipView::NeedFailed { stage: reference("Checks/Lint") } }, vec![]),
            stage("Clean", StageStatus::Skipped { reason: SkipView::Cancelled }, vec![]),
            stage("Ship", StageStatus::Lost { reason: "its lease lapsed".to_owned() }, vec![lost()]),
        ];
        let plan = PlanView::Planned { digest: Digest::of(b"p"), stages: stages.len() };
        let status = RunStatus::Cancelling { by: "api".to_owned(), since };
        insta::assert_snapshot!(shown(&RunDetail { run: view(status, plan), stages }, Timestamp(3_000)));
    }

    #[test]
    fn a_refused_run_says_why() {
        let diagnostic = Diagnostic {
            code: "E0101".to_owned(),
            severity: Severity::Error,
            message: "there is no step `shh`".to_owned(),
            file: "Ottofile".to_owned(),
            line: 3,
            column: 9,
            span: Span::default(),
            label: String::new(),
            help: "did you mean `sh`?".to_owned(),
        };
        let status = RunStatus::Ended { outcome: RunOutcome::Failure, at: Timestamp(1_002), cancelled_by: None };
        let run = view(status, PlanView::Refused { diagnostics: vec![diagnostic] });
        insta::assert_snapshot!(shown(&RunDetail { run, stages: Vec::new() }, Timestamp(3_000)));
    }
}
