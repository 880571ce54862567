//! The floor: the processes of the steps without anything around them.

use std::{
    fmt::Write as _,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::ensure;

use crate::stats::Samples;

/// How many single shells are timed.
pub(crate) const SHELLS: usize = 300;
/// What every step of a measured pipeline does.
pub(crate) const SCRIPT: &str = "echo x";

/// Starts as many shells, one after the other, and times each from its start to its end.
pub(crate) fn shells(count: usize) -> anyhow::Result<Samples> {
    let mut samples = Samples::default();
    for _ in 0..count {
        let begun = Instant::now();
        shell()?;
        samples.push(begun.elapsed());
    }
    Ok(samples)
}

/// One shell, its output read as an agent reads it.
pub(crate) fn shell() -> anyhow::Result<()> {
    let output = Command::new("/bin/sh").args(["-xe", "-c", SCRIPT]).stdin(Stdio::null()).output()?;
    ensure!(output.status.success());
    Ok(())
}

/// A pipeline of `stages` stages, one after the other.
pub(crate) fn pipeline(stages: usize) -> String {
    let mut text = String::from("pipeline {\n");
    for stage in 1..=stages {
        writeln!(text, "  stage 'S{stage}' {{ steps [ sh '{SCRIPT}' ] }}").expect("a string takes everything");
    }
    text + "}\n"
}
