//! What a stage finds, and how it ends.

use std::os::unix::fs::PermissionsExt as _;

use bytes::Bytes;
use model::{
    StageOutcome,
    plan::Stage,
    protocol::agent::{AgentCommand, ReportKind},
};

use crate::office::{Office, assignment, is_alive, sh, stage, step, until};

#[tokio::test]
async fn steps_run_one_after_the_other_until_one_fails() {
    let mut office = Office::open().await;
    let (outcome, reason, said) = office.run("good", vec![sh("echo one"), step("echo", "message", "two"), sh("#!/bin/cat\nthree")]).await;
    assert_eq!((outcome, reason), (StageOutcome::Success, None));
    assert_eq!(said, "one\ntwo\n#!/bin/cat\nthree");
    let (outcome, reason, said) = office.run("bad", vec![sh("echo one"), sh("false; echo never"), sh("echo never")]).await;
    assert_eq!((outcome, reason.as_deref()), (StageOutcome::Failure, Some("step 2 `sh`: exit code 1")));
    assert_eq!(said, "one\n");
    let (outcome, reason, _) = office.run("killed", vec![sh("kill -9 $$")]).await;
    assert_eq!((outcome, reason.as_deref()), (StageOutcome::Failure, Some("step 1 `sh`: ended by SIGKILL")));
    let (outcome, reason, _) = office.run("unknown", vec![step("deploy", "to", "space")]).await;
    assert_eq!((outcome, reason.as_deref()), (StageOutcome::Failure, Some("step 1 `deploy`: this agent does not know the step")));
    let (_, reason, _) = office.run("interpreter", vec![sh("#!/no/such/interpreter\n")]).await;
    assert!(reason.unwrap().starts_with("step 1 `sh`: cannot start: No such file"), "the interpreter is missing");
}

#[tokio::test]
async fn a_script_longer_than_an_argument_runs() {
    let mut office = Office::open().await;
    let script = format!("set +x; : '{}'; echo done", "x".repeat(300_000));
    let (outcome, reason, said) = office.run("long", vec![sh(&script)]).await;
    assert_eq!((outcome, reason, said.as_str()), (StageOutcome::Success, None, "done\n"));
}

#[tokio::test]
async fn the_environment_is_built_from_nothing() {
    let mut office = Office::open().await;
    let mut stage = stage("Build/env", vec![sh("set +x; env; ls -A . $HOME $TMPDIR")]);
    stage.environment = [("COLOUR".to_owned(), "green".into()), ("CI".to_owned(), "yes".into())].into();
    let (outcome, _, said) = office.run_stage(stage, None).await;
    assert_eq!(outcome, StageOutcome::Success);
    let mut names: Vec<&str> = said.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    names.sort_unstable();
    let expected = [
        "CI",
        "COLOUR",
        "HOME",
        "LANG",
        "OTTO",
        "OTTO_ATTEMPT",
        "OTTO_BRANCH",
        "OTTO_COMMIT",
        "OTTO_LEASE",
        "OTTO_PROJECT",
        "OTTO_RUN",
        "OTTO_STAGE",
        "OTTO_STEP",
        "PATH",
        "PWD",
        "TMPDIR",
        "TRACEPARENT",
    ];
    // A shell sets these by itself.
    names.retain(|name| !["OLDPWD", "SHLVL", "_"].contains(name));
    assert_eq!(names, expected);
    for line in ["CI=yes", "COLOUR=green", "OTTO_STAGE=Build/env", "OTTO_ATTEMPT=1", "OTTO_BRANCH=main", "OTTO_COMMIT=c0ffee"] {
        assert!(said.lines().any(|said| said == line), "{line} in {said}");
    }
}

pub(crate) fn tree(files: &[(&str, u32, &str)]) -> Bytes {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, mode, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(*mode);
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        builder.append(&header, text.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap().into()
}

#[tokio::test]
async fn the_source_is_there_in_every_stage_and_untouched() {
    let mut office = Office::open().await;
    let source = office.blobs.put(tree(&[("bin/hello", 0o755, "#!/bin/sh\necho hello\n"), ("a/b", 0o644, "x")])).await.unwrap();
    for path in ["first", "second"] {
        let (outcome, _, said) = office.run_stage(stage(path, vec![sh("bin/hello; cat a/b; rm a/b; touch new; ls")]), Some(source)).await;
        assert_eq!((outcome, said.as_str()), (StageOutcome::Success, "hello\nxa\nbin\nnew\n"));
    }
}

#[tokio::test]
async fn a_source_that_is_evil_or_missing_fails_the_stage() {
    let mut office = Office::open().await;
    let evil = office.blobs.put(tree(&[("../../../evil", 0o644, "x")])).await.unwrap();
    let (outcome, reason, said) = office.run_stage(stage("evil", vec![sh("echo never")]), Some(evil)).await;
    assert_eq!((outcome, said.as_str()), (StageOutcome::Failure, ""));
    assert_eq!(reason.unwrap(), "cannot prepare the source: the archive is refused: `../../../evil` leads upwards");
    let missing = model::Digest::of(b"missing");
    let (outcome, reason, _) = office.run_stage(stage("missing", vec![sh("echo never")]), Some(missing)).await;
    assert_eq!(
        (outcome, reason.unwrap()),
        (StageOutcome::Failure, format!("cannot prepare the source: cannot fetch it: the depot has no {missing}"))
    );
}

/// A stage whose processes ignore SIGTERM, and write their ids to `pids`.
fn stubborn(office: &Office, timeout_ms: u64) -> Stage {
    let pids = office.path("pids");
    let script = format!("trap '' TERM; (sleep 1000 & echo $! >>{0}; echo $$ >>{0}; echo started; wait)", pids.display());
    Stage { timeout_ms, ..stage("stubborn", vec![sh(&script), sh("echo never")]) }
}

fn pids(office: &Office) -> Vec<String> {
    std::fs::read_to_string(office.path("pids")).unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_cancel_ends_the_whole_group() {
    let mut office = Office::open().await;
    let assignment = assignment(stubborn(&office, 60_000), 1);
    office.award(&assignment).await;
    office.chunk().await;
    let pids = pids(&office);
    assert!(pids.len() == 2 && pids.iter().all(|pid| is_alive(pid)));
    let since = std::time::Instant::now();
    office.send(AgentCommand::Cancel { lease: assignment.lease.clone(), force: false }).await;
    assert_eq!(office.result(&assignment.lease).await, (StageOutcome::Aborted, Some("cancelled".to_owned())));
    assert!(since.elapsed().as_secs() < 10, "{:?}", since.elapsed());
    assert!(!pids.iter().any(|pid| is_alive(pid)), "{pids:?}");
}

#[tokio::test]
async fn a_stage_whose_time_is_up_ends_with_its_group() {
    let mut office = Office::open().await;
    let assignment = assignment(stubborn(&office, 1_000), 1);
    office.award(&assignment).await;
    let (outcome, reason) = office.result(&assignment.lease).await;
    assert_eq!((outcome, reason.as_deref()), (StageOutcome::Failure, Some("timed out after 1s")));
    assert!(!pids(&office).iter().any(|pid| is_alive(pid)));
}

#[tokio::test]
async fn what_a_step_leaves_behind_neither_lives_on_nor_delays_it() {
    let mut office = Office::open().await;
    let pid = office.path("pid");
    let script = format!("sleep 1000 & echo $! >{0}; setsid sleep 3 & echo done", pid.display());
    let since = std::time::Instant::now();
    let (outcome, _, said) = office.run("leftover", vec![sh(&script)]).await;
    assert_eq!((outcome, said.as_str()), (StageOutcome::Success, "done\n"));
    assert!(since.elapsed().as_secs_f32() < 2.5, "nobody waits for who holds the output open");
    assert!(!is_alive(&std::fs::read_to_string(pid).unwrap()));
}

#[tokio::test]
async fn nothing_is_left_of_an_attempt_that_is_heard_and_stored() {
    let mut office = Office::open().await;
    let script = "mkdir -p deep/er; chmod 500 deep";
    office.run("tidy", vec![sh(script)]).await;
    until("an empty spool", || office.leftovers().is_empty()).await;
    let started = office.report(ReportKind::Started).await;
    assert_eq!(started.lease.fence, 1);
    let mode = std::fs::metadata(office.path("agent/work")).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0);
}
