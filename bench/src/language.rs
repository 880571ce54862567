//! How fast sources are read, planned and explained, within this process and beside a parser of JSON that reads as many bytes.
//!
//! It is computing alone, in one thread, so the processor's time is taken: what else runs on the machine does not count.

use std::{fmt::Write as _, hint::black_box, time::Duration};

use anyhow::{bail, ensure};
use model::{context::TriggerContext, manifest::StepLibrary, plan::PlanDocument, planning::LOCK_FILE};
use nix::time::{ClockId, clock_gettime};
use parser::{
    PlanInput, Planning, explain, limits,
    syntax::{self, Reading},
};
use serde_json::Value;

use crate::stats::{Samples, ms};

/// How often each is done.
const TIMES: usize = 41;
/// Stages of the source whose reading is timed: as many as fit below the limit of a file, ten times over.
const READ_STAGES: usize = 180;
/// Stages of the plan: a tenth of the most that a plan may have.
const PLAN_STAGES: usize = limits::STAGES_MAX / 10;

/// The table of `docs/benchmarks.md`.
pub(crate) fn measure() -> anyhow::Result<String> {
    let (small, large) = (typical(READ_STAGES), typical(READ_STAGES * 10));
    let json = json_of(large.len());
    let read_json = timed(|| {
        drop(black_box(serde_json::from_str::<Value>(&json)?));
        Ok(())
    })?;
    let (read_small, read_large) = (timed(|| ten(|| read(&small)))?, timed(|| read(&large).map(drop))?);
    let names = format!("pipeline {{ {} }}", "a ".repeat(limits::SOURCE_BYTES_MAX / 2 - 16));
    let read_names = timed(|| read(&names).map(drop))?;
    let libraries = [stdlib::library()];
    let (few, many) = (short(PLAN_STAGES), short(PLAN_STAGES * 10));
    let plan_few = timed(|| ten(|| planned(&few, &libraries)))?;
    let plan_many = timed(|| planned(&many, &libraries).map(drop))?;

    let speed = |bytes: usize, samples: &Samples| {
        #[expect(clippy::cast_precision_loss, reason = "a megabyte")]
        let bytes = bytes as f64;
        bytes / samples.p50().as_secs_f64() / 1e6
    };
    let ratio = |large: &Samples, small: &Samples| 10.0 * large.p50().as_secs_f64() / small.p50().as_secs_f64();
    let mut text = String::from("| what | goal | measured, p50 | p99 ms |\n|---|---:|---:|---:|\n");
    let mut row = |what: &str, goal: &str, measured: String, samples: &Samples| {
        writeln!(text, "| {what} | {goal} | {measured} | {} |", ms(samples.percentile(0.99))).expect("a string takes everything");
    };
    row("`serde_json` reads as many bytes of JSON", "", format!("{:.1} MB/s", speed(json.len(), &read_json)), &read_json);
    let what = format!("{} KB of source read into a syntax tree", large.len() / 1_000);
    row(&what, "20 MB/s", format!("{:.1} MB/s", speed(large.len(), &read_large)), &read_large);
    row("the same against a tenth of it, ten times and kept", "11 ×", format!("{:.1} ×", ratio(&read_large, &read_small)), &read_small);
    row("1 MiB of half a million names", "1,000 ms", format!("{} ms", ms(read_names.p50())), &read_names);
    let what = format!("{} stages planned and explained", PLAN_STAGES * 10);
    row(&what, "250 ms", format!("{} ms", ms(plan_many.p50())), &plan_many);
    row("the same against a tenth of it, ten times and kept", "11 ×", format!("{:.1} ×", ratio(&plan_many, &plan_few)), &plan_few);
    Ok(text)
}

/// Does it once unmeasured, then [`TIMES`] times.
fn timed(mut work: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Samples> {
    work()?;
    let mut samples = Samples::default();
    for _ in 0..TIMES {
        let begun = processor_time()?;
        work()?;
        samples.push(processor_time()?.saturating_sub(begun));
    }
    Ok(samples)
}

/// Does it ten times and keeps what comes of it: as much memory as what is ten times as large takes, so that the two differ in nothing
/// else.
fn ten<T>(work: impl Fn() -> anyhow::Result<T>) -> anyhow::Result<()> {
    let kept: Vec<T> = (0..10).map(|_| work()).collect::<Result<_, _>>()?;
    drop(black_box(kept));
    Ok(())
}

/// What this thread has had of a processor so far.
fn processor_time() -> anyhow::Result<Duration> {
    Ok(Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?))
}

fn read(source: &str) -> anyhow::Result<Reading> {
    let reading = syntax::read("Ottofile", source.as_bytes());
    ensure!(reading.diagnostics.is_empty(), "{:?}", reading.diagnostics.first());
    Ok(black_box(reading))
}

fn planned(source: &str, libraries: &[StepLibrary]) -> anyhow::Result<(PlanDocument, String)> {
    let input = PlanInput {
        path: "Ottofile",
        source: source.as_bytes(),
        context: &TriggerContext::default(),
        files: &[(LOCK_FILE.to_owned(), None)].into(),
        listing: None,
        changed: None,
        libraries,
    };
    let (document, notes) = match parser::plan(&input) {
        Planning::Plan { document, notes, .. } => (document, notes),
        Planning::Refused(diagnostics) => bail!("{:?}", diagnostics.first()),
        Planning::Needs(needs) => bail!("{needs:?}"),
    };
    let explained = explain::Explained { notes: Some(&notes), ..explain::Explained::new("Ottofile", &document) };
    let text = explain::explain(&explained);
    Ok((document, text))
}

/// A source as people write them: comments, blanks, settings, steps, strings of all kinds; 500 bytes a stage.
fn typical(stages: usize) -> String {
    let mut text = String::from("// The build of a repository with many components.\nuse stdlib\npipeline {\n  timeout = 30m\n");
    for stage in 0..stages {
        write!(
            text,
            "  // Builds and tests the component {stage}, whose sources lie in a folder of its own.
  stage 'Component {stage}' {{
    timeout = 20m
    env {{
      COMPONENT = 'component-{stage}'
      PROFILE = \"release\" // never debug
    }}
    /* Both steps
       need the tools. */
    steps {{
      echo 'building the component {stage}'
      sh \"\"\"
        set -eu
        cargo build --release --package component-{stage}
      \"\"\"
      sh script: 'make test COMPONENT={stage}', label: 'unit tests'
    }}
  }}

"
        )
        .expect("a string takes everything");
    }
    text + "}\n"
}

/// So little for each stage that a file can have as many as a plan; as many bytes for each, so that ten times the stages are ten times the
/// input.
fn short(stages: usize) -> String {
    let mut text = String::from("pipeline {\n");
    for stage in 0..stages {
        writeln!(text, "  stage 'Component {stage:04}' {{\n    timeout = 20m\n    env {{ C = '{stage:04}' }}\n    steps {{ echo 'building' sh 'make -C {stage:04}' }}\n  }}")
            .expect("a string takes everything");
    }
    text + "}\n"
}

/// JSON of about as many bytes, with what a tree of the source would have.
fn json_of(bytes: usize) -> String {
    let mut text = String::from("[\n");
    for stage in 0.. {
        if text.len() >= bytes {
            break;
        }
        writeln!(
            text,
            "  {{\n    \"stage\": \"Component {stage}\",\n    \"timeout\": 1200000,\n    \"env\": {{ \"COMPONENT\": \"component-{stage}\" }},\n    \"steps\": [\n      {{ \"echo\": \"building the component {stage}\" }},\n      {{ \"sh\": \"set -eu\\ncargo build --release --package component-{stage}\\n\" }}\n    ]\n  }},"
        )
        .expect("a string takes everything");
    }
    text + "  null\n]\n"
}
