//! Signatures of webhooks, over the raw bytes, compared in a time that tells nothing of them.
//!
//! Which header must hold is the configuration's to say, never the request's: a good one of another kind mends nothing. Times in signed
//! webhooks are not held against a clock, for what was told once is one run for ever.

use actix_web::http::header::HeaderMap;
use config::ForgeKind;
use data_encoding::{BASE64, BASE64_NOPAD, HEXLOWER_PERMISSIVE};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

/// What GitLab's signing tokens begin with (the Standard Webhooks' way).
const SIGNING_TOKEN: &str = "whsec_";
/// The fewest bytes of a secret: one that is guessed lets anybody start runs.
const SECRET_BYTES_MIN: usize = 12;
/// The most signatures of one webhook that are looked at; two while a token is changed.
const SIGNATURES_MAX: usize = 8;

/// A webhook without a signature that holds.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the header {header} {why}")]
pub(crate) struct Unsigned {
    header: &'static str,
    why: &'static str,
}

/// What a forge and its webhooks have in common.
pub(crate) enum Secret {
    /// It signs the body.
    Key(Vec<u8>),
    /// It signs id, time and body.
    Signing(Vec<u8>),
    /// It is sent as it is.
    Token(Vec<u8>),
}

impl Secret {
    pub(super) fn new(forge: ForgeKind, text: &str) -> Result<Self, &'static str> {
        if text.len() < SECRET_BYTES_MIN {
            return Err("holds no secret of 12 characters or more");
        }
        match (forge, text.strip_prefix(SIGNING_TOKEN)) {
            (ForgeKind::Github | ForgeKind::Gitea | ForgeKind::Forgejo, _) => Ok(Self::Key(text.into())),
            (ForgeKind::Gitlab, None) => Ok(Self::Token(text.into())),
            (ForgeKind::Gitlab, Some(key)) => {
                let key = BASE64.decode(key.as_bytes()).or_else(|_| BASE64_NOPAD.decode(key.as_bytes()));
                let key = key.map_err(|_| "begins with `whsec_`, and goes on with what is no Base64")?;
                if key.len() < SECRET_BYTES_MIN { Err("is too short") } else { Ok(Self::Signing(key)) }
            }
        }
    }

    /// The header that must hold.
    fn header(&self, forge: ForgeKind) -> &'static str {
        match (self, forge) {
            (Self::Signing(_), _) => "webhook-signature",
            (Self::Token(_), _) | (Self::Key(_), ForgeKind::Gitlab) => "x-gitlab-token",
            (Self::Key(_), ForgeKind::Github) => "x-hub-signature-256",
            (Self::Key(_), ForgeKind::Gitea) => "x-gitea-signature",
            (Self::Key(_), ForgeKind::Forgejo) => "x-forgejo-signature",
        }
    }

    pub(super) fn is_signed(&self, forge: ForgeKind, headers: &HeaderMap) -> bool {
        headers.contains_key(self.header(forge))
    }

    pub(super) fn verify(&self, forge: ForgeKind, headers: &HeaderMap, body: &[u8]) -> Result<(), Unsigned> {
        let header = self.header(forge);
        let unsigned = |why| Unsigned { header, why };
        // Said twice, it would be anybody's guess which one counts.
        let mut values = headers.get_all(header);
        let value = values.next().ok_or_else(|| unsigned("is missing"))?;
        if values.next().is_some() {
            return Err(unsigned("is there twice"));
        }
        let holds = match self {
            Self::Token(token) => bool::from(value.as_bytes().ct_eq(token)),
            Self::Key(key) => {
                let text = value.to_str().map_err(|_| unsigned("is no text"))?;
                let digits = match forge {
                    ForgeKind::Github => text.strip_prefix("sha256=").ok_or_else(|| unsigned("does not begin with `sha256=`"))?,
                    ForgeKind::Gitlab | ForgeKind::Gitea | ForgeKind::Forgejo => text,
                };
                let signature = HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).map_err(|_| unsigned("is no hexadecimal number"))?;
                code(key, &[body]).verify_slice(&signature).is_ok()
            }
            Self::Signing(key) => {
                let text = value.to_str().map_err(|_| unsigned("is no text"))?;
                let part = |name| headers.get(name).map(actix_web::http::header::HeaderValue::as_bytes);
                let id = part("webhook-id").ok_or_else(|| unsigned("stands without webhook-id"))?;
                let time = part("webhook-timestamp").ok_or_else(|| unsigned("stands without webhook-timestamp"))?;
                let code = code(key, &[id, b".", time, b".", body]);
                let signatures = text.split(' ').take(SIGNATURES_MAX).filter_map(|signature| signature.strip_prefix("v1,"));
                let mut signatures = signatures.filter_map(|signature| BASE64.decode(signature.as_bytes()).ok());
                signatures.any(|signature| code.clone().verify_slice(&signature).is_ok())
            }
        };
        if holds { Ok(()) } else { Err(unsigned("does not hold: the secret of the project's configuration is not that of the forge")) }
    }
}

fn code(key: &[u8], parts: &[&[u8]]) -> Hmac<Sha256> {
    let mut code = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        code.update(part);
    }
    code
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let parse = |text: &str| text.parse::<HeaderName>().unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(parse(name), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    /// The example of <https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries>.
    #[test]
    fn the_signature_of_githubs_documentation_holds_for_its_body_only() {
        let secret = Secret::new(ForgeKind::Github, "It's a Secret to Everybody").unwrap();
        let digits = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        let signature = &*format!("sha256={digits}");
        let verify = |lines: &[(&str, &str)], body: &[u8]| secret.verify(ForgeKind::Github, &headers(lines), body).is_ok();
        assert!(verify(&[("x-hub-signature-256", signature)], b"Hello, World!"));
        assert!(!verify(&[("x-hub-signature-256", signature)], b"Hello, World"));
        assert!(!verify(&[("x-hub-signature-256", &signature.replace("=7", "=8"))], b"Hello, World!"));
        assert!(!verify(&[("x-hub-signature-256", digits)], b"Hello, World!"));
        assert!(!verify(&[("x-hub-signature-256", "sha256=")], b"Hello, World!"));
        assert!(!verify(&[("x-hub-signature-256", signature), ("x-hub-signature-256", signature)], b"Hello, World!"));
        assert!(!verify(&[("x-gitea-signature", digits)], b"Hello, World!"), "another forge's header is none");
        assert!(!verify(&[], b"Hello, World!"));
    }

    #[test]
    fn gitea_and_forgejo_have_headers_of_their_own() {
        let digits = data_encoding::HEXLOWER.encode(&code(b"a secret of gitea", &[b"{}"]).finalize().into_bytes());
        for (forge, header, other) in [
            (ForgeKind::Gitea, "x-gitea-signature", "x-forgejo-signature"),
            (ForgeKind::Forgejo, "x-forgejo-signature", "x-gitea-signature"),
        ] {
            let secret = Secret::new(forge, "a secret of gitea").unwrap();
            assert_eq!(secret.verify(forge, &headers(&[(header, &digits)]), b"{}"), Ok(()));
            assert!(secret.verify(forge, &headers(&[(other, &digits)]), b"{}").is_err());
            assert!(secret.verify(forge, &headers(&[(header, &digits)]), b"{ }").is_err());
        }
    }

    /// The example of the Standard Webhooks' specification, whose form GitLab's signing tokens have.
    #[test]
    fn a_signed_webhook_of_gitlab_holds_with_its_id_and_time() {
        let secret = Secret::new(ForgeKind::Gitlab, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let body = br#"{"test": 2432232314}"#;
        let good = [
            ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("webhook-timestamp", "1614265330"),
            ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        ];
        let verify = |lines: &[(&str, &str)]| secret.verify(ForgeKind::Gitlab, &headers(lines), body);
        assert_eq!(verify(&good), Ok(()));
        let two = format!("v1,AAAA v1a,x {}", good[2].1);
        assert_eq!(verify(&[good[0], good[1], ("webhook-signature", &two)]), Ok(()), "while the token is changed, there are two");
        assert!(verify(&[("webhook-id", "msg_x"), good[1], good[2]]).is_err());
        assert!(verify(&[good[0], ("webhook-timestamp", "1614265331"), good[2]]).is_err());
        assert!(verify(&[good[0], good[2]]).is_err());
        let token = [good[0], good[1], ("x-gitlab-token", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")];
        assert!(verify(&token).is_err(), "the key itself is no signature");
    }

    #[test]
    fn a_token_of_gitlab_is_compared_whole() {
        let secret = Secret::new(ForgeKind::Gitlab, "a token of gitlab").unwrap();
        for (token, holds) in [("a token of gitlab", true), ("a token of gitla", false), ("a token of gitlab ", true), ("", false)] {
            // Spaces at the end of a header's value are not part of it.
            let lines = headers(&[("x-gitlab-token", token.trim_end())]);
            assert_eq!(secret.verify(ForgeKind::Gitlab, &lines, b"{}").is_ok(), holds, "{token}");
        }
    }

    #[test]
    fn a_secret_that_can_be_guessed_is_refused() {
        for forge in [ForgeKind::Github, ForgeKind::Gitlab] {
            assert!(Secret::new(forge, "").is_err() && Secret::new(forge, "hunter2").is_err());
        }
        assert!(Secret::new(ForgeKind::Gitlab, "whsec_not base64 at all").is_err());
    }
}
