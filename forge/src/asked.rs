//! Runs of a project's own code that somebody asks for: the orchestrator, which knows who may, asks over the bus.
//!
//! What was begun for somebody goes on when they do not wait any more: asked again, under the same id, it is the same run.

use std::{collections::BTreeMap, sync::Arc};

use eventbus::{BusError, Subscription, bus::Message};
use model::{
    ProjectName,
    protocol::forge::{ProjectRunReply, ProjectRunRequest},
};
use service::supervisor::{TaskError, chain};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use crate::accept::{AcceptError, Acceptor};

/// Requests that are worked on at once. Each may be a process of git that waits for a server.
const ASKED_MAX: usize = 16;
/// Those of one project: a source that does not answer holds up no other.
const OF_PROJECT_MAX: usize = 4;

/// Answers requests until it is cancelled.
pub(crate) async fn serve(mut requests: Subscription, acceptor: Arc<Acceptor>, cancelled: CancellationToken) -> Result<(), TaskError> {
    let places = |project: &ProjectName| (project.clone(), Arc::new(Semaphore::new(OF_PROJECT_MAX)));
    let (all, of_project) = (Arc::new(Semaphore::new(ASKED_MAX)), acceptor.names().map(places).collect::<BTreeMap<_, _>>());
    let mut work = JoinSet::new();
    loop {
        tokio::select! {
            // What is cut short here is asked again by whoever wants it.
            () = cancelled.cancelled() => return Ok(()),
            message = requests.next() => {
                let message = message.ok_or(BusError::Closed)?;
                let request = message.read::<ProjectRunRequest>();
                let own = request.as_ref().ok().and_then(|request| of_project.get(&request.project));
                let places = own.into_iter().chain([&all]).map(|places| places.clone().try_acquire_owned());
                // Without a place, the answer costs nothing.
                let places = places.collect::<Result<Vec<_>, _>>().map_err(drop);
                work.spawn(answer(message, request, places, acceptor.clone()));
            }
            Some(ended) = work.join_next() => if let Err(fault) = ended {
                error!(error = chain(&fault), "the answer to a request for a run was lost");
            },
        }
    }
}

async fn answer(
    message: Message,
    request: Result<ProjectRunRequest, BusError>,
    places: Result<Vec<OwnedSemaphorePermit>, ()>,
    acceptor: Arc<Acceptor>,
) {
    let reply = match (request, &places) {
        (Err(fault), _) => ProjectRunReply::Unavailable { message: format!("the request does not read: {}", chain(&fault)) },
        (Ok(_), Err(())) => ProjectRunReply::Unavailable { message: "as many runs are asked for as may be at once".to_owned() },
        (Ok(request), Ok(_held)) => match acceptor.accept_asked(&request).await {
            Ok(reply) => reply,
            Err(fault) => {
                warn!(project = %request.project, error = chain(&fault), "a run that was asked for is not accepted");
                reply_of(&fault)
            }
        },
    };
    // Who asked asks again when nothing comes.
    if let Err(fault) = message.reply(&reply).await {
        debug!(error = chain(&fault), "the answer was not sent");
    }
}

fn reply_of(fault: &AcceptError) -> ProjectRunReply {
    let message = chain(fault);
    if fault.is_final() { ProjectRunReply::Refused { message } } else { ProjectRunReply::Unavailable { message } }
}
