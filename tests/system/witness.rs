//! The judge: a file to which the stages themselves write a line when they start and one when they end. What it says and what the log says
//! must agree, whoever was killed in between.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

/// A chain of stages that write to the witness file; some wait for a gate.
pub(crate) struct Witness {
    file: PathBuf,
    folder: PathBuf,
}

impl Witness {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { file: folder.join("witness"), folder: folder.to_owned() }
    }

    /// A pipeline of `stages` stages, one after the other. Those in `gated` do not end before [`Witness::open`].
    pub(crate) fn pipeline(&self, stages: usize, gated: &[usize]) -> String {
        let mut text = String::from("pipeline {\n");
        for stage in 1..=stages {
            let witness = self.file.display();
            let wait = if gated.contains(&stage) {
                format!("while [ ! -e {} ]; do sleep 0.01; done", self.gate(stage).display())
            } else {
                ":".to_owned()
            };
            let script = format!("echo {stage} start >> {witness}; {wait}; echo {stage} end >> {witness}");
            writeln!(text, "  stage 'S{stage}' {{ steps [ sh '{script}' ] }}").unwrap();
        }
        text.push_str("}\n");
        text
    }

    /// A pipeline of `stages` short stages, one after the other, of which one must not start twice.
    pub(crate) fn quick_pipeline(&self, stages: usize, once: usize, sleep_ms: u64) -> String {
        let mut text = String::from("pipeline {\n");
        for stage in 1..=stages {
            let witness = self.file.display();
            let effect = if stage == once { "effect = once " } else { "" };
            let sleep = format!("sleep {}.{:03}", sleep_ms / 1_000, sleep_ms % 1_000);
            let script = format!("echo {stage} start >> {witness}; {sleep}; echo {stage} end >> {witness}");
            writeln!(text, "  stage 'S{stage}' {{ {effect}steps [ sh '{script}' ] }}").unwrap();
        }
        text.push_str("}\n");
        text
    }

    fn gate(&self, stage: usize) -> PathBuf {
        self.folder.join(format!("gate-{stage}"))
    }

    /// Lets the stage end.
    pub(crate) fn open(&self, stage: usize) {
        fs::write(self.gate(stage), "").unwrap();
    }

    /// How often the stage has started.
    pub(crate) fn starts(&self, stage: usize) -> usize {
        let line = format!("{stage} start");
        self.lines().iter().filter(|written| **written == line).count()
    }

    /// The lines so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        fs::read_to_string(&self.file).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// Every stage of the run succeeded, ended once, and did not start again after its result.
    pub(crate) fn agrees_with(&self, run: &Value, stages: usize) {
        assert_eq!(run["status"]["outcome"], "success", "{run:#}");
        let lines = self.lines();
        for stage in 1..=stages {
            let start = format!("{stage} start");
            let end = format!("{stage} end");
            let ends: Vec<usize> = (0..lines.len()).filter(|at| lines[*at] == end).collect();
            assert_eq!(ends.len(), 1, "stage {stage} ends once: {lines:?}");
            assert!(!lines[ends[0]..].contains(&start), "stage {stage} does not run again: {lines:?}");
        }
        let attempts: BTreeMap<&str, usize> = run["stages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|stage| (stage["path"].as_str().unwrap(), stage["attempts"].as_array().unwrap().len()))
            .collect();
        for stage in 1..=stages {
            let starts = self.starts(stage);
            let awarded = attempts[format!("S{stage}").as_str()];
            assert!(starts <= awarded, "stage {stage} started {starts} times for {awarded} awards");
        }
    }
}
