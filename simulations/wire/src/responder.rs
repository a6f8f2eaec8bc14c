//! A responder whose reply follows from what it is asked, so that a hole or a repeat in it is seen at once.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use klatch_actors::Responder;
use klatch_actors::responder::{Ask, End, ResponderError, Said};
use klatch_world::dice::Dice;
use klatch_world::responder::whole_reply;

pub const MODEL: &str = "plain";
/// Between two words.
const PAUSE_MAX: Duration = Duration::from_millis(400);

pub struct WireResponder(pub Dice);

/// As the only one of a node.
pub fn responders(dice: &Dice) -> klatch_actors::responder::Responders {
    [(MODEL.to_owned(), Arc::new(WireResponder(dice.clone())) as Arc<dyn Responder>)].into()
}

impl Responder for WireResponder {
    fn history_items(&self) -> usize {
        0
    }

    fn respond(&self, ask: Ask) -> BoxStream<'static, Result<Said, ResponderError>> {
        let whole = whole_reply(&ask.input.iter().map(|item| item.body.text()).collect::<String>());
        let left = whole.get(ask.partial.len()..).unwrap_or_default();
        let mut said: Vec<_> = left.split_inclusive(' ').map(|word| Ok(Said::Text(word.to_owned()))).collect();
        said.push(Ok(Said::End(End::default())));
        let dice = self.0.clone();
        let said = stream::iter(said).then(move |said| {
            let pause = dice.up_to(PAUSE_MAX);
            async move {
                tokio::time::sleep(pause).await;
                said
            }
        });
        said.boxed()
    }
}
