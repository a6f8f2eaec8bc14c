//! What the built-in bots have in common: which text they answer, and how a reply is cut into pieces.

use klatch_actors::responder::Ask;
use klatch_protocol::item::{Body, Role};
use serde::Deserialize;

/// A piece is one event of the stream and travels in one frame; text without spaces must not make it huge.
const PIECE_BYTES_MAX: usize = 1024;

/// The words of a text, each with the space around it: joined they are the text again. Stands for a model's tokens.
pub struct Pieces<'a>(&'a str);

pub fn pieces(text: &str) -> Pieces<'_> {
    Pieces(text)
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        if self.0.is_empty() {
            return None;
        }
        let (piece, rest) = self.0.split_at(piece_bytes(self.0));
        self.0 = rest;
        Some(piece)
    }
}

fn piece_bytes(text: &str) -> usize {
    let (mut in_word, mut behind_word) = (false, false);
    for (at, letter) in text.char_indices() {
        if (behind_word && !letter.is_whitespace()) || at + letter.len_utf8() > PIECE_BYTES_MAX {
            return at;
        }
        behind_word = in_word && letter.is_whitespace();
        in_word = in_word || !letter.is_whitespace();
    }
    text.len()
}

/// The text of the last user message among the input; empty where there is none.
pub fn last_user_text(ask: &Ask) -> String {
    let is_user = |body: &&Body| matches!(body, Body::Message { role: Role::User, .. });
    ask.input.iter().rev().map(|item| &*item.body).find(is_user).map(Body::text).unwrap_or_default()
}

/// `max_output_tokens` of the request, where it has one.
pub fn max_output_tokens(ask: &Ask) -> Option<u64> {
    #[derive(Default, Deserialize)]
    struct Wanted {
        max_output_tokens: Option<u64>,
    }
    serde_json::from_str::<Wanted>(&ask.request).unwrap_or_default().max_output_tokens
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_piece_is_a_word_and_the_space_behind_it() {
        let all: Vec<&str> = pieces("  one two\n\nthree ").collect();
        assert_eq!(all, ["  one ", "two\n\n", "three "]);
        assert_eq!(pieces("").count(), 0);
        assert_eq!(pieces("   ").collect::<Vec<_>>(), ["   "]);
    }

    #[test]
    fn text_without_spaces_comes_in_pieces_of_bounded_size() {
        let text = "é".repeat(3 * PIECE_BYTES_MAX);
        assert!(pieces(&text).all(|piece| piece.len() <= PIECE_BYTES_MAX));
        assert_eq!(pieces(&text).collect::<String>(), text);
    }

    proptest! {
        #[test]
        fn pieces_joined_are_the_text(text in any::<String>()) {
            prop_assert_eq!(pieces(&text).collect::<String>(), text.clone());
            prop_assert!(pieces(&text).all(|piece| !piece.is_empty()));
        }
    }
}
