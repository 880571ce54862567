//! The parser role: takes a request from the bus, fetches what it names from the depot, and answers with the plan.
//!
//! ```text
//! bus ─ parser.plan ─▶ serve ─ one task a request ─▶ answer ─ blocking thread ─▶ parser::plan
//!                        └── at most PLANS_MAX at once; more wait in the subscription
//! ```
//!
//! **Invariant:** the role adds nothing to what [`parser::plan`] says: [`answer`] gives the same for the same request, in any process.

mod answer;

use std::sync::Arc;

use blob::Blobs;
use eventbus::{Bus, BusError, Subject, Subscription, bus::Message};
use model::{
    manifest::StepLibrary,
    planning::{PlanReply, PlanRequest},
};
use service::{OnError, Supervisor, supervisor::chain};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

pub use answer::answer;

/// The group of which one member answers each request.
const GROUP: &str = "parser";
/// Requests that are worked on at once. Each takes a core for some milliseconds; the worst file of 1 MiB (half a million names) takes
/// 300 MiB of memory for its tree, so all together stay below what a small machine has.
const PLANS_MAX: usize = 4;

/// Listens for requests; when this returns, they are heard. The supervisor's task answers them until it is told to end.
pub async fn run(bus: Bus, blobs: Blobs, libraries: Vec<StepLibrary>, supervisor: &Supervisor) -> Result<(), BusError> {
    let requests = bus.subscribe_group(Subject::plan(), GROUP).await?;
    let work = Work { blobs, libraries: libraries.into() };
    let token = supervisor.token().clone();
    supervisor.spawn("parser", OnError::Shutdown, async move { Ok(serve(requests, work, token).await?) });
    Ok(())
}

/// What every request needs.
#[derive(Debug, Clone)]
struct Work {
    blobs: Blobs,
    libraries: Arc<[StepLibrary]>,
}

async fn serve(mut requests: Subscription, work: Work, token: CancellationToken) -> Result<(), BusError> {
    let mut plans = JoinSet::new();
    loop {
        tokio::select! {
            () = token.cancelled() => break,
            message = requests.next(), if plans.len() < PLANS_MAX => match message {
                Some(message) => drop(plans.spawn(respond(message, work.clone()))),
                None => return Err(BusError::Closed),
            },
            Some(ended) = plans.join_next() => report(ended),
        }
    }
    // What was begun is answered; it takes a second at most, and the supervisor waits no longer than its grace.
    while let Some(ended) = plans.join_next().await {
        report(ended);
    }
    Ok(())
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(fault) = ended {
        error!(error = chain(&fault), "the answer to a request was lost");
    }
}

async fn respond(message: Message, work: Work) {
    let subject = message.subject.clone();
    let reply = match message.read::<PlanRequest>() {
        Ok(request) => answer(&request, &work.blobs, &work.libraries).await,
        Err(fault) => {
            warn!(%subject, error = chain(&fault), "a request does not read");
            PlanReply::Unavailable { message: format!("the request does not read: {}", chain(&fault)) }
        }
    };
    if let PlanReply::Unavailable { message } = &reply {
        warn!(%subject, message, "no answer to a request");
    }
    // Who asked asks again when nothing comes.
    if let Err(fault) = message.reply(&reply).await {
        debug!(%subject, error = chain(&fault), "the answer was not sent");
    }
}
