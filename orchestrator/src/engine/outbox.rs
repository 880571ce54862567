//! Soft messages on their way out. They leave in the order in which they were put in; what finds the box full is dropped, because
//! whatever caused it stands and says it again.

use eventbus::{
    Bus, Subject,
    signed::{self, CommandSigner},
};
use model::{
    AgentName,
    protocol::{
        agent::AgentCommand,
        auction::{AuctionRequest, Experience},
    },
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, trace};

/// Messages that wait for the bus: some seconds' worth of a busy orchestrator.
const OUTBOX_MESSAGES_MAX: usize = 16 * 1024;

/// A soft message.
#[derive(Debug)]
pub(crate) enum Letter {
    /// To an agent.
    Command(AgentName, AgentCommand),
    /// To the auctioneer.
    Auction(AuctionRequest),
    /// To every auctioneer.
    Ran(Experience),
}

/// Takes letters without waiting.
#[derive(Debug, Clone)]
pub(crate) struct Outbox(mpsc::Sender<Letter>);

/// The other end: what [`post`] empties.
pub(crate) type Letters = mpsc::Receiver<Letter>;

impl Outbox {
    pub(crate) fn new() -> (Self, Letters) {
        let (sender, letters) = mpsc::channel(OUTBOX_MESSAGES_MAX);
        (Self(sender), letters)
    }

    pub(crate) fn send(&self, letter: Letter) {
        if let Err(error) = self.0.try_send(letter) {
            debug!(%error, "a soft message was dropped");
        }
    }
}

/// Publishes letters until `token` is cancelled; commands signed, where there is a key.
pub(crate) async fn post(bus: Bus, mut letters: Letters, signer: Option<CommandSigner>, token: CancellationToken) {
    loop {
        let letter = tokio::select! {
            () = token.cancelled() => return,
            letter = letters.recv() => letter,
        };
        let Some(letter) = letter else { return };
        let sent = match letter {
            Letter::Command(agent, command) => {
                if let AgentCommand::Assign(assignment) = &command {
                    trace!(target: super::WATERFALL, point = "assigned", attempt = %assignment.lease.attempt);
                }
                let payload = signer.as_ref().map_or_else(|| signed::bare(&command), |signer| signer.seal(&agent, &command));
                bus.publish_bytes(&Subject::inbox(&agent), payload).await
            }
            Letter::Auction(request) => bus.publish(&Subject::for_auction(), &request).await,
            Letter::Ran(experience) => bus.publish(&Subject::ran(), &experience).await,
        };
        if let Err(error) = sent {
            debug!(%error, "a soft message was not sent");
        }
    }
}
