//! The eventbus role: sets up the streams, and watches that the server stays as it must be.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use service::{OnError, Supervisor, supervisor::chain};
use tokio::time::sleep;
use tracing::{info, warn};

use crate::nats::{
    Enrolment, NatsOptions,
    setup::{Setup, SetupError},
};

/// Between two looks at the server. Nothing waits for it: what it finds is an operator's doing.
const WATCH_PERIOD: Duration = Duration::from_secs(10);

/// What the role needs to know.
#[derive(Debug)]
pub struct EventbusOptions {
    /// The connection, with the eventbus service's credentials.
    pub nats: NatsOptions,
    /// Where nats-server tells how it is (`http` of its configuration).
    pub monitor: SocketAddr,
    /// What the administrator says of accounts and agents.
    pub enrolment: Enrolment,
}

/// Sets the bus up; when this returns, it can be used. The supervisor's task then watches it, and ends the process when the server is no
/// longer one that keeps what it acknowledges.
pub async fn run(options: EventbusOptions, supervisor: &Supervisor) -> Result<(), SetupError> {
    let setup = Setup::connect(&options.nats, options.monitor, Arc::new(options.enrolment)).await?;
    setup.begin().await?;
    info!("the bus is set up");
    let token = supervisor.token().clone();
    supervisor.spawn("eventbus", OnError::Shutdown, async move {
        // Between two looks, and never in the middle of one.
        while token.run_until_cancelled(sleep(WATCH_PERIOD)).await.is_some() {
            match setup.check().await {
                Ok(()) => {}
                Err(error) if error.is_passing() => warn!(error = chain(&error), "the bus cannot be checked now"),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    });
    Ok(())
}
