//! The events of all runs, as they are appended.
//!
//! ```text
//! id of a message = place in the stream of run logs ─▶ who connects again names the last one, and gets what came after it
//! ```
//!
//! What was just appended is heard in this process, in the order of the stream; what is not, because the client was away, this process was, or
//! another orchestrator appended it, is read from the stream. Of a run whose log was put away meanwhile, the depot has the events: they are told
//! in the place of what stands for them.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use actix_web::{HttpRequest, HttpResponse, get, http::header, web};
use apispec::{RunEventView, SSE_EVENT, SSE_HERE};
use eventbus::StoredRecord;
use futures_util::stream;
use model::{ProjectName, RunId, event::run::RunEvent};
use serde::Deserialize;
use service::supervisor::chain;
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::{Instant, sleep, timeout_at},
};
use tracing::{debug, warn};
use utoipa::IntoParams;

use super::{
    Api, ApiError,
    access::Caller,
    events::{Place, last_event_id},
    sse::{self, Message},
    view,
};
use crate::{
    CommandError, Orchestrator,
    engine::{
        log::{Decoded, decode},
        recovery,
    },
    runs::Appended,
};

/// How long a record is waited for that others have overtaken, before the stream is read: appends of runs at once are heard within this.
const OVERTAKEN_MAX: Duration = Duration::from_millis(250);
/// How long nothing is heard before the stream is looked at: what another orchestrator appends is heard of no other way.
const UNHEARD_MAX: Duration = Duration::from_secs(1);
/// Runs whose project is remembered; of others it is looked up again.
const PROJECTS_MAX: usize = 4_096;
/// The index of what stands behind every event of a record.
const BEHIND_ALL: u32 = 999_999_999;
/// What a client accepts that follows without an end.
const EVENT_STREAM: &str = "text/event-stream";

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct FollowQuery {
    /// Of the runs of this project only.
    #[param(value_type = Option<apispec::schema::ProjectName>)]
    project: Option<ProjectName>,
}

/// Follow the events of all runs, from now on.
///
/// The first message is named `here`; its id is where the stream begins. All others are named `event`, with a `RunEventView` and an id; who
/// connects again with `Last-Event-ID` gets what came after that one. Events of a run whose log was put away while nobody
/// listened come without an id, and all of them come again if the connection breaks before the next id.
///
/// A client that sends `Accept: text/event-stream` is told what happens as long as the connection stands, and connects again when it breaks. Any
/// other is told what has happened up to now.
#[utoipa::path(
    tag = "events",
    operation_id = "event_follow_all",
    params(
        FollowQuery,
        ("Last-Event-ID" = Option<apispec::schema::EventId>, Header, description = "the id of the last message that the client has"),
    ),
    responses((status = 200, description = "server-sent events", body = apispec::schema::AnyEventMessage, content_type = "text/event-stream"), ApiError),
)]
#[get("/v1/events/follow")]
pub(super) async fn follow(
    caller: Caller,
    api: web::Data<Api>,
    query: web::Query<FollowQuery>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let after = last_event_id(&request)?;
    let accepts = request.headers().get_all(header::ACCEPT).filter_map(|accepts| accepts.to_str().ok());
    let has_end = !accepts.flat_map(|accepts| accepts.split(',')).any(|one| one.trim().starts_with(EVENT_STREAM));
    let (seat, ends) = (api.seat(&caller)?, api.ends(&caller));
    let feed = Feed::begin(api.orchestrator.clone(), caller, query.into_inner().project, after).await?;
    let messages = stream::unfold(feed, move |mut feed| async move { feed.next(has_end).await.map(|message| (message, feed)) });
    Ok(sse::response(seat, ends, messages))
}

/// The events of all runs in the order of the stream, each once.
struct Feed {
    orchestrator: Orchestrator,
    appended: broadcast::Receiver<Arc<Appended>>,
    caller: Caller,
    project: Option<ProjectName>,
    /// All up to here was told.
    after: Place,
    /// Records that were heard before others that stand before them.
    early: BTreeMap<u64, Arc<Appended>>,
    /// Since when the first of them waits.
    overtaken_since: Option<Instant>,
    /// What is being read of the stream, where not all was heard.
    reading: Option<Reading>,
    /// The projects of runs; none of those that are not followed.
    projects: BTreeMap<RunId, Option<ProjectName>>,
    ready: VecDeque<Message>,
}

/// Reads the stream up to its end.
struct Reading {
    /// All up to here was told when it began.
    since: Place,
    /// Up to where each run's events were told since: one may be put away meanwhile.
    told: BTreeMap<RunId, u64>,
}

impl Feed {
    /// Begins after this place, or at the end of the stream.
    async fn begin(
        orchestrator: Orchestrator,
        caller: Caller,
        project: Option<ProjectName>,
        after: Option<Place>,
    ) -> Result<Self, ApiError> {
        // Follow first, then look: what is appended in between is in both, and told once.
        let appended = orchestrator.runs.follow();
        let end = orchestrator.bus.run_logs_after(u64::MAX).await.map_err(CommandError::from)?.1;
        // A place behind the end is another stream's.
        let after = after.filter(|(sequence, _)| *sequence <= end);
        let reading = after.map(Reading::since);
        let after = after.unwrap_or((end, BEHIND_ALL));
        let ready = VecDeque::from([Message::with_id(SSE_HERE, &id(after), &())]);
        let (early, projects) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { orchestrator, appended, caller, project, after, early, overtaken_since: None, reading, projects, ready })
    }

    /// The next message; where it `has_end`, there is none when all was told. Where the bus or the depot is away, there is none, either: who
    /// connects again goes on where this ends.
    async fn next(&mut self, has_end: bool) -> Option<Message> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Some(message);
            }
            if has_end && self.reading.is_none() {
                return None;
            }
            if let Err(error) = self.go_on().await {
                warn!(error = chain(&error), "the events of all runs cannot be told now");
                // Whoever comes back at once would be told the same.
                sleep(UNHEARD_MAX).await;
                return None;
            }
            if self.appended.is_closed() && self.ready.is_empty() {
                return None;
            }
        }
    }

    /// Takes one step.
    async fn go_on(&mut self) -> Result<(), CommandError> {
        if let Some(reading) = self.reading.take() {
            self.reading = self.read(reading).await?;
            return Ok(());
        }
        if let Some(appended) = self.early.remove(&(self.after.0 + 1)) {
            self.overtaken_since = None;
            return self.tell(&appended).await;
        }
        let now = Instant::now();
        let deadline = if self.early.is_empty() { now + UNHEARD_MAX } else { *self.overtaken_since.get_or_insert(now) + OVERTAKEN_MAX };
        // However much is heard meanwhile.
        if deadline <= now {
            self.overtaken_since = None;
            self.reading = Some(Reading::since(self.after));
            return Ok(());
        }
        match timeout_at(deadline, self.appended.recv()).await {
            Ok(Ok(appended)) if appended.sequence > self.after.0 => {
                self.early.insert(appended.sequence, appended);
            }
            Ok(Ok(_) | Err(RecvError::Closed)) => {}
            Err(_) | Ok(Err(RecvError::Lagged(_))) => self.reading = Some(Reading::since(self.after)),
        }
        Ok(())
    }

    /// Tells the record's events that were not told, each with its place.
    async fn tell(&mut self, appended: &Appended) -> Result<(), CommandError> {
        if let Some(project) = self.project_of(appended).await? {
            for event in view::events(appended).filter(|event| (event.sequence, event.index) > self.after) {
                let place = id((event.sequence, event.index));
                let view = RunEventView { run: appended.run.clone(), project: project.clone(), event };
                self.ready.push_back(Message::with_id(SSE_EVENT, &place, &view));
            }
        }
        self.after = (appended.sequence, BEHIND_ALL);
        Ok(())
    }

    /// Reads the next part of the stream; gives back what is left to be read.
    async fn read(&mut self, mut reading: Reading) -> Result<Option<Reading>, CommandError> {
        let (sequence, index) = self.after;
        // Of the record at which the client left, some events may be to come.
        let from = if index == BEHIND_ALL { sequence } else { sequence.saturating_sub(1) };
        let (records, end) = self.orchestrator.bus.run_logs_after(from).await?;
        for stored in &records {
            match decode(stored) {
                Ok(Decoded::Record(record)) => {
                    self.tell(&Appended { run: stored.run.clone(), sequence: stored.sequence, record }).await?;
                }
                Ok(Decoded::Archived(_)) => self.tell_archived(stored, &reading).await?,
                Err(error) => debug!(run = %stored.run, error = chain(&error), "a record that does not read is passed over"),
            }
            reading.told.insert(stored.run.clone(), stored.sequence);
            self.after = (stored.sequence, BEHIND_ALL);
        }
        if records.last().is_some_and(|last| last.sequence < end) {
            return Ok(Some(reading));
        }
        // What stands before the end and was not read is gone: what stands for it was read.
        self.after = self.after.max((end, BEHIND_ALL));
        self.early.retain(|sequence, _| *sequence > self.after.0);
        Ok(None)
    }

    /// Tells the events of a log that was put away, as far as they were not told before it was.
    async fn tell_archived(&mut self, stored: &StoredRecord, reading: &Reading) -> Result<(), CommandError> {
        let Some((project, records)) = self.find(&stored.run).await? else { return Ok(()) };
        let told = reading.told.get(&stored.run).map_or(reading.since, |sequence| (*sequence, BEHIND_ALL));
        for record in records.iter().filter(|record| record.sequence < stored.sequence) {
            for event in view::events(record).filter(|event| (event.sequence, event.index) > told) {
                let view = RunEventView { run: stored.run.clone(), project: project.clone(), event };
                self.ready.push_back(Message::new(SSE_EVENT, &view));
            }
        }
        Ok(())
    }

    /// The project of the record's run, if it is one that is followed.
    async fn project_of(&mut self, appended: &Appended) -> Result<Option<ProjectName>, CommandError> {
        if let Some(known) = self.projects.get(&appended.run) {
            return Ok(known.clone());
        }
        let first = appended.record.events.first();
        let project = if let Some(RunEvent::RunAccepted { trigger, .. }) = first {
            Some(trigger.project.clone()).filter(|project| self.is_followed(project))
        } else {
            self.find(&appended.run).await?.map(|(project, _)| project)
        };
        if self.projects.len() >= PROJECTS_MAX {
            // Any will do.
            self.projects.pop_first();
        }
        self.projects.insert(appended.run.clone(), project.clone());
        Ok(project)
    }

    /// The project and the records of a run; `None` of one that is not followed, and of which nothing can be read.
    async fn find(&self, run: &RunId) -> Result<Option<(ProjectName, Arc<Vec<Arc<Appended>>>)>, CommandError> {
        let Orchestrator { runs, bus, blobs, .. } = &self.orchestrator;
        let records = match runs.get(run) {
            Some(snapshot) => snapshot.records,
            None => Arc::new(recovery::records(run, bus, blobs).await?),
        };
        let first = records.first().and_then(|first| first.record.events.first());
        let Some(RunEvent::RunAccepted { trigger, .. }) = first else { return Ok(None) };
        let project = trigger.project.clone();
        Ok(self.is_followed(&project).then_some((project, records)))
    }

    fn is_followed(&self, project: &ProjectName) -> bool {
        self.caller.sees(project) && self.project.as_ref().is_none_or(|wanted| wanted == project)
    }
}

impl Reading {
    fn since(since: Place) -> Self {
        Self { since, told: BTreeMap::new() }
    }
}

fn id((sequence, index): Place) -> String {
    format!("{sequence}.{index}")
}
