//! What is printed of runs.

use apispec::Base64;
use model::{
    AttemptId, AuctionId, Digest, RunId, TriggerId,
    diagnostic::{Diagnostic, Severity, Span},
    event::run::{CancelReason, Outputs, RunEvent, SkipReason, StoredLog},
    planning::Text,
    trigger::Trigger,
};

use super::*;

fn trigger(source: &str) -> Trigger {
    Trigger::new(TriggerId::of("t", "1"), "demo".parse().unwrap(), "Ottofile", Text::Inline(source.to_owned()))
}

fn accepted() -> RunEvent {
    RunEvent::RunAccepted { trigger: trigger(""), planned: Planned::plan(Digest::of(b"plan")) }
}

fn awarded(path: &str, attempt: u32, agent: &str) -> RunEvent {
    let stage = StageId::of(path);
    let auction = AuctionId::of(&AttemptId { run: RunId::of(&TriggerId::of("t", "1")), stage: stage.clone(), attempt }, 1);
    RunEvent::StageAwarded { stage, attempt, agent: agent.parse().unwrap(), auction, offers: Vec::new() }
}

fn finished(path: &str, outcome: StageOutcome, reason: Option<&str>) -> RunEvent {
    RunEvent::StageFinished {
        stage: StageId::of(path),
        attempt: 1,
        outcome,
        reason: reason.map(str::to_owned),
        started_at: Some(Timestamp(1_000)),
        finished_at: Timestamp(2_200),
        outputs: Outputs::default(),
    }
}

fn chunk(path: &str, stream: Stream, bytes: &[u8]) -> ChunkView {
    ChunkView {
        stage: StageId::of(path),
        path: path.to_owned(),
        attempt: 1,
        fence: 3,
        step: 0,
        stream,
        offset: 0,
        at: Timestamp(0),
        bytes: Base64(bytes.to_vec()),
    }
}

/// All that the stage said was stored.
fn stored(path: &str, length: u64) -> RunEvent {
    RunEvent::StageLogStored { stage: StageId::of(path), attempt: 1, log: StoredLog { segments: Vec::new(), length } }
}

/// What `tell` makes a follow of the stages `paths` print.
fn check(colour: bool, paths: &[&str], tell: impl FnOnce(&mut Follow<&mut Vec<u8>>) -> io::Result<()>) -> String {
    let mut printed = Vec::new();
    let mut follow = Follow::new(&mut printed, colour);
    follow.know(paths.iter().map(|path| (StageId::of(path), (*path).to_owned())));
    tell(&mut follow).unwrap();
    follow.finish().unwrap();
    String::from_utf8(printed).unwrap()
}

/// A run of two stages at once and one that is skipped, with output that ends in the middle of lines and characters.
fn story(follow: &mut Follow<&mut Vec<u8>>) -> io::Result<()> {
    follow.event(&accepted(), Timestamp(900))?;
    follow.event(&RunEvent::StageReady { stage: StageId::of("Build"), attempt: 1 }, Timestamp(900))?;
    follow.event(&awarded("Checks/Lint", 1, "a2"), Timestamp(950))?;
    follow.output(&chunk("Build", Stream::Otto, b"[otto] step 1/1: sh 'make'\n"))?;
    follow.event(&awarded("Build", 1, "a1"), Timestamp(950))?;
    follow.output(&chunk("Build", Stream::Out, b"caf\xc3"))?;
    follow.output(&chunk("Checks/Lint", Stream::Err, b"\x1b[33mwarning\x1b[0m: it is\x1b[2J late\n"))?;
    follow.output(&chunk("Build", Stream::Out, b"\xa9\nno line end"))?;
    follow.event(&RunEvent::StageStarted { stage: StageId::of("Build"), attempt: 1, at: Timestamp(1_000) }, Timestamp(1_100))?;
    follow.event(&finished("Checks/Lint", StageOutcome::Failure, Some("`sh` ended with exit code 1")), Timestamp(2_300))?;
    follow.event(&stored("Checks/Lint", 20), Timestamp(2_300))?;
    let reason = SkipReason::NeedFailed { stage: StageId::of("Checks/Lint") };
    follow.event(&RunEvent::StageSkipped { stage: StageId::of("Deploy"), reason }, Timestamp(2_300))?;
    follow.event(&finished("Build", StageOutcome::Success, None), Timestamp(2_300))?;
    follow.event(&RunEvent::RunFinished { outcome: RunOutcome::Failure }, Timestamp(2_300))
}

#[test]
fn a_run_is_told_line_by_line() {
    let printed = check(false, &["Build", "Checks/Lint", "Deploy"], story);
    insta::assert_snapshot!(printed);
}

#[test]
fn a_terminal_shows_colours() {
    let printed = check(true, &["Build", "Checks/Lint", "Deploy"], story).replace('\x1b', "␛");
    insta::assert_snapshot!(printed);
}

#[test]
fn losses_declines_gaps_and_cancels_are_told() {
    let printed = check(false, &["Build", "A group/with a very long name/and a stage in it"], |follow| {
        let stage = StageId::of("Build");
        follow.event(&awarded("Build", 1, "a1"), Timestamp(0))?;
        let declined =
            RunEvent::StageDeclined { stage: stage.clone(), attempt: 1, agent: "a1".parse().unwrap(), reason: "full".to_owned() };
        follow.event(&declined, Timestamp(0))?;
        follow.event(&awarded("Build", 1, "a2"), Timestamp(0))?;
        follow.output(&chunk("Build", Stream::Out, b"half a line"))?;
        follow.event(&RunEvent::StageLost { stage: stage.clone(), attempt: 1, reason: "its lease lapsed".to_owned() }, Timestamp(0))?;
        let gap = |to, reason| GapView { stage: stage.clone(), path: "Build".to_owned(), attempt: 1, fence: 3, from: 11, to, reason };
        follow.gap(&gap(None, GapReason::NeverStored))?;
        follow.gap(&gap(Some(20), GapReason::NotKept))?;
        follow.event(&awarded("Build", 2, "a3"), Timestamp(0))?;
        follow.event(&RunEvent::StageStarted { stage: stage.clone(), attempt: 2, at: Timestamp(0) }, Timestamp(0))?;
        follow.event(&RunEvent::CancelRequested { by: "api".to_owned(), reason: CancelReason::Person, force: false }, Timestamp(0))?;
        let skipped = StageId::of("A group/with a very long name/and a stage in it");
        follow.event(&RunEvent::StageSkipped { stage: skipped, reason: SkipReason::Cancelled }, Timestamp(0))?;
        follow.event(&RunEvent::RunFinished { outcome: RunOutcome::Aborted }, Timestamp(0))
    });
    insta::assert_snapshot!(printed);
}

#[test]
fn the_next_try_is_told_behind_the_failure_of_the_one_before() {
    let printed = check(false, &["Flaky"], |follow| {
        let stage = StageId::of("Flaky");
        follow.event(&awarded("Flaky", 1, "a1"), Timestamp(0))?;
        follow.output(&chunk("Flaky", Stream::Out, b"half a li"))?;
        follow.event(&finished("Flaky", StageOutcome::Failure, Some("`sh` ended with exit code 1")), Timestamp(0))?;
        let after = model::plan::RetryReason::Failed;
        follow.event(&RunEvent::StageRetried { stage: stage.clone(), attempt: 2, after, due_at: Timestamp(500) }, Timestamp(0))?;
        // The rest of its output comes from the depot.
        follow.output(&ChunkView { offset: 9, ..chunk("Flaky", Stream::Out, b"ne") })?;
        follow.event(&stored("Flaky", 11), Timestamp(0))?;
        follow.event(&RunEvent::StageReady { stage, attempt: 2 }, Timestamp(500))?;
        follow.event(&awarded("Flaky", 2, "a1"), Timestamp(500))?;
        follow.output(&ChunkView { attempt: 2, fence: 9, ..chunk("Flaky", Stream::Out, b"again\n") })
    });
    let lines: Vec<&str> = printed.lines().collect();
    let expected = [
        "Flaky ▶ on a1",
        "Flaky │ half a line",
        "Flaky ✘ failure in 1.20 s: `sh` ended with exit code 1",
        "Flaky ↻ try 2 follows in 0.50 s, as it failed",
        "Flaky ▶ on a1",
        "Flaky │ again",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_refused_file_is_told_with_its_diagnostics() {
    let diagnostic = Diagnostic {
        code: "E0101".to_owned(),
        severity: Severity::Error,
        message: "there is no step `shh`".to_owned(),
        file: "Ottofile".to_owned(),
        line: 2,
        column: 3,
        span: Span { start: 13, end: 16 },
        label: "in no library".to_owned(),
        help: "did you mean `sh`?".to_owned(),
    };
    let planned = Planned::Refused { diagnostics: vec![diagnostic] };
    let printed = check(false, &[], |follow| {
        follow.event(&RunEvent::RunAccepted { trigger: trigger("pipeline {\n  shh 'x'\n}\n"), planned }, Timestamp(0))?;
        follow.event(&RunEvent::RunFinished { outcome: RunOutcome::Failure }, Timestamp(5))
    });
    insta::assert_snapshot!(printed);
}

#[test]
fn output_waits_a_little_for_the_word_who_has_the_stage() {
    let printed = check(false, &["a"], |follow| {
        follow.output(&chunk("a", Stream::Out, b"early\n"))?;
        follow.event(&accepted(), Timestamp(0))?;
        follow.event(&awarded("a", 1, "a1"), Timestamp(0))
    });
    assert!(printed.ends_with("a ▶ on a1\na │ early\n") && printed.starts_with("plan: "), "{printed}");
    let never_told = check(false, &["a"], |follow| follow.output(&chunk("a", Stream::Out, b"early\n")));
    assert_eq!(never_told, "a ▶\na │ early\n");
    let too_much = vec![b'x'; HELD_BYTES_MAX + 1];
    let mut printed = Vec::new();
    let mut follow = Follow::new(&mut printed, false);
    follow.know([(StageId::of("a"), "a".to_owned())]);
    follow.output(&chunk("a", Stream::Out, &too_much)).unwrap();
    assert!(!printed.is_empty());
}

#[test]
fn a_line_that_never_ends_is_cut() {
    let printed = check(false, &["a"], |follow| follow.output(&chunk("a", Stream::Out, &vec![b'x'; LINE_BYTES_MAX * 2 + 1])));
    // Without a line break, one chunk is one piece: it is cut where it ends.
    assert_eq!(printed.lines().count(), 2);
    let printed = check(false, &["a"], |follow| (0..=LINE_BYTES_MAX * 2).try_for_each(|_| follow.output(&chunk("a", Stream::Out, b"x"))));
    assert_eq!(printed.lines().count(), 4);
}

#[test]
fn the_warnings_of_a_plan_are_told_to_who_was_not() {
    let warning = Diagnostic {
        code: "W0401".to_owned(),
        severity: Severity::Warning,
        message: "a name stands twice".to_owned(),
        file: "Ottofile".to_owned(),
        line: 1,
        column: 1,
        span: Span::default(),
        label: String::new(),
        help: String::new(),
    };
    let planned = Planned::Plan { digest: Digest::of(b"plan"), libraries: BTreeMap::new(), warnings: vec![warning], warnings_left_out: 2 };
    let event = RunEvent::RunAccepted { trigger: trigger("pipeline {}"), planned };
    let told = check(false, &[], |follow| follow.event(&event, Timestamp(0)));
    assert!(told.contains("W0401") && told.contains("a name stands twice") && told.contains("and 2 more warnings"), "{told}");
    let mut printed = Vec::new();
    Follow::new(&mut printed, false).knowing_warnings().event(&event, Timestamp(0)).unwrap();
    assert!(!String::from_utf8(printed).unwrap().contains("W0401"));
}
