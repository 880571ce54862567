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
    diagnostic::{Diagnostic, Severity, Span},
    event::run::Planned,
    plan::{Plan, PlanDocument, PlanError},
    planning::{PlanReply, PlanRequest, Text},
    trigger::Trigger,
};
use tracing::warn;

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
/// Graphs that are kept because many runs share one plan.
const SHAPES_MAX: usize = 64;
/// The most bytes of one stage's JSON: its assignment must fit into one message of the bus.
const STAGE_BYTES_MAX: usize = 512 * 1024;

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
}

/// Plans of runs. Clones share what they keep.
#[derive(Debug, Clone)]
pub(crate) struct Plans {
    bus: Bus,
    blobs: Blobs,
    shapes: Arc<Mutex<BTreeMap<Digest, Arc<Shape>>>>,
}

impl Plans {
    pub(crate) fn new(bus: Bus, blobs: Blobs) -> Self {
        Self { bus, blobs, shapes: Arc::default() }
    }

    /// Asks the parser, some times if it does not answer. A plan lies in the depot when this returns.
    pub(crate) async fn plan(&self, trigger: &Trigger) -> Result<(Planned, Arc<Shape>), PlanningError> {
        let request = PlanRequest {
            path: trigger.pipeline_path.clone(),
            source: trigger.pipeline.clone(),
            context: trigger.context.clone(),
            files: BTreeMap::new(),
            listing: trigger.listing,
            changed: trigger.changed,
        };
        let refused = |diagnostics| (Planned::Refused { diagnostics }, empty_shape());
        let (digest, text) = match self.ask(&request).await? {
            PlanReply::Planned { digest, plan, .. } => (digest, plan),
            PlanReply::Refused { diagnostics } => return Ok(refused(diagnostics)),
            PlanReply::Needs { files } => return Ok(refused(vec![needs_files(&request.path, &files)])),
            PlanReply::Unavailable { message } => return Err(BlobError::Unavailable(message).into()),
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
        if let Some(too_large) = too_large(&request.path, document.plan()) {
            return Ok(refused(vec![too_large]));
        }
        Ok((Planned::Plan { digest }, self.keep(digest, document.plan().clone())))
    }

    /// The graph of what a run's first record accepted.
    pub(crate) async fn shape(&self, planned: &Planned) -> Result<Arc<Shape>, PlanningError> {
        let Planned::Plan { digest } = planned else { return Ok(empty_shape()) };
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
                        diagnostics: vec![diagnostic("E0902", &request.path, error.to_string(), "make the pipeline file smaller")],
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

fn empty_shape() -> Arc<Shape> {
    Arc::new(Shape::new(Plan::new(Vec::new())))
}

fn too_large(path: &str, plan: &Plan) -> Option<Diagnostic> {
    let size = |stage: &model::plan::Stage| serde_json::to_vec(stage).map_or(usize::MAX, |bytes| bytes.len());
    let stage = plan.stages.iter().find(|stage| size(stage) > STAGE_BYTES_MAX)?;
    let message = format!("the stage `{}` is over the limit of {STAGE_BYTES_MAX} bytes for one stage", stage.path);
    Some(diagnostic("E0901", path, message, "move its scripts into files of the repository"))
}

fn needs_files(path: &str, files: &[String]) -> Diagnostic {
    let message = format!("the pipeline names files that this orchestrator cannot supply yet: {}", files.join(", "));
    diagnostic("E0900", path, message, "write what they say into the pipeline file")
}

fn diagnostic(code: &str, path: &str, message: String, help: &str) -> Diagnostic {
    Diagnostic {
        code: code.to_owned(),
        severity: Severity::Error,
        message,
        file: path.to_owned(),
        line: 1,
        column: 1,
        span: Span::default(),
        label: String::new(),
        help: help.to_owned(),
    }
}
