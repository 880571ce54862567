//! The depot's tokens: what their holder may read and write, until when, signed (Ed25519, RFC 8032) by whoever holds the seed.
//!
//! As text: `otto-depot-1.<claims>.<signature>`, both in base64url without padding (RFC 4648); the claims are JSON. The depot needs only
//! the public key, so it can mint nothing.

use std::{collections::BTreeSet, fmt, str::FromStr};

use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use model::{Digest, Timestamp};
use serde::{Deserialize, Serialize};

/// What a token begins with: its kind and version.
const PREFIX: &str = "otto-depot-1";
/// Stands before the claims in what is signed, so that a signature of the same key for another purpose is none of a token.
const DOMAIN: &[u8] = b"otto depot token 1\0";
/// The most bytes of a token: it travels in a header, and about 100 digests fit.
pub const TOKEN_BYTES_MAX: usize = 12 * 1024;

/// What a token allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// For whom it was minted: a role's name, or an attempt. Only for people and logs.
    pub holder: String,
    /// What may be read.
    pub read: Read,
    /// Whether anything may be stored. Storing never changes what is there, as bytes are named by their digest.
    pub write: bool,
    /// From then on it is worth nothing.
    pub expires_at: Timestamp,
}

/// What a token's holder may read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Read {
    /// Everything.
    All,
    /// These only; possibly nothing.
    Only(BTreeSet<Digest>),
}

/// Why a token is worth nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is no token of this version.
    #[error("this is no token of the depot")]
    Malformed,
    /// The signature is not that of the depot's signer over these claims.
    #[error("the token's signature is wrong")]
    Forged,
    /// Its time is over.
    #[error("the token of {holder} has expired")]
    Expired {
        /// For whom it was minted.
        holder: String,
    },
}

/// Why a text is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not 32 bytes.
    #[error("expected 32 bytes as 64 hexadecimal digits or in base64")]
    Malformed,
    /// No point of the curve, or one that would accept forged signatures.
    #[error("these 32 bytes are no Ed25519 public key")]
    NoPublicKey,
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    NoRandomness,
}

impl Claims {
    /// Whether the holder may read these bytes.
    pub fn may_read(&self, digest: &Digest) -> bool {
        match &self.read {
            Read::All => true,
            Read::Only(digests) => digests.contains(digest),
        }
    }
}

/// Mints tokens.
#[derive(Clone)]
pub struct Signer(SigningKey);

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Signer").field(&self.verifier()).finish()
    }
}

impl Signer {
    /// The signer of this seed.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The signer of a new seed, from the system's randomness.
    pub fn generate() -> Result<Self, KeyError> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|_| KeyError::NoRandomness)?;
        Ok(Self::from_seed(&seed))
    }

    /// The seed as [`Signer::from_str`] reads it. It is a secret: write it only to a file of its owner.
    pub fn seed_text(&self) -> String {
        HEXLOWER.encode(self.0.as_bytes())
    }

    /// Checks what this signer mints.
    pub fn verifier(&self) -> Verifier {
        Verifier(self.0.verifying_key())
    }

    /// Mints a token. One over [`TOKEN_BYTES_MAX`] is refused by every verifier.
    pub fn mint(&self, claims: &Claims) -> String {
        let claims = serde_json::to_vec(claims).expect("claims have text keys only");
        let signature = self.0.sign(&signed(&claims));
        format!("{PREFIX}.{}.{}", BASE64URL_NOPAD.encode(&claims), BASE64URL_NOPAD.encode(&signature.to_bytes()))
    }
}

impl FromStr for Signer {
    type Err = KeyError;

    fn from_str(seed: &str) -> Result<Self, Self::Err> {
        Ok(Self::from_seed(&key_bytes(seed)?))
    }
}

/// Checks tokens. Its text is the public key in hexadecimal digits.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier(VerifyingKey);

impl Verifier {
    /// What the token allows at this time.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Claims, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Malformed);
        }
        let mut parts = token.split('.');
        let (Some(PREFIX), Some(claims), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(TokenError::Malformed);
        };
        let claims = BASE64URL_NOPAD.decode(claims.as_bytes()).map_err(|_| TokenError::Malformed)?;
        let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).map_err(|_| TokenError::Malformed)?;
        let signature = Signature::from_slice(&signature).map_err(|_| TokenError::Malformed)?;
        self.0.verify_strict(&signed(&claims), &signature).map_err(|_| TokenError::Forged)?;
        let claims: Claims = serde_json::from_slice(&claims).map_err(|_| TokenError::Malformed)?;
        if now >= claims.expires_at {
            return Err(TokenError::Expired { holder: claims.holder });
        }
        Ok(claims)
    }
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(self.0.as_bytes()))
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verifier({self})")
    }
}

impl FromStr for Verifier {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let key = VerifyingKey::from_bytes(&key_bytes(text)?).map_err(|_| KeyError::NoPublicKey)?;
        if key.is_weak() { Err(KeyError::NoPublicKey) } else { Ok(Self(key)) }
    }
}

fn signed(claims: &[u8]) -> Vec<u8> {
    [DOMAIN, claims].concat()
}

/// Reads 32 bytes in one of the usual ways of writing them.
fn key_bytes(text: &str) -> Result<[u8; 32], KeyError> {
    let text = text.trim().as_bytes();
    [HEXLOWER_PERMISSIVE, BASE64, BASE64_NOPAD, BASE64URL_NOPAD]
        .iter()
        .find_map(|encoding| encoding.decode(text).ok()?.try_into().ok())
        .ok_or(KeyError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer() -> Signer {
        Signer::from_seed(&[7; 32])
    }

    fn claims(read: Read) -> Claims {
        Claims { holder: "run_1/stg_1/1".to_owned(), read, write: true, expires_at: Timestamp(1_000) }
    }

    #[test]
    fn a_token_says_what_it_was_minted_for() {
        let (ours, theirs) = (Digest::of(b"ours"), Digest::of(b"theirs"));
        for read in [Read::All, Read::Only(BTreeSet::new()), Read::Only(BTreeSet::from([ours]))] {
            let claims = claims(read);
            let token = signer().mint(&claims);
            assert_eq!(signer().verifier().verify(&token, Timestamp(999)), Ok(claims));
        }
        assert!(claims(Read::All).may_read(&theirs));
        let only = claims(Read::Only(BTreeSet::from([ours])));
        assert!(only.may_read(&ours) && !only.may_read(&theirs));
    }

    #[test]
    fn an_expired_token_is_worth_nothing() {
        let token = signer().mint(&claims(Read::All));
        let expired = TokenError::Expired { holder: "run_1/stg_1/1".to_owned() };
        assert_eq!(signer().verifier().verify(&token, Timestamp(1_000)), Err(expired));
    }

    #[test]
    fn a_token_of_another_signer_is_forged() {
        let token = Signer::from_seed(&[8; 32]).mint(&claims(Read::All));
        assert_eq!(signer().verifier().verify(&token, Timestamp(0)), Err(TokenError::Forged));
    }

    #[test]
    fn claims_under_the_signature_of_others_are_forged() {
        let all = signer().mint(&claims(Read::All));
        let none = signer().mint(&claims(Read::Only(BTreeSet::new())));
        let (all, none): (Vec<_>, Vec<_>) = (all.split('.').collect(), none.split('.').collect());
        let swapped = [all[0], all[1], none[2]].join(".");
        assert_eq!(signer().verifier().verify(&swapped, Timestamp(0)), Err(TokenError::Forged));
    }

    #[test]
    fn every_changed_character_is_noticed() {
        let token = signer().mint(&claims(Read::All));
        for place in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(signer().verifier().verify(&changed, Timestamp(0)).is_err(), "{changed}");
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let long = "A".repeat(TOKEN_BYTES_MAX + 1);
        for text in ["", ".", "..", "otto-depot-1..", "otto-depot-2.e30.e30", "a.b.c.d", "otto-depot-1.e30.ü", &long] {
            assert_eq!(signer().verifier().verify(text, Timestamp(0)), Err(TokenError::Malformed), "{text}");
        }
    }

    #[test]
    fn keys_are_read_in_hexadecimal_and_base64() {
        let seed = signer().seed_text();
        assert_eq!(seed.parse::<Signer>().unwrap().verifier(), signer().verifier());
        assert_eq!(format!("{}\n", BASE64.encode(&[7; 32])).parse::<Signer>().unwrap().verifier(), signer().verifier());
        assert_eq!(signer().verifier().to_string().parse(), Ok(signer().verifier()));
        assert_eq!("00".parse::<Verifier>(), Err(KeyError::Malformed));
        assert_eq!("00".repeat(32).parse::<Verifier>(), Err(KeyError::NoPublicKey), "a point of small order");
        assert!(!format!("{:?}", signer()).contains(&seed));
        assert_ne!(Signer::generate().unwrap().seed_text(), Signer::generate().unwrap().seed_text());
    }
}
