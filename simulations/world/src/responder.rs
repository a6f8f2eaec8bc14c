//! Responders whose reply follows from what they are asked, so that a hole or a repeat in it is seen at once; slow, failing,
//! silent in the middle, or panicking, as the plan says.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use klatch_actors::Responder;
use klatch_actors::responder::{Answered, Ask, End, ResponderError, Said};
use klatch_protocol::turn::Usage;

use crate::dice::{Dice, mixed};
use crate::planted::{self, Planted};
use crate::shared::Shared;

/// What a panic of a responder says, so that it is told apart from a real one.
pub const PANIC: &str = "a simulated panic";

/// Words of the longest reply.
const WORDS_MAX: u64 = 12;

pub struct SimulatedResponder {
    pub shared: Arc<Shared>,
    pub dice: Dice,
    /// The whole turn in a single append.
    pub at_once: bool,
    pub history_items: usize,
}

/// The reply to this text, all of it.
pub fn whole_reply(asked: &str) -> String {
    let dice = Dice::new(asked.bytes().fold(7, |hash, byte| mixed(hash ^ u64::from(byte))));
    (0..=dice.below(WORDS_MAX)).map(|place| format!("{place}:{asked} ")).collect()
}

impl SimulatedResponder {
    /// One that answers at once is called by its conversation's actor itself.
    fn may_panic(&self, counted: &'static str) {
        if self.dice.permille(self.shared.faults().responder.panics) {
            self.shared.count(counted);
            panic!("{PANIC}");
        }
    }

    fn called(&self, ask: &Ask) {
        self.shared.count("calls");
        let called = format_args!("call {} turn {} attempt {}", ask.conversation, ask.turn, ask.attempt).to_string();
        self.shared.trace(called);
        let checked = self.shared.journal().called(ask.conversation, ask.turn, ask.attempt, &ask.partial);
        self.shared.check(checked);
    }
}

impl Responder for SimulatedResponder {
    fn history_items(&self) -> usize {
        self.history_items
    }

    fn answers_at_once(&self) -> bool {
        self.at_once
    }

    fn answer(&self, ask: &Ask) -> Answered {
        self.may_panic("panics in a handler");
        Answered { pieces: [whole_reply(&input(ask))].into(), end: End::default() }
    }

    fn respond(&self, ask: Ask) -> BoxStream<'static, Result<Said, ResponderError>> {
        self.called(&ask);
        let ask = if self.shared.planted == Some(Planted::NoPartialText) { planted::without_partial(ask) } else { ask };
        let (faults, dice) = (self.shared.faults().responder, self.dice.clone());
        self.may_panic("responders that panic");
        let whole = whole_reply(&input(&ask));
        let left = whole.get(ask.partial.len()..).unwrap_or_default();
        let mut said: Vec<_> = left.split_inclusive(' ').map(|word| Ok(Said::Text(word.to_owned()))).collect();
        let cut = dice.below(said.len() as u64 + 1) as usize;
        if dice.permille(faults.fails) {
            said.truncate(cut);
            said.push(Err(ResponderError { code: "server_error".into(), message: "simulated".into() }));
        } else if dice.permille(faults.stops) {
            said.truncate(cut);
        } else {
            said.push(Ok(Said::End(End { usage: Usage { output: 1, ..Usage::default() }, ..End::default() })));
        }
        let said = stream::iter(said).then(move |said| {
            let pause = dice.up_to(faults.pause);
            async move {
                tokio::time::sleep(pause).await;
                said
            }
        });
        said.boxed()
    }
}

fn input(ask: &Ask) -> String {
    ask.input.iter().map(|item| item.body.text()).collect()
}
