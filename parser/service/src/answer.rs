//! From a request to its answer: the part of the role that needs no bus.

use std::collections::BTreeMap;

use blob::{BlobError, Blobs};
use bytes::Bytes;
use eventbus::bus::MESSAGE_BYTES_MAX;
use model::{
    Digest,
    context::TriggerContext,
    diagnostic::Diagnostic,
    manifest::StepLibrary,
    plan::PlanDocument,
    planning::{INLINE_BYTES_MAX, Listing, PlanReply, PlanRequest, Text},
};
use parser::{Changed, Needs, PlanInput, Planning};
use serde::de::DeserializeOwned;
use service::supervisor::chain;
use tracing::error;

/// Bytes of all files of one request: more than any list that a pipeline is made from, and a bound for memory.
const FILES_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of the diagnostics of one answer, as JSON: the rest of the message is less than 1 KiB.
const DIAGNOSTICS_BYTES_MAX: usize = MESSAGE_BYTES_MAX - 1024;
/// Bytes of the warnings beside a plan, as JSON; the plan itself takes up to six times [`INLINE_BYTES_MAX`].
const WARNINGS_BYTES_MAX: usize = 256 * 1024;

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
        Ok(Planning::Plan { document, notes, warnings }) => planned(&document, notes.not_triggered, warnings, blobs).await,
        Ok(Planning::Refused(diagnostics)) => refused(diagnostics),
        Ok(Planning::Needs(needs)) => PlanReply::Needs { files: needs.files.into_iter().collect() },
        Err(Hindrance::TooLarge(bytes)) => refused(vec![parser::too_large(&request.path, bytes)]),
        Err(Hindrance::Unavailable(message)) => PlanReply::Unavailable { message },
    }
}

/// What a pipeline file is planned from, in memory.
#[derive(Debug, Clone)]
struct Material {
    path: String,
    source: Bytes,
    context: TriggerContext,
    files: BTreeMap<String, Option<Vec<u8>>>,
    listing: Option<Listing>,
    changed: Option<Changed>,
    libraries: Vec<StepLibrary>,
}

impl Material {
    fn plan(&self) -> Planning {
        parser::plan(&PlanInput {
            path: &self.path,
            source: &self.source,
            context: &self.context,
            files: &self.files,
            listing: self.listing.as_ref(),
            changed: self.changed.as_ref(),
            libraries: &self.libraries,
        })
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
    let mut material = Material { path, source, context, files, listing: None, changed: None, libraries };
    loop {
        let work = material.clone();
        let planning = tokio::task::spawn_blocking(move || work.plan()).await.map_err(|fault| {
            error!(path = request.path, error = chain(&fault), "the parser fell over a file");
            Hindrance::Unavailable("the parser fell over this file: a mistake of Otto's, please report it".to_owned())
        })?;
        match planning {
            // What lies in the depot is fetched only for a file that asks for it; at most two more rounds.
            Planning::Needs(needs) if supply(&needs, request, &mut material, blobs).await? => {}
            done @ (Planning::Plan { .. } | Planning::Refused(_) | Planning::Needs(_)) => return Ok(done),
        }
    }
}

/// Fetches what the request names by digest; `false` if nothing of what is needed was missing here.
async fn supply(needs: &Needs, request: &PlanRequest, material: &mut Material, blobs: &Blobs) -> Result<bool, Hindrance> {
    let mut supplied = false;
    if needs.listing && material.listing.is_none() {
        material.listing = Some(json_of(request.listing.as_ref(), "the list of the commit's files", blobs).await?.unwrap_or_default());
        supplied = true;
    }
    if needs.changed && material.changed.is_none() {
        let paths = json_of(request.changed.as_ref(), "the list of what changed", blobs).await?;
        material.changed = Some(paths.map_or(Changed::Unknown, Changed::Paths));
        supplied = true;
    }
    Ok(supplied)
}

async fn json_of<T: DeserializeOwned>(digest: Option<&Digest>, what: &str, blobs: &Blobs) -> Result<Option<T>, Hindrance> {
    let Some(digest) = digest else { return Ok(None) };
    let failed = |why: String| Hindrance::Unavailable(format!("{what} cannot be read: {why}"));
    let bytes = blobs.get(digest).await.map_err(|fault| failed(chain(&fault)))?;
    serde_json::from_slice(&bytes).map(Some).map_err(|fault| failed(fault.to_string()))
}

async fn files(named: &BTreeMap<String, Option<Text>>, blobs: &Blobs) -> Result<BTreeMap<String, Option<Vec<u8>>>, Hindrance> {
    let mut files = BTreeMap::new();
    let mut total = 0;
    for (path, text) in named {
        let Some(text) = text else {
            files.insert(path.clone(), None);
            continue;
        };
        let failed = |fault: BlobError| Hindrance::Unavailable(format!("{path} cannot be read: {}", chain(&fault)));
        let bytes = bytes_of(text, blobs).await.map_err(failed)?;
        total += bytes.len();
        if total > FILES_BYTES_MAX {
            return Err(Hindrance::Unavailable(format!("the files up to {path} have {total} bytes, over the limit of {FILES_BYTES_MAX}")));
        }
        files.insert(path.clone(), Some(bytes.into()));
    }
    Ok(files)
}

async fn bytes_of(text: &Text, blobs: &Blobs) -> Result<Bytes, BlobError> {
    match text {
        Text::Inline(text) => Ok(Bytes::copy_from_slice(text.as_bytes())),
        Text::Depot(digest) => blobs.get(digest).await,
    }
}

async fn planned(document: &PlanDocument, not_triggered: Option<String>, warnings: Vec<Diagnostic>, blobs: &Blobs) -> PlanReply {
    let digest: Digest = document.digest();
    let warnings = fitting(warnings, WARNINGS_BYTES_MAX);
    if document.bytes().len() <= INLINE_BYTES_MAX {
        let plan = String::from_utf8(document.bytes().to_vec()).expect("JSON is UTF-8");
        return PlanReply::Planned { digest, plan: Text::Inline(plan), warnings, not_triggered };
    }
    match blobs.put(Bytes::copy_from_slice(document.bytes())).await {
        Ok(stored) => {
            assert_eq!(stored, digest, "the depot names bytes by the digest that the plan has");
            PlanReply::Planned { digest, plan: Text::Depot(digest), warnings, not_triggered }
        }
        Err(fault) => PlanReply::Unavailable { message: format!("the plan cannot be stored: {}", chain(&fault)) },
    }
}

/// With a sensible path all diagnostics fit into a message.
fn refused(diagnostics: Vec<Diagnostic>) -> PlanReply {
    let diagnostics = fitting(diagnostics, DIAGNOSTICS_BYTES_MAX);
    if diagnostics.is_empty() {
        return PlanReply::Unavailable {
            message: "what is wrong with the file does not fit into a message: is its path that long?".to_owned(),
        };
    }
    PlanReply::Refused { diagnostics }
}

/// As many of the diagnostics, the first ones first, as have at most `bytes_max` bytes as JSON.
fn fitting(mut diagnostics: Vec<Diagnostic>, bytes_max: usize) -> Vec<Diagnostic> {
    let size = |diagnostic: &Diagnostic| serde_json::to_vec(diagnostic).map_or(usize::MAX, |json| json.len() + 1);
    let mut total: usize = 0;
    let fitting = diagnostics.iter().take_while(|diagnostic| {
        total = total.saturating_add(size(diagnostic));
        total <= bytes_max
    });
    let fitting = fitting.count();
    diagnostics.truncate(fitting);
    diagnostics
}
