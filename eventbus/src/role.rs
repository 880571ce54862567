//! The eventbus role: sets up the streams, and watches that the server stays as it must be.

mod http;
mod renewals;
mod revocations;
mod roll;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use service::{OnError, Supervisor, supervisor::chain};
use tokio::{
    sync::Notify,
    time::{MissedTickBehavior, interval},
};
use tracing::{info, warn};

use crate::{
    BusError,
    nats::{
        Account, Enrolment, NatsOptions,
        setup::{Progress, Servers, Setup, SetupError},
    },
};

pub use self::http::{Directions, EnrolmentAnswer, EnrolmentRequest};
use self::{
    http::{Health, Office},
    renewals::Renewals,
    revocations::Revocations,
    roll::RollKeeper,
};

/// Between two looks at the server. Nothing waits for it: what it finds is an operator's doing.
const WATCH_PERIOD: Duration = Duration::from_secs(10);

/// What the role needs to know.
#[derive(Debug)]
pub struct EventbusOptions {
    /// The connection, with the eventbus service's credentials.
    pub nats: NatsOptions,
    /// The servers, each with where it tells how it is (`http` of its configuration).
    pub servers: Servers,
    /// What the administrator says of accounts and agents.
    pub enrolment: Enrolment,
    /// Where it listens for HTTP; port 0 is any free one.
    pub listen: SocketAddr,
    /// What agents are told that enrol themselves.
    pub directions: Directions,
}

/// Why the role did not start.
#[derive(Debug, thiserror::Error)]
pub enum RoleError {
    /// The bus cannot be used.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// It cannot listen.
    #[error("the eventbus role cannot listen on {listen}")]
    Listen {
        /// Where.
        listen: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
}

/// Sets the bus up; when this returns, it can be used. The supervisor's task then watches it, and ends the process when the server is no
/// longer one that keeps what it acknowledges.
pub async fn run(options: EventbusOptions, supervisor: &Supervisor) -> Result<SocketAddr, RoleError> {
    let enrolment = Arc::new(options.enrolment);
    let setup = Setup::connect(&options.nats, options.servers, enrolment.clone()).await?;
    setup.begin().await?;
    info!("the bus is set up");
    let health = Health::default();
    let admitted = Arc::new(Notify::new());
    let office =
        Office { enrolment: enrolment.clone(), directions: options.directions, health: health.clone(), admitted: admitted.clone() };
    let address = http::serve(options.listen, office, supervisor).map_err(|source| RoleError::Listen { listen: options.listen, source })?;
    let mut changes = setup.accounts().changes(Account::Agents).await.map_err(SetupError::from)?;
    let keeper = RollKeeper::open(enrolment.clone(), setup.bus(), admitted.clone()).await.map_err(SetupError::from)?;
    let keeping = supervisor.clone();
    supervisor.spawn("eventbus: roll", OnError::Shutdown, async move { Ok(keeper.work(&keeping).await?) });
    let renewals = Renewals::open(enrolment.clone(), setup.bus()).await.map_err(SetupError::from)?;
    let renewing = supervisor.clone();
    supervisor.spawn("eventbus: renewals", OnError::Shutdown, async move { Ok(renewals.work(&renewing).await?) });
    let mut revocations = Revocations::new(enrolment, setup.bus());
    let token = supervisor.token().clone();
    supervisor.spawn("eventbus", OnError::Shutdown, async move {
        let mut last = Progress::default();
        let mut looks = interval(WATCH_PERIOD);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Between two looks, and never in the middle of one.
            let changed = tokio::select! {
                () = token.cancelled() => return Ok(()),
                changed = changes.next() => Some(changed),
                _ = looks.tick() => None,
            };
            match changed {
                Some(Some(())) => admitted.notify_one(),
                Some(None) => return if token.is_cancelled() { Ok(()) } else { Err(BusError::Closed.into()) },
                None => look(&setup, &mut last, &health).await?,
            }
            revocations.tell().await;
        }
    });
    Ok(address)
}

/// Looks once; an error is one that does not pass by itself.
async fn look(setup: &Setup, last: &mut Progress, health: &Health) -> Result<(), SetupError> {
    // What the server complains of is told also where it hinders the check.
    let mut problems = setup.symptoms(last).await.unwrap_or_else(|error| vec![chain(&error)]);
    match setup.check().await {
        Ok(()) => {}
        Err(error) if error.is_passing() => problems.push(chain(&error)),
        Err(error) => return Err(error),
    }
    problems.dedup();
    let problem = (!problems.is_empty()).then(|| problems.join("; "));
    match &problem {
        Some(problem) => warn!(problem, "the bus is not well"),
        None if health.get().is_some() => info!("the bus is well again"),
        None => {}
    }
    health.set(problem);
    Ok(())
}
