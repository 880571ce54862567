//! `otto agent`: what this machine offers to stages, and on the administrator's side, who may be an agent.

use std::{
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use agent::{Finding, container::probe};
use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use eventbus::nats::{
    Account, Accounts, Enrolment, Keys,
    enrolment::{Record, TOKEN_LIFE},
};
use model::{AgentClass, AgentName, protocol::enrolment::AgentTrust};

use super::{Terminal, agent_join};
use crate::{
    client::Client,
    home,
    machine::{container_options, findings, of_containers, of_tools},
    provision,
};

/// Look at this machine as an agent does, and say who may be an agent
#[derive(Debug, Args)]
pub struct AgentArgs {
    #[command(subcommand)]
    command: AgentCommand,
}

#[derive(Debug, Subcommand)]
enum AgentCommand {
    /// Try how stages can be isolated and limited here, and whether containers run, and say how to get what is missing
    Doctor {
        /// Print what was found as JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a token with which an agent on another machine enrols itself, once
    Enrol {
        /// The name it will have
        name: AgentName,
        /// The class of stages that it is offered
        #[arg(long, default_value_t)]
        class: AgentClass,
        /// Whose code may run there
        #[arg(long, value_enum, default_value_t = TrustOption::Trusted)]
        trust: TrustOption,
        #[command(flatten)]
        folder: Folder,
    },
    /// Enrol the agent of a folder on this machine with a token of the administrator
    Join {
        /// Where the eventbus role listens, such as `http://127.0.0.1:7486`
        url: String,
        /// What `otto agent enrol` has printed
        #[arg(env = service::env::AGENT_ENROL_TOKEN, hide_env_values = true)]
        token: String,
        /// The folder of the agent's key and settings [default: `agent` in Otto's home]
        #[arg(long, value_name = "DIR")]
        folder: Option<PathBuf>,
    },
    /// Have an agent take no new work: what it runs it ends, and `otto agents` shows when it is idle
    ///
    /// It goes through the API, with a token of the role admin, and holds also over the agent's restarts.
    Drain {
        /// Its name
        name: AgentName,
        /// It takes new work again
        #[arg(long)]
        undo: bool,
    },
    /// Cut an agent off at once, and take its right to use the bus away
    Revoke {
        /// Its name
        name: AgentName,
        #[command(flatten)]
        folder: Folder,
    },
    /// List who may be an agent
    List {
        /// Print the records as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        folder: Folder,
    },
}

/// Where the administrator's keys lie.
#[derive(Debug, Args)]
struct Folder {
    /// The folder of `otto up` [default: `up` in Otto's home]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// As [`AgentTrust`], for the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TrustOption {
    /// Of trusted runs only
    Trusted,
    /// Of untrusted runs only
    Untrusted,
    /// Of every run: what an untrusted one leaves behind there, trusted ones may meet
    Any,
}

impl From<TrustOption> for AgentTrust {
    fn from(trust: TrustOption) -> Self {
        match trust {
            TrustOption::Trusted => Self::Trusted,
            TrustOption::Untrusted => Self::Untrusted,
            TrustOption::Any => Self::Any,
        }
    }
}

impl Folder {
    fn path(self) -> anyhow::Result<PathBuf> {
        self.data.map_or_else(home::up_folder, Ok)
    }
}

/// Does it and prints what is to be known.
pub async fn run(args: AgentArgs) -> anyhow::Result<ExitCode> {
    let text = match args.command {
        AgentCommand::Doctor { json } => {
            let mut findings = findings()?;
            findings.push(of_containers(&probe(&container_options()).await));
            findings.extend(of_tools().await?);
            if json { serde_json::to_string_pretty(&findings)? + "\n" } else { table(&findings) }
        }
        AgentCommand::Enrol { name, class, trust, folder } => {
            let token = keys(&folder.path()?)?.invite(&name, &class, trust.into())?;
            let minutes = TOKEN_LIFE.as_secs() / 60;
            // The token alone is what a script reads.
            let _closed = writeln!(io::stderr(), "agent {name} may enrol itself once, within {minutes} minutes, with this token");
            format!("{}\n", token.as_str())
        }
        AgentCommand::Join { url, token, folder } => {
            let folder = folder.map_or_else(|| Ok(home::folder()?.join("agent")), anyhow::Ok)?;
            agent_join::join(&url, &token, &folder).await?
        }
        AgentCommand::Drain { name, undo } => {
            let enrolled = Client::from_environment()?.drain(&name, undo).await?;
            let takes = if enrolled.draining { "no new work; what it runs it ends" } else { "new work" };
            format!("Agent {name} takes {takes}.\n")
        }
        AgentCommand::Revoke { name, folder } => revoke(&name, &folder.path()?).await?,
        AgentCommand::List { json, folder } => {
            let records = keys(&folder.path()?)?.enrolment().records()?;
            if json { serde_json::to_string_pretty(&records)? + "\n" } else { list(&records) }
        }
    };
    Terminal::stdout().print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn keys(data: &Path) -> anyhow::Result<Keys> {
    let folder = provision::bus_keys(data);
    anyhow::ensure!(
        folder.join("operator.seed").exists(),
        "{} holds no keys of a bus: run `otto up` there first, or name its folder with --data",
        data.display()
    );
    Ok(Keys::open(&folder)?)
}

/// First on disk, for whenever the server starts; then to the server that runs.
async fn revoke(name: &AgentName, data: &Path) -> anyhow::Result<String> {
    let keys = keys(data)?;
    keys.revoke(name)?;
    let config = provision::nats_config(data);
    let text = fs::read_to_string(&config).with_context(|| format!("cannot read {}", config.display()))?;
    provision::write_secret(&config, &keys.refresh(&text).with_context(|| format!("{} is not what `otto up` wrote", config.display()))?)?;
    let enrolment = Arc::new(Enrolment::open(&provision::bus_keys(data).join("enrolment"))?);
    let told = async {
        let accounts = Accounts::connect(&provision::bus_urls(data)?, enrolment).await?;
        anyhow::Ok(accounts.push(Account::Agents).await?)
    };
    Ok(match told.await {
        Ok(()) => format!("Agent {name} is cut off. What it ran goes to other agents.\n"),
        Err(error) => format!("Agent {name} is revoked. No bus runs here now ({error:#}); it is refused from the next start on.\n"),
    })
}

fn list(records: &[Record]) -> String {
    let width = records.iter().map(|record| record.agent.as_str().len()).max().unwrap_or_default();
    let mut text = String::new();
    for Record { agent, class, trust, draining, standing, .. } in records {
        let draining = if *draining { ", draining" } else { "" };
        // A string takes everything.
        let _taken = writeln!(text, "{:width$}  {:9}  class {class}  {standing}{draining}", agent.as_str(), trust.as_str());
    }
    text
}

fn table(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.subject.len()).max().unwrap_or(0);
    let mut text = String::new();
    for finding in findings {
        let sign = if finding.there { '✔' } else { '✘' };
        // A string takes everything.
        let _taken = writeln!(text, "{sign} {:width$}  {}: {}", finding.subject, finding.found, finding.meaning);
        if let Some(remedy) = finding.remedy {
            let _taken = writeln!(text, "  {:width$}  to get it: {remedy}", "");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use model::AgentClass;

    use super::*;

    #[tokio::test]
    async fn a_revoked_agent_is_listed_as_such_and_stands_in_the_configuration_of_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        let name: AgentName = "agent-1".parse().unwrap();
        assert!(revoke(&name, data).await.unwrap_err().to_string().contains("otto up"));
        let keys = Keys::open(&provision::bus_keys(data)).unwrap();
        keys.enrol(&name, &AgentClass::default(), AgentTrust::Trusted).unwrap();
        fs::create_dir(data.join("nats")).unwrap();
        let before = r#"{ "operator": "x", "resolver_preload": {} }"#;
        fs::write(provision::nats_config(data), before).unwrap();
        assert_eq!(list(&keys.enrolment().records().unwrap()), "agent-1  trusted    class default  enrolled\n");
        let told = revoke(&name, data).await.unwrap();
        assert!(told.contains("from the next start on"), "{told}");
        assert_eq!(list(&keys.enrolment().records().unwrap()), "agent-1  trusted    class default  revoked\n");
        let config: serde_json::Value = serde_json::from_str(&fs::read_to_string(provision::nats_config(data)).unwrap()).unwrap();
        assert_eq!(config["resolver_preload"][keys.public(Account::Agents)], keys.account_jwts()[&keys.public(Account::Agents)]);
        assert_eq!(config["operator"], "x");
    }
}
