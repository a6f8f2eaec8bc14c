//! The responder `echo`: says what it was told. For tests and for load, so its reply is a pure function of what it is
//! given, and it can go on behind any partial reply exactly.
//!
//! It knows no language and remembers nothing; `fail_every` counts the calls of this node only.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use klatch_actors::Responder;
use klatch_actors::responder::{Answered, Ask, End, ResponderError, Said};
use klatch_protocol::Pieces;
use klatch_protocol::item::{Body, Role};
use klatch_protocol::turn::{Incomplete, Usage};
use serde::{Deserialize, Serialize};

use super::pieces::{max_output_tokens, pieces};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EchoOptions {
    /// What `model` names it by.
    pub name: String,
    /// Answer with all text that was given, older items included, and not with the input alone. Shows what a model
    /// would be given. Default: false.
    #[serde(default)]
    pub history: bool,
    /// Wait so many milliseconds before the first token. Default: 0.
    #[serde(default)]
    pub delay_ms: u64,
    /// Wait so many milliseconds before each further token. Default: 0.
    #[serde(default)]
    pub token_delay_ms: u64,
    /// Repeat or cut the reply so that it has so many tokens: load with replies of a known length. Default: as long
    /// as the text is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Every n-th call fails with `server_error`. Default: none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail_every: Option<u64>,
}

impl EchoOptions {
    pub fn named(name: &str) -> Self {
        Self { name: name.into(), history: false, delay_ms: 0, token_delay_ms: 0, tokens: None, fail_every: None }
    }
}

pub struct Echo {
    options: EchoOptions,
    calls: AtomicU64,
}

impl Echo {
    pub fn new(options: EchoOptions) -> Self {
        Self { options, calls: AtomicU64::new(0) }
    }

    fn fails_now(&self) -> bool {
        let call = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        self.options.fail_every.is_some_and(|every| every > 0 && call.is_multiple_of(every))
    }

    fn reply(&self, ask: &Ask) -> Reply {
        let text = if self.options.history { all_text(ask) } else { input_text(ask) };
        Reply::new(text, self.options.tokens, max_output_tokens(ask), ask.partial.len())
    }
}

impl Responder for Echo {
    fn history_items(&self) -> usize {
        if self.options.history { usize::MAX } else { 0 }
    }

    fn answers_at_once(&self) -> bool {
        let EchoOptions { history, delay_ms, token_delay_ms, fail_every, .. } = &self.options;
        !history && *delay_ms == 0 && *token_delay_ms == 0 && fail_every.is_none()
    }

    fn answer(&self, ask: &Ask) -> Answered {
        let mut reply = self.reply(ask);
        let mut pieces = Pieces::with_capacity(reply.text.len() / WORD_BYTES + 1, reply.text.len());
        while let Some(piece) = reply.next_piece() {
            pieces.push(&reply.text[piece]);
        }
        Answered { pieces, end: reply.end() }
    }

    fn respond(&self, ask: Ask) -> BoxStream<'static, Result<Said, ResponderError>> {
        if self.fails_now() {
            let message = "this call fails, as `fail_every` says".to_owned();
            return stream::iter([Err(ResponderError { code: "server_error".into(), message })]).boxed();
        }
        let first = Duration::from_millis(self.options.delay_ms);
        let further = Duration::from_millis(self.options.token_delay_ms);
        let reply = self.reply(&ask);
        stream::unfold(Some((reply, first)), move |state| async move {
            let (mut reply, wait) = state?;
            let Some(piece) = reply.next_piece() else { return Some((Ok(Said::End(reply.end())), None)) };
            let piece = reply.text[piece].to_owned();
            pause(wait).await;
            Some((Ok(Said::Text(piece)), Some((reply, further))))
        })
        .boxed()
    }
}

/// A timer of zero still costs a turn of the timer wheel.
async fn pause(wait: Duration) {
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
}

/// A word and its space, more or less, in bytes.
const WORD_BYTES: usize = 6;

/// A reply on its way: nothing of it is made before it is said, so a long one costs no memory.
struct Reply {
    text: String,
    /// Where in `text` the next piece begins.
    at: usize,
    /// Tokens of the whole reply still to come, those skipped included; none: until the text ends.
    left: Option<u64>,
    max: Option<u64>,
    /// Bytes that were said already.
    skip: usize,
    usage: Usage,
}

impl Reply {
    fn new(mut text: String, tokens: Option<u64>, max: Option<u64>, skip: usize) -> Self {
        let given = pieces(&text).count() as u64;
        if tokens.is_some_and(|tokens| tokens > given) && !text.ends_with(char::is_whitespace) {
            let stand_in = if text.is_empty() { "echo " } else { " " };
            text.push_str(stand_in);
        }
        Self { text, at: 0, left: tokens, max, skip, usage: Usage { input: given, ..Usage::default() } }
    }

    /// Where in the text it is.
    fn next_piece(&mut self) -> Option<Range<usize>> {
        loop {
            if self.is_cut() {
                return None;
            }
            let piece = self.advance()?;
            if self.skip < piece.len() {
                // A partial reply of another responder may end anywhere, within a letter too.
                let begun = piece.start + std::mem::take(&mut self.skip);
                return Some(if self.text.is_char_boundary(begun) { begun..piece.end } else { piece.end..piece.end });
            }
            self.skip -= piece.len();
        }
    }

    /// The next piece, said already or not.
    fn advance(&mut self) -> Option<Range<usize>> {
        if self.left == Some(0) {
            return None;
        }
        if self.left.is_some() && self.at == self.text.len() {
            self.at = 0;
        }
        let piece = self.at..self.at + pieces(&self.text[self.at..]).next()?.len();
        self.at = piece.end;
        self.left = self.left.map(|left| left - 1);
        self.usage.output += 1;
        Some(piece)
    }

    /// Whether `max_output_tokens` holds back a piece.
    fn is_cut(&self) -> bool {
        let more = self.left.map_or(self.at < self.text.len(), |left| left > 0);
        more && self.max.is_some_and(|max| self.usage.output >= max)
    }

    fn end(&self) -> End {
        End { usage: self.usage, incomplete: self.is_cut().then_some(Incomplete::MaxOutputTokens), memory: None }
    }
}

/// The last user message of the input, and what its functions gave back.
fn input_text(ask: &Ask) -> String {
    let is_user = |body: &Body| matches!(body, Body::Message { role: Role::User, .. });
    let last_user = ask.input.iter().rposition(|item| is_user(&item.body));
    let echoed = ask.input.iter().enumerate().filter(|(index, item)| match *item.body {
        Body::FunctionCallOutput { .. } => true,
        Body::Message { .. } | Body::FunctionCall { .. } => Some(*index) == last_user,
    });
    join(echoed.map(|(_, item)| &*item.body))
}

fn all_text(ask: &Ask) -> String {
    join(ask.history.iter().map(|item| &*item.body).chain(ask.input.iter().map(|item| &*item.body)))
}

fn join<'a>(bodies: impl Iterator<Item = &'a Body>) -> String {
    let mut texts = bodies.filter_map(|body| match body {
        Body::Message { .. } => Some(body.text()),
        Body::FunctionCallOutput { output, .. } => Some(output.clone()),
        Body::FunctionCall { .. } => None,
    });
    let first = texts.next().unwrap_or_default();
    texts.fold(first, |joined, text| joined + "\n" + &text)
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use proptest::prelude::*;

    use super::super::tests::{ask, item};
    use super::*;

    fn echo(change: impl FnOnce(&mut EchoOptions)) -> Echo {
        let mut options = EchoOptions::named("echo");
        change(&mut options);
        Echo::new(options)
    }

    fn respond(echo: &Echo, ask: Ask) -> (Vec<String>, End) {
        let said = block_on(echo.respond(ask).collect::<Vec<_>>());
        let (mut pieces, mut end) = (Vec::new(), None);
        for said in said {
            match said.expect("echo does not fail") {
                Said::Text(piece) => pieces.push(piece),
                Said::End(last) => end = Some(last),
                Said::Call(_) => panic!("echo calls no function"),
            }
        }
        (pieces, end.expect("a reply ends"))
    }

    #[test]
    fn it_says_the_last_user_message_word_by_word() {
        let mut asked = ask("the last one");
        asked.input.insert(0, item(Body::user("an earlier one")));
        let (pieces, end) = respond(&echo(|_| ()), asked.clone());
        assert_eq!(pieces, ["the ", "last ", "one"]);
        assert_eq!(end.usage, Usage { input: 3, output: 3, ..Usage::default() });
        assert_eq!(echo(|_| ()).answer(&asked).pieces.iter().collect::<Vec<_>>(), ["the ", "last ", "one"]);
    }

    #[test]
    fn with_history_it_says_all_that_it_was_given() {
        let mut asked = ask("now");
        asked.history = vec![item(Body::user("before")).into()];
        let with_history = echo(|options| options.history = true);
        assert_eq!(respond(&with_history, asked).0.concat(), "before\nnow");
        assert_eq!((with_history.history_items(), echo(|_| ()).history_items()), (usize::MAX, 0));
    }

    #[test]
    fn what_a_function_gave_back_is_echoed() {
        let mut asked = ask("x");
        let status = klatch_protocol::item::Status::Completed;
        let output = Body::FunctionCallOutput { call_id: "c".into(), output: "21 degrees".into(), status };
        asked.input = vec![item(output)];
        assert_eq!(respond(&echo(|_| ()), asked).0.concat(), "21 degrees");
    }

    #[test]
    fn a_reply_can_be_given_a_length() {
        let repeated = respond(&echo(|options| options.tokens = Some(5)), ask("a b"));
        assert_eq!(repeated.0, ["a ", "b ", "a ", "b ", "a "]);
        assert_eq!(respond(&echo(|options| options.tokens = Some(1)), ask("a b")).0, ["a "]);
        assert_eq!(respond(&echo(|options| options.tokens = Some(2)), ask("")).0.len(), 2);
        assert_eq!(repeated.1.incomplete, None);
    }

    #[test]
    fn max_output_tokens_cuts_the_reply() {
        let mut asked = ask("a b c");
        asked.request = r#"{"max_output_tokens": 2, "other": []}"#.into();
        let (pieces, end) = respond(&echo(|_| ()), asked.clone());
        assert_eq!((pieces.concat().as_str(), end.incomplete), ("a b ", Some(Incomplete::MaxOutputTokens)));
        asked.request = r#"{"max_output_tokens": 3}"#.into();
        assert_eq!(respond(&echo(|_| ()), asked).1.incomplete, None);
    }

    #[test]
    fn every_nth_call_fails() {
        let echo = echo(|options| options.fail_every = Some(2));
        let fails = |_| block_on(echo.respond(ask("x")).next()).is_some_and(|said| said.is_err());
        assert_eq!((0..4).map(fails).collect::<Vec<_>>(), [false, true, false, true]);
    }

    #[test]
    fn it_answers_at_once_only_where_nothing_waits_or_fails() {
        assert!(echo(|_| ()).answers_at_once());
        assert!(!echo(|options| options.history = true).answers_at_once());
        assert!(!echo(|options| options.delay_ms = 1).answers_at_once());
        assert!(!echo(|options| options.token_delay_ms = 1).answers_at_once());
        assert!(!echo(|options| options.fail_every = Some(9)).answers_at_once());
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_token_waits_and_so_does_each_further_one() {
        let echo = echo(|options| (options.delay_ms, options.token_delay_ms) = (1_000, 10));
        let begin = tokio::time::Instant::now();
        let mut reply = echo.respond(ask("a b"));
        reply.next().await;
        assert_eq!(begin.elapsed().as_millis(), 1_000);
        reply.next().await;
        assert_eq!(begin.elapsed().as_millis(), 1_010);
    }

    proptest! {
        #[test]
        fn it_goes_on_exactly_behind_a_partial_reply(
            text in any::<String>(),
            tokens in proptest::option::of(0u64..9),
            max in 0u64..9,
            cut in any::<prop::sample::Index>(),
        ) {
            let echo = echo(|options| options.tokens = tokens);
            let mut asked = ask(&text);
            asked.request = format!("{{\"max_output_tokens\":{max}}}").into();
            let (whole, end) = respond(&echo, asked.clone());
            let said = cut.index(whole.len() + 1);
            asked.partial = whole[..said].concat();
            let (rest, end_of_rest) = respond(&echo, asked);
            prop_assert_eq!(rest, &whole[said..]);
            prop_assert_eq!(end_of_rest, end);
        }
    }
}
