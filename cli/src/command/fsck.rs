//! `otto fsck`: whether all that runs are made of is there and as it was.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use blob::{Blobs, DepotClient, Removed};
use clap::Args;
use eventbus::{
    Bus,
    nats::{self, Identity, NatsOptions},
    subject::Role,
};
use orchestrator::{
    fsck::{Depth, Kind, Report, check},
    views::rebuild_file,
};
use service::{env, settings::Settings};

use super::Terminal;
use crate::{
    home,
    provision::{self, VIEWS_FILE},
};

/// Look whether all that runs are made of is there and as it was: the chains of their logs, and the bytes that they name
///
/// The bus and the depot must be running: those of `otto up`, or those that the orchestrator's settings name. Nothing is changed but for `--rebuild` and `--sweep`.
/// Exit codes: 0 all is sound · 1 it could not be looked at · 3 bytes are missing or damaged · 4 logs are damaged.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct FsckArgs {
    /// Read all bytes, and hold them against their digests
    #[arg(long)]
    bytes: bool,
    /// Make the lists of runs, deliveries and deeds anew from the logs, too
    #[arg(long)]
    rebuild: bool,
    /// Remove from the depot what no run names and nobody has used for 31 days, if all could be looked at and no log is damaged
    #[arg(long)]
    sweep: bool,
    /// Print what was found as JSON
    #[arg(long)]
    json: bool,
    /// The folder of `otto up` [default: what the orchestrator's settings name, else `up` in Otto's home]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// Bytes are missing, logs are not damaged.
const EXIT_MISSING: u8 = 3;
/// Logs are damaged.
const EXIT_DAMAGED: u8 = 4;

/// Where the orchestrator's things are.
struct Place {
    bus_urls: Vec<String>,
    bus_credentials: PathBuf,
    depot_url: String,
    depot_token: PathBuf,
    /// The orchestrator's own folder.
    data: Option<PathBuf>,
}

impl Place {
    fn of_settings(settings: &mut Settings) -> Option<Self> {
        Some(Self {
            bus_urls: settings.optional::<String>(env::BUS_URLS)?.split(',').map(|url| url.trim().to_owned()).collect(),
            bus_credentials: settings.optional(env::BUS_CREDENTIALS_FILE)?,
            depot_url: settings.optional(env::DEPOT_URL)?,
            depot_token: settings.optional(env::DEPOT_TOKEN_FILE)?,
            data: settings.optional(env::DATA),
        })
    }

    fn of_folder(data: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            bus_urls: provision::bus_urls(data)?,
            bus_credentials: provision::service_credentials(data, Role::Orchestrator)?,
            depot_url: provision::depot_url(data)?,
            depot_token: provision::depot_token(data, Role::Orchestrator.name()),
            data: Some(data.join(Role::Orchestrator.name())),
        })
    }

    async fn reach(&self) -> anyhow::Result<(Bus, Blobs)> {
        let read = |path: &Path| fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
        let credentials = read(&self.bus_credentials)?.trim().to_owned();
        let options = NatsOptions { urls: self.bus_urls.clone(), credentials, identity: Identity::Service(Role::Orchestrator) };
        let bus = nats::connect(&options).await.context("the bus must be running: start `otto up`, or name its folder with --data")?;
        Ok((bus, Blobs::Depot(DepotClient::new(&self.depot_url, read(&self.depot_token)?.trim())?)))
    }
}

/// Looks, and prints what was found.
pub async fn run(args: FsckArgs) -> anyhow::Result<ExitCode> {
    let place = match &args.data {
        Some(data) => Place::of_folder(data)?,
        None => match Place::of_settings(&mut Settings::from_environment()) {
            Some(place) => place,
            None => Place::of_folder(&home::up_folder()?)?,
        },
    };
    let (bus, blobs) = place.reach().await?;
    let report = check(&bus, &blobs, if args.bytes { Depth::Bytes } else { Depth::Named }).await?;
    let mut text = if args.json { serde_json::to_string_pretty(&report)? + "\n" } else { tell(&report) };
    if args.rebuild {
        let data = place.data.with_context(|| format!("{} is not set: it is not known where the lists are", env::DATA))?;
        let told = match rebuild_file(&data.join(VIEWS_FILE), &bus, &blobs).await? {
            Some(runs) => format!("The lists are made anew: {runs} runs.\n"),
            None => "The orchestrator is running, and makes the lists anew within some seconds.\n".to_owned(),
        };
        if !args.json {
            text += &told;
        }
    }
    if args.sweep {
        let told = sweep(&report, &blobs).await?;
        if !args.json {
            text += &told;
        }
    }
    Terminal::stdout().print(&text)?;
    Ok(match report {
        Report { damaged: 1.., .. } => ExitCode::from(EXIT_DAMAGED),
        Report { missing: 1.., .. } => ExitCode::from(EXIT_MISSING),
        Report { unchecked: 1.., .. } => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    })
}

/// Has the depot remove what nobody uses. All that runs name was asked for just now, which counts as a use.
async fn sweep(report: &Report, blobs: &Blobs) -> anyhow::Result<String> {
    if report.damaged + report.unchecked > 0 {
        // What those runs name is not known.
        return Ok("Nothing is removed from the depot, as not every log could be read.\n".to_owned());
    }
    let Removed { blobs, bytes } = blobs.remove_unused().await?;
    Ok(format!("{blobs} things that no run names, {bytes} bytes, are removed from the depot.\n"))
}

fn tell(report: &Report) -> String {
    let Report { runs, open, archived, records, blobs, damaged, missing, unchecked, findings } = report;
    let mut text = String::new();
    for finding in findings {
        let what = match &finding.kind {
            Kind::Log => "log",
            Kind::Bytes { .. } => "bytes",
            Kind::Unchecked => "not looked at",
        };
        // A string takes everything.
        let _taken = writeln!(text, "✘ {}  {what}: {}\n  {}", finding.run, finding.why, finding.help);
    }
    let sign = if report.is_sound() { '✔' } else { '✘' };
    let _taken = writeln!(
        text,
        "{sign} {runs} runs, of which {open} are open and {archived} lie in the depot; {records} records, {blobs} things in the depot\n  \
         {damaged} logs are damaged, {missing} things are missing or damaged, {unchecked} could not be looked at"
    );
    text
}
