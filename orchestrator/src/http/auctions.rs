//! Auctions, and why a stage runs where it does, or waits.

use actix_web::{get, web};
use apispec::{AuctionList, AuctionView, DeclineView, StageWhy, WhyView};
use model::{RunId, protocol::auction::Declined};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{Api, ApiError, access::Caller, logs, runs::find, view};
use crate::{
    auctions::Auction,
    core::{Run, shape::Index},
};

/// Auctions in one answer, where the request does not say how many.
const AUCTIONS_DEFAULT: usize = 50;
/// Stages in one answer: more than a person reads.
const STAGES_MAX: usize = 50;
/// Auctions of one stage in one answer: a stage that waits asks again every few seconds.
const STAGE_AUCTIONS_MAX: usize = 5;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct AuctionQuery {
    /// Of this run only.
    #[param(value_type = Option<apispec::schema::RunId>)]
    run: Option<RunId>,
    /// How many auctions at most.
    #[param(minimum = 1, maximum = 500, default = 50)]
    limit: Option<usize>,
}

/// List the last auctions, the newest first, with all offers.
///
/// They are out of the last 500 of which this orchestrator has heard since it was started. What decided an award is in the run's log for good.
#[utoipa::path(
    tag = "auctions",
    operation_id = "auction_list",
    params(AuctionQuery),
    responses((status = 200, description = "the auctions", body = AuctionList), ApiError),
)]
#[get("/v1/auctions")]
pub(super) async fn list(caller: Caller, api: web::Data<Api>, query: web::Query<AuctionQuery>) -> Result<web::Json<AuctionList>, ApiError> {
    let limit = query.limit.unwrap_or(AUCTIONS_DEFAULT);
    if !(1..=crate::auctions::AUCTIONS_MAX).contains(&limit) {
        return Err(ApiError::InvalidQuery(format!("`limit` is {limit}, and must be 1 to {}", crate::auctions::AUCTIONS_MAX)));
    }
    let is_wanted =
        |auction: &Auction| caller.sees(&auction.project) && query.run.as_ref().is_none_or(|run| auction.proposal.attempt.run == *run);
    let found = api.orchestrator.runs.auctions().list(limit, is_wanted);
    let views = found.iter().filter_map(|auction| {
        let run = api.orchestrator.runs.get(&auction.proposal.attempt.run)?.run;
        Some(auction_view(auction, &run, run.shape.find(&auction.proposal.attempt.stage)?))
    });
    Ok(web::Json(AuctionList { auctions: views.collect() }))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct WhyQuery {
    /// Only this stage: its path, the last part of it where that is unique, or its id.
    stage: Option<String>,
}

/// Say why the stages of a run run where they do, or what they wait for.
#[utoipa::path(
    tag = "auctions",
    operation_id = "run_why",
    params(("run" = apispec::schema::RunId, Path, description = "the run"), WhyQuery),
    responses((status = 200, description = "why", body = WhyView), ApiError),
)]
#[get("/v1/runs/{run}/why")]
pub(super) async fn why(
    caller: Caller,
    api: web::Data<Api>,
    run: web::Path<String>,
    query: web::Query<WhyQuery>,
) -> Result<web::Json<WhyView>, ApiError> {
    let run = find(&api, &caller, &run).await?.run;
    let wanted: Vec<Index> = match &query.stage {
        Some(named) => vec![logs::stage(&run, named)?],
        None if run.open > 0 => (0..run.shape.len()).filter(|at| !run.stages[*at].is_over()).collect(),
        None => (0..run.shape.len()).collect(),
    };
    let stages = wanted.iter().take(STAGES_MAX).map(|at| {
        let id = &run.shape.stage(*at).id;
        let of_stage = |auction: &Auction| auction.proposal.attempt.run == run.id && auction.proposal.attempt.stage == *id;
        let auctions = api.orchestrator.runs.auctions().list(STAGE_AUCTIONS_MAX, of_stage);
        StageWhy {
            stage: view::stage(&run, *at, &api.orchestrator.runs),
            auctions: auctions.iter().map(|auction| auction_view(auction, &run, *at)).collect(),
        }
    });
    Ok(web::Json(WhyView { run: run.id.clone(), stages: stages.collect(), more: wanted.len() > STAGES_MAX }))
}

fn auction_view(auction: &Auction, run: &Run, at: Index) -> AuctionView {
    let proposal = &auction.proposal;
    let awarded = run.stages[at].attempts.iter().find(|attempt| attempt.auction == proposal.auction);
    let declined = proposal.declined.iter().map(|Declined { agent, reason }| DeclineView { agent: agent.clone(), reason: reason.clone() });
    AuctionView {
        id: proposal.auction.clone(),
        project: auction.project.clone(),
        run: run.id.clone(),
        stage: view::reference(run, at),
        attempt: proposal.attempt.attempt,
        closed_at: proposal.closed_at,
        awarded: awarded.map(|attempt| attempt.agent.clone()),
        offers: proposal.offers.iter().map(view::offer).collect(),
        declined: declined.collect(),
        unmet: proposal.unmet.clone(),
    }
}
