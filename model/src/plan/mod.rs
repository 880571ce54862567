//! The plan: the whole of a run, known before it starts.
//!
//! A plan is written as canonical JSON (RFC 8785); its digest is the SHA-256 of those bytes. Spans, source text and times stay outside, and
//! every number is an integer, so that the same meaning has the same bytes on every machine. What is not said (no lock, no gate) is left
//! out of the bytes.

mod condition;
mod settings;
mod stage;
mod step;
mod value;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{Digest, StageId};

pub use condition::Condition;
pub use settings::{CacheDefinition, CacheUse, Container, Credential, Deployment, Notify, Retry, RetryReason, Service};
pub use stage::{
    ATTEMPTS_DEFAULT, CONTAINERS, Effect, ISOLATION, NAMESPACES, Need, NeedReason, Requirements, Skip, Stage, StageKind,
    TIMEOUT_DEFAULT_MS, Wait,
};
pub use step::Step;
pub use value::{Function, Value};

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
    /// What a newer run of the same branch or pull request does; without it, both run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newer: Option<Newer>,
    /// The credentials that steps or stages use, by the name that the file gives them. References, never values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub credentials: BTreeMap<String, Credential>,
    /// Configuration of the steps that are used, with defaults filled in, by symbol.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub configuration: BTreeMap<String, BTreeMap<String, Value>>,
    /// Steps that run when the whole has ended.
    #[serde(default, skip_serializing_if = "Notify::is_empty")]
    pub notify: Notify,
}

/// What a newer run of the same branch or pull request does to this one. A started stage with [`Effect::Once`] is never cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Newer {
    /// It cancels this one.
    Cancel,
    /// It waits for this one's end.
    Wait,
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
    /// A plan of these stages and nothing else.
    pub fn new(stages: Vec<Stage>) -> Self {
        Self {
            schema: PLAN_SCHEMA,
            stages,
            libraries: BTreeMap::new(),
            newer: None,
            credentials: BTreeMap::new(),
            configuration: BTreeMap::new(),
            notify: Notify::default(),
        }
    }

    /// The stage with this id.
    pub fn stage(&self, id: &StageId) -> Option<&Stage> {
        self.stages.iter().find(|stage| &stage.id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(path: &str, needs: &[&str]) -> Stage {
        let needs = needs.iter().map(|path| Need { stage: StageId::of(path), reason: NeedReason::Order }).collect();
        Stage { needs, ..Stage::new(path) }
    }

    fn plan(stages: Vec<Stage>) -> Plan {
        Plan::new(stages)
    }

    #[test]
    fn a_plan_reads_back_with_the_same_digest() {
        let document = PlanDocument::new(plan(vec![stage("a", &[]), stage("b", &["a"])]));
        assert_eq!(PlanDocument::read(document.bytes()).unwrap(), document);
    }

    #[test]
    fn a_plan_of_the_first_form_still_reads() {
        let id = |path| StageId::of(path).to_string();
        let json = format!(
            r#"{{"libraries":{{}},"schema":1,"stages":[{},{}]}}"#,
            format_args!(
                r#"{{"effect":"safe","environment":{{"A":"b"}},"id":"{}","needs":[],"path":"a","requires":{{"os":"linux"}},"retries_lost":2,"steps":[{{"library":"stdlib","parameters":{{"script":"make"}},"symbol":"sh"}}],"timeout_ms":5}}"#,
                id("a")
            ),
            format_args!(
                r#"{{"effect":"once","environment":{{}},"id":"{}","needs":[{{"reason":"order","stage":"{}"}}],"path":"b","requires":{{}},"retries_lost":0,"steps":[],"timeout_ms":5}}"#,
                id("b"),
                id("a")
            ),
        );
        let document = PlanDocument::read(json.as_bytes()).unwrap();
        assert_eq!((document.bytes(), document.digest()), (json.as_bytes(), Digest::of(json.as_bytes())));
        let losses: Vec<_> = document.plan().stages.iter().map(|stage| stage.retries(RetryReason::Lost)).collect();
        assert_eq!((losses, &document.plan().stages[1].retry), (vec![2, 0], &None));
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
