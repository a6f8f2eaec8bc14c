//! What one reply means for the job that it answers. Pure.

use ::redis::{ServerError, ServerErrorKind, Value};
use klatch_actors::store::StoreError;

use super::job::Kind;

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
