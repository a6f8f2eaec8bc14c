//! Values for the checks: one of each event, and random ones from a seed.

use klatch_protocol::event::{Accepted, Attempt, AttemptReason, Call, Created, KeyUse, Memory, Parameters, Parent};
use klatch_protocol::state::ItemRow;
use klatch_protocol::turn::{Change, Outcome, Usage};
use klatch_protocol::{Body, ClaimToken, ConversationId, Entry, Event, Item, Position, State, Turn};

use super::super::LogEnd;

/// Numbers from a seed (splitmix64): the same ones for ever, which a crate's generator does not promise.
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

pub fn entry(epoch: u64, seq: u64, token: ClaimToken, events: Vec<Event>) -> Entry {
    Entry { position: Position { epoch, seq }, token, at_ms: 1_700_000_000_000, events }
}

/// A claim under a token of its own.
pub fn claim(epoch: u64) -> Entry {
    entry(epoch, 0, ClaimToken::random(), vec![Event::Claimed { node: "klatch-0".into(), incarnation: 7, view: 3 }])
}

pub fn delta(epoch: u64, seq: u64) -> Entry {
    entry(epoch, seq, ClaimToken::random(), vec![Event::Delta { turn: 0, pieces: ["hel", "lö"].into() }])
}

pub fn snapshot_entry(expected: LogEnd, state: State) -> Entry {
    let Position { epoch, seq } = expected.position.next();
    entry(epoch, seq, expected.token, vec![Event::Snapshot(Box::new(state))])
}

pub fn item(ordinal: u64, text: &str) -> Item {
    Item { ordinal, client_id: None, body: Body::user(text).into() }
}

/// A row whose client's id is `client-` and its ordinal.
pub fn row(ordinal: u64, text: &str) -> ItemRow {
    ItemRow { client_id: Some(format!("client-{ordinal}")), ..item(ordinal, text).into() }
}

pub fn finished_turn(ordinal: u64) -> Turn {
    long_turn(ordinal, "out")
}

pub fn long_turn(ordinal: u64, output: &str) -> Turn {
    let mut turn = Turn::new(accepted_turn(ordinal), 0);
    turn.apply(Change::Pieces { pieces: [output].into() });
    turn.apply(Change::Ended { outcome: completed(), at_ms: 5 });
    turn
}

pub fn accepted(turn: u64) -> Event {
    Event::TurnAccepted(accepted_turn(turn).into())
}

pub fn created() -> Event {
    Event::Created(Box::new(Created {
        tenant: "acme".into(),
        subject: "ann".into(),
        metadata: vec![("topic".into(), "tea".into())],
        ttl_seconds: Some(60),
        explicit: true,
        items: vec![item(0, "hello")],
        parent: Some(Parent { conversation: ConversationId([3; 16]), before: 2, version: 1 }),
        key: key(),
    }))
}

/// One of each but snapshots, which only compaction writes.
pub fn every_event() -> Vec<Event> {
    let call = Call { call_id: "call_1".into(), name: "weather".into(), arguments: "{}".into() };
    vec![
        Event::Claimed { node: "klatch-0".into(), incarnation: 7, view: 3 },
        created(),
        accepted(0),
        Event::AttemptStarted { turn: 0, attempt: Attempt { n: 1, incarnation: 7, reason: AttemptReason::TakenOver } },
        Event::Delta { turn: 0, pieces: ["hel", "", "lo\0"].into() },
        Event::ToolCall { turn: 0, call },
        Event::TurnEnded {
            turn: 0,
            outcome: completed(),
            memory: Some(Memory { model: "echo".into(), bytes: vec![0, 255] }),
        },
        Event::TurnEnded { turn: 1, outcome: Outcome::Cancelled { keep: true }, memory: None },
        Event::ItemsAdded { items: vec![item(4, "more")], key: key() },
        Event::ItemDeleted { ordinal: u64::MAX },
        Event::MetadataSet { metadata: vec![], key: None },
        Event::ResponseDeleted { turn: 0 },
        Event::Forked {
            child: ConversationId([5; 16]),
            prefix: Parent { conversation: ConversationId([4; 16]), before: 3, version: 1 },
            key: None,
        },
        Event::Deleted,
    ]
}

fn key() -> Option<KeyUse> {
    Some(KeyUse { key: [1; 16], fingerprint: [2; 16] })
}

fn completed() -> Outcome {
    Outcome::Completed { usage: Usage { input: 1, input_cached: 0, output: 2, output_reasoning: 0 } }
}

fn accepted_turn(turn: u64) -> Accepted {
    Accepted {
        turn,
        input: vec![item(0, "hello")],
        key: Some([4; 16]),
        attempt: Some([3; 16]),
        fingerprint: [0; 16],
        parameters: Parameters {
            model: "echo".into(),
            background: false,
            store: true,
            conversation_named: true,
            previous: None,
            cancel_on_disconnect: false,
            start_by_ms: None,
            request: "{}".into(),
        },
        queued: false,
        at_ms: 1,
    }
}
