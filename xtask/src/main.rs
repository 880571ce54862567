//! Every automation of the project: `cargo xtask COMMAND`.
//!
//! **Invariant:** there is no other; what a continuous integration does, a laptop does with the same command.

mod ci;
mod command;
mod dogfood;
mod generate;
mod repository;
mod tidy;

use std::process::ExitCode;

use anyhow::Result;

use crate::repository::Repository;

const HELP: &str = "\
cargo xtask COMMAND

  ci                 all that must hold: tidy, generated files, formatting, clippy, the tests
  dogfood            builds and tests Otto by its own Ottofile under `otto run`: twenty minutes or more, and 10 GB of disk
  dogfood --services the same through the services, by a push of what is committed
  tidy               the rules of the house that no compiler checks
  generate           writes the files that are made from others
  generate --check   only tells which of them are not fresh
";

/// The exit code of a wrong command line (`EX_USAGE` of BSD's sysexits.h).
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        ["ci"] => ci::run(),
        ["dogfood"] => dogfood::run(),
        ["dogfood", "--services"] => dogfood::run_through_services(),
        ["tidy"] => run_tidy(),
        ["generate"] => Repository::load().and_then(|repository| generate::write(&repository)),
        ["generate", "--check"] => Repository::load().and_then(|repository| generate::check(&repository)),
        ["help" | "--help" | "-h"] => {
            say(HELP);
            return ExitCode::SUCCESS;
        }
        _ => {
            say(HELP);
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("xtask: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run_tidy() -> Result<()> {
    let findings = tidy::tidy(&Repository::load()?)?;
    for finding in &findings {
        say(&finding.to_string());
    }
    anyhow::ensure!(findings.is_empty(), "tidy: {} to mend", findings.len());
    Ok(())
}

/// Tells a person something.
#[expect(clippy::print_stderr, reason = "this is a command for people; its standard output is that of the commands it runs")]
fn say(text: &str) {
    eprintln!("{}", text.trim_end());
}
