//! Backup and restore, done as `docs/operation.md` says: the folder is lost, and its copy goes on.

use std::{path::Path, process::Command};

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
