//! Artifacts are listed, and brought out of the depot.

use std::collections::BTreeMap;

use apispec::ArtifactList;
use model::event::run::StoredTree;

use super::*;

async fn left(served: &Served, bytes: &'static str) -> Outputs {
    let archive = served.orchestrator.blobs.put(Bytes::from(bytes)).await.unwrap();
    let tree = StoredTree { archive, bytes: bytes.len() as u64, entries: 1 };
    Outputs { artifacts: BTreeMap::from([("bin/x86".to_owned(), tree)]), ..Outputs::default() }
}

/// The end of a stage that has left this.
fn ended(path: &str, left: Outputs) -> RunEvent {
    let RunEvent::StageFinished { stage, attempt, outcome, reason, started_at, finished_at, outputs: _ } = finished(path) else {
        unreachable!("it is one");
    };
    RunEvent::StageFinished { stage, attempt, outcome, reason, started_at, finished_at, outputs: left }
}

/// A run whose two stages have left an artifact of one name.
async fn built(served: &Served) -> Run {
    let mut run = served.begin("one", &["Build", "Pack"], 1);
    served.append(&mut run, 2, vec![awarded("Build")]);
    let ready = RunEvent::StageReady { stage: StageId::of("Pack"), attempt: 1 };
    let build = left(served, "an archive").await;
    served.append(&mut run, 3, vec![ended("Build", build), ready, awarded("Pack")]);
    let pack = left(served, "another").await;
    served.append(&mut run, 4, vec![ended("Pack", pack), END]);
    run
}

#[tokio::test]
async fn an_artifact_is_its_archive_and_the_last_stage_that_left_one_counts() {
    let served = Served::start();
    let run = built(&served).await;
    let list: ArtifactList = served.read(&format!("/v1/runs/{}/artifacts", run.id)).await;
    let shown: Vec<_> = list.artifacts.iter().map(|one| (one.stage.path.as_str(), one.name.as_str(), one.bytes)).collect();
    assert_eq!(shown, [("Build", "bin/x86", 10), ("Pack", "bin/x86", 7)]);
    let path = |query: &str| format!("/v1/runs/{}/artifact?{query}", run.id);
    let response = served.get(&path("name=bin/x86")).await;
    assert_eq!((response.status(), response.headers()["content-type"].to_str().unwrap()), (StatusCode::OK, "application/x-tar"));
    assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    assert_eq!((response.content_length(), response.text().await.unwrap().as_str()), (Some(7), "another"));
    assert_eq!(served.text(&path("name=bin/x86&stage=Build")).await, "an archive");
    for (query, code) in [
        ("name=bin", Code::UnknownArtifact),
        ("name=../../etc/passwd", Code::UnknownArtifact),
        ("name=bin/x86&stage=Nowhere", Code::UnknownStage),
        ("stage=Build", Code::InvalidQuery),
    ] {
        check_problem(served.get(&path(query)).await, code).await;
    }
}

#[tokio::test]
async fn an_artifact_whose_bytes_are_gone_is_not_half_sent() {
    let served = Served::start();
    let mut run = served.begin("one", &["Build"], 1);
    let tree = StoredTree { archive: Digest::of(b"gone"), bytes: 4, entries: 1 };
    let outputs = Outputs { artifacts: BTreeMap::from([("bin".to_owned(), tree)]), ..Outputs::default() };
    served.append(&mut run, 2, vec![awarded("Build")]);
    served.append(&mut run, 3, vec![ended("Build", outputs), END]);
    check_problem(served.get(&format!("/v1/runs/{}/artifact?name=bin", run.id)).await, Code::DepotUnavailable).await;
}
