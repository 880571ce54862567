//! The user of an agent ends, and is renewed before: the agent asks for it over the bus when half of its life is over, and again until it is answered.
//!
//! ```text
//! agent ── enrolment.renew.NAME ──▶ eventbus (record, key of enrolment)
//!       ◀── enrolment.renewed.NAME ── JWT of the same key, which ends later
//! ```
//!
//! **Invariants:** the seed stays where it is, and its file is not written: a file that stages must not see is hidden by what is mounted over it, which
//! a file in its place would not be. What is renewed is kept in a file of its own before it is used.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use model::{
    AgentName,
    protocol::enrolment::{RenewalReply, RenewalRequest},
};
use service::{file::write_secret, supervisor::chain};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    backend::Nats,
    connection::{Connection, Identity, NatsOptions, UserEnded},
    jwt::{self, Life},
    keys::now_s,
};
use crate::{Bus, BusError, Message, Subject, Subscription};

/// Between two times that an agent asks, where nobody answers.
const ASK_PAUSE: Duration = Duration::from_secs(5);
/// Between two looks at the clock: that of a machine that was asleep has gone on, and what waits has not.
const LOOK_PERIOD: Duration = Duration::from_mins(1);
/// Of the first half of a life, the part over which agents spread their asking: a fleet that was enrolled by one script does not come back at once.
const SPREAD: u64 = 8;
/// Where the renewed JWT lies, in the agent's data folder.
const FILE: &str = "bus-user.jwt";

/// What keeps an agent's user from ending.
#[derive(Debug)]
pub struct Renewal {
    agent: AgentName,
    bus: Bus,
    connection: Connection,
    answers: Subscription,
    file: PathBuf,
}

/// Connects as an agent. Its renewed user is kept in `data`; whichever ends later is used, that or the one of its credentials. [`Renewal::work`] must be
/// at work as long as the bus is used.
pub async fn connect_agent(agent: &AgentName, options: &NatsOptions, data: &Path) -> Result<(Bus, Renewal), BusError> {
    let file = data.join(FILE);
    let mut options = NatsOptions { identity: Identity::Agent(agent.clone()), ..options.clone() };
    if let Some(renewed) = renewed(&options.credentials, &file) {
        options.credentials = renewed;
    }
    let connection = Connection::open(&options).await?;
    let bus = Bus::new(Nats::new(connection.clone()));
    let answers = bus.subscribe(Subject::renewed(agent)).await?;
    Ok((bus.clone(), Renewal { agent: agent.clone(), bus, connection, answers, file }))
}

/// The credentials with the JWT of this file, if it speaks of the same key and ends later.
fn renewed(credentials: &str, file: &Path) -> Option<String> {
    let (given, seed) = jwt::read_credentials(credentials)?;
    let kept = match fs::read_to_string(file) {
        Ok(kept) => kept,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            warn!(file = %file.display(), %error, "the renewed user cannot be read: that of the credentials is used");
            return None;
        }
    };
    is_later(&kept, given).then(|| jwt::credentials(&kept, seed))
}

/// Whether one JWT speaks of the same key as another, and ends later. What never ends was signed before users ended, and is to be replaced by one that does.
fn is_later(one: &str, other: &str) -> bool {
    let until = |jwt| jwt::life(jwt).and_then(|life| life.until_s);
    jwt::subject(one).is_some() && jwt::subject(one) == jwt::subject(other) && until(one).is_some() && until(one) > until(other)
}

impl Renewal {
    /// Renews the user whenever it must be, until the token ends it. An error is that it has ended, and the server refuses it.
    pub async fn work(mut self, token: CancellationToken) -> Result<(), UserEnded> {
        let mut asks_at = Instant::now();
        loop {
            let life = self.life();
            tokio::select! {
                () = token.cancelled() => return Ok(()),
                () = sleep_until(asks_at) => asks_at = Instant::now() + self.ask(life).await,
                message = self.answers.next() => match message {
                    Some(message) => if self.take(&message).await { asks_at = Instant::now() },
                    // The bus is closed.
                    None => return Ok(()),
                },
                () = self.connection.refused(), if life.is_over(now_s()) => return Err(UserEnded { agent: self.agent }),
            }
        }
    }

    fn life(&self) -> Life {
        jwt::life(&self.connection.user.jwt()).unwrap_or(Life { from_s: 0, until_s: None })
    }

    /// Asks, if it is time; says when to look again.
    async fn ask(&self, life: Life) -> Duration {
        let wait = Duration::from_secs(due_s(&self.agent, life).saturating_sub(now_s()));
        if !wait.is_zero() {
            return wait.min(LOOK_PERIOD);
        }
        debug!("the agent's user is to be renewed");
        if let Err(error) = self.bus.publish(&Subject::renew(&self.agent), &RenewalRequest {}).await {
            debug!(error = chain(&error), "it cannot be asked for now");
        }
        if let Some(until_s) = life.until_s {
            let left_s = until_s.saturating_sub(now_s());
            if left_s < (until_s - life.from_s.min(until_s)) / 4 {
                warn!(left_s, "the agent's user ends soon, and is not renewed: is the eventbus role there?");
            }
        }
        ASK_PAUSE
    }

    /// Whether a renewed user was taken.
    async fn take(&self, message: &Message) -> bool {
        let jwt = match message.read() {
            Ok(RenewalReply::Signed { jwt }) => jwt,
            Ok(RenewalReply::Refused { message }) => {
                warn!(why = message, "the agent's user is not renewed");
                return false;
            }
            Err(error) => {
                warn!(error = chain(&error), "not an answer about the agent's user");
                return false;
            }
        };
        let user = &self.connection.user;
        if jwt::subject(&jwt) != Some(user.public_key()) || !is_later(&jwt, &user.jwt()) {
            debug!("this user is another's, or ends no later: an answer that came twice");
            return false;
        }
        if let Err(error) = write_secret(&self.file, &jwt) {
            warn!(file = %self.file.display(), %error, "the renewed user cannot be kept: it is lost with this process");
        }
        user.set_jwt(jwt);
        info!(until_s = self.life().until_s, "the agent's user is renewed");
        // The server closes the connection of a user that has ended; this one it knows to end later only when it comes as that.
        if let Err(error) = self.connection.renew().await {
            debug!(error = chain(&error), "the connection is away: it comes back as the renewed user");
        }
        true
    }
}

/// When an agent asks: after half of the user's life, and before that by as much as its name says.
fn due_s(agent: &AgentName, life: Life) -> u64 {
    let half_s = life.half_s();
    let spread_s = half_s.saturating_sub(life.from_s) / SPREAD;
    let name = model::Digest::of(agent.as_str().as_bytes()).to_string();
    let place = name.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    half_s.saturating_sub(place % (spread_s + 1))
}

#[cfg(test)]
mod tests {
    use nkeys::KeyPair;
    use serde_json::json;

    use super::*;

    fn jwt_of(user: &KeyPair, until_s: Option<u64>) -> String {
        let life = Life { from_s: 1_000, until_s };
        jwt::Statement::new("user", &user.public_key(), "a1", json!({})).sign_with(&KeyPair::new_account(), life).unwrap()
    }

    #[test]
    fn agents_ask_in_the_last_eighth_of_the_first_half_and_not_all_at_once() {
        let life = Life { from_s: 1_000, until_s: Some(1_000 + 1_600) };
        let due: Vec<u64> = (0..100).map(|number| due_s(&format!("agent-{number}").parse().unwrap(), life)).collect();
        assert!(due.iter().all(|due| (1_700..=1_800).contains(due)), "{due:?}");
        assert!(due.iter().collect::<std::collections::BTreeSet<_>>().len() > 30, "{due:?}");
        let agent = "a1".parse().unwrap();
        assert_eq!(due_s(&agent, Life { from_s: 1_000, until_s: None }), 0, "what never ends is replaced at once");
    }

    #[test]
    fn of_two_users_of_one_key_the_one_that_ends_later_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let (file, user, other) = (folder.path().join(FILE), KeyPair::new_user(), KeyPair::new_user());
        let seed = user.seed().unwrap();
        let given = |until_s| jwt::credentials(&jwt_of(&user, until_s), &seed);
        assert_eq!(renewed(&given(Some(2_000)), &file), None, "nothing is kept");
        fs::write(&file, jwt_of(&user, Some(3_000))).unwrap();
        let used = renewed(&given(Some(2_000)), &file).unwrap();
        assert_eq!(jwt::life(jwt::read_credentials(&used).unwrap().0).unwrap().until_s, Some(3_000));
        assert_eq!(jwt::read_credentials(&used).unwrap().1, seed);
        assert!(renewed(&given(None), &file).is_some(), "one that ends takes the place of one that does not");
        assert_eq!(renewed(&given(Some(4_000)), &file), None, "`otto up` has signed another");
        for useless in [jwt_of(&other, Some(9_000)), jwt_of(&user, None), "torn".to_owned()] {
            fs::write(&file, useless).unwrap();
            assert_eq!(renewed(&given(Some(2_000)), &file), None);
        }
    }
}
