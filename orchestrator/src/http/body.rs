//! Bodies that are JSON. All of one comes within [`BODY_DEADLINE`], or the request is refused: whoever sends one a byte at a time would keep its
//! connection, and so one of the files that this process may have open, for as long as it likes.

use std::{pin::Pin, time::Duration};

use actix_web::{Error, FromRequest, HttpRequest, dev::Payload, web};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::ApiError;

/// How long a body may take: 2 MiB over a line of 2 Mbit/s.
const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// A body that was read in time.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned + 'static> FromRequest for Body<T> {
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Error>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let read = web::Json::<T>::from_request(request, payload);
        Box::pin(async move {
            let read = timeout(BODY_DEADLINE, read).await.map_err(|_| ApiError::LateBody(BODY_DEADLINE))?;
            Ok(Self(read?.into_inner()))
        })
    }
}
