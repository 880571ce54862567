//! The log of a run: its events so far, or as they are appended.

use std::{collections::VecDeque, sync::Arc};

use actix_web::{HttpRequest, HttpResponse, get, web};
use apispec::{EventView, SSE_END, SSE_EVENT};
use futures_util::stream;
use tokio::sync::broadcast::{self, error::RecvError};

use super::{
    Api, ApiError,
    access::Caller,
    runs::{find, find_sound},
    sse::{self, Message},
    view,
};
use crate::{
    core::Run,
    runs::{Appended, Runs, Snapshot},
};

/// The header in which a client that connects again names the last message it has.
const LAST_EVENT_ID: &str = "Last-Event-ID";

/// The events of a run so far.
#[utoipa::path(
    tag = "events",
    operation_id = "event_list",
    params(("run" = apispec::schema::RunId, Path, description = "the run")),
    responses((status = 200, description = "the events, the oldest first", body = Vec<EventView>), ApiError),
)]
#[get("/v1/runs/{run}/events")]
pub(super) async fn list(caller: Caller, api: web::Data<Api>, run: web::Path<String>) -> Result<web::Json<Vec<EventView>>, ApiError> {
    let snapshot = find(&api, &caller, &run).await?;
    Ok(web::Json(snapshot.records.iter().flat_map(|record| view::events(record)).collect()))
}

/// Follow the events of a run, from its first.
///
/// Messages are named `event`, with an `EventView` and the id `<sequence>.<index>`; who connects again with `Last-Event-ID` gets what came
/// after that one. The last message is named `end`, with an `EndView`. Where a stage's output ends up in the depot may be told later than
/// that: ask for the list, or follow the output.
#[utoipa::path(
    tag = "events",
    operation_id = "event_follow",
    params(
        ("run" = apispec::schema::RunId, Path, description = "the run"),
        ("Last-Event-ID" = Option<apispec::schema::EventId>, Header, description = "the id of the last message that the client has"),
    ),
    responses((status = 200, description = "server-sent events", body = apispec::schema::EventMessage, content_type = "text/event-stream"), ApiError),
)]
#[get("/v1/runs/{run}/events/follow")]
pub(super) async fn follow(
    caller: Caller,
    api: web::Data<Api>,
    run: web::Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let after = last_event_id(&request)?;
    let seat = api.seat(&caller)?;
    // Follow first, then look: what is appended in between is in both, and told once.
    let appended = api.orchestrator.runs.follow();
    let snapshot = find_sound(&api, &caller, &run).await?;
    let feed = Feed::new(api.orchestrator.runs.clone(), appended, &snapshot, after);
    let messages = stream::unfold(feed, |mut feed| async move { feed.next().await.map(|message| (message, feed)) });
    Ok(sse::response(seat, api.ends(&caller), messages))
}

/// The place of an event in its run's log.
pub(super) type Place = (u64, u32);

pub(super) fn last_event_id(request: &HttpRequest) -> Result<Option<Place>, ApiError> {
    let Some(header) = request.headers().get(LAST_EVENT_ID).filter(|header| !header.is_empty()) else { return Ok(None) };
    let parse = || {
        let (sequence, index) = header.to_str().ok()?.split_once('.')?;
        Some((sequence.parse().ok()?, index.parse().ok()?))
    };
    parse().map(Some).ok_or(ApiError::InvalidHeader { name: LAST_EVENT_ID, why: "is no id of an event" })
}

/// The events of one run in their order, each once.
pub(super) struct Feed {
    runs: Runs,
    appended: broadcast::Receiver<Arc<Appended>>,
    run: Arc<Run>,
    after: Option<Place>,
    ready: VecDeque<EventView>,
    over: bool,
}

impl Feed {
    pub(super) fn new(runs: Runs, appended: broadcast::Receiver<Arc<Appended>>, snapshot: &Snapshot, after: Option<Place>) -> Self {
        let mut feed = Self { runs, appended, run: snapshot.run.clone(), after, ready: VecDeque::new(), over: false };
        feed.catch_up(snapshot);
        feed
    }

    pub(super) async fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Message::with_id(SSE_EVENT, &event.id(), &event));
            }
            if self.over {
                return None;
            }
            if let Some(end) = view::end(&self.run) {
                self.over = true;
                return Some(Message::new(SSE_END, &end));
            }
            // It comes to no end; who asks again is told why.
            if self.runs.damage(&self.run.id).is_some() {
                return None;
            }
            match self.appended.recv().await {
                Ok(appended) if appended.run == self.run.id => self.look_again(),
                Ok(_of_another_run) => {}
                Err(RecvError::Lagged(_)) => self.look_again(),
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// The state and the records are taken together, so that `end` never overtakes an event.
    fn look_again(&mut self) {
        if let Some(snapshot) = self.runs.get(&self.run.id) {
            self.catch_up(&snapshot);
        }
    }

    fn catch_up(&mut self, snapshot: &Snapshot) {
        self.run = snapshot.run.clone();
        let after = self.after;
        // Records are ordered, so those that were told already are skipped without a look at each.
        let first = snapshot.records.partition_point(|record| after.is_some_and(|(sequence, _)| record.sequence < sequence));
        let events = snapshot.records.iter().skip(first).flat_map(|record| view::events(record));
        self.ready.extend(events.filter(|event| after.is_none_or(|after| (event.sequence, event.index) > after)));
        if let Some(last) = self.ready.back() {
            self.after = Some((last.sequence, last.index));
        }
    }
}
