//! Who is served: so many requests at once, and of them at most half for one token. Whoever sends or reads slowly keeps nobody else out.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, Weak},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests that are served at once: each is up to three processes of git, one of which may keep a processor busy.
const SERVING_MAX: usize = 16;
/// Of them, those of one token.
const SERVING_MAX_OF_TOKEN: usize = SERVING_MAX / 2;

/// The places.
#[derive(Debug)]
pub(super) struct Turns {
    all: Arc<Semaphore>,
    /// Those of each token that has one, by its name.
    own: Mutex<BTreeMap<String, Weak<Semaphore>>>,
}

/// The right to be served; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _own: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl Default for Turns {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(SERVING_MAX)), own: Mutex::default() }
    }
}

impl Turns {
    /// Waits for a place for this token. Who waits for one of its own takes none of the others'.
    pub(super) async fn next(&self, token: &str) -> Turn {
        let own = self.own(token).acquire_owned().await;
        let of_all = self.all.clone().acquire_owned().await;
        Turn { _own: own.expect("it is never closed"), _of_all: of_all.expect("it is never closed") }
    }

    fn own(&self, token: &str) -> Arc<Semaphore> {
        let mut own = self.own.lock().expect("no holder of this lock panics");
        own.retain(|_, places| places.strong_count() > 0);
        if let Some(places) = own.get(token).and_then(Weak::upgrade) {
            return places;
        }
        let places = Arc::new(Semaphore::new(SERVING_MAX_OF_TOKEN));
        own.insert(token.to_owned(), Arc::downgrade(&places));
        places
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;

    use super::*;

    #[tokio::test]
    async fn one_token_has_at_most_half_of_the_places() {
        let turns = Turns::default();
        let mut slow = Vec::new();
        for _ in 0..SERVING_MAX_OF_TOKEN {
            slow.push(turns.next("ann").await);
        }
        let mut waits = Box::pin(turns.next("ann"));
        assert!(poll!(&mut waits).is_pending());
        let mut others = Vec::new();
        for _ in SERVING_MAX_OF_TOKEN..SERVING_MAX {
            others.push(turns.next("bob").await);
        }
        assert!(poll!(Box::pin(turns.next("eve"))).is_pending(), "there are no more");
        others.pop();
        assert!(poll!(&mut waits).is_pending(), "one of its own is to end first");
        let eve = turns.next("eve").await;
        slow.pop();
        assert!(poll!(&mut waits).is_ready());
        drop((slow, others, eve));
        assert_eq!(turns.all.available_permits(), SERVING_MAX);
        let _again = turns.next("eve").await;
        assert_eq!(turns.own.lock().unwrap().len(), 1, "who has none is forgotten");
    }
}
