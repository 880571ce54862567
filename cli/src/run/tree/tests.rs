//! What the tree shows, as text: times are given, and colours left out.

use apispec::Base64;
use model::{
    RunOutcome, StageId, StageOutcome,
    event::run::{Outputs, Question, RunEvent, SkipReason, WaitKey},
    plan::{Step, Value},
    protocol::log::Stream,
};

use super::*;

const PATHS: [&str; 6] = ["Build", "Checks/Lint", "Checks/Unit", "Checks/Browser/Firefox", "Ship", "Notify"];

fn plan() -> Plan {
    let stage = |path: &&str| {
        let mut stage = model::plan::Stage::new(path);
        let parameters = [("command".to_owned(), Value::Text(format!("make {path}\necho done")))].into();
        stage.steps.push(Step::new("std", "sh", parameters));
        stage
    };
    Plan::new(PATHS.iter().map(stage).collect())
}

struct Story {
    tree: Tree,
    sequence: u64,
}

impl Story {
    fn new() -> Self {
        Self { tree: Tree::new(&plan()), sequence: 0 }
    }

    fn at(&mut self, at: u64, event: RunEvent) {
        self.sequence += 1;
        if let RunEvent::RunFinished { .. } = &event {
            assert!(self.tree.is_moving());
        }
        self.tree.event(&EventView { sequence: self.sequence, index: 0, at: Timestamp(at), event });
    }

    fn start(&mut self, at: u64, path: &str) {
        let stage = StageId::of(path);
        self.at(at, RunEvent::StageReady { stage: stage.clone(), attempt: 1 });
        self.at(at, RunEvent::StageStarted { stage, attempt: 1, at: Timestamp(at) });
    }

    fn say(&mut self, path: &str, text: &str) {
        self.tree.output(&ChunkView {
            stage: StageId::of(path),
            path: path.to_owned(),
            attempt: 1,
            fence: 1,
            step: 0,
            stream: Stream::Out,
            offset: 0,
            at: Timestamp(0),
            bytes: Base64(text.as_bytes().to_vec()),
        });
    }

    fn end(&mut self, from: u64, to: u64, path: &str, outcome: StageOutcome, reason: Option<&str>) {
        self.at(
            to,
            RunEvent::StageFinished {
                stage: StageId::of(path),
                attempt: 1,
                outcome,
                reason: reason.map(str::to_owned),
                started_at: Some(Timestamp(from)),
                finished_at: Timestamp(to),
                outputs: Outputs::default(),
            },
        );
    }

    fn shown(&self, now: u64, columns: usize, rows: usize) -> String {
        let lines = frame(&self.tree, Timestamp(now), Size { columns, rows }, Vec::new());
        assert!(lines.len() < rows.max(2), "{} lines do not fit {rows} rows", lines.len());
        assert!(lines.iter().all(|line| line.columns() < columns.max(2)), "a line is wider than {columns}");
        text(&lines)
    }
}

fn text(lines: &[Line]) -> String {
    lines.iter().map(|line| line.rendered(false) + "\n").collect()
}

/// A run in the middle: one stage is done, two run, one asks.
fn busy() -> Story {
    let mut story = Story::new();
    let trigger = RunEvent::RunReleased;
    story.at(0, trigger);
    story.tree.accepted_at = Some(Timestamp(0));
    story.start(100, "Build");
    story.say("Build", "cc hello.c\n");
    story.end(100, 1_400, "Build", StageOutcome::Success, None);
    story.start(1_400, "Checks/Lint");
    story.start(1_500, "Checks/Unit");
    story.say("Checks/Lint", "one\ntwo\nthree\nfour\nfive\nsix\nseven \x1b[2J\x1b[31mred\n");
    story.say("Checks/Unit", "test a ... ok\n日本語の出力はここです\n");
    let question = Question::Confirm { message: "Ship it?".to_owned(), by: Vec::new(), delivery: model::Digest::of(b"d") };
    story.at(1_600, RunEvent::WaitOpened { stage: StageId::of("Ship"), wait: WaitKey::Itself, question, due_at: Some(Timestamp(61_600)) });
    story
}

#[test]
fn a_running_tree_shows_what_runs_with_the_end_of_its_output() {
    insta::assert_snapshot!(busy().shown(3_000, 80, 30));
}

#[test]
fn a_short_terminal_shows_what_runs_and_what_is_asked() {
    insta::assert_snapshot!(busy().shown(3_000, 80, 7));
}

#[test]
fn a_narrow_terminal_cuts_lines() {
    insta::assert_snapshot!(busy().shown(3_000, 22, 30));
}

#[test]
fn any_size_is_kept_to() {
    let story = busy();
    for columns in 0..40 {
        for rows in 0..12 {
            story.shown(3_000, columns, rows);
        }
    }
}

#[test]
fn at_the_end_failures_are_shown_with_their_output() {
    let mut story = busy();
    story.end(1_400, 2_000, "Checks/Lint", StageOutcome::Failure, Some("`sh` ended with exit code 1"));
    story.end(1_500, 2_500, "Checks/Unit", StageOutcome::Success, None);
    let failed = StageId::of("Checks/Lint");
    for path in ["Checks/Browser/Firefox", "Ship", "Notify"] {
        story.at(2_500, RunEvent::StageSkipped { stage: StageId::of(path), reason: SkipReason::NeedFailed { stage: failed.clone() } });
    }
    story.at(2_600, RunEvent::RunFinished { outcome: RunOutcome::Failure });
    insta::assert_snapshot!(text(&summary(&story.tree, "run_x", Size { columns: 80, rows: 24 })));
}

#[test]
fn what_is_drawn_replaces_what_was_drawn_also_on_a_narrower_terminal() {
    let size = |columns| Size { columns, rows: 24 };
    let mut screen = Screen::new(false);
    let mut out = Vec::new();
    screen.draw(&mut out, vec![Line::plain("a".repeat(50)), Line::plain("b")], size(80), false).unwrap();
    out.clear();
    screen.draw(&mut out, vec![Line::plain("a".repeat(50)), Line::plain("b")], size(80), false).unwrap();
    assert!(out.is_empty(), "nothing has changed");
    screen.draw(&mut out, vec![Line::plain("c")], size(20), false).unwrap();
    let written = String::from_utf8(out).unwrap();
    // Fifty columns are three rows of twenty; the cursor stands in the fourth.
    assert!(written.contains("\r\x1b[3Ac\x1b[J"), "{written:?}");
}
