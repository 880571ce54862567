//! What an attempt has so far: its variables, and what it leaves to others.
//!
//! **Invariant:** what is left fits into one message of the bus, with room for what stands around it.

use std::collections::{BTreeMap, btree_map::Entry};

use model::{
    RunId, StageOutcome,
    event::run::{Outputs, StepTime, StoredTree, TestFailure, TestReport},
    manifest::is_name,
    protocol::step::{RunRequest, VARIABLE_BYTES_MAX},
};

/// The most bytes of an attempt's outputs as JSON: a quarter of a message of the bus, and of a record of the log.
const OUTPUTS_BYTES_MAX: usize = 256 * 1024;
/// The longest name of an artifact, in bytes.
const ARTIFACT_NAME_BYTES_MAX: usize = 255;
/// The longest name of a test and of its suite, in bytes: enough for a path of modules.
const TEST_NAME_BYTES_MAX: usize = 300;
/// Runs that one attempt may ask for: more is a loop.
const RUNS_MAX: usize = 100;

/// Why something is not kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GatherError {
    /// It would be no variable.
    #[error("`{0}` cannot be the name of a variable: a letter or `_`, then letters, digits, `_` and `-`")]
    VariableName(String),
    /// No environment takes it.
    #[error("the text of `{0}` has a zero byte")]
    ZeroByte(String),
    /// It is too long.
    #[error("the text of `{name}` is longer than {} KiB", VARIABLE_BYTES_MAX / 1024, name = .0)]
    VariableTooLong(String),
    /// It would lead somewhere.
    #[error(
        "`{0}` cannot be the name of an artifact: it is a path without `..` and control characters, of at most {ARTIFACT_NAME_BYTES_MAX} bytes"
    )]
    ArtifactName(String),
    /// There is too much.
    #[error("the stage leaves more than {} KiB of variables, names and test failures", OUTPUTS_BYTES_MAX / 1024)]
    TooMuch,
    /// There are too many.
    #[error("the stage asked for more than {RUNS_MAX} runs")]
    TooManyRuns,
}

/// What there is so far.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    /// What steps find as `VAR_<NAME>`.
    variables: BTreeMap<String, String>,
    outputs: Outputs,
    steps: Vec<StepTime>,
    terminate: Option<(StageOutcome, String)>,
    /// What was asked for; the number of a request is its place, from 1.
    requests: Vec<RunRequest>,
    runs: BTreeMap<RunId, u32>,
}

impl Gathered {
    /// With the variables that the stage finds.
    pub(crate) fn new(variables: BTreeMap<String, String>) -> Self {
        Self { variables, ..Self::default() }
    }

    /// What steps find as `VAR_<NAME>`, by the variable's name.
    pub(crate) fn variables(&self) -> &BTreeMap<String, String> {
        &self.variables
    }

    /// What is left to others.
    pub(crate) fn outputs(&self) -> &Outputs {
        &self.outputs
    }

    /// Whether a step wants the stage to end.
    pub(crate) fn is_terminated(&self) -> bool {
        self.terminate.is_some()
    }

    /// Takes out how a step wants the stage to end.
    pub(crate) fn take_termination(&mut self) -> Option<(StageOutcome, String)> {
        self.terminate.take()
    }

    /// Sets a variable.
    pub(crate) fn set_variable(&mut self, name: &str, text: String) -> Result<(), GatherError> {
        if !is_name(name) {
            return Err(GatherError::VariableName(name.to_owned()));
        }
        if text.len() > VARIABLE_BYTES_MAX {
            return Err(GatherError::VariableTooLong(name.to_owned()));
        }
        if text.contains('\0') {
            return Err(GatherError::ZeroByte(name.to_owned()));
        }
        self.leave(|outputs| outputs.variables.insert(name.to_owned(), Some(text.clone())))?;
        self.variables.insert(name.to_owned(), text);
        Ok(())
    }

    /// Ends the life of a variable.
    pub(crate) fn drop_variable(&mut self, name: &str) -> Result<(), GatherError> {
        if !is_name(name) {
            return Err(GatherError::VariableName(name.to_owned()));
        }
        self.leave(|outputs| outputs.variables.insert(name.to_owned(), None))?;
        self.variables.remove(name);
        Ok(())
    }

    /// Keeps an artifact.
    pub(crate) fn add_artifact(&mut self, name: &str, tree: StoredTree) -> Result<(), GatherError> {
        check_artifact_name(name)?;
        self.leave(|outputs| outputs.artifacts.insert(name.to_owned(), tree))
    }

    /// Keeps a cache, which has its name from the plan.
    pub(crate) fn add_cache(&mut self, name: String, tree: StoredTree) -> Result<(), GatherError> {
        self.leave(|outputs| outputs.caches.insert(name, tree))
    }

    /// Adds to the test report.
    pub(crate) fn add_tests(&mut self, report: TestReport) -> Result<(), GatherError> {
        self.leave(|outputs| {
            let sum = outputs.tests.get_or_insert_default();
            sum.passed = sum.passed.saturating_add(report.passed);
            sum.failed = sum.failed.saturating_add(report.failed);
            sum.skipped = sum.skipped.saturating_add(report.skipped);
            sum.duration_ms = sum.duration_ms.saturating_add(report.duration_ms);
            let room = TestReport::FAILURES_MAX.saturating_sub(sum.failures.len());
            sum.failures.extend(report.failures.into_iter().take(room).map(shortened));
        })
    }

    /// Notes when a step ran, if that is told of as many.
    pub(crate) fn note_step(&mut self, time: StepTime) {
        if self.steps.len() < Outputs::STEPS_MAX {
            self.steps.push(time);
        }
    }

    /// What is left to others in the end, with the times of the steps, unless they do not fit any more.
    pub(crate) fn conclude(&mut self) -> Outputs {
        let steps = std::mem::take(&mut self.steps);
        if self.outputs.is_empty() {
            self.outputs.steps = steps;
        } else {
            let _untold = self.leave(|outputs| outputs.steps = steps);
        }
        self.outputs.clone()
    }

    /// The stage is to end after this step. The worst that was asked for counts.
    pub(crate) fn terminate(&mut self, outcome: StageOutcome, reason: String) {
        if self.terminate.as_ref().is_none_or(|(known, _)| *known < outcome) {
            self.terminate = Some((outcome, reason));
        }
    }

    /// Notes that a run is asked for; its number.
    pub(crate) fn request_run(&mut self, request: RunRequest) -> Result<u32, GatherError> {
        if self.requests.len() >= RUNS_MAX {
            return Err(GatherError::TooManyRuns);
        }
        self.requests.push(request);
        Ok(u32::try_from(self.requests.len()).expect("there are at most RUNS_MAX"))
    }

    /// The run that was asked for with this number has begun.
    pub(crate) fn run_started(&mut self, run: RunId, number: u32) {
        if let Entry::Vacant(vacant) = self.runs.entry(run) {
            vacant.insert(number);
        }
    }

    /// The request of a run that this attempt asked for.
    pub(crate) fn run_requested(&self, run: &RunId) -> Option<(u32, RunRequest)> {
        let number = *self.runs.get(run)?;
        let at = usize::try_from(number).ok()?.checked_sub(1)?;
        Some((number, self.requests.get(at)?.clone()))
    }

    /// Changes what is left, if it still fits then.
    fn leave<T>(&mut self, change: impl FnOnce(&mut Outputs) -> T) -> Result<(), GatherError> {
        let mut outputs = self.outputs.clone();
        change(&mut outputs);
        let length = serde_json::to_vec(&outputs).map_or(usize::MAX, |bytes| bytes.len());
        if length > OUTPUTS_BYTES_MAX {
            return Err(GatherError::TooMuch);
        }
        self.outputs = outputs;
        Ok(())
    }
}

/// Whether an artifact can have this name. It is never used as a path here, but whoever downloads it may.
pub(crate) fn check_artifact_name(name: &str) -> Result<(), GatherError> {
    let is_part = |part: &str| !part.is_empty() && part != "..";
    let fits = name.len() <= ARTIFACT_NAME_BYTES_MAX && !name.contains(|character: char| character.is_control() || character == '\\');
    // A directory's name may end with a slash.
    if fits && name.strip_suffix('/').unwrap_or(name).split('/').all(is_part) {
        Ok(())
    } else {
        Err(GatherError::ArtifactName(name.to_owned()))
    }
}

fn shortened(failure: TestFailure) -> TestFailure {
    let TestFailure { suite, name, message } = failure;
    TestFailure {
        suite: cut(suite, TEST_NAME_BYTES_MAX),
        name: cut(name, TEST_NAME_BYTES_MAX),
        message: cut(message, TestFailure::MESSAGE_BYTES_MAX),
    }
}

fn cut(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max));
    }
    text
}

#[cfg(test)]
mod tests {
    use model::{Digest, TriggerId};

    use super::*;

    #[test]
    fn a_dropped_variable_is_gone_for_later_steps_and_stages() {
        let mut gathered = Gathered::new([("a".to_owned(), "1".to_owned())].into());
        gathered.set_variable("b-c", "2".to_owned()).unwrap();
        gathered.drop_variable("a").unwrap();
        assert_eq!(gathered.variables(), &[("b-c".to_owned(), "2".to_owned())].into());
        let left = [("a".to_owned(), None), ("b-c".to_owned(), Some("2".to_owned()))];
        assert_eq!(gathered.outputs().variables, left.into());
    }

    #[test]
    fn what_is_no_variable_is_refused() {
        let mut gathered = Gathered::default();
        for name in ["", "a b", "../a", "1", "a="] {
            assert_eq!(gathered.set_variable(name, String::new()), Err(GatherError::VariableName(name.to_owned())));
        }
        assert!(gathered.set_variable("a", "x\0".to_owned()).is_err());
        assert!(gathered.set_variable("a", "x".repeat(VARIABLE_BYTES_MAX + 1)).is_err());
        assert!(gathered.outputs().is_empty());
    }

    #[test]
    fn what_is_left_fits_into_a_message() {
        let mut gathered = Gathered::default();
        let text = "x".repeat(VARIABLE_BYTES_MAX);
        for name in ["a", "b", "c"] {
            gathered.set_variable(name, text.clone()).unwrap();
        }
        assert_eq!(gathered.set_variable("d", text), Err(GatherError::TooMuch));
        assert_eq!(gathered.variables().len(), 3);
        let failure = TestFailure { suite: "s".repeat(9_000), name: "ü".repeat(9_000), message: "m".repeat(9_000) };
        let report = TestReport { failed: 500, failures: vec![failure; 500], ..TestReport::default() };
        let mut gathered = Gathered::default();
        gathered.add_tests(report.clone()).unwrap();
        gathered.add_tests(report).unwrap();
        let tests = gathered.outputs().tests.clone().unwrap();
        assert_eq!((tests.failed, tests.failures.len(), tests.failures[0].message.len()), (1_000, 100, 1_000));
    }

    #[test]
    fn an_artifacts_name_leads_nowhere() {
        for name in ["app", "target/app.deb", "dist/", "a b", "..."] {
            assert_eq!(check_artifact_name(name), Ok(()), "{name}");
        }
        for name in ["", "/", "/etc/passwd", "..", "a/../b", "a//b", "a\nb", "a\\b", "a\0"] {
            assert!(check_artifact_name(name).is_err(), "{name:?}");
        }
        let tree = StoredTree { archive: Digest::of(b""), bytes: 0, entries: 0 };
        assert!(Gathered::default().add_artifact("../x", tree).is_err());
    }

    #[test]
    fn the_worst_end_that_was_asked_for_counts() {
        let mut gathered = Gathered::default();
        gathered.terminate(StageOutcome::Failure, "worse".to_owned());
        gathered.terminate(StageOutcome::Success, "better".to_owned());
        assert_eq!(gathered.take_termination(), Some((StageOutcome::Failure, "worse".to_owned())));
        assert!(!gathered.is_terminated());
    }

    #[test]
    fn only_ones_own_runs_can_be_asked_after() {
        let mut gathered = Gathered::default();
        let request = RunRequest { pipeline: "Ottofile".to_owned(), project: None, parameters: BTreeMap::new() };
        let number = gathered.request_run(request.clone()).unwrap();
        let (mine, other) = (RunId::of(&TriggerId::of("t", "1")), RunId::of(&TriggerId::of("t", "2")));
        gathered.run_started(mine.clone(), number);
        assert_eq!(gathered.run_requested(&mine), Some((1, request)));
        assert_eq!(gathered.run_requested(&other), None);
    }
}
