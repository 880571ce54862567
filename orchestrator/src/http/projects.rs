//! The projects that the administrator has configured.

use std::{collections::BTreeMap, sync::Arc};

use actix_web::{get, web};
use apispec::{EnvironmentRule, ProjectList, ProjectView, ProtectionView, RefsView, SourceView};
use config::{
    Pipeline, Project,
    project::Source,
    trust::{Environment, Protection, PullRequests, Refs},
};
use model::{ProjectName, trigger::Trust};

use super::{Api, ApiError, access::Caller};

/// The configured projects, by name. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Projects(Arc<BTreeMap<ProjectName, Project>>);

impl Projects {
    /// These.
    pub fn of(projects: impl IntoIterator<Item = Project>) -> Self {
        Self(Arc::new(projects.into_iter().map(|project| (project.name.clone(), project)).collect()))
    }

    /// The project of this name.
    pub(super) fn get(&self, project: &ProjectName) -> Option<&Project> {
        self.0.get(project)
    }

    /// Those that the caller's token is for.
    pub(super) fn seen_by(&self, caller: &Caller) -> impl Iterator<Item = &Project> {
        self.0.values().filter(|project| caller.sees(&project.name))
    }
}

/// List the projects that the installation's configuration names.
#[utoipa::path(
    tag = "projects",
    operation_id = "project_list",
    responses((status = 200, description = "the projects of the token", body = ProjectList), ApiError),
)]
#[get("/v1/projects")]
pub(super) async fn list(caller: Caller, api: web::Data<Api>) -> web::Json<ProjectList> {
    web::Json(ProjectList { projects: api.projects.seen_by(&caller).map(view).collect() })
}

/// Show a project: where it comes from, and what protects it.
#[utoipa::path(
    tag = "projects",
    operation_id = "project_show",
    params(("project" = apispec::schema::ProjectName, Path, description = "the project")),
    responses((status = 200, description = "the project", body = ProjectView), ApiError),
)]
#[get("/v1/projects/{project}")]
pub(super) async fn show(caller: Caller, api: web::Data<Api>, project: web::Path<String>) -> Result<web::Json<ProjectView>, ApiError> {
    let found = api.projects.seen_by(&caller).find(|known| known.name.as_str() == *project);
    found.map(view).map(web::Json).ok_or_else(|| ApiError::UnknownProject(project.into_inner()))
}

fn view(project: &Project) -> ProjectView {
    ProjectView {
        name: project.name.clone(),
        title: project.title.clone(),
        description: project.description.clone(),
        source: match &project.source {
            Source::Repository(path) => SourceView::Repository { path: path.display().to_string() },
            Source::Remote(url) => SourceView::Remote { url: url.clone() },
        },
        pipeline: project.pipeline_path(),
        inline: match &project.pipeline {
            Pipeline::Inline(text) => Some(text.clone()),
            Pipeline::File(_) => None,
        },
        refs: project.refs.as_ref().map(refs),
        protection: protection(&project.protection),
    }
}

fn protection(protection: &Protection) -> ProtectionView {
    let runs = |rule: PullRequests| match rule {
        PullRequests::Run => true,
        PullRequests::Ignore => false,
    };
    ProtectionView {
        trusted: protection.trust == Trust::Trusted,
        protected: refs(&protection.protected),
        pull_requests: runs(protection.pull_requests),
        forks: runs(protection.forks),
        environments: protection.environments.iter().map(|(name, environment)| (name.clone(), rule(environment))).collect(),
    }
}

/// What protects an environment.
pub(super) fn rule(environment: &Environment) -> EnvironmentRule {
    EnvironmentRule { from: environment.from.as_ref().map(refs), approvers: environment.approvers.clone() }
}

fn refs(refs: &Refs) -> RefsView {
    let texts = |patterns: &[config::trust::RefPattern]| patterns.iter().map(ToString::to_string).collect();
    RefsView { branches: texts(&refs.branches), tags: texts(&refs.tags) }
}
