//! What `otto fsck` finds.

use eventbus::StoredRecord;
use model::{
    Digest, RunId, StageId, Timestamp,
    event::{
        archive::{ARCHIVE_SCHEMA, ArchivedLog, LogPart},
        run::{Answer, Planned, WaitKey},
    },
    plan::{Plan, Wait},
    planning::Text,
    trigger::Trigger,
};
use orchestrator::fsck::{Depth, Kind, Report, check};

use crate::house::{House, ended, is_asked, trigger, until, waiting};

async fn look(house: &House) -> Report {
    check(&house.bus, &house.blobs, Depth::Bytes).await.unwrap()
}

#[tokio::test]
async fn what_is_gone_or_damaged_is_named_and_what_is_sound_is_not() {
    let house = House::new(Plan::new(vec![waiting("Hold", Wait::Pause)])).await;
    let (orchestrator, supervisor) = house.start().await;
    let source = house.blobs.put("the source".into()).await.unwrap();
    let stored = Text::Depot(house.blobs.put("pipeline {}".into()).await.unwrap());
    let (over, open, broken) =
        (Trigger { source: Some(source), ..trigger("1") }, Trigger { pipeline: stored, ..trigger("2") }, trigger("3"));
    for trigger in [&over, &open, &broken] {
        orchestrator.create(trigger).await.unwrap();
        until(&orchestrator, trigger, "the question", |run| is_asked(run, "Hold")).await;
    }
    orchestrator.answer(&over.run(), &StageId::of("Hold"), WaitKey::Itself, Answer::Resumed, None).await.unwrap();
    let run = ended(&orchestrator, &over).await;
    supervisor.shut_down().await;
    let report = look(&house).await;
    assert!(report.is_sound() && report.findings.is_empty(), "{report:?}");
    assert_eq!((report.runs, report.open, report.blobs), (3, 2, 3), "a plan, a source, a pipeline");

    house.lose(&source);
    let last = house.bus.run_log(&broken.run()).await.unwrap().pop().unwrap();
    house.bus.append(&broken.run(), last.sequence, last.bytes).await.unwrap();
    let report = look(&house).await;
    assert_eq!((report.damaged, report.missing, report.unchecked), (1, 1, 0), "{report:?}");
    let of = |trigger: &Trigger| report.findings.iter().find(|finding| finding.run == trigger.run()).unwrap();
    assert_eq!(of(&over).kind, Kind::Bytes { what: "its source", digest: source });
    assert_eq!(of(&broken).kind, Kind::Log);
    assert!(of(&broken).why.contains("damaged before sequence"), "{report:?}");

    let Planned::Plan { digest, .. } = &run.planned else { panic!("{:?}", run.planned) };
    house.lose(digest);
    let report = look(&house).await;
    assert!(report.missing >= 2 && report.findings.iter().any(|finding| finding.run == open.run()), "{report:?}");
}

/// Puts this log away as if it were that of the run, with whatever is wrong with it.
async fn put_away(house: &House, run: &RunId, log: &[StoredRecord]) {
    let lines: Vec<_> = log.iter().flat_map(|record| [format!("{} ", record.sequence).as_bytes(), &record.bytes, b"\n"].concat()).collect();
    let previous = Digest::of(&log.last().unwrap().bytes);
    let part = LogPart { length: lines.len() as u64, records: log.len() as u64, bytes: house.blobs.put(lines.into()).await.unwrap() };
    let archived = ArchivedLog { schema: ARCHIVE_SCHEMA, previous, actor: "test".to_owned(), at: Timestamp(0), segments: vec![part] };
    let last = house.bus.run_log(run).await.unwrap().pop().unwrap().sequence;
    house.bus.append_instead(run, last, serde_json::to_vec(&archived).unwrap().into()).await.unwrap();
}

#[tokio::test]
async fn the_chain_of_a_log_that_was_put_away_is_checked() {
    let house = House::new(Plan::new(vec![waiting("Hold", Wait::Pause)])).await;
    let (orchestrator, supervisor) = house.start().await;
    let (sound, lacking, changed) = (trigger("1"), trigger("2"), trigger("3"));
    for trigger in [&sound, &lacking, &changed] {
        orchestrator.create(trigger).await.unwrap();
        until(&orchestrator, trigger, "the question", |run| is_asked(run, "Hold")).await;
        orchestrator.answer(&trigger.run(), &StageId::of("Hold"), WaitKey::Itself, Answer::Resumed, Some("ann")).await.unwrap();
        ended(&orchestrator, trigger).await;
    }
    supervisor.shut_down().await;
    for trigger in [&sound, &lacking, &changed] {
        let mut log = house.bus.run_log(&trigger.run()).await.unwrap();
        assert!(log.len() > 1);
        if trigger.id == lacking.id {
            log.remove(0);
        }
        if trigger.id == changed.id {
            let text = String::from_utf8(log[0].bytes.to_vec()).unwrap();
            log[0].bytes = text.replacen("\"at\":1", "\"at\":2", 1).into();
        }
        put_away(&house, &trigger.run(), &log).await;
    }
    let report = look(&house).await;
    assert_eq!((report.runs, report.archived, report.damaged, report.missing), (3, 3, 2, 0), "{report:?}");
    for trigger in [&lacking, &changed] {
        let finding = report.findings.iter().find(|finding| finding.run == trigger.run()).unwrap();
        assert!(finding.kind == Kind::Log && finding.why.contains("damaged before sequence"), "{report:?}");
    }
}
