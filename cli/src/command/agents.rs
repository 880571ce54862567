//! `otto agents`: who runs stages, as they tell of themselves.

use std::process::ExitCode;

use apispec::{AgentList, AgentTrustView, AgentView, EnrolmentView, Presence};
use clap::Args;
use model::{AgentClass, Timestamp};
use serde_json::Value;
use service::clock;

use super::{
    Terminal,
    text::{self, printable},
};
use crate::client::Client;

/// Tools that are shown of one agent.
const TOOLS_MAX: usize = 3;

/// List the agents that the server has heard of within a day, with what they run
#[derive(Debug, Args)]
pub struct AgentsArgs {
    /// How many at most
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Print what the API answers
    #[arg(long)]
    json: bool,
}

/// Lists them.
pub async fn run(args: AgentsArgs) -> anyhow::Result<ExitCode> {
    let list = Client::from_environment()?.agents(args.limit.into()).await?;
    let text = if args.json { format!("{}\n", serde_json::to_string_pretty(&list)?) } else { table(&list, Timestamp(clock::unix_ms())) };
    Terminal::stdout().print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn table(list: &AgentList, now: Timestamp) -> String {
    let title = ["AGENT", "IS", "HEARD", "SLOTS FREE", "TAKES", "MACHINE", "RUNS"].map(str::to_owned).to_vec();
    let row = |agent: &AgentView| {
        let presence = match agent.presence {
            Presence::Present if agent.enrolled.as_ref().is_some_and(|enrolled| enrolled.draining) => "draining",
            Presence::Present => "present",
            Presence::Silent => "silent",
        };
        let stages: Vec<&str> = agent.stages.iter().map(|stage| stage.stage.path.as_str()).collect();
        vec![
            agent.name.to_string(),
            presence.to_owned(),
            text::ago(agent.heard_at, now),
            format!("{} of {}", agent.slots_free, agent.slots),
            takes(agent.enrolled.as_ref()),
            printable(&text::or_dash(&machine(agent)), false),
            printable(&text::or_dash(&stages.join(", ")), false),
        ]
    };
    let rows: Vec<Vec<String>> = std::iter::once(title).chain(list.agents.iter().map(row)).collect();
    let more = if list.cursor.is_some() { "… and more: --limit shows up to 1000\n" } else { "" };
    text::table(&rows) + more
}

/// What the administrator lets it do: it says nothing of this itself.
fn takes(enrolled: Option<&EnrolmentView>) -> String {
    let Some(EnrolmentView { class, trust, draining: _ }) = enrolled else { return "nothing: not known how enrolled".to_owned() };
    let runs = match trust {
        AgentTrustView::Trusted => "trusted runs",
        AgentTrustView::Untrusted => "untrusted runs",
        AgentTrustView::Any => "every run",
    };
    if class.as_str() == AgentClass::DEFAULT { runs.to_owned() } else { format!("{runs}, class {class}") }
}

/// What people choose machines by.
fn machine(agent: &AgentView) -> String {
    let fact = |name: &str| agent.facts.get(name).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    let cores = fact("cores").map(|cores| format!("{cores} cores"));
    let labels = agent.facts.get("label").and_then(Value::as_array).into_iter().flatten();
    let labels = labels.filter_map(|label| label.as_str().map(str::to_owned));
    [fact("os"), fact("arch"), cores].into_iter().flatten().chain(labels).chain(tools(agent)).collect::<Vec<_>>().join(", ")
}

/// Some of the tools that it has found, with their versions; `--json` has all.
fn tools(agent: &AgentView) -> Vec<String> {
    let version = |(name, version): (&String, &Value)| Some(format!("{} {}", name.strip_suffix(".version")?, version.as_str()?));
    let mut tools: Vec<String> = agent.facts.iter().filter_map(version).collect();
    let more = tools.len().saturating_sub(TOOLS_MAX);
    tools.truncate(TOOLS_MAX);
    if more > 0 {
        tools.push(format!("{more} more tools"));
    }
    tools
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_agent_stands_in_a_line_with_its_machine() {
        let agent = AgentView {
            name: "builder-1".parse().unwrap(),
            presence: Presence::Silent,
            heard_at: Timestamp(1_000),
            slots: 4,
            slots_free: 3,
            price_micros_per_s: 0,
            facts: [
                ("arch".to_owned(), json!("x86_64")),
                ("cores".to_owned(), json!(8)),
                ("os".to_owned(), json!("linux")),
                ("label".to_owned(), json!(["mac"])),
                ("git".to_owned(), json!(true)),
                ("git.version".to_owned(), json!("2.39")),
            ]
            .into(),
            stages: Vec::new(),
            enrolled: None,
        };
        let cells = |agent: AgentView| -> Vec<String> {
            let text = table(&AgentList { agents: vec![agent], cursor: None }, Timestamp(61_000));
            let line = text.lines().nth(1).unwrap();
            line.split("  ").map(|cell| cell.trim().to_owned()).filter(|cell| !cell.is_empty()).collect()
        };
        let unknown = "nothing: not known how enrolled";
        assert_eq!(
            cells(agent.clone()),
            ["builder-1", "silent", "1 min ago", "3 of 4", unknown, "linux, x86_64, 8 cores, mac, git 2.39", "-"]
        );
        let enrolled = EnrolmentView { class: "big".parse().unwrap(), trust: AgentTrustView::Untrusted, draining: true };
        let draining = cells(AgentView { presence: Presence::Present, enrolled: Some(enrolled), ..agent });
        assert_eq!((draining[1].as_str(), draining[4].as_str()), ("draining", "untrusted runs, class big"));
    }
}
