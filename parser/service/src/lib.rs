//! The parser role: takes a request from the bus, fetches what it names from the depot, and answers with the plan.
//!
//! ```text
//! bus ─ parser.* ───▶ serve ─ one task a request ─▶ answer ─▶ makers ─▶ worker (a process) ─▶ parser::plan
//! HTTP ─ /v1/parse ─────────────────────────────────────┘        └── at most PLANS_MAX at once
//! ```
//!
//! **Invariant:** the role adds nothing to what [`parser::plan`] says: [`answer`] gives the same for the same request, in any process. What
//! a file does to the parser, it does to a process that holds nothing else.

mod answer;
mod http;
mod makers;
mod material;
pub mod worker;

use std::{io, net::SocketAddr};

use blob::Blobs;
use eventbus::{Bus, BusError, Subject, Subscription, bus::Message};
use model::{
    manifest::StepLibrary,
    planning::{PlanReply, PlanRequest, TriggersReply, TriggersRequest},
};
use serde::Serialize;
use service::{OnError, Supervisor, supervisor::chain};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

pub use answer::{answer, answer_triggers};
pub use makers::{FELL_OVER, Isolation, Makers, OVER_LIMIT};

use makers::PLANS_MAX;

/// What the role is told.
#[derive(Debug, Clone)]
pub struct ParserOptions {
    /// The step libraries that may be used by name.
    pub libraries: Vec<StepLibrary>,
    /// Where plans are made.
    pub isolation: Isolation,
    /// Where to listen for HTTP; port 0 is any free one, and without an address nothing listens.
    pub listen: Option<SocketAddr>,
}

/// Why the role does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The bus does not carry its requests.
    #[error("cannot listen to requests")]
    Bus(#[from] BusError),
    /// The program for its plans cannot be started.
    #[error("cannot start a process for plans")]
    Maker(#[source] io::Error),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// Listens for requests; when this returns, they are heard. The supervisor's tasks answer them until they are told to end. Gives the
/// address of the HTTP server, if there is one.
pub async fn run(options: ParserOptions, bus: Bus, blobs: Blobs, supervisor: &Supervisor) -> Result<Option<SocketAddr>, StartError> {
    let ParserOptions { libraries, isolation, listen } = options;
    let makers = Makers::new(isolation, libraries);
    makers.warm().map_err(StartError::Maker)?;
    let address = match listen {
        Some(address) => Some(http::serve(address, makers.clone(), supervisor).map_err(|source| StartError::Listen { address, source })?),
        None => None,
    };
    let requests = [bus.subscribe_group(Subject::plan()).await?, bus.subscribe_group(Subject::triggers()).await?];
    let work = Work { blobs, makers };
    let token = supervisor.token().clone();
    supervisor.spawn("parser", OnError::Shutdown, async move { Ok(serve(requests, work, token).await?) });
    Ok(address)
}

/// What every request needs.
#[derive(Debug, Clone)]
struct Work {
    blobs: Blobs,
    makers: Makers,
}

async fn serve([mut requests, mut triggers]: [Subscription; 2], work: Work, token: CancellationToken) -> Result<(), BusError> {
    let mut plans = JoinSet::new();
    loop {
        tokio::select! {
            () = token.cancelled() => break,
            message = requests.next(), if plans.len() < PLANS_MAX => match message {
                Some(message) => drop(plans.spawn(respond(message, work.clone()))),
                None => return Err(BusError::Closed),
            },
            message = triggers.next(), if plans.len() < PLANS_MAX => match message {
                Some(message) => drop(plans.spawn(respond_triggers(message, work.clone()))),
                None => return Err(BusError::Closed),
            },
            Some(ended) = plans.join_next() => report(ended),
        }
    }
    // What was begun is answered; it takes a second at most, and the supervisor waits no longer than its grace.
    while let Some(ended) = plans.join_next().await {
        report(ended);
    }
    work.makers.end().await;
    Ok(())
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(fault) = ended {
        error!(error = chain(&fault), "the answer to a request was lost");
    }
}

async fn respond(message: Message, work: Work) {
    let reply = match message.read::<PlanRequest>() {
        Ok(request) => answer(&request, &work.blobs, &work.makers).await,
        Err(fault) => PlanReply::Unavailable { message: format!("the request does not read: {}", chain(&fault)) },
    };
    let unavailable = if let PlanReply::Unavailable { message } = &reply { Some(message.as_str()) } else { None };
    send(message, &reply, unavailable).await;
}

async fn respond_triggers(message: Message, work: Work) {
    let reply = match message.read::<TriggersRequest>() {
        Ok(request) => answer_triggers(&request, &work.blobs, &work.makers).await,
        Err(fault) => TriggersReply::Unavailable { message: format!("the request does not read: {}", chain(&fault)) },
    };
    let unavailable = if let TriggersReply::Unavailable { message } = &reply { Some(message.as_str()) } else { None };
    send(message, &reply, unavailable).await;
}

/// Sends the answer to a request, which may be that there is none.
async fn send<T: Serialize + Sync>(message: Message, reply: &T, unavailable: Option<&str>) {
    let subject = message.subject.clone();
    if let Some(message) = unavailable {
        warn!(%subject, message, "no answer to a request");
    }
    // Who asked asks again when nothing comes.
    if let Err(fault) = message.reply(reply).await {
        debug!(%subject, error = chain(&fault), "the answer was not sent");
    }
}
