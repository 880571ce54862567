//! Other programs, run in the repository's root.

use std::{ffi::OsString, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

/// The cargo that runs this, so that a toolchain that was asked for (`cargo +1.91 xtask`) is used throughout.
fn program(name: &str) -> OsString {
    let this_cargo = if name == "cargo" { std::env::var_os("CARGO") } else { None };
    this_cargo.unwrap_or_else(|| name.into())
}

/// Runs a command whose output goes where this one's goes.
pub(crate) fn run(root: &Path, words: &[&str]) -> Result<()> {
    run_with(root, words, &[])
}

/// The same, with these variables in its environment.
pub(crate) fn run_with(root: &Path, words: &[&str], variables: &[(&str, &str)]) -> Result<()> {
    let (name, arguments) = words.split_first().context("an empty command")?;
    let line = words.join(" ");
    let mut command = Command::new(program(name));
    command.args(arguments).current_dir(root).envs(variables.iter().copied());
    let status = command.status().with_context(|| format!("cannot start `{line}`"))?;
    ensure!(status.success(), "`{line}` failed ({status})");
    Ok(())
}
