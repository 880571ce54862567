//! Forges are told how the runs of their commits go: `pending` when one begins, and how it has ended.
//!
//! ```text
//! logs of runs on the bus ─▶ read (from `cursor`) ─▶ board: one file a status ─▶ say (one task a project) ─▶ the forge's API
//! ```
//!
//! **Invariant:** the board is written down before the cursor is, and a word is taken off it after the forge has answered: each is said at
//! least once, however often this forge falls, and a run's last word is its end (RFC 0022).

mod api;
mod board;

use std::{sync::Arc, time::Duration};

use eventbus::{Bus, StoredRecord};
use model::{ProjectName, event::run::RunRecord};
use service::supervisor::{TaskError, chain};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::clock::Clock;

pub(crate) use board::Board;

use api::Refusal;

/// Between two looks at the logs of runs, where nothing new was there.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// After what was not said; it doubles up to [`RETRY_PAUSE_MAX`].
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause that nobody asked for.
const RETRY_PAUSE_MAX: Duration = Duration::from_mins(5);
/// How long something is tried to be said, in milliseconds. What happened a day ago is no news for a forge that was down that long.
const OLD_MS: u64 = 24 * 60 * 60 * 1000;

/// How long a forge's answer is waited for when the role is to end: less than [`service::supervisor::GRACE`]. Whoever hears no answer says it again.
const LAST_ANSWER: Duration = Duration::from_secs(3);

/// Reads the logs of runs until it is cancelled.
pub(crate) async fn read(board: Arc<Board>, bus: Bus, cancelled: CancellationToken) -> Result<(), TaskError> {
    let mut pause = RETRY_PAUSE;
    let mut cursor = None;
    board.ring();
    loop {
        let looked = tokio::select! {
            () = cancelled.cancelled() => return Ok(()),
            looked = look(&board, &bus, &mut cursor) => looked,
        };
        let after = match looked {
            Ok(true) => Duration::ZERO,
            Ok(false) => {
                pause = RETRY_PAUSE;
                LOOK_PAUSE
            }
            Err(error) => {
                warn!(error = chain(&*error), "the logs of runs are not read for statuses");
                pause = RETRY_PAUSE_MAX.min(pause * 2);
                pause
            }
        };
        tokio::select! {
            () = cancelled.cancelled() => return Ok(()),
            () = tokio::time::sleep(after) => {}
        }
    }
}

/// Reads on from the cursor. Whether there may be more.
async fn look(board: &Arc<Board>, bus: &Bus, cursor: &mut Option<u64>) -> Result<bool, TaskError> {
    let from = match *cursor {
        Some(from) => from,
        None => begin(board, bus).await?,
    };
    let (records, end) = bus.run_logs_after(from).await?;
    // Another stream than it was: its records are all new.
    let from = if end < from { 0 } else { from };
    let last = records.last().map_or(from, |record| record.sequence);
    if Some(last) != *cursor {
        // A busy disk must not keep the forge from its other work, or from its end. What is cut short is read again.
        on_disk(board, move |board| {
            records.iter().try_for_each(|record| see(board, record))?;
            board.set_cursor(last)?;
            board.ring();
            Ok(())
        })
        .await?;
        *cursor = Some(last);
    }
    Ok(last < end)
}

/// Does what takes the board, where somebody may be writing to the disk.
async fn on_disk<T: Send + 'static>(
    board: &Arc<Board>,
    work: impl FnOnce(&Board) -> Result<T, TaskError> + Send + 'static,
) -> Result<T, TaskError> {
    let board = board.clone();
    tokio::task::spawn_blocking(move || work(&board)).await?
}

/// Where to go on, or to begin: with what comes from now on.
async fn begin(board: &Board, bus: &Bus) -> Result<u64, TaskError> {
    if let Some(from) = board.cursor()? {
        return Ok(from);
    }
    Ok(bus.run_logs_after(u64::MAX).await?.1)
}

fn see(board: &Board, stored: &StoredRecord) -> Result<(), TaskError> {
    // Most records say nothing of what is looked for.
    let says = |kind: &str| stored.bytes.windows(kind.len()).any(|window| window == kind.as_bytes());
    if !says("\"run_accepted\"") && !says("\"run_finished\"") {
        return Ok(());
    }
    match serde_json::from_slice::<RunRecord>(&stored.bytes) {
        Ok(record) => Ok(board.see(stored.sequence, &stored.run, &record)?),
        Err(error) => {
            debug!(run = %stored.run, %error, "a record does not read");
            Ok(())
        }
    }
}

/// Says what there is to say of one project until it is cancelled.
pub(crate) async fn say(
    board: Arc<Board>,
    project: ProjectName,
    link: Option<String>,
    clock: Clock,
    cancelled: CancellationToken,
) -> Result<(), TaskError> {
    let Some(place) = board.places.get(&project) else { return Ok(()) };
    let mut pause = RETRY_PAUSE;
    loop {
        let next = on_disk(&board, {
            let project = project.clone();
            move |board| Ok(board.next(&project))
        });
        let next = tokio::select! {
            () = cancelled.cancelled() => return Ok(()),
            next = next => next?,
        };
        let Some(wanted) = next else {
            tokio::select! {
                () = cancelled.cancelled() => return Ok(()),
                () = place.bell.notified() => continue,
            }
        };
        let (now_ms, run) = (clock.unix_ms(), wanted.run().clone());
        let report = wanted.report(link.as_deref()).filter(|_| now_ms.saturating_sub(wanted.since.0) < OLD_MS);
        let Some(report) = report else {
            error!(%project, %run, "the forge was not told in time how the run goes, and will not be");
            on_disk(&board, move |board| Ok(board.said(&wanted)?)).await?;
            continue;
        };
        let statuses = place.statuses.clone();
        let mut saying = tokio::task::spawn_blocking(move || api::show(&statuses, &report, now_ms).map(|()| report));
        // What is on its way is waited for, so that no later word overtakes it; it has a deadline of its own. What is cut short is said again.
        let shown = tokio::select! {
            () = cancelled.cancelled() => match timeout(LAST_ANSWER, &mut saying).await {
                Ok(shown) => shown,
                Err(_) => return Ok(()),
            },
            shown = &mut saying => shown,
        };
        match shown.expect("asking a forge does not panic") {
            Ok(report) => {
                info!(%project, %run, commit = %report.commit, status = report.name, outcome = ?report.outcome, "the forge shows it");
                on_disk(&board, move |board| Ok(board.said(&wanted)?)).await?;
                pause = RETRY_PAUSE;
            }
            Err(refusal @ Refusal::Never { .. }) => {
                error!(%project, %run, error = chain(&refusal), "the forge does not show it");
                on_disk(&board, move |board| Ok(board.said(&wanted)?)).await?;
            }
            Err(refusal @ (Refusal::Token { .. } | Refusal::Away { .. } | Refusal::Later { .. })) => {
                let after = match &refusal {
                    Refusal::Later { pause: Some(named), .. } => *named,
                    Refusal::Token { .. } | Refusal::Away { .. } | Refusal::Later { .. } | Refusal::Never { .. } => pause,
                };
                warn!(%project, %run, error = chain(&refusal), retry_seconds = after.as_secs(), "the forge does not show it yet");
                on_disk(&board, move |board| {
                    board.failed(&wanted);
                    Ok(())
                })
                .await?;
                pause = RETRY_PAUSE_MAX.min(pause * 2);
                tokio::select! {
                    () = cancelled.cancelled() => return Ok(()),
                    () = tokio::time::sleep(after) => {}
                }
            }
        }
    }
}
