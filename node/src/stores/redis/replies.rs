//! What one reply means for the job that it answers. Pure.

use ::redis::{ServerError, ServerErrorKind, Value};
use klatch_actors::store::{LogEnd, StoreError};
use klatch_protocol::Position;

use super::job::{Fence, Kind};

#[derive(Debug, PartialEq)]
pub enum Meaning {
    /// Done, or read. Durable once the replicas have it.
    Done(Value),
    /// Refused for good, whatever replicas do.
    Refused(StoreError),
    /// The server does not know the script: nothing was done.
    NoScript,
    /// Not done, and nothing will be on this connection: the server is no master any more, or not yet.
    NotHere(String),
    /// Not done: the key is on another server of the cluster.
    Moved(String),
}

pub fn meaning(kind: &Kind, value: Value) -> Meaning {
    match (value, kind) {
        (Value::ServerError(error), kind) => of_error(kind, &error),
        // NOMKSTREAM: there is no log.
        (Value::Nil, Kind::Append(_)) => Meaning::Refused(StoreError::Fenced(None)),
        (value, _) => Meaning::Done(value),
    }
}

fn of_error(kind: &Kind, error: &ServerError) -> Meaning {
    let said = format!("{} {}", error.code(), error.details().unwrap_or_default());
    match (error.kind(), kind) {
        (Some(ServerErrorKind::NoScript), Kind::Script) => Meaning::NoScript,
        (
            Some(
                ServerErrorKind::Moved
                | ServerErrorKind::Ask
                | ServerErrorKind::TryAgain
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::CrossSlot,
            ),
            _,
        ) => Meaning::Moved(said),
        (Some(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown | ServerErrorKind::BusyLoading), _) => {
            Meaning::NotHere(said)
        }
        (Some(ServerErrorKind::ResponseError), Kind::Append(_)) if said.contains("equal or smaller") => {
            Meaning::Refused(StoreError::Fenced(None))
        }
        // Only position 0-0 is refused in these words, and nothing is below it.
        (Some(ServerErrorKind::ResponseError), Kind::Append(_)) if said.contains("must be greater than 0-0") => {
            Meaning::Refused(StoreError::Fenced(None))
        }
        // Out of memory, a disk that is full: found before anything is done. A script may fail in the middle.
        (_, Kind::Append(_) | Kind::Plain) => Meaning::Refused(StoreError::Unavailable(said)),
        (_, Kind::Script) if said.starts_with("OOM") || said.starts_with("MISCONF") => {
            Meaning::Refused(StoreError::Unavailable(said))
        }
        (_, Kind::Script) => Meaning::Refused(StoreError::Unknown(said)),
    }
}

/// Whether an entry may follow that end on a new connection: the end must be the owner's own last entry. Redis itself
/// would take the entry over a log that went back. Where there is no log at all it would refuse it, as is done here.
pub fn goes_on(fence: &Fence, end: Option<LogEnd>) -> Result<(), StoreError> {
    let Position { epoch, seq } = fence.position;
    let own = seq.checked_sub(1).map(|seq| LogEnd { position: Position { epoch, seq }, token: fence.token });
    match end {
        _ if own.is_none() || end == own => Ok(()),
        Some(end) if end.position >= fence.position => Err(StoreError::Fenced(Some(end.position))),
        Some(LogEnd { position, .. }) => {
            Err(StoreError::Damaged(format!("the log went back: it ends at {position:?} before {:?}", fence.position)))
        }
        None => Err(StoreError::Fenced(None)),
    }
}

#[cfg(test)]
mod tests {
    use klatch_protocol::{ClaimToken, ConversationId};

    use super::*;

    fn at(epoch: u64, seq: u64) -> Position {
        Position { epoch, seq }
    }

    fn fence(epoch: u64, seq: u64) -> Fence {
        Fence { conversation: ConversationId([0; 16]), position: at(epoch, seq), token: ClaimToken(7) }
    }

    fn end(epoch: u64, seq: u64, token: u128) -> Option<LogEnd> {
        Some(LogEnd { position: at(epoch, seq), token: ClaimToken(token) })
    }

    #[test]
    fn on_a_new_connection_an_entry_follows_the_owners_own_last_one_only() {
        assert_eq!(goes_on(&fence(2, 6), end(2, 5, 7)), Ok(()));
        assert_eq!(goes_on(&fence(2, 6), end(3, 0, 8)), Err(StoreError::Fenced(Some(at(3, 0)))));
        assert_eq!(goes_on(&fence(2, 6), end(2, 6, 8)), Err(StoreError::Fenced(Some(at(2, 6)))));
        assert_eq!(goes_on(&fence(2, 6), None), Err(StoreError::Fenced(None)));
        for went_back in [end(2, 4, 7), end(1, 9, 6), end(2, 5, 8)] {
            assert!(matches!(goes_on(&fence(2, 6), went_back), Err(StoreError::Damaged(_))), "{went_back:?}");
        }
    }

    #[test]
    fn a_claim_follows_whatever_is_there() {
        assert_eq!(goes_on(&fence(3, 0), end(2, 5, 8)), Ok(()));
        assert_eq!(goes_on(&fence(1, 0), None), Ok(()));
    }
}
