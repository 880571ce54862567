//! Agents, as they tell of themselves.

use std::collections::BTreeMap;

use model::{AgentClass, AgentName, RunId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{StageRef, schema};

/// The agents of which the orchestrator has heard within a day, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AgentList {
    /// Each of them.
    pub agents: Vec<AgentView>,
    /// Ask again with this as `cursor` for the next ones; `null` if these were the last.
    #[schema(value_type = Option<schema::AgentName>)]
    pub cursor: Option<AgentName>,
}

/// An agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AgentView {
    /// Its name.
    #[schema(value_type = schema::AgentName)]
    pub name: AgentName,
    /// Whether it is there.
    pub presence: Presence,
    /// When it last said something of itself.
    #[schema(value_type = schema::Timestamp)]
    pub heard_at: Timestamp,
    /// Stages that it runs at once.
    pub slots: u32,
    /// How many of them are free.
    pub slots_free: u32,
    /// The price of a second, in millionths of the installation's currency unit.
    pub price_micros_per_s: u64,
    /// What it is and has, as it says: `arch`, `os`, `cores`, …
    #[schema(value_type = BTreeMap<String, serde_json::Value>)]
    pub facts: BTreeMap<String, serde_json::Value>,
    /// What it runs, of the token's projects.
    pub stages: Vec<AgentStageView>,
    /// What the administrator has enrolled it as; `null` where that is not known, and it gets no work then.
    pub enrolled: Option<EnrolmentView>,
}

/// What an agent was enrolled as. It says nothing of this itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EnrolmentView {
    /// The class whose stages it is offered.
    #[schema(value_type = schema::AgentClass)]
    pub class: AgentClass,
    /// Whose code it runs.
    pub trust: AgentTrustView,
    /// It takes no new work; what it has, it ends.
    pub draining: bool,
}

/// Whose code an agent runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AgentTrustView {
    /// That of trusted runs only.
    Trusted,
    /// That of untrusted runs only.
    Untrusted,
    /// That of every run.
    Any,
}

/// Whether an agent is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// It was heard within the time of a lease.
    Present,
    /// Nothing was heard of it for longer than that: it is off, or cut off.
    Silent,
}

/// A stage that an agent runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AgentStageView {
    /// The run.
    #[schema(value_type = schema::RunId)]
    pub run: RunId,
    /// The stage.
    pub stage: StageRef,
    /// The attempt, from 1.
    pub attempt: u32,
}
