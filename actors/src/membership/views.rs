//! The boundary to where the view is kept: one numbered table for the whole cluster. Redis in production, memory for a
//! node that is alone with its store, and in tests.
//!
//! Nothing here decides who is dead: [`super::decide`] does.

#[cfg(any(test, feature = "testing"))]
pub mod contract;
pub mod memory;

use std::collections::BTreeMap;

use futures::future::BoxFuture;
use klatch_protocol::view::{Row, ViewTable};

pub type Viewed<'a, T> = BoxFuture<'a, Result<T, ViewsError>>;

/// The table cannot be reached, or answered with something unreadable. It may have been changed all the same: every
/// call can be repeated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the view cannot be reached: {0}")]
pub struct ViewsError(pub String);

/// What a heartbeat learns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Of the view now.
    pub number: u64,
    /// Of the connection over which it came: counters are compared within one only, since behind another may stand an
    /// older copy of the table.
    pub generation: u64,
    /// How often each node has beaten, by name.
    pub counters: BTreeMap<String, u64>,
}

/// A node that stood still, as its accuser saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Still {
    pub name: String,
    pub incarnation: u64,
    pub counter: u64,
}

pub trait Views: Send + Sync + 'static {
    /// Puts the row into the table, in place of any of the same name and a lower incarnation, and counts the view up.
    /// False, and nothing is changed, where a higher incarnation of the name is there: this process is the older one.
    /// A row that is there already is left as it is, and true.
    fn join(&self, name: String, row: Row) -> Viewed<'_, bool>;

    /// Counts the node's row up. None where there is no such row of this incarnation: the node was declared dead, or
    /// replaced.
    fn beat(&self, name: String, incarnation: u64) -> Viewed<'_, Option<Beat>>;

    /// Changes the node's row and counts the view up, if it is there under this incarnation; says whether it is.
    /// Changing a row to what it is counts nothing.
    fn set(&self, name: String, row: Row) -> Viewed<'_, bool>;

    /// If the view is still `number`: takes out of the table each row that is still of its incarnation with its counter
    /// still the same, leaves the others, and counts the view up once. Says whether any was taken out; where none was,
    /// nothing is changed.
    fn bury(&self, still: Vec<Still>, number: u64) -> Viewed<'_, bool>;

    /// Takes the node's own row out, if it is of this incarnation. One that is gone is no error.
    fn leave(&self, name: String, incarnation: u64) -> Viewed<'_, ()>;

    fn read(&self) -> Viewed<'_, ViewTable>;
}
