//! A stage, what it waits for, and why.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::{CacheDefinition, CacheUse, Condition, Container, Deployment, Notify, Retry, RetryReason, Service, Step, Value};
use crate::StageId;

/// How long a stage may run if nothing else is said, in milliseconds: an hour.
pub const TIMEOUT_DEFAULT_MS: u64 = 60 * 60 * 1_000;
/// How often a safe stage is started at most if nothing else is said. A third loss is hardly the agents' fault.
pub const ATTEMPTS_DEFAULT: u32 = 3;

/// The fact of agents that run containers, and the capability that asks for one.
pub const CONTAINERS: &str = "docker_run";
/// The fact of agents that says how far they keep stages apart, a list of all that they can, and the capability that asks for one.
pub const ISOLATION: &str = "isolation";
/// A stage has files, processes and names of its own; one of [`ISOLATION`].
pub const NAMESPACES: &str = "namespaces";

/// One unit of a run: steps that are placed on one agent, or something that is waited for without an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Derived from `path`.
    pub id: StageId,
    /// The names from the outermost group to the stage, joined by `/`; unique in the plan.
    pub path: String,
    /// What must have ended well before it starts, with the reason. A stage that was skipped, or may fail, has ended well.
    pub needs: Vec<Need>,
    /// What happens.
    #[serde(default, skip_serializing_if = "StageKind::is_work")]
    pub kind: StageKind,
    /// A condition that was decided while planning is false: the stage is skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<Skip>,
    /// Decided in the run, before it starts: if one does not hold, the stage is skipped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Waited for after the conditions held and before an agent is allocated, all at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub enter: Vec<Wait>,
    /// Waited for after the agent was released, all at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exit: Vec<Wait>,
    /// What an agent must be able to do.
    pub requires: Requirements,
    /// The image that its steps run in; without one, the agent's own system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// Containers beside it, in the order in which they are written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Service>,
    /// What its steps find in their environment, besides what the agent sets.
    pub environment: BTreeMap<String, Value>,
    /// Where it delivers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<Deployment>,
    /// The credentials that its steps may name, keys of [`Plan::credentials`](super::Plan::credentials).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub credentials: Vec<String>,
    /// The lock that it holds while it runs; only one stage of all runs of the project holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
    /// Caches that it makes, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub caches: BTreeMap<String, CacheDefinition>,
    /// Caches that it finds, made by other stages of this run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uses: Vec<CacheUse>,
    /// Whether its work directory begins empty, without the run's source.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bare: bool,
    /// Run one after the other, until one fails.
    pub steps: Vec<Step>,
    /// Steps on its outcome, on its agent and in its work directory.
    #[serde(default, skip_serializing_if = "Notify::is_empty")]
    pub notify: Notify,
    /// How long it may run, in milliseconds.
    pub timeout_ms: u64,
    /// Whether it may start again.
    pub effect: Effect,
    /// When it is started again; without it, never.
    #[serde(default, skip_serializing_if = "Option::is_none", alias = "retries_lost", deserialize_with = "retry_or_losses")]
    #[cfg_attr(feature = "schema", schemars(with = "WrittenRetry"))]
    pub retry: Option<Retry>,
    /// Whether the run goes on, as unstable, if it fails.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_failure: bool,
    /// The `fanout` blocks that it stands in, the outermost first: the first failure of a stage in a block cancels the others in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fanouts: Vec<String>,
}

impl Stage {
    /// Its steps, those in blocks and in its `notify` included, in no order.
    pub fn every_step(&self) -> Vec<&Step> {
        let Notify { success, failure, complete } = &self.notify;
        let mut open: Vec<&Step> = [&self.steps, success, failure, complete].into_iter().flatten().collect();
        let mut every = Vec::new();
        while let Some(step) = open.pop() {
            every.push(step);
            for value in step.parameters.values() {
                if let Value::Steps { steps } = value {
                    open.extend(steps);
                }
            }
        }
        every
    }

    /// All that it asks of an agent: what it says, and what its image and its services need.
    pub fn demands(&self) -> Requirements {
        let mut demands = self.requires.clone();
        if self.container.is_some() || !self.services.is_empty() {
            demands.insert(CONTAINERS.to_owned(), Value::Boolean(true));
        }
        if self.container.is_none() && !self.services.is_empty() {
            // Only there has a stage names of its own.
            demands.insert(ISOLATION.to_owned(), Value::Text(NAMESPACES.to_owned()));
        }
        demands
    }

    /// All that it waits for.
    pub fn waits(&self) -> impl Iterator<Item = &Wait> {
        let itself = if let StageKind::Wait(wait) = &self.kind { Some(wait) } else { None };
        itself.into_iter().chain(&self.enter).chain(&self.exit)
    }

    /// Whether it waits for a call from outside.
    pub fn waits_for_a_call(&self) -> bool {
        self.waits().any(|wait| matches!(wait, Wait::Webhook { .. }))
    }

    /// A stage that does nothing, with every default.
    pub fn new(path: &str) -> Self {
        Self {
            id: StageId::of(path),
            path: path.to_owned(),
            needs: Vec::new(),
            kind: StageKind::Work,
            skipped: None,
            conditions: Vec::new(),
            enter: Vec::new(),
            exit: Vec::new(),
            requires: BTreeMap::new(),
            container: None,
            services: Vec::new(),
            environment: BTreeMap::new(),
            deployment: None,
            credentials: Vec::new(),
            lock: None,
            caches: BTreeMap::new(),
            uses: Vec::new(),
            bare: false,
            steps: Vec::new(),
            notify: Notify::default(),
            timeout_ms: TIMEOUT_DEFAULT_MS,
            effect: Effect::Safe,
            retry: Some(Retry { attempts: ATTEMPTS_DEFAULT, backoff_ms: 0, on: vec![RetryReason::Lost] }),
            allow_failure: false,
            fanouts: Vec::new(),
        }
    }

    /// How often it is started again after `reason`.
    pub fn retries(&self, reason: RetryReason) -> u32 {
        self.retry.as_ref().filter(|retry| retry.on.contains(&reason)).map_or(0, |retry| retry.attempts.saturating_sub(1))
    }
}

/// [`Stage::retry`] as it is written, and as the first plans said in `retries_lost` how often a stage is started again after its agent was
/// lost. Runs have them in their logs.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
enum WrittenRetry {
    Losses(u32),
    Retry(Retry),
}

fn retry_or_losses<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Retry>, D::Error> {
    Ok(match WrittenRetry::deserialize(from)? {
        WrittenRetry::Losses(0) => None,
        WrittenRetry::Losses(losses) => Some(Retry { attempts: losses.saturating_add(1), backoff_ms: 0, on: vec![RetryReason::Lost] }),
        WrittenRetry::Retry(retry) => Some(retry),
    })
}

/// What happens in a stage.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum StageKind {
    /// Its steps are run by an agent; without steps, nothing, and others can wait for it.
    #[default]
    Work,
    /// It waits, and holds no agent; it has no steps.
    Wait(Wait),
    /// Its steps are run only if a stage fails that stands after it in the plan, after everything it needs has succeeded; the last one of a
    /// plan first. No stage waits for it.
    Rollback,
}

impl StageKind {
    fn is_work(&self) -> bool {
        matches!(self, Self::Work)
    }
}

/// What is waited for while no agent is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    /// A person approves this delivery; a refusal fails the stage.
    Confirm {
        /// What is asked.
        message: Value,
        /// Who may answer: people or groups of the project's configuration; empty for all who may approve.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        by: Vec<String>,
        /// How long, in milliseconds; without it, for ever.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_ms: Option<u64>,
    },
    /// A person answers with a text.
    Prompt {
        /// What is asked.
        message: Value,
        /// The variable that holds the answer.
        into: String,
        /// The answers to choose from; empty for any text.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        options: Vec<String>,
        /// Who may answer; empty for all who may approve.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        by: Vec<String>,
        /// How long, in milliseconds; without it, for ever.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_ms: Option<u64>,
    },
    /// An outside system calls back.
    Webhook {
        /// What is waited for, for people.
        description: Value,
        /// How long, in milliseconds; without it, for ever.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_ms: Option<u64>,
    },
    /// An address is asked until it answers as expected.
    Poll {
        /// The address, `http` or `https`.
        url: Value,
        /// The expected status code (RFC 9110, section 15).
        status: u16,
        /// Between two questions, in milliseconds.
        every_ms: u64,
        /// How long, in milliseconds.
        timeout_ms: u64,
    },
    /// Time passes.
    Time {
        /// How much, in milliseconds.
        ms: u64,
    },
    /// A person resumes the run.
    Pause,
}

/// Why a stage is skipped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Skip {
    /// The condition that is false, in the canonical spelling: `branch == 'main'`.
    pub condition: String,
    /// The facts that make it false: `branch is 'topic'`.
    pub because: String,
}

/// An edge of the graph, and why it is there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Need {
    /// The stage that comes first.
    pub stage: StageId,
    /// Why it comes first.
    pub reason: NeedReason,
}

/// Why one stage waits for another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum NeedReason {
    /// It is written after it.
    Order,
    /// Its `needs` name it.
    Needs,
    /// It uses this cache, which the other makes.
    Cache(String),
    /// It uses this artifact, which the other archives.
    Artifact(String),
    /// It takes this block (`runtime`, `gates`, …) from it.
    From(String),
    /// It delivers to this environment after it.
    Environment(String),
    /// It uses this variable, which the other captures.
    Variable(String),
    /// One of both waits for people or for the outside, which keeps its place among the stages around it.
    Barrier,
    /// It undoes what the other did.
    Rollback,
}

/// What a stage demands of an agent: a fact's name, and the value that the agent must have.
/// A number asks for at least as much, a text for the same, `true` for the presence of the fact.
pub type Requirements = BTreeMap<String, Value>;

/// Whether a stage may be started twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Starting it again does no harm.
    #[default]
    Safe,
    /// It never starts a second time without a person.
    Once,
}
