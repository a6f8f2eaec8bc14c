//! The stores' metrics: names, label values, descriptions.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use klatch_actors::store::StoreError;
use metrics::{
    Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

pub const OPERATION_SECONDS: &str = "klatch_store_operation_seconds";
pub const BATCH_ENTRIES: &str = "klatch_store_batch_entries";
pub const COMMIT_SECONDS: &str = "klatch_store_commit_seconds";
pub const CONNECTED: &str = "klatch_store_connected";
pub const CONNECTIONS_TOTAL: &str = "klatch_store_connections_total";
pub const SHORT_WAITS_TOTAL: &str = "klatch_store_short_replica_waits_total";
pub const WENT_BACK_TOTAL: &str = "klatch_store_went_back_total";
pub const REOPENED_TOTAL: &str = "klatch_store_reopened_total";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Append,
    Compact,
    WriteRow,
    LogEnd,
    Log,
    Items,
    Turn,
    ReadRows,
    ReadRecord,
    WriteRecord,
}

const OPERATIONS: [&str; 10] =
    ["append", "compact", "write_row", "log_end", "log", "items", "turn", "read_rows", "read_record", "write_record"];
const RESULTS: [&str; 5] = ["ok", "fenced", "unknown", "unavailable", "damaged"];

/// Tells the recorder what each metric means.
pub fn describe() {
    describe_histogram!(
        OPERATION_SECONDS,
        Unit::Seconds,
        "Operations of the store from call to answer, by operation and result"
    );
    describe_histogram!(BATCH_ENTRIES, "Writes that one commit made durable together");
    describe_histogram!(
        COMMIT_SECONDS,
        Unit::Seconds,
        "Commits: in a folder the disk's sync included, in Redis the wait for replicas"
    );
    describe_gauge!(CONNECTED, "Connections to Redis on which writes are sent now");
    describe_counter!(CONNECTIONS_TOTAL, "Connections to Redis that were made, replaced ones included");
    describe_counter!(SHORT_WAITS_TOTAL, "Batches that replicas did not get in time, and that stayed pending");
    describe_counter!(WENT_BACK_TOTAL, "Conversations whose log lacked acknowledged entries on a new connection");
    describe_counter!(REOPENED_TOTAL, "Times that the embedded store was opened again after a failed write");
    // A counter that appears with its first event hides that event.
    for name in [CONNECTIONS_TOTAL, SHORT_WAITS_TOTAL, WENT_BACK_TOTAL, REOPENED_TOTAL] {
        counter!(name).increment(0);
    }
}

/// Handles of [`OPERATION_SECONDS`], looked up once: a look-up by name costs more than an operation in memory.
#[derive(Default)]
pub struct Timers([[OnceLock<Histogram>; RESULTS.len()]; OPERATIONS.len()]);

impl Timers {
    pub fn record<T>(&self, operation: Operation, begun: Instant, done: &Result<T, StoreError>) {
        let (row, column) = (operation as usize, place(done));
        let make = || histogram!(OPERATION_SECONDS, "operation" => OPERATIONS[row], "result" => RESULTS[column]);
        self.0[row][column].get_or_init(make).record(begun.elapsed());
    }
}

fn place<T>(done: &Result<T, StoreError>) -> usize {
    match done {
        Ok(_) => 0,
        Err(StoreError::Fenced(_)) => 1,
        Err(StoreError::Unknown(_)) => 2,
        Err(StoreError::Unavailable(_)) => 3,
        Err(StoreError::Damaged(_)) => 4,
    }
}

/// Handles of the batcher's metrics.
pub struct Batches {
    entries: Histogram,
    seconds: Histogram,
}

impl Default for Batches {
    fn default() -> Self {
        Self { entries: histogram!(BATCH_ENTRIES), seconds: histogram!(COMMIT_SECONDS) }
    }
}

impl Batches {
    pub fn record(&self, entries: usize, took: Duration) {
        self.entries.record(entries as f64);
        self.seconds.record(took);
    }
}

/// What the batchers of Redis say.
pub struct Lanes {
    batches: Batches,
    connected: Gauge,
}

impl Default for Lanes {
    fn default() -> Self {
        Self { batches: Batches::default(), connected: gauge!(CONNECTED) }
    }
}

impl Lanes {
    pub fn connected(&self) {
        self.connected.increment(1);
        counter!(CONNECTIONS_TOTAL).increment(1);
    }

    pub fn disconnected(&self) {
        self.connected.decrement(1);
    }

    pub fn batch(&self, entries: usize, took: Duration) {
        self.batches.record(entries, took);
    }

    pub fn short_wait(&self) {
        counter!(SHORT_WAITS_TOTAL).increment(1);
    }

    /// Another owner is no loss.
    pub fn refused_on_a_new_connection(&self, error: &StoreError) {
        if matches!(error, StoreError::Damaged(_)) {
            counter!(WENT_BACK_TOTAL).increment(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operation_has_its_name() {
        assert_eq!(OPERATIONS[Operation::Append as usize], "append");
        assert_eq!(OPERATIONS[Operation::Items as usize], "items");
        assert_eq!(OPERATIONS[Operation::WriteRecord as usize], "write_record");
    }
}
