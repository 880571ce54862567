//! What becomes of the stages of an agent that was revoked.

use model::{
    StageId, Timestamp,
    plan::{Plan, Stage},
    protocol::agent::{AgentCommand, Report, Revoked},
};
use orchestrator::core::{
    Run,
    stage::{AttemptEnd, Status},
};

use crate::house::{House, agent, chain, trigger, until};

fn work(path: &str) -> Stage {
    chain(&[path]).stages.remove(0)
}

fn status<'a>(run: &'a Run, path: &str) -> &'a Status {
    &run.stage(&StageId::of(path)).unwrap().1.status
}

#[tokio::test]
async fn what_a_revoked_agent_runs_is_lost_at_once_but_for_what_holds_a_lock() {
    let locked = Stage { lock: Some("database".to_owned()), ..work("Locked") };
    let house = House::new(Plan::new(vec![work("Build"), locked])).await;
    let mut inbox = house.inbox().await;
    let (orchestrator, supervisor) = house.start().await;
    let trigger = trigger("1");
    orchestrator.create(&trigger).await.unwrap();
    let mut leases = Vec::new();
    while leases.len() < 2 {
        let lease = inbox.assignment(None).await.lease;
        if !leases.contains(&lease) {
            inbox.report(&lease, Report::Started { at: Timestamp(1) }).await;
            leases.push(lease);
        }
    }
    let both = |run: &Run| ["Build", "Locked"].iter().all(|path| *status(run, path) == Status::Running);
    until(&orchestrator, &trigger, "both to run", both).await;

    let revoked = |name: &str| Revoked { agents: [name.parse().unwrap()].into() };
    let tell = async |name: &str| house.bus.publish(&eventbus::Subject::revoked(), &revoked(name)).await.unwrap();
    tell("another").await;
    tell(agent().as_str()).await;
    let lost = |run: &Run| *status(run, "Build") != Status::Running;
    let run = until(&orchestrator, &trigger, "the loss", lost).await.run;
    let (_, build) = run.stage(&StageId::of("Build")).unwrap();
    let end = build.attempts[0].end.clone();
    assert!(matches!(&end, Some(AttemptEnd::Lost { reason }) if reason == "its agent was revoked"), "{end:?}");
    // Its agent may run it until the lease is over: nobody else has the lock before.
    assert_eq!(status(&run, "Locked"), &Status::Running);

    // Whatever it says all the same changes nothing.
    let old = leases.iter().find(|lease| lease.attempt.stage == StageId::of("Build")).unwrap();
    inbox.report(old, Report::Started { at: Timestamp(2) }).await;
    while !matches!(inbox.next().await, AgentCommand::Cancel { lease, .. } if lease == *old) {}
    supervisor.shut_down().await;
}
