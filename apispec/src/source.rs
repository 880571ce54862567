//! What a run is made of, brought by whoever asks for it.

use model::Digest;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::schema;

/// The most bytes that are brought at once: every agent that runs a stage unpacks a source tree.
pub const SOURCE_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

/// Bytes that lie in the depot now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SourceCreated {
    /// By this a run names them.
    #[schema(value_type = schema::Digest)]
    pub digest: Digest,
}
