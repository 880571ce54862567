//! How fast Otto is, beside the bare processes in the same run. `cargo run --release -p bench` prints the tables of `docs/benchmarks.md`, and
//! `cargo run --release -p bench -- TABLE` one of them:
//!
//! | table | what |
//! |---|---|
//! | `local` | `otto run`, beside `act` |
//! | `services` | one more stage, one run of one stage, a webhook, one after the other; where the time of a stage goes |
//! | `load` | many runs at once, and stages that print very much |
//! | `fleet` | auctions among ten thousand agents |
//! | `idle` | services that have nothing to do, and their start |
//! | `peers` | Temporal's dev server and Buildbot |
//! | `disk` | stages where the bus's disk is slow |
//! | `cache` | a cache that is restored, beside `cp -r` |
//! | `language` | sources read, planned and explained |
//!
//! Figures are whole-path: what a client sees, through separate processes, with every write synced before it is acknowledged.

mod act;
mod agents;
mod baseline;
mod cache;
mod fleet;
mod idle;
mod language;
mod load;
mod local;
mod output;
mod peers;
mod printing;
mod processes;
mod services;
mod slow_disk;
mod stats;
mod waterfall;
mod webhook;

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail, ensure};
use stats::Row;

/// The tables, in the order in which they are printed.
const TABLES: [&str; 10] = ["local", "services", "load", "printing", "fleet", "idle", "peers", "disk", "cache", "language"];
/// What the names of folders begin with that a measurement works in.
const SCRATCH: &str = "otto-bench-";
/// Those that measure the program.
const OF_THE_PROGRAM: [&str; 8] = ["local", "services", "load", "printing", "fleet", "idle", "peers", "disk"];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let only = arguments.next();
    if only.as_deref() == Some(agents::ARGUMENT) {
        return agents::play(&arguments.next().context("whom to play?")?).await;
    }
    if let Some(other) = only.as_deref().filter(|name| !TABLES.contains(name)) {
        bail!("there is no table `{other}`: {}, or nothing for all of them", TABLES.join(", "));
    }
    let wants = |name: &str| only.as_deref().is_none_or(|only| only == name);
    let mut out = io::stdout().lock();
    writeln!(out, "{}", machine())?;
    if OF_THE_PROGRAM.into_iter().any(wants) {
        let installed = scratch()?;
        let otto = install_otto(installed.path())?;
        if wants("local") || wants("services") {
            let floor = baseline::shells(baseline::SHELLS)?;
            let mut rows = vec![floor.row("one bare `/bin/sh -xe -c 'echo x'`", None)];
            if wants("local") {
                rows.extend(local::measure(&otto, &act::find_or_install().await?)?);
            }
            if wants("services") {
                rows.extend(services::measure(&otto, &floor).await?);
            }
            writeln!(out, "{}", Row::table(&rows))?;
        }
        if wants("local") {
            writeln!(out, "{}", output::measure(&otto)?)?;
        }
        if wants("services") {
            writeln!(out, "{}", waterfall::measure(&otto).await?)?;
        }
        if wants("load") {
            writeln!(out, "{}", load::measure(&otto).await?)?;
        }
        if wants("printing") {
            writeln!(out, "{}", printing::measure(&otto).await?)?;
        }
        if wants("fleet") {
            writeln!(out, "{}", fleet::measure(&otto).await?)?;
        }
        if wants("idle") {
            writeln!(out, "{}", idle::measure(&otto).await?)?;
        }
        if wants("peers") {
            writeln!(out, "{}", peers::measure(&otto).await?)?;
        }
        if wants("disk") {
            writeln!(out, "{}", slow_disk::measure(&otto).await?)?;
        }
    }
    if wants("cache") {
        writeln!(out, "{}", cache::measure()?)?;
    }
    if wants("language") {
        write!(out, "{}", language::measure()?)?;
    }
    Ok(())
}

/// The binary in release mode, built by the cargo that runs this, and copied as an installation does. What the linker has written itself lies
/// in the system's memory in single pages, as it is mapped while it is written, and starts a tenth slower; `act` was unpacked, too.
fn install_otto(folder: &Path) -> anyhow::Result<PathBuf> {
    let status = Command::new("cargo").args(["build", "--release", "--package", "cli", "--bin", "otto"]).status()?;
    ensure!(status.success(), "otto does not build");
    let otto = std::env::current_exe()?.with_file_name("otto");
    ensure!(otto.exists(), "run this with `cargo run --release -p bench`: there is no {}", otto.display());
    let installed = folder.join("otto");
    fs::copy(&otto, &installed).with_context(|| format!("cannot copy {}", otto.display()))?;
    Ok(installed)
}

fn machine() -> String {
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processor
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!("{cores} cores of {model}\n")
}

/// A folder for what a measurement leaves, removed when it is dropped.
fn scratch() -> anyhow::Result<tempfile::TempDir> {
    tempfile::Builder::new().prefix(SCRATCH).tempdir().context("there is no folder to work in")
}

/// The same for services, on a disk and not below `/tmp`, as an installation's is: each stage has a `/tmp` of its own, in which the way to what lies
/// below the machine's would have to be made.
fn installation() -> anyhow::Result<tempfile::TempDir> {
    let program = std::env::current_exe()?;
    let beside = program.parent().context("this program lies in no folder")?;
    tempfile::Builder::new().prefix(SCRATCH).tempdir_in(beside).context("there is no folder for the services")
}
