//! The bus's disk is full: new runs are refused, nothing that was accepted is lost, and all goes on when there is room.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    house::{House, OTTO, Plan, until},
    witness::Witness,
};

const STAGES: usize = 4;
/// The stage that runs while the disk is full.
const HELD: usize = 2;
/// Of the pipeline file of a run: more than is left in any page of the disk.
const TEXT_BYTES: usize = 128 * 1024;
/// Runs that are tried while the disk is full. The first that does not fit is refused, after ten seconds.
const TRIES_MAX: usize = 8;

/// A small file system in memory under the bus's streams.
struct Disk(PathBuf);

impl Disk {
    /// `None`, said aloud, where this process may not mount one.
    fn mount(folder: &Path) -> Option<Self> {
        fs::create_dir_all(folder).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"]).arg(folder).output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            println!("SKIPPED: only the superuser can mount a small disk");
            return None;
        }
        Some(Self(folder.to_owned()))
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Until nothing more is taken.
    fn fill(&self) {
        let mut filler = fs::File::create(self.filler()).unwrap();
        while filler.write_all(&[0; 4096]).is_ok() {}
    }

    fn make_room(&self) {
        fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: the server that uses it may be ending still.
        let _unmounted = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// The run, or the code of what is in the way.
async fn create(house: &House, key: &str) -> Result<String, String> {
    let pipeline = format!("// {}\npipeline {{ stage 'A' {{ steps [ sh 'true' ] }} }}\n", "x".repeat(TEXT_BYTES));
    let request = house.request(Method::POST, "/v1/runs").header("Idempotency-Key", key).json(&json!({"pipeline": pipeline}));
    let response = request.send().await.unwrap();
    let status = response.status();
    let answer: Value = response.json().await.unwrap();
    if status.is_success() {
        return Ok(answer["run"].as_str().unwrap().to_owned());
    }
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{answer}");
    Err(answer["code"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn while_the_disk_of_the_bus_is_full_new_runs_are_refused_and_what_was_accepted_goes_on_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::mount(&folder.path().join("up/nats/jetstream")) else { return };
    let house = House::planned(folder, Plan::default()).await;
    let witness = Witness::new(&house.shared());
    let begun = house.create(&witness.pipeline(STAGES, &[HELD])).await;
    until("a stage to run", async || witness.starts(HELD) == 1).await;

    disk.fill();
    let mut accepted = Vec::new();
    let mut refused = None;
    for number in 0..TRIES_MAX {
        match create(&house, &number.to_string()).await {
            Ok(run) => accepted.push(run),
            Err(code) => {
                refused = Some((number, code));
                break;
            }
        }
    }
    let (number, code) = refused.expect("a run is refused");
    assert_eq!(code, "bus_unavailable");
    // What it leaves is told until it is stored.
    witness.open(HELD);
    until("the stage to end", async || witness.lines().contains(&format!("{HELD} end"))).await;
    let shown = house.get(&format!("/v1/runs/{begun}")).await.unwrap();
    assert_eq!(shown["status"]["kind"], "running", "{shown:#}");

    disk.make_room();
    witness.agrees_with(&house.ended(&begun).await, STAGES);
    for run in &accepted {
        assert_eq!(house.ended(run).await["status"]["outcome"], "success");
    }
    let mut again = None;
    until("a run to be accepted again", async || {
        again = create(&house, &number.to_string()).await.ok();
        again.is_some()
    })
    .await;
    assert_eq!(house.ended(&again.unwrap()).await["status"]["outcome"], "success");
    let checked = Command::new(OTTO).arg("fsck").arg("--data").arg(house.data()).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    house.end().await;
    drop(disk);
}
