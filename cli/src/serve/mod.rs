//! `otto serve ROLE`: one role in a process of its own. This is where roles are put together with the bus, the depot and their settings.
//!
//! A process reads its settings, starts its role, says that it is ready, and ends in order: on a signal, when a task that matters fails, or
//! when `otto up`, which started it, is gone.

mod nats;
mod parent;
mod reader;
mod roles;

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use service::{
    Supervisor, env,
    settings::{EXIT_SETTINGS, Settings, WrongSettings},
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
    /// Take the settings that the environment does not have from this file, lines of `NAME=value`
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
        Role::Eventbus => role::<Eventbus>(&args).await,
        Role::Depot => role::<Depot>(&args).await,
        Role::Parser => role::<Parser>(&args).await,
        Role::Auctioneer => role::<Auctioneer>(&args).await,
        Role::Orchestrator => Box::pin(role::<Orchestrator>(&args)).await,
        Role::Forge => role::<Forge>(&args).await,
        Role::Agent => role::<Agent>(&args).await,
    }
}

async fn nats(args: ServeArgs) -> ExitCode {
    let mut reader = Reader::new(Settings::from_environment());
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
    let settings = match settings(args.settings.as_deref()) {
        Ok(settings) => settings,
        Err(failure) => {
            let _closed = writeln!(io::stderr(), "{failure:#}");
            return ExitCode::from(EXIT_SETTINGS);
        }
    };
    let mut reader = Reader::new(settings);
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

/// The settings of this process, and of the file those that it does not have.
fn settings(file: Option<&Path>) -> anyhow::Result<Settings> {
    let mut values = BTreeMap::new();
    if let Some(file) = file {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
            let (name, value) = line.split_once('=').with_context(|| format!("{}: `{line}` is not NAME=value", file.display()))?;
            values.insert(name.to_owned(), value.to_owned());
        }
    }
    values.extend(std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))));
    Ok(Settings::new(values))
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

fn dump(effective: &[(&str, String)]) -> ExitCode {
    for (name, value) in effective {
        let _closed = writeln!(io::stdout(), "{name}={value}");
    }
    ExitCode::SUCCESS
}
