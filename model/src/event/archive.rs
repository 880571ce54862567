//! What stands in the stream in place of the log of a run that has ended, once the log lies in the depot.
//!
//! It is a link of the log's chain like a record: it names the one before by its hash, and a record that comes later names it.

use serde::{Deserialize, Serialize};

use crate::{Digest, Timestamp};

/// The version of this form, in the same series as that of records: an Otto that does not know it refuses the log, and says why.
pub const ARCHIVE_SCHEMA: u32 = 3;

/// Stands for the log before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ArchivedLog {
    /// [`ARCHIVE_SCHEMA`] of the writer.
    pub schema: u32,
    /// SHA-256 of the bytes of the record before, the last of the segments.
    pub previous: Digest,
    /// Who put it away: the orchestrator's name.
    pub actor: String,
    /// When.
    pub at: Timestamp,
    /// Where the log lies, its beginning first; at least one.
    pub segments: Vec<LogPart>,
}

/// A part of a log in the depot: a line for each record, its sequence in the stream, a space, and its bytes as they were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LogPart {
    /// SHA-256 of the part.
    pub bytes: Digest,
    /// Its bytes.
    pub length: u64,
    /// Its lines.
    pub records: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_form_is_that_of_its_file() {
        let text = include_str!("../../test_data/archived_log.json");
        let archived: ArchivedLog = serde_json::from_str(text).unwrap();
        assert_eq!((archived.schema, archived.segments.len()), (ARCHIVE_SCHEMA, 1));
        assert_eq!(serde_json::to_string(&archived).unwrap(), text.trim_end());
    }
}
