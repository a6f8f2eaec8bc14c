//! Server-sent events out of bytes that arrive cut anywhere. Pure; bounded.
//!
//! Knows `data` fields only: model servers name no events and send no ids. An event's bytes are not looked at here.

/// One event, all its lines together. A token is some hundred bytes; a tool call with its arguments may be one event.
pub const EVENT_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, Default)]
pub struct Decoder {
    /// The line that has not ended yet.
    line: Vec<u8>,
    /// `data` of the event that has not ended yet.
    event: Option<Vec<u8>>,
    /// The last byte was a CR: an LF that follows belongs to it.
    after_cr: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

impl Decoder {
    /// Adds to `events` those that end within these bytes.
    pub fn feed(&mut self, mut bytes: &[u8], events: &mut Vec<Vec<u8>>) -> Result<(), TooLong> {
        while let Some(first) = bytes.first() {
            if std::mem::take(&mut self.after_cr) && *first == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let length = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let (part, rest) = bytes.split_at(length.unwrap_or(bytes.len()));
            self.line.extend_from_slice(self.bounded(part)?);
            if let Some((end, rest)) = rest.split_first() {
                self.after_cr = *end == b'\r';
                events.extend(self.line_ended());
                bytes = rest;
            } else {
                bytes = rest;
            }
        }
        Ok(())
    }

    /// What an event would be whose end never came: some servers leave out the last empty line.
    pub fn finish(&mut self) -> Option<Vec<u8>> {
        self.line_ended().or_else(|| self.event.take())
    }

    fn bounded<'a>(&self, part: &'a [u8]) -> Result<&'a [u8], TooLong> {
        let held = self.line.len() + self.event.as_ref().map_or(0, Vec::len);
        if held + part.len() > EVENT_BYTES_MAX { Err(TooLong) } else { Ok(part) }
    }

    fn line_ended(&mut self) -> Option<Vec<u8>> {
        let line = std::mem::take(&mut self.line);
        let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line);
        if line.is_empty() {
            return self.event.take();
        }
        let value = line.strip_prefix(b"data:").or_else(|| (line == b"data").then_some(b"".as_slice()))?;
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match &mut self.event {
            None => self.event = Some(value.to_vec()),
            Some(event) => {
                event.push(b'\n');
                event.extend_from_slice(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<String>, TooLong> {
        let (mut decoder, mut events) = (Decoder::default(), Vec::new());
        for part in parts {
            decoder.feed(part, &mut events)?;
        }
        events.extend(decoder.finish());
        Ok(events.iter().map(|event| String::from_utf8_lossy(event).into_owned()).collect())
    }

    #[test]
    fn all_ends_of_lines_end_lines() {
        for end in ["\n", "\r\n", "\r"] {
            let text = ["data: a", "", ": comment", "id: 3", "data:b", "data: c", "", "", "data: [DONE]"].join(end);
            assert_eq!(decode([text.as_bytes()]), Ok(vec!["a".into(), "b\nc".into(), "[DONE]".into()]));
        }
    }

    #[test]
    fn an_event_has_a_limit_over_all_its_lines() {
        let line = vec![b'x'; EVENT_BYTES_MAX - 5];
        assert!(decode([b"data:".as_slice(), &line]).is_ok());
        assert_eq!(decode([b"data:".as_slice(), &line, b"x"]), Err(TooLong));
        let half = [b"data:".as_slice(), &line[..EVENT_BYTES_MAX / 2], b"\n"].concat();
        assert_eq!(decode([half.as_slice(), &half]), Err(TooLong));
        assert!(decode([half.as_slice(), b"\n", &half]).is_ok());
    }

    proptest! {
        #[test]
        fn any_split_of_the_bytes_gives_the_same_events(
            text in "(data: ?|:|id: 1|[a-cé]{1,3}|\r|\n|\r\n|\n\n|\u{feff}){0,40}",
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let parts = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]);
            prop_assert_eq!(decode(parts), decode([bytes]));
        }

        #[test]
        fn garbage_is_decoded_to_something_or_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            let decoded = decode([bytes.as_slice()]).expect("it is short");
            prop_assert!(decoded.iter().map(String::len).sum::<usize>() <= 3 * bytes.len());
        }
    }
}
