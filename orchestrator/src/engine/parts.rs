//! Logs of ended runs as they lie in the depot: how they are cut into parts, and read back.

use blob::{BlobError, Blobs};
use bytes::Bytes;
use eventbus::StoredRecord;
use model::{
    Digest, RunId,
    event::archive::{ArchivedLog, LogPart},
};

use super::log::LogError;

/// A part is closed when it has so many bytes: half of what the depot gives at once, so that the last record fits, whatever its size.
const PART_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Why a log that was put away was not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unpacked {
    /// It is not what it was.
    #[error(transparent)]
    Damaged(Box<LogError>),
    /// The depot is away.
    #[error(transparent)]
    Later(BlobError),
}

impl From<LogError> for Unpacked {
    fn from(error: LogError) -> Self {
        Self::Damaged(Box::new(error))
    }
}

/// The records, cut into parts. Their bytes have no line feed, as JSON that was written without any.
pub(crate) fn pack(records: &[StoredRecord]) -> Vec<(LogPart, Bytes)> {
    let mut parts = Vec::new();
    let (mut lines, mut count) = (Vec::new(), 0);
    for (at, record) in records.iter().enumerate() {
        lines.extend_from_slice(record.sequence.to_string().as_bytes());
        lines.push(b' ');
        lines.extend_from_slice(&record.bytes);
        lines.push(b'\n');
        count += 1;
        if lines.len() >= PART_BYTES_MAX || at + 1 == records.len() {
            let bytes = Bytes::from(std::mem::take(&mut lines));
            parts.push((LogPart { bytes: Digest::of(&bytes), length: bytes.len() as u64, records: count }, bytes));
            count = 0;
        }
    }
    parts
}

/// The records that `archived` stands for, as they were.
pub(crate) async fn read(run: &RunId, archived: &ArchivedLog, blobs: &Blobs) -> Result<Vec<StoredRecord>, Unpacked> {
    let mut records = Vec::new();
    for part in &archived.segments {
        let bytes = blobs.get(&part.bytes).await.map_err(|error| match error {
            BlobError::Missing(_) | BlobError::Damaged { .. } | BlobError::TooLarge { .. } => {
                LogError::Part { run: run.clone(), source: error }.into()
            }
            BlobError::Refused { .. } | BlobError::Disk { .. } | BlobError::Unavailable(_) => Unpacked::Later(error),
        })?;
        let before = records.len() as u64;
        unpack(run, &bytes, &mut records).ok_or_else(|| LogError::MalformedPart { run: run.clone(), part: part.bytes })?;
        if records.len() as u64 - before != part.records {
            return Err(LogError::MalformedPart { run: run.clone(), part: part.bytes }.into());
        }
    }
    Ok(records)
}

fn unpack(run: &RunId, part: &Bytes, records: &mut Vec<StoredRecord>) -> Option<()> {
    let mut rest = part.clone();
    while !rest.is_empty() {
        let mut line = rest.split_to(memchr::memchr(b'\n', &rest)? + 1);
        line.truncate(line.len() - 1);
        let sequence = line.split_to(memchr::memchr(b' ', &line)? + 1);
        let sequence = str::from_utf8(&sequence).ok()?.trim_end().parse().ok()?;
        records.push(StoredRecord { run: run.clone(), sequence, bytes: line });
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use model::TriggerId;

    use super::*;

    #[test]
    fn what_was_packed_is_read_as_it_was_and_large_logs_have_several_parts() {
        let run = RunId::of(&TriggerId::of("test", "1"));
        let large = Bytes::from(vec![b'x'; PART_BYTES_MAX / 3]);
        let records: Vec<_> = (1..=5).map(|at| StoredRecord { run: run.clone(), sequence: at * 10, bytes: large.clone() }).collect();
        let parts = pack(&records);
        assert_eq!(parts.iter().map(|(part, _)| part.records).collect::<Vec<_>>(), [3, 2]);
        let mut read = Vec::new();
        for (part, bytes) in &parts {
            assert_eq!((part.bytes, part.length), (Digest::of(bytes), bytes.len() as u64));
            unpack(&run, bytes, &mut read).unwrap();
        }
        assert_eq!(read, records);
        for broken in ["1 {}", "no sequence\n", "12\n"] {
            assert!(unpack(&run, &Bytes::from_static(broken.as_bytes()), &mut Vec::new()).is_none(), "{broken}");
        }
    }
}
