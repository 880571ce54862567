//! The commands against the services: what is sent, followed, asked and ended from a laptop.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::house::{House, OTTO, exited, until};

/// A working tree with a pipeline that reads it.
fn folder(pipeline: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("Ottofile"), pipeline).unwrap();
    fs::write(folder.path().join("input"), "from the working tree\n").unwrap();
    fs::write(folder.path().join("lists.json"), r#"["one", "two"]"#).unwrap();
    folder
}

fn command(house: &House, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(OTTO);
    command.args(arguments).current_dir(folder).envs(house.client_env()).stdin(Stdio::null());
    command
}

fn otto(house: &House, folder: &Path, arguments: &[&str]) -> Output {
    command(house, folder, arguments).output().unwrap()
}

/// The exit code, and all that was printed.
fn said(output: &Output) -> (i32, String) {
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap(), text)
}

/// What a command prints, line by line, while it goes on.
struct Printed {
    child: Child,
    file: std::path::PathBuf,
}

impl Printed {
    fn start(house: &House, name: &str, folder: &Path, arguments: &[&str]) -> Self {
        let file = house.scratch().join(name);
        let out = fs::File::create(&file).unwrap();
        let child = command(house, folder, arguments).stdout(out.try_clone().unwrap()).stderr(out).spawn().unwrap();
        Self { child, file }
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.file).unwrap()
    }

    async fn says(&self, what: &str) {
        until(&format!("`{what}` to be printed"), async || self.text().contains(what)).await;
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }
}

impl Drop for Printed {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// What the API answers: a connection that nobody has used for some seconds is closed, and made again.
async fn got(house: &House, path: &str) -> Value {
    let mut answer = None;
    until(&format!("an answer to {path}"), async || {
        answer = house.get(path).await;
        answer.is_some()
    })
    .await;
    answer.unwrap()
}

/// The one run that there is.
async fn only_run(house: &House) -> String {
    let list = got(house, "/v1/runs").await;
    let runs = list["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 1, "{list}");
    runs[0]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_working_tree_is_run_by_the_services_and_ends_as_it_would_here() {
    let house = House::start(1).await;
    // What is read at planning is read of what is sent: a list, and which files there are.
    let tree = folder(
        "pipeline { each(name: json('lists.json')) { stage 'Show' { steps [ sh 'cat input' ] cache { kept = { paths = ['kept/'] key = files('input') } } } } }",
    );
    let (code, text) = said(&otto(&house, tree.path(), &["run", "--remote", "--project", "web"]));
    assert!(code == 0 && text.contains("│ from the working tree") && text.contains("run: success"), "{code}: {text}");
    let run = only_run(&house).await;
    let shown = got(&house, &format!("/v1/runs/{run}")).await;
    assert_eq!((&shown["project"], &shown["event"]), (&"web".into(), &"manual".into()), "{shown}");
    let trusted = house.events(&run).await[0]["event"]["trigger"]["claims"]["trust"].clone();
    assert_eq!(trusted, "untrusted", "anybody may have written it");

    // As JSON, and with the tree that lies in the depot already.
    let output = otto(&house, tree.path(), &["run", "--remote", "--json"]);
    let lines: Vec<Value> = output.stdout.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    assert!(lines[0]["run"].is_string() && lines.last().unwrap()["end"]["outcome"] == "success", "{output:?}");
    assert!(lines.iter().any(|line| line["chunk"].is_object()) && lines.iter().any(|line| line["event"].is_object()), "{output:?}");

    let fails = folder("pipeline { stage 'Fails' { steps [ sh 'exit 7' ] } }");
    let (code, text) = said(&otto(&house, fails.path(), &["run", "--remote"]));
    assert!(code == 1 && text.contains("run: failure"), "{code}: {text}");
    let wrong = folder("pipeline { stage 'A' { steps [ shh 'x' ] } }");
    let (code, text) = said(&otto(&house, wrong.path(), &["run", "--remote"]));
    assert!(code == 2 && text.contains("shh"), "{code}: {text}");
    let runs = got(&house, "/v1/runs").await;
    assert_eq!(runs["runs"].as_array().unwrap().len(), 3, "what is refused is not sent: {runs}");
    // One that somebody else sent is followed to the same end.
    let sent = house.create("pipeline { stage 'A' { steps [ shh 'x' ] } }").await;
    for command in ["log", "events"] {
        let (code, text) = said(&otto(&house, wrong.path(), &[command, "-f", &sent]));
        assert!(code == 2, "{command}: {code}: {text}");
    }

    let detached = otto(&house, tree.path(), &["run", "--remote", "--detach"]);
    let id = String::from_utf8_lossy(&detached.stdout).trim().to_owned();
    assert_eq!(house.ended(&id).await["status"]["outcome"], "success", "{detached:?}");
    let (code, text) = said(&otto(&house, tree.path(), &["show", "--timing", &id]));
    assert!(code == 0 && text.contains("* the critical path: ") && text.contains("PREPARE"), "{text}");
    let timing: Value = serde_json::from_slice(&otto(&house, tree.path(), &["show", "--timing", "--json", &id]).stdout).unwrap();
    let stages = timing["stages"].as_array().unwrap();
    assert!(stages.len() == 2 && stages.iter().all(|stage| stage["steps_ms"].is_u64() && stage["agent"] == "agent-1"), "{timing}");
    assert_eq!(timing["critical_path"].as_array().unwrap().len(), 1, "{timing}");
    house.end().await;
}

#[tokio::test]
async fn what_a_run_on_the_services_asks_is_answered_from_here_if_the_token_may() {
    let house = House::start(1).await;
    let tree = folder("pipeline { stage 'Ship' { gates { enter { input 'Ship it?' } } steps [ sh 'echo shipped' ] } }");
    let (code, text) = said(&otto(&house, tree.path(), &["run", "--remote", "--yes"]));
    assert!(code == 0 && text.contains("│ shipped"), "{code}: {text}");
    // Nobody is here: it waits there, and somebody else answers.
    let (code, text) = said(&otto(&house, tree.path(), &["run", "--remote"]));
    let run = got(&house, "/v1/runs?limit=1").await["runs"][0]["id"].as_str().unwrap().to_owned();
    assert!(code == 6 && text.contains(&format!("otto approve {run} 'Ship'")), "{code}: {text}");
    let mut events = Printed::start(&house, "events", tree.path(), &["events", "-f", &run]);
    let (code, text) = said(&otto(&house, tree.path(), &["approve", &run]));
    assert!(code == 0 && text.contains("approved"), "{text}");
    assert!(exited(&mut events.child).await.success(), "{}", events.text());
    assert!(events.text().contains("  Ship  wait answered approved by ") && events.text().contains("run finished success"));

    // A token that may run and not approve.
    let file = house.data().join("tokens.yml");
    let made = Command::new(OTTO).args(["token", "new", "ann", "--role", "run", "--file"]).arg(&file).output().unwrap();
    let token = String::from_utf8(made.stdout).unwrap();
    let with = |arguments: &[&str]| {
        let mut command = command(&house, tree.path(), arguments);
        said(&command.env_remove("OTTO_API_TOKEN_FILE").env("OTTO_API_TOKEN", token.trim()).output().unwrap())
    };
    until("the token to be known", async || with(&["runs"]).0 == 0).await;
    let (code, text) = with(&["run", "--remote", "--yes"]);
    assert!(code == 6 && text.contains("the answer was not taken") && text.contains("forbidden"), "{code}: {text}");
    house.end().await;
}

#[tokio::test]
async fn one_stage_is_run_there_and_what_failed_is_run_again_with_what_was_left_before() {
    let house = House::start(1).await;
    let shared = house.shared().display().to_string();
    let pipeline = "pipeline {
  stage 'Build' { steps [ sh 'echo built >>SHARED/built; mkdir dist; echo shipped >dist/program' archive 'dist/' ] }
  stage 'Test' { steps [ unarchive 'dist/' sh '[ -e SHARED/go ] && cat dist/program' ] }
  stage 'Other' { steps [ sh 'echo other >SHARED/other' ] }
}";
    let tree = folder(&pipeline.replace("SHARED", &shared));
    let again = || said(&otto(&house, tree.path(), &["run", "--remote", "--project", "web", "--from-failed"]));
    let (code, text) = again();
    assert!(code == 2 && text.contains("no run of Ottofile") && text.contains("the project web"), "{code}: {text}");

    let (code, text) = said(&otto(&house, tree.path(), &["run", "--remote", "--project", "web", "--stage", "Nowhere"]));
    assert!(code == 2 && text.contains("there is no stage `Nowhere`"), "{code}: {text}");
    let (code, text) = said(&otto(&house, tree.path(), &["run", "--remote", "--project", "web", "--stage", "Build"]));
    assert!(code == 0 && text.contains("Build ✔") && text.contains("Test  – skipped"), "{code}: {text}");
    let (code, text) = again();
    assert!(code == 2 && text.contains("there is nothing to run again"), "{code}: {text}");

    let (code, text) = said(&otto(&house, tree.path(), &["run", "--remote", "--project", "web"]));
    assert_eq!(code, 1, "{text}");
    let failed = got(&house, "/v1/runs?limit=1").await["runs"][0]["id"].as_str().unwrap().to_owned();
    fs::write(house.shared().join("go"), "").unwrap();
    fs::write(tree.path().join("input"), "changed\n").unwrap();
    let (code, text) = again();
    assert!(code == 2 && text.contains(&format!("the files have changed since {failed}")), "{code}: {text}");
    fs::write(tree.path().join("input"), "from the working tree\n").unwrap();
    let (code, text) = again();
    assert!(code == 0 && text.contains("│ shipped"), "{code}: {text}");
    let newest = got(&house, "/v1/runs?limit=1").await["runs"][0].clone();
    assert_eq!(newest["rerun_of"], failed.as_str(), "{newest}");
    assert_eq!(fs::read_to_string(house.shared().join("built")).unwrap(), "built\nbuilt\n", "what had succeeded was not run again");
    assert!(!house.shared().join("other").exists() || newest["status"]["outcome"] == "success");

    // What a stage has left, for whoever wants it.
    let list = got(&house, &format!("/v1/runs/{failed}/artifacts")).await;
    let name = list["artifacts"][0]["name"].as_str().unwrap();
    let (code, text) = said(&otto(&house, tree.path(), &["artifacts", &failed]));
    assert!(code == 0 && text.contains(name) && text.contains("Build"), "{code}: {text}");
    let brought = house.scratch().join("dist.tar");
    let (code, text) = said(&otto(&house, tree.path(), &["artifacts", &failed, name, "-o", brought.to_str().unwrap()]));
    assert_eq!(code, 0, "{text}");
    let unpacked = Command::new("tar").args(["-xOf", brought.to_str().unwrap()]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&unpacked.stdout), "shipped\n", "{unpacked:?}");
    let (code, text) = said(&otto(&house, tree.path(), &["artifacts", &failed, "nothing"]));
    assert!(code == 1 && text.contains("unknown_artifact"), "{code}: {text}");
    house.end().await;
}

#[tokio::test]
async fn a_project_is_started_from_what_its_source_has_now() {
    let scratch = tempfile::tempdir().unwrap();
    let bare = scratch.path().join("shop.git");
    git(scratch.path(), &["init", "--bare", "--quiet", bare.to_str().unwrap()]);
    git(scratch.path(), &["clone", "--quiet", bare.to_str().unwrap(), "work"]);
    let work = scratch.path().join("work");
    let pipeline = "parameters { target { type = string } }
pipeline { stage 'Ship' { env { TARGET = params.target } steps [ sh 'cat input; echo \"to $TARGET\"' ] } }";
    fs::write(work.join("Ottofile"), pipeline).unwrap();
    fs::write(work.join("input"), "from the repository\n").unwrap();
    git(&work, &["add", "."]);
    git(&work, &["commit", "--quiet", "--message=one"]);
    git(&work, &["push", "--quiet", "origin", "HEAD:main"]);
    let folder = tempfile::tempdir().unwrap();
    let projects = folder.path().join("up/projects");
    fs::create_dir_all(&projects).unwrap();
    fs::write(projects.join("shop.yml"), format!("source: {{ url: {} }}\n", bare.display())).unwrap();
    let house = House::planned(folder, crate::house::Plan::default()).await;

    let started = otto(&house, scratch.path(), &["start", "shop", "--branch", "main", "--param", "target=staging"]);
    let run = String::from_utf8_lossy(&started.stdout).trim().to_owned();
    assert!(started.status.success() && run.starts_with("run_"), "{started:?}");
    assert_eq!(house.ended(&run).await["status"]["outcome"], "success");
    let shown = got(&house, &format!("/v1/runs/{run}")).await;
    assert_eq!((&shown["event"], &shown["branch"], &shown["project"]), (&"manual".into(), &"main".into(), &"shop".into()), "{shown}");
    let claims = house.events(&run).await[0]["event"]["trigger"]["claims"].clone();
    assert_eq!(claims, serde_json::json!({ "trust": "trusted", "protected": true, "actor": "admin" }));
    let (code, text) = said(&otto(&house, scratch.path(), &["log", &run]));
    assert!(code == 0 && text.contains("from the repository") && text.contains("to staging"), "{text}");

    for (arguments, why) in [
        (&["start", "shop", "--branch", "gone"][..], "no branch `gone`"),
        (&["start", "shop", "--tag", "v1"], "no tag `v1`"),
        (&["start", "nobodys"], "unknown_project"),
    ] {
        let (code, text) = said(&otto(&house, scratch.path(), arguments));
        assert!(code == 1 && text.contains(why), "{code}: {text}");
    }
    house.end().await;
}

fn git(folder: &Path, arguments: &[&str]) {
    let identity = ["-c", "user.name=Ann", "-c", "user.email=ann@example.org", "-c", "init.defaultBranch=main"];
    let output = Command::new("git").args(identity).args(arguments).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "git {arguments:?}: {output:?}");
}

#[tokio::test]
async fn ctrl_c_ends_the_run_on_the_services_in_order() {
    let house = House::start(1).await;
    let tree = folder("pipeline { stage 'Long' { steps [ sh 'echo begun; while :; do sleep 0.1; done' ] } }");
    let mut remote = Printed::start(&house, "remote", tree.path(), &["run", "--remote"]);
    remote.says("│ begun").await;
    remote.signal(Signal::SIGINT);
    assert_eq!(exited(&mut remote.child).await.code(), Some(4), "{}", remote.text());
    assert!(remote.text().contains("cancelling:") && remote.text().contains("run: aborted"), "{}", remote.text());
    let run = only_run(&house).await;
    assert_eq!(house.ended(&run).await["status"]["outcome"], "aborted");
    house.end().await;
}

#[tokio::test]
async fn events_of_all_runs_are_told_each_once_over_the_death_of_the_orchestrator() {
    let house = House::start(1).await;
    let events = Printed::start(&house, "events", house.scratch(), &["events", "-f", "--json"]);
    let other = Printed::start(&house, "other", house.scratch(), &["events", "-f", "--project", "other"]);
    let quick = "pipeline { stage 'Quick' { steps [ sh 'true' ] } }";
    // What happens before the first connection stands is not told: a run is created until one is.
    let mut first = house.create(quick).await;
    house.ended(&first).await;
    while !events.text().contains(&first) {
        first = house.create(quick).await;
        house.ended(&first).await;
    }
    let finished = |run: &str| {
        let text = events.text();
        text.lines().any(|line| line.contains(run) && line.contains("run_finished"))
    };
    until("the first run's end to be told", async || finished(&first)).await;
    house.kill("orchestrator").await;
    until("the API to be back", async || house.get("/v1/runs").await.is_some()).await;
    let second = house.create(quick).await;
    house.ended(&second).await;
    // Where the output lies is told after the end.
    let all = async || house.events(&second).await.iter().any(|event| event["event"]["kind"] == "stage_log_stored");
    until("all of the second run to be in its log", all).await;
    let wanted = house.events(&second).await;
    let told = || -> Vec<Value> {
        let text = events.text();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|event| event["run"] == second.as_str()).collect()
    };
    until("all of the second run to be told", async || told().len() >= wanted.len()).await;
    let place = |event: &Value| (event["sequence"].as_u64().unwrap(), event["index"].as_u64().unwrap());
    assert_eq!(told().iter().map(place).collect::<Vec<_>>(), wanted.iter().map(place).collect::<Vec<_>>());
    assert_eq!(told()[0]["project"], "local");
    assert_eq!(other.text(), "", "no run is of that project");
    drop((events, other));
    house.end().await;
}

#[tokio::test]
async fn a_server_that_is_not_there_and_a_token_that_is_none_are_told_with_what_to_do() {
    let house = House::start(1).await;
    let tree = folder("pipeline { steps [ sh 'true' ] }");
    for arguments in [&["run", "--remote"][..], &["events", "-f"], &["show", "--timing", "latest"], &["approve", "latest"], &["agents"]] {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let nobody = command(&house, tree.path(), arguments).env("OTTO_API_URL", format!("http://{free}")).output().unwrap();
        let (code, text) = said(&nobody);
        assert!(code == 1 && text.contains("does not answer") && text.contains("otto up"), "{arguments:?} {code}: {text}");
        let mut wrong = command(&house, tree.path(), arguments);
        let wrong = wrong.env_remove("OTTO_API_TOKEN_FILE").env("OTTO_API_TOKEN", "wrong").output().unwrap();
        let (code, text) = said(&wrong);
        assert!(code == 1 && text.contains("(unauthorized)") && text.contains("OTTO_API_TOKEN_FILE"), "{arguments:?} {code}: {text}");
    }
    house.end().await;
}
