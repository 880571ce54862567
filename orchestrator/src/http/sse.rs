//! Streams of server-sent events (WHATWG HTML, section 9.2).
//!
//! A message is written as soon as its source has it: nothing is gathered, because the first byte that a follower sees is what people
//! wait for. A stream ends when its source does, or when the process is to end; its connection is closed with it, so that nothing idle
//! stands in the way of a shutdown. It ends, too, when the token of whoever follows is taken away.

use std::{pin::Pin, time::Duration};

use actix_web::{HttpResponse, http::header};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use serde::Serialize;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::seats::Seat;

/// How long a stream may be silent before a comment shows that it is alive; proxies commonly wait for 60 s.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// The comment.
const HEARTBEAT_MESSAGE: Bytes = Bytes::from_static(b": still here\n\n");

/// One message, as it is written.
#[derive(Debug)]
pub(super) struct Message(Bytes);

impl Message {
    /// A message that a reconnecting client need not name.
    pub(super) fn new(name: &str, data: &impl Serialize) -> Self {
        Self::write(name, None, data)
    }

    /// A message whose id a reconnecting client names in `Last-Event-ID`.
    pub(super) fn with_id(name: &str, id: &str, data: &impl Serialize) -> Self {
        Self::write(name, Some(id), data)
    }

    fn write(name: &str, id: Option<&str>, data: &impl Serialize) -> Self {
        // JSON as serde writes it has no line break, so it is one `data` line.
        let data = serde_json::to_string(data).expect("a view has text keys only");
        let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
        Self(Bytes::from(format!("event: {name}\n{id}data: {data}\n\n")))
    }
}

/// Answers with the messages of `source`.
pub(super) fn response(seat: Seat, ends: [CancellationToken; 2], source: impl Stream<Item = Message> + 'static) -> HttpResponse {
    let written = Written { source: Box::pin(source), silent_since: Instant::now(), ends };
    let messages = stream::unfold(written, |mut written| async move { written.next().await.map(|bytes| (Ok(bytes), written)) });
    HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header(("X-Accel-Buffering", "no"))
        .force_close()
        .streaming(seat.serve(messages))
}

struct Written {
    source: Pin<Box<dyn Stream<Item = Message>>>,
    silent_since: Instant,
    /// Any of them ends the stream: that of the process, and that of who follows.
    ends: [CancellationToken; 2],
}

impl Written {
    async fn next(&mut self) -> Option<Bytes> {
        let [process, follower] = &self.ends;
        let bytes = tokio::select! {
            biased;
            () = process.cancelled() => None,
            () = follower.cancelled() => None,
            message = self.source.next() => message.map(|message| message.0),
            () = sleep_until(self.silent_since + HEARTBEAT) => Some(HEARTBEAT_MESSAGE),
        };
        self.silent_since = Instant::now();
        bytes
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;

    #[test]
    fn a_message_is_one_line_of_data() {
        let message = Message::with_id("event", "7.0", &serde_json::json!({ "text": "a\nb" }));
        assert_eq!(message.0, "event: event\nid: 7.0\ndata: {\"text\":\"a\\nb\"}\n\n");
        assert_eq!(Message::new("end", &1).0, "event: end\ndata: 1\n\n");
    }

    fn written(source: impl Stream<Item = Message> + 'static, token: &CancellationToken) -> Written {
        Written { source: Box::pin(source), silent_since: Instant::now(), ends: [token.clone(), CancellationToken::new()] }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_stream_shows_that_it_is_alive_until_the_end() {
        let token = CancellationToken::new();
        let began = Instant::now();
        let mut stream = written(stream::iter([Message::new("a", &1)]).chain(stream::pending()), &token);
        assert_eq!(stream.next().await.unwrap(), "event: a\ndata: 1\n\n");
        assert_eq!((stream.next().await.unwrap(), began.elapsed()), (HEARTBEAT_MESSAGE, HEARTBEAT));
        token.cancel();
        assert_eq!(stream.next().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_with_its_source() {
        let mut stream = written(stream::empty(), &CancellationToken::new());
        assert_eq!(stream.next().await, None);
    }
}
