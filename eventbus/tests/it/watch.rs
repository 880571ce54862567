//! What the role sees of a bus that is not well: a full disk, and triggers that nobody takes.

use std::{path::Path, process::Command};

use eventbus::{BusError, nats::setup::Progress, subject::Role};
use model::RunId;
use serde_json::Value;
use tempfile::TempDir;
use testkit::{NatsServer, TEST_DEADLINE, wait_for};
use tokio::time::timeout;

use crate::buses::{all_logs, bytes, run, trigger};

/// Bytes of one record: some of them fill the disk.
const RECORD_BYTES: usize = 256 * 1024;
/// Records that are tried: far more than the disk takes.
const RECORDS_MAX: usize = 256;

/// A file system of its own in memory.
struct Disk(TempDir);

impl Disk {
    /// `None`, said aloud, where this process may not mount one.
    fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"], folder.path());
        if !mounted {
            println!("SKIPPED: only the superuser can mount a small disk");
        }
        mounted.then_some(Self(folder))
    }

    fn grow(&self, size: &str) {
        assert!(mount(&["-o", &format!("remount,size={size}")], self.0.path()));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: the server that uses it may be ending still.
        let _unmounted = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

fn mount(arguments: &[&str], folder: &Path) -> bool {
    Command::new("mount").args(arguments).arg(folder).output().is_ok_and(|output| output.status.success())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_of_nothing_acknowledged_is_lost_and_all_is_well_after_a_restart_with_room() {
    let Some(disk) = Disk::mount("8m") else { return };
    let store = disk.0.path().join("store");
    let mut server = NatsServer::start_bare(|config| {
        let mut config: Value = serde_json::from_str(&config).unwrap();
        config["jetstream"]["store_dir"] = store.to_str().unwrap().into();
        config.to_string()
    })
    .await;
    server.set_up().await;
    let (setup, mut last) = (server.setup().await, Progress::default());
    assert_eq!(setup.symptoms(&mut last).await.unwrap(), Vec::<String>::new());
    let orchestrator = server.bus(Role::Orchestrator).await;
    let append = async |number: usize| {
        let id = run(&number.to_string());
        orchestrator.append(&id, 0, bytes(vec![b'x'; RECORD_BYTES])).await.map(|_| id)
    };
    let mut acknowledged: Vec<RunId> = Vec::new();
    for number in 0..RECORDS_MAX {
        match append(number).await {
            Ok(id) => acknowledged.push(id),
            Err(_full) => break,
        }
    }
    assert!(!acknowledged.is_empty() && acknowledged.len() < RECORDS_MAX, "{}", acknowledged.len());
    let symptoms = wait_for(TEST_DEADLINE, "the server to say so", async || {
        Some(setup.symptoms(&mut last).await.unwrap()).filter(|symptoms| !symptoms.is_empty())
    })
    .await;
    assert!(symptoms[0].contains("no space left on device"), "{symptoms:?}");

    // Room alone does not help: the server must be started again, as its guard does.
    disk.grow("64m");
    assert!(!setup.symptoms(&mut last).await.unwrap().is_empty());
    server.restart().await;
    server.set_up().await;
    let setup = server.setup().await;
    assert_eq!(setup.symptoms(&mut last).await.unwrap(), Vec::<String>::new());
    let added = wait_for(TEST_DEADLINE, "the next record", async || append(RECORDS_MAX).await.ok()).await;
    let mut kept: Vec<RunId> = all_logs(&orchestrator).await.into_iter().map(|(run, ..)| run).collect();
    kept.retain(|id| acknowledged.contains(id) || *id == added);
    acknowledged.push(added);
    kept.sort();
    acknowledged.sort();
    assert_eq!(kept, acknowledged);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn triggers_that_nobody_takes_from_one_look_to_the_next_are_told_of() -> Result<(), BusError> {
    let server = NatsServer::start().await;
    let (setup, mut last, forge) = (server.setup().await, Progress::default(), server.bus(Role::Forge).await);
    assert_eq!(setup.symptoms(&mut last).await.unwrap(), Vec::<String>::new());
    assert_eq!(setup.symptoms(&mut last).await.unwrap(), Vec::<String>::new(), "nothing waits");
    for number in ["1", "2"] {
        forge.store_trigger(&trigger(number)).await?;
    }
    assert_eq!(setup.symptoms(&mut last).await.unwrap(), Vec::<String>::new(), "they may just have come");
    assert_eq!(setup.symptoms(&mut last).await.unwrap(), ["2 triggers wait, and no orchestrator takes them"]);
    let mut triggers = server.bus(Role::Orchestrator).await.triggers().await?;
    for _ in 0..2 {
        timeout(TEST_DEADLINE, triggers.next()).await.unwrap().unwrap().done().await?;
    }
    wait_for(TEST_DEADLINE, "the bus to be well", async || setup.symptoms(&mut last).await.unwrap().is_empty().then_some(())).await;
    Ok(())
}
