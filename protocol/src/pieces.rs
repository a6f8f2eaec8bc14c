//! The pieces in which a reply was said: each is one event of its stream, for ever. Stored and sent as a list of texts, and
//! kept as one text, since most are a word.

use std::fmt;

use serde::de::{DeserializeSeed, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Clone, Default, PartialEq, Eq)]
pub struct Pieces {
    text: String,
    /// Of each piece, in bytes. They add up to the text.
    lengths: Vec<u32>,
}

impl Pieces {
    /// Room for so many pieces, and for so many bytes of text.
    pub fn with_capacity(pieces: usize, bytes: usize) -> Self {
        Self { text: String::with_capacity(bytes), lengths: Vec::with_capacity(pieces) }
    }

    pub fn push(&mut self, piece: &str) {
        self.text.push_str(piece);
        self.lengths.push(piece.len() as u32);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// All of them, one behind the other.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Of each piece, in bytes.
    pub fn lengths(&self) -> &[u32] {
        &self.lengths
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let mut at = 0;
        self.lengths.iter().map(move |length| {
            let begin = at;
            at += *length as usize;
            &self.text[begin..at]
        })
    }

    /// Leaves the first ones, up to the one with which they have more than `bytes`. Whether others followed it, or it is too
    /// long by itself.
    pub fn cut_beyond(&mut self, bytes: usize) -> bool {
        let mut end = 0;
        let beyond = self.lengths.iter().position(|length| {
            end += *length as usize;
            end > bytes
        });
        if let Some(last) = beyond {
            self.lengths.truncate(last + 1);
            self.text.truncate(end);
        }
        beyond.is_some()
    }
}

impl<T: AsRef<str>> FromIterator<T> for Pieces {
    fn from_iter<I: IntoIterator<Item = T>>(pieces: I) -> Self {
        let mut all = Self::default();
        pieces.into_iter().for_each(|piece| all.push(piece.as_ref()));
        all
    }
}

impl<T: AsRef<str>, const N: usize> From<[T; N]> for Pieces {
    fn from(pieces: [T; N]) -> Self {
        pieces.into_iter().collect()
    }
}

impl fmt::Debug for Pieces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Serialize for Pieces {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Exact<'a, I>(I, &'a Pieces);
        impl<'a, I: Iterator<Item = &'a str>> Iterator for Exact<'a, I> {
            type Item = &'a str;

            fn next(&mut self) -> Option<&'a str> {
                self.0.next()
            }

            fn size_hint(&self) -> (usize, Option<usize>) {
                (self.1.len(), Some(self.1.len()))
            }
        }
        serializer.collect_seq(Exact(self.iter(), self))
    }
}

impl<'de> Deserialize<'de> for Pieces {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Pieces;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of texts")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut texts: A) -> Result<Pieces, A::Error> {
                let mut pieces = Pieces::default();
                while texts.next_element_seed(Next(&mut pieces))?.is_some() {}
                Ok(pieces)
            }
        }
        deserializer.deserialize_seq(All)
    }
}

/// Reads one piece behind those before it.
struct Next<'a>(&'a mut Pieces);

impl<'de> DeserializeSeed<'de> for Next<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Next<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E>(self, piece: &str) -> Result<(), E> {
        self.0.push(piece);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::envelope::{open, seal};

    #[test]
    fn they_are_cut_behind_the_one_that_is_too_much() {
        let cut = |bytes| {
            let mut pieces = Pieces::from(["ab", "", "cd", "e"]);
            let beyond = pieces.cut_beyond(bytes);
            (pieces.text().to_owned(), pieces.len(), beyond)
        };
        assert_eq!(cut(5), ("abcde".to_owned(), 4, false));
        assert_eq!(cut(4), ("abcde".to_owned(), 4, true));
        assert_eq!(cut(3), ("abcd".to_owned(), 3, true));
        assert_eq!(cut(0), ("ab".to_owned(), 1, true));
    }

    proptest! {
        #[test]
        fn they_are_stored_as_a_list_of_texts(texts in proptest::collection::vec(any::<String>(), 0..9)) {
            let pieces: Pieces = texts.iter().collect();
            prop_assert_eq!(seal(&pieces), seal(&texts));
            prop_assert_eq!(&open::<Pieces>(&seal(&texts)).expect("they can be read"), &pieces);
            prop_assert_eq!(pieces.iter().collect::<Vec<_>>(), texts);
        }
    }
}
