//! Agents, as they tell of themselves.

use actix_web::{get, web};
use apispec::{AgentList, AgentStageView, AgentView, Presence};
use model::{AgentName, Timestamp, protocol::agent::LEASE_MS};
use serde::Deserialize;
use service::clock;
use utoipa::IntoParams;

use super::{Api, ApiError, access::Caller, view};
use crate::agents::Seen;

/// Agents in one answer, where the request does not say how many.
const AGENTS_DEFAULT: usize = 100;
/// The most agents in one answer.
const AGENTS_MAX: usize = 1_000;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct AgentQuery {
    /// How many agents at most.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// The `cursor` of the answer before.
    #[param(value_type = Option<apispec::schema::AgentName>)]
    cursor: Option<AgentName>,
}

/// List the agents of which the orchestrator has heard within a day, by name.
///
/// What they run is shown as far as the token is for its project.
#[utoipa::path(
    tag = "agents",
    operation_id = "agent_list",
    params(AgentQuery),
    responses((status = 200, description = "the agents", body = AgentList), ApiError),
)]
#[get("/v1/agents")]
pub(super) async fn list(caller: Caller, api: web::Data<Api>, query: web::Query<AgentQuery>) -> Result<web::Json<AgentList>, ApiError> {
    let limit = query.limit.unwrap_or(AGENTS_DEFAULT);
    if !(1..=AGENTS_MAX).contains(&limit) {
        return Err(ApiError::InvalidQuery(format!("`limit` is {limit}, and must be 1 to {AGENTS_MAX}")));
    }
    let mut found = api.orchestrator.runs.agents().list(query.cursor.as_ref(), limit + 1);
    let more = found.len() > limit;
    found.truncate(limit);
    let cursor = found.last().filter(|_| more).map(|seen| seen.status.agent.clone());
    let now = Timestamp(clock::unix_ms());
    Ok(web::Json(AgentList { agents: found.iter().map(|seen| agent(seen, now, &api, &caller)).collect(), cursor }))
}

fn agent(seen: &Seen, now: Timestamp, api: &Api, caller: &Caller) -> AgentView {
    let status = &*seen.status;
    let stages = status.leases.iter().filter_map(|lease| {
        let attempt = &lease.attempt;
        let run = api.orchestrator.runs.get(&attempt.run)?.run;
        let at = run.shape.find(&attempt.stage).filter(|_| caller.sees_run(&run))?;
        Some(AgentStageView { run: run.id.clone(), stage: view::reference(&run, at), attempt: attempt.attempt })
    });
    AgentView {
        name: status.agent.clone(),
        presence: if now.since(seen.at).as_millis() > u128::from(LEASE_MS) { Presence::Silent } else { Presence::Present },
        heard_at: seen.at,
        slots: status.slots,
        slots_free: status.slots_free,
        price_micros_per_s: status.price_micros_per_s,
        facts: status.facts.iter().filter_map(|(name, value)| Some((name.clone(), serde_json::to_value(value).ok()?))).collect(),
        stages: stages.collect(),
    }
}
