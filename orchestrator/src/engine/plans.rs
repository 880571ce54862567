//! From a trigger to a plan, and from a plan's digest to its graph.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use blob::{BlobError, Blobs};
use bytes::Bytes;
use eventbus::{Bus, BusError, Subject};
use model::{
    Digest,
    context::EventKind,
    diagnostic::Diagnostic,
    event::run::Planned,
    plan::{Plan, PlanDocument, PlanError},
    planning::{LOCK_FILE, PLAN_ROUNDS_MAX, PlanReply, PlanRequest, Text},
    trigger::Trigger,
};
use tracing::warn;

use super::{
    protect::Protections,
    refusal::{NO_SUPPLY, REQUEST_TOO_LARGE, diagnostic, refusals},
    supply::{Supply, SupplyError},
};
use crate::core::Shape;

/// How long the parser has for one answer. It needs milliseconds; a lost request is asked again.
const PARSER_DEADLINE: Duration = Duration::from_secs(10);
/// Between two questions that the parser did not answer.
const PARSER_PAUSE: Duration = Duration::from_millis(200);
/// How often the parser is asked for one plan before the trigger makes room for others and is delivered again: a pipeline that the parser
/// fails on must not keep the next ones from it.
const PARSER_TRIES_MAX: u32 = 3;
/// How long the parser is waited for while nobody listens at all, in tries.
const PARSER_ABSENCES_MAX: u32 = 25;
/// Warnings of one plan that its run keeps, and their bytes as JSON: they stand in the first record, beside the trigger.
const WARNINGS_MAX: usize = 20;
const WARNINGS_BYTES_MAX: usize = 32 * 1024;
/// Graphs that are kept because many runs share one plan.
const SHAPES_MAX: usize = 64;

/// Why a plan could not be had now; the same may succeed later.
#[derive(Debug, thiserror::Error)]
pub enum PlanningError {
    /// The depot did not give or take the bytes.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The parser does not answer.
    #[error("the parser does not answer")]
    Parser(#[source] BusError),
    /// The bytes under a plan's digest are none.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The files that it names cannot be had.
    #[error(transparent)]
    Supply(#[from] SupplyError),
}

impl PlanningError {
    /// Whether it is likely to be so for ever: what is missing now, or is no plan, will hardly be there the next time.
    pub(super) fn is_lasting(&self) -> bool {
        match self {
            Self::Blob(error) | Self::Supply(SupplyError::Blob(error)) => match error {
                BlobError::Missing(_) | BlobError::Damaged { .. } | BlobError::TooLarge { .. } => true,
                BlobError::Refused { .. } | BlobError::Disk { .. } | BlobError::Unavailable(_) => false,
            },
            Self::Plan(_) => true,
            Self::Parser(_) => false,
            Self::Supply(error) => error.is_final(),
        }
    }
}

/// Plans of runs. Clones share what they keep.
#[derive(Debug, Clone)]
pub(crate) struct Plans {
    bus: Bus,
    blobs: Blobs,
    protections: Protections,
    shapes: Arc<Mutex<BTreeMap<Digest, Arc<Shape>>>>,
}

impl Plans {
    pub(crate) fn new(bus: Bus, blobs: Blobs) -> Self {
        Self { bus, blobs, protections: Protections::default(), shapes: Arc::default() }
    }

    /// Plans of projects that are protected by this.
    pub(crate) fn protected_by(self, protections: Protections) -> Self {
        Self { protections, ..self }
    }

    /// Where plans lie.
    pub(crate) fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// Asks the parser, some times if it does not answer. A plan lies in the depot when this returns.
    pub(crate) async fn plan(&self, trigger: &Trigger) -> Result<(Planned, Arc<Shape>), PlanningError> {
        let path = trigger.pipeline_path.as_str();
        let mut supply = Supply::new(trigger, &self.blobs);
        let (digest, text, warnings) = match self.answer(trigger, &mut supply).await? {
            PlanReply::Planned { not_triggered: Some(reason), .. } => return Ok((Planned::NotTriggered { reason }, empty_shape())),
            PlanReply::Planned { digest, plan, warnings, not_triggered: None } => (digest, plan, warnings),
            PlanReply::Refused { diagnostics } => return Ok(refused(diagnostics)),
            PlanReply::Needs { files } => return Ok(refused(vec![no_supply(path, &files)])),
            PlanReply::Unavailable { message } => return Err(self.unavailable(trigger, message).await.into()),
        };
        let document = match text {
            Text::Inline(json) => {
                let document = PlanDocument::read(json.as_bytes())?;
                self.blobs.put(Bytes::copy_from_slice(document.bytes())).await?;
                document
            }
            Text::Depot(digest) => PlanDocument::read(&self.blobs.get(&digest).await?)?,
        };
        if document.digest() != digest {
            return Err(BlobError::Damaged { expected: digest, actual: document.digest() }.into());
        }
        let mut refusals = refusals(path, document.plan());
        refusals.extend(self.protections.refusals(trigger, document.plan()));
        if !refusals.is_empty() {
            return Ok(refused(refusals));
        }
        let document = match self.protections.guarded(&trigger.project, document.plan()) {
            None => document,
            Some(guarded) => {
                let document = PlanDocument::new(guarded);
                self.blobs.put(Bytes::copy_from_slice(document.bytes())).await?;
                document
            }
        };
        let digest = document.digest();
        let libraries = match supply.libraries(document.plan()).await {
            Ok(libraries) => libraries,
            Err(error) if error.is_final() => return Ok(refused(vec![not_supplied(path, &error)])),
            Err(error) => return Err(error.into()),
        };
        let (warnings, warnings_left_out) = kept(warnings);
        Ok((Planned::Plan { digest, libraries, warnings, warnings_left_out }, self.keep(digest, document.plan().clone())))
    }

    /// Why the plan of an earlier run is not run again for this trigger; empty if it is.
    pub(super) fn refuses_rerun(&self, trigger: &Trigger, plan: &Plan) -> Vec<Diagnostic> {
        self.protections.refuses_rerun(trigger, plan)
    }

    /// Why the parser could not plan: what it needs is not in the depot, or something else that it says.
    async fn unavailable(&self, trigger: &Trigger, message: String) -> BlobError {
        let of = |text: &Text| match text {
            Text::Inline(_) => None,
            Text::Depot(digest) => Some(*digest),
        };
        let texts = [of(&trigger.pipeline), trigger.lock.as_ref().and_then(of)];
        for digest in texts.into_iter().chain([trigger.listing, trigger.changed]).flatten() {
            if let Ok(false) = self.blobs.has(&digest).await {
                return BlobError::Missing(digest);
            }
        }
        BlobError::Unavailable(message)
    }

    /// The parser's answer, after it was given every file that it asks for and that the source has. An answer that asks for files is one
    /// for whose files there is no end.
    async fn answer(&self, trigger: &Trigger, supply: &mut Supply<'_>) -> Result<PlanReply, PlanningError> {
        let mut request = PlanRequest {
            path: trigger.pipeline_path.clone(),
            source: trigger.pipeline.clone(),
            context: trigger.context.clone(),
            files: lock_file(trigger),
            listing: trigger.listing,
            changed: trigger.changed,
        };
        for _ in 0..PLAN_ROUNDS_MAX {
            let reply = self.ask(&request).await?;
            let PlanReply::Needs { files } = &reply else { return Ok(reply) };
            let before = request.files.len();
            match supply.find(files).await {
                Ok(supplied) => request.files.extend(supplied),
                Err(error) if error.is_final() => {
                    return Ok(PlanReply::Refused { diagnostics: vec![not_supplied(&request.path, &error)] });
                }
                Err(error) => return Err(error.into()),
            }
            // A parser that asks for the same again would ask for ever.
            if request.files.len() == before {
                return Ok(reply);
            }
        }
        Ok(PlanReply::Needs { files: request.files.into_keys().collect() })
    }

    /// The graph of what a run's first record accepted.
    pub(crate) async fn shape(&self, planned: &Planned) -> Result<Arc<Shape>, PlanningError> {
        let Planned::Plan { digest, .. } = planned else { return Ok(empty_shape()) };
        if let Some(shape) = self.shapes.lock().expect("no holder of this lock panics").get(digest) {
            return Ok(shape.clone());
        }
        let document = PlanDocument::read(&self.blobs.get(digest).await?)?;
        Ok(self.keep(*digest, document.plan().clone()))
    }

    async fn ask(&self, request: &PlanRequest) -> Result<PlanReply, PlanningError> {
        let (mut failures, mut absences) = (0, 0);
        loop {
            match self.bus.request(&Subject::plan(), request, PARSER_DEADLINE).await {
                Ok(PlanReply::Unavailable { message }) => {
                    failures += 1;
                    if failures >= PARSER_TRIES_MAX {
                        return Ok(PlanReply::Unavailable { message });
                    }
                    warn!(message, "the parser could not plan, asking again");
                }
                Ok(reply) => return Ok(reply),
                Err(error @ (BusError::TooLarge { .. } | BusError::Refused { .. })) => {
                    return Ok(PlanReply::Refused {
                        diagnostics: vec![diagnostic(
                            REQUEST_TOO_LARGE,
                            &request.path,
                            error.to_string(),
                            "make the pipeline file smaller",
                        )],
                    });
                }
                Err(error) => {
                    let absent = matches!(error, BusError::NoResponder { .. });
                    failures += u32::from(!absent);
                    absences += u32::from(absent);
                    if failures >= PARSER_TRIES_MAX || absences >= PARSER_ABSENCES_MAX {
                        return Err(PlanningError::Parser(error));
                    }
                    warn!(%error, "the parser does not answer, asking again");
                }
            }
            tokio::time::sleep(PARSER_PAUSE).await;
        }
    }

    fn keep(&self, digest: Digest, plan: Plan) -> Arc<Shape> {
        let mut shapes = self.shapes.lock().expect("no holder of this lock panics");
        if shapes.len() >= SHAPES_MAX && !shapes.contains_key(&digest) {
            // Any will do: a run holds its own, and what is dropped is read again.
            shapes.pop_first();
        }
        shapes.entry(digest).or_insert_with(|| Arc::new(Shape::new(plan))).clone()
    }
}

/// The first warnings, and how many are left out.
fn kept(mut warnings: Vec<Diagnostic>) -> (Vec<Diagnostic>, usize) {
    let mut bytes: usize = 0;
    let fit = warnings.iter().take(WARNINGS_MAX).take_while(|warning| {
        bytes = bytes.saturating_add(serde_json::to_vec(warning).map_or(usize::MAX, |json| json.len()));
        bytes <= WARNINGS_BYTES_MAX
    });
    let (count, fit) = (warnings.len(), fit.count());
    warnings.truncate(fit);
    (warnings, count - fit)
}

/// The graph of a run without a plan.
pub(super) fn empty_shape() -> Arc<Shape> {
    Arc::new(Shape::new(Plan::new(Vec::new())))
}

/// The lock file, which every pipeline asks for, as the trigger has it. A run that somebody asked for with a source of their own has it in
/// there, if at all, and the parser asks for it.
fn lock_file(trigger: &Trigger) -> BTreeMap<String, Option<Text>> {
    let unknown = trigger.lock.is_none() && trigger.source.is_some() && trigger.context.event == EventKind::Manual;
    if unknown { BTreeMap::new() } else { BTreeMap::from([(LOCK_FILE.to_owned(), trigger.lock.clone())]) }
}

fn refused(diagnostics: Vec<Diagnostic>) -> (Planned, Arc<Shape>) {
    (Planned::Refused { diagnostics }, empty_shape())
}

fn not_supplied(path: &str, error: &SupplyError) -> Diagnostic {
    let help = match error {
        SupplyError::NoLibrary { .. } => "mend what the reason names, and push again; `otto run` fetches a library by itself",
        SupplyError::Library { .. } => "pack it with `otto step pack`, and look at it with `otto step verify`",
        SupplyError::Blob(_) | SupplyError::Disk(_) | SupplyError::Damaged(_) | SupplyError::TooLarge(_) => {
            "name files that the source has, and smaller ones"
        }
    };
    diagnostic(NO_SUPPLY, path, error.to_string(), help)
}

fn no_supply(path: &str, files: &[String]) -> Diagnostic {
    let message = format!("the pipeline names files that name files, without an end after {PLAN_ROUNDS_MAX} rounds: {}", files.join(", "));
    diagnostic(NO_SUPPLY, path, message, "write what they say into the pipeline file")
}
