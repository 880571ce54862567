//! Following a run: server-sent events, and the same stream again when its connection breaks.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    pin::Pin,
    time::Duration,
};

use apispec::{ChunkView, EndView, EventView, GapView, RunEventView, SSE_CHUNK, SSE_END, SSE_EVENT, SSE_GAP};
use eventsource_stream::{Event, Eventsource as _};
use futures_util::{Stream, StreamExt as _};
use model::{ProjectName, RunId, StageId};
use reqwest::{Method, header};
use serde::de::DeserializeOwned;

use super::{Client, ClientError};

/// Tries in a row to connect again, after which the orchestrator counts as gone: with the pause, half a minute. It is back 10 s after
/// its restart, or something is wrong.
const RECONNECTS_MAX: u32 = 60;
/// Between two tries.
const RECONNECT_PAUSE: Duration = Duration::from_millis(500);

/// Messages of one connection.
type Messages = Pin<Box<dyn Stream<Item = Event> + Send>>;

/// A stream of server-sent events that outlives its connection.
struct Follower {
    client: Client,
    path: String,
    query: Vec<(&'static str, String)>,
    messages: Option<Messages>,
    last_id: Option<String>,
    /// Whether it ever worked: a first connection that fails is told at once.
    connected: bool,
    /// Connections in a row that brought no message.
    failures: u32,
    over: bool,
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower").field("path", &self.path).field("last_id", &self.last_id).finish_non_exhaustive()
    }
}

impl Follower {
    fn new(client: Client, path: String, query: Vec<(&'static str, String)>) -> Self {
        Self { client, path, query, messages: None, last_id: None, connected: false, failures: 0, over: false }
    }

    /// The next message; nothing after `end`.
    async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        while !self.over {
            let Some(messages) = &mut self.messages else {
                self.connect().await?;
                continue;
            };
            let Some(message) = messages.next().await else {
                self.messages = None;
                continue;
            };
            self.failures = 0;
            if !message.id.is_empty() {
                self.last_id = Some(message.id.clone());
            }
            self.over = message.event == SSE_END;
            return Ok(Some(message));
        }
        Ok(None)
    }

    async fn connect(&mut self) -> Result<(), ClientError> {
        if self.failures > RECONNECTS_MAX {
            return Err(ClientError::Lost(self.client.url().to_owned()));
        }
        if self.failures > 0 {
            tokio::time::sleep(RECONNECT_PAUSE).await;
        }
        self.failures += 1;
        let mut request = self.client.request(Method::GET, &self.path).query(&self.query).header(header::ACCEPT, "text/event-stream");
        if let Some(id) = &self.last_id {
            request = request.header("Last-Event-ID", id);
        }
        match self.client.send(request).await {
            // A message that does not read ends the connection like its loss: the next one has it again.
            Ok(response) => {
                self.connected = true;
                let messages = response.bytes_stream().eventsource().take_while(|message| std::future::ready(message.is_ok()));
                self.messages = Some(Box::pin(messages.filter_map(|message| std::future::ready(message.ok()))));
                Ok(())
            }
            Err(error) if error.is_passing() && self.connected => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn read<T: DeserializeOwned>(&self, message: &Event) -> Result<T, ClientError> {
        let url = || format!("{}{}", self.client.url(), self.path);
        serde_json::from_str(&message.data).map_err(|_| ClientError::Foreign { url: url(), status: 200 })
    }
}

/// What the events of a run say.
#[derive(Debug, Clone, PartialEq)]
pub enum EventMessage {
    /// Something happened.
    Event(Box<EventView>),
    /// The run has ended; nothing follows.
    End(EndView),
}

/// Events of a run as they happen, each once.
#[derive(Debug)]
pub struct EventFollower(Follower);

impl EventFollower {
    pub(super) fn new(client: Client, run: &RunId) -> Self {
        Self(Follower::new(client, format!("/v1/runs/{run}/events/follow"), Vec::new()))
    }

    /// The next one; nothing after the end. Keep the future until it is ready: dropping it loses no message, but a connection that is being
    /// made again.
    pub async fn next(&mut self) -> Result<Option<EventMessage>, ClientError> {
        while let Some(message) = self.0.next().await? {
            match message.event.as_str() {
                SSE_EVENT => return self.0.read(&message).map(EventMessage::Event).map(Some),
                SSE_END => return self.0.read(&message).map(EventMessage::End).map(Some),
                _newer_than_this_client => {}
            }
        }
        Ok(None)
    }
}

/// Events of all runs as they happen, each once, from when the first connection stood.
#[derive(Debug)]
pub struct AllFollower {
    follower: Follower,
    /// Events that came without an id since the last one that had one: they come again if the connection breaks.
    unconfirmed: BTreeSet<(RunId, u64, u32)>,
}

impl AllFollower {
    pub(super) fn new(client: Client, project: Option<&ProjectName>) -> Self {
        let query = project.map(|project| ("project", project.to_string())).into_iter().collect();
        Self { follower: Follower::new(client, "/v1/events/follow".to_owned(), query), unconfirmed: BTreeSet::new() }
    }

    /// The next one. There is no last one. Keep the future until it is ready, as that of [`EventFollower::next`].
    pub async fn next(&mut self) -> Result<Option<RunEventView>, ClientError> {
        while let Some(message) = self.follower.next().await? {
            if message.event != SSE_EVENT {
                continue;
            }
            let view: RunEventView = self.follower.read(&message)?;
            // The parser of the stream gives each message the id of the last one that had one.
            let key = (view.run.clone(), view.event.sequence, view.event.index);
            if message.id == view.event.id() {
                self.unconfirmed.clear();
            } else if !self.unconfirmed.insert(key) {
                continue;
            }
            return Ok(Some(view));
        }
        Ok(None)
    }
}

/// What comes of a run's output.
#[derive(Debug, Clone, PartialEq)]
pub enum LogMessage {
    /// Output.
    Chunk(ChunkView),
    /// Missing output.
    Gap(GapView),
    /// The run has ended, and its output is complete; nothing follows.
    End(EndView),
}

/// Output of a run as it comes, each byte once.
#[derive(Debug)]
pub struct LogFollower {
    follower: Follower,
    known: Known,
}

impl LogFollower {
    pub(super) fn new(client: Client, run: &RunId, stage: Option<&str>) -> Self {
        let query = stage.map(|stage| ("stage", stage.to_owned())).into_iter().collect();
        Self { follower: Follower::new(client, format!("/v1/runs/{run}/log/follow"), query), known: Known::default() }
    }

    /// The next one; nothing after the end. Keep the future until it is ready: dropping it loses no message, but a connection that is being
    /// made again.
    pub async fn next(&mut self) -> Result<Option<LogMessage>, ClientError> {
        while let Some(message) = self.follower.next().await? {
            match message.event.as_str() {
                SSE_CHUNK => {
                    if let Some(fresh) = self.known.chunk(self.follower.read(&message)?) {
                        return Ok(Some(LogMessage::Chunk(fresh)));
                    }
                }
                SSE_GAP => {
                    if let Some(fresh) = self.known.gap(self.follower.read(&message)?) {
                        return Ok(Some(LogMessage::Gap(fresh)));
                    }
                }
                SSE_END => return self.follower.read(&message).map(LogMessage::End).map(Some),
                _newer_than_this_client => {}
            }
        }
        Ok(None)
    }
}

/// How far the output of each attempt is known: a connection made again brings all of it once more.
#[derive(Debug, Default)]
struct Known(BTreeMap<(StageId, u64), u64>);

impl Known {
    /// The part of the chunk that is new.
    fn chunk(&mut self, mut chunk: ChunkView) -> Option<ChunkView> {
        let known = self.0.entry((chunk.stage.clone(), chunk.fence)).or_default();
        let end = chunk.offset + chunk.bytes.0.len() as u64;
        if end <= *known {
            return None;
        }
        let old = usize::try_from(known.saturating_sub(chunk.offset)).unwrap_or(usize::MAX);
        chunk.bytes.0.drain(..old.min(chunk.bytes.0.len()));
        chunk.offset = chunk.offset.max(*known);
        *known = end;
        Some(chunk)
    }

    /// The part of the gap that is new. One without an end is told once.
    fn gap(&mut self, mut gap: GapView) -> Option<GapView> {
        let known = self.0.entry((gap.stage.clone(), gap.fence)).or_default();
        let to = gap.to.unwrap_or(u64::MAX);
        if to <= *known {
            return None;
        }
        gap.from = gap.from.max(*known);
        *known = to;
        Some(gap)
    }
}

#[cfg(test)]
mod tests {
    use apispec::{Base64, GapReason};
    use model::{Timestamp, protocol::log::Stream};

    use super::*;

    fn chunk(offset: u64, text: &str) -> ChunkView {
        ChunkView {
            stage: StageId::of("a"),
            path: "a".to_owned(),
            attempt: 1,
            fence: 2,
            step: 0,
            stream: Stream::Out,
            offset,
            at: Timestamp(0),
            bytes: Base64(text.as_bytes().to_vec()),
        }
    }

    fn gap(from: u64, to: Option<u64>) -> GapView {
        GapView { stage: StageId::of("a"), path: "a".to_owned(), attempt: 1, fence: 2, from, to, reason: GapReason::NotKept }
    }

    #[test]
    fn output_that_comes_again_is_told_once() {
        let mut known = Known::default();
        assert_eq!(known.chunk(chunk(0, "abc")), Some(chunk(0, "abc")));
        assert_eq!(known.gap(gap(3, Some(5))), Some(gap(3, Some(5))));
        assert_eq!(known.chunk(chunk(0, "abc")), None);
        assert_eq!(known.chunk(chunk(0, "abcdefg")), Some(chunk(5, "fg")));
        assert_eq!(known.gap(gap(5, Some(7))), None);
        assert_eq!(known.gap(gap(6, Some(9))), Some(gap(7, Some(9))));
        assert_eq!(known.gap(gap(9, None)), Some(gap(9, None)));
        assert_eq!(known.gap(gap(9, None)), None);
    }
}
