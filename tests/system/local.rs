//! `otto run`: the same file, the same plan, without a server.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

use crate::house::{House, OTTO};

const PIPELINE: &str = "pipeline {\n  stage 'Build' { steps [ sh 'cat input > output; cat output' ] }\n  parallel {\n    stage 'One' { steps [ echo 'one' ] }\n    stage 'Two' { steps [ sh 'test ! -e output' ] }\n  }\n}\n";

/// A folder with a pipeline file.
fn folder(pipeline: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("Ottofile"), pipeline).unwrap();
    fs::write(folder.path().join("input"), "from the working tree\n").unwrap();
    folder
}

fn otto(folder: &Path, arguments: &[&str]) -> (i32, String) {
    let output = Command::new(OTTO).args(arguments).current_dir(folder).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), text)
}

#[test]
fn otto_run_runs_the_working_tree_and_says_how_it_ended() {
    let folder = folder(PIPELINE);
    let (code, text) = otto(folder.path(), &["run"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("from the working tree") && text.contains("one") && text.contains("success"), "{text}");
    assert!(!folder.path().join("output").exists(), "stages work in folders of their own");
}

#[test]
fn a_failed_stage_fails_the_run_and_skips_the_rest() {
    let folder = folder("pipeline { stage 'A' { steps [ sh 'exit 3' ] } stage 'B' { steps [ echo 'never' ] } }");
    let (code, text) = otto(folder.path(), &["run"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("exit code 3") && text.contains("skipped"), "{text}");
}

#[test]
fn a_file_that_is_refused_runs_nothing() {
    let folder = folder("pipeline { stage 'A' { steps [ ehco 'a' ] } }");
    let (code, text) = otto(folder.path(), &["run"]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("ehco") && text.contains("echo"), "the nearest name is suggested: {text}");
}

#[tokio::test]
async fn the_same_file_has_the_same_plan_locally_and_through_the_services() {
    let folder = folder(PIPELINE);
    let (code, text) = otto(folder.path(), &["run"]);
    assert_eq!(code, 0, "{text}");
    let house = House::start(1).await;
    let run = house.create(PIPELINE).await;
    let detail: Value = house.ended(&run).await;
    let digest = detail["plan"]["digest"].as_str().unwrap();
    assert!(text.contains(digest), "`otto run` shows {digest}: {text}");
    house.end().await;
}
