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
fn the_example_of_own_steps_runs_its_programs_which_speak_to_the_agent() {
    let folder = tempfile::tempdir().unwrap();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/own-step");
    assert!(Command::new("cp").args(["-r".as_ref(), example.as_os_str(), folder.path().as_os_str()]).status().unwrap().success());
    let folder = folder.path().join("own-step");
    let (code, text) = otto(&folder, &["run"]);
    assert_eq!(code, 0, "{text}");
    for said in ["greeting Otto", "Hallo, Otto!", "Ada and Grace are here", "1 of 1 greetings"] {
        assert!(text.contains(said), "{said}: {text}");
    }
    assert!(!text.contains("step 4/4"), "`enough` has ended the stage: {text}");
}

#[test]
fn a_packed_library_runs_as_its_folder_does() {
    let folder = tempfile::tempdir().unwrap();
    let (code, text) = otto(folder.path(), &["step", "new", "greet", "--lang", "python"]);
    assert_eq!(code, 0, "{text}");
    let (code, text) = otto(folder.path(), &["step", "pack", "steps/greet", "-o", "greet.tar.gz"]);
    assert!(code == 0 && text.starts_with("sha256:"), "{text}");
    fs::remove_dir_all(folder.path().join("steps")).unwrap();
    let pipeline = "use './greet.tar.gz'\npipeline { steps [ greet who: 'you' sh 'echo kept: $VAR_GREETING' ] }\n";
    fs::write(folder.path().join("Ottofile"), pipeline).unwrap();
    let (code, text) = otto(folder.path(), &["run"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("kept: Hello, you!"), "{text}");
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

#[test]
fn a_context_decides_what_is_planned() {
    let folder = folder(
        "parameters { target { type = choice default = 'a' options = ['a', 'b'] } }\npipeline { stage 'A' { when { branch == 'main' && changed('docs/**') && params.target == 'b' } steps [ echo 'a' ] } }",
    );
    let told = |arguments: &[&str]| {
        let (code, text) = otto(folder.path(), &[&["explain", "--format", "plan"], arguments].concat());
        assert_eq!(code, 0, "{text}");
        text
    };
    let all = ["--branch", "main", "--param", "target=b", "--changed", "docs/a.md"];
    assert!(!told(&all).contains("skipped"), "{}", told(&all));
    for other in [
        &all[2..],
        &["--pr", "main:main", "--param", "target=b", "--changed", "docs/a.md"],
        &["--branch", "main", "--changed", "src/a.rs", "--param", "target=b"],
    ] {
        assert!(told(other).contains("skipped"), "{other:?}");
    }
    let (code, text) = otto(folder.path(), &["explain", "--param", "target=c"]);
    assert!(code == 2 && text.contains('c'), "{text}");
}

#[test]
fn a_check_tells_people_and_programs_and_ends_with_one_where_a_file_is_refused() {
    let folder = folder("pipeline { stage 'A' { steps [ ehco 'a' ] } }");
    fs::create_dir(folder.path().join(".otto")).unwrap();
    fs::write(folder.path().join(".otto/right.otto"), "pipeline { stage 'B' { steps [ echo 'b' ] } }").unwrap();
    let (code, text) = otto(folder.path(), &["check"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("Ottofile: refused") && text.contains(".otto/right.otto: 1 stage"), "{text}");
    let (code, json) = otto(folder.path(), &["check", "--format", "json"]);
    let found: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (code, &found[0]["code"], &found[0]["file"], &found[0]["line"]),
        (1, &"E0401".into(), &"Ottofile".into(), &1.into()),
        "{json}"
    );
    let (code, text) = otto(folder.path(), &["check", "--format", "github"]);
    assert!(code == 1 && text.starts_with("::error file=Ottofile,line=1,col=32,endColumn=36,title=E0401::"), "{text}");
    assert_eq!(otto(folder.path(), &["check", ".otto/right.otto"]).0, 0);
}

#[test]
fn two_plans_are_compared_wherever_they_are() {
    let folder = folder(PIPELINE);
    let git = |arguments: &[&str]| {
        let done =
            Command::new("git").args(["-c", "user.name=a", "-c", "user.email=a@b"]).args(arguments).current_dir(folder.path()).output();
        assert!(done.unwrap().status.success(), "{arguments:?}");
    };
    git(&["init", "-q", "-b", "main"]);
    git(&["add", "."]);
    git(&["commit", "-qm", "one"]);
    let (_, plan) = otto(folder.path(), &["explain", "--format", "plan"]);
    fs::write(folder.path().join("plan.json"), plan).unwrap();
    fs::write(folder.path().join("Ottofile"), PIPELINE.replace("'Two'", "'Three'")).unwrap();
    for before in ["main:Ottofile", "plan.json"] {
        let (code, text) = otto(folder.path(), &["explain", "--diff", before, "Ottofile"]);
        assert!(code == 0 && text.contains("Three") && text.contains("Two") && !text.contains("One"), "{text}");
    }
    assert_eq!(otto(folder.path(), &["explain", "--diff", "none:Ottofile", "Ottofile"]).0, 1);
}

#[test]
fn what_a_pipeline_brings_in_is_locked() {
    let folder = folder("use './steps/hello.otto'\npipeline { stage 'A' { steps [ hello ] } }");
    fs::create_dir(folder.path().join("steps")).unwrap();
    fs::write(folder.path().join("steps/hello.otto"), "step 'hello' { steps [ echo 'hello' ] }").unwrap();
    assert_eq!(otto(folder.path(), &["lock", "--check"]).0, 1);
    let (code, text) = otto(folder.path(), &["lock"]);
    assert!(code == 0 && text.contains("+ ./steps/hello.otto sha256:"), "{text}");
    assert_eq!(otto(folder.path(), &["lock", "--check"]).0, 0);
    assert_eq!(otto(folder.path(), &["check"]).0, 0);
    fs::write(folder.path().join("steps/hello.otto"), "step 'hello' { steps [ echo 'bye' ] }").unwrap();
    let (code, text) = otto(folder.path(), &["check"]);
    assert!(code == 1 && text.contains("otto lock"), "{text}");
    let (_, text) = otto(folder.path(), &["lock"]);
    assert!(text.starts_with("~ ./steps/hello.otto"), "{text}");
}

#[test]
fn a_trigger_that_the_pipeline_does_not_name_runs_nothing() {
    let folder = folder("triggers { push { branches = ['main'] } }\npipeline { stage 'A' { steps [ echo 'ran' ] } }");
    let (code, text) = otto(folder.path(), &["run", "--branch", "topic", "--event", "push"]);
    assert!(code == 0 && text.contains("not started") && text.contains("skipped") && !text.contains("ran\n"), "{text}");
    let (code, text) = otto(folder.path(), &["run", "--branch", "main", "--event", "push"]);
    assert!(code == 0 && text.contains("ran"), "{text}");
}

#[test]
fn what_is_not_run_yet_is_refused_by_its_name() {
    let folder =
        folder("credentials { key = vault('secret/data/x#y') }\npipeline { stage 'A' { credentials = ['key'] steps [ echo 'ran' ] } }");
    let (code, text) = otto(folder.path(), &["run"]);
    assert!(code == 2 && text.contains("E0903") && text.contains("credentials") && !text.contains("ran\n"), "{text}");
    let (code, page) = otto(folder.path(), &["explain-error", "E0903"]);
    assert!(code == 0 && page.starts_with("# E0903"), "{page}");
}
