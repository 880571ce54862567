//! Environments: what was delivered to them, what is on its way, and who holds their locks. All of it is read from the runs that are listed.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use actix_web::{get, web};
use apispec::{DeliveryView, EnvironmentDetail, EnvironmentList, EnvironmentView, LockHolderView, LockView};
use model::{
    ProjectName,
    event::run::Answer,
    plan::{Deployment, StageKind},
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{Api, ApiError, access::Caller, projects::rule, view};
use crate::{
    core::{Run, Status, shape::Index},
    runs::Runs,
};

/// Environments in one answer. Each project has a few.
const ENVIRONMENTS_MAX: usize = 1_000;
/// Deliveries in one answer.
const DELIVERIES_MAX: usize = 100;
/// Runs, the newest first, that are looked through: those that are in memory.
const RUNS_MAX: usize = crate::runs::ENDED_RUNS_MAX;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct EnvironmentQuery {
    /// Of this project only.
    #[param(value_type = Option<apispec::schema::ProjectName>)]
    project: Option<ProjectName>,
}

/// The caller's runs of the project, or of all.
fn runs(api: &Api, caller: &Caller, query: &EnvironmentQuery) -> Vec<Arc<Run>> {
    let wanted = |run: &Run| caller.sees_run(run) && query.project.as_ref().is_none_or(|project| run.trigger.project == *project);
    api.orchestrator.runs.list(None, RUNS_MAX, wanted).into_iter().map(|(_, run)| run).collect()
}

/// The stages of a run that deliver.
fn deliveries(run: &Run) -> impl Iterator<Item = (Index, &Deployment)> {
    run.shape.plan().stages.iter().enumerate().filter_map(|(at, stage)| Some((at, stage.deployment.as_ref()?)))
}

/// List the environments of the token's projects, each with its newest delivery.
#[utoipa::path(
    tag = "projects",
    operation_id = "environment_list",
    params(EnvironmentQuery),
    responses((status = 200, description = "the environments", body = EnvironmentList), ApiError),
)]
#[get("/v1/environments")]
pub(super) async fn list(caller: Caller, api: web::Data<Api>, query: web::Query<EnvironmentQuery>) -> web::Json<EnvironmentList> {
    let mut found: BTreeMap<(ProjectName, String), EnvironmentView> = BTreeMap::new();
    for project in api.projects.seen_by(&caller).filter(|project| query.project.as_ref().is_none_or(|wanted| project.name == *wanted)) {
        for (name, environment) in &project.protection.environments {
            let view = EnvironmentView { project: project.name.clone(), name: name.clone(), rule: Some(rule(environment)), last: None };
            found.insert((project.name.clone(), name.clone()), view);
        }
    }
    for run in runs(&api, &caller, &query) {
        for (at, deployment) in deliveries(&run) {
            let is_full = found.len() >= ENVIRONMENTS_MAX;
            let environment = match found.entry((run.trigger.project.clone(), deployment.environment.clone())) {
                Entry::Vacant(_) if is_full => continue,
                Entry::Vacant(entry) => {
                    let (project, name) = entry.key().clone();
                    entry.insert(EnvironmentView { project, name, rule: None, last: None })
                }
                Entry::Occupied(entry) => entry.into_mut(),
            };
            if environment.last.is_none() && has_begun(&run.stages[at].status) {
                environment.last = Some(delivery(&run, at, &api.orchestrator.runs));
            }
        }
    }
    web::Json(EnvironmentList { environments: found.into_values().collect() })
}

/// Show an environment: what was delivered to it, what is on its way, and who holds its locks.
///
/// Another project's environment of the same name is another one; without `project`, all are shown together.
#[utoipa::path(
    tag = "projects",
    operation_id = "environment_show",
    params(("name" = String, Path, description = "the environment"), EnvironmentQuery),
    responses((status = 200, description = "the environment", body = EnvironmentDetail), ApiError),
)]
#[get("/v1/environments/{name}")]
pub(super) async fn show(
    caller: Caller,
    api: web::Data<Api>,
    name: web::Path<String>,
    query: web::Query<EnvironmentQuery>,
) -> Result<web::Json<EnvironmentDetail>, ApiError> {
    let projects = api.projects.seen_by(&caller).filter(|project| query.project.as_ref().is_none_or(|wanted| project.name == *wanted));
    let rules: BTreeMap<_, _> = projects
        .filter_map(|project| Some((project.name.to_string(), rule(project.protection.environments.get(name.as_str())?))))
        .collect();
    let (mut found, mut locks, mut is_known) = (Vec::new(), BTreeMap::new(), !rules.is_empty());
    for run in runs(&api, &caller, &query) {
        for (at, _) in deliveries(&run).filter(|(_, deployment)| deployment.environment == *name) {
            is_known = true;
            note_lock(&mut locks, &run, at);
            if has_begun(&run.stages[at].status) && found.len() <= DELIVERIES_MAX {
                found.push(delivery(&run, at, &api.orchestrator.runs));
            }
        }
    }
    if !is_known {
        return Err(ApiError::UnknownEnvironment(name.into_inner()));
    }
    let more = found.len() > DELIVERIES_MAX;
    found.truncate(DELIVERIES_MAX);
    Ok(web::Json(EnvironmentDetail { name: name.into_inner(), rules, locks: locks.into_values().collect(), deliveries: found, more }))
}

/// Notes the lock that the stage holds or waits for.
fn note_lock(locks: &mut BTreeMap<(ProjectName, String), LockView>, run: &Run, at: Index) {
    let stage = &run.stages[at];
    let waits_for = if let Status::Queued { lock, .. } = &stage.status { Some(lock) } else { None };
    let holds = stage.lock.as_ref().filter(|_| waits_for.is_none() && !stage.is_over());
    let Some(lock) = waits_for.or(holds) else { return };
    let project = run.trigger.project.clone();
    let view =
        locks.entry((project.clone(), lock.clone())).or_insert_with(|| LockView { project, lock: lock.clone(), holder: None, waiting: 0 });
    if holds.is_some() {
        view.holder = Some(LockHolderView { run: run.id.clone(), stage: view::reference(run, at) });
    } else {
        view.waiting += 1;
    }
}

/// Whether there is something to tell of the stage.
fn has_begun(status: &Status) -> bool {
    !matches!(status, Status::Waiting | Status::Skipped(_))
}

fn delivery(run: &Run, at: Index, runs: &Runs) -> DeliveryView {
    let (context, stage) = (&run.trigger.context, &run.stages[at]);
    let approved = stage.waits.values().filter_map(|wait| match wait.answer.as_ref()? {
        (Answer::Approved { .. }, by) => by.clone(),
        _ => None,
    });
    DeliveryView {
        project: run.trigger.project.clone(),
        run: run.id.clone(),
        event: context.event,
        branch: context.branch.clone(),
        commit: context.commit.clone(),
        accepted_at: run.accepted_at,
        stage: view::reference(run, at),
        is_rollback: run.shape.stage(at).kind == StageKind::Rollback,
        status: view::status(run, at, runs),
        approved_by: approved.collect(),
    }
}
