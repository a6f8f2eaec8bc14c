//! What tests ask of a conversation: who asks, how one is made, a turn. Each says what is different about its own.

use klatch_actors::request::{OnBusy, Wait};
use klatch_actors::{Caller, Submit};
use klatch_protocol::event::{Created, Parameters};
use klatch_protocol::{Body, Item};

pub fn ann() -> Caller {
    Caller { tenant: "acme".into(), subject: "ann".into() }
}

pub fn created() -> Created {
    Created {
        tenant: "acme".into(),
        subject: "ann".into(),
        metadata: vec![],
        ttl_seconds: None,
        explicit: true,
        items: vec![],
        parent: None,
        key: None,
    }
}

/// A turn in a conversation that exists, without a key.
pub fn submit(model: &str, text: &str, wait: Wait) -> Submit {
    Submit {
        caller: ann(),
        input: vec![Item { ordinal: 0, client_id: None, body: Body::user(text).into() }],
        parameters: Parameters {
            model: model.into(),
            background: false,
            store: true,
            conversation_named: true,
            previous: None,
            cancel_on_disconnect: false,
            start_by_ms: None,
            request: "{}".into(),
        },
        on_busy: OnBusy::Enqueue,
        key: None,
        attempt: None,
        fingerprint: [1; 16],
        retry: false,
        wait,
        create: None,
        chain: None,
    }
}
