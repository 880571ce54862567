//! What this machine offers to stages, found by trying it, and which stages could not run on it.
//!
//! Only what is asked for is tried: a container takes some tenths of a second, and a level of isolation some hundredths.

use std::{
    collections::{BTreeMap, BTreeSet},
    env::current_exe,
    str::FromStr,
};

use agent::{
    Finding, Isolation, SandboxOptions, StageUsers, Variables,
    container::{ContainerOptions, Runtime, Unusable, probe},
    examine,
};
use anyhow::Context as _;
use model::{
    AgentClass,
    plan::{CONTAINERS, Requirements, Stage, Value},
    protocol::enrolment::CLASS,
};
use parser::explain::Lack;
use service::{env, settings::Settings};

/// The fact of agents that isolate stages, and what demands it.
const ISOLATION: &str = "isolation";
/// What is known without asking a tool for its version.
const KNOWN: [&str; 8] = ["arch", "os", "cores", "memory", CLASS, LABEL, ISOLATION, CONTAINERS];
/// How containers are had.
const CONTAINERS_REMEDY: &str = "install podman or start docker, or say with OTTO_CONTAINER_CLIENT how it is called; or leave out `docker`, \
                                 `services` and `docker_run`";

/// The fact of agents that has their labels, and what demands one.
const LABEL: &str = "label";
/// Labels of one machine: what all agents say of themselves is remembered for each of them.
const LABELS_MAX: usize = 32;
/// The longest label, in characters.
const LABEL_CHARACTERS_MAX: usize = 64;

/// What people call a machine by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Labels(BTreeSet<String>);

impl Labels {
    /// As an agent says it of itself; nothing where there is none.
    pub(crate) fn facts(self) -> BTreeMap<String, Value> {
        let labels: Vec<Value> = self.0.into_iter().map(Value::Text).collect();
        if labels.is_empty() { BTreeMap::new() } else { [(LABEL.to_owned(), Value::List(labels))].into() }
    }
}

impl FromStr for Labels {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let labels: BTreeSet<String> = text.split(',').map(|label| label.trim().to_owned()).filter(|label| !label.is_empty()).collect();
        let wrong = |label: &&String| label.chars().count() > LABEL_CHARACTERS_MAX || label.chars().any(char::is_control);
        if labels.len() > LABELS_MAX || labels.iter().any(|label| wrong(&label)) {
            return Err(format!(
                "write at most {LABELS_MAX} labels of at most {LABEL_CHARACTERS_MAX} characters, with commas between them"
            ));
        }
        Ok(Self(labels))
    }
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Machine {
    /// As an agent here would say it of itself.
    pub(crate) facts: BTreeMap<String, Value>,
    /// What runs containers, or why nothing does; `None` if that was not tried.
    pub(crate) containers: Option<Result<Runtime, Unusable>>,
}

impl Machine {
    /// Tries what these demands ask about. `isolation` is what the agent's stages are to have.
    pub(crate) async fn look(demands: &[Requirements], isolation: Isolation) -> anyhow::Result<Self> {
        let asked: BTreeSet<&str> = demands.iter().flat_map(BTreeMap::keys).map(String::as_str).collect();
        let mut facts = agent::machine_facts();
        facts.insert(CLASS.to_owned(), Value::from(AgentClass::DEFAULT));
        facts.extend(labels()?.facts());
        if asked.iter().any(|fact| !KNOWN.contains(fact)) {
            facts.extend(agent::tool_facts(&agent::find_tools(agent::ALL_TOOLS).await));
        }
        if asked.contains(ISOLATION) {
            facts.extend(match isolation {
                Isolation::Auto => agent::offers(&findings()?),
                Isolation::Level(level) => agent::offers_of(level),
            });
        }
        let containers = if asked.contains(CONTAINERS) { Some(probe(&container_options()).await) } else { None };
        facts.extend(containers.iter().flatten().flat_map(Runtime::facts));
        Ok(Self { facts, containers })
    }

    /// Tries everything.
    pub(crate) async fn look_at_all() -> anyhow::Result<Self> {
        let all = [CONTAINERS, ISOLATION].map(|fact| (fact.to_owned(), Value::Boolean(true)));
        Self::look(&[all.into()], Isolation::Auto).await
    }

    /// Why the stage could not run here, and how to mend it; `None` if it could. What is known in the run only is not looked at.
    pub(crate) fn lacks(&self, stage: &Stage) -> Option<Lack> {
        let mut demands = stage.demands();
        demands.retain(|_, wanted| !matches!(wanted, Value::Variable { .. } | Value::Call { .. }));
        let lacking = |fact: &str| {
            let demand = demands.get_key_value(fact).map(|(fact, wanted)| [(fact.clone(), wanted.clone())].into());
            agent::lacks(&demand?, &self.facts)
        };
        if let (Some(_), Some(Err(why))) = (lacking(CONTAINERS), &self.containers) {
            return Some(Lack { why: format!("it needs containers, and none run here: {why}"), mend: CONTAINERS_REMEDY.to_owned() });
        }
        let why = agent::lacks(&demands, &self.facts)?.replace("this agent", "this machine");
        let mend = if lacking(ISOLATION).is_some() {
            "`otto agent doctor` says how to get it; or demand less, or run it through the services, on an agent that has it"
        } else {
            "leave it out of `runtime`, or run it through the services, on an agent that has it"
        };
        Some(Lack { why, mend: mend.to_owned() })
    }
}

/// What the person has set for containers.
pub(crate) fn container_options() -> ContainerOptions {
    let words = |name: &str| {
        let text: Option<String> = Settings::from_environment().optional(name);
        text.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    };
    ContainerOptions { client: words(env::CONTAINER_CLIENT), run: words(env::CONTAINER_ARGUMENTS) }
}

/// What the person has set for labels.
fn labels() -> anyhow::Result<Labels> {
    let mut settings = Settings::from_environment();
    let labels = settings.optional(env::AGENT_LABELS).unwrap_or_default();
    settings.check()?;
    Ok(labels)
}

/// The tools that an agent finds here, beside the other findings.
pub(crate) async fn of_tools() -> anyhow::Result<Vec<Finding>> {
    let tools: Vec<String> =
        agent::find_tools(agent::ALL_TOOLS).await.into_iter().map(|(name, version)| format!("{name} {version}")).collect();
    let (there, found) = (!tools.is_empty(), if tools.is_empty() { "none".to_owned() } else { tools.join(", ") });
    let meaning = "stages that ask in `runtime` for one of these, such as `python { version = '~> 3.8' }`, run here";
    let tools = Finding { subject: "tools", there, found, meaning, remedy: None };
    let labels: Vec<String> = labels()?.0.into_iter().collect();
    let (there, found) = (!labels.is_empty(), if labels.is_empty() { "none".to_owned() } else { labels.join(", ") });
    let meaning = "stages that ask in `runtime` for one of these, as `computer { label = 'mac' }`, run here";
    let remedy = Some("OTTO_AGENT_LABELS=mac,office in the agent's settings").filter(|_| !there);
    Ok(vec![tools, Finding { subject: "labels", there, found, meaning, remedy }])
}

/// What an agent that was started as this process finds of isolation and limits.
pub(crate) fn findings() -> anyhow::Result<Vec<Finding>> {
    let environment: Variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect();
    let users = match environment.get(env::AGENT_USERS) {
        Some(text) => text.parse().with_context(|| format!("{} is wrong", env::AGENT_USERS))?,
        None => StageUsers::Auto,
    };
    let otto = current_exe().context("cannot find this program")?;
    let options = SandboxOptions { users, ..SandboxOptions::of(Isolation::Auto, otto, &environment) };
    let folder = tempfile::Builder::new().prefix("otto-doctor-").tempdir().context("there is no folder to try things in")?;
    Ok(examine(&options, &folder.path().canonicalize()?)?)
}

/// Whether containers run here, beside the other findings.
pub(crate) fn of_containers(found: &Result<Runtime, Unusable>) -> Finding {
    let (there, found, meaning, remedy) = match found {
        Ok(runtime) => (true, runtime.name().to_owned(), "stages with `docker`, `services` or `docker_run` run here", None),
        Err(why) => {
            (false, why.to_string(), "stages with `docker`, `services` or `docker_run` go to other agents", Some(CONTAINERS_REMEDY))
        }
    };
    Finding { subject: "containers", there, found, meaning, remedy }
}

#[cfg(test)]
mod tests {
    use agent::Level;
    use model::plan::Container;

    use super::*;

    fn machine(containers: Option<Result<Runtime, Unusable>>) -> Machine {
        let facts = [("arch".to_owned(), Value::from("amd64")), ("cores".to_owned(), Value::Integer(2))];
        Machine { facts: facts.into_iter().chain(agent::offers_of(Level::Group)).collect(), containers }
    }

    fn demanding(fact: &str, wanted: Value) -> Stage {
        Stage { requires: [(fact.to_owned(), wanted)].into(), ..Stage::new("Build") }
    }

    #[test]
    fn what_a_stage_lacks_is_said_with_how_to_mend_it() {
        let machine = machine(Some(Err(Unusable(vec!["podman: it is not installed".to_owned()]))));
        let lack = |stage: &Stage| machine.lacks(stage).map(|lack| (lack.why, lack.mend));
        assert_eq!(lack(&demanding("arch", Value::from("amd64"))), None);
        assert_eq!(lack(&demanding("arch", Value::Variable { variable: "arch".to_owned() })), None, "nobody knows it yet");
        let (why, mend) = lack(&demanding("cores", Value::Integer(64))).unwrap();
        assert_eq!(why, "wants cores of at least 64, this machine has 2");
        assert!(mend.starts_with("leave it out of `runtime`"), "{mend}");
        let (why, mend) = lack(&demanding("isolation", Value::from("namespaces"))).unwrap();
        assert!(why.contains("namespaces") && mend.starts_with("`otto agent doctor`"), "{why} {mend}");
        let (why, mend) = lack(&Stage { container: Some(Container { image: Value::from("x") }), ..Stage::new("Image") }).unwrap();
        assert_eq!(why, "it needs containers, and none run here: podman: it is not installed");
        assert!(mend.starts_with("install podman"), "{mend}");
    }
}
