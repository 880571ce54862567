//! What a stage has left: variables, artifacts, caches, test reports.

use std::collections::BTreeMap;

use model::Digest;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::schema;

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
