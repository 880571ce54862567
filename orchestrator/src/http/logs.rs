//! The output of a run's stages: as text, followed as it comes, or a part of one attempt's by bytes or lines.

use actix_web::{HttpResponse, get, http::header, web};
use apispec::{GapReason, GapView, OUTPUT_LINES_HEADER, OUTPUT_OFFSET_HEADER, SSE_CHUNK, SSE_END, SSE_GAP};
use bytes::Bytes;
use futures_util::stream;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    Api, ApiError,
    access::Caller,
    runs::{find, find_sound},
    sse::{self, Message},
};
use crate::{
    core::{Attempt, AttemptEnd, Run, shape::Index},
    output::{Excerpt, Output, Passage, Piece, Range, when_stored},
};

/// Digits of a number in a range: what fits in 64 bits, with and without a sign.
const RANGE_DIGITS_MAX: usize = 18;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct LogQuery {
    /// Only this stage: its path, the last part of it where that is unique, or its id.
    stage: Option<String>,
}

/// The output of a run so far, as text.
///
/// Stages come in the order of the plan, each attempt with a line of its own before it; of one stage alone, the bytes are as they came.
/// Missing output is marked by a line `[otto: …]`.
#[utoipa::path(
    tag = "logs",
    operation_id = "log_show",
    params(("run" = apispec::schema::RunId, Path, description = "the run"), LogQuery),
    responses((status = 200, description = "the output", body = String, content_type = "text/plain"), ApiError),
)]
#[get("/v1/runs/{run}/log")]
pub(super) async fn whole(
    caller: Caller,
    api: web::Data<Api>,
    run: web::Path<String>,
    query: web::Query<LogQuery>,
) -> Result<HttpResponse, ApiError> {
    let seat = api.seat(&caller)?;
    let snapshot = find(&api, &caller, &run).await?;
    let only = only(&snapshot.run, query.stage.as_deref())?;
    let text =
        Text { output: Output::so_far(api.orchestrator.clone(), snapshot.run, only), headed: only.is_none(), last: None, line_open: false };
    let body = stream::unfold(text, |mut text| async move { text.next().await.map(|bytes| (Ok(bytes), text)) });
    Ok(HttpResponse::Ok()
        .content_type("text/plain; charset=utf-8")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .streaming(seat.serve(body)))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct OutputQuery {
    /// The stage: its path, the last part of it where that is unique, or its id.
    stage: String,
    /// The attempt, from 1; the last one if it is not given.
    #[param(minimum = 1)]
    attempt: Option<u32>,
    /// Which part: `bytes=FIRST-LAST`, `lines=FIRST-LAST` or `tail=LINES`; all of it if it is not given.
    #[param(value_type = Option<apispec::schema::OutputRange>)]
    range: Option<String>,
}

/// A part of the output of one attempt so far: by bytes, by lines, or its end.
///
/// The bytes are as they came. Only the parts that are needed are fetched from the depot. Missing output is marked by a line `[otto: …]`.
#[utoipa::path(
    tag = "logs",
    operation_id = "output_show",
    params(("run" = apispec::schema::RunId, Path, description = "the run"), OutputQuery),
    responses(
        (
            status = 200,
            description = "the output",
            body = String,
            content_type = "application/octet-stream",
            headers(
                ("otto-output-offset" = u64, description = "bytes of the attempt's output before it"),
                ("otto-output-lines-before" = u64, description = "line feeds of the attempt's output before it"),
            ),
        ),
        ApiError,
    ),
)]
#[get("/v1/runs/{run}/output")]
pub(super) async fn part(
    caller: Caller,
    api: web::Data<Api>,
    run: web::Path<String>,
    query: web::Query<OutputQuery>,
) -> Result<HttpResponse, ApiError> {
    let seat = api.seat(&caller)?;
    let range = query.range.as_deref().map_or(Ok(Range::Bytes(0, u64::MAX)), range)?;
    if query.attempt == Some(0) {
        return Err(ApiError::InvalidQuery("attempts are counted from 1".to_owned()));
    }
    let run = find(&api, &caller, &run).await?.run;
    let at = stage(&run, &query.stage)?;
    let has_begun = |attempt: &Attempt| !matches!(attempt.end, Some(AttemptEnd::Declined { .. }));
    let is_wanted = |attempt: &Attempt| query.attempt.is_none_or(|wanted| attempt.number == wanted);
    let attempt = run.stages[at].attempts.iter().rfind(|attempt| has_begun(attempt) && is_wanted(attempt));
    let unknown = || ApiError::UnknownAttempt { run: run.id.clone(), stage: query.stage.clone() };
    let fence = attempt.ok_or_else(unknown)?.fence;
    let run = when_stored(&api.orchestrator, run.clone(), at, fence).await;
    let attempt = run.stages[at].attempts.iter().find(|attempt| attempt.fence == fence).ok_or_else(unknown)?;
    let excerpt = Excerpt::open(&api.orchestrator, &run.lease(at, attempt), attempt, range).await;
    let (offset, lines) = excerpt.begin();
    let body = stream::unfold(excerpt, |mut excerpt| async move {
        let bytes = match excerpt.next().await? {
            Passage::Bytes(bytes) => bytes,
            Passage::Missing(bytes, reason) => Bytes::from(format!("\n{}", missing(bytes, reason))),
        };
        Some((Ok(bytes), excerpt))
    });
    Ok(HttpResponse::Ok()
        .content_type("application/octet-stream")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((OUTPUT_OFFSET_HEADER, offset))
        .insert_header((OUTPUT_LINES_HEADER, lines))
        .streaming(seat.serve(body)))
}

/// The part that is meant by `bytes=3-6`, `lines=2-` or `tail=10`.
fn range(text: &str) -> Result<Range, ApiError> {
    let wrong = || ApiError::InvalidQuery(format!("`range` is `{text}`: it is none of `bytes=3-6`, `lines=2-3` and `tail=10`"));
    let number = |digits: &str| {
        let plain = (1..=RANGE_DIGITS_MAX).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit());
        digits.parse::<u64>().ok().filter(|_| plain).ok_or_else(wrong)
    };
    let (unit, wanted) = text.split_once('=').ok_or_else(wrong)?;
    if unit == "tail" {
        return Ok(Range::Tail(number(wanted)?));
    }
    let (first, last) = wanted.split_once('-').ok_or_else(wrong)?;
    let behind = if last.is_empty() { None } else { Some(number(last)?) };
    match (unit, number(first)?, behind) {
        ("bytes", first, last) => Ok(Range::Bytes(first, last.map_or(u64::MAX, |last| last + 1))),
        // Lines are counted from 1 by people.
        ("lines", 0, _) | ("lines", _, Some(0)) => Err(wrong()),
        ("lines", first, last) => Ok(Range::Lines(first - 1, last.unwrap_or(u64::MAX))),
        _ => Err(wrong()),
    }
}

/// Follow the output of a run: what there is of every stage, in the order of the plan, then all as it comes.
///
/// Messages are named `chunk`, with a `ChunkView`, and `gap`, with a `GapView`. The last one is named `end`, with an `EndView`: the run has
/// ended, and every output is complete or its absence was marked. Who connects again gets everything again; offsets tell what is known.
#[utoipa::path(
    tag = "logs",
    operation_id = "log_follow",
    params(("run" = apispec::schema::RunId, Path, description = "the run"), LogQuery),
    responses((status = 200, description = "server-sent events", body = apispec::schema::LogMessage, content_type = "text/event-stream"), ApiError),
)]
#[get("/v1/runs/{run}/log/follow")]
pub(super) async fn follow(
    caller: Caller,
    api: web::Data<Api>,
    run: web::Path<String>,
    query: web::Query<LogQuery>,
) -> Result<HttpResponse, ApiError> {
    let seat = api.seat(&caller)?;
    let snapshot = find_sound(&api, &caller, &run).await?;
    let only = only(&snapshot.run, query.stage.as_deref())?;
    let output = Output::follow(api.orchestrator.clone(), snapshot.run, only);
    let messages = stream::unfold(output, |mut output| async move { output.next().await.map(|piece| (message(&piece), output)) });
    Ok(sse::response(seat, api.ends(&caller), messages))
}

fn message(piece: &Piece) -> Message {
    match piece {
        Piece::Chunk(chunk) => Message::new(SSE_CHUNK, chunk),
        Piece::Gap(gap) => Message::new(SSE_GAP, gap),
        Piece::End(end) => Message::new(SSE_END, end),
    }
}

/// The stage that is asked for, if one is.
fn only(run: &Run, stage: Option<&str>) -> Result<Option<Index>, ApiError> {
    stage.map(|wanted| self::stage(run, wanted)).transpose()
}

/// The stage that is named by its path, the last part of that, or its id.
pub(super) fn stage(run: &Run, wanted: &str) -> Result<Index, ApiError> {
    let stages = || run.shape.plan().stages.iter().enumerate();
    let exact = stages().find(|(_, stage)| stage.path == wanted || stage.id.as_str() == wanted);
    let mut by_last_part = stages().filter(|(_, stage)| stage.path.rsplit('/').next() == Some(wanted));
    let unique = by_last_part.next().filter(|_| by_last_part.next().is_none());
    let found = exact.or(unique).map(|(at, _)| at);
    found.ok_or_else(|| ApiError::UnknownStage { run: run.id.clone(), stage: wanted.to_owned() })
}

/// Output as text.
struct Text {
    output: Output,
    /// Whether the first attempt, too, has a line of its own.
    headed: bool,
    last: Option<(String, u32, u64)>,
    line_open: bool,
}

impl Text {
    async fn next(&mut self) -> Option<Bytes> {
        let piece = self.output.next().await?;
        let mut text = Vec::new();
        match piece {
            Piece::Chunk(chunk) => {
                self.head(&mut text, (chunk.path, chunk.attempt, chunk.fence));
                text.extend_from_slice(&chunk.bytes.0);
                self.line_open = chunk.bytes.0.last().is_some_and(|byte| *byte != b'\n');
            }
            Piece::Gap(gap) => {
                let line = gap_line(&gap);
                self.head(&mut text, (gap.path, gap.attempt, gap.fence));
                self.close_line(&mut text);
                text.extend_from_slice(line.as_bytes());
            }
            Piece::End(_) => return None,
        }
        Some(Bytes::from(text))
    }

    /// The line that begins an attempt.
    fn head(&mut self, text: &mut Vec<u8>, attempt: (String, u32, u64)) {
        if self.last.as_ref() == Some(&attempt) {
            return;
        }
        self.close_line(text);
        if self.headed || self.last.is_some() {
            text.extend_from_slice(format!("==> {} (attempt {}) <==\n", attempt.0, attempt.1).as_bytes());
        }
        self.last = Some(attempt);
    }

    fn close_line(&mut self, text: &mut Vec<u8>) {
        if std::mem::take(&mut self.line_open) {
            text.push(b'\n');
        }
    }
}

fn gap_line(gap: &GapView) -> String {
    match gap.to {
        Some(to) => missing(to.saturating_sub(gap.from), gap.reason),
        None => format!("[otto: output may be missing from here: {}]\n", why(gap.reason)),
    }
}

fn missing(bytes: u64, reason: GapReason) -> String {
    format!("[otto: {bytes} bytes of output are missing here: {}]\n", why(reason))
}

fn why(reason: GapReason) -> &'static str {
    match reason {
        GapReason::NotKept => "not kept",
        GapReason::NeverStored => "never stored",
        GapReason::DepotUnavailable => "the depot does not give it now",
    }
}
