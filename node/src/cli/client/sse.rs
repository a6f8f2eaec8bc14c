//! Server-sent events out of bytes, as the HTML standard reads them. Pure: bytes in, events out.
//!
//! Used by `events.rs` only. Ids and `retry:` lines are skipped: Klatch's events carry their own number, and when to
//! come back is the client's decision.

use std::collections::VecDeque;

/// No event is longer; a server that sends more is broken, and must not fill this machine's memory.
pub const EVENT_BYTES_MAX: usize = 64 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawEvent {
    pub kind: String,
    pub data: String,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of more than {EVENT_BYTES_MAX} bytes")]
pub struct TooLong;

#[derive(Debug, Default)]
pub struct SseParser {
    line: Vec<u8>,
    kind: String,
    data: String,
    has_data: bool,
    after_return: bool,
    begun: bool,
    ready: VecDeque<RawEvent>,
}

impl SseParser {
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), TooLong> {
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_return) && bytes[0] == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let end = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let part = &bytes[..end.unwrap_or(bytes.len())];
            if self.line.len() + self.data.len() + part.len() > EVENT_BYTES_MAX {
                return Err(TooLong);
            }
            self.line.extend_from_slice(part);
            let Some(end) = end else { return Ok(()) };
            self.after_return = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            self.end_line();
        }
        Ok(())
    }

    pub fn pop(&mut self) -> Option<RawEvent> {
        self.ready.pop_front()
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let mut text = String::from_utf8_lossy(&line);
        if !std::mem::replace(&mut self.begun, true) && text.starts_with('\u{feff}') {
            text = text['\u{feff}'.len_utf8()..].to_owned().into();
        }
        if text.is_empty() {
            return self.end_event();
        }
        let (field, value) = text.split_once(':').unwrap_or((&text, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.kind),
            "data" => self.add_data(value),
            _ => {}
        }
    }

    fn add_data(&mut self, value: &str) {
        if std::mem::replace(&mut self.has_data, true) {
            self.data.push('\n');
        }
        self.data.push_str(value);
    }

    fn end_event(&mut self) {
        let (kind, data) = (std::mem::take(&mut self.kind), std::mem::take(&mut self.data));
        if std::mem::take(&mut self.has_data) {
            self.ready.push_back(RawEvent { kind, data });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(parts: &[&[u8]]) -> Vec<(String, String)> {
        let mut parser = SseParser::default();
        parts.iter().for_each(|part| parser.push(part).unwrap());
        std::iter::from_fn(|| parser.pop()).map(|event| (event.kind, event.data)).collect()
    }

    fn event(kind: &str, data: &str) -> (String, String) {
        (kind.to_owned(), data.to_owned())
    }

    #[test]
    fn events_are_read_in_order_with_or_without_a_kind() {
        let text = b"event: response.created\ndata: {\"a\":1}\n\ndata: [DONE]\n\n";
        assert_eq!(all(&[text]), [event("response.created", "{\"a\":1}"), event("", "[DONE]")]);
    }

    #[test]
    fn comments_ids_and_events_without_data_are_passed_over() {
        assert_eq!(all(&[b": keep-alive\n\nid: 4\nevent: x\n\nretry: 10\n\ndata:y\n\n"]), [event("", "y")]);
    }

    #[test]
    fn lines_of_data_are_joined_and_only_one_space_is_dropped() {
        assert_eq!(all(&[b"\xef\xbb\xbfdata:  a\ndata\ndata: b\n\n"]), [event("", " a\n\nb")]);
    }

    #[test]
    fn an_event_that_was_cut_off_is_not_told() {
        assert_eq!(all(&[b"data: a\n\ndata: b\n"]), [event("", "a")]);
    }

    #[test]
    fn an_event_past_the_limit_is_refused() {
        let mut parser = SseParser::default();
        let part = vec![b'x'; EVENT_BYTES_MAX / 2];
        assert_eq!(parser.push(&part), Ok(()));
        assert_eq!(parser.push(&part), Ok(()));
        assert_eq!(parser.push(b"x"), Err(TooLong));
    }

    proptest! {
        #[test]
        fn where_the_bytes_are_cut_changes_nothing(cuts in proptest::collection::vec(0usize..60, 0..8), ending in 0usize..3) {
            let text = "event: ä\ndata: 1\ndata: é\n\n: hm\n\ndata: 2\n\n".replace('\n', ["\n", "\r\n", "\r"][ending]);
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let parts: Vec<_> = cuts.windows(2).map(|cut| &text.as_bytes()[cut[0]..cut[1]]).collect();
            prop_assert_eq!(all(&parts), [event("ä", "1\né"), event("", "2")]);
        }
    }
}
