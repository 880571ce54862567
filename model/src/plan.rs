//! The plan: the whole of a run, known before it starts.
//!
//! A plan is written as canonical JSON (RFC 8785); its digest is the SHA-256 of those bytes. Spans, source text and times stay outside, and
//! every number is an integer, so that the same meaning has the same bytes on every machine.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{Digest, StageId};

/// The version of the plan's form that is written.
pub const PLAN_SCHEMA: u32 = 1;

/// A graph of stages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// [`PLAN_SCHEMA`] of the writer.
    pub schema: u32,
    /// The stages, each after those that it needs.
    pub stages: Vec<Stage>,
    /// The step libraries that the steps are taken from, by name.
    pub libraries: BTreeMap<String, Digest>,
}

/// One unit that is placed on one agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Derived from `path`.
    pub id: StageId,
    /// The names from the outermost group to the stage, joined by `/`; unique in the plan.
    pub path: String,
    /// What must have succeeded before it starts, with the reason.
    pub needs: Vec<Need>,
    /// What an agent must be able to do.
    pub requires: Requirements,
    /// What its steps find in their environment, besides what the agent sets.
    pub environment: BTreeMap<String, String>,
    /// Run one after the other, until one fails.
    pub steps: Vec<Step>,
    /// How long it may run, in milliseconds.
    pub timeout_ms: u64,
    /// Whether it may start again.
    pub effect: Effect,
    /// How often it is started again after its agent was lost; 0 where `effect` is `once`.
    pub retries_lost: u32,
}

/// An edge of the graph, and why it is there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Need {
    /// The stage that comes first.
    pub stage: StageId,
    /// Why it comes first.
    pub reason: NeedReason,
}

/// Why one stage waits for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NeedReason {
    /// It is written after it.
    Order,
}

/// What a stage demands of an agent: a fact's name, and the value that the agent must have.
/// A number asks for at least as much, a text for the same, `true` for the presence of the fact.
pub type Requirements = BTreeMap<String, Value>;

/// Whether a stage may be started twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Starting it again does no harm.
    #[default]
    Safe,
    /// It never starts a second time without a person.
    Once,
}

/// One call of one step, fully resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The step's symbol.
    pub symbol: String,
    /// The library that has it, a key of [`Plan::libraries`].
    pub library: String,
    /// Its arguments, by keyword.
    pub parameters: BTreeMap<String, Value>,
}

/// A value without a name left to look up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// `true` or `false`.
    Boolean(bool),
    /// A whole number; durations are in milliseconds, sizes in bytes. At most 2^53 − 1 in size (RFC 8785, section 3.2.2.3).
    Integer(i64),
    /// A text.
    Text(String),
    /// A number with a fraction keeps its digits: `3.10` is not `3.1`.
    Decimal {
        /// The digits as written.
        decimal: String,
    },
    /// Several values.
    List(Vec<Value>),
}

/// A plan, its bytes, and their digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanDocument {
    plan: Plan,
    bytes: Vec<u8>,
    digest: Digest,
}

/// Why bytes are no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Not the JSON of a plan.
    #[error("the plan {digest} does not read as one")]
    Json {
        /// Of the bytes.
        digest: Digest,
        /// What serde says.
        source: serde_json::Error,
    },
    /// Written by a newer Otto.
    #[error("the plan {digest} has schema {schema}, and this Otto reads up to {PLAN_SCHEMA}: update it")]
    TooNew {
        /// Of the bytes.
        digest: Digest,
        /// What the plan says.
        schema: u32,
    },
    /// Two stages have one id, or a need names none that stands before.
    #[error("the plan {digest} is no graph: stage {stage} {what}")]
    Graph {
        /// Of the bytes.
        digest: Digest,
        /// The stage at fault.
        stage: StageId,
        /// What is wrong with it.
        what: &'static str,
    },
}

impl PlanDocument {
    /// Writes `plan` canonically.
    pub fn new(plan: Plan) -> Self {
        let bytes = serde_json_canonicalizer::to_vec(&plan).expect("a plan has text keys and integers only, so it has a canonical form");
        let digest = Digest::of(&bytes);
        Self { plan, bytes, digest }
    }

    /// Reads what [`PlanDocument::bytes`] gave.
    pub fn read(bytes: &[u8]) -> Result<Self, PlanError> {
        #[derive(Deserialize)]
        struct Versioned {
            schema: u32,
        }
        let digest = Digest::of(bytes);
        let json = |source| PlanError::Json { digest, source };
        let Versioned { schema } = serde_json::from_slice(bytes).map_err(json)?;
        if schema > PLAN_SCHEMA {
            return Err(PlanError::TooNew { digest, schema });
        }
        let plan: Plan = serde_json::from_slice(bytes).map_err(json)?;
        let mut seen = BTreeSet::new();
        for stage in &plan.stages {
            let graph = |what| PlanError::Graph { digest, stage: stage.id.clone(), what };
            if stage.needs.iter().any(|need| !seen.contains(&need.stage)) {
                return Err(graph("needs one that does not stand before it"));
            }
            if !seen.insert(stage.id.clone()) {
                return Err(graph("stands in it twice"));
            }
        }
        Ok(Self { plan, bytes: bytes.to_vec(), digest })
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Its canonical JSON.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// SHA-256 of [`PlanDocument::bytes`].
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

impl Plan {
    /// The stage with this id.
    pub fn stage(&self, id: &StageId) -> Option<&Stage> {
        self.stages.iter().find(|stage| &stage.id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(path: &str, needs: &[&str]) -> Stage {
        Stage {
            id: StageId::of(path),
            path: path.to_owned(),
            needs: needs.iter().map(|path| Need { stage: StageId::of(path), reason: NeedReason::Order }).collect(),
            requires: BTreeMap::new(),
            environment: BTreeMap::new(),
            steps: vec![],
            timeout_ms: 1,
            effect: Effect::Safe,
            retries_lost: 2,
        }
    }

    fn plan(stages: Vec<Stage>) -> Plan {
        Plan { schema: PLAN_SCHEMA, stages, libraries: BTreeMap::new() }
    }

    #[test]
    fn a_plan_reads_back_with_the_same_digest() {
        let document = PlanDocument::new(plan(vec![stage("a", &[]), stage("b", &["a"])]));
        assert_eq!(PlanDocument::read(document.bytes()).unwrap(), document);
    }

    #[test]
    fn what_is_no_plan_is_refused() {
        let cyclic = PlanDocument::new(plan(vec![stage("a", &["b"]), stage("b", &["a"])]));
        assert!(matches!(PlanDocument::read(cyclic.bytes()), Err(PlanError::Graph { .. })));
        let doubled = PlanDocument::new(plan(vec![stage("a", &[]), stage("a", &[])]));
        assert!(matches!(PlanDocument::read(doubled.bytes()), Err(PlanError::Graph { .. })));
        assert!(matches!(PlanDocument::read(b"{\"schema\":2}"), Err(PlanError::TooNew { schema: 2, .. })));
        assert!(matches!(PlanDocument::read(b"{}"), Err(PlanError::Json { .. })));
    }
}
