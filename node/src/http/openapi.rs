//! The description of the API, made from the handlers and their types.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use std::sync::Arc;
use utoipa::ToSchema;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{InfoBuilder, OpenApi, OpenApiBuilder};

const SCHEME: &str = "access_token";

/// One event of a stream, as it is framed.
#[derive(ToSchema)]
pub struct ServerSentEvent {
    pub event: Option<String>,
    /// JSON, or `[DONE]`.
    pub data: String,
    pub id: Option<String>,
}

/// What the paths of the handlers are added to.
pub fn base() -> OpenApi {
    let info = InfoBuilder::new()
        .title("Klatch")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("Conversations that are durable, ordered and resumable, behind OpenAI's wire."))
        .build();
    OpenApiBuilder::new().info(info).security(Some([SecurityRequirement::new(SCHEME, [""; 0])])).build()
}

/// The whole description, ready to be sent.
pub fn finish(mut api: OpenApi) -> Arc<Value> {
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
    let components = api.components.get_or_insert_default();
    components.add_security_scheme(SCHEME, SecurityScheme::Http(bearer));
    let mut document = serde_json::to_value(api).expect("a description is plain data");
    open_lists(&mut document);
    Arc::new(document)
}

/// A filter has a name of its own for each key, which the handlers' types cannot say.
fn open_lists(document: &mut Value) {
    if let Some(Value::Array(params)) = document.pointer_mut("/paths/~1v1~1conversations/get/parameters") {
        params.push(json!({
            "name": "metadata", "in": "query", "required": false, "style": "deepObject", "explode": true,
            "description": "Pairs that the conversations have: `metadata[key]=value`",
            "schema": {"type": "object", "additionalProperties": {"type": "string"}},
        }));
    }
}

pub async fn show(State(document): State<Arc<Value>>) -> Json<Arc<Value>> {
    Json(document)
}
