//! Agents: what they tell of themselves, and what the administrator has enrolled them as.

use actix_web::{get, post, web};
use apispec::{AgentList, AgentStageView, AgentTrustView, AgentView, EnrolmentView, Presence};
use model::{
    AgentName, Timestamp,
    protocol::{
        agent::LEASE_MS,
        enrolment::{AgentTrust, DrainReply, Enrolled},
    },
};
use serde::Deserialize;
use service::{clock, supervisor::chain};
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
        enrolled: api.orchestrator.runs.agents().enrolled(&status.agent).map(enrolment),
    }
}

fn enrolment(enrolled: Enrolled) -> EnrolmentView {
    let Enrolled { class, trust, draining } = enrolled;
    let trust = match trust {
        AgentTrust::Trusted => AgentTrustView::Trusted,
        AgentTrust::Untrusted => AgentTrustView::Untrusted,
        AgentTrust::Any => AgentTrustView::Any,
    };
    EnrolmentView { class, trust, draining }
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct DrainQuery {
    /// It takes new work again.
    #[serde(default)]
    #[param(default = false)]
    undo: bool,
}

/// Have an agent take no new work.
///
/// What it runs it ends. This holds, also over its restarts, until it is undone, or the agent enrols anew. It asks for a token of all projects; the same
/// request again changes nothing.
#[utoipa::path(
    tag = "agents",
    operation_id = "agent_drain",
    params(("agent" = apispec::schema::AgentName, Path, description = "the agent"), DrainQuery),
    responses((status = 200, description = "what it is enrolled as from now on", body = EnrolmentView), ApiError),
)]
#[post("/v1/agents/{agent}/drain")]
pub(super) async fn drain(
    caller: Caller,
    api: web::Data<Api>,
    agent: web::Path<String>,
    query: web::Query<DrainQuery>,
) -> Result<web::Json<EnrolmentView>, ApiError> {
    if !caller.sees_all() {
        return Err(ApiError::Forbidden(format!("the token `{}` is for some projects, and an agent works for all", caller.name())));
    }
    let unknown = || ApiError::UnknownAgent(agent.to_string());
    let name: AgentName = agent.parse().map_err(|_| unknown())?;
    match api.orchestrator.drain(&name, !query.undo).await {
        Ok(DrainReply::Done { enrolled }) => Ok(web::Json(enrolment(enrolled))),
        Ok(DrainReply::Unknown) => Err(unknown()),
        Ok(DrainReply::Unavailable { message }) => Err(ApiError::Enrolment(message)),
        Err(error) => Err(ApiError::Enrolment(chain(&error))),
    }
}
