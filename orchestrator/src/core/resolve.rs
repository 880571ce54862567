//! Values and conditions with the run's variables put in: what an agent gets has nothing left to look up.
//!
//! A variable that nobody set is an error, but in conditions and in the pipeline's `notify`, where it is the empty text: a condition asks
//! whether it is there, and who is told of a failure is told although a step that came too late for it had no result.

use std::collections::BTreeMap;

use model::{
    RunOutcome,
    glob::Glob,
    plan::{Condition, Function, Notify, Plan, Stage, Step, Value},
};

use super::{
    found::Found,
    shape::{Index, Phase},
    state::Run,
    written::written,
};

/// Between the items of a list that stands where a text is asked for.
const LIST_SEPARATOR: &str = ",";

/// A value needs a variable that no stage before it has captured and no person has answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the variable `{variable}` has no value: no stage that this one waits for has set it, or one has dropped it")]
pub struct Unset {
    /// Its name, without `vars.`.
    pub variable: String,
}

/// The most bytes of one stage's JSON, as the plan has it and with every value put in: its assignment must fit into one message of the bus,
/// with the variables and what else an agent is given.
pub const STAGE_BYTES_MAX: usize = 512 * 1024;
/// The most bytes of the variables that a stage finds, as JSON: they travel with it, and its processes have them in their environment.
pub const VARIABLES_BYTES_MAX: usize = 256 * 1024;

/// Why a stage is sent to no agent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsendable {
    /// A value is missing.
    #[error(transparent)]
    Unset(#[from] Unset),
    /// It finds too much.
    #[error(
        "the variables that the stage finds have {bytes} bytes together, over the limit of {} KiB: `drop` what no later stage needs, or archive it",
        VARIABLES_BYTES_MAX / 1024
    )]
    Variables {
        /// How much.
        bytes: usize,
    },
    /// It has become too large.
    #[error("with its variables put in, the stage has {bytes} bytes, over the limit of {} KiB: archive what is long", STAGE_BYTES_MAX / 1024)]
    TooLarge {
        /// How large.
        bytes: usize,
    },
}

/// What a variable is that nobody set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    Refused,
    Empty,
}

#[derive(Clone, Copy)]
struct Variables<'a> {
    set: &'a BTreeMap<String, String>,
    missing: Missing,
}

/// The text of a value.
pub fn text(value: &Value, variables: &BTreeMap<String, String>) -> Result<String, Unset> {
    Variables { set: variables, missing: Missing::Refused }.text(value)
}

/// Whether a condition holds.
pub fn holds(condition: &Condition, variables: &BTreeMap<String, String>) -> bool {
    let variables = Variables { set: variables, missing: Missing::Empty };
    let text = |value: &Value| variables.text(value).unwrap_or_default();
    match condition {
        Condition::Is(value) => text(value) == "true",
        Condition::Equal(left, right) => text(left) == text(right),
        Condition::In(value, among) => {
            let value = text(value);
            among.iter().any(|one| text(one) == value)
        }
        Condition::Matches(value, pattern) => Glob::new(pattern).is_ok_and(|glob| glob.matches(&text(value))),
        Condition::Not(inner) => !holds(inner, variables.set),
        Condition::All(parts) => parts.iter().all(|part| holds(part, variables.set)),
        Condition::Any(parts) => parts.iter().any(|part| holds(part, variables.set)),
    }
}

/// The stage at `at` as an agent gets it: every value known, gates and conditions left out.
pub fn stage(run: &Run, at: Index) -> Result<Stage, Unset> {
    stage_with(run, at, &run.found(at))
}

/// The same, with what it finds.
pub fn stage_with(run: &Run, at: Index, found: &Found) -> Result<Stage, Unset> {
    let missing = match run.shape.phase(at) {
        Phase::Work | Phase::Undo => Missing::Refused,
        Phase::Notify => Missing::Empty,
    };
    let variables = Variables { set: &found.variables, missing };
    let mut stage = Stage { conditions: Vec::new(), enter: Vec::new(), exit: Vec::new(), ..run.shape.stage(at).clone() };
    if run.shape.phase(at) == Phase::Notify {
        tell(&mut stage, &run.shape.plan().notify, run.outcome());
    }
    variables.into_stage(&mut stage)?;
    Ok(stage)
}

/// The stage at `at` as an agent gets it, if it can be sent to one.
pub fn sendable(run: &Run, at: Index) -> Result<Stage, Unsendable> {
    let found = run.found(at);
    let stage = stage_with(run, at, &found)?;
    let configuration = configuration(run.shape.plan(), &found)?;
    // Nothing was put in that the plan does not have, and its stage was measured when it was accepted.
    if found.variables.is_empty() {
        return Ok(stage);
    }
    let bytes = written(&found.variables);
    if bytes > VARIABLES_BYTES_MAX {
        return Err(Unsendable::Variables { bytes });
    }
    let bytes = written(&stage) + written(&configuration);
    if bytes > STAGE_BYTES_MAX { Err(Unsendable::TooLarge { bytes }) } else { Ok(stage) }
}

/// Configuration of steps, by symbol, with every value known.
pub fn configuration(plan: &Plan, found: &Found) -> Result<BTreeMap<String, BTreeMap<String, Value>>, Unset> {
    let variables = Variables { set: &found.variables, missing: Missing::Refused };
    let mut configuration = plan.configuration.clone();
    configuration.values_mut().flat_map(BTreeMap::values_mut).try_for_each(|value| variables.put_into(value))?;
    Ok(configuration)
}

/// What the pipeline's `notify` comes to after this outcome.
fn tell(stage: &mut Stage, notify: &Notify, outcome: RunOutcome) {
    let steps = match outcome {
        RunOutcome::Success | RunOutcome::Unstable | RunOutcome::Skipped => &notify.success,
        RunOutcome::Failure | RunOutcome::Aborted | RunOutcome::Unknown => &notify.failure,
    };
    if steps.is_empty() {
        stage.steps.clone_from(&notify.complete);
    } else {
        stage.steps.clone_from(steps);
        // Told even if one of those fails.
        stage.notify.complete.clone_from(&notify.complete);
    }
}

impl Variables<'_> {
    fn text(self, value: &Value) -> Result<String, Unset> {
        let joined = |values: &[Value], between: &str| {
            let texts: Result<Vec<String>, Unset> = values.iter().map(|value| self.text(value)).collect();
            texts.map(|texts| texts.join(between))
        };
        match value {
            Value::Boolean(boolean) => Ok(boolean.to_string()),
            Value::Integer(number) => Ok(number.to_string()),
            Value::Text(text) => Ok(text.clone()),
            Value::Decimal { decimal } => Ok(decimal.clone()),
            Value::Variable { variable } => match (self.set.get(variable), self.missing) {
                (Some(text), _) => Ok(text.clone()),
                (None, Missing::Empty) => Ok(String::new()),
                (None, Missing::Refused) => Err(Unset { variable: variable.clone() }),
            },
            Value::Call { function: Function::Concat, arguments } => joined(arguments, ""),
            Value::Call { function: Function::Format, arguments } => self.formatted(arguments),
            Value::Call { function: Function::Join, arguments } => match arguments.as_slice() {
                [Value::List(items), between] => joined(items, &self.text(between)?),
                other => joined(other, LIST_SEPARATOR),
            },
            Value::List(values) => joined(values, LIST_SEPARATOR),
            Value::Steps { steps } => Ok(steps.iter().map(|step| step.symbol.as_str()).collect::<Vec<_>>().join(LIST_SEPARATOR)),
        }
    }

    /// The first text, with each `{}` replaced by the next argument.
    fn formatted(self, arguments: &[Value]) -> Result<String, Unset> {
        let Some((pattern, arguments)) = arguments.split_first() else { return Ok(String::new()) };
        let pattern = self.text(pattern)?;
        let mut arguments = arguments.iter();
        let mut formatted = String::new();
        for (place, piece) in pattern.split("{}").enumerate() {
            if place > 0 {
                formatted += &arguments.next().map_or(Ok(String::new()), |value| self.text(value))?;
            }
            formatted += piece;
        }
        Ok(formatted)
    }

    /// Replaces what is known in the run only. What is known already keeps its type.
    fn put_into(self, value: &mut Value) -> Result<(), Unset> {
        match value {
            Value::Boolean(_) | Value::Integer(_) | Value::Text(_) | Value::Decimal { .. } => Ok(()),
            Value::Variable { .. } | Value::Call { .. } => {
                *value = Value::Text(self.text(value)?);
                Ok(())
            }
            Value::Steps { steps } => self.into_steps(steps),
            Value::List(values) => values.iter_mut().try_for_each(|value| self.put_into(value)),
        }
    }

    fn into_steps(self, steps: &mut [Step]) -> Result<(), Unset> {
        steps.iter_mut().flat_map(|step| step.parameters.values_mut()).try_for_each(|value| self.put_into(value))
    }

    fn into_stage(self, stage: &mut Stage) -> Result<(), Unset> {
        // The stage's own variables go before those of the environment that it delivers to.
        let settings = stage.deployment.iter_mut().flat_map(|deployment| &mut deployment.settings);
        for (name, value) in settings {
            self.put_into(value)?;
            stage.environment.entry(name.clone()).or_insert_with(|| value.clone());
        }
        for value in stage.environment.values_mut() {
            *value = Value::Text(self.text(value)?);
        }
        let container = stage.container.iter_mut().map(|container| &mut container.image);
        let services =
            stage.services.iter_mut().flat_map(|service| std::iter::once(&mut service.image).chain(service.environment.values_mut()));
        let caches = stage.caches.values_mut().flat_map(|cache| cache.paths.iter_mut().chain(&mut cache.key));
        let requires = stage.requires.values_mut();
        container.chain(services).chain(caches).chain(requires).try_for_each(|value| self.put_into(value))?;
        let Notify { success, failure, complete } = &mut stage.notify;
        [&mut stage.steps, success, failure, complete].into_iter().try_for_each(|steps| self.into_steps(steps))
    }
}
