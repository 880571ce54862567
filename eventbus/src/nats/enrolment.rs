//! Who may be an agent: invited by the administrator, admitted by the eventbus role, revoked by the administrator.
//!
//! ```text
//! invited ──token──▶ enrolled ──▶ revoked ──▶ invited again
//!
//! <folder>/signing.seed           signs agents' users; the server lets it allow what agents may, and no more
//!          system.creds           may tell the server what an account is from now on
//!          accounts/NAME.jwt      what the operator says of each account
//!          agents/NAME.json       one record each
//!          lock                   held while a record is changed
//! ```
//!
//! **Invariants:** name, class and trust are what the administrator said, whatever the agent says; a token is kept hashed, and admits one key; a key that
//! was revoked never comes back; whatever an agent is given ends, and is renewed for the key of its record only.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    str::FromStr,
    time::{Duration, SystemTime},
};

use data_encoding::BASE64URL_NOPAD;
use model::{
    AgentClass, AgentName, Digest, Timestamp,
    protocol::enrolment::{AgentTrust, Enrolled},
};
use nkeys::{KeyPair, KeyPairType};
use serde::{Deserialize, Serialize};
use serde_json::json;
use service::{clock, file::LockFile};

use super::{
    Account, KeyError,
    jwt::{self, Life, Statement},
    keys::{create_folder, load_or_create, now_s, write_secret},
};

/// How long a token can be used: long enough to carry it to a machine, too short to find it in an old shell history.
pub const TOKEN_LIFE: Duration = Duration::from_hours(1);
/// How long an agent's user lives, unless it is set: it is renewed when half of that is over, so an agent may be away over a long weekend, and the
/// bus without its eventbus role as long.
pub const USER_LIFE_DEFAULT: Duration = Duration::from_hours(7 * 24);
/// The shortest that may be set: of a minute, half is left for a renewal and for the clocks of two machines.
pub const USER_LIFE_MIN: Duration = Duration::from_mins(1);
/// Agents of which there is a record: ten times what one bus was tried with. A record has some 300 bytes.
pub const RECORDS_MAX: usize = 100_000;
/// Keys of one agent that were revoked and are remembered: JWTs that were signed before they ended are good for ever. All of them stand in the account's JWT.
const REVOKED_KEYS_MAX: usize = 64;
/// What a token begins with: its kind and version.
const PREFIX: &str = "otto-enrol-1";
/// Random bytes of a token.
const SECRET_BYTES: usize = 32;
/// The file that the administrator's key folder and the role share of an account's public key.
const AGENTS_ACCOUNT: &str = "agents.account";

/// Why an agent was not enrolled, or nothing is known of it.
#[derive(Debug, thiserror::Error)]
pub enum EnrolmentError {
    /// A file or folder cannot be read or written.
    #[error("cannot use {}", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A record does not read as one.
    #[error("{} is no record of an agent", .path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// What serde says.
        source: serde_json::Error,
    },
    /// A key cannot be kept or cannot sign.
    #[error("a key of the enrolment cannot be used")]
    Key(#[source] Box<KeyError>),
    /// The token is none, was used by another key, or its time is over. Which of them is not said: whoever tries tokens learns nothing.
    #[error("the token is wrong, was used, or has expired: ask the administrator for another (`otto agent enrol`)")]
    Token,
    /// What was sent is no public key of a user.
    #[error("this is no public key of a user")]
    PublicKey,
    /// There is no such agent.
    #[error("no agent {0} was enrolled or invited")]
    Unknown(AgentName),
    /// The agent works already.
    #[error("agent {0} is enrolled: revoke it before another machine gets its name (`otto agent revoke {0}`)")]
    Enrolled(AgentName),
    /// Too many.
    #[error("there are {RECORDS_MAX} agents already")]
    Full,
    /// Too many keys of this agent were revoked.
    #[error("{REVOKED_KEYS_MAX} keys of agent {0} were revoked: choose another name")]
    Worn(AgentName),
    /// No randomness for a token.
    #[error("the system gives no random bytes: {0}")]
    Randomness(getrandom::Error),
}

impl From<KeyError> for EnrolmentError {
    fn from(error: KeyError) -> Self {
        Self::Key(Box::new(error))
    }
}

/// A token as it is printed: `otto-enrol-1.<agent>.<secret>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    agent: AgentName,
    text: String,
}

impl Token {
    /// The token, to be shown once.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn digest(&self) -> Digest {
        Digest::of(self.text.as_bytes())
    }
}

impl FromStr for Token {
    type Err = EnrolmentError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.trim().split('.');
        let (Some(PREFIX), Some(agent), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(EnrolmentError::Token);
        };
        Ok(Self { agent: agent.parse().map_err(|_| EnrolmentError::Token)?, text: text.trim().to_owned() })
    }
}

/// What is known of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Its name.
    pub agent: AgentName,
    /// Its class.
    pub class: AgentClass,
    /// Whose code it runs.
    pub trust: AgentTrust,
    /// It takes no new work.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
    /// How it stands with it.
    pub standing: Standing,
    /// Its keys that are worth nothing any more, with the second in which they were revoked.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub revoked: BTreeMap<String, u64>,
}

/// How it stands with an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Standing {
    /// A token was given out.
    Invited {
        /// Its digest.
        token: Digest,
        /// From then on it is worth nothing.
        expires_at: Timestamp,
    },
    /// It has a key.
    Enrolled {
        /// The public key.
        key: String,
        /// Since when.
        at: Timestamp,
        /// The token by which it came, so that the same machine may ask again when the answer was lost; an agent of this machine had none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<Digest>,
        /// Until when it may ask again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_at: Option<Timestamp>,
    },
    /// It is cut off.
    Revoked {
        /// Since when.
        at: Timestamp,
    },
}

/// An agent that was admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// Its name.
    pub agent: AgentName,
    /// Its class.
    pub class: AgentClass,
    /// Whose code it runs.
    pub trust: AgentTrust,
    /// The JWT of its user.
    pub jwt: String,
}

/// The folder of the enrolment.
#[derive(Debug)]
pub struct Enrolment {
    folder: PathBuf,
    account: String,
    signer: KeyPair,
    user_life: Duration,
}

impl Enrolment {
    /// Makes what is missing in the folder. `account` is the public key of the agents' account.
    pub(super) fn create(folder: &Path, account: String) -> Result<Self, KeyError> {
        for inner in ["accounts", "agents"] {
            create_folder(&folder.join(inner))?;
        }
        let signer = load_or_create(&folder.join("signing.seed"), &KeyPairType::Account, "account's")?;
        let file = folder.join(AGENTS_ACCOUNT);
        if fs::read_to_string(&file).ok().as_deref() != Some(&account) {
            write_secret(&file, &account)?;
        }
        Ok(Self { folder: folder.to_owned(), account, signer, user_life: USER_LIFE_DEFAULT })
    }

    /// Opens the folder that the administrator's side has made.
    pub fn open(folder: &Path) -> Result<Self, EnrolmentError> {
        let (file, seed) = (folder.join(AGENTS_ACCOUNT), folder.join("signing.seed"));
        let read = |path: &Path| fs::read_to_string(path).map_err(|source| EnrolmentError::Io { path: path.to_owned(), source });
        // Never made here: one that the account does not name could sign nothing.
        read(&seed)?;
        let signer = load_or_create(&seed, &KeyPairType::Account, "account's")?;
        Ok(Self { account: read(&file)?, folder: folder.to_owned(), signer, user_life: USER_LIFE_DEFAULT })
    }

    /// The same, where agents' users live so long.
    #[must_use]
    pub fn with_user_life(self, user_life: Duration) -> Self {
        Self { user_life, ..self }
    }

    /// Where the credentials lie with which accounts are changed while the server runs.
    pub fn system_credentials_file(&self) -> PathBuf {
        self.folder.join("system.creds")
    }

    pub(super) fn account_file(&self, account: Account) -> PathBuf {
        self.folder.join(format!("accounts/{}.jwt", account.name()))
    }

    /// What the operator says of an account, if it has.
    pub fn account_jwt(&self, account: Account) -> Option<String> {
        fs::read_to_string(self.account_file(account)).ok()
    }

    pub(super) fn signer(&self) -> &KeyPair {
        &self.signer
    }

    /// All agents, by name.
    pub fn records(&self) -> Result<Vec<Record>, EnrolmentError> {
        let folder = self.folder.join("agents");
        let io = |source| EnrolmentError::Io { path: folder.clone(), source };
        let mut records = Vec::new();
        for entry in fs::read_dir(&folder).map_err(io)? {
            let name = entry.map_err(io)?.file_name();
            if let Some(agent) = name.to_str().and_then(|name| name.strip_suffix(".json")).and_then(|name| name.parse().ok()) {
                records.extend(self.record(&agent)?);
            }
        }
        records.sort_by(|one, other| one.agent.cmp(&other.agent));
        Ok(records)
    }

    /// Invites an agent that is not enrolled. An earlier token of it that was not used is worth nothing any more.
    pub(super) fn invite(&self, agent: &AgentName, class: &AgentClass, trust: AgentTrust) -> Result<Token, EnrolmentError> {
        let _held = self.lock()?;
        let revoked = match self.record(agent)? {
            Some(Record { standing: Standing::Enrolled { .. }, .. }) => return Err(EnrolmentError::Enrolled(agent.clone())),
            Some(record) if record.revoked.len() >= REVOKED_KEYS_MAX => return Err(EnrolmentError::Worn(agent.clone())),
            Some(record) => record.revoked,
            None if self.records()?.len() >= RECORDS_MAX => return Err(EnrolmentError::Full),
            None => BTreeMap::new(),
        };
        let mut secret = [0; SECRET_BYTES];
        getrandom::fill(&mut secret).map_err(EnrolmentError::Randomness)?;
        let token = Token { agent: agent.clone(), text: format!("{PREFIX}.{agent}.{}", BASE64URL_NOPAD.encode(&secret)) };
        let standing = Standing::Invited { token: token.digest(), expires_at: now() + TOKEN_LIFE };
        self.write(&Record { agent: agent.clone(), class: class.clone(), trust, draining: false, standing, revoked })?;
        Ok(token)
    }

    /// Admits whoever holds the token, with the key that is its own. The same key may ask again while the token's time is not over.
    pub fn redeem(&self, token: &str, public_key: &str) -> Result<Admission, EnrolmentError> {
        let token: Token = token.parse()?;
        let is_user = KeyPair::from_public_key(public_key).is_ok_and(|pair| pair.key_pair_type() == KeyPairType::User);
        if !is_user {
            return Err(EnrolmentError::PublicKey);
        }
        let _held = self.lock()?;
        let record = self.record(&token.agent)?.ok_or(EnrolmentError::Token)?;
        let Record { agent, class, trust, draining, standing, revoked } = record;
        let (known, until) = match &standing {
            Standing::Invited { token, expires_at } => (Some(*token), Some(*expires_at)),
            Standing::Enrolled { key, token, expires_at, .. } if key == public_key => (*token, *expires_at),
            Standing::Enrolled { .. } | Standing::Revoked { .. } => (None, None),
        };
        if known != Some(token.digest()) || until.is_none_or(|until| now() >= until) || revoked.contains_key(public_key) {
            return Err(EnrolmentError::Token);
        }
        let jwt = self.sign(&agent, &class, trust, public_key)?;
        let standing = Standing::Enrolled { key: public_key.to_owned(), at: now(), token: known, expires_at: until };
        // Written before it is told: a key that works is one that can be revoked.
        self.write(&Record { agent: agent.clone(), class: class.clone(), trust, draining, standing, revoked })?;
        Ok(Admission { agent, class, trust, jwt })
    }

    /// Enrols an agent of this machine with this key; `None` if `jwt` says so already, or if the administrator has revoked it.
    pub(super) fn admit(
        &self,
        agent: &AgentName,
        class: &AgentClass,
        trust: AgentTrust,
        user: &KeyPair,
        jwt: Option<&str>,
    ) -> Result<Option<String>, KeyError> {
        let _held = self.lock()?;
        let public_key = user.public_key();
        let before = self.record(agent)?;
        let draining = before.as_ref().is_some_and(|record| record.draining);
        let (at, revoked) = match before {
            Some(Record { standing: Standing::Revoked { .. }, .. }) => return Ok(None),
            Some(Record { standing: Standing::Enrolled { key, at, .. }, revoked, .. }) if key == public_key => (at, revoked),
            Some(Record { standing: Standing::Enrolled { key, .. }, mut revoked, .. }) => {
                // Its file was lost, or another machine had the name.
                revoked.insert(key, now_s());
                (now(), revoked)
            }
            Some(Record { standing: Standing::Invited { .. }, revoked, .. }) => (now(), revoked),
            None => (now(), BTreeMap::new()),
        };
        let is_fresh = |jwt: &str| jwt::life(jwt).is_some_and(|life| now_s() < life.half_s());
        let is_said = jwt.is_some_and(|jwt| is_fresh(jwt) && self.user(agent, class, trust, &public_key).is_said_by(jwt, &self.signer));
        let standing = Standing::Enrolled { key: public_key.clone(), at, token: None, expires_at: None };
        self.write(&Record { agent: agent.clone(), class: class.clone(), trust, draining, standing, revoked })?;
        if is_said { Ok(None) } else { Ok(Some(self.sign(agent, class, trust, &public_key)?)) }
    }

    /// The user of an enrolled agent, until later: for the key that it was admitted with, whoever asks.
    pub fn renew(&self, agent: &AgentName) -> Result<String, EnrolmentError> {
        // A JWT that is signed after its key was revoked would hold again.
        let _held = self.lock()?;
        match self.record(agent)? {
            Some(Record { class, trust, standing: Standing::Enrolled { key, .. }, .. }) => Ok(self.sign(agent, &class, trust, &key)?),
            Some(_) | None => Err(EnrolmentError::Unknown(agent.clone())),
        }
    }

    /// Cuts an agent off, or takes its token back.
    pub(super) fn revoke(&self, agent: &AgentName) -> Result<Record, EnrolmentError> {
        let _held = self.lock()?;
        let mut record = self.record(agent)?.ok_or_else(|| EnrolmentError::Unknown(agent.clone()))?;
        if let Standing::Enrolled { key, .. } = &record.standing {
            record.revoked.insert(key.clone(), now_s());
        }
        record.standing = Standing::Revoked { at: now() };
        self.write(&record)?;
        Ok(record)
    }

    /// Writes down whether an enrolled agent takes new work.
    pub fn drain(&self, agent: &AgentName, draining: bool) -> Result<Enrolled, EnrolmentError> {
        let _held = self.lock()?;
        let record = self.record(agent)?.filter(|record| matches!(record.standing, Standing::Enrolled { .. }));
        let record = Record { draining, ..record.ok_or_else(|| EnrolmentError::Unknown(agent.clone()))? };
        self.write(&record)?;
        Ok(Enrolled { class: record.class, trust: record.trust, draining })
    }

    /// Those that work, with what they were enrolled as.
    pub fn enrolled(&self) -> Result<BTreeMap<AgentName, Enrolled>, EnrolmentError> {
        let enrolled = self.records()?.into_iter().filter(|record| matches!(record.standing, Standing::Enrolled { .. }));
        Ok(enrolled.map(|Record { agent, class, trust, draining, .. }| (agent, Enrolled { class, trust, draining })).collect())
    }

    /// When a record was last written, by the clock of the file system; `None` where it does not say.
    pub fn changed_at(&self) -> Option<SystemTime> {
        fs::metadata(self.folder.join("agents")).and_then(|folder| folder.modified()).ok()
    }

    /// The agents that were revoked since then, and have not come back.
    pub fn revoked_since(&self, since: Timestamp) -> Result<BTreeSet<AgentName>, EnrolmentError> {
        let records = self.records()?.into_iter();
        Ok(records.filter(|record| matches!(record.standing, Standing::Revoked { at } if at >= since)).map(|record| record.agent).collect())
    }

    /// Whether keys of this agent are worth nothing any more.
    pub(super) fn has_revoked_keys(&self, agent: &AgentName) -> Result<bool, EnrolmentError> {
        Ok(self.record(agent)?.is_some_and(|record| !record.revoked.is_empty()))
    }

    /// Every key that is worth nothing any more, for the account's JWT.
    pub(super) fn revocations(&self) -> Result<BTreeMap<String, u64>, EnrolmentError> {
        Ok(self.records()?.into_iter().flat_map(|record| record.revoked).collect())
    }

    fn user(&self, agent: &AgentName, class: &AgentClass, trust: AgentTrust, public_key: &str) -> Statement {
        // Nothing of what it may: that stands in the account's JWT, for all agents at once.
        let nats = json!({ "issuer_account": self.account, "tags": [format!("class:{class}"), format!("trust:{trust}")] });
        Statement::new("user", public_key, agent.as_str(), nats)
    }

    fn sign(&self, agent: &AgentName, class: &AgentClass, trust: AgentTrust, public_key: &str) -> Result<String, KeyError> {
        let from_s = now_s();
        let life = Life { from_s, until_s: Some(from_s + self.user_life.as_secs()) };
        Ok(self.user(agent, class, trust, public_key).sign_with(&self.signer, life)?)
    }

    fn record_file(&self, agent: &AgentName) -> PathBuf {
        self.folder.join(format!("agents/{agent}.json"))
    }

    fn record(&self, agent: &AgentName) -> Result<Option<Record>, EnrolmentError> {
        let path = self.record_file(agent);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|source| EnrolmentError::Malformed { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(EnrolmentError::Io { path, source }),
        }
    }

    fn write(&self, record: &Record) -> Result<(), EnrolmentError> {
        let path = self.record_file(&record.agent);
        let text = serde_json::to_string(record).map_err(|source| EnrolmentError::Malformed { path: path.clone(), source })?;
        if fs::read_to_string(&path).is_ok_and(|before| before == text) {
            return Ok(());
        }
        Ok(write_secret(&path, &text)?)
    }

    /// Held until it is dropped: the role and the administrator's commands are processes of their own.
    fn lock(&self) -> Result<LockFile, EnrolmentError> {
        let path = self.folder.join("lock");
        let open = || {
            let file = LockFile::open(&path)?;
            file.hold()?;
            Ok(file)
        };
        open().map_err(|source| EnrolmentError::Io { path: path.clone(), source })
    }
}

fn now() -> Timestamp {
    Timestamp(clock::unix_ms())
}

/// What is printed of a standing.
impl std::fmt::Display for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Invited { expires_at, .. } if now() >= *expires_at => "expired",
            Self::Invited { .. } => "invited",
            Self::Enrolled { .. } => "enrolled",
            Self::Revoked { .. } => "revoked",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nats::Keys;

    fn keys() -> (tempfile::TempDir, Keys, Enrolment) {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::open(folder.path()).unwrap();
        let role = Enrolment::open(&folder.path().join("enrolment")).unwrap();
        (folder, keys, role)
    }

    fn invite(keys: &Keys) -> Token {
        keys.invite(&"a1".parse().unwrap(), &"big".parse().unwrap(), AgentTrust::Untrusted).unwrap()
    }

    #[test]
    fn a_token_admits_one_key_with_what_the_administrator_said() {
        let (_folder, keys, role) = keys();
        let token = invite(&keys);
        let (one, other) = (KeyPair::new_user().public_key(), KeyPair::new_user().public_key());
        let admission = role.redeem(token.as_str(), &one).unwrap();
        assert_eq!((admission.agent.as_str(), admission.class.as_str(), admission.trust), ("a1", "big", AgentTrust::Untrusted));
        assert_eq!(crate::nats::jwt::subject(&admission.jwt), Some(one.clone()));
        assert!(role.redeem(token.as_str(), &one).is_ok(), "its answer was lost");
        assert!(matches!(role.redeem(token.as_str(), &other), Err(EnrolmentError::Token)));
        let again = keys.invite(&"a1".parse().unwrap(), &AgentClass::default(), AgentTrust::Trusted);
        assert!(matches!(again, Err(KeyError::Enrolment(EnrolmentError::Enrolled(_)))), "a name is not taken over");
    }

    #[test]
    fn an_agent_is_enrolled_without_a_look_at_the_records_of_others() {
        let (folder, keys, _) = keys();
        let enrol = |name: &str| keys.enrol(&name.parse().unwrap(), &AgentClass::default(), AgentTrust::Any);
        enrol("a1").unwrap();
        fs::write(folder.path().join("enrolment/agents/a1.json"), "whatever").unwrap();
        enrol("a2").unwrap();
        assert!(enrol("a1").is_err());
    }

    #[test]
    fn a_token_that_was_replaced_changed_taken_back_or_is_too_old_admits_nobody() {
        let (_folder, keys, role) = keys();
        let user = KeyPair::new_user().public_key();
        let (first, second) = (invite(&keys), invite(&keys));
        let longer = format!("{}A", second.as_str());
        for wrong in [first.as_str(), &longer, "otto-enrol-1.a2.x", "otto-enrol-1.a1", "", "../../x"] {
            assert!(matches!(role.redeem(wrong, &user), Err(EnrolmentError::Token)), "{wrong}");
        }
        assert!(matches!(role.redeem(second.as_str(), &KeyPair::new_account().public_key()), Err(EnrolmentError::PublicKey)));
        let mut record = role.records().unwrap().remove(0);
        let in_time = record.standing.clone();
        if let Standing::Invited { expires_at, .. } = &mut record.standing {
            *expires_at = Timestamp(1);
        }
        role.write(&record).unwrap();
        assert!(matches!(role.redeem(second.as_str(), &user), Err(EnrolmentError::Token)));
        role.write(&Record { standing: in_time, ..record }).unwrap();
        keys.revoke(&"a1".parse().unwrap()).unwrap();
        assert!(matches!(role.redeem(second.as_str(), &user), Err(EnrolmentError::Token)));
    }

    #[test]
    fn a_revoked_key_never_comes_back_and_its_name_may() {
        let (_folder, keys, role) = keys();
        let agent = "a1".parse().unwrap();
        let (old, new) = (KeyPair::new_user().public_key(), KeyPair::new_user().public_key());
        role.redeem(invite(&keys).as_str(), &old).unwrap();
        let before = role.account_jwt(Account::Agents);
        keys.revoke(&agent).unwrap();
        assert_ne!(role.account_jwt(Account::Agents), before);
        assert_eq!(role.revocations().unwrap().into_keys().collect::<Vec<_>>(), std::slice::from_ref(&old));
        let token = invite(&keys);
        assert!(matches!(role.redeem(token.as_str(), &old), Err(EnrolmentError::Token)));
        assert!(role.redeem(token.as_str(), &new).is_ok());
        assert_eq!(role.revocations().unwrap().into_keys().collect::<Vec<_>>(), [old]);
    }

    #[test]
    fn a_token_is_kept_hashed() {
        let (folder, keys, _role) = keys();
        let token = invite(&keys);
        let record = fs::read_to_string(folder.path().join("enrolment/agents/a1.json")).unwrap();
        let secret = token.as_str().rsplit_once('.').unwrap().1;
        assert!(!record.contains(secret), "{record}");
    }

    #[test]
    fn an_agent_of_this_machine_that_was_revoked_stays_so() {
        let (_folder, keys, role) = keys();
        let agent = "a1".parse().unwrap();
        keys.enrol(&agent, &AgentClass::default(), AgentTrust::Trusted).unwrap();
        let credentials = fs::read_to_string(keys.agent_credentials_file(&agent)).unwrap();
        keys.enrol(&agent, &AgentClass::default(), AgentTrust::Trusted).unwrap();
        assert_eq!(fs::read_to_string(keys.agent_credentials_file(&agent)).unwrap(), credentials);
        keys.revoke(&agent).unwrap();
        keys.enrol(&agent, &AgentClass::default(), AgentTrust::Trusted).unwrap();
        assert!(matches!(role.records().unwrap().remove(0).standing, Standing::Revoked { .. }));
    }
}
