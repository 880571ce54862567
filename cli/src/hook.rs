//! `otto hook`: the hook by which a bare repository on this machine tells the forge of pushes.

use std::{
    env::{current_dir, current_exe},
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Subcommand;
use service::{env, settings::Settings, telemetry};

use crate::{home, provision::forge_url};

/// Have a git repository tell Otto of every push
///
/// A push starts runs of the projects whose repository it is. A project is a file `NAME.yml` in the folder of projects, which `otto up`
/// names when it is ready: `source:` and, indented below it, `url: /path/of/the/repository.git`. It is read when Otto starts.
#[derive(Debug, clap::Args)]
pub struct HookArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install the hook into a bare repository
    Install {
        /// The bare repository
        #[arg(value_name = "REPOSITORY")]
        repository: PathBuf,
        /// The folder of `otto up` [default: `up` in Otto's home]
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        /// Where the forge is, instead of that of `otto up`
        #[arg(long, value_name = "URL", conflicts_with = "data")]
        forge: Option<String>,
    },
    /// Tell of a push; git runs it in the repository and says on standard input what was pushed
    PostReceive,
}

/// Runs `otto hook`.
pub async fn run(args: HookArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Install { repository, data, forge } => {
            let url = match forge {
                Some(url) => url,
                None => forge_url(&data.map_or_else(home::up_folder, Ok)?)?,
            };
            let repository = std::path::absolute(&repository).with_context(|| format!("{} is no path", repository.display()))?;
            forge::hook::install(&repository, &url, &current_exe().context("cannot find this program")?)?;
            writeln!(io::stderr(), "{} tells {url} of every push", repository.display())?;
        }
        Command::PostReceive => {
            let mut settings = Settings::from_environment();
            telemetry::init(&settings.or(env::LOG, "warn".to_owned()), telemetry::Format::Text);
            let repository = current_dir().context("cannot find the repository")?;
            // Git shows the pusher what the hook prints.
            for line in forge::hook::post_receive(&repository, io::stdin().lock()).await? {
                writeln!(io::stdout(), "{line}")?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
