//! Bounds on what is under way, and a full depot: new runs are refused with a reason, and nothing that was accepted is lost.

use std::{fs, path::Path, process::Command};

use blob::{Blobs, DiskStore, Durability};
use model::{
    StageId,
    event::run::{Answer, WaitKey},
    plan::{Plan, Wait},
    trigger::Trigger,
};
use orchestrator::{
    CommandError, Orchestrator,
    admission::{Bounds, Full},
    engine::EngineOptions,
};
use serde_json::json;
use testkit::wait_for;

use crate::house::{DEADLINE, House, ended, is_asked, outcome, planned, refusal, trigger, until, waiting};

fn hold() -> Plan {
    Plan::new(vec![waiting("Hold", Wait::Pause)])
}

async fn resume(orchestrator: &Orchestrator, trigger: &Trigger) {
    orchestrator.answer(&trigger.run(), &StageId::of("Hold"), WaitKey::Itself, Answer::Resumed, None).await.unwrap();
    ended(orchestrator, trigger).await;
}

#[tokio::test]
async fn over_the_bound_new_runs_are_refused_and_stored_triggers_wait_for_their_turn() {
    let house = House::new(hold()).await;
    let bounds = Bounds { open_runs: 2, ..Bounds::default() };
    let (orchestrator, supervisor) = house.start_with(|options| EngineOptions { bounds: Some(bounds), ..options }).await;
    let api = house.serve(&orchestrator);
    let [first, second, third, told] = ["1", "2", "3", "told by a forge"].map(trigger);
    for trigger in [&first, &second] {
        orchestrator.create(trigger).await.unwrap();
        until(&orchestrator, trigger, "the question", |run| is_asked(run, "Hold")).await;
    }
    let refused = orchestrator.create(&third).await.unwrap_err();
    assert!(matches!(refused, CommandError::Full(Full::Runs { open: 2, max: 2 })), "{refused:?}");
    let body = json!({ "pipeline": "pipeline {}" });
    assert_eq!(refusal(api.post("/v1/runs", &body).await), (503, "too_busy".to_owned()));
    assert_eq!(orchestrator.create(&first).await.unwrap(), first.run(), "it is there already");
    // What somebody else has accepted waits in the stream.
    house.bus.store_trigger(&told).await.unwrap();
    assert!(orchestrator.runs.get(&told.run()).is_none());
    let (status, text) = api.get("/metrics").await;
    assert!(status == 200 && text.as_str().unwrap().contains("otto_runs_open 2"), "{text}");
    resume(&orchestrator, &first).await;
    until(&orchestrator, &told, "its turn", |run| is_asked(run, "Hold")).await;
    assert!(orchestrator.create(&third).await.is_err(), "its place is taken");
    resume(&orchestrator, &told).await;
    orchestrator.create(&third).await.unwrap();
    until(&orchestrator, &third, "the question", |run| is_asked(run, "Hold")).await;
    supervisor.shut_down().await;
}

/// A small file system of its own, as long as this lives; `None` where the test may not make one.
struct Small(tempfile::TempDir);

impl Small {
    #[expect(clippy::disallowed_methods, reason = "the test has a disk of its own, not the orchestrator")]
    fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(folder.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all that is free but so many bytes.
    fn fill(&self, but: u64) {
        let free = rustix::fs::statvfs(self.path()).map(|found| found.f_bavail * found.f_frsize).unwrap();
        fs::write(self.path().join("filler"), vec![b'x'; usize::try_from(free.saturating_sub(but)).unwrap()]).unwrap();
    }

    fn empty(&self) {
        fs::remove_file(self.path().join("filler")).unwrap();
    }
}

impl Drop for Small {
    #[expect(clippy::disallowed_methods, reason = "the test has a disk of its own, not the orchestrator")]
    fn drop(&mut self) {
        let _it_goes_with_the_machine = Command::new("umount").arg("--lazy").arg(self.path()).output();
    }
}

/// Waits until a run of its own is taken, or is not.
async fn until_taken(orchestrator: &Orchestrator, is_taken: bool) -> Trigger {
    let mut number = 0;
    wait_for(DEADLINE, "the orchestrator to see how much room there is", async || {
        number += 1;
        let tried = trigger(&format!("try {number} {is_taken}"));
        match orchestrator.create(&tried).await {
            Ok(_) => is_taken.then_some(tried),
            Err(CommandError::Full(Full::Depot { .. })) => (!is_taken).then_some(tried),
            Err(CommandError::Full(_)) => None,
            Err(other) => panic!("{other:?}"),
        }
    })
    .await
}

#[tokio::test]
async fn while_the_depots_disk_is_full_no_run_is_accepted_and_those_that_were_go_on_when_there_is_room() {
    const RESERVE: u64 = 2 * 1024 * 1024;
    let Some(small) = Small::mount("8m") else {
        eprintln!("not tried: this user may mount nothing");
        return;
    };
    let mut house = House::without_parser(eventbus::memory::bus()).await;
    let two = Plan::new(vec![waiting("Hold", Wait::Pause), waiting("Other", Wait::Pause)]);
    house.play_parser_with(move |request| planned(if request.path == "Other" { two.clone() } else { hold() }, None)).await;
    house.blobs = Blobs::Disk(DiskStore::open(&small.path().join("depot"), Durability::Fsync).unwrap());
    let bounds = Bounds { depot_free_bytes: RESERVE, ..Bounds::default() };
    let (orchestrator, supervisor) = house.start_with(|options| EngineOptions { bounds: Some(bounds), ..options }).await;
    let api = house.serve(&orchestrator);
    let open = trigger("open");
    orchestrator.create(&open).await.unwrap();
    until(&orchestrator, &open, "the question", |run| is_asked(run, "Hold")).await;

    // Below the reserve, what has begun goes on.
    small.fill(RESERVE / 2);
    until_taken(&orchestrator, false).await;
    let (status, problem) = api.post("/v1/runs", &json!({ "pipeline": "pipeline {}" })).await;
    assert_eq!((status, problem["code"].as_str()), (503, Some("depot_full")), "{problem}");
    resume(&orchestrator, &open).await;
    small.empty();
    let next = until_taken(&orchestrator, true).await;
    until(&orchestrator, &next, "the question", |run| is_asked(run, "Hold")).await;

    // With no byte left, a trigger that was accepted elsewhere waits; its plan is new to the depot.
    small.fill(0);
    let told = Trigger { pipeline_path: "Other".to_owned(), ..trigger("told by a forge") };
    house.bus.store_trigger(&told).await.unwrap();
    until_taken(&orchestrator, false).await;
    assert!(orchestrator.runs.get(&told.run()).is_none(), "its plan has no place");
    small.empty();
    let told = until(&orchestrator, &told, "its turn", |run| is_asked(run, "Hold")).await;
    assert_eq!(outcome(&told.run), None);
    supervisor.shut_down().await;
}
