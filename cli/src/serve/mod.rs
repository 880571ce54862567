//! `otto serve ROLE`: one role in a process of its own. This is where roles are put together with the bus, the depot and their settings.
//!
//! A process reads its settings, starts its role, says that it is ready, and ends in order: on a signal, when a task that matters fails, or
//! when `otto up`, which started it, is gone.

mod nats;
mod parent;
mod reader;
mod roles;

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context as _;
use config::ConfigFile;
use service::{
    Supervisor, env,
    settings::{EXIT_SETTINGS, Given, Origin, Place, Settings, Wrong, WrongSettings},
    signals::Signals,
    supervisor::Ended,
    telemetry,
};
use tracing::{error, info};

use self::{
    nats::Nats,
    parent::{Parent, ParentPipe},
    reader::Reader,
    roles::{Agent, Auctioneer, Depot, Eventbus, Forge, Orchestrator, Parser, Serve},
};

pub(crate) use self::reader::Effective;
use crate::config_file;

/// What a role's line on standard output begins with when it is ready. It prints nothing else there.
pub const READY: &str = "ready:";

/// What is written unless told otherwise: of libraries only what is wrong, as the roles say the same in the words of Otto.
const LOG_DEFAULT: &str = "info,actix_server=warn,async_nats=warn";

/// Run one role of Otto in this process
#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    /// Which role
    #[arg(value_enum)]
    role: Role,
    /// Print the settings, without secrets, and end
    #[arg(long)]
    dump_config: bool,
    /// The file of settings [default: that of `OTTO_CONFIG`, else `otto.yml` in the folder of `OTTO_DATA`]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Take the settings that the environment does not have from this file, lines of `NAME=value`, before those of `--config`
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// Guard the nats-server that is this process's parent
    #[arg(long, hide = true, value_name = "PID")]
    guard: Option<u32>,
}

/// A role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// nats-server, which carries the bus
    Nats,
    /// Sets up the bus and checks it
    Eventbus,
    /// Content-addressed bytes
    Depot,
    /// Makes plans of pipeline files
    Parser,
    /// Proposes who gets a stage
    Auctioneer,
    /// Decides about runs, and serves the API
    Orchestrator,
    /// Turns pushes into triggers
    Forge,
    /// Runs stages
    Agent,
}

impl Role {
    /// Its name on the command line, in the Procfile and in the file of settings.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nats => env::NATS,
            Self::Eventbus => env::EVENTBUS,
            Self::Depot => env::DEPOT,
            Self::Parser => env::PARSER,
            Self::Auctioneer => env::AUCTIONEER,
            Self::Orchestrator => env::ORCHESTRATOR,
            Self::Forge => env::FORGE,
            Self::Agent => env::AGENT,
        }
    }
}

/// What every role is told.
struct Common {
    log: String,
    format: telemetry::Format,
    pipe: Option<ParentPipe>,
}

impl Common {
    fn read(reader: &mut Reader) -> Self {
        let log = reader.or(env::LOG, LOG_DEFAULT.to_owned());
        let format = reader.optional(env::LOG_FORMAT).unwrap_or_default();
        Self { log, format, pipe: reader.optional(env::PARENT_PIPE) }
    }
}

/// Runs the role until it ends.
pub async fn run(args: ServeArgs) -> ExitCode {
    match args.role {
        Role::Nats => nats(args).await,
        Role::Eventbus => Box::pin(role::<Eventbus>(&args)).await,
        Role::Depot => role::<Depot>(&args).await,
        Role::Parser => role::<Parser>(&args).await,
        Role::Auctioneer => role::<Auctioneer>(&args).await,
        Role::Orchestrator => Box::pin(role::<Orchestrator>(&args)).await,
        Role::Forge => role::<Forge>(&args).await,
        Role::Agent => role::<Agent>(&args).await,
    }
}

async fn nats(args: ServeArgs) -> ExitCode {
    let mut reader = Reader::new(settings(&args));
    let common = Common::read(&mut reader);
    let nats = Nats::read(&mut reader);
    match reader.finish() {
        Err(error) => return refuse(&error),
        Ok(effective) if args.dump_config => return dump(&effective),
        Ok(_) => {}
    }
    telemetry::init(&common.log, common.format);
    let nats = nats.expect("every required setting is there");
    let outcome = match (args.guard, common.pipe) {
        (Some(server), Some(pipe)) => nats.guard(server, pipe).await,
        (_, pipe) => nats.serve(pipe.is_some()).await,
    };
    report(outcome)
}

async fn role<R: Serve>(args: &ServeArgs) -> ExitCode {
    let mut reader = Reader::new(settings(args));
    let common = Common::read(&mut reader);
    let role = R::read(&mut reader);
    match reader.finish() {
        Err(error) => return refuse(&error),
        Ok(effective) if args.dump_config => return dump(&effective),
        Ok(_) => {}
    }
    telemetry::init(&common.log, common.format);
    report(live(role.expect("every required setting is there"), common.pipe).await)
}

/// What a role would have for settings, and what is wrong with them. Nothing is started.
pub(crate) fn look(role: Role, environment: Settings, file: Option<&ConfigFile>) -> (Vec<Effective>, Vec<Wrong>) {
    fn read<R: Serve>(reader: &mut Reader) {
        let _looked_at_only = R::read(reader);
    }
    let mut reader = Reader::new(over(environment, role, file));
    Common::read(&mut reader);
    match role {
        Role::Nats => {
            let _looked_at_only = Nats::read(&mut reader);
        }
        Role::Eventbus => read::<Eventbus>(&mut reader),
        Role::Depot => read::<Depot>(&mut reader),
        Role::Parser => read::<Parser>(&mut reader),
        Role::Auctioneer => read::<Auctioneer>(&mut reader),
        Role::Orchestrator => read::<Orchestrator>(&mut reader),
        Role::Forge => read::<Forge>(&mut reader),
        Role::Agent => read::<Agent>(&mut reader),
    }
    reader.into_parts()
}

/// The settings of this process: the environment's, below them those of `--settings`, and below all those of the file.
fn settings(args: &ServeArgs) -> Settings {
    let mut settings = Settings::from_environment();
    if let Some(file) = &args.settings {
        let (values, wrong) = read_lines(file);
        settings = settings.below(values, wrong);
    }
    let data: Option<PathBuf> = settings.text(env::DATA).filter(|text| !text.is_empty()).map(PathBuf::from);
    let folders: Vec<&Path> = data.iter().map(PathBuf::as_path).collect();
    let file = config_file::find(args.config.as_deref(), &folders);
    over(settings, args.role, file.as_ref())
}

/// The settings, and below them those of the file for this role.
fn over(settings: Settings, role: Role, file: Option<&ConfigFile>) -> Settings {
    match file {
        Some(file) => settings.below(file.of(role.name()), file.wrong().iter().cloned()),
        None => settings,
    }
}

/// The lines of `NAME=value` of a file, and what is wrong with it.
fn read_lines(path: &Path) -> (Vec<(String, Given)>, Vec<Wrong>) {
    let place = |line| Place { file: Arc::new(path.to_owned()), line };
    let wrong = |line, what: &str| Wrong { is_missing: false, what: format!("{}: {what}", place(line)) };
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return (Vec::new(), vec![wrong(None, &error.to_string())]),
    };
    let (mut values, mut errors) = (Vec::new(), Vec::new());
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#')) {
        match line.split_once('=') {
            Some((name, value)) => {
                let origin = Origin::File { place: place(Some((number, None))), key: name.to_owned() };
                values.push((name.to_owned(), Given { text: value.to_owned(), origin }));
            }
            None => errors.push(wrong(Some((number, None)), "expected NAME=value")),
        }
    }
    (values, errors)
}

/// From the start of a role to its end.
async fn live<R: Serve>(role: R, pipe: Option<ParentPipe>) -> anyhow::Result<()> {
    let mut signals = Signals::listen().context("cannot listen to signals")?;
    let mut parent = pipe.map(Parent::open).transpose().context("cannot look at the pipe to otto up")?;
    let supervisor = Supervisor::new();
    let stop_time = role.stop_time();
    let told = async {
        let gone = async {
            match &mut parent {
                Some(parent) => parent.gone().await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(gone);
        tokio::select! {
            signal = signals.next() => info!(?signal, "ends"),
            () = &mut gone => return info!("otto up is gone, so this ends"),
        }
        if !stop_time.is_zero() {
            info!(?stop_time, "takes nothing new, and waits for what runs");
            supervisor.leaving().cancel();
            tokio::select! {
                // Whoever has nothing left says so, and that is the end.
                () = supervisor.token().cancelled() => {}
                () = tokio::time::sleep(stop_time) => info!("what runs still is ended"),
                signal = signals.next() => info!(?signal, "ends at once"),
                () = gone => info!("otto up is gone, so this ends"),
            }
        }
    };
    let work = async {
        let ready = role.start(&supervisor).await?;
        // Nobody hears it where the process was started by hand with its output closed.
        let _nobody_hears = writeln!(io::stdout(), "{READY} {ready}").and_then(|()| io::stdout().flush());
        anyhow::Ok(supervisor.wait().await)
    };
    let ended = tokio::select! {
        ended = work => match ended {
            Ok(ended) => ended,
            Err(error) => {
                supervisor.shut_down().await;
                return Err(error);
            }
        },
        () = told => supervisor.shut_down().await,
    };
    match ended {
        Ended::InOrder => Ok(()),
        Ended::Failed(_) | Ended::Stuck(_) => anyhow::bail!("{ended}"),
    }
}

fn report(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            error!(error = format!("{failure:#}"), "the process ends");
            ExitCode::FAILURE
        }
    }
}

fn refuse(error: &WrongSettings) -> ExitCode {
    let _closed = writeln!(io::stderr(), "{error}");
    ExitCode::from(EXIT_SETTINGS)
}

fn dump(effective: &[Effective]) -> ExitCode {
    for Effective { name, value, .. } in effective {
        let _closed = writeln!(io::stdout(), "{name}={value}");
    }
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::ValueEnum as _;

    use super::*;

    /// Whether the table is true: a setting of which it says nothing would stand in no documentation, and in no file.
    #[test]
    fn a_role_has_the_settings_that_the_table_gives_it() {
        for role in Role::value_variants() {
            assert_eq!(role.to_possible_value().unwrap().get_name(), role.name());
            let (effective, _) = look(*role, Settings::new([]), None);
            let read: BTreeSet<&str> = effective.iter().map(|effective| effective.name).filter(|name| *name != env::PARENT_PIPE).collect();
            let table: BTreeSet<&str> =
                env::ALL.iter().filter(|setting| setting.roles.contains(&role.name())).map(|setting| setting.variable).collect();
            assert_eq!(read, table, "{}", role.name());
        }
    }

    #[test]
    fn lines_that_are_none_are_named_with_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let (config, lines) = (folder.path().join("otto.yml"), folder.path().join("agent.env"));
        fs::write(&config, "agent: { slots: many, price_micros_per_s: 3, sluts: 1 }\n").unwrap();
        fs::write(&lines, "# from otto agent join\nOTTO_AGENT_CLASS=Not a class\nslots\n").unwrap();
        let args = ServeArgs { role: Role::Agent, dump_config: false, config: Some(config), settings: Some(lines), guard: None };
        let mut reader = Reader::new(settings(&args));
        let _incomplete = Agent::read(&mut reader);
        let (effective, wrong) = reader.into_parts();
        let said: Vec<&str> = wrong.iter().filter(|wrong| !wrong.is_missing).map(|wrong| wrong.what.as_str()).collect();
        let expected = [
            "agent.env:3: expected NAME=value",
            "otto.yml:1:46: there is no setting `sluts`",
            "otto.yml:1:17: agent.slots=many: ",
            "agent.env:2: OTTO_AGENT_CLASS=",
        ];
        assert_eq!(said.len(), expected.len(), "{said:#?}");
        for expected in expected {
            assert!(said.iter().any(|said| said.contains(expected)), "{expected}: {said:#?}");
        }
        let price = effective.iter().find(|effective| effective.name == env::AGENT_PRICE).unwrap();
        assert!(
            price.value == "3" && matches!(&price.origin, Some(Origin::File { key, .. }) if key == "agent.price_micros_per_s"),
            "{price:?}"
        );
    }
}
