//! JWTs of nats-server's decentralised authentication (`ed25519-nkey`): who says what of whom. The operator speaks of accounts, an account's keys of
//! its users; the server knows the operator only, so a user may be made while it runs.
//!
//! As text: `<header>.<claims>.<signature>`, each base64url without padding. The claims' `jti` is the SHA-512/256 of the claims without it.

use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use nkeys::KeyPair;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha512_256};

/// The version of the claims that nats-server reads since 2.2.
const VERSION: u32 = 2;
/// What stands around a user's JWT and seed in a file of credentials; every client of NATS reads it.
const JWT_BEGIN: &str = "-----BEGIN NATS USER JWT-----";
const JWT_END: &str = "------END NATS USER JWT------";
const SEED_BEGIN: &str = "-----BEGIN USER NKEY SEED-----";
const SEED_END: &str = "------END USER NKEY SEED------";

/// What is said of a key; the kind of its claims is among `nats`.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    /// Of whom: a public key.
    pub subject: String,
    /// Its name.
    pub name: String,
    /// The claims that nats-server reads.
    pub nats: Value,
}

/// The part of a JWT's claims that is compared.
#[derive(Debug, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    #[serde(default)]
    name: String,
    nats: Value,
    iat: u64,
    #[serde(default)]
    exp: Option<u64>,
}

/// From when until when a JWT holds, in seconds since 1970. The server goes by its own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// When it was signed.
    pub from_s: u64,
    /// When it ends; `None` for never, as JWTs of agents were that were signed before they ended.
    pub until_s: Option<u64>,
}

impl Life {
    /// Whether it has ended.
    pub fn is_over(self, now_s: u64) -> bool {
        self.until_s.is_some_and(|until_s| now_s >= until_s)
    }

    /// When it must be renewed at the latest to have as much time again for that; what never ends, at once.
    pub(super) fn half_s(self) -> u64 {
        self.until_s.map_or(0, |until_s| self.from_s + until_s.saturating_sub(self.from_s) / 2)
    }
}

impl Statement {
    /// A statement of one kind: `operator`, `account` or `user`.
    pub fn new(kind: &str, subject: &str, name: &str, mut nats: Value) -> Self {
        nats["type"] = kind.into();
        nats["version"] = VERSION.into();
        Self { subject: subject.to_owned(), name: name.to_owned(), nats }
    }

    /// The JWT: the statement, signed by `issuer`. It does not end.
    pub fn sign(&self, issuer: &KeyPair, issued_at_s: u64) -> Result<String, nkeys::error::Error> {
        self.sign_with(issuer, Life { from_s: issued_at_s, until_s: None })
    }

    /// The JWT: the statement, signed by `issuer`, for a time.
    pub fn sign_with(&self, issuer: &KeyPair, life: Life) -> Result<String, nkeys::error::Error> {
        let mut claims = json!({
            "iat": life.from_s,
            "iss": issuer.public_key(),
            "name": self.name,
            "nats": self.nats,
            "sub": self.subject,
        });
        if let Some(until_s) = life.until_s {
            claims["exp"] = until_s.into();
        }
        claims["jti"] = BASE32_NOPAD.encode(&Sha512_256::digest(claims.to_string())).into();
        let header = json!({ "typ": "JWT", "alg": "ed25519-nkey" });
        let signed = format!("{}.{}", encode(&header), encode(&claims));
        let signature = BASE64URL_NOPAD.encode(&issuer.sign(signed.as_bytes())?);
        Ok(format!("{signed}.{signature}"))
    }

    /// Whether `jwt` says just this in the name of `issuer`, whenever it was signed.
    pub fn is_said_by(&self, jwt: &str, issuer: &KeyPair) -> bool {
        let Some(claims) = claims(jwt) else { return false };
        claims.iss == issuer.public_key() && claims.sub == self.subject && claims.name == self.name && claims.nats == self.nats
    }
}

/// Of whom a JWT speaks; `None` if it is none.
pub(super) fn subject(jwt: &str) -> Option<String> {
    claims(jwt).map(|claims| claims.sub)
}

/// What a JWT says, whoever signed it; `None` if it is none.
pub fn statement(jwt: &str) -> Option<Statement> {
    claims(jwt).map(|claims| Statement { subject: claims.sub, name: claims.name, nats: claims.nats })
}

/// From when until when a JWT holds; `None` if it is none.
pub fn life(jwt: &str) -> Option<Life> {
    claims(jwt).map(|claims| Life { from_s: claims.iat, until_s: claims.exp })
}

fn claims(jwt: &str) -> Option<Claims> {
    let body = jwt.split('.').nth(1)?;
    serde_json::from_slice(&BASE64URL_NOPAD.decode(body.as_bytes()).ok()?).ok()
}

fn encode(value: &Value) -> String {
    BASE64URL_NOPAD.encode(value.to_string().as_bytes())
}

/// The text of a file of credentials.
pub fn credentials(jwt: &str, seed: &str) -> String {
    format!("{JWT_BEGIN}\n{jwt}\n{JWT_END}\n\n{SEED_BEGIN}\n{seed}\n{SEED_END}\n")
}

/// JWT and seed of a file of credentials.
pub fn read_credentials(text: &str) -> Option<(&str, &str)> {
    let between = |begin: &str, end: &str| Some(text.split_once(begin)?.1.split_once(end)?.0.trim());
    Some((between(JWT_BEGIN, JWT_END)?, between(SEED_BEGIN, SEED_END)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_signed_is_known_again_and_anything_else_is_not() {
        let (account, other, user) = (KeyPair::new_account(), KeyPair::new_account(), KeyPair::new_user());
        let statement = Statement::new("user", &user.public_key(), "a1", json!({ "tags": ["class:default"] }));
        let jwt = statement.sign(&account, 1_700_000_000).unwrap();
        assert!(statement.is_said_by(&jwt, &account) && !statement.is_said_by(&jwt, &other));
        assert!(!Statement::new("user", &user.public_key(), "a2", json!({ "tags": ["class:default"] })).is_said_by(&jwt, &account));
        assert!(!Statement::new("user", &user.public_key(), "a1", json!({})).is_said_by(&jwt, &account));
        assert_eq!(subject(&jwt), Some(user.public_key()));
        let (signed, signature) = jwt.rsplit_once('.').unwrap();
        let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
        assert!(KeyPair::from_public_key(&account.public_key()).unwrap().verify(signed.as_bytes(), &signature).is_ok());
    }

    #[test]
    fn what_was_signed_for_a_time_says_so_and_is_to_be_renewed_when_half_of_it_is_over() {
        let (account, user) = (KeyPair::new_account(), KeyPair::new_user());
        let statement = Statement::new("user", &user.public_key(), "a1", json!({}));
        let (bounded, unbounded) = (Life { from_s: 1_000, until_s: Some(1_100) }, Life { from_s: 1_000, until_s: None });
        for signed in [bounded, unbounded] {
            let jwt = statement.sign_with(&account, signed).unwrap();
            assert!(statement.is_said_by(&jwt, &account), "whenever it ends");
            assert_eq!(life(&jwt), Some(signed));
        }
        assert_eq!((bounded.half_s(), unbounded.half_s()), (1_050, 0));
        assert_eq!([1_099, 1_100].map(|now_s| bounded.is_over(now_s)), [false, true]);
        assert!(!unbounded.is_over(u64::MAX));
    }

    #[test]
    fn credentials_are_read_as_they_were_written() {
        assert_eq!(read_credentials(&credentials("a.b.c", "SUSEED")), Some(("a.b.c", "SUSEED")));
        assert_eq!(read_credentials("SUSEED"), None);
    }
}
