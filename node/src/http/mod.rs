//! The HTTP edge: OpenAI's Conversations and Responses on the wire, and the conversations' owners behind it.
//!
//! Made once by `main`, which serves [`router`] on the public port and puts a `ConnectInfo<SocketAddr>` into each
//! request. Keeps nothing that a client could miss: a node that dies takes connections with it, and no turn. Decides
//! nothing about conversations, and speaks to no store but through the reader.

mod access;
mod chat;
mod conversations;
mod delivery;
mod edge;
pub mod errors;
mod extract;
mod idempotency;
mod inputs;
mod items;
mod lookup;
pub mod metrics;
mod models;
mod observe;
mod open_turns;
pub mod openapi;
mod options;
mod rate;
mod render;
mod reply;
mod responses;
mod sessions;
mod stream;
mod submit;
#[cfg(test)]
mod tests;
mod unread;
pub mod wire;

use axum::Router;
use axum::extract::FromRef;
use axum::routing::{get, post};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::observe::Observe;

pub use self::edge::Edge;
pub use self::errors::ApiError;
pub use self::extract::parse;
pub use self::options::EdgeOptions;
pub use self::sessions::SignIn;

/// All public routes, and an answer in the API's shape to every other.
pub fn router(edge: Edge) -> Router {
    metrics::describe();
    let (api, mut description) = OpenApiRouter::with_openapi(openapi::base()).merge(api_routes()).split_for_parts();
    let (sessions, of_sessions) = session_routes().split_for_parts();
    description.merge(of_sessions);
    let description = Router::new().route("/openapi.json", get(openapi::show)).with_state(openapi::finish(description));
    let others = finish(sessions.with_state(edge.clone()).merge(description).merge(crate::page::chat()));
    let api = api.with_state(edge.clone()).method_not_allowed_fallback(no_such_method);
    others.merge(api.layer(Observe { edge: Some(edge) }))
}

/// Of a process of the role `auth`.
pub fn auth_router(sign_in: SignIn) -> Router {
    metrics::describe();
    let (routes, _) = session_routes().split_for_parts();
    finish(routes.with_state(sign_in))
}

/// Routes that need no caller.
fn finish(routes: Router) -> Router {
    routes
        .fallback(|| async { ApiError::no_route() })
        .method_not_allowed_fallback(no_such_method)
        .layer(Observe { edge: None })
}

async fn no_such_method() -> ApiError {
    ApiError::method_not_allowed()
}

/// By their whole paths: a nested router would write each request's path anew.
fn api_routes() -> OpenApiRouter<Edge> {
    OpenApiRouter::new()
        .routes(routes!(conversations::create, conversations::list))
        .routes(routes!(conversations::read, conversations::update, conversations::delete))
        .routes(routes!(conversations::fork))
        .routes(routes!(items::add, items::list))
        .routes(routes!(items::read, items::delete))
        .routes(routes!(open_turns::list))
        .routes(routes!(submit::create))
        .routes(routes!(responses::read, responses::delete))
        .routes(routes!(responses::cancel))
        .routes(routes!(responses::input_items))
        .routes(routes!(models::list))
        .routes(routes!(models::read))
        .routes(routes!(chat::create))
        // Not offered; without this it would be the id of a response, and the answer 405.
        .route("/v1/responses/compact", post(|| async { ApiError::no_route() }))
}

fn session_routes<S>() -> OpenApiRouter<S>
where
    S: Clone + Send + Sync + 'static,
    SignIn: FromRef<S>,
{
    OpenApiRouter::new()
        .routes(routes!(sessions::login))
        .routes(routes!(sessions::refresh))
        .routes(routes!(sessions::logout))
        .routes(routes!(sessions::jwks))
}
