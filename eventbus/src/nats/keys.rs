//! The keys of the bus, on its administrator's side. The operator says which accounts there are, an account's key which users: the server knows the
//! operator's public key only, so whoever is added while it runs needs no change of its configuration.
//!
//! ```text
//! <folder>/operator.seed operator.jwt    the operator's key, and what it says of itself
//!          accounts/NAME.seed            the accounts' keys
//!          ROLE.creds                    the services' users
//!          agents/NAME.creds             the users of agents on this machine
//!          enrolment/                    what enrolling an agent takes, and no more: see `Enrolment`
//! ```
//!
//! **Invariants:** whatever holds a seed is for its owner's eyes; opening it again changes no key, and no JWT that says what it must.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use model::{AgentClass, AgentName, protocol::enrolment::AgentTrust};
use nkeys::{KeyPair, KeyPairType};
use serde_json::{Value, json};
use service::clock;

use super::{
    enrolment::{Enrolment, EnrolmentError, Record, Token},
    jwt::{self, Statement},
    permissions::{self, Permissions},
    server,
};
use crate::subject::Role;

/// What a file of credentials ends with.
const CREDENTIALS: &str = "creds";
/// Subscriptions of one agent: its inbox, its class, the answers to its questions, and some to spare.
const AGENT_SUBSCRIPTIONS_MAX: u32 = 16;
/// What stands for "as much as the server allows" in claims.
const UNLIMITED: i32 = -1;

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file or folder cannot be read or written.
    #[error("cannot keep a key in {}", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is there, and holds no such key.
    #[error("{} holds no {kind} key: move it away, and a new one is made", .path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// What it should hold.
        kind: &'static str,
    },
    /// A key cannot sign.
    #[error("a key cannot sign")]
    Sign(#[from] nkeys::error::Error),
    /// The record of agents.
    #[error(transparent)]
    Enrolment(#[from] EnrolmentError),
}

/// An account of the server: what is said in one is heard in another only where both say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Account {
    /// The server's own, through which accounts are changed while it runs.
    System,
    /// The services', which alone has streams.
    Core,
    /// The agents': it sees nothing of the services' but what is exported to it, and has no stream.
    Agents,
}

impl Account {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::System, Self::Core, Self::Agents];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "SYS",
            Self::Core => "CORE",
            Self::Agents => "AGENTS",
        }
    }
}

/// The keys of the operator, the accounts, the services, and the agents of this machine.
#[derive(Debug)]
pub struct Keys {
    folder: PathBuf,
    operator: KeyPair,
    operator_jwt: String,
    accounts: BTreeMap<Account, KeyPair>,
    enrolment: Enrolment,
}

impl Keys {
    /// Reads the keys in `folder`, and makes those that are missing.
    pub fn open(folder: &Path) -> Result<Self, KeyError> {
        for inner in ["accounts", "agents", "enrolment"] {
            create_folder(&folder.join(inner))?;
        }
        let operator = load_or_create(&folder.join("operator.seed"), &KeyPairType::Operator, "operator's")?;
        let mut accounts = BTreeMap::new();
        for account in Account::ALL {
            let seed = folder.join(format!("accounts/{}.seed", account.name()));
            accounts.insert(account, load_or_create(&seed, &KeyPairType::Account, "account's")?);
        }
        let enrolment = Enrolment::create(&folder.join("enrolment"), accounts[&Account::Agents].public_key())?;
        let statement = Statement::new(
            "operator",
            &operator.public_key(),
            "otto",
            json!({ "system_account": accounts[&Account::System].public_key() }),
        );
        let operator_jwt = said(&folder.join("operator.jwt"), &statement, &operator)?;
        let keys = Self { folder: folder.to_owned(), operator, operator_jwt, accounts, enrolment };
        keys.write_accounts()?;
        for role in Role::ALL {
            keys.write_user(&keys.service_credentials_file(role), Account::Core, role.name(), &permissions::of_service(role))?;
        }
        keys.write_user(&keys.enrolment.system_credentials_file(), Account::System, "system", &permissions::of_system())?;
        Ok(keys)
    }

    /// Makes a key for an agent of this machine that has none yet, and enrols it.
    pub fn enrol(&self, agent: &AgentName, class: &AgentClass, trust: AgentTrust) -> Result<(), KeyError> {
        let file = self.agent_credentials_file(agent);
        let before = fs::read_to_string(&file).ok();
        let before = before.as_deref().and_then(jwt::read_credentials);
        let user = before.and_then(|(_, seed)| KeyPair::from_seed(seed).ok()).unwrap_or_else(KeyPair::new_user);
        if let Some(token) = self.enrolment.admit(agent, class, trust, &user, before.map(|(token, _)| token))? {
            write_secret(&file, &jwt::credentials(&token, &user.seed()?))?;
        }
        // A key that it had before is worth nothing any more. Where there was none, the accounts say what they said, and nobody reads all records for it.
        if self.enrolment.has_revoked_keys(agent)? {
            self.write_accounts()?;
        }
        Ok(())
    }

    /// Makes a token with which an agent on another machine enrols itself, once, and before it expires. What it will be is said here.
    pub fn invite(&self, agent: &AgentName, class: &AgentClass, trust: AgentTrust) -> Result<Token, KeyError> {
        Ok(self.enrolment.invite(agent, class, trust)?)
    }

    /// Takes an agent's right to use the bus away. The server knows of it when the account's JWT was pushed to it.
    pub fn revoke(&self, agent: &AgentName) -> Result<Record, KeyError> {
        let record = self.enrolment.revoke(agent)?;
        self.write_accounts()?;
        Ok(record)
    }

    /// What the eventbus role is given of all this.
    pub fn enrolment(&self) -> &Enrolment {
        &self.enrolment
    }

    /// What the operator says of itself.
    pub fn operator_jwt(&self) -> &str {
        &self.operator_jwt
    }

    /// What the operator says of the accounts, by their public keys.
    pub fn account_jwts(&self) -> BTreeMap<String, String> {
        Account::ALL.into_iter().filter_map(|account| Some((self.public(account), self.enrolment.account_jwt(account)?))).collect()
    }

    /// A configuration of nats-server that this operator has made, with its accounts as they are now: for whenever the server starts next.
    pub fn refresh(&self, config: &str) -> Result<String, serde_json::Error> {
        let mut config: Value = serde_json::from_str(config)?;
        config["resolver_preload"] = json!(self.account_jwts());
        Ok(server::text_of(&config))
    }

    /// The public key of an account.
    pub fn public(&self, account: Account) -> String {
        self.accounts[&account].public_key()
    }

    /// Where a service's credentials lie.
    pub fn service_credentials_file(&self, role: Role) -> PathBuf {
        self.folder.join(format!("{role}.{CREDENTIALS}"))
    }

    /// Where the credentials of an agent of this machine lie.
    pub fn agent_credentials_file(&self, agent: &AgentName) -> PathBuf {
        self.folder.join(format!("agents/{agent}.{CREDENTIALS}"))
    }

    /// What the operator says of each account now.
    fn write_accounts(&self) -> Result<(), KeyError> {
        for account in Account::ALL {
            let nats = match account {
                Account::System => json!({ "limits": limits(json!({})) }),
                Account::Core => json!({
                    // Streams on disk as many as it wants, bounded by the server's store; none in memory.
                    "limits": limits(json!({ "disk_storage": UNLIMITED, "streams": UNLIMITED, "consumer": UNLIMITED })),
                    "exports": exports(permissions::to_agents()),
                    "imports": imports(permissions::from_agents(), &self.public(Account::Agents)),
                }),
                Account::Agents => json!({
                    "limits": limits(json!({})),
                    "exports": exports(permissions::from_agents()),
                    "imports": imports(permissions::to_agents(), &self.public(Account::Core)),
                    "signing_keys": [self.agents_scope()],
                    "revocations": self.enrolment.revocations()?,
                }),
            };
            let statement = Statement::new("account", &self.public(account), account.name(), nats);
            said(&self.enrolment.account_file(account), &statement, &self.operator)?;
        }
        Ok(())
    }

    /// All that the key of enrolment can allow anybody.
    fn agents_scope(&self) -> Value {
        let mut template = claims_of(&permissions::of_agents());
        template["subs"] = AGENT_SUBSCRIPTIONS_MAX.into();
        json!({ "kind": "user_scope", "key": self.enrolment.signer().public_key(), "role": "agent", "template": template })
    }

    fn write_user(&self, path: &Path, account: Account, name: &str, permissions: &Permissions) -> Result<(), KeyError> {
        let issuer = &self.accounts[&account];
        let before = fs::read_to_string(path).ok();
        let before = before.as_deref().and_then(jwt::read_credentials);
        let user = before.and_then(|(_, seed)| KeyPair::from_seed(seed).ok()).unwrap_or_else(KeyPair::new_user);
        let statement = Statement::new("user", &user.public_key(), name, claims_of(permissions));
        if before.is_some_and(|(token, _)| statement.is_said_by(token, issuer)) {
            return Ok(());
        }
        write_secret(path, &jwt::credentials(&statement.sign(issuer, now_s())?, &user.seed()?))
    }
}

/// The key of a user that is about to enrol itself: made on its own machine, which its seed does not leave. It is kept until the user has its
/// credentials, so that it can ask again where the answer was lost.
#[derive(Debug)]
pub struct UserKey {
    file: PathBuf,
    pair: KeyPair,
}

impl UserKey {
    /// Reads the key that waits in this folder for its credentials; folder and key are made if they are missing.
    pub fn open(folder: &Path) -> Result<Self, KeyError> {
        create_folder(folder)?;
        let file = folder.join("agent.seed");
        let pair = load_or_create(&file, &KeyPairType::User, "user's")?;
        Ok(Self { file, pair })
    }

    /// What others know it by.
    pub fn public_key(&self) -> String {
        self.pair.public_key()
    }

    /// Writes the file of credentials, in which the seed lies from then on alone: whoever enrols again has a new key.
    pub fn become_credentials(self, jwt: &str, file: &Path) -> Result<(), KeyError> {
        write_secret(file, &jwt::credentials(jwt, &self.pair.seed()?))?;
        fs::remove_file(&self.file).map_err(|source| KeyError::Io { path: self.file, source })
    }
}

/// What a user may, as claims.
fn claims_of(permissions: &Permissions) -> Value {
    json!({
        "pub": { "allow": permissions.publish },
        "sub": { "allow": permissions.subscribe },
        "subs": UNLIMITED, "data": UNLIMITED, "payload": UNLIMITED,
    })
}

/// The limits of an account with `more`; no leaf node, and no stream unless it is said.
fn limits(mut more: Value) -> Value {
    for name in ["subs", "data", "payload", "imports", "exports", "conn"] {
        more[name] = UNLIMITED.into();
    }
    more["wildcards"] = true.into();
    more
}

fn exports(subjects: Vec<String>) -> Vec<Value> {
    subjects.into_iter().map(|subject| json!({ "name": subject, "subject": subject, "type": "stream" })).collect()
}

fn imports(subjects: Vec<String>, from: &str) -> Vec<Value> {
    subjects.into_iter().map(|subject| json!({ "name": subject, "subject": subject, "account": from, "type": "stream" })).collect()
}

/// The JWT in a file, which is signed anew if it does not say what it must.
fn said(path: &Path, statement: &Statement, issuer: &KeyPair) -> Result<String, KeyError> {
    if let Ok(text) = fs::read_to_string(path)
        && statement.is_said_by(&text, issuer)
    {
        return Ok(text);
    }
    let text = statement.sign(issuer, now_s())?;
    write_secret(path, &text)?;
    Ok(text)
}

/// The key of the seed in this file, which is made if it is missing.
pub(super) fn load_or_create(path: &Path, kind: &KeyPairType, what: &'static str) -> Result<KeyPair, KeyError> {
    match fs::read_to_string(path) {
        Ok(seed) => {
            let pair = KeyPair::from_seed(seed.trim()).ok().filter(|pair| pair.key_pair_type() == *kind);
            pair.ok_or_else(|| KeyError::Malformed { path: path.to_owned(), kind: what })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let pair = KeyPair::new(kind.clone());
            write_secret(path, &pair.seed()?)?;
            Ok(pair)
        }
        Err(source) => Err(KeyError::Io { path: path.to_owned(), source }),
    }
}

pub(super) fn create_folder(path: &Path) -> Result<(), KeyError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| KeyError::Io { path: path.to_owned(), source })
}

/// Writes a file for its owner's eyes, whole or not at all.
pub(super) fn write_secret(path: &Path, text: &str) -> Result<(), KeyError> {
    service::file::write_secret(path, text).map_err(|source| KeyError::Io { path: path.to_owned(), source })
}

pub(super) fn now_s() -> u64 {
    clock::unix_ms() / 1000
}
