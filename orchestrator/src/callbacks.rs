//! The addresses at which webhooks are called. Whoever knows one may call it, once. And receipts for sources, which the same key makes.
//!
//! The secret of an address names the run, the stage and the wait, and carries an HMAC (RFC 2104) of them under a key of the orchestrator.
//! So none is stored: the log has only the SHA-256 of the secret.

use std::{fmt, str::FromStr};

use data_encoding::{BASE32_DNSSEC, HEXLOWER_PERMISSIVE};
use hmac::{Hmac, KeyInit as _, Mac as _};
use model::{Digest, RunId, StageId, TokenName, event::run::WaitKey};
use sha2::Sha256;

/// Stands before what is authenticated, so that a code under the same key for another purpose is none of a callback.
const DOMAIN: &[u8] = b"otto callback 1\0";
/// The same of receipts.
const RECEIPT_DOMAIN: &[u8] = b"otto receipt 1\0";
/// The path under which callbacks are taken; the secret follows.
pub(crate) const PATH: &str = "/v1/callbacks/";
/// Bytes of a key.
const KEY_BYTES: usize = 32;
/// The longest secret: two ids, the place of a gate, and the code, with dots between them.
const SECRET_BYTES_MAX: usize = 160;

/// The key from which the secrets of callbacks, and receipts, are derived. It is never shown.
#[derive(Clone)]
pub struct CallbackKey([u8; KEY_BYTES]);

/// Why a text is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallbackKeyError {
    /// Not 32 bytes.
    #[error("expected {KEY_BYTES} bytes as {} hexadecimal digits", 2 * KEY_BYTES)]
    Malformed,
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    NoRandomness,
}

/// The wait that an address is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Called {
    /// The run.
    pub run: RunId,
    /// The stage.
    pub stage: StageId,
    /// Which of its waits.
    pub wait: WaitKey,
}

impl CallbackKey {
    /// A new key, from the system's randomness.
    pub fn generate() -> Result<Self, CallbackKeyError> {
        let mut key = [0; KEY_BYTES];
        getrandom::fill(&mut key).map_err(|_| CallbackKeyError::NoRandomness)?;
        Ok(Self(key))
    }

    /// The key as [`CallbackKey::from_str`] reads it. It is a secret: write it only to a file of its owner.
    pub fn text(&self) -> String {
        HEXLOWER_PERMISSIVE.encode(&self.0)
    }

    /// The secret in the address of a wait.
    pub(crate) fn secret(&self, run: &RunId, stage: &StageId, wait: WaitKey) -> String {
        let named = format!("{run}.{stage}.{}", word(wait));
        let code = BASE32_DNSSEC.encode(&self.code(&named).finalize().into_bytes());
        format!("{named}.{code}")
    }

    /// What an address is for, if its secret is one of this key. How long that takes says nothing about the right one.
    pub(crate) fn open(&self, secret: &str) -> Option<Called> {
        if secret.len() > SECRET_BYTES_MAX {
            return None;
        }
        let (named, code) = secret.rsplit_once('.')?;
        let code = BASE32_DNSSEC.decode(code.as_bytes()).ok()?;
        self.code(named).verify_slice(&code).ok()?;
        let mut parts = named.split('.');
        let (run, stage, wait) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, key(parts.next()?)?);
        parts.next().is_none().then_some(Called { run, stage, wait })
    }

    /// What nobody but an orchestrator can have written: that whoever has the token of this name has brought this source.
    pub(crate) fn receipt(&self, token: &TokenName, source: &Digest) -> Vec<u8> {
        self.authenticated(RECEIPT_DOMAIN, &format!("{token} {source}")).finalize().into_bytes().to_vec()
    }

    fn code(&self, named: &str) -> Hmac<Sha256> {
        self.authenticated(DOMAIN, named)
    }

    fn authenticated(&self, domain: &[u8], text: &str) -> Hmac<Sha256> {
        let mut code = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        code.update(domain);
        code.update(text.as_bytes());
        code
    }
}

impl FromStr for CallbackKey {
    type Err = CallbackKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = HEXLOWER_PERMISSIVE.decode(text.trim().as_bytes()).map_err(|_| CallbackKeyError::Malformed)?;
        bytes.try_into().map(Self).map_err(|_| CallbackKeyError::Malformed)
    }
}

impl fmt::Debug for CallbackKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallbackKey(…)")
    }
}

fn word(wait: WaitKey) -> String {
    match wait {
        WaitKey::Itself => "w".to_owned(),
        WaitKey::Enter(number) => format!("e{number}"),
        WaitKey::Exit(number) => format!("x{number}"),
    }
}

fn key(word: &str) -> Option<WaitKey> {
    if word == "w" {
        return Some(WaitKey::Itself);
    }
    let number = |rest: &str| rest.parse::<u32>().ok();
    let enter = word.strip_prefix('e').and_then(number).map(WaitKey::Enter);
    enter.or_else(|| word.strip_prefix('x').and_then(number).map(WaitKey::Exit))
}

#[cfg(test)]
mod tests {
    use model::TriggerId;

    use super::*;

    fn called() -> Called {
        Called { run: RunId::of(&TriggerId::of("t", "1")), stage: StageId::of("Deploy"), wait: WaitKey::Exit(3) }
    }

    fn secret(key: &CallbackKey) -> String {
        let Called { run, stage, wait } = called();
        key.secret(&run, &stage, wait)
    }

    #[test]
    fn a_secret_opens_with_its_key_alone() {
        let (key, other) = (CallbackKey::generate().unwrap(), CallbackKey::generate().unwrap());
        assert_eq!(key.open(&secret(&key)), Some(called()));
        assert_eq!(other.open(&secret(&key)), None);
        assert_eq!(key.text().parse::<CallbackKey>().unwrap().open(&secret(&key)), Some(called()));
        assert_eq!(format!("{key:?}"), "CallbackKey(…)");
    }

    #[test]
    fn whatever_is_changed_in_a_secret_makes_it_worthless() {
        let key = CallbackKey::generate().unwrap();
        let secret = secret(&key);
        for at in 0..secret.len() {
            let mut changed = secret.clone().into_bytes();
            changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
            assert_eq!(key.open(&String::from_utf8(changed).unwrap()), None, "at {at}");
        }
        let waits = [WaitKey::Itself, WaitKey::Enter(0), WaitKey::Exit(0), WaitKey::Exit(1)];
        let Called { run, stage, .. } = called();
        for wait in waits {
            assert_eq!(key.open(&key.secret(&run, &stage, wait)).map(|called| called.wait), Some(wait));
        }
        for wrong in ["", ".", "a.b.c.d", &format!("{secret}0"), &"x".repeat(1_000)] {
            assert_eq!(key.open(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in ["", "00", &"0".repeat(63), &"g".repeat(64), &"0".repeat(66)] {
            assert!(text.parse::<CallbackKey>().is_err(), "{text}");
        }
    }
}
