//! The environment of a stage's processes, built from nothing: what the agent itself was started with does not leak into them.

use std::{collections::BTreeMap, path::Path};

use model::{
    AttemptId,
    plan::Value,
    protocol::agent::Assignment,
    trace::{TRACEPARENT, traceparent},
};

use crate::spool::Entry;

/// Variables of an environment, by name.
pub type Variables = BTreeMap<String, String>;

/// Where programs are looked for if the agent itself was started without a `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The homes of tools that are shared between stages, and where they are by default under the home directory.
const TOOL_HOMES: [(&str, &str); 2] = [("RUSTUP_HOME", ".rustup"), ("CARGO_HOME", ".cargo")];

/// What stages may see of the environment that the agent was started with: `PATH`, and where Rust's tools live.
/// A tool's home that is not set is its default in the home directory, if there is one: a stage's own `HOME` is empty.
pub fn tool_homes(environment: &Variables) -> Variables {
    let path = environment.get("PATH").map_or(DEFAULT_PATH, String::as_str);
    let mut kept = Variables::from([("PATH".to_owned(), path.to_owned())]);
    for (name, folder) in TOOL_HOMES {
        let default = || {
            let path = Path::new(environment.get("HOME")?).join(folder);
            path.is_dir().then(|| path.to_str().map(str::to_owned))?
        };
        if let Some(home) = environment.get(name).cloned().or_else(default) {
            kept.insert(name.to_owned(), home);
        }
    }
    kept
}

/// The variable by which the agent finds the processes of a lease again; see [`crate::spool::leftovers`].
pub(crate) const LEASE_MARK: &str = "OTTO_LEASE";
/// The first address at which the webhooks wait that steps may hand out; the others have a number behind it.
const CALLBACK: &str = "OTTO_CALLBACK_URL";

/// What every process of an attempt finds; later ones go before earlier ones of the same name.
///
/// | from | variables |
/// |---|---|
/// | the agent | `PATH`, homes of tools |
/// | the trigger | `OTTO_TAG`, `OTTO_EVENT`, … |
/// | Otto | `CI`, `OTTO`, `OTTO_RUN`, `OTTO_STAGE`, `OTTO_ATTEMPT`, `OTTO_PROJECT`, `OTTO_BRANCH`, `OTTO_COMMIT`, `OTTO_ENVIRONMENT`, `OTTO_CALLBACK_URL`…, `LANG`, `HOME`, `TMPDIR` |
/// | the environment that is delivered to | its settings |
/// | the stage | its `env` |
pub(crate) fn variables(assignment: &Assignment, passthrough: &Variables, entry: &Entry) -> Variables {
    let (attempt, workspace) = (&assignment.lease.attempt, entry.workspace());
    let mut variables = passthrough.clone();
    variables.extend(assignment.facts.clone());
    let mut set = |name: &str, value: &str| variables.insert(name.to_owned(), value.to_owned());
    set("CI", "true");
    set("OTTO", "true");
    set("OTTO_RUN", attempt.run.as_str());
    set("OTTO_STAGE", &assignment.stage.path);
    set("OTTO_ATTEMPT", &attempt.attempt.to_string());
    set("OTTO_PROJECT", &assignment.project);
    set("OTTO_BRANCH", &assignment.branch);
    set("OTTO_COMMIT", &assignment.commit);
    set("LANG", "C.UTF-8");
    set("HOME", &workspace.home().to_string_lossy());
    set("TMPDIR", &workspace.temporary().to_string_lossy());
    for (number, callback) in (1..).zip(&assignment.callbacks) {
        let name = if number == 1 { CALLBACK.to_owned() } else { format!("{CALLBACK}_{number}") };
        set(&name, &callback.url);
    }
    let deployment = assignment.stage.deployment.as_ref();
    if let Some(deployment) = deployment {
        set("OTTO_ENVIRONMENT", &deployment.environment);
    }
    let settings = deployment.into_iter().flat_map(|deployment| &deployment.settings);
    for (name, value) in settings.chain(&assignment.stage.environment) {
        variables.extend(shown(value).map(|text| (name.clone(), text)));
    }
    variables
}

/// What the process of one step finds besides: its number from 1, `VAR_<NAME>` for each variable of the run, and the context of its span as the
/// W3C has it (<https://www.w3.org/TR/trace-context/>), unless the stage's `env` has one. The mark comes last, so that no stage can make its processes impossible to find.
pub(crate) fn of_step(base: &Variables, (attempt, number): (&AttemptId, u32), captured: &Variables, mark: &str) -> Variables {
    let mut variables = base.clone();
    variables.insert("OTTO_STEP".to_owned(), (number + 1).to_string());
    variables.entry(TRACEPARENT.to_owned()).or_insert_with(|| traceparent(attempt, number));
    variables.extend(captured.iter().map(|(name, text)| (variable_name(name), text.clone())));
    variables.insert(LEASE_MARK.to_owned(), mark.to_owned());
    variables
}

/// What a variable of the run is called in the environment: `VAR_MY_COLOUR` for `my-colour`.
fn variable_name(name: &str) -> String {
    format!("VAR_{}", name.replace('-', "_").to_ascii_uppercase())
}

/// A value as a text. What is known in the run only has been put in before the stage is assigned; a list and a block are no texts.
fn shown(value: &Value) -> Option<String> {
    match value {
        Value::Text(text) => Some(text.clone()),
        Value::Boolean(truth) => Some(truth.to_string()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Decimal { decimal } => Some(decimal.clone()),
        Value::Variable { .. } | Value::Call { .. } | Value::Steps { .. } | Value::List(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use model::{RunId, StageId, TriggerId};

    use super::*;

    #[test]
    fn a_tools_home_is_what_is_set_or_what_is_there() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".cargo")).unwrap();
        let text = home.path().to_str().unwrap().to_owned();
        let given = Variables::from([("HOME".to_owned(), text.clone()), ("SECRET".to_owned(), "x".to_owned())]);
        let kept = tool_homes(&given);
        assert_eq!(kept, Variables::from([("PATH".into(), DEFAULT_PATH.into()), ("CARGO_HOME".into(), format!("{text}/.cargo"))]));
        let set = Variables::from([("RUSTUP_HOME".to_owned(), "/r".to_owned()), ("PATH".to_owned(), "/bin".to_owned())]);
        assert_eq!(tool_homes(&set), set);
    }

    #[test]
    fn a_variable_of_the_run_has_a_name_that_a_shell_takes() {
        let captured = Variables::from([("my-colour".to_owned(), "green".to_owned())]);
        let base = Variables::from([("A".to_owned(), "1".to_owned()), (LEASE_MARK.to_owned(), "forged".to_owned())]);
        let attempt = AttemptId { run: RunId::of(&TriggerId::of("test", "1")), stage: StageId::of("Build"), attempt: 1 };
        let context = traceparent(&attempt, 2);
        let expected = [("A", "1"), (LEASE_MARK, "m"), ("OTTO_STEP", "3"), ("TRACEPARENT", &*context), ("VAR_MY_COLOUR", "green")];
        let expected = Variables::from(expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(of_step(&base, (&attempt, 2), &captured, "m"), expected);
        let own = Variables::from([(TRACEPARENT.to_owned(), "own".to_owned())]);
        assert_eq!(of_step(&own, (&attempt, 2), &captured, "m")[TRACEPARENT], "own", "the stage's own goes before it");
    }
}
