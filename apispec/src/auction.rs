//! Auctions: who was asked to run a stage, what they offered, and why the others did not.

use model::{AgentName, AuctionId, ProjectName, RunId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{DeclineView, OfferView, StageRef, StageView, schema};

/// Auctions of the token's projects, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuctionList {
    /// Each of them, out of the last that this orchestrator has heard of since it was started.
    pub auctions: Vec<AuctionView>,
}

/// An auction that has closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuctionView {
    /// The auction.
    #[schema(value_type = schema::AuctionId)]
    pub id: AuctionId,
    /// The project.
    #[schema(value_type = schema::ProjectName)]
    pub project: ProjectName,
    /// The run.
    #[schema(value_type = schema::RunId)]
    pub run: RunId,
    /// The stage.
    pub stage: StageRef,
    /// The attempt that was to be placed, from 1.
    pub attempt: u32,
    /// When it closed.
    #[schema(value_type = schema::Timestamp)]
    pub closed_at: Timestamp,
    /// Who got the attempt by this auction; `null` if nobody has.
    #[schema(value_type = Option<schema::AgentName>)]
    pub awarded: Option<AgentName>,
    /// The offers, the best first.
    pub offers: Vec<OfferView>,
    /// Who made none, and why.
    pub declined: Vec<DeclineView>,
    /// What no agent has; empty where one could.
    pub unmet: Vec<String>,
}

/// Why stages run where they do, or wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WhyView {
    /// The run.
    #[schema(value_type = schema::RunId)]
    pub run: RunId,
    /// The stage that was asked for; without one, those that are not over, or all where all are.
    pub stages: Vec<StageWhy>,
    /// Whether there are more.
    pub more: bool,
}

/// Why a stage runs where it does, or waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StageWhy {
    /// The stage: where it stands, and its attempts, each with the offers that decided where it runs. They are in the log for good.
    #[serde(flatten)]
    pub stage: StageView,
    /// Its auctions, the newest first, out of those that the orchestrator remembers.
    pub auctions: Vec<AuctionView>,
}
