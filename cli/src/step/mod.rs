//! `otto step`: for who writes a step, and for who looks for one.

mod alone;
mod doc;
mod found;
mod new;
mod pack;
mod verify;

use std::process::ExitCode;

use clap::{Args, Subcommand};

/// Write, check, pack, find and try steps
#[derive(Debug, Args)]
pub struct StepArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    New(new::NewArgs),
    Verify(verify::VerifyArgs),
    Pack(pack::PackArgs),
    /// List the steps that the pipelines here can call: name, library, digest, and what each does
    List,
    Doc(doc::DocArgs),
    Run(alone::RunArgs),
}

/// Does what the arguments say.
pub fn run(args: StepArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::New(args) => new::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Pack(args) => pack::run(&args),
        Command::List => doc::list(),
        Command::Doc(args) => doc::run(&args),
        Command::Run(args) => alone::run(&args),
    }
}
