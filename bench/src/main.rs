//! How fast Otto is, beside the bare processes in the same run. `cargo run --release -p bench` prints the tables of `docs/benchmarks.md`;
//! `cargo run --release -p bench -- language` only that of the language, and `-- cache` that of caches.
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
    io::{self, Write as _},
    path::PathBuf,
    process::Command,
};

use anyhow::{Context as _, ensure};
use stats::Row;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", machine())?;
    match std::env::args().nth(1).as_deref() {
        Some("language") => return Ok(write!(out, "{}", language::measure()?)?),
        Some("cache") => return Ok(write!(out, "{}", cache::measure()?)?),
        Some(_) | None => {}
    }
    let otto = build_otto()?;
    let floor = baseline::shells(baseline::SHELLS)?;
    let mut rows = vec![floor.row("one bare `/bin/sh -xe -c 'echo x'`", None)];
    rows.extend(local::measure(&otto, &act::find_or_install().await?)?);
    rows.extend(services::measure(&otto, &floor).await?);
    writeln!(out, "{}", Row::table(&rows))?;
    writeln!(out, "{}", output::measure(&otto)?)?;
    writeln!(out, "{}", cache::measure()?)?;
    writeln!(out, "{}", waterfall::measure(&otto).await?)?;
    write!(out, "{}", language::measure()?)?;
    Ok(())
}

/// The binary in release mode, built by the cargo that runs this.
fn build_otto() -> anyhow::Result<PathBuf> {
    let status = Command::new("cargo").args(["build", "--release", "--package", "cli", "--bin", "otto"]).status()?;
    ensure!(status.success(), "otto does not build");
    let otto = std::env::current_exe()?.with_file_name("otto");
    ensure!(otto.exists(), "run this with `cargo run --release -p bench`: there is no {}", otto.display());
    Ok(otto)
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
