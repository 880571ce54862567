//! A run as it happens, for people: a line for each line of output, with its stage before it, and lines for what happens to stages.
//!
//! ```text
//! Build ▶ on a1
//! Build │ cc -o hello hello.c
//! Build ✔ success in 1.20 s
//! ```
//!
//! It prints what it is told and asks nobody, so that the same lines come from a run in this process and from one behind the API. What it is
//! told may come in slightly another order than it happened: output and events travel apart. A stage's end breaks no line of its output.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use anstyle::{AnsiColor, Style};
use apispec::{ChunkView, EventView, GapReason, GapView, StageView};
use model::{
    AgentName, RunOutcome, StageId, StageOutcome, Timestamp,
    diagnostic::Diagnostic,
    event::run::Planned,
    protocol::log::{LogChunk, Stream},
};

use super::{
    text::{self, printable, shown},
    words,
};

/// The longest line that is gathered before it is printed; output without line breaks is cut here.
const LINE_BYTES_MAX: usize = 16 * 1024;
/// The most output of one stage that waits for the word who has it. The award is stored before the agent hears of it, so the word is
/// on its way already.
const HELD_BYTES_MAX: usize = 256 * 1024;
/// What the agent puts before its own lines, for readers of the plain text.
const OTTO_PREFIX: &str = "[otto] ";
/// Columns that a stage's path may take before every line; a longer one is cut at its beginning, as its end says more.
const PATH_COLUMNS_MAX: usize = 32;
/// The colours by which neighbouring stages are told apart.
const COLOURS: [AnsiColor; 6] =
    [AnsiColor::Cyan, AnsiColor::Yellow, AnsiColor::Magenta, AnsiColor::Blue, AnsiColor::BrightCyan, AnsiColor::BrightMagenta];

/// Output of an attempt, wherever it came from.
#[derive(Debug, Clone, Copy)]
pub struct Output<'a> {
    /// The stage.
    pub stage: &'a StageId,
    /// The attempt, from 1.
    pub attempt: u32,
    /// The sequence of the award.
    pub fence: u64,
    /// Where it was written to.
    pub stream: Stream,
    /// Bytes of the attempt's output before it.
    pub offset: u64,
    /// The bytes.
    pub bytes: &'a [u8],
}

impl<'a> From<&'a ChunkView> for Output<'a> {
    fn from(chunk: &'a ChunkView) -> Self {
        let ChunkView { stage, attempt, fence, stream, offset, bytes, .. } = chunk;
        Self { stage, attempt: *attempt, fence: *fence, stream: *stream, offset: *offset, bytes: &bytes.0 }
    }
}

impl<'a> From<&'a LogChunk> for Output<'a> {
    fn from(chunk: &'a LogChunk) -> Self {
        let lease = &chunk.header.lease;
        Self {
            stage: &lease.attempt.stage,
            attempt: lease.attempt.attempt,
            fence: lease.fence,
            stream: chunk.header.mark.stream,
            offset: chunk.header.mark.offset,
            bytes: &chunk.bytes,
        }
    }
}

/// Prints a run as it happens.
#[derive(Debug)]
pub struct Follow<W> {
    out: W,
    colour: bool,
    /// No events are told, so output waits for none.
    output_only: bool,
    /// The warnings of the pipeline file were told before.
    warnings_known: bool,
    stages: BTreeMap<StageId, Followed>,
    columns: usize,
    accepted_at: Option<Timestamp>,
    outcome: Option<RunOutcome>,
    /// Lines that have not ended: one for each stream of an attempt that is writing.
    open: Vec<OpenLine>,
}

#[derive(Debug)]
struct OpenLine {
    stage: StageId,
    fence: u64,
    stream: Stream,
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct Followed {
    path: String,
    style: Style,
    /// The newest award: its attempt, and who won.
    awarded: Option<(u32, AgentName)>,
    /// The attempt whose begin was printed last.
    begun: Option<u32>,
    /// Output of an attempt whose award has not been told.
    held: Vec<Held>,
    /// The last attempt whose output was printed, and up to which byte.
    printed: (u32, u64),
    /// The last attempt whose output is known to be whole, and how long it is.
    stored: Option<(u32, u64)>,
    /// The end of an attempt whose output is still coming.
    ended: Option<Ended>,
}

#[derive(Debug)]
struct Ended {
    attempt: u32,
    outcome: StageOutcome,
    reason: Option<String>,
    ran: Option<(Timestamp, Timestamp)>,
    /// What happened to the stage since; it is told behind its end.
    then: Vec<Marked>,
}

/// A line about a stage.
#[derive(Debug)]
struct Marked {
    sign: char,
    colour: AnsiColor,
    what: String,
}

#[derive(Debug)]
struct Held {
    attempt: u32,
    fence: u64,
    stream: Stream,
    offset: u64,
    bytes: Vec<u8>,
}

impl<W: Write> Follow<W> {
    /// Prints to `out`, in colours where `colour` says so. Stages are known once [`Follow::know`] has named them.
    pub fn new(out: W, colour: bool) -> Self {
        Self {
            out,
            colour,
            output_only: false,
            warnings_known: false,
            stages: BTreeMap::new(),
            columns: 0,
            accepted_at: None,
            outcome: None,
            open: Vec::new(),
        }
    }

    /// Leaves out the warnings of the pipeline file: whoever planned it was told.
    #[must_use]
    pub fn knowing_warnings(mut self) -> Self {
        self.warnings_known = true;
        self
    }

    /// Prints output at once, as no events will be told.
    #[must_use]
    pub fn output_only(mut self) -> Self {
        self.output_only = true;
        self
    }

    /// Names stages: their ids and paths, in the order of the plan.
    pub fn know(&mut self, stages: impl IntoIterator<Item = (StageId, String)>) {
        for (id, path) in stages {
            self.columns = self.columns.max(path.chars().count().min(PATH_COLUMNS_MAX));
            let style = COLOURS[self.stages.len() % COLOURS.len()].on_default();
            let path = printable(&path, false);
            let followed =
                Followed { path, style, awarded: None, begun: None, held: Vec::new(), printed: (0, 0), stored: None, ended: None };
            self.stages.insert(id, followed);
        }
    }

    /// Names the stages of a run as the API shows them.
    pub fn know_views(&mut self, stages: &[StageView]) {
        self.know(stages.iter().map(|stage| (stage.id.clone(), stage.path.clone())));
    }

    /// Prints a line of the command's own.
    pub fn say(&mut self, what: &str) -> io::Result<()> {
        self.line(what, AnsiColor::BrightBlack)
    }

    /// Prints where the webhook is called that a stage waits for.
    pub fn called_at(&mut self, stage: &StageId, url: &str) -> io::Result<()> {
        self.mark(stage, '?', AnsiColor::Cyan, &format!("call it with POST {url}"))
    }

    /// How the run ended, once that was told.
    pub fn outcome(&self) -> Option<RunOutcome> {
        self.outcome
    }

    /// Prints an event of the API.
    pub fn event_view(&mut self, event: &EventView) -> io::Result<()> {
        self.event(&event.event, event.at)
    }

    /// Prints output.
    pub fn output<'a>(&mut self, output: impl Into<Output<'a>>) -> io::Result<()> {
        let output = output.into();
        if self.must_wait(&output) {
            let followed = self.stages.get_mut(output.stage).expect("only output of a known stage waits");
            let Output { attempt, fence, stream, offset, bytes, .. } = output;
            followed.held.push(Held { attempt, fence, stream, offset, bytes: bytes.to_vec() });
            let held: usize = followed.held.iter().map(|held| held.bytes.len()).sum();
            return if held > HELD_BYTES_MAX { self.release(output.stage) } else { Ok(()) };
        }
        self.print(output)
    }

    /// Whether it has not been told who runs this.
    fn must_wait(&self, output: &Output<'_>) -> bool {
        let told = |followed: &Followed| followed.awarded.as_ref().is_some_and(|(attempt, _)| *attempt >= output.attempt);
        !self.output_only && self.stages.get(output.stage).is_some_and(|followed| !told(followed))
    }

    /// Prints the output that waited.
    fn release(&mut self, stage: &StageId) -> io::Result<()> {
        let held = self.stages.get_mut(stage).map(|followed| std::mem::take(&mut followed.held)).unwrap_or_default();
        held.iter().try_for_each(|held| {
            let Held { attempt, fence, stream, offset, bytes } = held;
            self.print(Output { stage, attempt: *attempt, fence: *fence, stream: *stream, offset: *offset, bytes })
        })
    }

    fn print(&mut self, output: Output<'_>) -> io::Result<()> {
        self.begin(output.stage, output.attempt)?;
        let is_same = |line: &OpenLine| line.stage == *output.stage && line.fence == output.fence && line.stream == output.stream;
        let mut open = self.open.iter().position(is_same).map(|at| self.open.swap_remove(at).bytes).unwrap_or_default();
        for piece in output.bytes.split_inclusive(|byte| *byte == b'\n') {
            if open.is_empty() && piece.ends_with(b"\n") {
                self.output_line(output.stage, output.stream, piece)?;
                continue;
            }
            open.extend_from_slice(piece);
            if open.last() == Some(&b'\n') || open.len() >= LINE_BYTES_MAX {
                self.output_line(output.stage, output.stream, &std::mem::take(&mut open))?;
            }
        }
        if !open.is_empty() {
            self.open.push(OpenLine { stage: output.stage.clone(), fence: output.fence, stream: output.stream, bytes: open });
        }
        self.printed_up_to(output.stage, output.attempt, output.offset + output.bytes.len() as u64)?;
        self.out.flush()
    }

    fn printed_up_to(&mut self, stage: &StageId, attempt: u32, end: u64) -> io::Result<()> {
        if let Some(followed) = self.stages.get_mut(stage) {
            followed.printed = (attempt, end);
        }
        self.end_if_whole(stage)
    }

    fn stored(&mut self, stage: &StageId, attempt: u32, length: u64) -> io::Result<()> {
        if let Some(followed) = self.stages.get_mut(stage) {
            followed.stored = Some((attempt, length));
        }
        self.end_if_whole(stage)
    }

    /// Where a line is open, the rest of it may still come: output that is too much to be told live comes from the depot.
    fn ended(&mut self, stage: &StageId, ended: Ended) -> io::Result<()> {
        let is_open = self.open.iter().any(|line| line.stage == *stage);
        match self.stages.get_mut(stage) {
            Some(followed) if is_open => followed.ended = Some(ended),
            Some(_) | None => return self.finished(stage, &ended),
        }
        self.end_if_whole(stage)
    }

    /// Prints the stage's end, if all its output was printed.
    fn end_if_whole(&mut self, stage: &StageId) -> io::Result<()> {
        let is_whole = self.stages.get(stage).is_some_and(|followed| {
            let Followed { printed, stored: Some((attempt, length)), ended: Some(ended), .. } = followed else { return false };
            let all = *length == 0 || (printed.0 == ended.attempt && printed.1 >= *length);
            *attempt == ended.attempt && all
        });
        if is_whole { self.end(stage) } else { Ok(()) }
    }

    /// Prints the stage's end, if it has ended.
    fn end(&mut self, stage: &StageId) -> io::Result<()> {
        let ended = self.stages.get_mut(stage).and_then(|followed| followed.ended.take());
        ended.map_or(Ok(()), |ended| self.finished(stage, &ended))
    }

    /// Prints the ends of all stages that have ended, and what has no line end.
    fn end_all(&mut self) -> io::Result<()> {
        let stages: Vec<StageId> = self.stages.keys().cloned().collect();
        stages.iter().try_for_each(|stage| self.end(stage))?;
        self.close_all_lines()
    }

    /// Prints that output is missing.
    pub fn gap(&mut self, gap: &GapView) -> io::Result<()> {
        self.close_lines(&gap.stage)?;
        let what = match gap.to {
            Some(to) => format!("{} bytes of output are missing here", to.saturating_sub(gap.from)),
            None => "output may be missing from here".to_owned(),
        };
        let why = match gap.reason {
            GapReason::NotKept => "not kept; `otto log` has the whole once it is stored",
            GapReason::NeverStored => "never stored",
            GapReason::DepotUnavailable => "the depot does not give it now",
        };
        self.mark(&gap.stage, '⋯', AnsiColor::Yellow, &format!("{what} ({why})"))?;
        self.printed_up_to(&gap.stage, gap.attempt, gap.to.unwrap_or(u64::MAX))
    }

    /// Prints what has no line end yet. Call it when nothing more comes.
    pub fn finish(&mut self) -> io::Result<()> {
        let stages: Vec<StageId> = self.stages.keys().cloned().collect();
        stages.iter().try_for_each(|stage| self.release(stage))?;
        self.end_all()?;
        self.out.flush()
    }

    /// `source` is the pipeline file at `path`; of others only the place is shown.
    fn accepted(&mut self, planned: &Planned, path: &str, source: &[u8]) -> io::Result<()> {
        match planned {
            Planned::Plan { digest, warnings, warnings_left_out, .. } => {
                if !self.warnings_known {
                    self.diagnostics(warnings, path, source)?;
                    if *warnings_left_out > 0 {
                        self.line(&words::more_warnings(*warnings_left_out), AnsiColor::Yellow)?;
                    }
                }
                self.line(&format!("plan: {digest}"), AnsiColor::BrightBlack)
            }
            Planned::Refused { diagnostics } => self.diagnostics(diagnostics, path, source),
            Planned::NotTriggered { reason } => self.line(&format!("not started: {}", printable(reason, false)), AnsiColor::BrightBlack),
        }
    }

    fn diagnostics(&mut self, diagnostics: &[Diagnostic], path: &str, source: &[u8]) -> io::Result<()> {
        diagnostics.iter().try_for_each(|diagnostic| {
            let source = if diagnostic.file == path { source } else { &[] };
            writeln!(self.out, "{}\n", parser::render(diagnostic, source, self.colour))?;
            self.out.flush()
        })
    }

    fn begin(&mut self, stage: &StageId, attempt: u32) -> io::Result<()> {
        let Some(followed) = self.stages.get_mut(stage).filter(|followed| followed.begun != Some(attempt)) else { return Ok(()) };
        followed.begun = Some(attempt);
        let on = followed.awarded.as_ref().map(|(_, agent)| format!("on {agent}")).unwrap_or_default();
        self.mark(stage, '▶', AnsiColor::BrightBlack, &on)
    }

    fn finished(&mut self, stage: &StageId, ended: &Ended) -> io::Result<()> {
        let Ended { outcome, reason, ran, .. } = ended;
        self.close_lines(stage)?;
        let took = ran.map(|(started, finished)| format!(" in {}", text::duration(finished.since(started)))).unwrap_or_default();
        let why = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let (sign, colour) = match outcome {
            StageOutcome::Success => ('✔', AnsiColor::Green),
            StageOutcome::Unstable => ('!', AnsiColor::Yellow),
            StageOutcome::Failure => ('✘', AnsiColor::Red),
            StageOutcome::Aborted => ('■', AnsiColor::Yellow),
        };
        self.mark(stage, sign, colour, &format!("{outcome}{took}{why}"))?;
        ended.then.iter().try_for_each(|Marked { sign, colour, what }| self.mark(stage, *sign, *colour, what))
    }

    fn path(&self, stage: &StageId) -> String {
        self.stages.get(stage).map_or_else(|| stage.to_string(), |followed| followed.path.clone())
    }

    /// A line about what happens to a stage. Where the stage's end is not printed yet, it comes behind that.
    fn happens(&mut self, stage: &StageId, sign: char, colour: AnsiColor, what: &str) -> io::Result<()> {
        match self.stages.get_mut(stage).and_then(|followed| followed.ended.as_mut()) {
            Some(ended) => {
                ended.then.push(Marked { sign, colour, what: what.to_owned() });
                Ok(())
            }
            None => self.mark(stage, sign, colour, what),
        }
    }

    /// A line about a stage.
    fn mark(&mut self, stage: &StageId, sign: char, colour: AnsiColor, what: &str) -> io::Result<()> {
        self.prefix(stage)?;
        let style = colour.on_default();
        let what = printable(what, false);
        if self.colour {
            writeln!(self.out, "{style}{sign} {what}{style:#}")?;
        } else {
            writeln!(self.out, "{}", format!("{sign} {what}").trim_end())?;
        }
        self.out.flush()
    }

    /// A line about the run.
    fn line(&mut self, what: &str, colour: AnsiColor) -> io::Result<()> {
        let style = if self.colour { colour.on_default() } else { Style::new() };
        writeln!(self.out, "{style}{what}{style:#}")?;
        self.out.flush()
    }

    fn output_line(&mut self, stage: &StageId, stream: Stream, line: &[u8]) -> io::Result<()> {
        self.prefix(stage)?;
        let sign = match stream {
            Stream::Out | Stream::Err => '│',
            Stream::Otto => '·',
        };
        let text = shown(line, self.colour);
        let text = if stream == Stream::Otto { text.strip_prefix(OTTO_PREFIX).unwrap_or(&text) } else { &text };
        let text = text.trim_end();
        if text.is_empty() { writeln!(self.out, "{sign}") } else { writeln!(self.out, "{sign} {text}") }
    }

    /// The stage, in its column and colour.
    fn prefix(&mut self, stage: &StageId) -> io::Result<()> {
        let path = shortened(&self.path(stage));
        let width = self.columns;
        match self.stages.get(stage) {
            Some(Followed { style, .. }) if self.colour => write!(self.out, "{style}{path:<width$}{style:#} "),
            Some(_) | None => write!(self.out, "{path:<width$} "),
        }
    }

    fn close_lines(&mut self, stage: &StageId) -> io::Result<()> {
        let (closed, open) = std::mem::take(&mut self.open).into_iter().partition(|line: &OpenLine| line.stage == *stage);
        self.open = open;
        self.print_lines(closed)
    }

    fn close_all_lines(&mut self) -> io::Result<()> {
        let closed = std::mem::take(&mut self.open);
        self.print_lines(closed)
    }

    fn print_lines(&mut self, lines: Vec<OpenLine>) -> io::Result<()> {
        lines.into_iter().try_for_each(|line| self.output_line(&line.stage, line.stream, &line.bytes))
    }
}

pub fn colour_of_run(outcome: RunOutcome) -> AnsiColor {
    match outcome {
        RunOutcome::Skipped => AnsiColor::BrightBlack,
        RunOutcome::Success => AnsiColor::Green,
        RunOutcome::Failure => AnsiColor::Red,
        RunOutcome::Unstable | RunOutcome::Aborted | RunOutcome::Unknown => AnsiColor::Yellow,
    }
}

/// A path that fits its columns.
fn shortened(path: &str) -> String {
    let length = path.chars().count();
    if length <= PATH_COLUMNS_MAX {
        return path.to_owned();
    }
    let end: String = path.chars().skip(length - PATH_COLUMNS_MAX + 1).collect();
    format!("…{end}")
}

#[path = "follow_events.rs"]
mod events;

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
