//! The accounts of a running server: what the operator says of them is told to it through its own account, and holds at once. Who was revoked is
//! disconnected by that.

use std::{fs, sync::Arc};

use async_nats::Subscriber;
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::Deserialize;

use super::{
    Account, Enrolment,
    connection::{CALL_DEADLINE, Connection, Identity, NatsOptions, refused, unavailable},
    jwt,
    permissions::account_update,
};
use crate::BusError;

/// What the server says when it has taken it.
const UPDATED: &str = "jwt updated";
/// What it says when it has not loaded the account. Of a cluster all servers hear it, and the first answer may be that of one that none of the
/// account's users is connected to.
const SKIPPED: &str = "jwt update skipped";

/// Why the server does not know of an account what it should.
#[derive(Debug, thiserror::Error)]
pub enum AccountsError {
    /// The folder of the enrolment has no credentials for it, or no account.
    #[error("{0} is missing: `otto up` on the administrator's folder makes it")]
    Missing(String),
    /// The server does not take it.
    #[error("nats-server does not take what the operator says of account {account}: {answer}")]
    Refused {
        /// Which.
        account: &'static str,
        /// What the server says.
        answer: String,
    },
    /// There is no connection.
    #[error(transparent)]
    Bus(#[from] BusError),
}

impl AccountsError {
    /// Whether the same may succeed later without anybody's doing.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Bus(BusError::Unavailable { .. }) => true,
            Self::Missing(_) | Self::Refused { .. } | Self::Bus(_) => false,
        }
    }
}

/// What the server answers.
#[derive(Debug, Deserialize)]
struct Answer {
    data: Option<Data>,
}

#[derive(Debug, Deserialize)]
struct Data {
    message: String,
}

/// Hears when the server is told something of an account.
#[derive(Debug)]
pub struct Changes(Subscriber);

impl Changes {
    /// The next change; `None` when the connection is closed for good. What is said is not looked at: the folder is the truth.
    pub async fn next(&mut self) -> Option<()> {
        self.0.next().await.map(drop)
    }
}

/// A connection of the server's own account, which can do nothing but tell of accounts.
#[derive(Debug)]
pub struct Accounts {
    connection: Connection,
    enrolment: Arc<Enrolment>,
    /// Whether there are several servers.
    is_cluster: bool,
}

impl Accounts {
    /// Connects with the credentials that lie in the folder of the enrolment.
    pub async fn connect(urls: &[String], enrolment: Arc<Enrolment>) -> Result<Self, AccountsError> {
        let file = enrolment.system_credentials_file();
        let credentials = fs::read_to_string(&file).map_err(|_| AccountsError::Missing(file.display().to_string()))?;
        let options = NatsOptions { urls: urls.to_vec(), credentials, identity: Identity::System };
        Ok(Self { connection: Connection::open(&options).await?, enrolment, is_cluster: urls.len() > 1 })
    }

    /// The public key of an account, and what the operator says of it.
    pub(super) fn wanted(&self, account: Account) -> Option<(String, String)> {
        let text = self.enrolment.account_jwt(account)?;
        Some((jwt::subject(&text)?, text))
    }

    /// Begins to hear when the server is told something of an account, by whomever. While the connection is away nothing is heard.
    pub async fn changes(&self, account: Account) -> Result<Changes, AccountsError> {
        let (key, _) = self.known(account)?;
        let doing = || format!("listening to changes of account {}", account.name());
        let subscribed = self.connection.during(doing, CALL_DEADLINE, self.connection.client.subscribe(account_update(&key))).await?;
        let changes = subscribed.map_err(|error| refused(doing(), error))?;
        self.connection.barrier().await?;
        Ok(Changes(changes))
    }

    fn known(&self, account: Account) -> Result<(String, String), AccountsError> {
        self.wanted(account).ok_or_else(|| AccountsError::Missing(format!("what the operator says of {}", account.name())))
    }

    /// Tells the server what the operator says of an account. When this returns, it holds, and whoever was revoked is cut off.
    pub async fn push(&self, account: Account) -> Result<(), AccountsError> {
        let (key, text) = self.known(account)?;
        let doing = || format!("account {}", account.name());
        let request = async_nats::Request::new().payload(Bytes::from(text));
        let answer = self.connection.request(doing, CALL_DEADLINE, &account_update(&key), request).await?;
        let answer = answer.ok_or_else(|| unavailable(doing(), "the server does not hear it: is the system account set?"))?;
        match serde_json::from_slice(&answer) {
            // "skipped" is said with the same code, where the server knows no such account.
            Ok(Answer { data: Some(Data { message }) }) if message == UPDATED || (self.is_cluster && message == SKIPPED) => Ok(()),
            Ok(Answer { .. }) | Err(_) => {
                Err(AccountsError::Refused { account: account.name(), answer: String::from_utf8_lossy(&answer).into_owned() })
            }
        }
    }
}
