//! Names and label values of the edge's metrics, beside their descriptions. Never labelled by conversation or user.

use ::metrics::{
    Counter, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

const REQUESTS_TOTAL: &str = "klatch_http_requests_total";
const REQUEST_DURATION_SECONDS: &str = "klatch_http_request_duration_seconds";
const STREAMS_OPEN: &str = "klatch_http_streams_open";
const STREAMS_CUT_TOTAL: &str = "klatch_http_streams_cut_total";
const FIRST_TOKEN_SECONDS: &str = "klatch_http_first_token_seconds";

const ROUTE: &str = "route";
const METHOD: &str = "method";
const STATUS: &str = "status";

/// The route of a request that matched none.
pub const ROUTE_NONE: &str = "none";
/// The method of a request that no route knows: a client may send any word.
const METHOD_OTHER: &str = "other";

pub fn describe() {
    describe_counter!(REQUESTS_TOTAL, "Requests answered, by route, method and status");
    describe_histogram!(REQUEST_DURATION_SECONDS, Unit::Seconds, "From a request's head to its answer's head");
    describe_gauge!(STREAMS_OPEN, "Streams of responses that clients are reading");
    describe_counter!(STREAMS_CUT_TOTAL, "Streams ended before their turn, because no owner could be reached in time");
    describe_histogram!(FIRST_TOKEN_SECONDS, Unit::Seconds, "From a streamed request to its first piece of output");
    // A counter that appears with its first event hides that event.
    counter!(STREAMS_CUT_TOTAL).increment(0);
    gauge!(STREAMS_OPEN).set(0.0);
}

/// Of few values, whatever a client sends.
pub fn known(method: &axum::http::Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "POST", "DELETE", "HEAD", "PUT", "PATCH", "OPTIONS"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or(METHOD_OTHER)
}

type Handles = (&'static str, u16, Counter, Histogram);

thread_local! {
    /// Looked up once by each thread: to find a metric by its labels costs more than a good part of a request.
    static ANSWERED: RefCell<HashMap<String, Vec<Handles>>> = RefCell::default();
}

pub fn answered(route: &str, method: &'static str, status: u16, after: Duration) {
    ANSWERED.with_borrow_mut(|all| {
        if !all.contains_key(route) {
            all.insert(route.to_owned(), Vec::new());
        }
        let of_route = all.get_mut(route).expect("it was put there");
        let known = of_route.iter().position(|(its, code, ..)| (*its, *code) == (method, status));
        let place = known.unwrap_or_else(|| {
            let (route, code) = (route.to_owned(), status.to_string());
            let count = counter!(REQUESTS_TOTAL, ROUTE => route.clone(), METHOD => method, STATUS => code);
            of_route.push((
                method,
                status,
                count,
                histogram!(REQUEST_DURATION_SECONDS, ROUTE => route, METHOD => method),
            ));
            of_route.len() - 1
        });
        let (_, _, count, seconds) = &of_route[place];
        count.increment(1);
        seconds.record(after);
    });
}

pub fn first_token(after: Duration) {
    histogram!(FIRST_TOKEN_SECONDS).record(after);
}

pub fn stream_cut() {
    counter!(STREAMS_CUT_TOTAL).increment(1);
}

/// Counts a stream as open while it lives.
pub struct OpenStream(());

impl OpenStream {
    pub fn begin() -> Self {
        gauge!(STREAMS_OPEN).increment(1);
        Self(())
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        gauge!(STREAMS_OPEN).decrement(1);
    }
}
