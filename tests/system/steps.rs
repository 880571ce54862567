//! Standard steps with the real program: `otto run` starts `otto step-exec` for those that have one.

use std::{fs, path::Path, process::Command};

use crate::house::OTTO;

fn folder(pipeline: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("Ottofile"), pipeline).unwrap();
    fs::write(folder.path().join("input"), "from the source\n").unwrap();
    folder
}

fn otto_run(folder: &Path) -> (i32, String) {
    let output = Command::new(OTTO).arg("run").current_dir(folder).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap(), text)
}

#[test]
fn steps_that_are_programs_do_their_work() {
    let folder = folder(
        r"pipeline {
  stage 'Files' {
    steps [
      sh 'mkdir -p dist/empty; echo hi >dist/app; chmod 755 dist/app; ln -s app dist/link'
      archive name: 'dist', paths: ['dist/', 'in*']
      sh 'echo changed >input'
      checkout
      sh 'cat input'
      dir 'sub' [ checkout path: 'copy' sh 'cat copy/input' ]
    ]
  }
  stage 'Git' {
    checkout = false
    steps [
      sh 'test ! -e input; git init -q -b main work; cd work; echo first >file; git add file; git -c user.name=a -c user.email=a@a.example commit -qm first; git tag v1; cd ..; git clone -q --bare work upstream.git'
      git url: 'upstream.git', branch: 'v1', into: 'clone'
      sh 'cat clone/file; test ! -e clone/.git/hooks'
    ]
  }
}
",
    );
    let (code, text) = otto_run(folder.path());
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("dist: 5 files, directories and links") && text.matches("from the source").count() >= 2, "{text}");
    assert!(text.contains("first"), "{text}");
}

#[test]
fn what_one_stage_leaves_another_finds() {
    let folder = folder(
        r#"pipeline {
  stage 'Make' {
    steps [
      sh 'mkdir dist; echo hi >dist/app; chmod 755 dist/app; ln -s app dist/link'
      archive 'dist'
      sh script: 'echo green', into: 'colour'
    ]
  }
  stage 'Use' {
    checkout = false
    steps [
      unarchive name: 'dist', path: 'there'
      sh 'test -x there/dist/app -a -L there/dist/link; cat there/dist/link; echo "<$VAR_COLOUR>"'
    ]
  }
}
"#,
    );
    let (code, text) = otto_run(folder.path());
    assert!(code == 0 && text.contains("hi") && text.contains("<green>"), "{code}: {text}");
}

#[test]
fn a_failed_test_makes_the_run_unstable() {
    let report = "<testsuite name=\"shop\"><testcase name=\"sells\"/><testcase name=\"refunds\"><failure message=\"1 is not 2\"/></testcase></testsuite>";
    let folder =
        folder("pipeline { stage 'Test' { steps [ junit 'reports/*.xml' echo 'goes on' ] } stage 'Next' { steps [ echo 'runs' ] } }");
    fs::create_dir(folder.path().join("reports")).unwrap();
    fs::write(folder.path().join("reports/a.xml"), report).unwrap();
    let (_, text) = otto_run(folder.path());
    assert!(text.contains("1 passed, 1 failed, 0 skipped in 1 reports") && text.contains("1 is not 2"), "{text}");
    assert!(text.contains("unstable") && text.contains("goes on") && text.contains("runs"), "{text}");
}

#[test]
fn what_a_program_cannot_do_fails_its_step_with_the_reason() {
    for (step, reason) in [
        ("archive name: 'none'", "there is no `none`"),
        ("archive name: 'out', paths: ['../x']", "leads upwards"),
        ("junit '*.xml'", "there is no test report `*.xml`"),
        ("git url: 'ext::sh -c true'", "names a program that git would run"),
        ("git url: 'nowhere.git'", "git ls-remote"),
        ("http url: 'ftp://a.example/'", "is no `http` or `https` address"),
        ("error 'no more'", "no more"),
    ] {
        let folder = folder(&format!("pipeline {{ stage 'A' {{ steps [ {step} ] }} stage 'B' {{ steps [ echo 'never' ] }} }}"));
        let (code, text) = otto_run(folder.path());
        assert!(code == 1 && text.contains(reason) && !text.contains("never\n"), "{step}: {text}");
    }
}
