//! Offers, fences and acknowledgements.

use std::time::{Duration, Instant};

use model::{
    StageOutcome,
    plan::Stage,
    protocol::{
        agent::{AgentCommand, AgentStatus, LEASE_MS, Report, ReportKind},
        auction::{Bid, Reservation},
    },
};

use crate::office::{Office, QUIET, assignment, lease, name, sh, stage, until};

fn reservation(bid: &Bid) -> Option<&Reservation> {
    match bid {
        Bid::Offer(offer) => Some(&offer.reservation),
        Bid::Decline { .. } => None,
    }
}

#[tokio::test]
async fn an_assignment_said_many_times_starts_once() {
    let mut office = Office::open().await;
    let witness = office.path("witness");
    let assignment = assignment(stage("once", vec![sh(&format!("echo started >>{}", witness.display()))]), 1);
    office.award(&assignment).await;
    for _ in 0..5 {
        office.assign(&assignment).await;
    }
    assert_eq!(office.result(&assignment.lease).await.0, StageOutcome::Success);
    office.assign(&assignment).await;
    office.stored(&assignment.lease).await;
    until("an empty spool", || office.leftovers().is_empty()).await;
    office.assign(&assignment).await;
    // It is answered after the assignment before it was looked at.
    office.ask(&stage("other", vec![]), 0, &[]).await;
    assert_eq!(std::fs::read_to_string(witness).unwrap(), "started\n");
    assert!(office.leftovers().is_empty());
}

#[tokio::test]
async fn an_assignment_without_an_offer_is_declined_until_that_is_heard() {
    let mut office = Office::open().await;
    let assignment = assignment(stage("late", vec![sh("true")]), 7);
    office.assign(&assignment).await;
    for _ in 0..2 {
        let declined = office.report(ReportKind::Declined).await;
        assert_eq!(declined.lease, assignment.lease);
        assert_eq!(declined.report, Report::Declined { reason: "this agent has made no offer for it since it started".to_owned() });
    }
    office.acknowledge(&assignment.lease, ReportKind::Declined).await;
    assert!(office.leftovers().is_empty());
}

#[tokio::test]
async fn a_cancel_of_what_is_not_here_is_answered() {
    let mut office = Office::open().await;
    let stage = stage("a", vec![sh("true")]);
    office.send(AgentCommand::Cancel { lease: lease(&stage, 3), force: false }).await;
    let declined = office.report(ReportKind::Declined).await;
    assert_eq!((declined.lease, declined.report), (lease(&stage, 3), Report::Declined { reason: "nothing of it runs here".to_owned() }));
}

#[tokio::test]
async fn reports_are_said_again_until_they_are_heard() {
    let mut office = Office::open().await;
    let assignment = assignment(stage("a", vec![sh("sleep 0.7")]), 1);
    office.award(&assignment).await;
    for _ in 0..2 {
        assert_eq!(office.report(ReportKind::Started).await.lease, assignment.lease);
    }
    let first = office.report(ReportKind::Finished).await;
    assert_eq!(office.report(ReportKind::Finished).await, first);
    office.acknowledge(&assignment.lease, ReportKind::Finished).await;
    let stored = office.report(ReportKind::LogStored).await;
    assert_eq!(office.report(ReportKind::LogStored).await, stored);
    office.acknowledge(&assignment.lease, ReportKind::LogStored).await;
    until("an empty spool", || office.leftovers().is_empty()).await;
}

#[tokio::test]
async fn a_newer_fence_ends_the_older_attempt_without_a_word() {
    let mut office = Office::open().await;
    let pid = office.path("pid");
    let first = assignment(stage("a", vec![sh(&format!("echo $$ >{}; echo up; exec sleep 1000", pid.display()))]), 1);
    office.award(&first).await;
    office.chunk().await;
    office.assign(&assignment(first.stage.clone(), 2)).await;
    assert_eq!(office.report(ReportKind::Declined).await.lease.fence, 2);
    let pid = std::fs::read_to_string(pid).unwrap();
    until("the end of the older", || !crate::office::is_alive(&pid)).await;
    until("an empty spool", || office.leftovers().is_empty()).await;
    assert!(tokio::time::timeout(QUIET, office.report(ReportKind::Finished)).await.is_err());
}

#[tokio::test]
async fn a_slot_is_handed_over_from_stage_to_stage() {
    let mut office = Office::open().await;
    let (first, second, other) =
        (stage("first", vec![sh("echo up; sleep 0.3")]), stage("second", vec![sh("true")]), stage("other", vec![]));
    let blocker = assignment(stage("blocker", vec![sh("sleep 1000")]), 1);
    office.award(&blocker).await;
    office.award(&assignment(first.clone(), 2)).await;
    let second_bid = office.ask(&second, 0, &[&first]).await;
    assert_eq!(reservation(&second_bid), Some(&Reservation::Handover));
    office.result(&lease(&first, 2)).await;
    assert!(matches!(office.ask(&other, 0, &[]).await, Bid::Decline { .. }), "the slot is kept");
    office.assign(&assignment(second.clone(), 3)).await;
    assert_eq!(office.result(&lease(&second, 3)).await.0, StageOutcome::Success);
    assert_eq!(reservation(&office.ask(&other, 1, &[]).await), Some(&Reservation::Slot));
    office.send(AgentCommand::Cancel { lease: blocker.lease.clone(), force: false }).await;
    assert_eq!(office.result(&blocker.lease).await.0, StageOutcome::Aborted);
}

#[tokio::test]
async fn leases_are_claimed_until_the_result_is_heard() {
    let mut office = Office::open().await;
    let first: AgentStatus = office.statuses.next().await.unwrap().read().unwrap();
    assert_eq!((first.agent, first.slots, first.slots_free, first.leases.len()), (name(), 2, 2, 0));
    assert!(first.facts.contains_key("cores"));
    let assignment = assignment(stage("a", vec![sh("true")]), 1);
    office.award(&assignment).await;
    office.report(ReportKind::Finished).await;
    let second: AgentStatus = office.statuses.next().await.unwrap().read().unwrap();
    assert_eq!((second.slots_free, second.leases), (2, vec![assignment.lease]));
}

#[tokio::test]
async fn a_holder_of_a_lock_ends_before_its_lease_does_and_other_stages_work_on() {
    let mut office = Office::open().await;
    let locked = assignment(Stage { lock: Some("production".to_owned()), ..stage("locked", vec![sh("exec sleep 1000")]) }, 1);
    let other = assignment(stage("other", vec![sh("exec sleep 1000")]), 2);
    office.award(&locked).await;
    office.award(&other).await;
    // It is confirmed for longer than it would live alone, and then no more.
    let confirmed_for = Duration::from_millis(LEASE_MS);
    let since = Instant::now();
    while since.elapsed() < confirmed_for {
        let status: AgentStatus = office.statuses.next().await.unwrap().read().unwrap();
        office.send(AgentCommand::Renewed { status: status.number, leases: vec![locked.lease.clone()] }).await;
    }
    let last = Instant::now();
    let lost = office.report(ReportKind::Lost).await;
    assert_eq!(lost.lease, locked.lease);
    assert!(last.elapsed() < Duration::from_millis(LEASE_MS), "its lease is not over");
    office.acknowledge(&locked.lease, ReportKind::Lost).await;
    office.send(AgentCommand::Cancel { lease: other.lease.clone(), force: false }).await;
    assert_eq!(office.result(&other.lease).await.0, StageOutcome::Aborted, "it still ran");
}
