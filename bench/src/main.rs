//! How fast Otto is, beside the bare processes in the same run. `cargo run --release -p bench` prints the tables of `docs/benchmarks.md`;
//! `cargo run --release -p bench -- language` only that of the language, and `-- cache`, `-- local`, `-- services` only those.
//!
//! Figures are whole-path: what a client sees, through separate processes, with every write synced before it is acknowledged.

mod act;
mod baseline;
mod cache;
mod language;
mod local;
mod output;
mod services;
mod stats;
mod waterfall;

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail, ensure};
use stats::Row;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", machine())?;
    let only = std::env::args().nth(1);
    let only = only.as_deref();
    match only {
        Some("language") => return Ok(write!(out, "{}", language::measure()?)?),
        Some("cache") => return Ok(write!(out, "{}", cache::measure()?)?),
        Some("local" | "services") | None => {}
        Some(other) => bail!("there is no table `{other}`: language, cache, local or services, or nothing for all of them"),
    }
    let installed = scratch()?;
    let otto = install_otto(installed.path())?;
    let floor = baseline::shells(baseline::SHELLS)?;
    let mut rows = vec![floor.row("one bare `/bin/sh -xe -c 'echo x'`", None)];
    if only != Some("services") {
        rows.extend(local::measure(&otto, &act::find_or_install().await?)?);
    }
    if only != Some("local") {
        rows.extend(services::measure(&otto, &floor).await?);
    }
    writeln!(out, "{}", Row::table(&rows))?;
    if only != Some("services") {
        writeln!(out, "{}", output::measure(&otto)?)?;
    }
    if only != Some("local") {
        writeln!(out, "{}", waterfall::measure(&otto).await?)?;
    }
    if only.is_none() {
        writeln!(out, "{}", cache::measure()?)?;
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
    tempfile::Builder::new().prefix("otto-bench-").tempdir().context("there is no folder to work in")
}
