//! An agent gets what the administrator has enrolled it for, whatever it offers, and whatever the auctioneer proposes. The attack is made twice: without
//! the guard, where it succeeds, and with it, where it fails.

use eventbus::Subject;
use model::{
    AgentName, StageId,
    plan::{Plan, Value},
    protocol::enrolment::{AgentTrust, Enrolled, RollPage},
    trigger::{Claims, Trigger},
};
use orchestrator::{Orchestrator, core::stage::Status, engine::EngineOptions};

use crate::house::{Api, House, agent, chain, ended, outcome, refusal, trigger, until};

const STAGE: &str = "Build";

fn untrusted() -> Trigger {
    trigger("untrusted")
}

fn trusted() -> Trigger {
    Trigger { claims: Claims::own(), ..trigger("trusted") }
}

async fn guarded(house: &House, asks_the_roll: bool) -> (Orchestrator, service::Supervisor) {
    house.start_with(|options| EngineOptions { asks_the_roll, ..options }).await
}

fn page(agents: &[(AgentName, AgentTrust)]) -> RollPage {
    let enrolled = |trust| Enrolled { class: "default".parse().unwrap(), trust, draining: false };
    RollPage { after: None, through: None, agents: agents.iter().map(|(agent, trust)| (agent.clone(), enrolled(*trust))).collect() }
}

/// What is said of why the stage waits, as soon as it is this.
async fn why(api: &Api, trigger: &Trigger, words: &str) {
    let path = format!("/v1/runs/{}/why?stage={STAGE}", trigger.run());
    let said = async || {
        let (status, why) = api.get(&path).await;
        (status == 200 && why.to_string().contains(words)).then_some(())
    };
    testkit::wait_for(crate::house::DEADLINE, words, said).await;
}

#[tokio::test]
async fn a_trusted_agent_is_given_an_untrusted_run_only_without_the_guard() {
    let house = House::new(chain(&[STAGE])).await;
    house.play_enrolment(&[(agent().as_str(), AgentTrust::Trusted)]).await;
    let mut inbox = house.inbox().await;
    let (orchestrator, supervisor) = guarded(&house, false).await;
    orchestrator.create(&untrusted()).await.unwrap();
    let lease = inbox.assignment(None).await.lease;
    inbox.succeed(&lease).await;
    ended(&orchestrator, &untrusted()).await;
    supervisor.shut_down().await;

    // The auctioneer of this house proposes the agent for whatever is asked.
    let house = House::new(chain(&[STAGE])).await;
    house.play_enrolment(&[(agent().as_str(), AgentTrust::Trusted)]).await;
    let mut inbox = house.inbox().await;
    let (orchestrator, supervisor) = guarded(&house, true).await;
    let api = house.serve(&orchestrator);
    orchestrator.create(&untrusted()).await.unwrap();
    why(&api, &untrusted(), "this run is untrusted, and it was enrolled for trusted runs only").await;
    why(&api, &untrusted(), "`otto agent enrol NAME --trust untrusted` makes a token for one that does").await;
    // It does get the work of trusted ones, and nothing else before that.
    orchestrator.create(&trusted()).await.unwrap();
    let lease = inbox.assignment(None).await.lease;
    assert_eq!(lease.attempt.run, trusted().run());
    inbox.succeed(&lease).await;
    ended(&orchestrator, &trusted()).await;
    let waits = orchestrator.runs.get(&untrusted().run()).unwrap().run;
    assert!(matches!(waits.stage(&StageId::of(STAGE)).unwrap().1.status, Status::Ready { .. }));

    // One that takes such runs is there now.
    house.bus.publish(&Subject::enrolled(), &page(&[(agent(), AgentTrust::Any)])).await.unwrap();
    let lease = inbox.assignment(Some(&lease)).await.lease;
    assert_eq!(lease.attempt.run, untrusted().run());
    inbox.succeed(&lease).await;
    assert_eq!(outcome(&*ended(&orchestrator, &untrusted()).await), Some(model::RunOutcome::Success));
    supervisor.shut_down().await;
}

#[tokio::test]
async fn nobody_gets_anything_while_it_is_not_known_who_is_enrolled() {
    let house = House::new(chain(&[STAGE])).await;
    let mut inbox = house.inbox().await;
    let (orchestrator, supervisor) = guarded(&house, true).await;
    let api = house.serve(&orchestrator);
    orchestrator.create(&trusted()).await.unwrap();
    why(&api, &trusted(), "it is not known yet who is enrolled").await;
    house.bus.publish(&Subject::enrolled(), &page(&[])).await.unwrap();
    why(&api, &trusted(), "it is not enrolled").await;
    assert!(inbox.commands.try_next().is_none());
    house.play_enrolment(&[(agent().as_str(), AgentTrust::Trusted)]).await;
    house.bus.publish(&Subject::enrolled(), &page(&[(agent(), AgentTrust::Trusted)])).await.unwrap();
    let lease = inbox.assignment(None).await.lease;
    inbox.succeed(&lease).await;
    ended(&orchestrator, &trusted()).await;
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_stage_of_a_class_goes_to_agents_of_that_class() {
    let mut plan: Plan = chain(&[STAGE]);
    plan.stages[0].requires.insert("class".to_owned(), Value::from("big"));
    let house = House::new(plan).await;
    house.play_enrolment(&[(agent().as_str(), AgentTrust::Any)]).await;
    let mut inbox = house.inbox().await;
    let (orchestrator, supervisor) = guarded(&house, true).await;
    let api = house.serve(&orchestrator);
    orchestrator.create(&trusted()).await.unwrap();
    why(&api, &trusted(), "the stage is for class `big`, and it was enrolled in class `default`").await;
    why(&api, &trusted(), "no agent of class `big` is enrolled: `otto agent enrol NAME --class big").await;
    let big = Enrolled { class: "big".parse().unwrap(), trust: AgentTrust::Trusted, draining: false };
    house.bus.publish(&Subject::enrolled(), &RollPage { agents: [(agent(), big)].into(), ..page(&[]) }).await.unwrap();
    let lease = inbox.assignment(None).await.lease;
    inbox.succeed(&lease).await;
    ended(&orchestrator, &trusted()).await;
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_draining_agent_ends_what_it_has_and_gets_nothing_new_until_it_is_undone() {
    let house = House::new(chain(&[STAGE])).await;
    house.play_enrolment(&[(agent().as_str(), AgentTrust::Any)]).await;
    let mut inbox = house.inbox().await;
    let (orchestrator, supervisor) = guarded(&house, true).await;
    let api = house.serve(&orchestrator);
    let (first, second) = (trigger("first"), trigger("second"));
    orchestrator.create(&first).await.unwrap();
    let lease = inbox.assignment(None).await.lease;

    let drain = format!("/v1/agents/{}/drain", agent());
    let (status, enrolled) = api.post(&drain, &serde_json::Value::Null).await;
    assert_eq!((status, &enrolled["draining"], &enrolled["trust"]), (200, &true.into(), &"any".into()));
    assert_eq!(refusal(api.post("/v1/agents/nobody/drain", &serde_json::Value::Null).await), (404, "unknown_agent".to_owned()));
    orchestrator.create(&second).await.unwrap();
    why(&api, &second, "it is draining: it takes no new work").await;
    inbox.succeed(&lease).await;
    ended(&orchestrator, &first).await;

    let (status, enrolled) = api.post(&format!("{drain}?undo=true"), &serde_json::Value::Null).await;
    assert_eq!((status, &enrolled["draining"]), (200, &false.into()));
    let lease = inbox.assignment(Some(&lease)).await.lease;
    assert_eq!(lease.attempt.run, second.run());
    inbox.succeed(&lease).await;
    until(&orchestrator, &second, "its end", |run| outcome(run).is_some()).await;
    supervisor.shut_down().await;
}
