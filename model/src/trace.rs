//! The ids of traces (OpenTelemetry): derived from what they are of, so that whoever speaks of the same run, attempt or step, before a restart or
//! after it, on whatever machine, names the same span.

use std::fmt;

use data_encoding::HEXLOWER;

use crate::{AttemptId, Digest, RunId};

/// The variable in which the W3C's context is handed to processes.
pub const TRACEPARENT: &str = "TRACEPARENT";

/// The trace of a run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TraceId([u8; 16]);

/// A span of a run's trace.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SpanId([u8; 8]);

impl TraceId {
    /// The trace of this run.
    pub fn of(run: &RunId) -> Self {
        Self(first(&["trace", run.as_str()]))
    }
}

impl SpanId {
    /// The span of this part of the run: parts that are called otherwise have other spans.
    pub fn of(run: &RunId, part: &str) -> Self {
        Self(first(&["span", run.as_str(), part]))
    }

    /// The span of the run itself.
    pub fn of_run(run: &RunId) -> Self {
        Self::of(run, "run")
    }

    /// The span of an attempt of a stage.
    pub fn of_attempt(attempt: &AttemptId) -> Self {
        Self::of(&attempt.run, &format!("attempt {attempt}"))
    }

    /// The span of a step of an attempt, by its number from 0.
    pub fn of_step(attempt: &AttemptId, step: u32) -> Self {
        Self::of(&attempt.run, &format!("step {attempt}/{step}"))
    }
}

/// What a process of a step finds as [`TRACEPARENT`]: its step is the parent, and it is recorded.
pub fn traceparent(attempt: &AttemptId, step: u32) -> String {
    format!("00-{}-{}-01", TraceId::of(&attempt.run), SpanId::of_step(attempt, step))
}

/// The first bytes of a SHA-256; never all zero but by an accident that nobody sees.
fn first<const N: usize>(parts: &[&str]) -> [u8; N] {
    // None of the parts has a line feed.
    let digest = Digest::of(parts.join("\n").as_bytes());
    *digest.bytes().first_chunk().expect("a SHA-256 has 32 bytes")
}

macro_rules! shown {
    ($type:ident) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

shown!(TraceId);
shown!(SpanId);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{StageId, TriggerId};

    #[test]
    fn the_context_of_a_step_is_the_same_wherever_it_is_made() {
        let run = RunId::of(&TriggerId::of("test", "1"));
        let attempt = AttemptId { run: run.clone(), stage: StageId::of("Build"), attempt: 1 };
        let context = traceparent(&attempt, 3);
        let parts: Vec<&str> = context.split('-').collect();
        assert_eq!(parts, ["00", &TraceId::of(&run).to_string(), &SpanId::of_step(&attempt, 3).to_string(), "01"]);
        assert_eq!((parts[1].len(), parts[2].len()), (32, 16));
        assert_eq!(context, "00-4fb4e6374756f173b96099036e1f4d4b-267984246ad9964b-01", "ids that were sent are not changed by an update");
        let spans = [SpanId::of_run(&run), SpanId::of_attempt(&attempt), SpanId::of_step(&attempt, 0), SpanId::of_step(&attempt, 1)];
        for (at, span) in spans.iter().enumerate() {
            assert!(spans[at + 1..].iter().all(|other| other != span));
        }
    }
}
