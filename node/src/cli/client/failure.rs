//! What can go wrong between this client and the server, in words for the person at the terminal, and whether the
//! same request may be sent again. Used by everything in `cli` that speaks HTTP; prints and decides nothing itself.

use std::error::Error;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde::Deserialize;

/// Of an answer that is no JSON error, so much is shown.
const SHOWN_BODY_MAX: usize = 200;

#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// It may or may not have arrived: only the same key makes sending it again safe.
    #[error("the server at {url} cannot be reached: {cause}")]
    Unreachable { url: String, cause: String },
    #[error("the server at {url} did not answer in time")]
    Silent { url: String },
    #[error("the connection was lost before the answer was complete")]
    CutShort,
    #[error("{0}")]
    Refused(Refusal),
    #[error("the server's answer was not understood: {0}")]
    Malformed(String),
}

#[derive(Clone, Debug)]
pub struct Refusal {
    pub status: u16,
    pub message: String,
    pub request_id: Option<String>,
    pub repeat_after: Option<Duration>,
    /// False when the server said so with `x-should-retry: false`.
    pub may_repeat: bool,
}

#[derive(Default, Deserialize)]
struct ErrorBody {
    error: ErrorMembers,
}

#[derive(Default, Deserialize)]
struct ErrorMembers {
    message: String,
}

impl Failure {
    pub fn of_transport(url: &str, why: reqwest::Error) -> Self {
        if why.is_timeout() {
            return Self::Silent { url: url.to_owned() };
        }
        let mut cause: &dyn Error = &why;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        Self::Unreachable { url: url.to_owned(), cause: cause.to_string() }
    }

    pub async fn of_refusal(response: reqwest::Response) -> Self {
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.bytes().await.unwrap_or_default();
        Self::Refused(Refusal::read(status, &headers, &body))
    }

    /// None: sending it again cannot help. Some(None): whenever the client likes.
    pub fn repeat_after(&self) -> Option<Option<Duration>> {
        match self {
            Self::Unreachable { .. } | Self::Silent { .. } | Self::CutShort => Some(None),
            Self::Refused(refusal) => refusal.may_repeat.then_some(refusal.repeat_after),
            Self::Malformed(_) => None,
        }
    }
}

impl Refusal {
    fn read(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let number = |name: &str| text(name).and_then(|value| value.parse::<f64>().ok());
        let asked_ms = number("retry-after-ms").or_else(|| number("retry-after").map(|secs| secs * 1000.0));
        let said: ErrorBody = serde_json::from_slice(body).unwrap_or_else(|_| ErrorBody::of_text(body));
        Self {
            status: status.as_u16(),
            message: said.error.message,
            request_id: text("x-request-id"),
            repeat_after: asked_ms.and_then(|ms| Duration::try_from_secs_f64(ms / 1000.0).ok()),
            may_repeat: matches!(status.as_u16(), 429 | 502 | 503 | 504)
                && text("x-should-retry").as_deref() != Some("false"),
        }
    }

    fn in_words(&self) -> &'static str {
        match self.status {
            400 => "the server does not accept this request",
            401 => "the access token is missing, wrong or expired",
            403 => "this is not allowed",
            404 => "there is no such thing here",
            409 => "the conversation is busy",
            413 => "the message is too long",
            429 => "too many requests",
            502..=504 => "the server cannot take this now",
            _ => "the server failed",
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (HTTP {})", self.in_words(), self.status)?;
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        match &self.request_id {
            Some(id) => write!(f, " [request {id}]"),
            None => Ok(()),
        }
    }
}

impl ErrorBody {
    /// Proxies answer in HTML, or not at all.
    fn of_text(body: &[u8]) -> Self {
        let text = String::from_utf8_lossy(body);
        let first = text.lines().next().unwrap_or_default().trim();
        let message = if first.starts_with('<') { String::new() } else { first.chars().take(SHOWN_BODY_MAX).collect() };
        Self { error: ErrorMembers { message } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> Refusal {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        Refusal::read(StatusCode::from_u16(status).unwrap(), &headers, body.as_bytes())
    }

    #[test]
    fn a_refusal_is_told_in_plain_words_with_the_request_id() {
        let body = r#"{"error":{"message":"Slow down.","type":"x","param":null,"code":"rate_limit_exceeded"}}"#;
        let refusal = refusal(429, &[("x-request-id", "req_1"), ("retry-after-ms", "250")], body);
        assert_eq!(refusal.to_string(), "too many requests (HTTP 429): Slow down. [request req_1]");
        assert_eq!(Failure::Refused(refusal).repeat_after(), Some(Some(Duration::from_millis(250))));
    }

    #[test]
    fn seconds_count_where_milliseconds_are_missing_and_nonsense_counts_as_nothing() {
        assert_eq!(refusal(503, &[("retry-after", "2")], "").repeat_after, Some(Duration::from_secs(2)));
        assert_eq!(refusal(503, &[("retry-after-ms", "-5")], "").repeat_after, None);
        assert_eq!(refusal(503, &[("retry-after", "Wed, 21 Oct")], "").repeat_after, None);
    }

    #[test]
    fn only_what_may_pass_is_repeated_and_never_against_the_servers_word() {
        for status in [400, 401, 403, 404, 409, 413, 422, 500] {
            assert!(Failure::Refused(refusal(status, &[], "")).repeat_after().is_none(), "{status}");
        }
        for status in [429, 502, 503, 504] {
            assert!(Failure::Refused(refusal(status, &[], "")).repeat_after().is_some(), "{status}");
            assert!(!refusal(status, &[("x-should-retry", "false")], "").may_repeat);
        }
    }

    #[test]
    fn a_proxys_page_is_not_shown_and_its_plain_text_is() {
        assert_eq!(refusal(502, &[], "<html>\n").to_string(), "the server cannot take this now (HTTP 502)");
        assert_eq!(
            refusal(502, &[], "no upstream").to_string(),
            "the server cannot take this now (HTTP 502): no upstream"
        );
    }
}
