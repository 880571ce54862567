//! What a memory bus stores, kept in a file: a line for each message, its subject, a space, and its JSON.
//!
//! A line is appended by one `write` before the message counts as stored, and nothing is made durable (fsync): a kill loses no message that was
//! stored, and a loss of power loses the last ones. What follows the last line feed is of a `write` that a kill has cut, and never counted.
//!
//! **Invariant:** messages come back in the order, and with the sequences, in which they were stored.

use std::{
    fs::{File, OpenOptions},
    io::{self, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use model::{RunId, TriggerId};

use crate::{StoredRecord, Subject};

/// A journal that is written.
#[derive(Debug)]
pub struct Journal {
    file: File,
    /// Bytes of whole lines.
    length: u64,
    /// What was in it when it was opened.
    kept: Vec<Kept>,
}

/// A message of a journal.
pub(super) type Kept = (Subject, Bytes);

/// Why a journal is not read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk says no.
    #[error("cannot use the journal {}", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A line that is none. What comes after it cannot be trusted.
    #[error("the journal {} is damaged: line {line} names no subject that is kept", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
}

impl Journal {
    /// Opens the journal, or begins one. Nobody else may be writing it.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let disk = |source| JournalError::Disk { path: path.to_owned(), source };
        let mut file = OpenOptions::new().create(true).append(true).read(true).mode(0o600).open(path).map_err(disk)?;
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut file, &mut bytes).map_err(disk)?;
        let whole = whole_lines(&bytes);
        let length = whole.len() as u64;
        if whole.len() < bytes.len() {
            file.set_len(length).map_err(disk)?;
        }
        Ok(Self { kept: parse(path, whole)?, file, length })
    }

    /// The records of a journal that somebody may be writing, with their sequences on the bus that writes it.
    pub fn records(path: &Path) -> Result<Vec<StoredRecord>, JournalError> {
        let records = Self::read(path)?.into_iter().filter_map(|(subject, bytes)| Some((subject.run_id()?, bytes)));
        Ok((1..).zip(records).map(|(sequence, (run, bytes))| StoredRecord { run, sequence, bytes }).collect())
    }

    fn read(path: &Path) -> Result<Vec<Kept>, JournalError> {
        let bytes = std::fs::read(path).map_err(|source| JournalError::Disk { path: path.to_owned(), source })?;
        parse(path, whole_lines(&bytes))
    }

    /// Copies another journal's messages behind those that are there.
    pub fn import(&mut self, path: &Path) -> Result<(), JournalError> {
        let disk = |source| JournalError::Disk { path: path.to_owned(), source };
        for (subject, payload) in Self::read(path)? {
            self.append(&subject, &payload).map_err(disk)?;
            self.kept.push((subject, payload));
        }
        Ok(())
    }

    pub(super) fn take_kept(&mut self) -> Vec<Kept> {
        std::mem::take(&mut self.kept)
    }

    /// Appends a message. If that fails, nothing of it is left.
    pub(super) fn append(&mut self, subject: &Subject, payload: &[u8]) -> io::Result<()> {
        if payload.contains(&b'\n') {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a message of a journal is one line"));
        }
        let line = [subject.as_str().as_bytes(), b" ", payload, b"\n"].concat();
        if let Err(error) = self.file.write_all(&line) {
            self.file.set_len(self.length)?;
            self.file.seek(SeekFrom::End(0))?;
            return Err(error);
        }
        self.length += line.len() as u64;
        Ok(())
    }
}

fn whole_lines(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    bytes.get(..end).unwrap_or_default()
}

fn parse(path: &Path, lines: &[u8]) -> Result<Vec<Kept>, JournalError> {
    let lines = lines.split_inclusive(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\n").unwrap_or(line));
    let kept = (1..).zip(lines).map(|(number, line)| {
        let damaged = || JournalError::Damaged { path: path.to_owned(), line: number };
        let space = line.iter().position(|byte| *byte == b' ').ok_or_else(damaged)?;
        let (name, payload) = line.split_at(space);
        let subject = str::from_utf8(name).ok().and_then(subject).ok_or_else(damaged)?;
        Ok((subject, Bytes::copy_from_slice(payload.get(1..).unwrap_or_default())))
    });
    kept.collect()
}

/// The subject of a message that a bus stores.
fn subject(name: &str) -> Option<Subject> {
    match name.split_once('.')? {
        ("runs", run) => Some(Subject::run(&run.parse::<RunId>().ok()?)),
        ("triggers", trigger) => Some(Subject::trigger(&trigger.parse::<TriggerId>().ok()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subjects() -> (Subject, Subject) {
        let trigger = TriggerId::of("t", "1");
        (Subject::trigger(&trigger), Subject::run(&RunId::of(&trigger)))
    }

    #[test]
    fn what_was_stored_is_there_again_and_a_cut_line_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let (trigger, run) = subjects();
        let mut journal = Journal::open(&path).unwrap();
        journal.append(&trigger, b"{}").unwrap();
        journal.append(&run, b"{\"a\":\"b c\"}").unwrap();
        assert!(journal.append(&run, b"{\n}").is_err());
        drop(journal);
        std::fs::write(&path, [std::fs::read(&path).unwrap(), b"runs.run_cut {\"a".to_vec()].concat()).unwrap();
        let expected = vec![(trigger, Bytes::from_static(b"{}")), (run.clone(), Bytes::from_static(b"{\"a\":\"b c\"}"))];
        assert_eq!(Journal::read(&path).unwrap(), expected);
        let records = Journal::records(&path).unwrap();
        assert_eq!((records.len(), records[0].sequence, Some(&records[0].run)), (1, 1, run.run_id().as_ref()));
        let mut journal = Journal::open(&path).unwrap();
        assert_eq!(journal.take_kept(), expected);
        journal.append(&run, b"1").unwrap();
        assert_eq!(Journal::read(&path).unwrap().last().unwrap(), &(run, Bytes::from_static(b"1")));
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let (_, run) = subjects();
        std::fs::write(&path, format!("{} {{}}\nagents.a {{}}\n", run.as_str())).unwrap();
        let error = Journal::open(&path).unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
    }
}
