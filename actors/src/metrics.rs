//! What the runtime counts. Names and label values stand here beside their descriptions; never labelled by
//! conversation or by user.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use klatch_protocol::Shard;
use klatch_protocol::ids::SHARDS;
use klatch_protocol::view::MemberStatus;
use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use crate::conversation::Why;
use crate::conversation::decide::Found;
use crate::membership::view::View;
use crate::peers::PeerId;
use crate::request::{Answer, Refusal, Request};
use crate::shard::decide::End;
use crate::store::StoreError;

const ACTIVE: &str = "klatch_conversations_active";
const ACTIVATIONS: &str = "klatch_activations_total";
const ACTIVATION_SECONDS: &str = "klatch_activation_duration_seconds";
const ENDINGS: &str = "klatch_conversation_endings_total";
const CRASHES: &str = "klatch_conversation_crashes_total";
const APPENDS: &str = "klatch_appends_total";
const FENCED: &str = "klatch_fenced_writes_total";
const TURNS: &str = "klatch_turns_total";
const TURN_SECONDS: &str = "klatch_turn_duration_seconds";
const OPEN_TURNS: &str = "klatch_turns_open";
const OLDEST_TURN: &str = "klatch_oldest_turn_age_seconds";
const GIVEN_UP: &str = "klatch_webhook_given_up_total";
const FORWARDS: &str = "klatch_forwards_total";
const FORWARD_SECONDS: &str = "klatch_forward_duration_seconds";
const VIEW: &str = "klatch_view_number";
const MEMBERS: &str = "klatch_members";
const SHARDS_ALL: &str = "klatch_shards";
const SHARDS_PLACED: &str = "klatch_shards_placed";
const TABLE_SECONDS: &str = "klatch_view_table_duration_seconds";
const DECLARED_DEAD: &str = "klatch_declared_dead_total";

const RESULT: &str = "result";
const ACTIVATION_RESULTS: [&str; 3] = ["claimed", "absent", "failed"];
const ENDING_REASONS: [&str; 4] = ["idle", "not_activated", "unfinished", "crashed"];
const APPEND_RESULTS: [&str; 5] = ["ok", "fenced", "unknown", "unavailable", "damaged"];
const GIVEN_UP_REASONS: [&str; 3] = ["attempts", "full", "unknown"];
const FORWARD_RESULTS: [&str; 4] = ["answered", "refused", "moved", "lost"];

/// Says what each metric means; once, after the recorder is installed.
pub fn describe() {
    describe_gauge!(ACTIVE, "Conversations in this node's memory");
    describe_counter!(ACTIVATIONS, "Conversations taken into memory, by result: claimed, absent, failed");
    describe_histogram!(ACTIVATION_SECONDS, Unit::Seconds, "From the look at a log until its conversation serves");
    describe_counter!(ENDINGS, "Conversations that left memory, by reason: idle, not_activated, unfinished, crashed");
    describe_counter!(CRASHES, "Conversations that panicked or failed; each costs its turn in flight at most");
    describe_counter!(APPENDS, "Appends to conversation logs, by result: ok, fenced, unknown, unavailable, damaged");
    describe_counter!(FENCED, "Appends that the store refused since another owner has claimed the conversation");
    describe_counter!(TURNS, "Turns that ended, by model and outcome: completed, incomplete, failed, cancelled");
    describe_histogram!(TURN_SECONDS, Unit::Seconds, "From the acceptance of a turn to its end, by model");
    describe_counter!(
        GIVEN_UP,
        "Ends of turns that a webhook will not be told of, by reason: attempts, full (too many in one conversation), unknown (not configured any more)"
    );
    describe_counter!(FORWARDS, "Requests passed on to other nodes, by result: answered, refused, moved, lost");
    describe_histogram!(
        FORWARD_SECONDS,
        Unit::Seconds,
        "Requests passed on, until their answer, by request: submit and watch wait for the turn"
    );
    describe_gauge!(VIEW, "Number of the view by which this node routes");
    describe_gauge!(MEMBERS, "Nodes in the view, by status: joining, up, leaving");
    describe_gauge!(SHARDS_ALL, "Shards that there are in a cluster");
    describe_gauge!(SHARDS_PLACED, "Shards that are this node's by the view by which it routes");
    describe_histogram!(TABLE_SECONDS, Unit::Seconds, "Round trips to the table of nodes, by result: ok, failed");
    describe_counter!(DECLARED_DEAD, "Times that this node found itself declared dead, and joined again");
    describe_gauge!(OPEN_TURNS, "Turns accepted and not ended, on this node");
    describe_gauge!(
        OLDEST_TURN,
        "Age of the turn that has been open for longest, whether it waits or runs; 0 where none is"
    );
    begin_at_zero();
}

/// A counter that appears with its first event hides that event: a rate needs a value before it.
fn begin_at_zero() {
    let all = [
        (ACTIVATIONS, RESULT, &ACTIVATION_RESULTS[..]),
        (ENDINGS, "reason", &ENDING_REASONS),
        (GIVEN_UP, "reason", &GIVEN_UP_REASONS),
        (APPENDS, RESULT, &APPEND_RESULTS),
        (FORWARDS, RESULT, &FORWARD_RESULTS),
    ];
    for (name, label, values) in all {
        values.iter().for_each(|value| counter!(name, label => *value).increment(0));
    }
    for name in [CRASHES, FENCED, DECLARED_DEAD] {
        counter!(name).increment(0);
    }
    gauge!(SHARDS_ALL).set(f64::from(SHARDS));
    gauge!(OLDEST_TURN).set(0.0);
}

pub(crate) fn active_conversations(count: usize) {
    static HANDLE: OnceLock<Gauge> = OnceLock::new();
    HANDLE.get_or_init(|| gauge!(ACTIVE)).set(count as f64);
}

pub(crate) fn open_turns(count: usize) {
    gauge!(OPEN_TURNS).set(count as f64);
}

/// `None`: no turn is open.
pub(crate) fn oldest_turn(age_ms: Option<u64>) {
    gauge!(OLDEST_TURN).set(age_ms.map_or(0.0, |ms| ms as f64 / 1_000.0));
}

/// For the label: what waits for a turn stands apart from what is answered at once.
pub(crate) fn kind(request: &Request) -> &'static str {
    match request {
        Request::Submit(_) => "submit",
        Request::Watch { .. } => "watch",
        _ => "other",
    }
}

pub(crate) fn forwarded(kind: &'static str, answer: &Result<Answer, Refusal>, took: Duration) {
    histogram!(FORWARD_SECONDS, "request" => kind).record(took);
    let result = match answer {
        Ok(_) => "answered",
        Err(Refusal::Moved | Refusal::Elsewhere { .. }) => "moved",
        Err(Refusal::Lost) => "lost",
        Err(_) => "refused",
    };
    counter!(FORWARDS, RESULT => result).increment(1);
}

/// As `me` routes by it from now on.
pub(crate) fn view(view: &View, me: &PeerId) {
    let placed = (0..SHARDS).filter(|shard| view.owner(Shard(*shard)).as_ref() == Some(me)).count();
    gauge!(SHARDS_PLACED).set(placed as f64);
    gauge!(VIEW).set(view.number() as f64);
    for (status, label) in
        [(MemberStatus::Joining, "joining"), (MemberStatus::Up, "up"), (MemberStatus::Leaving, "leaving")]
    {
        let count = view.members().values().filter(|member| member.status == status).count();
        gauge!(MEMBERS, "status" => label).set(count as f64);
    }
}

pub(crate) fn table_asked(took: Duration, well: bool) {
    histogram!(TABLE_SECONDS, RESULT => if well { "ok" } else { "failed" }).record(took);
}

pub(crate) fn declared_dead() {
    counter!(DECLARED_DEAD).increment(1);
}

pub(crate) fn activated(found: &Result<Found, StoreError>, took: Duration) {
    let result = match found {
        Ok(Found::Claimed { .. }) => "claimed",
        Ok(Found::Absent) => "absent",
        Err(_) => "failed",
    };
    counter!(ACTIVATIONS, RESULT => result).increment(1);
    histogram!(ACTIVATION_SECONDS, RESULT => result).record(took);
}

pub(crate) fn conversation_ended(end: End) {
    let reason = match end {
        End::Idle => "idle",
        End::NotActivated => "not_activated",
        End::Unfinished => "unfinished",
        End::Crashed => "crashed",
    };
    counter!(ENDINGS, "reason" => reason).increment(1);
}

pub(crate) fn conversation_crashed() {
    counter!(CRASHES).increment(1);
}

pub(crate) fn appended(outcome: &Result<(), StoreError>) {
    /// Looked up once: to find a metric by its labels costs more than to count.
    static HANDLES: [OnceLock<Counter>; APPEND_RESULTS.len()] = [const { OnceLock::new() }; APPEND_RESULTS.len()];
    let place = match outcome {
        Ok(()) => 0,
        Err(StoreError::Fenced(_)) => 1,
        Err(StoreError::Unknown(_)) => 2,
        Err(StoreError::Unavailable(_)) => 3,
        Err(StoreError::Damaged(_)) => 4,
    };
    HANDLES[place].get_or_init(|| counter!(APPENDS, RESULT => APPEND_RESULTS[place])).increment(1);
    if matches!(outcome, Err(StoreError::Fenced(_))) {
        counter!(FENCED).increment(1);
    }
}

type OfModel = (Histogram, Vec<(&'static str, Counter)>);

thread_local! {
    /// By the model's name; of few values, since a turn names one of the configuration.
    static TURNS_OVER: RefCell<BTreeMap<String, OfModel>> = const { RefCell::new(BTreeMap::new()) };
}

pub(crate) fn turn_over(model: &str, outcome: &'static str, took_ms: u64) {
    TURNS_OVER.with_borrow_mut(|all| {
        if !all.contains_key(model) {
            all.insert(model.to_owned(), (histogram!(TURN_SECONDS, "model" => model.to_owned()), Vec::new()));
        }
        let (seconds, outcomes) = all.get_mut(model).expect("it was put there");
        seconds.record(Duration::from_millis(took_ms));
        let known = outcomes.iter().position(|(known, _)| *known == outcome);
        let place = known.unwrap_or_else(|| {
            outcomes.push((outcome, counter!(TURNS, "model" => model.to_owned(), "outcome" => outcome)));
            outcomes.len() - 1
        });
        outcomes[place].1.increment(1);
    });
}

pub(crate) fn gave_up_telling(why: Why) {
    let reason = match why {
        Why::Attempts => "attempts",
        Why::Full => "full",
        Why::Unknown => "unknown",
    };
    counter!(GIVEN_UP, "reason" => reason).increment(1);
}
