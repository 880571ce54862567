//! From a request to its answer: the part of the role that needs no bus.

use std::collections::BTreeMap;

use blob::{BlobError, Blobs};
use bytes::Bytes;
use eventbus::bus::MESSAGE_BYTES_MAX;
use model::{
    Digest,
    context::TriggerContext,
    diagnostic::Diagnostic,
    planning::{INLINE_BYTES_MAX, PLAN_ROUNDS_MAX, PlanReply, PlanRequest, Text, TriggersReply, TriggersRequest},
};
use serde::Serialize;
use service::supervisor::chain;

use crate::{
    makers::{Makers, over_limit},
    material::{Made, Material, Outcome, Wanted, Wants},
};

/// Bytes of all files of one request: more than any list that a pipeline is made from, and a bound for memory.
const FILES_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of the diagnostics of one answer, as JSON: the rest of the message is less than 1 KiB.
const DIAGNOSTICS_BYTES_MAX: usize = MESSAGE_BYTES_MAX - 1024;
/// Bytes of the warnings beside a plan, as JSON; the plan itself takes up to six times [`INLINE_BYTES_MAX`].
const WARNINGS_BYTES_MAX: usize = 256 * 1024;
/// Lines of `triggers` of one answer: far more than anybody starts runs by, of a size that fits into a message.
const RULES_MAX: usize = 1000;
/// What is said of an answer of a maker to another question than it was asked.
const OTHER_ANSWER: &str = "the process that makes plans has answered another question";

/// Why a request has no plan, besides its own mistakes.
enum Hindrance {
    /// The same request may succeed later.
    Unavailable(String),
    /// The file has so many bytes that it was not even fetched.
    TooLarge(u64),
    /// What the file asks for is over this limit, and will be again.
    OverLimit(String),
}

/// Answers a request. `blobs` gives what the request names by digest, and takes a plan that is over [`INLINE_BYTES_MAX`].
pub async fn answer(request: &PlanRequest, blobs: &Blobs, makers: &Makers) -> PlanReply {
    match planning(request, blobs, makers).await {
        Ok(Outcome::Made(made)) => planned(*made, blobs).await,
        Ok(Outcome::Refused(diagnostics)) => refused(diagnostics),
        Ok(Outcome::Needs(needs)) => needed(&request.path, needs.files),
        Err(Hindrance::OverLimit(limit)) => refused(vec![over_limit(&request.path, &limit)]),
        Err(Hindrance::TooLarge(bytes)) => refused(vec![parser::too_large(&request.path, bytes)]),
        Ok(Outcome::Triggers(_)) => PlanReply::Unavailable { message: OTHER_ANSWER.to_owned() },
        Ok(Outcome::Broken(message)) | Err(Hindrance::Unavailable(message)) => PlanReply::Unavailable { message },
    }
}

/// Answers what starts runs of a pipeline file.
pub async fn answer_triggers(request: &TriggersRequest, blobs: &Blobs, makers: &Makers) -> TriggersReply {
    let refused = |diagnostics| match refused(diagnostics) {
        PlanReply::Refused { diagnostics } => TriggersReply::Refused { diagnostics },
        PlanReply::Unavailable { message } => TriggersReply::Unavailable { message },
        PlanReply::Planned { .. } | PlanReply::Needs { .. } => unreachable!("what is refused has no plan"),
    };
    let source = match source_of(&request.path, &request.source, blobs).await {
        Ok(source) => source,
        Err(Hindrance::TooLarge(bytes)) => return refused(vec![parser::too_large(&request.path, bytes)]),
        Err(Hindrance::OverLimit(limit)) => return refused(vec![over_limit(&request.path, &limit)]),
        Err(Hindrance::Unavailable(message)) => return TriggersReply::Unavailable { message },
    };
    let material = Material { wanted: Wanted::Triggers, ..Material::new(&request.path, source, TriggerContext::default()) };
    match makers.make(&material).await {
        Outcome::Triggers(rules) if rules.len() > RULES_MAX || json_bytes(&rules) > DIAGNOSTICS_BYTES_MAX => {
            refused(vec![over_limit(&request.path, &format!("{RULES_MAX} lines of `triggers`"))])
        }
        Outcome::Triggers(rules) => TriggersReply::Read { rules },
        Outcome::Refused(diagnostics) => refused(diagnostics),
        Outcome::Made(_) | Outcome::Needs(_) => TriggersReply::Unavailable { message: OTHER_ANSWER.to_owned() },
        Outcome::Broken(message) => TriggersReply::Unavailable { message },
    }
}

/// What becomes of a text without a repository around it: no file is there, and nothing is known of what changed.
pub(crate) async fn answer_alone(path: &str, source: Bytes, context: TriggerContext, makers: &Makers) -> Outcome {
    let mut material = Material::new(path, source, context);
    for _ in 0..PLAN_ROUNDS_MAX {
        match makers.make(&material).await {
            Outcome::Needs(needs) => {
                material.listing.get_or_insert_default();
                material.changed.get_or_insert_default();
                material.files.extend(needs.files.into_iter().map(|path| (path, None)));
            }
            done @ (Outcome::Made(_) | Outcome::Triggers(_) | Outcome::Refused(_) | Outcome::Broken(_)) => return done,
        }
    }
    Outcome::Broken("the file names files without an end".to_owned())
}

async fn planning(request: &PlanRequest, blobs: &Blobs, makers: &Makers) -> Result<Outcome, Hindrance> {
    let source = source_of(&request.path, &request.source, blobs).await?;
    let mut material = Material::new(&request.path, source, request.context.clone());
    material.files = files(&request.files, blobs).await?;
    loop {
        match makers.make(&material).await {
            // What lies in the depot is fetched only for a file that asks for it; at most two more rounds.
            Outcome::Needs(needs) if supply(&needs, request, &mut material, blobs).await? => {}
            done @ (Outcome::Made(_) | Outcome::Triggers(_) | Outcome::Refused(_) | Outcome::Needs(_) | Outcome::Broken(_)) => {
                return Ok(done);
            }
        }
    }
}

/// The pipeline file.
async fn source_of(path: &str, source: &Text, blobs: &Blobs) -> Result<Bytes, Hindrance> {
    bytes_of(source, blobs).await.map_err(|fault| match fault {
        BlobError::TooLarge { length, .. } => Hindrance::TooLarge(length),
        BlobError::Missing(_)
        | BlobError::Refused { .. }
        | BlobError::Damaged { .. }
        | BlobError::Disk { .. }
        | BlobError::Unavailable(_) => Hindrance::Unavailable(format!("{path} cannot be read: {}", chain(&fault))),
    })
}

/// Fetches what the request names by digest; `false` if nothing of what is needed was missing here.
async fn supply(needs: &Wants, request: &PlanRequest, material: &mut Material, blobs: &Blobs) -> Result<bool, Hindrance> {
    let mut supplied = false;
    if needs.listing && material.listing.is_none() {
        material.listing = Some(json_of(request.listing.as_ref(), "the list of the commit's files", blobs).await?);
        supplied = true;
    }
    if needs.changed && material.changed.is_none() {
        material.changed = Some(json_of(request.changed.as_ref(), "the list of what changed", blobs).await?);
        supplied = true;
    }
    Ok(supplied)
}

/// JSON of the depot, which only the maker reads; nothing where the request names none.
async fn json_of(digest: Option<&Digest>, what: &str, blobs: &Blobs) -> Result<Bytes, Hindrance> {
    let Some(digest) = digest else { return Ok(Bytes::new()) };
    blobs.get(digest).await.map_err(|fault| {
        if let BlobError::TooLarge { limit, .. } = fault {
            return Hindrance::OverLimit(format!("{limit} bytes for {what}"));
        }
        Hindrance::Unavailable(format!("{what} cannot be read: {}", chain(&fault)))
    })
}

async fn files(named: &BTreeMap<String, Option<Text>>, blobs: &Blobs) -> Result<BTreeMap<String, Option<Bytes>>, Hindrance> {
    let mut files = BTreeMap::new();
    let mut total = 0;
    for (path, text) in named {
        let Some(text) = text else {
            files.insert(path.clone(), None);
            continue;
        };
        let too_large = || Hindrance::OverLimit(format!("{FILES_BYTES_MAX} bytes of files, up to `{path}`"));
        let failed = |fault: BlobError| {
            if matches!(fault, BlobError::TooLarge { .. }) {
                return too_large();
            }
            Hindrance::Unavailable(format!("{path} cannot be read: {}", chain(&fault)))
        };
        let bytes = bytes_of(text, blobs).await.map_err(failed)?;
        total += bytes.len();
        if total > FILES_BYTES_MAX {
            return Err(too_large());
        }
        files.insert(path.clone(), Some(bytes));
    }
    Ok(files)
}

async fn bytes_of(text: &Text, blobs: &Blobs) -> Result<Bytes, BlobError> {
    match text {
        Text::Inline(text) => Ok(Bytes::copy_from_slice(text.as_bytes())),
        Text::Depot(digest) => blobs.get(digest).await,
    }
}

async fn planned(made: Made, blobs: &Blobs) -> PlanReply {
    let Made { digest, plan, notes, warnings } = made;
    let (warnings, not_triggered) = (fitting(warnings, WARNINGS_BYTES_MAX), notes.not_triggered);
    if plan.len() <= INLINE_BYTES_MAX {
        let plan = String::from_utf8(plan).expect("JSON is UTF-8");
        return PlanReply::Planned { digest, plan: Text::Inline(plan), warnings, not_triggered };
    }
    match blobs.put(plan.into()).await {
        Ok(stored) => {
            assert_eq!(stored, digest, "the depot names bytes by the digest that the plan has");
            PlanReply::Planned { digest, plan: Text::Depot(digest), warnings, not_triggered }
        }
        Err(fault) => PlanReply::Unavailable { message: format!("the plan cannot be stored: {}", chain(&fault)) },
    }
}

/// What the file asks for, if that fits into a message.
fn needed(path: &str, files: Vec<String>) -> PlanReply {
    let bytes: usize = files.iter().map(json_bytes).sum();
    if bytes > DIAGNOSTICS_BYTES_MAX {
        return refused(vec![over_limit(path, &format!("{DIAGNOSTICS_BYTES_MAX} bytes of names of files"))]);
    }
    PlanReply::Needs { files }
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

/// Bytes of a value in a list of JSON.
fn json_bytes(value: &impl Serialize) -> usize {
    serde_json::to_vec(value).map_or(usize::MAX, |json| json.len() + 1)
}

/// As many of the diagnostics, the first ones first, as have at most `bytes_max` bytes as JSON.
fn fitting(mut diagnostics: Vec<Diagnostic>, bytes_max: usize) -> Vec<Diagnostic> {
    let mut total: usize = 0;
    let fitting = diagnostics.iter().take_while(|diagnostic| {
        total = total.saturating_add(json_bytes(*diagnostic));
        total <= bytes_max
    });
    let fitting = fitting.count();
    diagnostics.truncate(fitting);
    diagnostics
}
