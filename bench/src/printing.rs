//! A few stages that say very much, and those of another run beside them, through the services.

use std::{
    fmt::Write as _,
    path::Path,
    pin::pin,
    time::{Duration, Instant},
};

use anyhow::ensure;
use futures_util::{
    StreamExt as _,
    future::{Either, select},
};

use crate::{
    services::Services,
    stats::{Figures, Samples, ms},
};

/// Between two looks whether those that print have ended.
const LOOK: Duration = Duration::from_millis(50);
/// Stages that print at once, and the lines of each.
const PRINTERS: usize = 8;
const LINES: usize = 1_000_000;
/// Bytes of a line with its end: each is another number, so that one that is missing is seen.
const LINE_BYTES: usize = 100;
/// Stages of the run before them, and of each run beside them.
const BESIDE: usize = 200;
const BESIDE_AT_ONCE: usize = 10;

/// The table of `docs/benchmarks.md`: stages that print very much, and one stage after the other beside them.
pub(crate) async fn measure(otto: &Path) -> anyhow::Result<String> {
    let mut figures = Figures::new();
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
    Ok(figures.to_string())
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
