//! A durable stream as JetStream has it: one counter for all subjects, and a store that names the subject's last sequence.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::refused;
use crate::{BusError, Subject, bus::Stored};

/// The most bytes of payload that one stream keeps: it lives in memory, and what a process of its own runs is small.
const STREAM_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Messages that are read at once, where the reader goes on.
const BATCH_MESSAGES: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Stream {
    /// Message `n` is at index `n - 1`; what a later message stands for is empty, and named nowhere.
    messages: Vec<(Subject, Bytes)>,
    /// The sequences of each subject, oldest first.
    subjects: BTreeMap<Subject, Vec<u64>>,
    bytes: usize,
}

impl Stream {
    /// Whether [`Stream::store`] will store this.
    pub(super) fn takes(&self, subject: &Subject, payload: &Bytes, last: u64) -> Result<bool, BusError> {
        if self.subjects.get(subject).and_then(|sequences| sequences.last()).copied().unwrap_or(0) != last {
            return Ok(false);
        }
        if self.bytes.saturating_add(payload.len()) > STREAM_BYTES_MAX {
            return Err(refused(format!("store to {subject}"), "the stream is full"));
        }
        Ok(true)
    }

    pub(super) fn store(&mut self, subject: &Subject, payload: Bytes, last: u64) -> Result<Stored, BusError> {
        if !self.takes(subject, &payload, last)? {
            return Ok(Stored::WrongLastSequence);
        }
        self.bytes += payload.len();
        self.messages.push((subject.clone(), payload));
        let sequence = self.messages.len() as u64;
        self.subjects.entry(subject.clone()).or_default().push(sequence);
        Ok(Stored::At(sequence))
    }

    /// The message at this sequence stands for all earlier ones of its subject.
    pub(super) fn forget_before(&mut self, subject: &Subject, sequence: u64) {
        let Some(sequences) = self.subjects.get_mut(subject) else { return };
        for gone in sequences.extract_if(.., |one| *one < sequence) {
            let index = usize::try_from(gone - 1).expect("a sequence that was given is an index");
            self.bytes -= self.messages[index].1.len();
            self.messages[index].1 = Bytes::new();
        }
    }

    pub(super) fn last(&self, subject: &Subject) -> Option<(u64, Bytes)> {
        let sequence = *self.subjects.get(subject)?.last()?;
        Some((sequence, self.at(sequence).1.clone()))
    }

    /// The message at this sequence, which must have been given by this stream.
    pub(super) fn at(&self, sequence: u64) -> &(Subject, Bytes) {
        let index = usize::try_from(sequence - 1).expect("a sequence that was given is an index");
        &self.messages[index]
    }

    pub(super) fn of_subject(&self, subject: &Subject) -> Vec<(u64, Bytes)> {
        let sequences = self.subjects.get(subject).map_or(&[][..], Vec::as_slice);
        sequences.iter().map(|sequence| (*sequence, self.at(*sequence).1.clone())).collect()
    }

    /// The next messages after a sequence, at most [`BATCH_MESSAGES`], and the last sequence.
    pub(super) fn after(&self, sequence: u64) -> (Vec<(u64, Subject, Bytes)>, u64) {
        (self.kept().skip_while(|(kept, ..)| *kept <= sequence).take(BATCH_MESSAGES).collect(), self.messages.len() as u64)
    }

    pub(super) fn all(&self) -> Vec<(u64, Subject, Bytes)> {
        self.kept().collect()
    }

    /// All messages for which no later one stands.
    fn kept(&self) -> impl Iterator<Item = (u64, Subject, Bytes)> {
        let kept = (1..).zip(&self.messages).filter(|(sequence, (subject, _))| {
            self.subjects.get(subject).is_some_and(|sequences| sequences.binary_search(sequence).is_ok())
        });
        kept.map(|(sequence, (subject, bytes))| (sequence, subject.clone(), bytes.clone()))
    }
}
