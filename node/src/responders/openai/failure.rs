//! What can go wrong with a model server, and what to do about it: again, elsewhere, or tell the client. Pure.

use std::time::Duration;

use klatch_actors::responder::ResponderError;

/// The first wait before another call; each further one is twice as long.
const RETRY_FIRST_WAIT: Duration = Duration::from_millis(250);
/// A person waits meanwhile.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(5);
/// A server that asks for more patience than this is as good as down: no further call would be of use.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(20);

/// `Display` is shown to clients: no address, no key and no word of the server's is in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("all places at this model are taken, and its queue is full; try again later")]
    QueueFull,
    #[error("all places at this model are taken, and none became free in time; try again later")]
    QueueSlow,
    #[error("the model server cannot be reached")]
    Unreachable,
    #[error("the model server answered with HTTP status {status}")]
    Status { status: u16, retry_after: Option<Duration> },
    #[error("the conversation and its input are longer than this model can read")]
    ContextTooLong,
    #[error("the model server sent no first token in time")]
    NoFirstToken,
    #[error("the model server fell silent in the middle of its reply")]
    Silent,
    #[error("the model server closed the connection before its reply was complete")]
    Interrupted,
    #[error("the model server reported an error in its reply")]
    Reported,
    #[error("the model server's reply cannot be read: {0}")]
    Malformed(&'static str),
    #[error("the model server's reply has a part that is too large")]
    TooLarge,
}

/// What a failure before the first token leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Again { after: Duration },
    GiveUp,
}

impl Failure {
    /// `calls` were made; `jitter` is random, in `0.0..1.0`.
    pub fn next(&self, calls: u32, retries_max: u32, jitter: f64) -> Next {
        if calls > retries_max || !self.may_pass() {
            return Next::GiveUp;
        }
        match self {
            Failure::Status { retry_after: Some(after), .. } if *after > RETRY_AFTER_MAX => Next::GiveUp,
            Failure::Status { retry_after: Some(after), .. } => Next::Again { after: *after },
            _ => Next::Again { after: backoff(calls, jitter) },
        }
    }

    /// Whether the same call may succeed a little later.
    fn may_pass(&self) -> bool {
        match self {
            Failure::Unreachable | Failure::NoFirstToken | Failure::Interrupted | Failure::Reported => true,
            Failure::Status { status, .. } => matches!(status, 408 | 429 | 500..),
            Failure::QueueFull
            | Failure::QueueSlow
            | Failure::ContextTooLong
            | Failure::Silent
            | Failure::Malformed(_)
            | Failure::TooLarge => false,
        }
    }

    /// Whether the request itself is at fault: another responder would be no better off.
    pub fn is_the_requests_fault(&self) -> bool {
        matches!(self, Failure::ContextTooLong | Failure::Status { status: 400 | 413 | 415 | 422, .. })
    }

    fn code(&self) -> &'static str {
        match self {
            Failure::QueueFull | Failure::QueueSlow | Failure::Status { status: 429, .. } => "rate_limit_exceeded",
            fault if fault.is_the_requests_fault() => "invalid_prompt",
            _ => "server_error",
        }
    }
}

impl From<Failure> for ResponderError {
    fn from(failure: Failure) -> Self {
        ResponderError { code: failure.code().into(), message: failure.to_string() }
    }
}

/// Half of it is random, so that calls which failed together do not come back together.
fn backoff(calls: u32, jitter: f64) -> Duration {
    let doubled = RETRY_FIRST_WAIT.saturating_mul(1 << calls.saturating_sub(1).min(16));
    doubled.min(RETRY_WAIT_MAX).mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(status: u16) -> Failure {
        Failure::Status { status, retry_after: None }
    }

    #[test]
    fn what_may_pass_is_tried_again_until_the_retries_are_used_up() {
        for failure in [Failure::Unreachable, Failure::NoFirstToken, Failure::Interrupted, status(429), status(503)] {
            assert!(matches!(failure.next(2, 2, 0.5), Next::Again { .. }), "{failure}");
            assert_eq!(failure.next(3, 2, 0.5), Next::GiveUp, "{failure}");
        }
        for failure in [Failure::QueueFull, status(401), status(400), status(302), Failure::Malformed("x")] {
            assert_eq!(failure.next(1, 2, 0.5), Next::GiveUp, "{failure}");
        }
    }

    #[test]
    fn waits_double_up_to_a_limit_and_half_of_each_is_random() {
        let wait = |calls, jitter| match status(500).next(calls, 99, jitter) {
            Next::Again { after } => after.as_millis(),
            Next::GiveUp => panic!("retries are left"),
        };
        assert_eq!([wait(1, 0.0), wait(1, 1.0), wait(2, 1.0), wait(3, 1.0)], [125, 250, 500, 1_000]);
        assert_eq!([wait(40, 1.0), wait(99, 1.0)], [5_000, 5_000]);
    }

    #[test]
    fn retry_after_is_honoured_up_to_its_limit() {
        let asks = |seconds| Failure::Status { status: 429, retry_after: Some(Duration::from_secs(seconds)) };
        assert_eq!(asks(20).next(1, 2, 0.0), Next::Again { after: Duration::from_secs(20) });
        assert_eq!(asks(21).next(1, 2, 0.0), Next::GiveUp);
    }

    #[test]
    fn codes_are_those_that_clients_know() {
        let code = |failure: Failure| ResponderError::from(failure).code;
        assert_eq!(code(status(429)), "rate_limit_exceeded");
        assert_eq!(code(Failure::QueueFull), "rate_limit_exceeded");
        assert_eq!(code(status(422)), "invalid_prompt");
        assert_eq!(code(Failure::ContextTooLong), "invalid_prompt");
        assert_eq!(code(status(401)), "server_error");
        assert_eq!(code(Failure::Silent), "server_error");
    }
}
