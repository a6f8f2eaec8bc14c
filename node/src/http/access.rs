//! Who asks, and whether they ask too often: stands before every route under /v1.

use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use klatch_actors::Caller;

use super::edge::Edge;
use super::errors::ApiError;
use super::rate::Grant;

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit-requests");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining-requests");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset-requests");

/// Lets the request through with its [`Caller`] in the extensions.
pub async fn admit(edge: Edge, mut request: Request, next: Next) -> Response {
    let caller = match caller(&edge, request.headers()).await {
        Ok(caller) => caller,
        Err(error) => return error.into_response(),
    };
    let grant = edge.take(&caller);
    let mut response = match grant.wait {
        Some(wait) => {
            let message = format!("more than {} requests in a minute", grant.limit);
            ApiError::too_many(message, wait.as_millis() as u64 + 1).into_response()
        }
        None => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
    };
    write_grant(response.headers_mut(), grant);
    response
}

async fn caller(edge: &Edge, headers: &HeaderMap) -> Result<Caller, ApiError> {
    let token = bearer(headers)
        .ok_or_else(|| ApiError::unauthorized("an access token is needed, in the header `Authorization: Bearer …`"))?;
    Ok(edge.auth.verify(token).await?)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn write_grant(headers: &mut HeaderMap, grant: Grant) {
    headers.insert(LIMIT, grant.limit.into());
    headers.insert(REMAINING, grant.remaining.into());
    if let Ok(reset) = HeaderValue::try_from(seconds(grant.reset)) {
        headers.insert(RESET, reset);
    }
}

/// As OpenAI writes it: `8.64s`.
fn seconds(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => format!("{}s", duration.as_secs()),
        millis => format!("{}.{millis:03}", duration.as_secs()).trim_end_matches('0').to_owned() + "s",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &'static str) -> Option<String> {
        let headers = HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static(value))]);
        bearer(&headers).map(str::to_owned)
    }

    #[test]
    fn only_a_bearer_token_is_a_credential() {
        assert_eq!(read("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(read("bearer  abc ").as_deref(), Some("abc"));
        assert_eq!([read("Basic abc"), read("Bearer"), read("Bearer  "), read("")], [None, None, None, None]);
    }

    #[test]
    fn a_reset_is_told_in_seconds() {
        assert_eq!(seconds(Duration::from_millis(8_640)), "8.64s");
        assert_eq!(seconds(Duration::ZERO), "0s");
    }
}
