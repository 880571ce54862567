//! Who is enrolled, heard by a service that places work: asked for at its start and from time to time, and told when something changes.
//!
//! **Invariant:** what is not heard is not made up: of whom no page has told, nobody is given anything.

use std::time::Duration;

use model::protocol::enrolment::{RollPage, RollRequest};
use service::{OnError, Supervisor, supervisor::chain};
use tokio::{sync::mpsc, time::sleep};
use tracing::{debug, warn};

use crate::{Bus, BusError, Subject, Subscription};

/// Between two times that all of it is asked for. A change is told at once; this is for those whose word was lost.
const ASK_PAUSE: Duration = Duration::from_secs(10);
/// Before it is asked again, where nobody answered: the eventbus role may be about to start.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// How long one page may take.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);
/// Pages that wait for the service to look at them. It is not asked for more meanwhile.
const PAGES_MAX: usize = 16;

/// Follows the roll until the supervisor ends, or nobody listens any more.
pub async fn follow(bus: &Bus, supervisor: &Supervisor) -> Result<mpsc::Receiver<RollPage>, BusError> {
    let (pages, heard) = mpsc::channel(PAGES_MAX);
    let changes = bus.subscribe(Subject::enrolled()).await?;
    let (bus, token) = (bus.clone(), supervisor.token().clone());
    supervisor.spawn("roll", OnError::Shutdown, async move {
        token.run_until_cancelled(tell(&bus, changes, &pages)).await;
        Ok(())
    });
    Ok(heard)
}

/// Passes on what is heard; ends where nobody wants it, or the bus is closed.
async fn tell(bus: &Bus, mut changes: Subscription, pages: &mpsc::Sender<RollPage>) {
    loop {
        let pause = match ask(bus, pages).await {
            Ok(()) => ASK_PAUSE,
            Err(error) => {
                debug!(error = chain(&error), "it is not said who is enrolled");
                RETRY_PAUSE
            }
        };
        let over = sleep(pause);
        tokio::pin!(over);
        loop {
            let changed = tokio::select! {
                () = &mut over => break,
                changed = changes.next() => changed,
            };
            let Some(message) = changed else { return };
            match message.read::<RollPage>() {
                Ok(page) => {
                    if pages.send(page).await.is_err() {
                        return;
                    }
                }
                Err(error) => warn!(error = chain(&error), "not a page of the roll"),
            }
        }
        if pages.is_closed() {
            return;
        }
    }
}

/// Asks for all of it.
async fn ask(bus: &Bus, pages: &mpsc::Sender<RollPage>) -> Result<(), BusError> {
    let mut after = None;
    loop {
        let page: RollPage = bus.request(&Subject::roll(), &RollRequest { after: after.clone() }, ANSWER_DEADLINE).await?;
        let through = page.through.clone();
        // A page that does not lead on is the last one.
        let leads_on = through.as_ref() > after.as_ref();
        let is_heard = pages.send(page).await.is_ok();
        match through {
            Some(through) if leads_on && is_heard => after = Some(through),
            Some(_) | None => return Ok(()),
        }
    }
}
