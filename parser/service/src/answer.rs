//! From a request to its answer: the part of the role that needs no bus.

use std::collections::BTreeMap;

use blob::{BlobError, Blobs};
use bytes::Bytes;
use eventbus::bus::MESSAGE_BYTES_MAX;
use model::{
    Digest,
    diagnostic::Diagnostic,
    manifest::StepLibrary,
    plan::PlanDocument,
    planning::{INLINE_BYTES_MAX, PlanReply, PlanRequest, Text},
};
use parser::{PlanInput, Planning};
use service::supervisor::chain;
use tracing::error;

/// Bytes of all files of one request: more than any list that a pipeline is made from, and a bound for memory.
const FILES_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of the diagnostics of one answer, as JSON: the rest of the message is less than 1 KiB.
const DIAGNOSTICS_BYTES_MAX: usize = MESSAGE_BYTES_MAX - 1024;

/// Why a request has no plan, besides its own mistakes.
enum Hindrance {
    /// The same request may succeed later.
    Unavailable(String),
    /// The file has so many bytes that it was not even fetched.
    TooLarge(u64),
}

/// Answers a request. `blobs` gives what the request names by digest, and takes a plan that is over [`INLINE_BYTES_MAX`].
pub async fn answer(request: &PlanRequest, blobs: &Blobs, libraries: &[StepLibrary]) -> PlanReply {
    match planning(request, blobs, libraries).await {
        Ok(Planning::Plan { document, .. }) => planned(&document, blobs).await,
        Ok(Planning::Refused(diagnostics)) => refused(diagnostics),
        Ok(Planning::Needs(files)) => PlanReply::Needs { files },
        Err(Hindrance::TooLarge(bytes)) => refused(vec![parser::too_large(&request.path, bytes)]),
        Err(Hindrance::Unavailable(message)) => PlanReply::Unavailable { message },
    }
}

async fn planning(request: &PlanRequest, blobs: &Blobs, libraries: &[StepLibrary]) -> Result<Planning, Hindrance> {
    let source = bytes_of(&request.source, blobs).await.map_err(|fault| match fault {
        BlobError::TooLarge { length, .. } => Hindrance::TooLarge(length),
        BlobError::Missing(_)
        | BlobError::Refused { .. }
        | BlobError::Damaged { .. }
        | BlobError::Disk { .. }
        | BlobError::Unavailable(_) => Hindrance::Unavailable(format!("{} cannot be read: {}", request.path, chain(&fault))),
    })?;
    let files = files(&request.files, blobs).await?;
    let (path, context, libraries) = (request.path.clone(), request.context.clone(), libraries.to_vec());
    let work = move || parser::plan(&PlanInput { path: &path, source: &source, context: &context, files: &files, libraries: &libraries });
    tokio::task::spawn_blocking(work).await.map_err(|fault| {
        error!(path = request.path, error = chain(&fault), "the parser fell over a file");
        Hindrance::Unavailable("the parser fell over this file: a mistake of Otto's, please report it".to_owned())
    })
}

async fn files(named: &BTreeMap<String, Text>, blobs: &Blobs) -> Result<BTreeMap<String, Vec<u8>>, Hindrance> {
    let mut files = BTreeMap::new();
    let mut total = 0;
    for (path, text) in named {
        let failed = |fault: BlobError| Hindrance::Unavailable(format!("{path} cannot be read: {}", chain(&fault)));
        let bytes = bytes_of(text, blobs).await.map_err(failed)?;
        total += bytes.len();
        if total > FILES_BYTES_MAX {
            return Err(Hindrance::Unavailable(format!("the files up to {path} have {total} bytes, over the limit of {FILES_BYTES_MAX}")));
        }
        files.insert(path.clone(), bytes.into());
    }
    Ok(files)
}

async fn bytes_of(text: &Text, blobs: &Blobs) -> Result<Bytes, BlobError> {
    match text {
        Text::Inline(text) => Ok(Bytes::copy_from_slice(text.as_bytes())),
        Text::Depot(digest) => blobs.get(digest).await,
    }
}

async fn planned(document: &PlanDocument, blobs: &Blobs) -> PlanReply {
    let digest: Digest = document.digest();
    if document.bytes().len() <= INLINE_BYTES_MAX {
        let plan = String::from_utf8(document.bytes().to_vec()).expect("JSON is UTF-8");
        return PlanReply::Planned { digest, plan: Text::Inline(plan) };
    }
    match blobs.put(Bytes::copy_from_slice(document.bytes())).await {
        Ok(stored) => {
            assert_eq!(stored, digest, "the depot names bytes by the digest that the plan has");
            PlanReply::Planned { digest, plan: Text::Depot(digest) }
        }
        Err(fault) => PlanReply::Unavailable { message: format!("the plan cannot be stored: {}", chain(&fault)) },
    }
}

/// As many of the diagnostics, the first ones first, as fit into a message. With a sensible path all do.
fn refused(mut diagnostics: Vec<Diagnostic>) -> PlanReply {
    let size = |diagnostic: &Diagnostic| serde_json::to_vec(diagnostic).map_or(usize::MAX, |json| json.len() + 1);
    let mut total: usize = 0;
    let fitting = diagnostics.iter().take_while(|diagnostic| {
        total = total.saturating_add(size(diagnostic));
        total <= DIAGNOSTICS_BYTES_MAX
    });
    let fitting = fitting.count();
    diagnostics.truncate(fitting);
    if diagnostics.is_empty() {
        return PlanReply::Unavailable {
            message: "what is wrong with the file does not fit into a message: is its path that long?".to_owned(),
        };
    }
    PlanReply::Refused { diagnostics }
}
