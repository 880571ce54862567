//! From a push to a result, as a newcomer sees it.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use nix::sys::signal::Signal;

use crate::house::{House, OTTO, exited, processes_that_name, until};

#[tokio::test]
async fn the_demo_delivers_a_real_program_and_leaves_nothing() {
    let home = tempfile::tempdir().unwrap();
    let output = Command::new(OTTO)
        .arg("demo")
        .env("OTTO_HOME", testkit::otto_home())
        .env("TMPDIR", home.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    for expected in ["Build", "run_", "success"] {
        assert!(text.contains(expected), "the demo shows `{expected}`: {text}");
    }
    assert_eq!(processes_that_name(home.path()), Vec::<String>::new());
    assert_eq!(left(home.path()), Vec::<String>::new(), "the demo's folder is removed");
}

/// What lies in the folder but what podman, which agents look for, makes there for its user where that has no other place for it.
fn left(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let of_podman = ["podman-run-", "storage-run-", "containers-user-"];
    names.filter(|name| !of_podman.iter().any(|prefix| name.starts_with(prefix))).collect()
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    let identity = ["-c", "user.name=Ann", "-c", "user.email=ann@example.org", "-c", "init.defaultBranch=main"];
    let output = Command::new("git").args(identity).args(arguments).current_dir(folder).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {arguments:?}: {text}");
    text
}

/// A line of `cron` that is due every four years.
const LINE: &str = "0 0 29 2 *";

/// A bare repository that the forge knows as the project `web`, and another one that is pushed there.
fn repository(house: &House) {
    let bare = house.scratch().join("web.git");
    git(house.scratch(), &["init", "--bare", "--quiet", bare.to_str().unwrap()]);
    let project = format!("source:\n  url: {}\n", bare.display());
    std::fs::write(house.data().join("projects/web.yml"), project).unwrap();
    pipeline(house, bare.to_str().unwrap());
}

/// A repository with a pipeline in it.
fn pipeline(house: &House, origin: &str) {
    let work = house.scratch().join("web");
    git(house.scratch(), &["init", "--quiet", work.to_str().unwrap()]);
    git(&work, &["remote", "add", "origin", origin]);
    let pipeline = format!("triggers {{ push cron '{LINE}' }}\npipeline {{ stage 'Show' {{ steps [ sh 'cat message' ] }} }}\n");
    std::fs::write(work.join("Ottofile"), pipeline).unwrap();
    std::fs::write(work.join("message"), "from the commit\n").unwrap();
    git(&work, &["add", "."]);
    git(&work, &["commit", "--quiet", "-m", "a pipeline"]);
}

#[tokio::test]
async fn a_push_becomes_a_run_of_the_commit_even_if_the_forge_was_away() {
    let house = House::start(1).await;
    repository(&house);
    // The forge reads its projects when it starts.
    house.kill("forge").await;
    let bare = house.scratch().join("web.git");
    let installed = Command::new(OTTO).args(["hook", "install"]).arg(&bare).arg("--data").arg(house.data()).output().unwrap();
    assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
    house.signal("forge", Signal::SIGSTOP);
    let pushed = git(&house.scratch().join("web"), &["push", "--quiet", "origin", "main"]);
    house.signal("forge", Signal::SIGCONT);
    let run = async || house.get("/v1/runs").await.is_some_and(|list| !list["runs"].as_array().unwrap().is_empty());
    until("the push to become a run", run).await;
    let list = house.get("/v1/runs").await.unwrap();
    assert_eq!(list["runs"].as_array().unwrap().len(), 1, "{list}");
    let id = list["runs"][0]["id"].as_str().unwrap().to_owned();
    let ended = house.ended(&id).await;
    assert_eq!((&ended["status"]["outcome"], &ended["project"]), (&"success".into(), &"web".into()), "{ended:#}\n{pushed}");
    assert_eq!(ended["branch"], "main");
    let log = house.request(reqwest::Method::GET, &format!("/v1/runs/{id}/log")).send().await.unwrap().text().await.unwrap();
    assert!(log.contains("from the commit"), "{log}");
    let known = async || std::fs::read_to_string(house.data().join("forge/cron/web.json")).is_ok_and(|text| text.contains(LINE));
    until("the forge to have asked the parser for the lines of cron", known).await;
    house.end().await;
}

#[tokio::test]
async fn a_team_without_a_forge_pushes_to_otto_itself() {
    let house = House::start(1).await;
    let otto = |arguments: &[&str], file: &Path| {
        let output = Command::new(OTTO).args(arguments).arg(file).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (_, said) = otto(&["repo", "create", "web", "--data"], &house.data());
    let (token, _) = otto(&["token", "new", "ann", "--role", "run", "--project", "web", "--file"], &house.data().join("tokens.yml"));
    let url = said.split(' ').next().unwrap().replace("http://", &format!("http://ann:{}@", token.trim()));
    pipeline(&house, &url);
    // The forge reads its projects when it starts.
    house.kill("forge").await;
    let work = house.scratch().join("web");
    let is_served = async || Command::new("git").args(["ls-remote", "origin"]).current_dir(&work).output().unwrap().status.success();
    until("the repository to be served", is_served).await;
    git(&work, &["push", "--quiet", "origin", "main"]);
    let run = async || house.get("/v1/runs").await.is_some_and(|list| !list["runs"].as_array().unwrap().is_empty());
    until("the push to become a run", run).await;
    let list = house.get("/v1/runs").await.unwrap();
    let ended = house.ended(list["runs"][0]["id"].as_str().unwrap()).await;
    assert_eq!((&ended["status"]["outcome"], &ended["project"], &ended["branch"]), (&"success".into(), &"web".into(), &"main".into()));
    house.end().await;
}

#[tokio::test]
async fn the_commands_show_follow_and_cancel_a_run() {
    let house = House::start(1).await;
    let pipeline = "pipeline { stage 'Long' { steps [ sh 'echo begun; while :; do sleep 0.1; done' ] } }";
    let run = house.create(pipeline).await;
    let running = async || house.get(&format!("/v1/runs/{run}")).await.is_some_and(|run| run["stages"][0]["status"]["kind"] == "running");
    until("the stage to run", running).await;
    let otto = |arguments: &[&str]| {
        let mut command = Command::new(OTTO);
        command.args(arguments).envs(house.client_env()).stdin(Stdio::null());
        command
    };
    let runs = otto(&["runs"]).output().unwrap();
    assert!(String::from_utf8_lossy(&runs.stdout).contains(&run), "{runs:?}");
    let mut follower = otto(&["log", "-f", &run]).stdout(Stdio::piped()).spawn().unwrap();
    let cancelled = otto(&["cancel", "latest"]).output().unwrap();
    assert!(cancelled.status.success(), "{cancelled:?}");
    let ended = house.ended(&run).await;
    assert_eq!(ended["status"]["outcome"], "aborted");
    exited(&mut follower).await;
    let mut followed = String::new();
    std::io::Read::read_to_string(&mut follower.stdout.take().unwrap(), &mut followed).unwrap();
    assert!(followed.contains("begun") && followed.contains("aborted"), "{followed}");
    let show = otto(&["show", &run]).output().unwrap();
    assert!(String::from_utf8_lossy(&show.stdout).contains("aborted"), "{show:?}");
    house.end().await;
}
