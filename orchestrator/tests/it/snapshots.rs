//! A restart goes on from a snapshot where there is one of the log, and never from another.

use std::{fs, path::Path};

use model::{
    RunId, StageId, TriggerId,
    event::run::{Answer, WaitKey},
    plan::{Plan, Wait},
};
use orchestrator::{Orchestrator, engine::EngineOptions};
use serde_json::Value;
use service::Supervisor;

use crate::house::{House, is_asked, trigger, until, waiting};

/// A snapshot is taken at the thousandth record.
const ANSWERS: usize = 1_010;

async fn start(house: &House, folder: &Path) -> (Orchestrator, Supervisor) {
    house.start_with(|options| EngineOptions { snapshots: Some(folder.to_owned()), ..options }).await
}

#[tokio::test]
async fn a_long_log_is_folded_from_its_snapshot_and_from_none_of_another_log() {
    let stages = (0..=ANSWERS).map(|at| waiting(&at.to_string(), Wait::Pause));
    let house = House::new(Plan::new(stages.collect())).await;
    let folder = tempfile::tempdir().unwrap();
    let (first, supervisor) = start(&house, folder.path()).await;
    let trigger = trigger("1");
    first.create(&trigger).await.unwrap();
    let id = trigger.run();
    until(&first, &trigger, "all questions", |run| (0..=ANSWERS).all(|at| is_asked(run, &at.to_string()))).await;
    for at in 0..ANSWERS {
        first.answer(&id, &StageId::of(&at.to_string()), WaitKey::Itself, Answer::Resumed, Some("ann")).await.unwrap();
    }
    let file = folder.path().join(format!("{id}.json"));
    testkit::wait_for(crate::house::DEADLINE, "the snapshot", async || file.exists().then_some(())).await;
    let state = first.runs.get(&id).unwrap().run;
    supervisor.shut_down().await;

    let (second, supervisor) = start(&house, folder.path()).await;
    assert_eq!(second.runs.get(&id).unwrap().run, state, "what is folded from it is what the log says");
    supervisor.shut_down().await;
    // Whatever it says of this very record is taken: so it is read, and nothing before it is folded.
    let mut snapshot: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    snapshot["state"]["held"] = RunId::of(&TriggerId::of("test", "an older one")).to_string().into();
    fs::write(&file, snapshot.to_string()).unwrap();
    let (third, supervisor) = start(&house, folder.path()).await;
    assert!(third.runs.get(&id).unwrap().run.held.is_some());
    supervisor.shut_down().await;
    // Of another record, it says nothing.
    snapshot["digest"] = model::Digest::of(b"another").to_string().into();
    fs::write(&file, snapshot.to_string()).unwrap();
    let (last, supervisor) = start(&house, folder.path()).await;
    assert_eq!(last.runs.get(&id).unwrap().run, state);
    assert!(!file.exists(), "it was thrown away");
    last.cancel(&id, "ann", true).await.unwrap();
    supervisor.shut_down().await;
}
