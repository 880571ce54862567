//! Where an attempt's processes run: on this machine, or in the container of its stage's image.

use std::path::PathBuf;

use model::{StageOutcome, protocol::agent::Assignment};
use service::supervisor::chain;
use tracing::warn;

use super::{
    End, Tools,
    floor::Floor,
    halt::{Halt, Stop},
    output::Output,
    protocol::cache_folder,
};
use crate::{
    container::{Neighbours, Place, PlaceError, Wanted, give_up},
    sandbox::{Confined, Places},
    spool::Entry,
};

/// The place of the attempt's processes; or how the attempt ends, as there is none.
pub(super) async fn confine(
    assignment: &Assignment,
    tools: &Tools,
    entry: &Entry,
    output: &mut Output,
    floor: &Floor,
    halt: &mut Halt,
) -> Result<Confined, End> {
    let stage = &assignment.stage;
    let Some(container) = &stage.container else {
        let neighbours = neighbours(assignment, tools, entry, output, halt).await?;
        let hosts = neighbours.as_ref().map(|_| hosts(entry));
        let kept = kept(assignment, tools).await;
        return match held(assignment, tools, entry, floor, (kept, hosts)).await {
            Ok(confined) => Ok(confined.beside(neighbours)),
            Err(end) => {
                if let Some(neighbours) = neighbours {
                    neighbours.end().await;
                }
                Err(end)
            }
        };
    };
    let Some(runtime) = tools.containers.get() else { return Err(failed("this agent runs no containers")) };
    let image = container.image.as_text().unwrap_or_default();
    let problem = output.say(&format!("the steps run in the image {image}, by {}", runtime.name())).await.err();
    if let Some(error) = problem {
        return Err(failed(&chain(&error)));
    }
    let mark = entry.mark(&assignment.lease);
    let (shown, writable) = folders(assignment, tools).await.map_err(|reason| failed(&reason))?;
    let wanted = Wanted {
        image,
        services: &stage.services,
        requires: &stage.requires,
        mark: &mark,
        root: entry.workspace().root(),
        shown,
        writable,
        passthrough: tools.passthrough.clone(),
    };
    let started = tokio::select! {
        started = Place::start(runtime, wanted) => started,
        stop = halt.stopped() => {
            give_up(runtime, &mark, stage.services.len()).await;
            return Err(end_of(stop));
        }
    };
    match started {
        Ok(place) => {
            let beside = match held(assignment, tools, entry, floor, (Vec::new(), None)).await {
                Ok(Confined::Held(held)) => Some(held),
                Ok(Confined::Direct | Confined::Container { .. }) => None,
                Err(end) => {
                    place.end().await;
                    return Err(end);
                }
            };
            Ok(Confined::Container { place: Box::new(place), otto: tools.program.clone(), beside })
        }
        Err(error) => {
            give_up(runtime, &mark, stage.services.len()).await;
            if let PlaceError::Service { name, log, .. } = &error {
                show(name, log, output).await;
            }
            Err(failed(&chain(&error)))
        }
    }
}

/// Where the table of names lies that its steps see.
fn hosts(entry: &Entry) -> PathBuf {
    entry.workspace().root().join("hosts")
}

/// The services of steps that run on this machine.
async fn neighbours(
    assignment: &Assignment,
    tools: &Tools,
    entry: &Entry,
    output: &mut Output,
    halt: &mut Halt,
) -> Result<Option<Neighbours>, End> {
    let services = &assignment.stage.services;
    if services.is_empty() {
        return Ok(None);
    }
    let Some(runtime) = tools.containers.get() else { return Err(failed("this agent runs no containers")) };
    let (mark, hosts) = (entry.mark(&assignment.lease), hosts(entry));
    let started = tokio::select! {
        started = Neighbours::start(runtime, services, &mark, &hosts) => started,
        stop = halt.stopped() => {
            give_up(runtime, &mark, services.len()).await;
            return Err(end_of(stop));
        }
    };
    match started {
        Ok(neighbours) => Ok(Some(neighbours)),
        Err(error) => {
            if let PlaceError::Service { name, log, .. } = &error {
                show(name, log, output).await;
            }
            Err(failed(&chain(&error)))
        }
    }
}

/// What holds processes that run on this machine.
async fn held(
    assignment: &Assignment,
    tools: &Tools,
    entry: &Entry,
    floor: &Floor,
    (kept, hosts): (Vec<PathBuf>, Option<PathBuf>),
) -> Result<Confined, End> {
    let overlay = floor.overlay(entry.workspace()).map_err(|error| failed(&format!("cannot prepare the work directory: {error}")))?;
    let confined = tools.sandbox.confine(entry.workspace(), &assignment.stage.requires, Places { overlay, kept, hosts }).await;
    confined.map_err(|error| failed(&format!("the stage cannot be isolated: {error}")))
}

/// The folders that its steps keep, made. No stage sees those of others. A step whose library cannot be had says so when it is its turn.
async fn kept(assignment: &Assignment, tools: &Tools) -> Vec<PathBuf> {
    let blobs = tools.blobs.with_token(&assignment.depot_token);
    let mut kept = Vec::new();
    // Nearly all stages have no library.
    let steps = if assignment.libraries.is_empty() { Vec::new() } else { assignment.stage.every_step() };
    for step in steps {
        let Some(digest) = assignment.libraries.get(&step.library) else { continue };
        let Ok(library) = tools.libraries.get(digest, &blobs).await else { continue };
        let folder = tools.step_caches.join(cache_folder(assignment, step));
        if library.manifest.cache && !kept.contains(&folder) && tokio::fs::create_dir_all(&folder).await.is_ok() {
            kept.push(folder);
        }
    }
    kept
}

/// What lies outside of the attempt's folder and is needed in the container: its step libraries, and the folders that their steps keep.
async fn folders(assignment: &Assignment, tools: &Tools) -> Result<(Vec<PathBuf>, Vec<PathBuf>), String> {
    let blobs = tools.blobs.with_token(&assignment.depot_token);
    let (mut shown, mut writable) = (Vec::new(), tools.in_place.clone().into_iter().collect::<Vec<_>>());
    for step in assignment.stage.every_step() {
        let Some(digest) = assignment.libraries.get(&step.library) else { continue };
        let library = tools.libraries.get(digest, &blobs).await.map_err(|error| chain(&error))?;
        if !shown.iter().any(|folder| folder == library.folder()) {
            shown.push(library.folder().to_owned());
        }
        let cache = tools.step_caches.join(cache_folder(assignment, step));
        if library.manifest.cache && !writable.contains(&cache) {
            tokio::fs::create_dir_all(&cache)
                .await
                .map_err(|error| format!("cannot make the folder of the step `{}`: {error}", step.symbol))?;
            writable.push(cache);
        }
    }
    Ok((shown, writable))
}

/// What a service has said that is not ready.
async fn show(name: &str, log: &[u8], output: &mut Output) {
    for line in String::from_utf8_lossy(log).lines() {
        if let Err(error) = output.say(&format!("service {name}: {line}")).await {
            return warn!(error = chain(&error), "what a service said is not in the output");
        }
    }
}

fn failed(reason: &str) -> End {
    End::Result(StageOutcome::Failure, Some(reason.to_owned()))
}

fn end_of(stop: Stop) -> End {
    match stop {
        Stop::StepTimedOut | Stop::TimedOut | Stop::Overdue => failed("its time was over before its containers were there"),
        Stop::DiskFull => failed("the agent's disk is nearly full"),
        Stop::Cancelled | Stop::Killed => End::Result(StageOutcome::Aborted, Some("cancelled".to_owned())),
        Stop::Superseded => End::Superseded,
        Stop::Unrenewed => End::Unrenewed,
        Stop::ShuttingDown => End::ShuttingDown,
    }
}
