//! What handlers take out of a request: a JSON body, ids out of the path, queries. Whatever is wrong is refused here,
//! in the API's own shape; the framework's plain-text refusals never reach a client.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Uri, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use klatch_actors::Caller;
use klatch_protocol::{ConversationId, ItemId, ResponseId};
use serde::de::DeserializeOwned;

use super::edge::Edge;
use super::errors::{ApiError, short};
use super::idempotency::Identity;
use crate::config::LimitOptions;

/// Path parameters as the routes name them.
pub const CONVERSATION_ID: &str = "conversation_id";
pub const ITEM_ID: &str = "item_id";
pub const RESPONSE_ID: &str = "response_id";
pub const MODEL: &str = "model";

/// A JSON body, who sent it, and how its repetition would be known.
pub struct Sent<T> {
    pub caller: Caller,
    pub identity: Identity,
    pub headers: HeaderMap,
    pub body: T,
}

/// The caller of a request without a body.
pub struct Asked(pub Caller);

/// A body where an empty one says as much as `{}`.
pub struct SentOrNothing<T>(pub Sent<T>);

/// How an item is named in a path or a cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ItemName {
    Own(ItemId),
    /// An id that its sender made up.
    Client(String),
}

pub struct PathConversation(pub ConversationId);

pub struct PathItem(pub ConversationId, pub ItemName);

pub struct PathResponse(pub ResponseId);

pub struct PathModel(pub String);

/// The pairs of the query string, in their order.
pub struct Query(Vec<(String, String)>);

impl<T: DeserializeOwned> FromRequest<Edge> for Sent<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, edge: &Edge) -> Result<Self, ApiError> {
        read(request, edge, false).await
    }
}

impl<T: DeserializeOwned> FromRequest<Edge> for SentOrNothing<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, edge: &Edge) -> Result<Self, ApiError> {
        read(request, edge, true).await.map(Self)
    }
}

async fn read<T: DeserializeOwned>(request: Request, edge: &Edge, may_be_empty: bool) -> Result<Sent<T>, ApiError> {
    let (parts, body) = request.into_parts();
    let caller = known_caller(&parts)?;
    let bytes = read_body(body, edge.options.limits.body_bytes, edge.options.limits.body_timeout).await?;
    // A request is the same under whatever version of the API: keys outlive versions.
    let path = parts.uri.path();
    let path = path.strip_prefix("/v1").unwrap_or(path);
    let identity = Identity::new(&caller.tenant, &parts.method, path, &parts.headers, &bytes)?;
    let body = match may_be_empty && bytes.is_empty() {
        true => parse(b"{}")?,
        false => {
            check_content_type(&parts.headers)?;
            parse(&bytes)?
        }
    };
    Ok(Sent { caller, identity, headers: parts.headers, body })
}

/// A JSON body of a route that needs no caller.
pub async fn read_json<T: DeserializeOwned>(request: Request, limits: &LimitOptions) -> Result<T, ApiError> {
    let (parts, body) = request.into_parts();
    check_content_type(&parts.headers)?;
    parse(&read_body(body, limits.body_bytes, limits.body_timeout).await?)
}

async fn read_body(body: Body, bytes_max: usize, timeout: Duration) -> Result<Bytes, ApiError> {
    let collected = tokio::time::timeout(timeout, Limited::new(body, bytes_max).collect()).await;
    match collected {
        Err(_) => Err(ApiError::slow_body()),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ApiError::too_large(bytes_max)),
        Ok(Err(_)) => Err(ApiError::malformed("the body broke off")),
    }
}

fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    let is_json = essence.eq_ignore_ascii_case("application/json");
    if is_json { Ok(()) } else { Err(ApiError::malformed("the content type must be application/json")) }
}

/// The value; what is wrong is named by its path.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return Err(ApiError::malformed("the body must be a JSON object"));
    }
    if let Ok(value) = serde_json::from_slice(bytes) {
        return Ok(value);
    }
    // Once more, to say what is wrong and where: to keep track of that costs the many that are right.
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let (path, cause) = (error.path().to_string(), error.inner());
        let message = short(&cause.to_string());
        if let Some(missing) = missing_field(&message) {
            let param = if path == "." { missing.to_owned() } else { format!("{path}.{missing}") };
            ApiError::invalid(param, "is required")
        } else if cause.is_data() && path != "." {
            ApiError::invalid(path, message)
        } else {
            ApiError::malformed(format!("the body is no JSON object of this route: {message}"))
        }
    })?;
    reader.end().map_err(|_| ApiError::malformed("the body goes on behind its JSON object"))?;
    Ok(value)
}

/// serde names the field in its text only, and its path ends at the object around it.
fn missing_field(message: &str) -> Option<&str> {
    message.strip_prefix("missing field `")?.split_once('`').map(|(name, _)| name)
}

fn known_caller(parts: &Parts) -> Result<Caller, ApiError> {
    let caller = parts.extensions.get::<Caller>().cloned();
    caller.ok_or_else(|| ApiError::unauthorized("an access token is needed"))
}

impl FromRequestParts<Edge> for Asked {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Edge) -> Result<Self, ApiError> {
        known_caller(parts).map(Asked)
    }
}

/// The text of one path parameter; what is no text names nothing.
async fn segment(parts: &mut Parts, edge: &Edge, name: &str) -> Result<String, ApiError> {
    let no_text = |_| ApiError::not_found("the path is not UTF-8");
    let params = RawPathParams::from_request_parts(parts, edge).await.map_err(no_text)?;
    let found = params.iter().find(|(param, _)| *param == name);
    found.map(|(_, text)| text.to_owned()).ok_or_else(ApiError::no_route)
}

impl FromRequestParts<Edge> for PathConversation {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, edge: &Edge) -> Result<Self, ApiError> {
        let text = segment(parts, edge, CONVERSATION_ID).await?;
        text.parse().map(Self).map_err(|error| no_such("conversation", &text, error))
    }
}

impl FromRequestParts<Edge> for PathResponse {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, edge: &Edge) -> Result<Self, ApiError> {
        let text = segment(parts, edge, RESPONSE_ID).await?;
        text.parse().map(Self).map_err(|error| no_such("response", &text, error))
    }
}

impl FromRequestParts<Edge> for PathItem {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, edge: &Edge) -> Result<Self, ApiError> {
        let PathConversation(conversation) = PathConversation::from_request_parts(parts, edge).await?;
        let text = segment(parts, edge, ITEM_ID).await?;
        Ok(Self(conversation, ItemName::from(text.as_str())))
    }
}

impl FromRequestParts<Edge> for PathModel {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, edge: &Edge) -> Result<Self, ApiError> {
        segment(parts, edge, MODEL).await.map(Self)
    }
}

fn no_such(what: &str, text: &str, error: klatch_protocol::IdError) -> ApiError {
    ApiError::not_found(format!("there is no {what} `{}`: its id {error}", short(text)))
}

impl From<&str> for ItemName {
    fn from(text: &str) -> Self {
        text.parse().map_or_else(|_| ItemName::Client(text.to_owned()), ItemName::Own)
    }
}

impl FromRequestParts<Edge> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Edge) -> Result<Self, ApiError> {
        Self::read(&parts.uri)
    }
}

impl Query {
    fn read(uri: &Uri) -> Result<Self, ApiError> {
        let pairs = axum::extract::Query::try_from_uri(uri);
        pairs
            .map(|axum::extract::Query(pairs)| Self(pairs))
            .map_err(|_| ApiError::malformed("the query cannot be read"))
    }

    /// The last value of this name: a later one is meant to replace an earlier one.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.get(name) {
            None | Some("false" | "") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(ApiError::invalid(name, "must be true or false")),
        }
    }

    pub fn number(&self, name: &str) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| ApiError::invalid(name, "must be a whole number"))
    }

    /// Pairs written as `name[key]=value`.
    pub fn members<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.iter().filter_map(move |(key, value)| {
            let key = key.strip_prefix(name)?.strip_prefix('[')?.strip_suffix(']')?;
            Some((key, value.as_str()))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Nested {
        #[allow(dead_code)]
        number: Option<u32>,
        #[allow(dead_code)]
        inner: Option<Box<Nested>>,
    }

    #[test]
    fn a_wrong_type_is_named_by_its_path() {
        let error = parse::<Nested>(br#"{"inner": {"number": "one"}}"#).expect_err("a string");
        assert_eq!(error.param(), Some("inner.number"));
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for body in ["", "{", "[1]", "7", "{} x", "\u{0}"] {
            let error = parse::<Nested>(body.as_bytes()).expect_err(body);
            assert_eq!((error.status().as_u16(), error.param()), (400, None), "{body}");
        }
    }

    #[test]
    fn queries_are_decoded() {
        let uri = Uri::from_static("/?limit=5&metadata%5Ba+b%5D=%C3%A9&order=asc&limit=7&x=%zz&y=%ff");
        let query = Query::read(&uri).expect("a query");
        assert_eq!(query.number("limit").expect("a number"), Some(7));
        assert_eq!(query.members("metadata").collect::<Vec<_>>(), [("a b", "é")]);
        assert_eq!(query.get("x"), Some("%zz"));
        assert!(query.number("order").is_err());
    }

    proptest! {
        #[test]
        fn any_query_can_be_read(bytes in "[%0-9a-f&=+\\[\\]]{0,40}") {
            if let Ok(uri) = format!("/?{bytes}").parse::<Uri>() { prop_assert!(Query::read(&uri).is_ok()) }
        }

        #[test]
        fn any_body_is_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Err(error) = parse::<Nested>(&body) { prop_assert_eq!(error.status().as_u16(), 400) }
        }
    }
}
