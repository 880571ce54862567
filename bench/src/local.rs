//! `otto run`, as a whole process, beside the bare shells and `act`.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::ensure;

use crate::{
    act::Workflow,
    baseline, scratch,
    stats::{Row, Samples},
};

/// Runs of each length.
const RUNS: usize = 30;
/// What keeps stages apart as far as the machine can.
const APART: [&str; 2] = ["--isolation", "namespaces"];

pub(crate) fn measure(otto: &Path, act: &Path) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for stages in [1, 40] {
        let folder = scratch()?;
        std::fs::write(folder.path().join("Ottofile"), baseline::pipeline(stages))?;
        let workflow = Workflow::new(act, stages)?;
        let [mut bare, mut run, mut apart, mut peer] = <[Samples; 4]>::default();
        run_once(otto, folder.path(), &[])?;
        workflow.run()?;
        for _ in 0..RUNS {
            // In turns, so that a machine that drifts slows both.
            let begun = Instant::now();
            for _ in 0..stages {
                baseline::shell()?;
            }
            bare.push(begun.elapsed());
            run.push(run_once(otto, folder.path(), &[])?);
            apart.push(run_once(otto, folder.path(), &APART)?);
            peer.push(workflow.run()?);
        }
        rows.push(bare.row(&format!("{stages} bare shells in a row"), None));
        rows.push(run.row(&format!("`otto run` of {stages} stages, the whole process"), Some(bare.p50())));
        rows.push(apart.row(&format!("`otto run {}` of {stages} stages", APART.join(" ")), Some(bare.p50())));
        if stages > 1 {
            for (name, run) in [("the first, for each stage over its shell", &run), ("the second, for each stage over its shell", &apart)] {
                let per_stage: Samples = std::iter::once(run.p50().saturating_sub(bare.p50()) / u32::try_from(stages)?).collect();
                rows.push(per_stage.row(name, None));
            }
        }
        rows.push(peer.row(&format!("`act` of {stages} steps in one job, the whole process"), Some(bare.p50())));
    }
    Ok(rows)
}

fn run_once(otto: &Path, folder: &Path, arguments: &[&str]) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let output = Command::new(otto).arg("run").args(arguments).current_dir(folder).stdin(Stdio::null()).output()?;
    let took = begun.elapsed();
    ensure!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Ok(took)
}
