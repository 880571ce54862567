//! The log of a run, event by event.

use model::{ProjectName, RunId, RunOutcome, Timestamp, event::run::RunEvent};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::schema;

/// The name under which an [`EventView`] stands in a stream of server-sent events.
pub const SSE_EVENT: &str = "event";
/// The name of a stream's last message, an [`EndView`]: who follows need not connect again.
pub const SSE_END: &str = "end";
/// The name of the first message of a stream of all runs' events, whose id is where the stream begins. Its data is `null`.
pub const SSE_HERE: &str = "here";

/// One event of a run's log. `sequence` and `index` order the events of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventView {
    /// The sequence of the record that holds the event; one record is stored as a whole.
    pub sequence: u64,
    /// The event's place in its record, from 0.
    pub index: u32,
    /// When it was decided.
    #[schema(value_type = schema::Timestamp)]
    pub at: Timestamp,
    /// The event.
    #[schema(value_type = schema::RunEvent)]
    pub event: RunEvent,
}

impl EventView {
    /// The event's id in a stream of server-sent events, `<sequence>.<index>`: what `Last-Event-ID` names.
    pub fn id(&self) -> String {
        format!("{}.{}", self.sequence, self.index)
    }
}

/// An event among those of all runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunEventView {
    /// The run.
    #[schema(value_type = schema::RunId)]
    pub run: RunId,
    /// Its project.
    #[schema(value_type = schema::ProjectName)]
    pub project: ProjectName,
    /// The event.
    #[serde(flatten)]
    pub event: EventView,
}

/// The run has ended, and so does what followed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EndView {
    /// How it ended.
    #[schema(value_type = schema::RunOutcome)]
    pub outcome: RunOutcome,
    /// When it ended.
    #[schema(value_type = schema::Timestamp)]
    pub ended_at: Timestamp,
}
