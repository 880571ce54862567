//! Who is served a stream, or brings a source: so many at once, and nobody for ever who does not read.
//!
//! **Invariant:** what is written for somebody who does not take it holds a seat only as long as nobody else wants one.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use config::token::OWNER;
use futures_util::{Stream, StreamExt as _, stream};
use model::TokenName;
use tokio::time::Instant;

/// How long what was written may lie there before its reader's seat goes to whoever comes. A reader that is slow takes something in less.
const UNREAD_MAX: Duration = Duration::from_mins(1);

/// Seats of one kind. One token has at most half of them, but for the owner's.
#[derive(Debug)]
pub(super) struct Seats {
    count: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    taken: BTreeMap<u64, Taken>,
}

#[derive(Debug)]
struct Taken {
    by: TokenName,
    /// Since when something waits for its reader; `None` while the reader waits for something.
    unread_since: Option<Instant>,
}

impl Seats {
    pub(super) fn new(count: usize) -> Arc<Self> {
        Arc::new(Self { count, state: Mutex::default() })
    }

    /// A seat, if there is one: a free one, or that of whoever has not read for too long.
    pub(super) fn take(self: &Arc<Self>, by: &TokenName) -> Option<Seat> {
        let mut state = self.lock();
        let own = state.taken.values().filter(|taken| taken.by == *by).count();
        let of_token = if by.as_str() == OWNER { self.count } else { self.count.div_ceil(2) };
        let is_own_full = own >= of_token;
        if is_own_full || state.taken.len() >= self.count {
            let stale = state.taken.iter().filter(|(_, taken)| !is_own_full || taken.by == *by);
            let stale = stale.filter_map(|(number, taken)| Some((taken.unread_since?, *number)));
            let (since, number) = stale.min()?;
            if since.elapsed() < UNREAD_MAX {
                return None;
            }
            state.taken.remove(&number);
        }
        state.next += 1;
        let number = state.next;
        state.taken.insert(number, Taken { by: by.clone(), unread_since: None });
        Some(Seat { number, seats: Arc::clone(self) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

/// The right to be served a stream; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    number: u64,
    seats: Arc<Seats>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.lock().taken.remove(&self.number);
    }
}

impl Seat {
    /// Notes since when something waits to be read. Whether the seat is still this one's.
    fn note(&self, unread_since: Option<Instant>) -> bool {
        let mut state = self.seats.lock();
        let taken = state.taken.get_mut(&self.number);
        taken.is_some_and(|taken| {
            taken.unread_since = unread_since;
            true
        })
    }

    /// What the source has, as long as its reader reads. Who has lost the seat finds the connection broken, and not an end.
    pub(super) fn serve<S: Stream<Item = io::Result<Bytes>>>(self, source: S) -> impl Stream<Item = io::Result<Bytes>> {
        stream::unfold(Some((Box::pin(source), self)), |served| async move {
            let (mut source, seat) = served?;
            // Asked for more, so what was given before is on its way.
            if !seat.note(None) {
                let why = "nothing of it was read for a minute, and others wait to be served";
                return Some((Err(io::Error::new(io::ErrorKind::TimedOut, why)), None));
            }
            let bytes = source.next().await?;
            seat.note(Some(Instant::now()));
            Some((bytes, Some((source, seat))))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> TokenName {
        name.parse().unwrap()
    }

    fn endless() -> impl Stream<Item = io::Result<Bytes>> {
        stream::repeat_with(|| Ok(Bytes::from_static(b"more")))
    }

    #[test]
    fn a_seat_is_free_again_when_its_stream_is_dropped_and_one_token_has_half_of_them() {
        let seats = Seats::new(4);
        let mut taken: Vec<_> = (0..2).map(|_| seats.take(&name("ann")).unwrap()).collect();
        assert!(seats.take(&name("ann")).is_none());
        taken.push(seats.take(&name("bob")).unwrap());
        taken.push(seats.take(&name(OWNER)).unwrap());
        assert!(seats.take(&name("bob")).is_none() && seats.take(&name(OWNER)).is_none());
        taken.remove(0);
        assert!(seats.take(&name("bob")).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_has_a_seat_only_until_somebody_else_wants_it() {
        let seats = Seats::new(2);
        let mut idle = Box::pin(seats.take(&name(OWNER)).unwrap().serve(endless()));
        let mut reading = Box::pin(seats.take(&name(OWNER)).unwrap().serve(endless()));
        assert_eq!(idle.next().await.unwrap().unwrap(), "more");
        tokio::time::advance(UNREAD_MAX).await;
        assert_eq!(reading.next().await.unwrap().unwrap(), "more");
        // As long as nobody comes, it is served on.
        assert_eq!(idle.next().await.unwrap().unwrap(), "more");
        assert!(seats.take(&name("ann")).is_none());
        tokio::time::advance(UNREAD_MAX).await;
        assert_eq!(reading.next().await.unwrap().unwrap(), "more");
        let newcomer = seats.take(&name("ann")).unwrap();
        assert!(seats.take(&name("bob")).is_none(), "the other one reads");
        assert_eq!(idle.next().await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(idle.next().await.is_none());
        assert_eq!(reading.next().await.unwrap().unwrap(), "more");
        drop((idle, newcomer));
        assert!(seats.take(&name("bob")).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_something_keeps_the_seat() {
        let seats = Seats::new(1);
        let mut silent = Box::pin(seats.take(&name(OWNER)).unwrap().serve(stream::pending()));
        assert!(futures_util::poll!(silent.next()).is_pending());
        tokio::time::advance(UNREAD_MAX * 2).await;
        assert!(seats.take(&name(OWNER)).is_none());
    }
}
