//! Who may ask: the tokens of the API, and on whose behalf a browser calls.
//!
//! [`guard`] asks every request for what [`rights`](super::rights) says of its route, before anything else is done. A token alone would do, were it not for browsers: a page of any site may send requests to a loopback address, under its own name if it
//! controls a name server (DNS rebinding). So the names of host and origin are checked even where no token is asked for.

use std::{
    future::{Ready, ready},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use actix_web::{
    FromRequest, HttpMessage as _, HttpRequest,
    body::MessageBody,
    dev::{Payload, ServiceRequest, ServiceResponse},
    http::header::{self, HeaderMap, HeaderName},
    middleware::Next,
    web,
};
use config::{Token, token::OWNER};
use model::{Digest, ProjectName, TokenName, access::Role};
use subtle::ConstantTimeEq as _;
use tokio_util::sync::CancellationToken;

use super::{
    Api, ApiError, Tokens,
    limits::{Asker, Limits},
    rights::{Right, right},
    tokens::Known,
};
use crate::core::Run;

/// The orchestrator's own token, its administrator's. It is never written anywhere: there is no `Display`, and `Debug` shows none of it.
#[derive(Clone)]
pub struct ApiToken(Digest);

impl ApiToken {
    /// The token whose text is `text`. Only its digest is kept.
    pub fn new(text: &str) -> Self {
        Self(Digest::of(text.as_bytes()))
    }

    /// A token that nobody has: no text is known whose digest has zeros alone.
    pub(super) fn nobodys() -> Self {
        Self(format!("sha256:{}", "0".repeat(64)).parse().expect("these are the digits of a digest"))
    }

    /// Whether `given` is the token; how long that takes says nothing about the token.
    fn is(&self, given: &Digest) -> bool {
        self.0.bytes().ct_eq(given.bytes()).into()
    }
}

impl std::fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiToken(…)")
    }
}

/// What is asked of a request before anything is done for it.
pub(super) struct Access {
    pub(super) token: ApiToken,
    pub(super) tokens: Tokens,
    pub(super) limits: Limits,
    pub(super) hosts: Vec<String>,
    pub(super) origins: Vec<String>,
}

impl Access {
    /// The host under whose name the API is called, and the page that calls it, must be known.
    fn check_names(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let host = text(headers, &header::HOST).unwrap_or_default();
        let name = name_of(host);
        if !is_loopback(name) && !self.hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(name)) {
            return Err(ApiError::ForeignHost(host.to_owned()));
        }
        let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
        let origin = origin.to_str().unwrap_or_default();
        let own = origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host));
        if own || self.origins.iter().any(|allowed| allowed == origin) { Ok(()) } else { Err(ApiError::Origin(origin.to_owned())) }
    }

    /// Whose token the request shows.
    fn caller(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        let authorization = text(headers, &header::AUTHORIZATION).ok_or(ApiError::Unauthorized("the request has no token"))?;
        let given = authorization.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let (_, given) = given.ok_or(ApiError::Unauthorized("the authorization is no bearer token"))?;
        let digest = Digest::of(given.trim().as_bytes());
        if self.token.is(&digest) {
            return Ok(Caller::owner());
        }
        self.tokens.find(&digest).map(Caller).ok_or(ApiError::Unauthorized("the token is none of the API's"))
    }

    /// Who may be served at this route; `None` where nobody is asked who they are.
    fn admit(&self, request: &ServiceRequest) -> Result<Option<Caller>, ApiError> {
        let pattern = request.match_pattern();
        let right = pattern.and_then(|pattern| right(request.method().as_str(), &pattern));
        let Some(Right::Of(role)) = right else { return Ok(None) };
        let caller = self.caller(request.headers())?;
        if caller.0.token.role < role {
            return Err(ApiError::Forbidden(format!(
                "the token `{}` is to {}, and this needs one to {role}",
                caller.name(),
                caller.0.token.role
            )));
        }
        Ok(Some(caller))
    }

    /// Refuses a request that is one too many.
    fn count(&self, request: &ServiceRequest, caller: Option<&Caller>) -> Result<(), ApiError> {
        let address = || request.peer_addr().map_or(NOWHERE, |peer| peer.ip());
        let asker = caller.map_or_else(|| Asker::Address(address()), |caller| Asker::Token(caller.name().clone()));
        self.limits.count(&asker).map_err(|wait| ApiError::TooManyRequests { wait })
    }
}

/// Where a request comes from that names no peer, as one over a unix socket.
const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Whoever sent the request has shown this token, and its role suffices. A handler that takes one is open to no one else.
#[derive(Debug, Clone)]
pub(super) struct Caller(Arc<Known>);

impl Caller {
    /// Whoever has the orchestrator's own token.
    fn owner() -> Self {
        let name = OWNER.parse().expect("the owner's name is a name");
        Self(Known::new(Token { name, digest: Digest::of(b""), role: Role::Admin, projects: None }))
    }

    /// The token's name, which stands in the records.
    pub(super) fn name(&self) -> &TokenName {
        &self.0.token.name
    }

    pub(super) fn token(&self) -> &Token {
        &self.0.token
    }

    /// Cancelled when the token is taken away, or is for something else.
    pub(super) fn ended(&self) -> &CancellationToken {
        &self.0.ended
    }

    /// Whether the token is for the project.
    pub(super) fn sees(&self, project: &ProjectName) -> bool {
        self.0.token.projects.as_ref().is_none_or(|projects| projects.contains(project))
    }

    /// Refuses what is asked for another project than those of the token.
    pub(super) fn check_sees(&self, project: &ProjectName) -> Result<(), ApiError> {
        if self.sees(project) {
            return Ok(());
        }
        Err(ApiError::Forbidden(format!("the token `{}` is not for the project `{project}`", self.name())))
    }

    /// The projects of which something is asked for: this one, or all; `None` for every project there is.
    pub(super) fn projects(&self, asked: Option<ProjectName>) -> Option<Vec<ProjectName>> {
        match asked {
            Some(project) if self.sees(&project) => Some(vec![project]),
            Some(_) => Some(Vec::new()),
            None => self.0.token.projects.as_ref().map(|projects| projects.iter().cloned().collect()),
        }
    }

    /// Whether the token is for all projects.
    pub(super) fn sees_all(&self) -> bool {
        self.0.token.projects.is_none()
    }

    /// Whether the token is for the run's project.
    pub(super) fn sees_run(&self, run: &Run) -> bool {
        self.sees(&run.trigger.project)
    }

    /// What makes a request with this key another one than those of others.
    pub(super) fn delivery(&self, key: &str) -> String {
        // No key has a line feed.
        if self.name().as_str() == OWNER { key.to_owned() } else { format!("{}\n{key}", self.name()) }
    }
}

impl FromRequest for Caller {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(request.extensions().get::<Self>().cloned().ok_or(ApiError::Unauthorized("nobody is known at this route")))
    }
}

/// Checks every request: the names of host and origin, and what its route asks for.
pub(super) async fn guard(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let api = request.app_data::<web::Data<Api>>().expect("every app of this module has the data");
    api.access.check_names(request.headers())?;
    let admitted = api.access.admit(&request);
    // Also whoever tries tokens.
    api.access.count(&request, admitted.as_ref().ok().and_then(Option::as_ref))?;
    if let Some(caller) = admitted? {
        request.extensions_mut().insert(caller);
    }
    next.call(request).await
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The host of an authority, without its port.
fn name_of(authority: &str) -> &str {
    if let Some((address, _)) = authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address;
    }
    authority.split_once(':').map_or(authority, |(name, _)| name)
}

fn is_loopback(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    fn access() -> Access {
        Access {
            token: ApiToken::new("s3cret"),
            tokens: Tokens::default(),
            limits: Limits::new(None),
            hosts: vec!["otto.test".into()],
            origins: vec!["https://pages.test".into()],
        }
    }

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn only_known_hosts_are_served() {
        for host in ["localhost", "LOCALHOST:80", "127.0.0.1:7480", "127.9.9.9", "[::1]:7480", "otto.test", "Otto.Test:443"] {
            assert!(access().check_names(&headers(&[(header::HOST, host)])).is_ok(), "{host}");
        }
        for host in ["", "evil.test", "localhost.evil.test", "127.0.0.1.evil.test", "otto.test.evil", "10.0.0.1", "[::2]", "0.0.0.0"] {
            assert!(matches!(access().check_names(&headers(&[(header::HOST, host)])), Err(ApiError::ForeignHost(_))), "{host}");
        }
        assert!(access().check_names(&headers(&[])).is_err());
    }

    #[test]
    fn only_known_origins_may_call() {
        for origin in ["http://localhost:7480", "https://pages.test"] {
            assert!(access().check_names(&headers(&[(header::HOST, "localhost:7480"), (header::ORIGIN, origin)])).is_ok(), "{origin}");
        }
        for origin in ["null", "", "http://localhost:7481", "https://evil.test", "https://pages.test.evil", "localhost:7480"] {
            let refused = access().check_names(&headers(&[(header::HOST, "localhost:7480"), (header::ORIGIN, origin)]));
            assert!(matches!(refused, Err(ApiError::Origin(_))), "{origin}");
        }
    }

    #[test]
    fn only_the_whole_token_opens() {
        for authorization in ["Bearer s3cret", "bearer s3cret", "BEARER  s3cret"] {
            assert!(access().caller(&headers(&[(header::AUTHORIZATION, authorization)])).is_ok(), "{authorization}");
        }
        for authorization in ["", "s3cret", "Basic s3cret", "Bearer", "Bearer ", "Bearer s3cre", "Bearer s3crets"] {
            let refused = access().caller(&headers(&[(header::AUTHORIZATION, authorization)]));
            assert!(matches!(refused, Err(ApiError::Unauthorized(_))), "{authorization}");
        }
        assert!(access().caller(&headers(&[])).is_err());
        assert_eq!(format!("{:?}", ApiToken::new("s3cret")), "ApiToken(…)");
    }
}
