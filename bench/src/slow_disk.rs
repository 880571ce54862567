//! The same stages where the bus's disk is slow: each fsync of nats-server takes longer by so much.
//!
//! nats-server is a static program that calls the system by itself, so `strace` holds up its calls; it stops at no other (`--seccomp-bpf`).

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::ensure;
use eventbus::nats::server;

use crate::{
    installation,
    services::Services,
    stats::{Figures, Samples, ms},
};

/// By how much each fsync takes longer, in microseconds. The first stands for what the tracing itself costs.
const DELAYS_US: [u64; 4] = [0, 1_000, 2_000, 4_000];
/// Stages of each run.
const STAGES: usize = 200;
/// Runs of one stage.
const RUNS: usize = 50;

/// The table of `docs/benchmarks.md`.
pub(crate) async fn measure(otto: &Path) -> anyhow::Result<String> {
    let mut figures = Figures::new();
    if let Err(reason) = can_trace() {
        figures.add("fsync of the bus slowed", "", &format!("not measured: {reason:#}"));
        return Ok(figures.to_string());
    }
    let home = std::env::current_exe()?.ancestors().nth(2).unwrap_or(Path::new(".")).join("otto-home");
    let nats_server = server::find_or_install(&home, &|_| {}).await?;
    for delay in DELAYS_US {
        let folder = installation()?;
        let wrapper = folder.path().join("nats-server");
        let inject = if delay == 0 { String::new() } else { format!(" -e inject=fsync,fdatasync:delay_exit={delay}") };
        let script = format!(
            "#!/bin/sh\nexec strace -D -f --seccomp-bpf -qq -o /dev/null -e trace=fsync,fdatasync{inject} {} \"$@\"\n",
            nats_server.display()
        );
        fs::write(&wrapper, script)?;
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
        let path = std::env::join_paths(
            [folder.path().to_owned()].into_iter().chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
        )?;
        let path = path.to_string_lossy();
        let services = Services::start(otto, 1, &[("PATH", &path)]).await?;
        services.chain(20).await?;
        let stages = services.chain(STAGES).await?;
        let mut ends = Samples::default();
        for _ in 0..RUNS {
            ends.push(services.single(1).await?.1);
        }
        services.end().await?;
        let slowed = if delay == 0 { "traced, and not slowed".to_owned() } else { format!("slowed by {} ms", delay / 1_000) };
        let curve = |samples: &Samples| {
            let at = |share| ms(samples.percentile(share));
            format!("p50 {} ms, p90 {} ms, p99 {} ms", at(0.5), at(0.9), at(0.99))
        };
        figures.add(&format!("fsync of the bus {slowed}: one more stage, first byte to first byte"), "", &curve(&stages));
        figures.add(&format!("fsync of the bus {slowed}: one run of one stage, request to the run's end"), "", &curve(&ends));
    }
    Ok(figures.to_string())
}

/// Whether `strace` is there and may do that here.
fn can_trace() -> anyhow::Result<()> {
    let mut strace = Command::new("strace");
    strace.args(["-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", "inject=fsync:delay_exit=1", "true"]);
    let output = strace.stdin(Stdio::null()).output().map_err(|error| anyhow::anyhow!("strace does not start: {error}"))?;
    ensure!(output.status.success(), "strace: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
