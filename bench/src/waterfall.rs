//! Where the time of one more stage goes, from the log lines of the processes themselves: each says when it passed a point.

use std::{fmt::Write as _, fs, path::Path, time::Duration};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::{
    services::Services,
    stats::{Samples, ms},
};

/// Stages of the run that is looked at.
const STAGES: usize = 200;
/// The points from a stage's end to the next one's first byte, in their order: what is logged, and what the time before it went to.
const POINTS: [(&str, &str); 9] = [
    ("step ended", ""),
    ("report heard", "agent to orchestrator: the report, one hop"),
    ("decided", "orchestrator: decide, write the record"),
    ("stored", "bus: one append, synced to disk"),
    ("assigned", "orchestrator: fold, show, and say it"),
    ("assignment heard", "orchestrator to agent: the assignment, one hop"),
    ("step started", "agent: work directory, spool, environment"),
    ("first byte", "the shell: from its start to its first byte"),
    ("output heard", "agent to orchestrator: the output, one hop"),
];

/// A process passed a point.
#[derive(Debug)]
struct Passed {
    at_us: u64,
    point: String,
}

pub(crate) async fn measure(otto: &Path) -> anyhow::Result<String> {
    let environment = [("OTTO_LOG", "warn,waterfall=trace"), ("OTTO_LOG_FORMAT", "json")];
    let services = Services::start(otto, 1, &environment).await?;
    services.chain(STAGES).await?;
    let passed = read(&services.data().join("logs"))?;
    services.end().await?;
    table(&passed)
}

fn read(folder: &Path) -> anyhow::Result<Vec<Passed>> {
    let mut passed = Vec::new();
    for entry in fs::read_dir(folder)? {
        let text = fs::read_to_string(entry?.path())?;
        passed.extend(text.lines().filter_map(line));
    }
    passed.sort_by_key(|passed| passed.at_us);
    Ok(passed)
}

fn line(text: &str) -> Option<Passed> {
    let value: Value = serde_json::from_str(text.get(text.find('{')?..)?).ok()?;
    let fields = &value["fields"];
    let of_a_step = fields["stream"] != "Otto" && (fields["report"].is_null() || fields["report"] == "Finished");
    let point = fields["point"].as_str().filter(|_| value["target"] == "waterfall" && of_a_step)?.to_owned();
    Some(Passed { at_us: micros(value["timestamp"].as_str()?)?, point })
}

/// Microseconds since midnight of `…T12:34:56.789012Z`.
fn micros(timestamp: &str) -> Option<u64> {
    let (_, time) = timestamp.trim_end_matches('Z').split_once('T')?;
    let (whole, fraction) = time.split_once('.')?;
    let seconds = whole.split(':').try_fold(0, |sum, part| Some(sum * 60 + part.parse::<u64>().ok()?))?;
    let fraction: u64 = format!("{fraction:0<6}").get(..6)?.parse().ok()?;
    Some(seconds * 1_000_000 + fraction)
}

fn table(passed: &[Passed]) -> anyhow::Result<String> {
    let mut spent: Vec<Samples> = POINTS.iter().map(|_| Samples::default()).collect();
    for (start, _) in passed.iter().enumerate().filter(|(_, passed)| passed.point == POINTS[0].0) {
        let mut rest = &passed[start..];
        let mut times = Vec::new();
        for (point, _) in POINTS {
            let Some(next) = rest.iter().position(|passed| passed.point == point) else { break };
            rest = &rest[next..];
            times.push(rest[0].at_us);
        }
        if times.len() == POINTS.len() {
            for (at, pair) in times.windows(2).enumerate() {
                spent[at + 1].push(Duration::from_micros(pair[1] - pair[0]));
            }
        }
    }
    let total: Duration = spent.iter().map(Samples::p50).sum();
    ensure!(total > Duration::ZERO, "the processes did not say when they passed which point");
    let mut text = String::from("| from a stage's end to the next one's first byte | p50 ms | p95 ms | |\n|---|---:|---:|---|\n");
    for (samples, (_, what)) in spent.iter().zip(POINTS).skip(1) {
        let bar = "█".repeat(usize::try_from(samples.p50().as_micros() / 50).context("a short time")?);
        writeln!(text, "| {what} | {} | {} | {bar} |", ms(samples.p50()), ms(samples.percentile(0.95)))?;
    }
    writeln!(text, "| together | {} | | |", ms(total))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_between_two_points_is_read_off_their_log_lines() {
        let text =
            r#"agent-1 | {"timestamp":"2026-01-01T00:00:01.000250Z","level":"TRACE","fields":{"point":"step ended"},"target":"waterfall"}"#;
        let passed = line(text).unwrap();
        assert_eq!((passed.at_us, passed.point.as_str()), (1_000_250, "step ended"));
        assert!(line("ready").is_none());
    }
}
