//! What every step may say: blocks, times, tries, captured variables; and what is done on a stage's outcome.

use std::collections::BTreeMap;

use model::{
    StageOutcome,
    plan::{Deployment, Notify, Stage, Step, Value},
    protocol::agent::{AgentCommand, Assignment, Callback},
};

use crate::office::{Office, assignment, is_alive, sh, stage, step};

const SUCCESS: (StageOutcome, Option<&str>) = (StageOutcome::Success, None);

fn dir(path: &str, steps: Vec<Step>) -> Step {
    let parameters = [("path".to_owned(), Value::from(path)), ("steps".to_owned(), Value::Steps { steps })];
    Step::new("stdlib", "dir", parameters.into())
}

fn sleep(ms: i64) -> Step {
    Step::new("stdlib", "sleep", [("time".to_owned(), Value::Integer(ms))].into())
}

fn drop_variable(name: &str) -> Step {
    step("drop", "variable", name)
}

fn into(step: Step, name: &str) -> Step {
    Step { into: Some(name.to_owned()), ..step }
}

fn timeout(step: Step, ms: u64) -> Step {
    Step { timeout_ms: Some(ms), ..step }
}

fn variables(pairs: &[(&str, Option<&str>)]) -> BTreeMap<String, Option<String>> {
    pairs.iter().map(|(name, text)| ((*name).to_owned(), text.map(str::to_owned))).collect()
}

#[tokio::test]
async fn steps_stand_in_folders_and_folders_in_folders() {
    let mut office = Office::open().await;
    let here = || sh("set +x; echo ${PWD##*/source}");
    let steps = vec![dir("a/b", vec![here(), dir("../c", vec![here()])]), here()];
    let ran = office.run_assignment(&assignment(stage("good", steps), 1)).await;
    assert_eq!((ran.end(), ran.out.as_str()), (SUCCESS, "/a/b\n/a/c\n\n"));
    assert!(ran.otto.contains("[otto] step 3/5: dir\n[otto] step 4/5: sh"), "{}", ran.otto);
    let ran = office.run_assignment(&assignment(stage("bad", vec![dir("a", vec![sh("exit 3"), sh("echo never")])]), 1)).await;
    assert_eq!((ran.end(), ran.out.as_str()), ((StageOutcome::Failure, Some("step 2 `sh`: exit code 3")), ""));
    let ran = office.run_assignment(&assignment(stage("out", vec![sh("ln -s / root"), dir("root/tmp", vec![sh("echo never")])]), 1)).await;
    assert_eq!(ran.end(), (StageOutcome::Failure, Some("step 2 `dir`: `root/tmp` leads out of the work directory")));
}

#[tokio::test]
async fn what_is_captured_is_there_for_later_steps_and_stages() {
    let mut office = Office::open().await;
    let steps = vec![
        into(sh("echo one; echo two >&2; echo three"), "my-list"),
        into(dir("x", vec![step("echo", "message", "inside"), sh("echo too")]), "block"),
        sh("set +x; echo \"<$VAR_MY_LIST|$VAR_BLOCK|$VAR_GIVEN>\""),
        drop_variable("given"),
        drop_variable("block"),
        sh("set +x; echo \"<${VAR_GIVEN-gone}|${VAR_BLOCK-gone}>\""),
    ];
    let given = [("given".to_owned(), "before".to_owned())];
    let assignment = Assignment { variables: given.into(), ..assignment(stage("a", steps), 1) };
    let ran = office.run_assignment(&assignment).await;
    assert_eq!(ran.end(), SUCCESS);
    assert!(ran.out.ends_with("<one\nthree|inside\ntoo|before>\n<gone|gone>\n"), "{}", ran.out);
    assert!(ran.out.starts_with("one\nthree\n"), "it goes to the log all the same");
    let expected = variables(&[("my-list", Some("one\nthree")), ("block", None), ("given", None)]);
    assert_eq!(ran.outputs.variables, expected);
}

#[tokio::test]
async fn what_no_variable_holds_fails_its_step() {
    let mut office = Office::open().await;
    for (path, script, reason) in [
        ("long", "head -c 70000 /dev/zero | tr '\\0' x", "it said more than the 64 KiB that a variable holds"),
        ("zero", "printf 'a\\0b'", "it said a zero byte, which a variable of an environment cannot hold"),
        ("bytes", "printf '\\377'", "it said what is no UTF-8, which a variable cannot hold"),
    ] {
        let ran = office.run_assignment(&assignment(stage(path, vec![into(sh(script), "x"), sh("echo never")]), 1)).await;
        assert_eq!(ran.end(), (StageOutcome::Failure, Some(format!("step 1 `sh`: {reason}").as_str())));
        assert!(ran.left_nothing(), "{:?}", ran.outputs);
    }
}

#[tokio::test]
async fn a_step_has_its_own_time() {
    let mut office = Office::open().await;
    let pid = office.path("pid");
    let slow = sh(&format!("echo $$ >{}; sleep 1000", pid.display()));
    let ran = office.run_assignment(&assignment(stage("a", vec![timeout(slow, 200), sh("echo never")]), 1)).await;
    assert_eq!(ran.end(), (StageOutcome::Failure, Some("step 1 `sh`: timed out after 200ms")));
    assert!(!is_alive(&std::fs::read_to_string(pid).unwrap()));
    let block = timeout(dir(".", vec![timeout(sleep(60_000), 60_000)]), 100);
    let ran = office.run_assignment(&assignment(stage("b", vec![block]), 1)).await;
    assert_eq!(ran.end(), (StageOutcome::Failure, Some("step 1 `dir`: timed out after 100ms")), "the time of the block is over");
    let ran = office.run_assignment(&assignment(stage("c", vec![sleep(1)]), 1)).await;
    assert_eq!(ran.end(), SUCCESS);
}

#[tokio::test]
async fn a_step_is_tried_as_often_as_it_says() {
    let mut office = Office::open().await;
    let second = Step { attempts: Some(3), ..sh("[ -e again ] || { touch again; exit 7; }; echo done") };
    let ran = office.run_assignment(&assignment(stage("good", vec![into(second, "x")]), 1)).await;
    assert_eq!((ran.end(), ran.out.as_str()), (SUCCESS, "done\n"));
    assert!(ran.otto.contains("[otto] step 1 `sh`: exit code 7; trying again after 1s, 2 of 3\n"), "{}", ran.otto);
    let never = Step { attempts: Some(2), ..step("error", "message", "no luck") };
    let ran = office.run_assignment(&assignment(stage("bad", vec![never]), 1)).await;
    assert_eq!(ran.end(), (StageOutcome::Failure, Some("step 1 `error`: no luck")));
}

#[tokio::test]
async fn the_output_may_be_in_another_encoding() {
    let mut office = Office::open().await;
    let mut latin = sh("printf 'gr\\374n\\n'");
    latin.parameters.insert("encoding".to_owned(), Value::from("ISO-8859-1"));
    let ran = office.run_assignment(&assignment(stage("a", vec![into(latin, "x")]), 1)).await;
    assert_eq!((ran.end(), ran.out.as_str()), (SUCCESS, "grün\n"));
    assert_eq!(ran.outputs.variables, variables(&[("x", Some("grün"))]));
}

#[tokio::test]
async fn a_stage_finds_what_its_run_and_its_environment_say() {
    let mut office = Office::open().await;
    let script =
        "set +x; echo $OTTO_STEP $OTTO_TAG $OTTO_PROJECT $OTTO_ENVIRONMENT $HOSTNAME $REPLICAS $OTTO_CALLBACK_URL $OTTO_CALLBACK_URL_2";
    let settings = [("HOSTNAME".to_owned(), Value::from("a.example")), ("REPLICAS".to_owned(), Value::Integer(3))];
    let deployment = Deployment { environment: "preprod".to_owned(), protected: false, settings: settings.into() };
    let stage = Stage { deployment: Some(deployment), ..stage("a", vec![sh(script)]) };
    let callback = |url: &str| Callback { description: String::new(), url: url.to_owned() };
    let facts = [("OTTO_TAG", "v1"), ("OTTO_PROJECT", "forged")].map(|(name, text)| (name.to_owned(), text.to_owned()));
    let callbacks = vec![callback("http://one"), callback("http://two")];
    let ran = office.run_assignment(&Assignment { facts: facts.into(), callbacks, ..assignment(stage, 1) }).await;
    assert_eq!(ran.out, "1 v1 shop preprod a.example 3 http://one http://two\n");
}

fn notify() -> Notify {
    let say = |text: &str| vec![sh(&format!("set +x; echo {text} $(cat made 2>&1)"))];
    Notify { success: say("success"), failure: say("failure"), complete: say("complete") }
}

#[tokio::test]
async fn a_stage_says_how_it_ended_in_its_own_work_directory() {
    let mut office = Office::open().await;
    let good = Stage { notify: notify(), ..stage("good", vec![sh("set +x; echo yes >made")]) };
    let ran = office.run_assignment(&assignment(good, 1)).await;
    assert_eq!((ran.end(), ran.out.as_str()), (SUCCESS, "success yes\ncomplete yes\n"));
    let bad = Stage { notify: notify(), ..stage("bad", vec![sh("set +x; echo yes >made; exit 1")]) };
    let ran = office.run_assignment(&assignment(bad, 1)).await;
    assert_eq!((ran.end(), ran.out.as_str()), ((StageOutcome::Failure, Some("step 1 `sh`: exit code 1")), "failure yes\ncomplete yes\n"));
    let late = Stage { notify: notify(), timeout_ms: 300, ..stage("late", vec![sh("set +x; echo yes >made; sleep 1000")]) };
    let ran = office.run_assignment(&assignment(late, 1)).await;
    assert_eq!((ran.end(), ran.out.as_str()), ((StageOutcome::Failure, Some("timed out after 300ms")), "failure yes\ncomplete yes\n"));
}

#[tokio::test]
async fn a_notification_that_fails_makes_a_success_unstable_and_no_more() {
    let mut office = Office::open().await;
    let notify = || Notify { success: vec![sh("exit 9")], failure: vec![sh("exit 8")], complete: vec![sh("set +x; echo told")] };
    let ran = office.run_assignment(&assignment(Stage { notify: notify(), ..stage("good", vec![sh("true")]) }, 1)).await;
    assert_eq!((ran.end(), ran.out.as_str()), ((StageOutcome::Unstable, Some("notify: step 2 `sh`: exit code 9")), "told\n"));
    let ran = office.run_assignment(&assignment(Stage { notify: notify(), ..stage("bad", vec![sh("false")]) }, 1)).await;
    assert_eq!((ran.end(), ran.out.as_str()), ((StageOutcome::Failure, Some("step 1 `sh`: exit code 1")), "told\n"));
    assert!(ran.otto.contains("[otto] notify: step 3 `sh`: exit code 8\n"), "{}", ran.otto);
}

#[tokio::test]
async fn a_cancel_lets_a_stage_say_that_it_ended_and_force_does_not() {
    let mut office = Office::open().await;
    let stubborn = "set +x; trap '' TERM; echo up; while :; do sleep 0.05 || :; done";
    for (path, script, force, out, reason) in [
        ("order", "set +x; echo up; sleep 1000", false, "up\ncomplete yes\n", "cancelled"),
        ("force", stubborn, true, "up\n", "cancelled by force"),
    ] {
        let steps = vec![sh("echo yes >made"), sh(script), sh("echo never")];
        let assignment = assignment(Stage { notify: notify(), ..stage(path, steps) }, 1);
        office.award(&assignment).await;
        while office.chunk().await.bytes != b"up\n" {}
        office.send(AgentCommand::Cancel { lease: assignment.lease.clone(), force }).await;
        let (outcome, said) = office.result(&assignment.lease).await;
        assert_eq!((outcome, said.as_deref()), (StageOutcome::Aborted, Some(reason)));
        let (bytes, index) = office.stored(&assignment.lease).await;
        let said = crate::office::said(&bytes, &index, model::protocol::log::Stream::Out);
        assert_eq!(String::from_utf8(said).unwrap(), out);
    }
}

#[tokio::test]
async fn force_ends_what_a_cancel_in_order_has_not() {
    let mut office = Office::open().await;
    let script = "set +x; trap 'echo heard' TERM; echo up; while :; do sleep 0.05 || :; done";
    let stuck = Notify { complete: vec![sh("set +x; echo telling; sleep 1000")], ..Notify::default() };
    let assignment = assignment(Stage { notify: stuck, ..stage("a", vec![sh(script)]) }, 1);
    office.award(&assignment).await;
    assert_eq!(office.chunk().await.bytes, b"up\n");
    office.send(AgentCommand::Cancel { lease: assignment.lease.clone(), force: false }).await;
    assert_eq!(office.chunk().await.bytes, b"heard\n");
    office.send(AgentCommand::Cancel { lease: assignment.lease.clone(), force: true }).await;
    let (outcome, reason) = office.result(&assignment.lease).await;
    assert_eq!((outcome, reason.as_deref()), (StageOutcome::Aborted, Some("cancelled by force")));
    let (bytes, index) = office.stored(&assignment.lease).await;
    assert_eq!(crate::office::said(&bytes, &index, model::protocol::log::Stream::Out), b"up\nheard\n");
}
