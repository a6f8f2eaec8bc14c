//! Who asks, and whether they ask too often: stands before every route under /v1.

use std::convert::Infallible;
use std::io::Write;
use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use klatch_actors::Caller;
use tower::Service;

use super::edge::Edge;
use super::errors::ApiError;
use super::observe::answered;
use super::rate::Grant;

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit-requests");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining-requests");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset-requests");
/// Of the longest duration: 20 digits, a point, three more, and the unit.
const SECONDS_CHARS_MAX: usize = 25;

/// Lets the request through with its [`Caller`] in the extensions.
pub async fn admit<S>(edge: Edge, mut request: Request, route: S) -> Response
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
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
            answered(route, request).await
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
    headers.insert(RESET, seconds(grant.reset));
}

/// As OpenAI writes it: `8.64s`.
fn seconds(duration: Duration) -> HeaderValue {
    let (seconds, millis) = (duration.as_secs(), duration.subsec_millis());
    // Written where it costs no memory: every answer has one.
    let mut text = [0; SECONDS_CHARS_MAX];
    let mut left = &mut text[..];
    let written = match (millis, millis % 10, millis % 100) {
        (0, ..) => write!(left, "{seconds}s"),
        (_, _, 0) => write!(left, "{seconds}.{}s", millis / 100),
        (_, 0, _) => write!(left, "{seconds}.{:02}s", millis / 10),
        _ => write!(left, "{seconds}.{millis:03}s"),
    };
    written.expect("it is long enough for every duration");
    let length = SECONDS_CHARS_MAX - left.len();
    HeaderValue::from_bytes(&text[..length]).expect("digits are fit for a header")
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
        for (millis, text) in
            [(8_640, "8.64s"), (0, "0s"), (500, "0.5s"), (61_000, "61s"), (1_005, "1.005s"), (10, "0.01s")]
        {
            assert_eq!(seconds(Duration::from_millis(millis)), text);
        }
        assert_eq!(seconds(Duration::MAX), "18446744073709551615.999s");
    }
}
