//! Projects, and the environments that they deliver to.

use std::collections::BTreeMap;

use model::{ProjectName, RunId, Timestamp, context::EventKind};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{StageRef, StageStatus, schema};

/// The projects of the token that the installation's configuration names, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProjectList {
    /// Each of them.
    pub projects: Vec<ProjectView>,
}

/// A project, as the administrator of the installation has configured it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProjectView {
    /// Its name.
    #[schema(value_type = schema::ProjectName)]
    pub name: ProjectName,
    /// What people call it.
    pub title: Option<String>,
    /// What it is.
    pub description: Option<String>,
    /// Where its commits come from.
    pub source: SourceView,
    /// The pipeline file's path, from the repository's root; of a pipeline that the project's configuration has itself, the name of that.
    pub pipeline: String,
    /// The pipeline that the project's configuration has itself; `null` where it is a file of each commit.
    #[serde(default)]
    pub inline: Option<String>,
    /// What is delivered at all; `null` for every branch and tag.
    pub refs: Option<RefsView>,
    /// What protects it, whatever its pipeline file says.
    pub protection: ProtectionView,
}

/// Where a project's commits come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum SourceView {
    /// A bare repository on the server's machine.
    Repository {
        /// Its path.
        path: String,
    },
    /// An address from which is fetched.
    Remote {
        /// The address, without user and password.
        url: String,
    },
}

/// Patterns of branches and tags.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RefsView {
    /// Of branches.
    pub branches: Vec<String>,
    /// Of tags.
    pub tags: Vec<String>,
}

/// What protects a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProtectionView {
    /// Whether its code is trusted at all: runs of a project that is not deliver nothing.
    #[serde(default = "trusted")]
    pub trusted: bool,
    /// Who can push there is trusted with the project.
    pub protected: RefsView,
    /// Whether pull requests of the project's own branches are run.
    pub pull_requests: bool,
    /// Whether pull requests of other repositories are run.
    pub forks: bool,
    /// What protects its environments, by name; one that is not here is open to every trusted run.
    pub environments: BTreeMap<String, EnvironmentRule>,
}

/// As a server has it that does not say so.
fn trusted() -> bool {
    true
}

/// What protects an environment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EnvironmentRule {
    /// What may be delivered to it; `null` for what is protected.
    pub from: Option<RefsView>,
    /// The names of the tokens one of which must approve each delivery; none need if there is none.
    pub approvers: Vec<String>,
}

/// Environments of the token's projects, by project and name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EnvironmentList {
    /// Each that is configured, or that a run which is listed delivers to.
    pub environments: Vec<EnvironmentView>,
}

/// An environment of a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EnvironmentView {
    /// The project.
    #[schema(value_type = schema::ProjectName)]
    pub project: ProjectName,
    /// Its name there.
    pub name: String,
    /// What protects it; `null` where the configuration does not name it.
    pub rule: Option<EnvironmentRule>,
    /// The newest delivery that was begun, has ended, or waits; `null` if there is none in a run which is listed.
    pub last: Option<DeliveryView>,
}

/// An environment's history in one project or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EnvironmentDetail {
    /// Its name.
    pub name: String,
    /// What protects it in each of the token's projects whose configuration names it.
    pub rules: BTreeMap<String, EnvironmentRule>,
    /// Locks that deliveries to it hold or wait for now.
    pub locks: Vec<LockView>,
    /// The deliveries, the newest run first.
    pub deliveries: Vec<DeliveryView>,
    /// Whether there are more.
    pub more: bool,
}

/// A stage that delivers to an environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeliveryView {
    /// The project.
    #[schema(value_type = schema::ProjectName)]
    pub project: ProjectName,
    /// The run.
    #[schema(value_type = schema::RunId)]
    pub run: RunId,
    /// What made it start.
    #[schema(value_type = schema::TriggerKind)]
    pub event: EventKind,
    /// The branch; empty if there is none.
    pub branch: String,
    /// The commit's full id; empty if there is none.
    pub commit: String,
    /// When the run was taken up.
    #[schema(value_type = schema::Timestamp)]
    pub accepted_at: Timestamp,
    /// The stage.
    pub stage: StageRef,
    /// Whether it takes a delivery back.
    pub is_rollback: bool,
    /// Where it stands.
    pub status: StageStatus,
    /// Who approved it, the first first.
    pub approved_by: Vec<String>,
}

/// A lock that somebody holds or waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LockView {
    /// The project: locks of two projects are two.
    #[schema(value_type = schema::ProjectName)]
    pub project: ProjectName,
    /// Its name.
    pub lock: String,
    /// The run and the stage that hold it; `null` if nobody does.
    pub holder: Option<crate::LockHolderView>,
    /// How many stages wait for it.
    pub waiting: usize,
}
