//! What is sent: each message unlike every other, each body put together by copying, without a JSON writer in the way.
//!
//! The seed fixes the padding; the run's own number, which is random, makes texts and keys unlike those of any other
//! run, since a server remembers keys for a day.

use bytes::Bytes;

use super::LoadArgs;

/// The nonce takes that much.
pub const MESSAGE_BYTES_MIN: u32 = 32;
pub const MESSAGE_BYTES_MAX: u32 = 1 << 20;

#[derive(Clone, Debug)]
pub struct Messages {
    run: u64,
    /// Of the length of a message; its beginning gives way to the nonce.
    padding: String,
    /// `{"model":…,"conversation":"`, and what stands between the conversation and the input.
    before_conversation: String,
}

const BETWEEN: &str = r#"","input":""#;
const END: &str = r#""}"#;

/// One turn as it is sent.
#[derive(Clone, Debug)]
pub struct Message {
    pub key: String,
    pub text: String,
    pub body: Bytes,
}

impl Messages {
    pub fn new(run: u64, args: &LoadArgs) -> Self {
        let mut random = Random(args.seed);
        let letter = |random: &mut Random| char::from(b'a' + (random.next() % 26) as u8);
        let padding = (0..args.message_bytes).map(|_| letter(&mut random)).collect();
        let model = serde_json::Value::from(args.model.as_str());
        let before_conversation = format!(r#"{{"model":{model},"stream":{},"conversation":""#, args.stream);
        Self { run, padding, before_conversation }
    }

    pub fn message(&self, conversation: &str, number: u64) -> Message {
        let text = self.text("turn", number);
        let parts = [&self.before_conversation, conversation, BETWEEN, &text, END];
        Message { key: format!("load-{:016x}-{number}", self.run), body: Bytes::from(parts.concat()), text }
    }

    /// What an item has that stood in a conversation before any turn.
    pub fn fill_text(&self, number: u64) -> String {
        self.text("fill", number)
    }

    /// Which turn of this run has sent a text.
    pub fn number_of(&self, text: &str) -> Option<u64> {
        let number = text.get(..self.padding.len().min(text.len()))?.strip_prefix(&self.prefix("turn"))?.get(..10)?;
        let number = number.parse().ok()?;
        (self.text("turn", number) == text).then_some(number)
    }

    fn prefix(&self, what: &str) -> String {
        format!("{what}{:016x}", self.run)
    }

    fn text(&self, what: &str, number: u64) -> String {
        let mut text = self.prefix(what);
        text.push_str(&format!("{number:010}"));
        text.push_str(&self.padding[text.len().min(self.padding.len())..]);
        text
    }
}

/// SplitMix64: small, good enough for padding and shuffling, and the same everywhere.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Fisher and Yates.
    pub fn shuffle<T>(&mut self, all: &mut [T]) {
        for last in (1..all.len()).rev() {
            all.swap(last, (self.next() % (last as u64 + 1)) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::args;
    use super::*;

    #[test]
    fn a_body_is_the_json_it_means_to_be() {
        let messages = Messages::new(7, &args("--stream --model a\"b --message-bytes 100").unwrap());
        let message = messages.message("conv_1", 3);
        let body: serde_json::Value = serde_json::from_slice(&message.body).unwrap();
        let meant =
            serde_json::json!({"model": "a\"b", "stream": true, "conversation": "conv_1", "input": message.text});
        assert_eq!(body, meant);
        assert_eq!(message.text.len(), 100);
    }

    #[test]
    fn texts_and_keys_differ_between_turns_and_runs() {
        let args = args("").unwrap();
        let sent = |run, number| Messages::new(run, &args).message("conv_1", number);
        for other in [sent(1, 2), sent(2, 1)] {
            assert_ne!(sent(1, 1).text, other.text);
            assert_ne!(sent(1, 1).key, other.key);
        }
    }

    #[test]
    fn a_text_is_known_by_its_number_and_foreign_or_damaged_ones_are_not() {
        let args = args("--message-bytes 32").unwrap();
        let messages = Messages::new(5, &args);
        let text = messages.message("conv_1", 42).text;
        assert_eq!(messages.number_of(&text), Some(42));
        let damaged = format!("{}!", &text[..text.len() - 1]);
        for foreign in ["", "é", &damaged, &messages.fill_text(42), &Messages::new(6, &args).message("c", 42).text] {
            assert_eq!(messages.number_of(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_seed_gives_the_same_order_again_and_loses_nothing() {
        let shuffled = |seed| {
            let mut all: Vec<_> = (0..50).collect();
            Random(seed).shuffle(&mut all);
            all
        };
        assert_eq!(shuffled(3), shuffled(3));
        assert_ne!(shuffled(3), shuffled(4));
        let mut sorted = shuffled(3);
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..50));
    }
}
