//! The API's document as pages to read and to try (Swagger UI), at `/docs/`. They come from this process alone.

use actix_web::{
    http::header::{CONTENT_SECURITY_POLICY, X_FRAME_OPTIONS},
    middleware::DefaultHeaders,
    web,
};
use utoipa_actix_web::service_config::ServiceConfig;
use utoipa_swagger_ui::{Config, SwaggerUi};

/// Scripts of this process only; the pages set styles of their elements themselves, and have small pictures in their text.
const POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'";

/// The pages.
pub(super) fn routes(config: &mut ServiceConfig<'_>) {
    config.map(|config| {
        let headers = DefaultHeaders::new().add((CONTENT_SECURITY_POLICY, POLICY)).add((X_FRAME_OPTIONS, "DENY"));
        let pages = SwaggerUi::new("/{_:.*}").config(Config::from("/v1/openapi.json"));
        config.service(web::redirect("/docs", "/docs/")).service(web::scope("/docs").wrap(headers).service(pages))
    });
}
