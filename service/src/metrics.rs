//! What a process tells Prometheus.
//!
//! What is counted as it happens lies in the counters and histograms of this module, whose clones are the same; what is there now is put down when it is
//! asked for. Names begin with `otto_`, and have their unit at the end.

use std::{fs, sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter, family, gauge::Gauge, histogram},
    registry::{Metric, Registry},
};

/// The type of [`Exposition::text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Half a millisecond to 16 s: from a write to a disk of its own to a stage that waits for people to go home.
const BUCKETS_S: [f64; 16] =
    [0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384];
/// What Linux counts a process's time by, in each second.
const TICKS_PER_S: f64 = 100.0;
/// The bytes of a page of memory.
const PAGE_BYTES: f64 = 4096.0;

/// Counts what happens.
pub type Counter = counter::Counter;
/// Counts what happens, apart by one word.
pub type Counters = family::Family<Vec<(&'static str, &'static str)>, Counter>;

/// How long something takes.
#[derive(Debug, Clone)]
pub struct Durations(histogram::Histogram);

impl Default for Durations {
    fn default() -> Self {
        Self(histogram::Histogram::new(BUCKETS_S))
    }
}

impl Durations {
    /// It took so long.
    pub fn took(&self, duration: Duration) {
        self.0.observe(duration.as_secs_f64());
    }
}

/// One answer to Prometheus.
#[derive(Debug)]
pub struct Exposition(Registry);

impl Exposition {
    /// What every process tells of itself.
    pub fn new(role: &'static str) -> Self {
        let mut exposition = Self(Registry::default());
        let build = family::Family::<Vec<(&'static str, &'static str)>, Gauge>::default();
        build.get_or_create(&vec![("role", role), ("version", env!("CARGO_PKG_VERSION"))]).set(1);
        exposition.0.register("otto_build_info", "The role of the process, and the version of Otto", build);
        if let Some(memory) = resident_bytes() {
            exposition.gauge("process_resident_memory_bytes", "Memory that the process has", memory);
        }
        if let Some(time) = cpu_seconds() {
            let had = counter::Counter::<f64, AtomicU64>::default();
            had.inc_by(time);
            exposition.counter("process_cpu_seconds", "Time of processors that the process has had", &had);
        }
        exposition
    }

    /// What is there now.
    pub fn gauge(&mut self, name: &str, help: &str, value: f64) {
        let gauge = Gauge::<f64, AtomicU64>::default();
        gauge.set(value);
        self.0.register(name, help, gauge);
    }

    /// What was counted. To its name, `_total` is added.
    pub fn counter(&mut self, name: &str, help: &str, counter: &(impl Metric + Clone)) {
        self.0.register(name, help, counter.clone());
    }

    /// How long something took.
    pub fn durations(&mut self, name: &str, help: &str, durations: &Durations) {
        self.0.register(name, help, durations.0.clone());
    }

    /// The text for Prometheus.
    pub fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.0).expect("a string takes everything");
        text
    }
}

#[expect(clippy::cast_precision_loss, reason = "a number of pages is exact in a float")]
fn resident_bytes() -> Option<f64> {
    let pages: u64 = fs::read_to_string("/proc/self/statm").ok()?.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages as f64 * PAGE_BYTES)
}

#[expect(clippy::cast_precision_loss, reason = "a number of ticks is exact in a float")]
fn cpu_seconds() -> Option<f64> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program stands in parentheses and may have any characters.
    let (_, fields) = text.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11).map(|field| field.parse::<u64>().ok());
    let ticks = fields.next()?? + fields.next()??;
    Some(ticks as f64 / TICKS_PER_S)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_what_was_counted() {
        let (counters, durations) = (Counters::default(), Durations::default());
        counters.get_or_create(&vec![("outcome", "success")]).inc();
        durations.took(Duration::from_millis(3));
        let mut exposition = Exposition::new("test");
        exposition.counter("otto_things", "Things", &counters);
        exposition.durations("otto_wait_seconds", "Waits", &durations);
        exposition.gauge("otto_now", "Now", 2.0);
        let text = exposition.text();
        for line in [
            "otto_things_total{outcome=\"success\"} 1",
            "otto_wait_seconds_bucket{le=\"0.004\"} 1",
            "otto_wait_seconds_count 1",
            "otto_now 2.0",
            "# EOF",
        ] {
            assert!(text.contains(line), "{line} is missing in {text}");
        }
        assert!(text.contains("process_resident_memory_bytes") && text.contains("process_cpu_seconds_total"), "{text}");
    }
}
