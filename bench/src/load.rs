//! Many runs at once, and a few that say very much, through the services.
//!
//! Whom stages are given is played by the bench ([`crate::agents`]): this machine could start only some hundred shells a second, and how many stages the
//! services can pass is the question. Beside it stands the same with a real agent, which is a figure of the machine.

use std::{
    fmt::Write as _,
    path::Path,
    pin::pin,
    time::{Duration, Instant},
};

use anyhow::ensure;
use futures_util::{
    StreamExt as _,
    future::{Either, select, try_join_all},
};
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

/// Stages that print at once, and the lines of each.
const PRINTERS: usize = 8;
const LINES: usize = 1_000_000;
/// Bytes of a line with its end: each is another number, so that one that is missing is seen.
const LINE_BYTES: usize = 100;
/// Stages of the run before them, and of each run beside them.
const BESIDE: usize = 200;
const BESIDE_AT_ONCE: usize = 10;

/// The table of `docs/benchmarks.md`.
pub(crate) async fn measure(otto: &Path) -> anyhow::Result<String> {
    let mut figures = Figures::new();
    played(otto, &mut figures).await?;
    let services = Services::start(otto, 1, &[]).await?;
    let rate = at_once(&services, STAGES_REAL).await?;
    services.end().await?;
    figures.add(&format!("the same with one agent and its shells, {STAGES_REAL} stages each"), "", &format!("{rate:.0} stages/s"));
    printing(otto, &mut figures).await?;
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

/// Stages that print very much, and one stage after the other beside them.
async fn printing(otto: &Path, figures: &mut Figures) -> anyhow::Result<()> {
    let slots = (PRINTERS + 2).to_string();
    let services = Services::start(otto, 1, &[("OTTO_AGENT_SLOTS", slots.as_str())]).await?;
    services.chain(20).await?;
    let quiet = services.chain(BESIDE).await?;
    let mut pipeline = String::from("pipeline { parallel {\n");
    for number in 0..PRINTERS {
        writeln!(pipeline, "  stage 'P{number}' {{ steps [ sh 'seq -f %0{}.0f {LINES}' ] }}", LINE_BYTES - 1)?;
    }
    let begun = Instant::now();
    let run = services.create_of(&(pipeline + "} }\n")).await?;
    let mut beside = Samples::default();
    let over = async {
        services.succeeded(&run, LOOK).await?;
        anyhow::Ok(begun.elapsed())
    };
    let took = {
        let mut over = pin!(over);
        loop {
            match select(over.as_mut(), Box::pin(services.chain(BESIDE_AT_ONCE))).await {
                Either::Left((took, _)) => break took?,
                Either::Right((samples, _)) => beside.extend(samples?),
            }
        }
    };
    let mut bytes = 0;
    for number in 0..PRINTERS {
        bytes += all_lines(&services, &run, &format!("P{number}")).await?;
    }
    services.end().await?;
    let what = format!(
        "{PRINTERS} steps that print {LINES} lines of {LINE_BYTES} bytes each at once: lines that the API does not show afterwards"
    );
    figures.add(&what, "0", &format!("0, and {} MB in {:.1} s", bytes / 1_000_000, took.as_secs_f64()));
    let measured = |samples: &Samples| format!("p50 {} ms, p99 {} ms", ms(samples.p50()), ms(samples.p99()));
    figures.add("one more stage of another run meanwhile, first byte to first byte", "p99 100 ms", &measured(&beside));
    figures.add("the same without them", "", &measured(&quiet));
    Ok(())
}

/// Reads what a stage has printed, and sees that no line is missing; how many bytes that were.
async fn all_lines(services: &Services, run: &str, stage: &str) -> anyhow::Result<usize> {
    let mut output = services.get(&format!("/v1/runs/{run}/output?stage={stage}")).await?.bytes_stream();
    let (mut rest, mut lines, mut bytes) = (Vec::new(), 0_usize, 0);
    while let Some(piece) = output.next().await {
        rest.extend_from_slice(&piece?);
        let whole = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        // What is said of the script is no number.
        for line in rest[..whole].split(|byte| *byte == b'\n').filter(|line| line.first().is_some_and(u8::is_ascii_digit)) {
            lines += 1;
            ensure!(line.len() == LINE_BYTES - 1 && str::from_utf8(line)?.parse() == Ok(lines), "line {lines} of {stage} is lost");
            bytes += LINE_BYTES;
        }
        rest.drain(..whole);
    }
    ensure!(lines == LINES && rest.is_empty(), "{lines} of {LINES} lines of {stage} are there");
    Ok(bytes)
}
