//! Who may: the token of a request, and the host that it was sent to.

use std::future::{Ready, ready};

use actix_web::{
    Error, FromRequest, HttpRequest,
    body::MessageBody,
    dev::{Payload, ServiceRequest, ServiceResponse},
    http::header,
    middleware::Next,
    web,
};
use blob::token::{Claims, Read};
use model::{Digest, Timestamp};
use service::host::{is_host, is_own_host};

use crate::{Depot, problem::ApiError};

/// The holder of the request's token. A handler that takes one is reached with a valid token only.
#[derive(Debug)]
pub(crate) struct Holder(Claims);

impl Holder {
    pub(crate) fn reads(&self, digest: &Digest) -> Result<(), ApiError> {
        if self.0.may_read(digest) { Ok(()) } else { Err(self.forbidden("read these bytes")) }
    }

    pub(crate) fn writes(&self) -> Result<(), ApiError> {
        if self.0.write { Ok(()) } else { Err(self.forbidden("store bytes")) }
    }

    /// Only a service may: an attempt reads some bytes, and not all.
    pub(crate) fn removes(&self) -> Result<(), ApiError> {
        let is_service = self.0.write && self.0.read == Read::All;
        if is_service { Ok(()) } else { Err(self.forbidden("remove bytes")) }
    }

    fn forbidden(&self, what: &'static str) -> ApiError {
        ApiError::Forbidden { holder: self.0.holder.clone(), what }
    }
}

impl FromRequest for Holder {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(holder(request))
    }
}

fn holder(request: &HttpRequest) -> Result<Holder, ApiError> {
    let depot = request.app_data::<web::Data<Depot>>().expect("run puts it there");
    let value = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).ok_or(ApiError::NoToken)?;
    let token = value.strip_prefix("Bearer ").ok_or(ApiError::NoToken)?;
    Ok(Holder(depot.verifier.verify(token, Timestamp(service::clock::unix_ms()))?))
}

/// Refuses requests that were meant for another host; see [`is_own_host`]. It has at most one more name.
pub(crate) async fn check_host(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let depot = request.app_data::<web::Data<Depot>>().expect("run puts it there");
    let host = request.headers().get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !is_own_host(host, depot.address) && !depot.host.as_ref().is_some_and(|name| is_host(host, name)) {
        return Err(ApiError::ForeignHost.into());
    }
    next.call(request).await
}
