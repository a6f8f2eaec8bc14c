//! The counter of auth, and its label values.
//!
//! Outcomes of access tokens are [`super::errors::Reason::as_str`] and [`ACCEPTED`].

use std::sync::OnceLock;

use ::metrics::{Counter, counter, describe_counter};

/// Access tokens verified, logins, refreshes and logouts, by outcome.
pub const AUTH_TOTAL: &str = "klatch_auth_total";
const OUTCOME: &str = "outcome";

pub const ACCEPTED: &str = "accepted";
pub const LOGIN: &str = "login";
pub const LOGIN_WRONG: &str = "login_wrong";
pub const LOGIN_THROTTLED: &str = "login_throttled";
pub const LOGIN_BUSY: &str = "login_busy";
pub const REFRESH: &str = "refresh";
/// The token before the last, within its grace: the client had not received the answer.
pub const REFRESH_REPEATED: &str = "refresh_repeated";
pub const REFRESH_REFUSED: &str = "refresh_refused";
/// A used token came again, and its family was revoked: somebody else may have had a copy.
pub const REFRESH_REUSED: &str = "refresh_reused";
pub const LOGOUT: &str = "logout";
pub const KEYS_FETCHED: &str = "keys_fetched";
pub const KEYS_FETCH_FAILED: &str = "keys_fetch_failed";

pub fn describe() {
    describe_counter!(AUTH_TOTAL, "Access tokens verified, logins, refreshes, logouts and key fetches, by outcome");
}

pub fn count(outcome: &'static str) {
    /// Of each request: to find a metric by its labels costs more than to count.
    static OF_ACCEPTED: OnceLock<Counter> = OnceLock::new();
    if outcome == ACCEPTED {
        return OF_ACCEPTED.get_or_init(|| counter!(AUTH_TOTAL, OUTCOME => ACCEPTED)).increment(1);
    }
    counter!(AUTH_TOTAL, OUTCOME => outcome).increment(1);
}
