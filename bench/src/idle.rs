//! What services cost that have nothing to do, and how soon they are ready.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    installation, processes,
    services::{Plan, Services},
    stats::{Figures, Samples, ms},
};

/// How often they are started.
const STARTS: usize = 7;
/// Until what a start leaves to do is done.
const SETTLE: Duration = Duration::from_secs(10);
/// How long they are looked at.
const LOOK: Duration = Duration::from_secs(30);
/// The services with one agent.
const PLAN: Plan<'static> = Plan { agents: 1, are_played: false, environment: &[] };

/// The table of `docs/benchmarks.md`.
pub(crate) async fn measure(otto: &Path) -> anyhow::Result<String> {
    let mut figures = Figures::new();
    // Whatever is not there yet is installed by now.
    Services::start_in(installation()?, otto, &PLAN).await?.end().await?;
    let (mut fresh, mut again) = (Samples::default(), Samples::default());
    for _ in 0..STARTS {
        let begun = Instant::now();
        let services = Services::start_in(installation()?, otto, &PLAN).await?;
        fresh.push(begun.elapsed());
        let folder = services.end().await?;
        let begun = Instant::now();
        let services = Services::start_in(folder, otto, &PLAN).await?;
        again.push(begun.elapsed());
        services.end().await?;
    }
    for (what, samples) in [("without a data folder", &fresh), ("with one", &again)] {
        let measured = format!("p50 {} ms, longest {} ms", ms(samples.p50()), ms(samples.percentile(1.0)));
        figures.add(&format!("`otto up` is ready, {what}"), "1,500 ms", &measured);
    }
    idle(otto, &mut figures).await?;
    Ok(figures.to_string())
}

async fn idle(otto: &Path, figures: &mut Figures) -> anyhow::Result<()> {
    let services = Services::start_in(installation()?, otto, &PLAN).await?;
    services.chain(1).await?;
    tokio::time::sleep(SETTLE).await;
    let before = processes::processor_times(&services)?;
    let begun = Instant::now();
    tokio::time::sleep(LOOK).await;
    let (after, looked) = (processes::processor_times(&services)?, begun.elapsed());
    let memory = processes::memory(&services)?;
    services.end().await?;
    let share = |name: &str| {
        let spent = after[name].saturating_sub(before.get(name).copied().unwrap_or_default());
        spent.as_secs_f64() / looked.as_secs_f64() * 100.0
    };
    let shares: f64 = after.keys().map(|name| share(name)).sum();
    figures.add("idle, all processes with one agent: share of a core", "1 %", &format!("{shares:.2} %"));
    figures.add("idle: memory (PSS)", "150 MB", &format!("{} MB", memory.values().sum::<u64>() / 1_000_000));
    for (name, bytes) in &memory {
        let measured = format!("{} MB, {:.2} %", bytes / 1_000_000, if after.contains_key(name) { share(name) } else { 0.0 });
        figures.add(&format!("of that, {name}"), "", &measured);
    }
    Ok(())
}
