//! What the orchestrator tells Prometheus.

use service::metrics::{Counter, Counters, Durations, Exposition};

use crate::{
    Orchestrator,
    core::{Run, Status},
    runs::Appended,
};
use model::{RunOutcome, event::run::RunEvent};

/// What is counted as it happens. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    accepted: Counter,
    ended: Counters,
    /// From a stage's readiness to its award.
    award: Durations,
    /// From a record's being sent to its being stored.
    pub(crate) append: Durations,
    pub(crate) auctions: Counters,
    /// Spans that an endpoint took.
    pub(crate) spans_sent: Counter,
    /// Spans that were made, and that none took.
    pub(crate) spans_dropped: Counter,
}

impl Metrics {
    /// Counts what a record says of a run, which stood so before.
    pub(crate) fn count(&self, before: Option<&Run>, appended: &Appended) {
        for event in &appended.record.events {
            if let RunEvent::RunAccepted { .. } = event {
                self.accepted.inc();
            }
            if let RunEvent::RunFinished { outcome } = event {
                self.ended.get_or_create(&vec![("outcome", word(*outcome))]).inc();
            }
            if let RunEvent::StageAwarded { stage, .. } = event {
                let stood = before.and_then(|run| run.stage(stage)).map(|(_, stage)| &stage.status);
                let since = if let Some(Status::Ready { since, .. }) = stood { *since } else { appended.record.at };
                self.award.took(appended.record.at.since(since));
            }
        }
    }

    /// Counts an auction that came to an end.
    pub(crate) fn auctioned(&self, found: bool) {
        self.auctions.get_or_create(&vec![("result", if found { "offers" } else { "none" })]).inc();
    }
}

fn word(outcome: RunOutcome) -> &'static str {
    match outcome {
        RunOutcome::Skipped => "skipped",
        RunOutcome::Success => "success",
        RunOutcome::Unstable => "unstable",
        RunOutcome::Failure => "failure",
        RunOutcome::Aborted => "aborted",
        RunOutcome::Unknown => "unknown",
    }
}

/// What there is to tell now.
pub(crate) fn text(orchestrator: &Orchestrator) -> String {
    let (runs, metrics) = (&orchestrator.runs, orchestrator.runs.metrics());
    let open = runs.open();
    let stages = open.iter().flat_map(|run| run.active.iter().map(|at| &run.stages[*at].status));
    let (mut queued, mut placed, mut waiting) = (0, 0, 0);
    for status in stages {
        if matches!(status, Status::Ready { .. }) {
            queued += 1;
        } else {
            placed += 1;
        }
    }
    for run in &open {
        waiting += run.held_up.len();
    }
    let mut told = Exposition::new("orchestrator");
    let mut now = |name: &str, help: &str, count: usize| {
        told.gauge(name, help, f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
    };
    now("otto_runs_open", "Runs that have not ended", open.len());
    now("otto_runs_damaged", "Runs that are not run upon, as their log is damaged", runs.damaged());
    now("otto_stages_queued", "Stages that are ready and have no agent", queued);
    now("otto_stages_placed", "Stages that an agent has", placed);
    now("otto_stages_waiting", "Stages that wait for people, the outside, time or a lock", waiting);
    now("otto_bus_connected", "Whether the bus is there", usize::from(orchestrator.bus.is_connected()));
    now("otto_depot_has_room", "Whether the depot's disk has room for new runs", usize::from(orchestrator.admission.has_room()));
    told.counter("otto_runs_accepted", "Runs that have begun since the process started", &metrics.accepted);
    told.counter("otto_runs_ended", "Runs that have ended since the process started", &metrics.ended);
    told.counter("otto_auctions", "Auctions that found offers, and that found none", &metrics.auctions);
    told.counter("otto_log_bytes", "Bytes of output that were heard live", orchestrator.logs.heard());
    told.counter("otto_spans_sent", "Spans of runs that the endpoint of OTLP took", &metrics.spans_sent);
    told.counter("otto_spans_dropped", "Spans of runs that it did not take, or that came too fast for it", &metrics.spans_dropped);
    told.durations("otto_stage_award_seconds", "From a stage's readiness to its award", &metrics.award);
    told.durations("otto_append_seconds", "From a record's being sent to its being stored on the bus", &metrics.append);
    told.text()
}
