//! `otto show`: one run, stage by stage.

use std::{fmt::Write as _, process::ExitCode, time::Duration};

use apispec::{
    AttemptStatus, AttemptView, DeclineView, OutputsView, PlanView, QuestionView, RunDetail, RunStatus, SkipView, StageStatus, StageView,
    TestsView,
};
use clap::Args;
use model::{RunId, Timestamp, diagnostic::Diagnostic};
use service::clock;

use super::{
    Terminal,
    text::{self, printable},
    timing::Timing,
    words,
};
use crate::{
    client::LATEST,
    store::{Source, reach},
};

/// Show a run, stage by stage
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The run: its id, the beginning of it, or `latest`
    #[arg(default_value = LATEST)]
    run: String,
    /// Show where its time went: for what each stage waited how long, the critical path, and how many stages were worked on at once
    #[arg(long)]
    timing: bool,
    /// Print what the API answers
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source: Source,
}

/// Shows the run.
pub async fn run(args: ShowArgs) -> anyhow::Result<ExitCode> {
    let reader = reach(args.source, Some(&args.run)).await?;
    let client = &reader.client;
    let detail = client.show(&client.pick(&args.run).await?).await?;
    if args.timing {
        let (run, now) = (&detail.run.id, Timestamp(clock::unix_ms()));
        let events = client.events(run).await?;
        // Of a run of long ago, no auction is remembered; what was before the award is one time then.
        let why = client.why(run, None).await.ok();
        reader.end().await;
        let timing = Timing::of(&detail, &events, why.as_ref(), now);
        let text = if args.json { format!("{}\n", serde_json::to_string_pretty(&timing)?) } else { timing.shown() };
        Terminal::stdout().print(&text)?;
        return Ok(ExitCode::SUCCESS);
    }
    let is_interrupted = reader.interrupted.contains(&detail.run.id);
    reader.end().await;
    let text = if args.json {
        format!("{}\n", serde_json::to_string_pretty(&detail)?)
    } else {
        shown(&detail, is_interrupted, Timestamp(clock::unix_ms()))
    };
    Terminal::stdout().print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn shown(detail: &RunDetail, is_interrupted: bool, now: Timestamp) -> String {
    let run = &detail.run;
    let took = |until: Timestamp| text::duration(until.since(run.accepted_at));
    let took = match run.status {
        RunStatus::Ended { at, .. } => format!("took {}", took(at)),
        _ if is_interrupted => format!("`otto run --resume {}` goes on with it", run.id),
        RunStatus::Running | RunStatus::Held { .. } | RunStatus::Cancelling { .. } => format!("{} so far", took(now)),
        RunStatus::Damaged { .. } => "comes to no end".to_owned(),
    };
    let cancelled = match &run.status {
        RunStatus::Cancelling { by, .. } | RunStatus::Ended { cancelled_by: Some(by), .. } => {
            format!(", cancelled by {}", printable(by, false))
        }
        RunStatus::Held { older } => format!(", until {older} has ended"),
        RunStatus::Running | RunStatus::Damaged { .. } | RunStatus::Ended { cancelled_by: None, .. } => String::new(),
    };
    let again = run.rerun_of.as_ref().map(|of| format!(", again after {of}")).unwrap_or_default();
    let branch = if run.branch.is_empty() { String::new() } else { format!(", branch {}", printable(&run.branch, false)) };
    let commit = if run.commit.is_empty() { String::new() } else { format!(", commit {}", printable(text::commit(&run.commit), false)) };
    let mut shown = String::new();
    let mut line = |text: String| writeln!(shown, "{text}").expect("a string takes any text");
    line(run.id.to_string());
    line(format!("  {}{branch}{commit}, {}", run.project, printable(&run.pipeline_path, false)));
    let status = if is_interrupted { text::INTERRUPTED.to_owned() } else { text::status(&run.status) };
    line(format!("  {status}{cancelled}{again}, began {}, {took}", text::ago(run.accepted_at, now)));
    if let RunStatus::Damaged { why, help } = &run.status {
        line(printable(&format!("  {why}"), false));
        line(printable(&format!("  {help}"), false));
    }
    match &run.plan {
        PlanView::Planned { digest, warnings, warnings_left_out, .. } => {
            line(format!("  plan {digest}"));
            for warning in warnings {
                line(diagnosed(warning));
            }
            if *warnings_left_out > 0 {
                line(format!("  {}", words::more_warnings(*warnings_left_out)));
            }
        }
        PlanView::NotTriggered { reason } => line(format!("  not started: {}", printable(reason, false))),
        PlanView::Refused { diagnostics } => diagnostics.iter().for_each(|one| line(diagnosed(one))),
    }
    if !detail.stages.is_empty() {
        let rows: Vec<Vec<String>> = detail.stages.iter().map(|one| row(one, now)).collect();
        shown.push('\n');
        shown.push_str(&text::table(&rows));
    }
    let details: Vec<String> = detail.stages.iter().flat_map(|stage| details(&run.id, stage, now)).collect();
    if !details.is_empty() {
        shown.push('\n');
        for line in &details {
            writeln!(shown, "{}", printable(line, false)).expect("a string takes any text");
        }
    }
    shown
}

/// An error or a warning in a line.
fn diagnosed(one: &Diagnostic) -> String {
    let place = format!("{}:{}:{}", one.file, one.line, one.column);
    let help = if one.help.is_empty() { String::new() } else { format!("; {}", one.help) };
    printable(&format!("  {} {place}: {}{help}", one.code, one.message), false)
}

fn row(stage: &StageView, now: Timestamp) -> Vec<String> {
    let (word, what) = words(stage, now);
    vec![printable(&stage.path, false), word, printable(&what, false)]
}

/// Where the stage stands, in a word, and what there is to say of it.
pub(super) fn words(stage: &StageView, now: Timestamp) -> (String, String) {
    let (word, what) = match &stage.status {
        StageStatus::Waiting { on } => {
            let paths: Vec<&str> = on.iter().map(|stage| stage.path.as_str()).collect();
            ("waiting", if paths.is_empty() { "for its turn".to_owned() } else { format!("for {}", paths.join(", ")) })
        }
        StageStatus::Gated { since } => ("waits", format!("for {}, {}", text::duration(now.since(*since)), asked(stage))),
        StageStatus::Exiting { outcome, since } => {
            ("waits", format!("for {} after {outcome}, {}", text::duration(now.since(*since)), asked(stage)))
        }
        StageStatus::Queued { lock, since, holder, before } => {
            let holder = holder.as_ref().map(|holder| format!(" held by {} of {}", holder.stage.path, holder.run)).unwrap_or_default();
            let before = if *before == 0 { String::new() } else { format!(", after {before} others") };
            ("queued", format!("for {}, for the lock {lock}{holder}{before}", text::duration(now.since(*since))))
        }
        StageStatus::Pausing { attempt, after, due_at } => {
            ("pauses", format!("until try {attempt} in {}, as {}", text::duration(due_at.since(now)), words::after(*after)))
        }
        StageStatus::Ready { since, declined, unplaced, .. } => {
            ("ready", format!("for {}, {}", text::duration(now.since(*since)), unplaced_words(declined, unplaced.as_deref())))
        }
        StageStatus::Awarded { agent, .. } => ("awarded", format!("to {agent}, which has not begun")),
        StageStatus::Running { agent, since } => ("running", format!("on {agent} for {}", text::duration(now.since(*since)))),
        StageStatus::Ended { outcome, reason, started_at, at } => {
            let took = started_at.map(|started| format!("in {}", text::duration(at.since(started)))).unwrap_or_default();
            return (outcome.to_string(), ended(stage, &took, reason.as_deref()));
        }
        StageStatus::Lost { reason } => ("lost", ended(stage, "", Some(reason))),
        StageStatus::Skipped { reason } => ("skipped", skipped(reason)),
    };
    (word.to_owned(), what)
}

/// Where it ran, how long, after which tries, and why it ended so.
fn ended(stage: &StageView, took: &str, reason: Option<&str>) -> String {
    let place = match (&stage.reused_from, stage.attempts.last()) {
        (Some(run), _) => format!("as in {run}"),
        (None, Some(last)) => format!("on {}", last.agent),
        (None, None) => String::new(),
    };
    let ran: Vec<&str> = [place.as_str(), took].into_iter().filter(|part| !part.is_empty()).collect();
    let why = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("{}{}{why}", ran.join(" "), tries(&stage.attempts)).trim_start_matches(": ").to_owned()
}

/// For what the stage waits now.
fn asked(stage: &StageView) -> String {
    let open: Vec<String> = stage.waits.iter().filter(|wait| wait.answer.is_none()).map(|wait| words::asked(&wait.question)).collect();
    open.join("; ")
}

fn skipped(reason: &SkipView) -> String {
    match reason {
        SkipView::Cancelled => "as the run was cancelled".to_owned(),
        SkipView::NeedFailed { stage } => format!("as {} did not succeed", stage.path),
        SkipView::Condition { condition, because } => format!("as `{condition}` does not hold: {because}"),
        SkipView::Fanout { failed } => format!("as {} failed", failed.path),
        SkipView::NothingToUndo => "as there is nothing to undo".to_owned(),
        SkipView::NotWanted => "as it was not asked for".to_owned(),
        SkipView::Stopped { failed } => format!("as {} failed before it started", failed.path),
    }
}

/// What is to be told of a stage in lines of their own: what it waits for and how to answer, and what it has left.
fn details(run: &RunId, stage: &StageView, now: Timestamp) -> Vec<String> {
    let path = &stage.path;
    let waits = stage.waits.iter().map(|wait| {
        if let Some(answer) = &wait.answer {
            return format!("{path}: {}", words::answered(answer));
        }
        let until = wait.due_at.map(|due| format!(", until {} from now", text::duration(due.since(now)))).unwrap_or_default();
        let how = how(run, path, &wait.question).map(|how| format!("; {how}")).unwrap_or_default();
        format!("{path}: waits {}{until}{how}", words::asked(&wait.question))
    });
    let OutputsView { variables, artifacts, caches, tests } = &stage.outputs;
    let variables = variables.iter().map(|(name, text)| match text {
        Some(text) => format!("{path}: variable {name} = {}", text.lines().next().unwrap_or_default()),
        None => format!("{path}: variable {name} was dropped"),
    });
    let trees = [("artifact", artifacts), ("cache", caches)].into_iter().flat_map(|(what, trees)| {
        trees.iter().map(move |(name, tree)| format!("{path}: {what} {name}, {} entries, {} bytes", tree.entries, tree.bytes))
    });
    let tests = tests.iter().flat_map(|tests| {
        let TestsView { passed, failed, skipped, duration_ms, failures } = tests;
        let took = text::duration(Duration::from_millis(*duration_ms));
        let whole = format!("{path}: tests: {passed} passed, {failed} failed, {skipped} skipped in {took}");
        let each = failures.iter().map(move |failure| {
            format!("{path}:   {} {}: {}", failure.suite, failure.name, failure.message.lines().next().unwrap_or_default())
        });
        std::iter::once(whole).chain(each)
    });
    waits.chain(variables).chain(trees).chain(tests).collect()
}

/// How a person answers.
fn how(run: &RunId, path: &str, question: &QuestionView) -> Option<String> {
    let path =
        if path.chars().all(|one| one.is_ascii_alphanumeric() || "-_/.".contains(one)) { path.to_owned() } else { format!("'{path}'") };
    match question {
        QuestionView::Confirm { .. } => Some(format!("answer with `otto approve {run} {path}`, or with `--refuse`")),
        QuestionView::Prompt { .. } => Some(format!("answer with `otto answer {run} {path} TEXT`")),
        QuestionView::Pause => Some(format!("go on with `otto resume {run} {path}`")),
        QuestionView::Webhook { .. } | QuestionView::Poll { .. } | QuestionView::Time => None,
    }
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
    use apispec::{AnswerView, LockHolderView, RetryReasonView, RunView, StageRef, TestFailureView, TreeView, WaitView};
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
            rerun_of: None,
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
        StageView {
            id: StageId::of(path),
            path: path.to_owned(),
            needs: Vec::new(),
            effect: Effect::Safe,
            status,
            attempts,
            waits: Vec::new(),
            lock: None,
            reused_from: None,
            may_fail: false,
            outputs: OutputsView::default(),
        }
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
        let plan = PlanView::Planned { digest: Digest::of(b"p"), stages: stages.len(), warnings: Vec::new(), warnings_left_out: 0 };
        let status = RunStatus::Cancelling { by: "api".to_owned(), force: false, since };
        insta::assert_snapshot!(shown(&RunDetail { run: view(status, plan), stages }, false, Timestamp(3_000)));
    }

    #[test]
    fn what_waits_says_for_whom_and_how_to_answer() {
        let wait = |name: &str, question, answer| WaitView {
            wait: name.parse().unwrap(),
            question,
            since: Timestamp(2_000),
            due_at: Some(Timestamp(63_000)),
            answer,
        };
        let confirm = || QuestionView::Confirm { message: "Ship it?".to_owned(), by: vec!["ops".to_owned()], delivery: Digest::of(b"d") };
        let since = Timestamp(2_000);
        let mut gated = stage("Ship it now", StageStatus::Gated { since }, vec![]);
        let called = QuestionView::Webhook { description: "the scanner".to_owned() };
        gated.waits = vec![wait("enter:0", confirm(), None), wait("enter:1", called, Some(AnswerView::CalledBack))];
        let holder = LockHolderView { run: RunId::of(&TriggerId::of("t", "2")), stage: reference("Deploy") };
        let queued = StageStatus::Queued { lock: "production".to_owned(), since, holder: Some(holder), before: 2 };
        let pausing = StageStatus::Pausing { attempt: 2, after: RetryReasonView::Failed, due_at: Timestamp(13_000) };
        let ended = StageStatus::Ended { outcome: StageOutcome::Unstable, reason: None, started_at: None, at: since };
        let mut reused = stage("Test", ended, vec![]);
        reused.reused_from = Some(RunId::of(&TriggerId::of("t", "0")));
        let failure = TestFailureView { suite: "sums".to_owned(), name: "adds".to_owned(), message: "3 is not 4".to_owned() };
        reused.outputs = OutputsView {
            variables: [("version".to_owned(), Some("1.2".to_owned())), ("gone".to_owned(), None)].into(),
            artifacts: [("dist".to_owned(), TreeView { archive: Digest::of(b""), bytes: 10, entries: 2 })].into(),
            caches: [].into(),
            tests: Some(TestsView { passed: 5, failed: 1, skipped: 0, duration_ms: 1_500, failures: vec![failure] }),
        };
        let ended = StageStatus::Ended {
            outcome: StageOutcome::Failure,
            reason: Some("refused by ann: too late".to_owned()),
            started_at: None,
            at: since,
        };
        let stages = vec![
            gated,
            stage("Deploy", queued, vec![]),
            stage("Flaky", pausing, vec![]),
            reused,
            stage("Confirm", ended, vec![]),
            stage("Undo", StageStatus::Skipped { reason: SkipView::NothingToUndo }, vec![]),
        ];
        let plan = PlanView::Planned { digest: Digest::of(b"p"), stages: stages.len(), warnings: Vec::new(), warnings_left_out: 0 };
        insta::assert_snapshot!(shown(&RunDetail { run: view(RunStatus::Running, plan), stages }, false, Timestamp(3_000)));
    }

    fn diagnostic(code: &str, severity: Severity) -> Diagnostic {
        Diagnostic {
            code: code.to_owned(),
            severity,
            message: "there is no step `shh`".to_owned(),
            file: "Ottofile".to_owned(),
            line: 3,
            column: 9,
            span: Span::default(),
            label: String::new(),
            help: "did you mean `sh`?".to_owned(),
        }
    }

    #[test]
    fn the_warnings_of_a_plan_are_shown() {
        let warnings = vec![diagnostic("W0401", Severity::Warning)];
        let plan = PlanView::Planned { digest: Digest::of(b"p"), stages: 0, warnings, warnings_left_out: 3 };
        let shown = shown(&RunDetail { run: view(RunStatus::Running, plan), stages: Vec::new() }, false, Timestamp(3_000));
        let warning = "  W0401 Ottofile:3:9: there is no step `shh`; did you mean `sh`?\n  and 3 more warnings: `otto check` tells all\n";
        assert!(shown.ends_with(warning), "{shown}");
    }

    #[test]
    fn a_refused_run_says_why() {
        let diagnostic = diagnostic("E0101", Severity::Error);
        let status = RunStatus::Ended { outcome: RunOutcome::Failure, at: Timestamp(1_002), cancelled_by: None };
        let run = view(status, PlanView::Refused { diagnostics: vec![diagnostic] });
        insta::assert_snapshot!(shown(&RunDetail { run, stages: Vec::new() }, false, Timestamp(3_000)));
    }
}
