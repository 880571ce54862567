//! The engine on the bus within the process.

use model::{
    RunOutcome, StageId, StageOutcome, Timestamp,
    event::run::RunEvent,
    protocol::agent::{AgentCommand, Lease, Report, ReportKind},
};
use orchestrator::core::Run;
use tokio::time::timeout;

use crate::house::{DEADLINE, House, chain, ended, trigger};

#[tokio::test]
async fn a_run_of_three_stages_takes_one_record_from_stage_to_stage() {
    let house = House::new(chain(&["a", "b", "c"])).await;
    let mut inbox = house.inbox().await;
    let (orchestrator, supervisor) = house.start().await;
    let trigger = trigger("1");
    orchestrator.create(&trigger).await.unwrap();
    let mut last = None;
    for _ in 0..3 {
        let assignment = inbox.assignment(last.as_ref()).await;
        inbox.succeed(&assignment.lease).await;
        last = Some(assignment.lease);
    }
    let run = ended(&orchestrator, &trigger).await;
    assert_eq!(run.ended.map(|(outcome, _)| outcome), Some(RunOutcome::Success));
    let records = orchestrator.runs.get(&run.id).unwrap().records;
    let kinds: Vec<Vec<&str>> = records.iter().map(|record| record.record.events.iter().map(RunEvent::kind).collect()).collect();
    let handed_over = vec!["stage_finished", "stage_ready", "stage_awarded"];
    assert!(kinds.contains(&handed_over), "{kinds:?}");
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_new_orchestrator_goes_on_where_the_old_one_fell() {
    let house = House::new(chain(&["a", "b"])).await;
    let mut inbox = house.inbox().await;
    let (first, supervisor) = house.start().await;
    let trigger = trigger("1");
    first.create(&trigger).await.unwrap();
    let a = inbox.assignment(None).await;
    supervisor.shut_down().await;
    // The stage ends while nobody listens; the agent says it again until it is acknowledged.
    inbox.succeed(&a.lease).await;
    let (second, supervisor) = house.start().await;
    let again = inbox.assignment(None).await;
    assert_eq!(again.lease, a.lease, "an award that was not taken up yet is said again, and is the same");
    inbox.succeed(&a.lease).await;
    let b = inbox.assignment(Some(&a.lease)).await;
    assert!(b.lease.fence > a.lease.fence);
    inbox.succeed(&b.lease).await;
    assert_eq!(ended(&second, &trigger).await.ended.map(|(outcome, _)| outcome), Some(RunOutcome::Success));
    supervisor.shut_down().await;
}

#[tokio::test]
async fn the_same_trigger_a_hundred_times_is_one_run() {
    let house = House::new(chain(&["a"])).await;
    let mut inbox = house.inbox().await;
    let (orchestrator, supervisor) = house.start().await;
    let trigger = trigger("1");
    for _ in 0..100 {
        orchestrator.create(&trigger).await.unwrap();
    }
    let a = inbox.assignment(None).await;
    inbox.succeed(&a.lease).await;
    ended(&orchestrator, &trigger).await;
    assert_eq!(orchestrator.runs.list(None, 10, |_| true).len(), 1);
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_late_report_for_an_ended_run_is_stored_or_acknowledged() {
    let house = House::new(chain(&["a"])).await;
    let mut inbox = house.inbox().await;
    let (first, supervisor) = house.start().await;
    let trigger = trigger("1");
    first.create(&trigger).await.unwrap();
    let a = inbox.assignment(None).await;
    inbox.succeed(&a.lease).await;
    ended(&first, &trigger).await;
    supervisor.shut_down().await;
    let (second, supervisor) = house.start().await;
    inbox.succeed(&a.lease).await;
    inbox.acknowledged(ReportKind::Finished).await;
    let digest = model::Digest::of(b"");
    let log = model::event::run::StoredLog::whole(digest, 0, digest);
    inbox.report(&a.lease, Report::LogStored { log: log.clone() }).await;
    inbox.acknowledged(ReportKind::LogStored).await;
    let snapshot = second.runs.get(&trigger.run()).unwrap();
    assert_eq!(snapshot.run.stages[0].attempts[0].log, Some(log));
    supervisor.shut_down().await;
}

#[tokio::test]
async fn an_agent_that_speaks_of_no_run_is_told_to_forget_it() {
    let house = House::new(chain(&["a"])).await;
    let mut inbox = house.inbox().await;
    let (_orchestrator, supervisor) = house.start().await;
    let attempt = model::AttemptId { run: trigger("none").run(), stage: StageId::of("a"), attempt: 1 };
    inbox.succeed(&Lease { attempt, fence: 1 }).await;
    inbox.acknowledged(ReportKind::Finished).await;
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_cancelled_run_tells_its_agent_and_ends_when_the_agent_has() {
    let house = House::new(chain(&["a", "b"])).await;
    let mut inbox = house.inbox().await;
    let (orchestrator, supervisor) = house.start().await;
    let trigger = trigger("1");
    orchestrator.create(&trigger).await.unwrap();
    let a = inbox.assignment(None).await;
    inbox.report(&a.lease, Report::Started { at: Timestamp(1) }).await;
    orchestrator.cancel(&trigger.run(), "ann", false).await.unwrap();
    while !matches!(inbox.next().await, AgentCommand::Cancel { lease, .. } if lease == a.lease) {}
    assert!(orchestrator.runs.get(&trigger.run()).unwrap().run.ended.is_none());
    let report = Report::Finished {
        outcome: StageOutcome::Aborted,
        reason: None,
        started_at: Some(Timestamp(1)),
        finished_at: Timestamp(2),
        outputs: model::event::run::Outputs::default(),
    };
    inbox.report(&a.lease, report).await;
    assert_eq!(ended(&orchestrator, &trigger).await.ended.map(|(outcome, _)| outcome), Some(RunOutcome::Aborted));
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_silent_winner_is_passed_over_and_fenced() {
    let house = House::new(chain(&["a"])).await;
    let mut inbox = house.inbox().await;
    let (orchestrator, supervisor) = house.start().await;
    let trigger = trigger("1");
    orchestrator.create(&trigger).await.unwrap();
    let first = inbox.assignment(None).await;
    let declined = |run: &Run| run.stages[0].attempts.iter().any(|attempt| attempt.end.is_some());
    let mut appended = orchestrator.runs.follow();
    let passed_over = async {
        while !declined(&orchestrator.runs.get(&trigger.run()).unwrap().run) {
            appended.recv().await.unwrap();
        }
    };
    timeout(DEADLINE, passed_over).await.expect("the winner is passed over in time");
    inbox.report(&first.lease, Report::Started { at: Timestamp(1) }).await;
    while !matches!(inbox.next().await, AgentCommand::Cancel { lease, .. } if lease == first.lease) {}
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_damaged_log_is_named_and_not_run_upon() {
    let house = House::new(chain(&["a", "b"])).await;
    let mut inbox = house.inbox().await;
    let (orchestrator, supervisor) = house.start().await;
    let trigger = trigger("1");
    orchestrator.create(&trigger).await.unwrap();
    let a = inbox.assignment(None).await;
    supervisor.shut_down().await;
    // A record that does not name its predecessor's digest.
    let last = house.bus.run_log(&trigger.run()).await.unwrap().pop().unwrap();
    let text = String::from_utf8(last.bytes.to_vec()).unwrap();
    house.bus.append(&trigger.run(), last.sequence, text.into_bytes().into()).await.unwrap();
    let (second, supervisor) = house.start().await;
    inbox.succeed(&a.lease).await;
    let damage = second.runs.damage(&trigger.run()).expect("the run is set aside");
    assert!(damage.why.contains("damaged before sequence") && damage.help.contains("copy"), "{damage:?}");
    // The agent's word is heard before the next one's, which is answered; nothing followed from it.
    let other = model::AttemptId { run: crate::house::trigger("none").run(), stage: StageId::of("a"), attempt: 1 };
    inbox.succeed(&Lease { attempt: other, fence: 1 }).await;
    inbox.acknowledged(ReportKind::Finished).await;
    assert_eq!(house.bus.run_log(&trigger.run()).await.unwrap().len(), 3);
    supervisor.shut_down().await;
}
