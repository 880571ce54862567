//! The connections that a test of the contract has, and what it stores.

use std::collections::BTreeMap;

use async_nats::{Client, Request, client::RequestErrorKind};
use bytes::Bytes;
use eventbus::{Bus, Pattern, Subject, subject::Role};
use model::{AgentName, AttemptId, AuctionId, RunId, StageId, TriggerId, context::TriggerContext, planning::Text, trigger::Trigger};
use testkit::{NatsServer, TEST_DEADLINE};

/// One connection for each who speaks.
pub(crate) struct Buses {
    pub(crate) orchestrator: Bus,
    pub(crate) other_orchestrator: Bus,
    pub(crate) forge: Bus,
    pub(crate) parser: Bus,
    pub(crate) auctioneer: Bus,
    pub(crate) agent: Bus,
}

impl Buses {
    pub(crate) fn memory() -> Self {
        let bus = eventbus::memory::bus();
        Self {
            orchestrator: bus.clone(),
            other_orchestrator: bus.clone(),
            forge: bus.clone(),
            parser: bus.clone(),
            auctioneer: bus.clone(),
            agent: bus,
        }
    }

    pub(crate) async fn nats(server: &NatsServer) -> Self {
        Self {
            orchestrator: server.bus(Role::Orchestrator).await,
            other_orchestrator: server.bus(Role::Orchestrator).await,
            forge: server.bus(Role::Forge).await,
            parser: server.bus(Role::Parser).await,
            auctioneer: server.bus(Role::Auctioneer).await,
            agent: server.agent_bus(&agent("a1")).await,
        }
    }
}

/// Returns when the server has looked at all that this client has sent: it looks in order, and says that nobody listens to this. The client's own
/// `flush` waits for its socket alone.
pub(crate) async fn seen(client: &Client) {
    let request = Request::new().timeout(Some(TEST_DEADLINE));
    let answer = client.send_request(client.new_inbox(), request).await;
    assert_eq!(answer.unwrap_err().kind(), RequestErrorKind::NoResponders);
}

pub(crate) fn agent(name: &str) -> AgentName {
    name.parse().unwrap()
}

pub(crate) fn run(delivery: &str) -> RunId {
    RunId::of(&TriggerId::of("test", delivery))
}

pub(crate) fn bid_of(agent_name: &str) -> Subject {
    let attempt = AttemptId { run: run("1"), stage: StageId::of("Build"), attempt: 1 };
    Subject::bid(&agent(agent_name), &AuctionId::of(&attempt, 0))
}

pub(crate) fn trigger(delivery: &str) -> Trigger {
    let context =
        TriggerContext { parameters: BTreeMap::from([("delivery".to_owned(), delivery.to_owned())]), ..TriggerContext::default() };
    let pipeline = Text::Inline("stage Build {}".to_owned());
    Trigger { context, ..Trigger::new(TriggerId::of("test", delivery), "demo".parse().unwrap(), "Ottofile", pipeline) }
}

pub(crate) fn bytes(text: impl Into<Vec<u8>>) -> Bytes {
    Bytes::from(text.into())
}

/// All records of all runs, as run and text.
pub(crate) async fn all_logs(bus: &Bus) -> Vec<(RunId, u64, Bytes)> {
    let mut records = bus.run_logs().await.unwrap();
    let mut all = Vec::new();
    while let Some(record) = records.recv().await {
        let record = record.unwrap();
        all.push((record.run, record.sequence, record.bytes));
    }
    all
}

pub(crate) fn bids() -> Pattern {
    Pattern::bids()
}
