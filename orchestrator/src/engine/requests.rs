//! Runs that steps ask for: of another pipeline of the same source, one for each request of an attempt, however often it is said.

use std::collections::BTreeMap;

use eventbus::BusError;
use model::{
    AgentName, RunId, TriggerId,
    context::{EventKind, TriggerContext},
    planning::Text,
    protocol::{
        agent::{AgentCommand, Lease, StartedRun},
        step::RunRequest,
    },
    trigger::Trigger,
};
use tracing::warn;

use super::{
    Done, Engine,
    supply::{Supply, SupplyError},
};

/// Runs that one attempt may ask for: more is a loop.
const REQUESTS_MAX: u32 = 100;
/// Runs that may have asked for one another up to one: a pipeline that starts itself comes to an end.
const GENERATIONS_MAX: u32 = 8;
/// The longest path of a pipeline file, in bytes: what Linux takes as a path.
const PATH_BYTES_MAX: usize = 4096;

/// Who asks for a run, and which of its requests it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Asked {
    agent: AgentName,
    lease: Lease,
    number: u32,
}

/// Why there is no run.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    /// Said to the step.
    #[error("{0}")]
    Refused(String),
    /// It is asked again.
    #[error("the source cannot be read now")]
    Supply(#[from] SupplyError),
    /// It is asked again.
    #[error("the trigger cannot be stored now")]
    Bus(#[from] BusError),
}

impl Engine {
    /// A step asks for a run, or how it is.
    pub(super) fn run_requested(&mut self, agent: &AgentName, lease: &Lease, number: u32, request: &RunRequest) {
        let asked = Asked { agent: agent.clone(), lease: lease.clone(), number };
        let id = TriggerId::of("step", &format!("{}#{number}", lease.attempt));
        let Some(open) = self.open.get(&lease.attempt.run).filter(|open| open.is_own()) else { return };
        let holds = open.run.holds(lease) && open.run.attempt_of(lease).is_some_and(|(_, attempt)| attempt.agent == *agent);
        if !holds {
            return;
        }
        if let Some(snapshot) = self.runs.get(&RunId::of(&id)) {
            let outcome = snapshot.run.ended.map(|(outcome, _)| outcome);
            self.answer_request(&asked, Ok(StartedRun { run: snapshot.run.id.clone(), outcome }));
            return;
        }
        if !self.requested.insert(asked.clone()) {
            return;
        }
        let (parent, request) = (open.run.trigger.clone(), request.clone());
        let (bus, blobs) = (self.bus.clone(), self.blobs.clone());
        self.work.push(Box::pin(async move {
            let begin = async {
                let trigger = trigger(&parent, id, number, request, &blobs).await?;
                bus.store_trigger(&trigger).await?;
                Ok(trigger.run())
            };
            Done::Requested { asked, outcome: begin.await }
        }));
    }

    /// The run begins, or there is none.
    pub(super) fn requested(&mut self, asked: &Asked, outcome: Result<RunId, RequestError>) {
        self.requested.remove(asked);
        match outcome {
            Ok(run) => self.answer_request(asked, Ok(StartedRun { run, outcome: None })),
            Err(RequestError::Refused(why)) => self.answer_request(asked, Err(why)),
            Err(error) if is_final(&error) => self.answer_request(asked, Err(service::supervisor::chain(&error))),
            Err(error) => warn!(attempt = %asked.lease.attempt, error = service::supervisor::chain(&error), "a step's run waits"),
        }
    }

    fn answer_request(&self, asked: &Asked, answer: Result<StartedRun, String>) {
        let Asked { agent, lease, number } = asked;
        self.command(agent, AgentCommand::RunAnswer { lease: lease.clone(), number: *number, answer });
    }
}

fn is_final(error: &RequestError) -> bool {
    match error {
        RequestError::Refused(_) => true,
        RequestError::Supply(error) => error.is_final(),
        // What is too large stays so.
        RequestError::Bus(error) => matches!(error, BusError::TooLarge { .. }),
    }
}

/// The trigger of the run that is asked for: as the asking run's, with another pipeline and its parameters.
async fn trigger(parent: &Trigger, id: TriggerId, number: u32, request: RunRequest, blobs: &blob::Blobs) -> Result<Trigger, RequestError> {
    let RunRequest { pipeline: path, project, parameters } = request;
    let refused = |why: String| Err(RequestError::Refused(why));
    if !(1..=REQUESTS_MAX).contains(&number) {
        return refused(format!("this stage has asked for {REQUESTS_MAX} runs, which is all that one may"));
    }
    if parent.generation >= GENERATIONS_MAX {
        return refused(format!(
            "{GENERATIONS_MAX} runs have asked for one another up to this one, which asks for no more: it may be a loop"
        ));
    }
    if path.len() > PATH_BYTES_MAX || path.chars().any(char::is_control) {
        return refused("the path of the pipeline file is none".to_owned());
    }
    if let Some(other) = project.filter(|other| *other != parent.project.as_str()) {
        return refused(format!("`{other}` is another project: a step starts runs of its own, `{}`, only", parent.project));
    }
    let pipeline = pipeline(parent, &path, blobs).await?;
    let context = TriggerContext { event: EventKind::Manual, cron: String::new(), parameters, ..parent.context.clone() };
    let generation = parent.generation + 1;
    Ok(Trigger { id, context, pipeline_path: path, pipeline, rerun: None, timeout_ms: None, only: None, generation, ..parent.clone() })
}

async fn pipeline(parent: &Trigger, path: &str, blobs: &blob::Blobs) -> Result<Text, RequestError> {
    if path == parent.pipeline_path {
        return Ok(parent.pipeline.clone());
    }
    let mut found: BTreeMap<String, Option<Text>> = Supply::new(parent, blobs).find(&[path.to_owned()]).await?;
    found.remove(path).flatten().ok_or_else(|| RequestError::Refused(format!("the run's source has no file `{path}`")))
}
