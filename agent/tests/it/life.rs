//! What an agent's end leaves, and what its next life makes of it.

use std::time::Duration;

use agent::SpoolError;
use eventbus::subject::Role;
use model::{
    AuctionId, StageOutcome,
    protocol::{
        agent::{AgentCommand, Assignment, Report, ReportKind},
        auction::{Announcement, AuctionRequest, Bid},
        log::Stream,
    },
};
use testkit::{NatsServer, TEST_DEADLINE};
use tokio::{runtime::Builder, time::timeout};

use crate::office::{Office, assignment, is_alive, sh, stage, until};

/// Runs an agent in a runtime of its own and throws that away, as a kill would, when `until` returns.
pub(crate) fn killed(office: &Office, until: impl Future<Output = ()>) {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        office.start_agent().await;
        until.await;
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
}

/// Auction and assignment, on any runtime.
pub(crate) async fn award_on(bus: &eventbus::Bus, assignment: &Assignment) {
    let request = AuctionRequest::new(AuctionId::of(&assignment.lease.attempt, 0), assignment.lease.attempt.clone());
    let mut bids = bus.subscribe(eventbus::Pattern::bids()).await.unwrap();
    bus.publish(&eventbus::Subject::auction("default"), &Announcement { request }).await.unwrap();
    bids.next().await.unwrap();
    let assign = AgentCommand::Assign(Box::new(assignment.clone()));
    bus.publish(&eventbus::Subject::inbox(&crate::office::name()), &assign).await.unwrap();
}

#[test]
fn the_output_of_a_stage_whose_agent_was_killed_is_whole_where_parts_of_it_were_stored_before() {
    let outer = Builder::new_current_thread().enable_all().build().unwrap();
    let mut office = outer.block_on(Office::without_agent());
    let said = office.path("said");
    // More than a pipe holds comes after the word: when all of that is written, the word has been read.
    let zeros = |count: u32| format!("head -c {count} /dev/zero");
    let script = format!("set +x; {}; echo begun; {}; echo >{}; sleep 1000", zeros(9_000_000), zeros(300_000), said.display());
    let assignment = assignment(stage("a", vec![sh(&script)]), 1);
    let (bus, spool) = (office.bus.clone(), office.path("agent/spool"));
    killed(&office, async {
        award_on(&bus, &assignment).await;
        // The first part is in the depot, and gone from the disk; the second one is not full.
        until("the first part to be stored", || {
            let journals = std::fs::read_dir(&spool).unwrap().map(|entry| entry.unwrap().path().join("journal"));
            let is_stored = journals.into_iter().any(|path| std::fs::read_to_string(path).is_ok_and(|text| text.contains("\"stored\"")));
            is_stored && said.exists()
        })
        .await;
    });
    outer.block_on(async {
        office.supervisor = service::Supervisor::new();
        office.start_agent().await;
        office.report(ReportKind::Lost).await;
        office.acknowledge(&assignment.lease, ReportKind::Lost).await;
        let (output, index) = office.stored(&assignment.lease).await;
        let kept = crate::office::said(&output, &index, Stream::Out);
        let word = kept.iter().position(|byte| *byte != 0);
        assert_eq!(word, Some(9_000_000));
        assert!(kept[9_000_000..].starts_with(b"begun\n"));
        until("an empty spool", || office.leftovers().is_empty()).await;
    });
}

#[test]
fn what_ran_when_the_agent_was_killed_is_ended_and_reported_lost() {
    let outer = Builder::new_current_thread().enable_all().build().unwrap();
    let mut office = outer.block_on(Office::without_agent());
    let (pids, witness) = (office.path("pids"), office.path("witness"));
    let script = format!(
        "set +x; echo started >>{1}; sleep 1000 & echo $! >>{0}; setsid sleep 1000 & echo $! >>{0}; echo half; wait",
        pids.display(),
        witness.display()
    );
    let assignment = assignment(stage("a", vec![sh(&script)]), 1);
    let bus = office.bus.clone();
    let auction = async {
        award_on(&bus, &assignment).await;
        until("both processes", || std::fs::read_to_string(&pids).is_ok_and(|text| text.lines().count() == 2)).await;
        until("what the agent says of it", || !office.kept_output().is_empty()).await;
    };
    killed(&office, auction);
    let pids: Vec<String> = std::fs::read_to_string(&pids).unwrap().lines().map(str::to_owned).collect();
    outer.block_on(async {
        until("their end with the agent", || !pids.iter().any(|pid| is_alive(pid))).await;
        office.supervisor = service::Supervisor::new();
        office.start_agent().await;
        let lost = office.report(ReportKind::Lost).await;
        let reason = "its agent was restarted while it ran".to_owned();
        assert_eq!((&lost.lease, lost.report), (&assignment.lease, Report::Lost { reason }));
        office.assign(&assignment).await;
        office.report(ReportKind::Lost).await;
        office.acknowledge(&assignment.lease, ReportKind::Lost).await;
        let (output, _) = office.stored(&assignment.lease).await;
        assert!(output.windows(8).any(|bytes| bytes == b"[otto] s"), "what it said is stored");
        until("an empty spool", || office.leftovers().is_empty()).await;
        assert_eq!(std::fs::read_to_string(witness).unwrap(), "started\n");
    });
}

#[tokio::test]
async fn a_result_that_was_not_heard_survives_the_agent() {
    let mut office = Office::open().await;
    let assignment = assignment(stage("a", vec![sh("echo hi; exit 3")]), 1);
    office.award(&assignment).await;
    let said = office.report(ReportKind::Finished).await;
    office.stop_agent().await;
    while tokio::time::timeout(crate::office::QUIET, office.report(ReportKind::Finished)).await.is_ok() {}
    office.start_agent().await;
    assert_eq!(office.report(ReportKind::Finished).await, said);
    office.acknowledge(&assignment.lease, ReportKind::Finished).await;
    let (output, _) = office.stored(&assignment.lease).await;
    assert!(output.ends_with(b"[otto] step 1 `sh`: exit code 3\n"), "{output:?}");
    until("an empty spool", || office.leftovers().is_empty()).await;
}

#[tokio::test]
async fn an_agent_that_is_told_to_end_ends_its_stages_and_says_so() {
    let mut office = Office::open().await;
    let pid = office.path("pid");
    let assignment = assignment(stage("a", vec![sh(&format!("echo $$ >{}; echo up; exec sleep 1000", pid.display()))]), 1);
    office.award(&assignment).await;
    office.chunk().await;
    office.stop_agent().await;
    assert!(!is_alive(&std::fs::read_to_string(pid).unwrap()));
    let lost = office.report(ReportKind::Lost).await;
    assert_eq!((&lost.lease, lost.report), (&assignment.lease, Report::Lost { reason: "its agent was stopped".to_owned() }));
    office.start_agent().await;
    assert_eq!(office.report(ReportKind::Lost).await.lease, assignment.lease);
}

#[tokio::test]
async fn two_agents_do_not_share_a_data_folder() {
    let office = Office::open().await;
    let second = agent::run(office.options(), office.bus.clone(), office.blobs.clone(), &office.supervisor).await;
    assert!(matches!(second, Err(agent::Error::Spool(SpoolError::InUse { .. }))), "{second:?}");
}

#[tokio::test]
async fn an_assignment_of_an_earlier_life_is_declined() {
    let mut office = Office::open().await;
    let assignment = assignment(stage("a", vec![sh("true")]), 1);
    office.award(&assignment).await;
    assert_eq!(office.result(&assignment.lease).await.0, StageOutcome::Success);
    office.stored(&assignment.lease).await;
    until("an empty spool", || office.leftovers().is_empty()).await;
    office.stop_agent().await;
    office.start_agent().await;
    office.assign(&assignment).await;
    assert_eq!(office.report(ReportKind::Declined).await.lease, assignment.lease);
    assert!(office.leftovers().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_works_on_while_the_bus_is_away_and_nothing_is_lost() {
    let mut server = NatsServer::start().await;
    let (orchestrator, auctioneer) = (server.bus(Role::Orchestrator).await, server.bus(Role::Auctioneer).await);
    let mut office = Office::on(orchestrator, auctioneer, server.agent_bus(&crate::office::name()).await).await;
    office.start_agent().await;
    let (gate, done) = (office.path("gate"), office.path("done"));
    let script = format!(
        "set +x; echo one; until [ -e {} ]; do sleep 0.01; done; for n in 1 2 3 4 5 6 7 8 9; do echo $n; sleep 0.02; done; touch {}; exit 3",
        gate.display(),
        done.display()
    );
    let assignment = assignment(stage("a", vec![sh(&script)]), 1);
    office.award(&assignment).await;
    office.chunk().await;
    server.kill();
    std::fs::write(gate, "").unwrap();
    until("the stage's end", || done.exists()).await;
    server.restart().await;
    assert_eq!(office.result(&assignment.lease).await, (StageOutcome::Failure, Some("step 1 `sh`: exit code 3".to_owned())));
    let (output, index) = office.stored(&assignment.lease).await;
    let said = crate::office::said(&output, &index, model::protocol::log::Stream::Out);
    assert_eq!(said, b"one\n1\n2\n3\n4\n5\n6\n7\n8\n9\n");
    until("an empty spool", || office.leftovers().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_leaves_takes_nothing_new_and_ends_when_what_it_runs_is_over_and_heard() {
    let mut office = Office::open().await;
    let go = office.path("go");
    let running = assignment(stage("a", vec![sh(&format!("until [ -e {} ]; do sleep 0.05; done", go.display()))]), 1);
    office.award(&running).await;
    office.report(ReportKind::Started).await;
    let offered = stage("b", vec![sh("true")]);
    assert!(matches!(office.ask(&offered, 0, &[]).await, Bid::Offer(_)));
    office.supervisor.leaving().cancel();
    // What it offered before is not taken up either.
    while office.status().await.slots_free > 0 {}
    office.assign(&assignment(offered.clone(), 2)).await;
    let declined = office.report(ReportKind::Declined).await.report;
    assert!(matches!(&declined, Report::Declined { reason } if reason == "this agent is about to end"), "{declined:?}");
    assert!(matches!(office.ask(&offered, 1, &[]).await, Bid::Decline { .. }));
    assert!(!office.supervisor.token().is_cancelled());
    std::fs::write(&go, "").unwrap();
    assert_eq!(office.result(&running.lease).await.0, StageOutcome::Success);
    office.stored(&running.lease).await;
    timeout(TEST_DEADLINE, office.supervisor.token().cancelled()).await.expect("it ends by itself");
}
