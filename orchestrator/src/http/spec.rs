//! The document of the API (OpenAPI 3.1): made from the handlers, committed beside `apispec`, served to whoever asks.

use actix_web::{App, HttpRequest, HttpResponse, get, http::header::ContentType, web};
use apispec::{
    ChunkView, Code, EndView, EventView, GapView, Health, Problem, RunEventView, StatusName,
    schema::{Cursor, EventId, IdempotencyKey, OutputRange},
};
use service::metrics::CONTENT_TYPE;
use utoipa::{
    Modify, OpenApi,
    openapi::{
        RefOr,
        path::{Parameter, PathItem},
        schema::{AdditionalProperties, Schema, SchemaType, Type},
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};
use utoipa_actix_web::AppExt as _;

use super::{Api, ApiError, callback_routes, routes};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Otto orchestrator",
        version = "1",
        description = "Runs of pipelines: create, show, list, follow, cancel, run again, answer what they wait for. Projects, environments, auctions.\n\nWhat can be followed has two paths: the thing as it is now, \
                       and beside it `…/follow`, the same as server-sent events, whose last one is named `end`. Every error is a problem \
                       document (RFC 9457), whose `code` is for programs.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    tags(
        (name = "runs", description = "one execution of a pipeline"),
        (name = "sources", description = "what a run is made of"),
        (name = "plans", description = "what a run would do"),
        (name = "artifacts", description = "what stages have left to people"),
        (name = "projects", description = "what is delivered, and where to"),
        (name = "agents", description = "who runs stages"),
        (name = "audit", description = "who did what"),
        (name = "auctions", description = "who runs a stage, and why"),
        (name = "waits", description = "what runs wait for, of people and of outside systems"),
        (name = "events", description = "the log of a run: what happened, in its order"),
        (name = "logs", description = "the output of a run's stages"),
        (name = "service", description = "about the API itself"),
    ),
    components(schemas(Problem, Code, StatusName, EventView, RunEventView, EndView, ChunkView, GapView, Cursor, EventId, IdempotencyKey, OutputRange)),
    security(("token" = [])),
    modifiers(&Token),
)]
struct Doc;

struct Token;

impl Modify for Token {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let bearer =
            HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("the orchestrator's own token, or one of `otto token new`"));
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(bearer.build()));
    }
}

/// Choices of requests whose cases take no fields but their own. Of a type with cases, the derived schema does not say so; a case without fields of its
/// own takes any.
const CLOSED: [&str; 3] = ["AnswerGiven", "RerunStages", "RevisionCreate"];

/// The document of the API; no server is needed for it.
pub fn openapi() -> utoipa::openapi::OpenApi {
    let mut document = App::new().into_utoipa_app().openapi(Doc::openapi()).configure(routes).split_for_parts().1;
    document.paths.paths.values_mut().for_each(without_null);
    let schemas = &mut document.components.get_or_insert_default().schemas;
    for name in CLOSED {
        close(schemas.get_mut(name).expect("requests have it"));
    }
    document
}

fn close(choice: &mut RefOr<Schema>) {
    let RefOr::T(Schema::OneOf(choice)) = choice else { return };
    for case in &mut choice.items {
        if let RefOr::T(Schema::Object(object)) = case
            && object.properties.len() > 1
        {
            object.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
        }
    }
}

/// A parameter may be left out, and is never `null`: in an address and in a header there is no such thing.
fn without_null(item: &mut PathItem) {
    let operations = [&mut item.get, &mut item.post, &mut item.put, &mut item.delete];
    let parameters = operations.into_iter().flatten().filter_map(|operation| operation.parameters.as_mut());
    for parameter in parameters.flatten() {
        let RefOr::T(Parameter { schema: Some(schema), .. }) = parameter else { continue };
        if let RefOr::T(Schema::OneOf(choice)) = schema {
            choice
                .items
                .retain(|item| !matches!(item, RefOr::T(Schema::Object(object)) if object.schema_type == SchemaType::Type(Type::Null)));
            if let [only] = choice.items.as_slice() {
                *schema = only.clone();
            }
        } else if let RefOr::T(Schema::Object(object)) = schema
            && let SchemaType::Array(types) = &object.schema_type
            && let [only] = types.iter().filter(|of| **of != Type::Null).collect::<Vec<_>>().as_slice()
        {
            object.schema_type = SchemaType::Type((*only).clone());
        }
    }
}

/// The document of the addresses of callbacks alone.
pub(super) fn openapi_of_callbacks() -> utoipa::openapi::OpenApi {
    App::new().into_utoipa_app().openapi(Doc::openapi()).configure(callback_routes).split_for_parts().1
}

/// The document as it is committed and served: JSON, ending with a line feed.
pub(super) fn text(document: &utoipa::openapi::OpenApi) -> String {
    let mut text = document.to_pretty_json().expect("a document has text keys only");
    text.push('\n');
    text
}

/// Which methods each path takes, to tell a wrong method from a wrong path.
#[derive(Debug)]
pub(super) struct Routes(Vec<Route>);

#[derive(Debug)]
struct Route {
    segments: Vec<String>,
    methods: Vec<&'static str>,
}

impl Routes {
    pub(super) fn of(document: &utoipa::openapi::OpenApi) -> Self {
        let route = |(path, item): (&String, &PathItem)| {
            let present = [("GET", &item.get), ("POST", &item.post), ("PUT", &item.put), ("DELETE", &item.delete)];
            let methods = present.iter().filter(|(_, operation)| operation.is_some()).map(|(method, _)| *method).collect();
            Route { segments: path.split('/').map(str::to_owned).collect(), methods }
        };
        Self(document.paths.paths.iter().map(route).collect())
    }

    /// The methods of a path, if there is one.
    fn methods(&self, path: &str) -> Option<String> {
        let segments: Vec<&str> = path.split('/').collect();
        let fits = |route: &&Route| {
            let pairs = || route.segments.iter().zip(&segments);
            route.segments.len() == segments.len() && pairs().all(|(named, given)| named.starts_with('{') || named == given)
        };
        self.0.iter().find(fits).map(|route| route.methods.join(", "))
    }
}

/// Answers what no handler takes.
pub(super) async fn unknown_path(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    Err(match api.routes.methods(request.path()) {
        Some(allow) => ApiError::MethodNotAllowed { allow },
        None => ApiError::UnknownPath(request.path().to_owned()),
    })
}

/// Whether the process answers. It asks for no token.
#[utoipa::path(
    tag = "service",
    operation_id = "health",
    security(()),
    responses((status = 200, description = "it answers", body = Health), ApiError),
)]
#[get("/health")]
pub(super) async fn health() -> web::Json<Health> {
    web::Json(Health { status: "ok".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() })
}

/// How the process is, for Prometheus. It asks for no token, and names no project.
#[utoipa::path(
    tag = "service",
    operation_id = "metrics",
    security(()),
    responses((status = 200, description = "OpenMetrics text", body = String, content_type = "application/openmetrics-text"), ApiError),
)]
#[get("/metrics")]
pub(super) async fn metrics(api: web::Data<Api>) -> HttpResponse {
    HttpResponse::Ok().content_type(CONTENT_TYPE).body(crate::metrics::text(&api.orchestrator))
}

/// This document. It asks for no token.
#[utoipa::path(
    tag = "service",
    operation_id = "openapi",
    security(()),
    responses((status = 200, description = "an OpenAPI document", body = serde_json::Value, content_type = "application/json"), ApiError),
)]
#[get("/v1/openapi.json")]
pub(super) async fn openapi_json(api: web::Data<Api>) -> HttpResponse {
    HttpResponse::Ok().content_type(ContentType::json()).body(api.document.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_method_is_told_from_a_wrong_path() {
        let routes = Routes::of(&openapi());
        assert_eq!(routes.methods("/v1/runs").as_deref(), Some("GET, POST"));
        assert_eq!(routes.methods("/v1/runs/x/cancel").as_deref(), Some("POST"));
        assert_eq!(routes.methods("/v1/runs/"), Some("GET".to_owned()));
        for path in ["", "/", "/v1", "/v1/runs/x/y", "/v2/runs"] {
            assert_eq!(routes.methods(path), None, "{path}");
        }
    }
}
