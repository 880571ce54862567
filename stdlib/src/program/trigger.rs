//! `trigger`: starts a run of another pipeline, and waits for its end if it is told to.

use std::{collections::BTreeMap, thread::sleep, time::Duration};

use model::{RunOutcome, protocol::step::RunRequest};
use serde::Deserialize;

use super::{
    End, ProgramError,
    agent::Agent,
    arguments::{ArgumentError, Arguments},
    say,
};

/// Between two questions how the run is. Runs take minutes.
const PAUSE: Duration = Duration::from_secs(2);

#[derive(Debug, Deserialize)]
struct Started {
    run: String,
}

#[derive(Debug, Deserialize)]
struct Outcome {
    outcome: Option<RunOutcome>,
}

pub(super) fn run(arguments: &Arguments, agent: &Agent) -> Result<End, ProgramError> {
    let request = request(arguments)?;
    let is_awaited = arguments.truth("wait")?;
    let Started { run } = agent.post("/v1/runs", &request)?;
    say(&format!("started the run {run} of {}", request.pipeline))?;
    if !is_awaited {
        return Ok(End::Success);
    }
    agent.tell("/v1/status", &serde_json::json!({ "status": format!("waiting for the run {run}") }))?;
    loop {
        let Outcome { outcome } = agent.get(&format!("/v1/runs/{run}"))?;
        if let Some(outcome) = outcome {
            say(&format!("the run {run} ended: {outcome}"))?;
            return Ok(match outcome {
                RunOutcome::Success | RunOutcome::Skipped => End::Success,
                RunOutcome::Unstable => End::Unstable,
                RunOutcome::Failure | RunOutcome::Aborted | RunOutcome::Unknown => End::Failure,
            });
        }
        sleep(PAUSE);
    }
}

fn request(arguments: &Arguments) -> Result<RunRequest, ArgumentError> {
    let pipeline = arguments.text("pipeline")?;
    let (project, pipeline) = pipeline.split_once(':').map_or((None, pipeline), |(project, pipeline)| (Some(project), pipeline));
    let mut parameters = BTreeMap::new();
    for text in arguments.texts("parameters")? {
        let Some((name, value)) = text.split_once('=') else {
            return Err(ArgumentError::Value { name: "parameters", text, what: "has no `=` between a name and a value" });
        };
        parameters.insert(name.to_owned(), value.to_owned());
    }
    Ok(RunRequest { pipeline: pipeline.to_owned(), project: project.map(str::to_owned), parameters })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::arguments::tests::arguments, *};

    #[test]
    fn a_pipeline_may_be_another_projects() {
        let own = request(&arguments(&json!({"pipeline": ".otto/deploy.otto"}))).unwrap();
        assert_eq!((own.project, own.pipeline.as_str()), (None, ".otto/deploy.otto"));
        let other = request(&arguments(&json!({"pipeline": "shop:Ottofile", "parameters": ["a=b=c", "d="]}))).unwrap();
        assert_eq!((other.project.as_deref(), other.pipeline.as_str()), (Some("shop"), "Ottofile"));
        assert_eq!(other.parameters, [("a", "b=c"), ("d", "")].map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        assert!(request(&arguments(&json!({"pipeline": "Ottofile", "parameters": ["a"]}))).is_err());
    }
}
