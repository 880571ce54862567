//! Percentiles, and how they are printed.

use std::{
    fmt::{self, Write as _},
    time::Duration,
};

/// Durations of one thing, measured many times.
#[derive(Debug, Default)]
pub(crate) struct Samples(Vec<Duration>);

/// One line of the table.
#[derive(Debug)]
pub(crate) struct Row {
    what: String,
    count: usize,
    p50: Duration,
    p99: Duration,
    over: Option<Duration>,
}

impl Samples {
    pub(crate) fn push(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    /// The value below which the share of samples lies (nearest rank); zero without a sample.
    pub(crate) fn percentile(&self, share: f64) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a rank among some thousands"
        )]
        let rank = (sorted.len() as f64 * share).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }

    pub(crate) fn p50(&self) -> Duration {
        self.percentile(0.50)
    }

    pub(crate) fn p99(&self) -> Duration {
        self.percentile(0.99)
    }

    /// Adds those of another look at the same thing.
    pub(crate) fn extend(&mut self, more: Self) {
        self.0.extend(more.0);
    }

    /// A line of the table; `baseline` is what the bare processes took for the same work.
    pub(crate) fn row(&self, what: &str, baseline: Option<Duration>) -> Row {
        let p50 = self.p50();
        let over = baseline.map(|baseline| p50.saturating_sub(baseline));
        Row { what: what.to_owned(), count: self.0.len(), p50, p99: self.p99(), over }
    }
}

impl FromIterator<Duration> for Samples {
    fn from_iter<I: IntoIterator<Item = Duration>>(samples: I) -> Self {
        Self(samples.into_iter().collect())
    }
}

impl Row {
    /// As Markdown.
    pub(crate) fn table(rows: &[Self]) -> String {
        let mut text = String::from("| what | samples | p50 ms | p99 ms | p50 over the bare processes, ms |\n|---|---:|---:|---:|---:|\n");
        for row in rows {
            let over = row.over.map_or_else(|| "—".to_owned(), ms);
            writeln!(text, "| {} | {} | {} | {} | {over} |", row.what, row.count, ms(row.p50), ms(row.p99))
                .expect("a string takes everything");
        }
        text
    }
}

/// What was measured beside what is wanted, as Markdown.
#[derive(Debug)]
pub(crate) struct Figures(String);

impl Figures {
    pub(crate) fn new() -> Self {
        Self("| what | goal | measured |\n|---|---:|---:|\n".to_owned())
    }

    pub(crate) fn add(&mut self, what: &str, goal: &str, measured: &str) {
        writeln!(self.0, "| {what} | {goal} | {measured} |").expect("a string takes everything");
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Milliseconds with two digits.
pub(crate) fn ms(duration: Duration) -> String {
    format!("{:.2}", duration.as_secs_f64() * 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let samples: Samples = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(samples.p50(), Duration::from_millis(50));
        assert_eq!(samples.percentile(0.99), Duration::from_millis(99));
        assert_eq!(Samples::default().p50(), Duration::ZERO);
    }
}
