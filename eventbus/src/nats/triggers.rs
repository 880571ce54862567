//! The consumer of stored triggers: a durable one on the server, shared by all orchestrators, and a pump for each that keeps up the
//! connection to it and says of every trigger in work that it is in work.
//!
//! ```text
//! server ──batch──▶ pump ──▶ channel ──▶ Triggers::next ──▶ TriggerDelivery::done ──▶ server (ack)
//!   ▲                │ in progress, every third of the ack wait, while a delivery lives; nak when it was dropped undone
//!   └────────────────┘
//! ```

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::{
    AckKind,
    consumer::{PullConsumer, pull},
};
use async_trait::async_trait;
use futures_util::{FutureExt as _, StreamExt as _};
use model::Timestamp;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use super::{
    backend::send,
    connection::{CALL_DEADLINE, Connection, unavailable},
    permissions::TRIGGER_CONSUMER,
};
use crate::{
    BusError, Subject, TriggerDelivery, Triggers,
    bus::{TRIGGER_ACK_WAIT, TRIGGER_RETRY_PAUSE, TriggerAck},
    subject::Stream,
};

/// Triggers that wait in this process. More would be kept from the other orchestrators.
const WAITING_MAX: usize = 16;
/// The server says that it is there every so often; after two of these without a word the consumer is looked up anew.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// How long one request for triggers stands on the server.
const PULL_EXPIRES: Duration = Duration::from_secs(30);
/// Between two tries to reach the consumer.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

pub(super) fn consume(connection: Connection) -> Triggers {
    let (sender, mut receiver) = mpsc::channel(WAITING_MAX);
    let mut pump = JoinSet::new();
    pump.spawn(run(connection, sender));
    let deliveries = futures_util::stream::poll_fn(move |context| {
        // The pump ends with what it pumps for.
        let _alive = &pump;
        receiver.poll_recv(context)
    });
    Triggers { deliveries: Box::pin(deliveries) }
}

/// Reaches the consumer again and again, until nobody takes triggers any more.
async fn run(connection: Connection, deliveries: mpsc::Sender<TriggerDelivery>) {
    let mut held = JoinSet::new();
    while !deliveries.is_closed() {
        match pump(&connection, &deliveries, &mut held).await {
            Ok(()) => return,
            Err(error) => debug!(error = service::supervisor::chain(&error), "the consumer of triggers is looked up anew"),
        }
        sleep(RETRY_PAUSE).await;
    }
}

/// Delivers until the consumer cannot be reached, or nobody takes triggers.
async fn pump(connection: &Connection, deliveries: &mpsc::Sender<TriggerDelivery>, held: &mut JoinSet<()>) -> Result<(), BusError> {
    let mut messages = open(connection).await?;
    let lost = connection.lost();
    tokio::pin!(lost);
    loop {
        while held.try_join_next().is_some() {}
        // A trigger is taken from the server only when there is a place for it.
        let place = tokio::select! {
            place = deliveries.reserve() => place,
            () = &mut lost => return Err(unavailable("triggers", "the connection was lost")),
        };
        let Ok(place) = place else { return Ok(()) };
        let message = tokio::select! {
            message = messages.next() => message,
            () = deliveries.closed() => return Ok(()),
            () = &mut lost => return Err(unavailable("triggers", "the connection was lost")),
        };
        let message = message.ok_or(BusError::Closed)?.map_err(|error| unavailable("triggers", error))?;
        let Some(reply) = message.reply.as_ref().map(|reply| Arc::<str>::from(reply.as_str())) else { continue };
        let subject = Subject::received(message.subject.to_string());
        let trigger = serde_json::from_slice(&message.payload).map_err(|source| BusError::Malformed { subject, source });
        let (released, release) = oneshot::channel();
        held.spawn(keep(connection.clone(), Arc::clone(&reply), release));
        let published = message.info().ok().map(|info| info.published.unix_timestamp_nanos() / 1_000_000);
        let stored_at = published.and_then(|ms| u64::try_from(ms).ok()).map(Timestamp);
        place.send(TriggerDelivery { trigger, stored_at, ack: Box::new(Ack { connection: connection.clone(), reply, released }) });
    }
}

async fn open(connection: &Connection) -> Result<pull::Stream, BusError> {
    let doing = || "the consumer of triggers".to_owned();
    let open = async {
        let consumer: PullConsumer = connection.jetstream.get_consumer_from_stream(TRIGGER_CONSUMER, Stream::Triggers.name()).await?;
        let stream = consumer.stream().max_messages_per_batch(WAITING_MAX).heartbeat(HEARTBEAT).expires(PULL_EXPIRES);
        Ok::<_, async_nats::Error>(stream.messages().await?)
    };
    connection.during(doing, CALL_DEADLINE, open.boxed()).await?.map_err(|error| unavailable(doing(), error))
}

/// Says that a trigger is in work while its delivery lives; and that it is not, when the delivery was dropped undone.
async fn keep(connection: Connection, reply: Arc<str>, mut release: oneshot::Receiver<()>) {
    let say = |kind: AckKind| send(&connection, reply.to_string(), kind.into());
    loop {
        match timeout(TRIGGER_ACK_WAIT / 3, &mut release).await {
            Ok(Ok(())) => return,
            Ok(Err(_dropped)) => {
                if let Err(error) = say(AckKind::Nak(Some(TRIGGER_RETRY_PAUSE))).await {
                    debug!(error = service::supervisor::chain(&error), "the trigger comes again after the ack wait");
                }
                return;
            }
            Err(_elapsed) => {
                if let Err(error) = say(AckKind::Progress).await {
                    warn!(error = service::supervisor::chain(&error), "a trigger in work may be delivered again");
                }
            }
        }
    }
}

struct Ack {
    connection: Connection,
    reply: Arc<str>,
    released: oneshot::Sender<()>,
}

#[async_trait]
impl TriggerAck for Ack {
    async fn done(self: Box<Self>) -> Result<(), BusError> {
        // An acknowledgement that is lost, or too late, lets the trigger come again, which its consumer must bear anyway.
        send(&self.connection, self.reply.to_string(), AckKind::Ack.into()).await?;
        let _pump_is_gone = self.released.send(());
        Ok(())
    }
}
