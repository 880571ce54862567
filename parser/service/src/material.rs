//! What a plan is made from and what comes of it, and how both pass between the role and its makers.
//!
//! A frame is the length of a JSON header in four bytes (the lowest first), the header, and the raw bytes whose lengths stand in it.

use std::{
    collections::BTreeMap,
    io::{self, Read},
};

use bytes::Bytes;
use model::{
    Digest,
    context::TriggerContext,
    diagnostic::Diagnostic,
    manifest::StepLibrary,
    planning::{PlanNotes, TriggerRule},
};
use parser::{Changed, PlanInput, Planning};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The most bytes of a frame's header, and of each of its pieces: more than the depot gives at once.
const PIECE_BYTES_MAX: usize = 256 * 1024 * 1024;

/// What is wanted of a pipeline file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Wanted {
    /// Its plan.
    Plan,
    /// What starts its runs; for that, the file alone is enough.
    Triggers,
}

/// What a pipeline file is planned from, in memory.
#[derive(Debug, Clone)]
pub(crate) struct Material {
    pub(crate) wanted: Wanted,
    pub(crate) path: String,
    pub(crate) source: Bytes,
    pub(crate) context: TriggerContext,
    pub(crate) files: BTreeMap<String, Option<Bytes>>,
    /// The JSON of the commit's files, empty if it has none; `None` while it was not asked for.
    pub(crate) listing: Option<Bytes>,
    /// The JSON of the changed paths, empty if it is not known what changed; `None` while it was not asked for.
    pub(crate) changed: Option<Bytes>,
}

/// What comes of it.
#[derive(Debug)]
pub(crate) enum Outcome {
    Made(Box<Made>),
    /// The answer to [`Wanted::Triggers`].
    Triggers(Vec<TriggerRule>),
    Refused(Vec<Diagnostic>),
    Needs(Wants),
    /// The same may succeed later.
    Broken(String),
}

/// A plan.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) digest: Digest,
    pub(crate) plan: Vec<u8>,
    pub(crate) notes: PlanNotes,
    pub(crate) warnings: Vec<Diagnostic>,
}

/// What else is needed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Wants {
    pub(crate) files: Vec<String>,
    pub(crate) listing: bool,
    pub(crate) changed: bool,
}

/// The header of a question. Lengths are in bytes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Question {
    wanted: Wanted,
    path: String,
    context: TriggerContext,
    source: usize,
    files: Vec<(String, Option<usize>)>,
    listing: Option<usize>,
    changed: Option<usize>,
}

/// The header of an answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Made { digest: Digest, plan: usize, notes: PlanNotes, warnings: Vec<Diagnostic> },
    Triggers(Vec<TriggerRule>),
    Refused(Vec<Diagnostic>),
    Needs(Wants),
    Broken(String),
}

impl Material {
    pub(crate) fn new(path: &str, source: Bytes, context: TriggerContext) -> Self {
        let (wanted, path) = (Wanted::Plan, path.to_owned());
        Self { wanted, path, source, context, files: BTreeMap::new(), listing: None, changed: None }
    }

    /// Makes the plan, or what else is wanted, here and now.
    pub(crate) fn make(&self, libraries: &[StepLibrary]) -> Outcome {
        if self.wanted == Wanted::Triggers {
            return parser::triggers(&self.path, &self.source).map_or_else(Outcome::Refused, Outcome::Triggers);
        }
        let broken = |what: &str, error: &serde_json::Error| Outcome::Broken(format!("{what} cannot be read: {error}"));
        let listing =
            match self.listing.as_ref().map(|json| if json.is_empty() { Ok(BTreeMap::new()) } else { serde_json::from_slice(json) }) {
                Some(Err(error)) => return broken("the list of the commit's files", &error),
                Some(Ok(listing)) => Some(listing),
                None => None,
            };
        let changed = match self
            .changed
            .as_ref()
            .map(|json| if json.is_empty() { Ok(Changed::Unknown) } else { serde_json::from_slice(json).map(Changed::Paths) })
        {
            Some(Err(error)) => return broken("the list of what changed", &error),
            Some(Ok(changed)) => Some(changed),
            None => None,
        };
        let files = self.files.iter().map(|(path, bytes)| (path.clone(), bytes.as_ref().map(|bytes| bytes.to_vec()))).collect();
        let planning = parser::plan(&PlanInput {
            path: &self.path,
            source: &self.source,
            context: &self.context,
            files: &files,
            listing: listing.as_ref(),
            changed: changed.as_ref(),
            libraries,
        });
        match planning {
            Planning::Plan { document, notes, warnings } => {
                Outcome::Made(Box::new(Made { digest: document.digest(), plan: document.bytes().to_vec(), notes: *notes, warnings }))
            }
            Planning::Refused(diagnostics) => Outcome::Refused(diagnostics),
            Planning::Needs(needs) => {
                Outcome::Needs(Wants { files: needs.files.into_iter().collect(), listing: needs.listing, changed: needs.changed })
            }
        }
    }

    /// The pieces of the frame that asks for it.
    pub(crate) fn frame(&self) -> Vec<Bytes> {
        let question = Question {
            wanted: self.wanted,
            path: self.path.clone(),
            context: self.context.clone(),
            source: self.source.len(),
            files: self.files.iter().map(|(path, bytes)| (path.clone(), bytes.as_ref().map(Bytes::len))).collect(),
            listing: self.listing.as_ref().map(Bytes::len),
            changed: self.changed.as_ref().map(Bytes::len),
        };
        let pieces = [&self.source].into_iter().chain(self.files.values().flatten()).chain(&self.listing).chain(&self.changed).cloned();
        [header(&question)].into_iter().chain(pieces).collect()
    }

    /// Reads what [`Material::frame`] wrote; `None` where nothing comes any more.
    pub(crate) fn read(from: &mut impl Read) -> io::Result<Option<Self>> {
        let Some(question) = read_header::<Question>(from)? else { return Ok(None) };
        let Question { wanted, path, context, source, files, listing, changed } = question;
        let source = piece(from, source)?;
        let mut read_files = BTreeMap::new();
        for (path, length) in files {
            let bytes = length.map(|length| piece(from, length)).transpose()?;
            read_files.insert(path, bytes);
        }
        let listing = listing.map(|length| piece(from, length)).transpose()?;
        let changed = changed.map(|length| piece(from, length)).transpose()?;
        Ok(Some(Self { wanted, path, source, context, files: read_files, listing, changed }))
    }
}

impl Outcome {
    /// The pieces of the frame that tells it.
    pub(crate) fn frame(self) -> Vec<Bytes> {
        match self {
            Self::Made(made) => {
                let Made { digest, plan, notes, warnings } = *made;
                vec![header(&Answer::Made { digest, plan: plan.len(), notes, warnings }), plan.into()]
            }
            Self::Triggers(rules) => vec![header(&Answer::Triggers(rules))],
            Self::Refused(diagnostics) => vec![header(&Answer::Refused(diagnostics))],
            Self::Needs(wants) => vec![header(&Answer::Needs(wants))],
            Self::Broken(message) => vec![header(&Answer::Broken(message))],
        }
    }
}

/// The length and the bytes of a header.
fn header(header: &impl Serialize) -> Bytes {
    let json = serde_json::to_vec(header).expect("headers have text keys only");
    let length = u32::try_from(json.len()).expect("a header is below its limit, which is far below 4 GiB");
    [&length.to_le_bytes(), json.as_slice()].concat().into()
}

fn read_header<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    if from.read(&mut length[..1])? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut length[1..])?;
    let json = piece(from, bounded(u32::from_le_bytes(length))?)?;
    serde_json::from_slice(&json).map(Some).map_err(io::Error::from)
}

fn piece(from: &mut impl Read, length: usize) -> io::Result<Bytes> {
    if length > PIECE_BYTES_MAX {
        return Err(io::Error::other("a piece is over its limit"));
    }
    let mut bytes = Vec::with_capacity(length);
    if from.take(length as u64).read_to_end(&mut bytes)? < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes.into())
}

/// The length of a header, within its limit.
pub(crate) fn bounded(length: u32) -> io::Result<usize> {
    let length = length as usize;
    if length > PIECE_BYTES_MAX { Err(io::Error::other("a header is over its limit")) } else { Ok(length) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_reads_as_it_was_written() {
        let mut material = Material::new("Ottofile", Bytes::from_static(b"\xff pipeline"), TriggerContext::default());
        material.files = BTreeMap::from([("a".to_owned(), Some(Bytes::from_static(b"a"))), ("b".to_owned(), None)]);
        material.changed = Some(Bytes::new());
        let written = [material.frame().concat(), material.frame().concat()].concat();
        let mut rest = written.as_slice();
        for _ in 0..2 {
            let read = Material::read(&mut rest).unwrap().unwrap();
            assert_eq!(
                (read.source, read.files, read.listing, read.changed),
                (material.source.clone(), material.files.clone(), None, Some(Bytes::new()))
            );
        }
        assert!(Material::read(&mut rest).unwrap().is_none());
        assert!(Material::read(&mut &written[..9]).is_err());
    }
}
