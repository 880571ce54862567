//! Backup and restore, done as `docs/operation.md` says: the folder is lost, and its copy goes on.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::house::{House, OTTO, Plan, until};

const SAYS: &str = "pipeline { stage 'Say' { steps [ sh 'echo words that are kept' ] } }";
const HOLDS: &str = "pipeline {
  stage 'Before' { steps [ sh 'echo before' ] }
  pause
  stage 'After' { steps [ sh 'echo after' ] }
}";

/// A house whose logs go to the depot when one newer run has ended.
fn plan() -> Plan<'static> {
    Plan { settings: &[("OTTO_RUNS_KEPT", "1")], ..Plan::default() }
}

fn otto(house: &House, arguments: &[&str]) -> (i32, String) {
    let output = Command::new(OTTO).args(arguments).envs(house.client_env()).env("OTTO_HOME", house.scratch()).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn what_no_run_names_is_swept_and_what_runs_name_stays_however_old_it_is() {
    let house = House::start(1).await;
    let run = house.create("pipeline { stage 'Build' { steps [ sh 'mkdir dist; echo x >dist/a' archive 'dist/' ] } }").await;
    house.ended(&run).await;
    let brought = house.request(reqwest::Method::POST, "/v1/sources").body("nobody names this").send().await.unwrap();
    assert_eq!(brought.status(), 201);
    let stored = || files(&house.data().join("depot/sha256"));
    for file in stored() {
        fs::File::open(file).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    }
    let holds = |text: &str| stored().iter().any(|file| fs::read(file).unwrap() == text.as_bytes());
    assert!(holds("nobody names this"));
    let (code, text) = otto(&house, &["fsck", "--sweep", "--data", house.data().to_str().unwrap()]);
    assert!(code == 0 && text.contains("that no run names"), "{code}: {text}");
    assert!(!holds("nobody names this"), "{text}");
    let (code, report) = fsck(&house);
    assert_eq!((code, &report["missing"]), (0, &0.into()), "{report}");
    let list = house.get(&format!("/v1/runs/{run}/artifacts")).await.unwrap();
    let artifact = house.request(reqwest::Method::GET, &format!("/v1/runs/{run}/artifact"));
    let artifact = artifact.query(&[("name", list["artifacts"][0]["name"].as_str().unwrap())]).send().await.unwrap();
    assert_eq!(artifact.status(), 200);
    house.end().await;
}

/// Every file below the folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// What `otto fsck` finds, and how it ends.
fn fsck(house: &House) -> (i32, Value) {
    let (code, text) = otto(house, &["fsck", "--bytes", "--json", "--data", house.data().to_str().unwrap()]);
    (code, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(copied.success());
}

#[tokio::test]
async fn a_copy_of_the_folder_has_all_runs_and_goes_on_with_those_that_were_open() {
    let mut house = House::planned(tempfile::tempdir().unwrap(), plan()).await;
    let old = house.create(SAYS).await;
    house.ended(&old).await;
    let newer = house.create(SAYS).await;
    house.ended(&newer).await;
    let open = house.create(HOLDS).await;
    let waits = async |house: &House| house.get("/v1/waits").await.is_some_and(|waits| waits.to_string().contains(&open));
    until("the run to pause", async || waits(&house).await).await;
    until("the oldest log to lie in the depot", async || fsck(&house).1["archived"] == 1).await;
    let shown = house.get(&format!("/v1/runs/{old}")).await.unwrap();
    house.stop().await;

    let elsewhere = tempfile::tempdir().unwrap();
    copy(&house.data(), &elsewhere.path().join("up"));
    drop(house);
    let house = House::planned(elsewhere, plan()).await;
    let (code, report) = fsck(&house);
    assert_eq!((code, &report["runs"], &report["archived"], &report["open"]), (0, &3.into(), &1.into(), &1.into()), "{report}");
    let runs = house.get("/v1/runs").await.unwrap();
    assert!([&newer, &open].iter().all(|run| runs.to_string().contains(*run)), "{runs}");
    assert_eq!(house.get(&format!("/v1/runs/{old}")).await.unwrap(), shown);
    let (code, log) = otto(&house, &["log", &old]);
    assert!(code == 0 && log.contains("words that are kept"), "{code} {log}");

    // Its agents know their keys, and what was open goes on.
    let (code, said) = otto(&house, &["resume", &open]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(house.ended(&open).await["status"]["outcome"], "success");
    let (code, again) = otto(&house, &["rerun", &old]);
    assert_eq!(code, 0, "{again}");
    house.end().await;
}
