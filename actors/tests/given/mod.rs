//! What turns are counted and timed with: a conversation that exists, and a turn of it.

#[path = "../requests/mod.rs"]
mod requests;

use std::sync::Arc;

use klatch_actors::conversation::decide::{Catalog, Conversation, Effect, Fixed, Found, Input, Traits};
use klatch_actors::request::Wait;
use klatch_actors::responder::{Answered, End};
use klatch_actors::trace::Traced;
use klatch_actors::{Limits, Request, Submit};
use klatch_protocol::{ClaimToken, ConversationId};
pub use requests::created;

/// What people write, and what is answered: 200 bytes in 40 pieces.
pub const PIECES: usize = 40;
pub const PIECE: &str = "word ";

pub type Core = Conversation<u64>;

/// A turn of the responder `echo`, as the edge passes it on: another one for each number.
pub fn submit(n: u64) -> Request {
    let turn = requests::submit("echo", &PIECE.repeat(PIECES), Wait::Ended);
    Request::Submit(Box::new(Submit { attempt: Some(u128::from(n).to_be_bytes()), ..turn }))
}

/// Its answer, all at once.
pub fn answer() -> Answered {
    Answered { pieces: [PIECE; PIECES].into(), end: End::default() }
}

/// One that serves, and exists.
pub fn conversation() -> Core {
    let catalog: Catalog = [("echo".to_owned(), Traits { history_items: 0, at_once: true })].into();
    let mut core = Conversation::new(Fixed {
        conversation: ConversationId([1; 16]),
        node: "a".into(),
        incarnation: 1,
        view: 1,
        token: ClaimToken(1),
        limits: Arc::new(Limits::default()),
        catalog: Arc::new(catalog),
        retention_ms: None,
        crashes: 0,
        shared: false,
        webhooks: Arc::new([]),
    });
    core.decide(1_000, Input::Activated(Found::Absent));
    core.decide(1_000, asked(Request::Create(Box::new(created()))));
    core.decide(1_000, Input::Appended);
    core
}

/// A whole turn, and the compaction behind it where one is due. Says how many were told its end.
pub fn turn(core: &mut Core, request: Request, answered: Answered) -> usize {
    let mut answer = Some(answered);
    let mut inputs = vec![asked(request)];
    let mut told = 0;
    while let Some(input) = inputs.pop() {
        for effect in core.decide(1_000, input) {
            match effect {
                Effect::AnswerAtOnce(ask) => {
                    let answered = answer.take().expect("a turn is answered once");
                    inputs.push(Input::AnsweredAtOnce { turn: ask.turn, answered });
                }
                Effect::Append { .. } => inputs.push(Input::Appended),
                Effect::Compact { .. } => inputs.push(Input::Compacted),
                Effect::Reply(_, answer) => told += usize::from(answer.is_ok()),
                _ => {}
            }
        }
    }
    told
}

fn asked(request: Request) -> Input<u64> {
    Input::Asked { request, reply: Some(1), admitted: true, traced: Traced::default() }
}
