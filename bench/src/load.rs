//! Many runs at once, through the services.
//!
//! Whom stages are given is played by the bench ([`crate::agents`]): this machine could start only some hundred shells a second, and how many stages the
//! services can pass is the question. Beside it stands the same with a real agent, which is a figure of the machine.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use futures_util::future::try_join_all;
use tokio::time::sleep_until;

use crate::{
    agents::{Agents, Cast},
    installation, processes,
    services::{Plan, Services},
    stats::{Figures, Samples, ms},
};

/// Runs that are created at once.
const RUNS: usize = 64;
/// Stages of each of them, one after the other.
const STAGES: usize = 100;
/// The same with real agents.
const STAGES_REAL: usize = 20;
/// Agents that the bench plays, and the slots of each: so many that none of the runs waits for one.
const AGENTS: usize = 8;
const SLOTS: u32 = 32;
/// How long a stage of theirs takes until it prints, in milliseconds, which costs no processor: about what the shell does here.
const STAGE_MS: u64 = 4;
/// Between two looks whether a run has ended.
const LOOK: Duration = Duration::from_millis(50);

/// Below it, a process has no part in what a stage costs.
const WORTH_TELLING: Duration = Duration::from_micros(5);

/// The offered load: so many stages a second, in runs of so many, for so long.
const OFFERED_PER_S: usize = 400;
const OFFERED_STAGES: usize = 20;
const OFFERED_S: usize = 15;

/// The table of `docs/benchmarks.md`.
pub(crate) async fn measure(otto: &Path) -> anyhow::Result<String> {
    let mut figures = Figures::new();
    played(otto, &mut figures).await?;
    let services = Services::start(otto, 1, &[]).await?;
    let rate = at_once(&services, STAGES_REAL).await?;
    services.end().await?;
    figures.add(&format!("the same with one agent and its shells, {STAGES_REAL} stages each"), "", &format!("{rate:.0} stages/s"));
    Ok(figures.to_string())
}

async fn played(otto: &Path, figures: &mut Figures) -> anyhow::Result<()> {
    let environment = [("OTTO_API_REQUESTS_PER_S", "0")];
    let services = Services::start_in(installation()?, otto, &Plan { agents: AGENTS, are_played: true, environment: &environment }).await?;
    let cast = Cast { data: services.data(), numbers: (1, AGENTS), slots: SLOTS, stage_ms: STAGE_MS, differ: false, rare: None };
    let agents = Agents::start(&cast)?;
    services.chain(20).await?;
    let before = processes::processor_times(&services)?;
    let rate = at_once(&services, STAGES).await?;
    let after = processes::processor_times(&services)?;
    figures.add(
        &format!("{RUNS} runs at once, {STAGES} stages each, on agents that run nothing"),
        "800 stages/s",
        &format!("{rate:.0} stages/s"),
    );
    for (name, after) in after {
        let each = after.saturating_sub(before.get(&name).copied().unwrap_or_default()) / u32::try_from(RUNS * STAGES)?;
        if each >= WORTH_TELLING {
            figures.add(&format!("of that, the processor's time of {name}, for each stage"), "", &format!("{} ms", ms(each)));
        }
    }
    let stages = offered(&services).await?;
    figures.add(
        &format!("one more stage at {OFFERED_PER_S} stages/s, first byte to first byte, of which the stage itself is {STAGE_MS} ms"),
        "",
        &format!("p50 {} ms, p99 {} ms", ms(stages.p50()), ms(stages.p99())),
    );
    drop(agents);
    services.end().await?;
    Ok(())
}

/// All runs at once: how many stages end in a second.
async fn at_once(services: &Services, stages: usize) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let runs = try_join_all((0..RUNS).map(|_| services.create(stages))).await?;
    for run in &runs {
        services.succeeded(run, LOOK).await?;
    }
    #[expect(clippy::cast_precision_loss, reason = "some thousand")]
    let all = (RUNS * stages) as f64;
    Ok(all / begun.elapsed().as_secs_f64())
}

/// Runs begin at a steady pace, whatever becomes of those before: the time from each stage's first byte to the next one's.
async fn offered(services: &Services) -> anyhow::Result<Samples> {
    let pause = Duration::from_secs(1) * u32::try_from(OFFERED_STAGES)? / u32::try_from(OFFERED_PER_S)?;
    let begun = tokio::time::Instant::now();
    let runs = (0..u32::try_from(OFFERED_PER_S * OFFERED_S / OFFERED_STAGES)?).map(|number| async move {
        sleep_until(begun + pause * number).await;
        services.chain(OFFERED_STAGES).await
    });
    let mut all = Samples::default();
    for samples in try_join_all(runs).await? {
        all.extend(samples);
    }
    Ok(all)
}
