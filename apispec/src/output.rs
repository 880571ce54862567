//! What a stage has left: variables, artifacts, caches, test reports.

use std::collections::BTreeMap;

use model::Digest;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{StageRef, schema};

/// What a stage has left to others and to people.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutputsView {
    /// Variables that its steps captured, by name; `null` for one that was dropped.
    pub variables: BTreeMap<String, Option<String>>,
    /// Artifacts, by name.
    pub artifacts: BTreeMap<String, TreeView>,
    /// Caches, by name.
    pub caches: BTreeMap<String, TreeView>,
    /// What its test reports say, added up.
    pub tests: Option<TestsView>,
}

/// An artifact, and the stage that has left it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ArtifactView {
    /// The stage.
    pub stage: StageRef,
    /// Its name.
    pub name: String,
    /// SHA-256 of the archive.
    #[schema(value_type = schema::Digest)]
    pub archive: Digest,
    /// Its bytes.
    pub bytes: u64,
    /// Files, directories and links in it.
    pub entries: u64,
}

/// The artifacts of a run, in the order of its plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ArtifactList {
    /// The artifacts.
    pub artifacts: Vec<ArtifactView>,
}

/// Files and directories in the depot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TreeView {
    /// SHA-256 of the archive.
    #[schema(value_type = schema::Digest)]
    pub archive: Digest,
    /// Its bytes.
    pub bytes: u64,
    /// Files, directories and links in it.
    pub entries: u64,
}

/// What test reports say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TestsView {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed.
    pub failed: u64,
    /// Tests that were left out.
    pub skipped: u64,
    /// How long all took, in milliseconds.
    pub duration_ms: u64,
    /// The first of those that failed.
    pub failures: Vec<TestFailureView>,
}

/// A test that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TestFailureView {
    /// Its suite or class.
    pub suite: String,
    /// Its name.
    pub name: String,
    /// What it said.
    pub message: String,
}
