//! Who asks.

use actix_web::{get, web};
use apispec::TokenView;

use super::{ApiError, access::Caller};

/// Show the token that the request is made with: whose it is, and what it is for.
#[utoipa::path(tag = "service", operation_id = "token_show", responses((status = 200, description = "the token", body = TokenView), ApiError))]
#[get("/v1/token")]
pub(super) async fn show(caller: Caller) -> web::Json<TokenView> {
    let config::Token { name, role, projects, digest: _ } = caller.token().clone();
    web::Json(TokenView { name, role, projects })
}
