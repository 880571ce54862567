//! Views of what a run waits for, and of what its stages have left.

use apispec::{AnswerView, OutputsView, TestFailureView, TestsView, TreeView, WaitName, WaitView};
use model::event::run::{Outputs, StoredTree, TestFailure, TestReport};

use crate::core::Stage;

/// What the stage waits or waited for.
pub(super) fn waits(stage: &Stage) -> Vec<WaitView> {
    let opened = stage.waits.iter().filter_map(|(key, wait)| Some((key, wait.opened.as_ref()?, &wait.answer)));
    let view = opened.map(|(key, opened, answer)| WaitView {
        wait: WaitName(*key),
        question: (&opened.question).into(),
        since: opened.opened_at,
        due_at: opened.due_at,
        answer: answer.as_ref().map(|(answer, by)| AnswerView::new(answer, by.as_ref())),
    });
    view.collect()
}

/// What the stage has left.
pub(super) fn outputs(outputs: &Outputs) -> OutputsView {
    let Outputs { variables, artifacts, caches, tests, steps: _ } = outputs;
    OutputsView {
        variables: variables.clone(),
        artifacts: artifacts.iter().map(|(name, kept)| (name.clone(), tree(kept))).collect(),
        caches: caches.iter().map(|(name, kept)| (name.clone(), tree(kept))).collect(),
        tests: tests.as_ref().map(self::tests),
    }
}

fn tree(tree: &StoredTree) -> TreeView {
    TreeView { archive: tree.archive, bytes: tree.bytes, entries: tree.entries }
}

fn tests(report: &TestReport) -> TestsView {
    let TestReport { passed, failed, skipped, duration_ms, failures } = report;
    let failure = |TestFailure { suite, name, message }: &TestFailure| TestFailureView {
        suite: suite.clone(),
        name: name.clone(),
        message: message.clone(),
    };
    TestsView {
        passed: *passed,
        failed: *failed,
        skipped: *skipped,
        duration_ms: *duration_ms,
        failures: failures.iter().map(failure).collect(),
    }
}
