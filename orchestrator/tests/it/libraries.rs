//! Step libraries, from the source or the depot to the agent that runs them.

use std::{collections::BTreeMap, io::Write as _};

use flate2::{Compression, write::GzEncoder};
use model::{
    Digest,
    event::run::Planned,
    lock::Lock,
    plan::{Plan, Stage, Step},
    planning::{PlanReply, PlanRequest, Text},
    trigger::Trigger,
};

use crate::house::{House, ended, planned, trigger};

const ADDRESS: &str = "https://example.org/steps/far@1.0";
const MANIFEST: &str = "symbol: far";

fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o755);
        builder.append_data(&mut header, path, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

fn packed() -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&archive(&[("manifest.yml", MANIFEST.as_bytes()), ("run", b"#!/bin/sh")])).unwrap();
    encoder.finish().unwrap()
}

/// Asks for what the parser asks for, and plans a step of each library.
fn parser(packed: Digest) -> impl Fn(&PlanRequest) -> PlanReply {
    move |request| {
        let wanted = [format!("{}/.sha256", "x.tar.gz"), "x.tar.gz/manifest.yml".to_owned(), ADDRESS.to_owned()];
        let missing: Vec<String> = wanted.iter().filter(|path| !request.files.contains_key(*path)).cloned().collect();
        if !missing.is_empty() {
            return PlanReply::Needs { files: missing };
        }
        let texts = [packed.to_string(), MANIFEST.to_owned(), MANIFEST.to_owned()];
        let given: Vec<_> = wanted.iter().map(|path| request.files[path].clone()).collect();
        assert_eq!(given, texts.map(|text| Some(Text::Inline(text))));
        let step = |library: &str| Step::new(library, "far", BTreeMap::new());
        let both = Stage { steps: vec![step("./steps/far"), step("./x.tar.gz")], ..Stage::new("Both") };
        let far = Stage { steps: vec![step(ADDRESS)], ..Stage::new("Far") };
        let mut plan = Plan::new(vec![both, far]);
        plan.libraries = BTreeMap::from([
            ("./steps/far".to_owned(), Digest::of(b"a listing")),
            ("./x.tar.gz".to_owned(), packed),
            (ADDRESS.to_owned(), packed),
            ("stdlib".to_owned(), Digest::of(b"the program")),
        ]);
        planned(plan, None)
    }
}

async fn pushed(house: &House, name: &str) -> Trigger {
    let files: &[(&str, &[u8])] =
        &[("steps/far/run", b"#!/bin/sh"), ("steps/far/manifest.yml", b"m"), ("x.tar.gz", &packed()), ("y", b"y")];
    let source = house.blobs.put(archive(files).into()).await.unwrap();
    let lock = Lock::of_libraries(BTreeMap::from([(ADDRESS.to_owned(), Digest::of(&packed()))]));
    Trigger { source: Some(source), lock: Some(Text::Inline(lock.text())), ..trigger(name) }
}

#[tokio::test]
async fn an_agent_is_told_the_archives_of_the_libraries_that_its_stage_uses() {
    let house = House::without_parser(eventbus::memory::bus()).await;
    house.play_parser_with(parser(Digest::of(&packed()))).await;
    let trigger = pushed(&house, "libraries").await;
    house.blobs.put(packed().into()).await.unwrap();
    let mut inbox = house.inbox().await;
    let (orchestrator, _supervisor) = house.start().await;
    orchestrator.create(&trigger).await.unwrap();
    for _ in 0..2 {
        let assignment = inbox.assignment(None).await;
        let archives: Vec<(&str, Digest)> = assignment.libraries.iter().map(|(name, digest)| (name.as_str(), *digest)).collect();
        if assignment.stage.path == "Far" {
            assert_eq!(archives, [(ADDRESS, Digest::of(&packed()))]);
        } else {
            let [("./steps/far", folder), ("./x.tar.gz", file)] = *archives.as_slice() else { panic!("{archives:?}") };
            assert_eq!(house.blobs.get(&folder).await.unwrap(), {
                let mut source = std::io::Cursor::new(house.blobs.get(&trigger.source.unwrap()).await.unwrap());
                blob::library::cut(&mut source, "steps/far").unwrap().unwrap()
            });
            assert_eq!(house.blobs.get(&file).await.unwrap(), packed());
        }
        inbox.succeed(&assignment.lease).await;
    }
    ended(&orchestrator, &trigger).await;
}

#[tokio::test]
async fn a_library_that_is_not_in_the_depot_is_told_with_the_reason() {
    let house = House::without_parser(eventbus::memory::bus()).await;
    house.play_parser_with(parser(Digest::of(&packed()))).await;
    let mut trigger = pushed(&house, "missing").await;
    trigger.missing_libraries = BTreeMap::from([(ADDRESS.to_owned(), "it answers 404".to_owned())]);
    let (orchestrator, _supervisor) = house.start().await;
    orchestrator.create(&trigger).await.unwrap();
    let run = ended(&orchestrator, &trigger).await;
    let Planned::Refused { diagnostics } = &run.planned else { panic!("{:?}", run.planned) };
    assert_eq!(diagnostics[0].code, "E0900");
    assert_eq!(diagnostics[0].message, format!("the step library {ADDRESS} is not there: it answers 404"));
}
