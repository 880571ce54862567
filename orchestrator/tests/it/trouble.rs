//! What may go wrong around a run: appends that fail, agents that decline, a second orchestrator, plans of many stages.

use std::collections::BTreeMap;

use bytes::Bytes;
use eventbus::bus::MESSAGE_BYTES_MAX;
use futures_util::future::join_all;
use model::{
    RunId, RunOutcome, StageId, StageOutcome, Timestamp,
    event::run::{RunEvent, RunRecord},
    plan::{Need, NeedReason, Plan, PlanDocument},
    planning::{PlanReply, Text},
    protocol::agent::Report,
};
use tokio::time::timeout;

use crate::{
    house::{DEADLINE, House, chain, ended, outcome, trigger},
    odd::{Fails, Odd},
};

async fn events(house: &House, run: &RunId) -> Vec<RunEvent> {
    let records = house.bus.run_log(run).await.unwrap();
    records.iter().flat_map(|stored| serde_json::from_slice::<RunRecord>(&stored.bytes).unwrap().events).collect()
}

/// Stages have one result each, and none is awarded after it.
fn results_count_once(events: &[RunEvent]) {
    let mut results: BTreeMap<&StageId, usize> = BTreeMap::new();
    for event in events {
        let Some(stage) = event.stage() else { continue };
        match event.kind() {
            "stage_finished" => *results.entry(stage).or_default() += 1,
            "stage_awarded" => assert!(!results.contains_key(stage), "{stage} has a result and is awarded again"),
            _ => {}
        }
    }
    assert!(results.values().all(|count| *count == 1), "{results:?}");
}

async fn a_run_of_which_one_append_fails(fails: Fails, at: usize) {
    let (bus, _) = Odd::bus(Some((fails, at)));
    let house = House::on(bus, chain(&["a", "b", "c"])).await;
    house.with_an_agent().await;
    let (orchestrator, supervisor) = house.start().await;
    let trigger = trigger("1");
    orchestrator.create(&trigger).await.unwrap();
    let run = ended(&orchestrator, &trigger).await;
    assert_eq!(outcome(&run), Some(RunOutcome::Success), "{fails:?} at append {at}");
    results_count_once(&events(&house, &run.id).await);
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_run_ends_whichever_of_its_appends_fails_before_or_after_it_is_stored() {
    let all = [Fails::Before, Fails::After].into_iter().flat_map(|fails| (1..=6).map(move |at| (fails, at)));
    join_all(all.map(|(fails, at)| a_run_of_which_one_append_fails(fails, at))).await;
}

#[tokio::test]
async fn whoever_follows_a_run_hears_of_records_that_were_read_back() {
    // The last record is stored, and the orchestrator learns of it by reading the log again.
    let (bus, _) = Odd::bus(Some((Fails::After, 3)));
    let house = House::on(bus, chain(&["a"])).await;
    let mut inbox = house.inbox().await;
    let (orchestrator, supervisor) = house.start().await;
    let trigger = trigger("1");
    orchestrator.create(&trigger).await.unwrap();
    let assignment = inbox.assignment(None).await;
    let mut appended = orchestrator.runs.follow();
    inbox.succeed(&assignment.lease).await;
    let finished = async {
        loop {
            let record = appended.recv().await.unwrap();
            if record.record.events.iter().any(|event| matches!(event, RunEvent::RunFinished { .. })) {
                return;
            }
        }
    };
    timeout(DEADLINE, finished).await.expect("followers are told of the end");
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_stage_that_its_only_agent_declined_is_offered_to_it_again() {
    let house = House::new(chain(&["a"])).await;
    let mut inbox = house.inbox().await;
    let (orchestrator, supervisor) = house.start().await;
    let trigger = trigger("1");
    orchestrator.create(&trigger).await.unwrap();
    let first = inbox.assignment(None).await;
    inbox.report(&first.lease, Report::Declined { reason: "the slot is gone".to_owned() }).await;
    let second = inbox.assignment(Some(&first.lease)).await;
    inbox.succeed(&second.lease).await;
    assert_eq!(outcome(&*ended(&orchestrator, &trigger).await), Some(RunOutcome::Success));
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_reason_as_large_as_a_message_does_not_stop_its_run() {
    let house = House::new(chain(&["a"])).await;
    let mut inbox = house.inbox().await;
    let (orchestrator, supervisor) = house.start().await;
    let trigger = trigger("1");
    orchestrator.create(&trigger).await.unwrap();
    let a = inbox.assignment(None).await;
    let reason = Some("x".repeat(MESSAGE_BYTES_MAX - 300));
    let report = Report::Finished {
        outcome: StageOutcome::Failure,
        reason,
        started_at: None,
        finished_at: Timestamp(2),
        outputs: model::event::run::Outputs::default(),
    };
    inbox.report(&a.lease, report).await;
    assert_eq!(outcome(&*ended(&orchestrator, &trigger).await), Some(RunOutcome::Failure));
    supervisor.shut_down().await;
}

#[tokio::test]
async fn two_orchestrators_on_one_bus_both_go_on_and_no_result_counts_twice() {
    let house = House::new(chain(&["a", "b", "c"])).await;
    house.with_an_agent().await;
    let (first, one) = house.start().await;
    let (second, two) = house.start().await;
    let triggers: Vec<_> = (0..8).map(|number| trigger(&number.to_string())).collect();
    for trigger in &triggers {
        first.create(trigger).await.unwrap();
    }
    for trigger in &triggers {
        tokio::select! {
            run = ended(&first, trigger) => assert_eq!(outcome(&run), Some(RunOutcome::Success)),
            run = ended(&second, trigger) => assert_eq!(outcome(&run), Some(RunOutcome::Success)),
        }
        results_count_once(&events(&house, &trigger.run()).await);
    }
    one.shut_down().await;
    two.shut_down().await;
    let (third, three) = house.start().await;
    for trigger in &triggers {
        assert!(third.runs.get(&trigger.run()).is_some_and(|snapshot| snapshot.run.ended.is_some()), "the log is whole");
    }
    three.shut_down().await;
}

/// Stages that need nothing.
fn fan(stages: usize) -> Plan {
    let names: Vec<String> = (0..stages).map(|number| format!("s{number}")).collect();
    let mut plan = chain(&names.iter().map(String::as_str).collect::<Vec<_>>());
    for stage in &mut plan.stages {
        stage.needs.clear();
    }
    plan
}

/// What a run of so many stages at once costs: appends, and soft messages of all sides. Time stands still while anybody has something to do,
/// so a machine that is busy with other things counts the same.
async fn cost_of(plan: Plan) -> (usize, usize) {
    let (bus, counts) = Odd::bus(None);
    let house = House::on(bus, plan).await;
    house.with_an_agent().await;
    let (orchestrator, supervisor) = house.start().await;
    let trigger = trigger("1");
    orchestrator.create(&trigger).await.unwrap();
    let run = ended(&orchestrator, &trigger).await;
    assert_eq!(outcome(&run), Some(RunOutcome::Success));
    supervisor.shut_down().await;
    (counts.appends(), counts.published())
}

#[tokio::test(start_paused = true)]
async fn two_thousand_parallel_stages_cost_what_each_costs_and_share_their_records() {
    const STAGES: usize = 2_000;
    let (appends, published) = cost_of(fan(STAGES)).await;
    // The question, the proposal, the assignment, the report, the acknowledgement; and for each record what is learned of it.
    assert!(published <= 5 * STAGES + STAGES / 10, "{published} messages");
    assert!(appends <= STAGES / 8, "{appends} records");
}

#[tokio::test(start_paused = true)]
async fn a_stage_that_waits_for_hundreds_is_asked_for_when_few_are_left() {
    const STAGES: usize = 500;
    let mut plan = fan(STAGES);
    let mut last = chain(&["last"]).stages.remove(0);
    last.needs = plan.stages.iter().map(|stage| Need { stage: stage.id.clone(), reason: NeedReason::Order }).collect();
    plan.stages.push(last);
    let (appends, published) = cost_of(plan).await;
    assert!(published <= 5 * STAGES + STAGES / 10 + 100, "{published} messages");
    assert!(appends <= STAGES / 8 + 10, "{appends} records");
}

/// The same, of stages with so many steps, whose plan lies in the depot; also the largest record, in bytes.
async fn cost_of_large(stages: usize, steps: usize) -> (usize, usize, usize) {
    let (bus, counts) = Odd::bus(None);
    let house = House::without_parser(bus).await;
    let mut plan = fan(stages);
    for stage in &mut plan.stages {
        stage.steps = std::iter::repeat_n(stage.steps[0].clone(), steps).collect();
    }
    let document = PlanDocument::new(plan);
    let digest = house.blobs.put(Bytes::copy_from_slice(document.bytes())).await.unwrap();
    house.play_parser(PlanReply::Planned { digest, plan: Text::Depot(digest), warnings: vec![], not_triggered: None }).await;
    house.with_an_agent().await;
    let (orchestrator, supervisor) = house.start().await;
    let trigger = trigger("1");
    orchestrator.create(&trigger).await.unwrap();
    let run = ended(&orchestrator, &trigger).await;
    assert_eq!((outcome(&run), run.stages.len()), (Some(RunOutcome::Success), stages));
    let shown = orchestrator::http::view::detail(&run, &orchestrator.runs);
    assert_eq!(shown.stages.len(), stages);
    supervisor.shut_down().await;
    let largest = house.bus.run_log(&run.id).await.unwrap().iter().map(|record| record.bytes.len()).max();
    (counts.appends(), counts.published(), largest.unwrap_or_default())
}

#[tokio::test(start_paused = true)]
async fn five_thousand_stages_with_a_hundred_thousand_steps_cost_for_each_stage_what_fewer_cost() {
    const STEPS: usize = 20;
    let (few, many) = (1_000, 5_000);
    let (_, published_of_few, _) = cost_of_large(few, STEPS).await;
    let (appends, published, largest) = cost_of_large(many, STEPS).await;
    assert!(published * few <= published_of_few * many * 11 / 10, "{published_of_few} messages for {few} stages, {published} for {many}");
    assert!(appends <= many / 8, "{appends} records");
    assert!(largest < MESSAGE_BYTES_MAX, "a record has {largest} bytes");
}
