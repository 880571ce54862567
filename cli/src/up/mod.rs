//! `otto up`: provisions a folder, runs the processes of the Procfile, and ends them together.
//!
//! ```text
//! Provision ─▶ Fleet ─▶ Keeper (one a process) ─▶ process
//!                         │ lines ─▶ Voice ─▶ screen, logs/NAME.log
//!                         │ pid   ─▶ Registry ─▶ processes.json
//!                         └ Backoff, when it crashed
//! ```
//!
//! **Invariant:** when `otto up` has ended, however it ended, none of its processes goes on.

mod backoff;
mod fleet;
mod keeper;
mod lines;
mod output;
mod procfile;
mod registry;

use std::{
    io::{self, Write as _},
    net::SocketAddr,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use service::{
    env,
    settings::{EXIT_SETTINGS, WrongSettings},
    signals::Signals,
};

pub use self::{
    fleet::{Fleet, FleetError, FleetOptions},
    output::colours_on_stderr,
    procfile::{DEFAULT as DEFAULT_PROCFILE, Entry, Procfile, ProcfileError},
};
use crate::{
    command::{agent::TrustOption, config::wrong_of_up},
    config_file, home,
    provision::{BusServers, PortChoice, Provision},
};

/// The most agents of one `otto up`: each is a process with slots for all cores.
const AGENTS_MAX: usize = 64;

/// Start Otto on this machine, and end it on Ctrl-C
#[derive(Debug, clap::Args)]
pub struct UpArgs {
    /// The folder of its data [default: `up` in Otto's home]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The processes [default: those of this program]
    #[arg(long, value_name = "FILE")]
    procfile: Option<PathBuf>,
    /// The file of settings [default: that of `OTTO_CONFIG`, else `otto.yml` beside the Procfile, else in the folder of its data]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How many agents run
    #[arg(long, value_name = "N", default_value = "1", value_parser = agents)]
    agents: NonZeroUsize,
    /// Whose code these agents run: also that of untrusted runs, or of trusted ones alone
    #[arg(long, value_enum, default_value_t = TrustOption::Any)]
    trust: TrustOption,
    /// Which ports are used: 7480 to 7486, or free ones
    #[arg(long, value_enum, default_value_t)]
    ports: PortChoice,
    #[command(flatten)]
    bus: BusArgs,
}

/// A bus that runs elsewhere, such as a cluster, with the keys of this folder; none is started here then
#[derive(Debug, clap::Args)]
struct BusArgs {
    /// Its servers, such as `nats://10.0.0.1:4222,nats://10.0.0.2:4222`
    #[arg(long = "bus", value_name = "URLS", value_delimiter = ',', requires = "monitors")]
    urls: Vec<String>,
    /// Where each of them tells how it is, such as `10.0.0.1:8222,10.0.0.2:8222`
    #[arg(long = "bus-monitors", value_name = "ADDRESSES", value_delimiter = ',', requires = "urls")]
    monitors: Vec<SocketAddr>,
    /// On how many of them each message of a stream must be
    #[arg(long = "bus-replicas", value_name = "N", requires = "urls")]
    replicas: Option<NonZeroUsize>,
}

impl BusArgs {
    fn servers(self) -> Option<BusServers> {
        let Self { urls, monitors, replicas } = self;
        (!urls.is_empty()).then_some(BusServers { urls, monitors, replicas })
    }
}

fn agents(text: &str) -> Result<NonZeroUsize, String> {
    match text.parse::<NonZeroUsize>() {
        Ok(agents) if agents.get() <= AGENTS_MAX => Ok(agents),
        _ => Err(format!("expected a number from 1 to {AGENTS_MAX}")),
    }
}

/// Runs `otto up`.
pub async fn run(args: UpArgs) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen().context("cannot listen to signals")?;
    let options = args.options()?;
    let wrong = wrong_of_up(options.config.as_ref());
    if !wrong.is_empty() {
        say(&WrongSettings(wrong).to_string());
        return Ok(ExitCode::from(EXIT_SETTINGS));
    }
    let projects = config_file::path_of(options.config.as_ref(), env::PROJECTS);
    let launch = Fleet::launch(options, &say);
    let fleet = tokio::select! {
        fleet = launch => fleet?,
        _ = signals.next() => return Ok(ExitCode::FAILURE),
    };
    let outcome = tokio::select! {
        ready = fleet.ready(&say) => match ready {
            Ok(()) => {
                say(&welcome(fleet.provision(), projects.as_deref()));
                tokio::select! {
                    _ = signals.next() => Ok(ExitCode::SUCCESS),
                    () = fleet.failed() => Ok(ExitCode::FAILURE),
                }
            }
            Err(error) => Err(error.into()),
        },
        _ = signals.next() => Ok(ExitCode::FAILURE),
    };
    say("Ending all processes.");
    fleet.stop().await;
    outcome
}

impl UpArgs {
    fn options(self) -> anyhow::Result<FleetOptions> {
        let procfile = match &self.procfile {
            Some(path) => std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?,
            None => DEFAULT_PROCFILE.to_owned(),
        };
        let data = self.data.map_or_else(home::up_folder, Ok)?;
        let beside = self.procfile.as_deref().map(|path| path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new(".")));
        let folders: Vec<&Path> = beside.into_iter().chain([data.as_path()]).collect();
        let config = config_file::find(self.config.as_deref(), &folders);
        Ok(FleetOptions {
            data,
            config,
            procfile: procfile.parse()?,
            agents: self.agents,
            trust: self.trust.into(),
            ports: self.ports,
            otto: std::env::current_exe().context("cannot find this program")?,
            home: home::folder()?,
            bus: self.bus.servers(),
            shown: true,
        })
    }
}

fn say(line: &str) {
    // Nobody is left to be told when the terminal is gone.
    let _closed = writeln!(io::stderr(), "{line}");
}

fn welcome(provision: &Provision, projects: Option<&Path>) -> String {
    let (data, default) = (provision.data(), home::up_folder().ok());
    let exports = if default.as_deref() == Some(data) {
        String::new()
    } else {
        format!("\n  In another terminal first: export $(cat {}/client.env)", data.display())
    };
    format!(
        "Otto is ready.{exports}\n  API       {} (the token is in {})\n  Projects  {}, one PROJECT.yml each\n  Logs      {}\n  \
         Runs      otto runs, otto show RUN, otto log -f RUN",
        provision.api_url(),
        provision.api_token_file().display(),
        projects.unwrap_or(&provision.projects()).display(),
        provision.logs().display(),
    )
}
