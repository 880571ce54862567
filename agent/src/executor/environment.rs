//! The environment of a stage's processes, built from nothing: what the agent itself was started with does not leak into them.

use std::{collections::BTreeMap, path::Path};

use model::protocol::agent::Assignment;

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

/// The whole environment of an attempt's processes.
pub(crate) fn variables(assignment: &Assignment, passthrough: &Variables, entry: &Entry) -> Variables {
    let (attempt, workspace) = (&assignment.lease.attempt, entry.workspace());
    let mut variables = passthrough.clone();
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
    for (name, value) in &assignment.stage.environment {
        // What is known in the run only has been put in before the stage is assigned.
        variables.extend(value.as_text().map(|text| (name.clone(), text.to_owned())));
    }
    // Last, so that no stage can make its processes impossible to find.
    variables.insert(LEASE_MARK.to_owned(), entry.mark(&assignment.lease));
    variables
}

#[cfg(test)]
mod tests {
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
}
