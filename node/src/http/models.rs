//! The configured responders, as models.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::edge::Edge;
use super::errors::{ApiError, Refused};
use super::extract::PathModel;

#[derive(Serialize, ToSchema)]
pub struct Model {
    id: String,
    /// Always `model`.
    #[schema(value_type = String)]
    object: &'static str,
    /// Seconds since 1970; models here have no birthday.
    created: u64,
    #[schema(value_type = String)]
    owned_by: &'static str,
}

#[derive(Serialize, ToSchema)]
pub struct Models {
    /// Always `list`.
    #[schema(value_type = String)]
    object: &'static str,
    data: Vec<Model>,
}

impl Model {
    fn new(name: &str) -> Self {
        Self { id: name.to_owned(), object: "model", created: 0, owned_by: "klatch" }
    }
}

/// Lists the models.
#[utoipa::path(get, path = "/v1/models", tag = "models", responses((status = 200, body = Models), Refused))]
pub async fn list(State(edge): State<Edge>) -> Json<Models> {
    Json(Models { object: "list", data: edge.responders.keys().map(|name| Model::new(name)).collect() })
}

/// Shows a model.
#[utoipa::path(get, path = "/v1/models/{model}", tag = "models", params(("model" = String, Path)),
    responses((status = 200, body = Model), Refused))]
pub async fn read(State(edge): State<Edge>, PathModel(name): PathModel) -> Result<Json<Model>, ApiError> {
    let found = edge.responders.get_key_value(&name).map(|(name, _)| Model::new(name));
    found.map(Json).ok_or_else(|| ApiError::unknown_model(&name, StatusCode::NOT_FOUND))
}
