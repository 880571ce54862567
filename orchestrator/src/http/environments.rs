//! Environments: what was delivered to them, what is on its way, and who holds their locks. Deliveries are read from the lists, also those of long ago;
//! only open runs hold and wait for locks, and those are in memory.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};

use actix_web::{get, web};
use apispec::{DeliveryView, EnvironmentDetail, EnvironmentList, EnvironmentView, LockHolderView, LockView};
use model::ProjectName;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{Api, ApiError, access::Caller, projects::rule, view};
use crate::{
    core::{Run, Status, shape::Index},
    views::{Delivery, DeliveryFilter},
};

/// Environments in one answer. Each project has a few.
const ENVIRONMENTS_MAX: usize = 1_000;
/// Deliveries in one answer.
const DELIVERIES_MAX: usize = 100;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct EnvironmentQuery {
    /// Of this project only.
    #[param(value_type = Option<apispec::schema::ProjectName>)]
    project: Option<ProjectName>,
}

/// The caller's runs of the project, or of all, that have not ended.
fn open_runs(api: &Api, caller: &Caller, query: &EnvironmentQuery) -> impl Iterator<Item = Arc<Run>> {
    let wanted = |run: &Arc<Run>| caller.sees_run(run) && query.project.as_ref().is_none_or(|project| run.trigger.project == *project);
    api.orchestrator.runs.open().into_iter().filter(wanted)
}

/// The stages of a run that deliver, with where to.
fn delivering(run: &Run) -> impl Iterator<Item = (Index, &str)> {
    let stages = run.shape.plan().stages.iter().enumerate();
    stages.filter_map(|(at, stage)| Some((at, stage.deployment.as_ref()?.environment.as_str())))
}

/// Deliveries, the newest first, of which there is something to tell, each with where to.
async fn deliveries(api: &Api, filter: DeliveryFilter, limit: usize) -> Result<Vec<(String, DeliveryView)>, ApiError> {
    let runs = &api.orchestrator.runs;
    let found = runs.views().deliveries(DeliveryFilter { happens_only: true, ..filter }, None, limit).await?;
    let shown = |delivery: Delivery| {
        // Of a run in memory, what others have to do with it is told, too.
        let live = runs.get(&delivery.run).and_then(|snapshot| {
            let at = snapshot.run.shape.find(&delivery.stage)?;
            Some(view::status(&snapshot.run, at, runs))
        });
        (delivery.environment, DeliveryView { status: live.unwrap_or(delivery.view.status), ..delivery.view })
    };
    Ok(found.into_iter().map(shown).collect())
}

/// List the environments of the token's projects, each with its newest delivery.
#[utoipa::path(
    tag = "projects",
    operation_id = "environment_list",
    params(EnvironmentQuery),
    responses((status = 200, description = "the environments", body = EnvironmentList), ApiError),
)]
#[get("/v1/environments")]
pub(super) async fn list(
    caller: Caller,
    api: web::Data<Api>,
    query: web::Query<EnvironmentQuery>,
) -> Result<web::Json<EnvironmentList>, ApiError> {
    let mut found: BTreeMap<(ProjectName, String), EnvironmentView> = BTreeMap::new();
    for project in api.projects.seen_by(&caller).filter(|project| query.project.as_ref().is_none_or(|wanted| project.name == *wanted)) {
        for (name, environment) in &project.protection.environments {
            let view = EnvironmentView { project: project.name.clone(), name: name.clone(), rule: Some(rule(environment)), last: None };
            found.insert((project.name.clone(), name.clone()), view);
        }
    }
    let named = open_runs(&api, &caller, &query);
    let named: BTreeSet<_> = named
        .flat_map(|run| delivering(&run).map(|(_, name)| (run.trigger.project.clone(), name.to_owned())).collect::<Vec<_>>())
        .collect();
    let projects = caller.projects(query.project.clone());
    let newest = DeliveryFilter { projects, newest_only: true, ..DeliveryFilter::default() };
    let newest = deliveries(&api, newest, ENVIRONMENTS_MAX)
        .await?
        .into_iter()
        .map(|(environment, last)| ((last.project.clone(), environment), Some(last)));
    for ((project, name), last) in newest.chain(named.into_iter().map(|key| (key, None))) {
        let is_full = found.len() >= ENVIRONMENTS_MAX;
        let environment = match found.entry((project.clone(), name.clone())) {
            Entry::Vacant(_) if is_full => continue,
            Entry::Vacant(entry) => entry.insert(EnvironmentView { project, name, rule: None, last: None }),
            Entry::Occupied(entry) => entry.into_mut(),
        };
        if last.is_some() {
            environment.last = last;
        }
    }
    Ok(web::Json(EnvironmentList { environments: found.into_values().collect() }))
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
    let (mut locks, mut is_named) = (BTreeMap::new(), false);
    for run in open_runs(&api, &caller, &query) {
        for (at, _) in delivering(&run).filter(|(_, environment)| *environment == name.as_str()) {
            is_named = true;
            note_lock(&mut locks, &run, at);
        }
    }
    let projects = caller.projects(query.project.clone());
    let filter = DeliveryFilter { projects, environment: Some(name.clone()), ..DeliveryFilter::default() };
    let mut found = deliveries(&api, filter, DELIVERIES_MAX + 1).await?;
    if rules.is_empty() && found.is_empty() && !is_named {
        return Err(ApiError::UnknownEnvironment(name.into_inner()));
    }
    let more = found.len() > DELIVERIES_MAX;
    found.truncate(DELIVERIES_MAX);
    let deliveries = found.into_iter().map(|(_, delivery)| delivery).collect();
    Ok(web::Json(EnvironmentDetail { name: name.into_inner(), rules, locks: locks.into_values().collect(), deliveries, more }))
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
