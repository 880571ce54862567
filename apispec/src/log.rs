//! The output of a run's stages, as who follows it gets it.

use model::{StageId, Timestamp, protocol::log::Stream};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Base64, schema};

/// The name under which a [`ChunkView`] stands in a stream of server-sent events.
pub const SSE_CHUNK: &str = "chunk";
/// The name under which a [`GapView`] stands in a stream of server-sent events.
pub const SSE_GAP: &str = "gap";

/// The header of an answer with output that says how many bytes of the attempt's output lie before it.
pub const OUTPUT_OFFSET_HEADER: &str = "otto-output-offset";
/// The header of an answer with output that says how many line feeds of the attempt's output lie before it.
pub const OUTPUT_LINES_HEADER: &str = "otto-output-lines-before";

/// A piece of a stage's output. The pieces of one attempt come in the order of their offsets, and none twice on one connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChunkView {
    /// The stage.
    #[schema(value_type = schema::StageId)]
    pub stage: StageId,
    /// The stage's path.
    pub path: String,
    /// The attempt, from 1.
    pub attempt: u32,
    /// The sequence of the award that the attempt acts under: it tells apart two awards of one attempt.
    pub fence: u64,
    /// The step, from 0.
    pub step: u32,
    /// Where it was written to.
    #[schema(value_type = schema::Stream)]
    pub stream: Stream,
    /// Bytes of the attempt's output before this piece.
    pub offset: u64,
    /// When the agent read it.
    #[schema(value_type = schema::Timestamp)]
    pub at: Timestamp,
    /// The bytes.
    #[schema(value_type = schema::Bytes)]
    pub bytes: Base64,
}

/// Output of an attempt that is not there: it was lost, or has not been kept. The stream goes on behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GapView {
    /// The stage.
    #[schema(value_type = schema::StageId)]
    pub stage: StageId,
    /// The stage's path.
    pub path: String,
    /// The attempt, from 1.
    pub attempt: u32,
    /// The sequence of the award that the attempt acts under.
    pub fence: u64,
    /// The first missing byte of the attempt's output.
    pub from: u64,
    /// The byte after the last missing one; `null` where nobody knows how much there was.
    pub to: Option<u64>,
    /// Why it is not there.
    pub reason: GapReason,
}

/// Why output is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// It was lost on its way, or is not kept in memory any more. If the whole output is stored later, that has it.
    NotKept,
    /// The attempt ended, and its whole output never came to the depot.
    NeverStored,
    /// The depot has it and does not give it now: ask again.
    DepotUnavailable,
}
