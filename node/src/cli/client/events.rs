//! The events of one response as they arrive. Used by `klatch chat` and `klatch load`; a lost connection is told, not
//! mended: whoever reads knows how far it came and asks again from there.

use serde::Deserialize;

use super::failure::Failure;
use super::sse::{RawEvent, SseParser};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamItem {
    Event(StreamEvent),
    /// `data: [DONE]`: nothing follows.
    Done,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamEvent {
    pub kind: String,
    pub sequence_number: u64,
    /// The whole event, one line of JSON.
    pub data: String,
}

pub struct EventReader {
    response: reqwest::Response,
    parser: SseParser,
}

impl EventReader {
    pub fn new(response: reqwest::Response) -> Self {
        Self { response, parser: SseParser::default() }
    }

    /// Safe to drop while it waits: nothing that arrived is lost. A connection that ends without `[DONE]` is a failure.
    pub async fn next(&mut self) -> Result<StreamItem, Failure> {
        loop {
            if let Some(event) = self.parser.pop() {
                return StreamItem::read(event);
            }
            match self.response.chunk().await {
                Ok(Some(bytes)) => {
                    self.parser.push(&bytes).map_err(|too_long| Failure::Malformed(too_long.to_string()))?;
                }
                Ok(None) | Err(_) => return Err(Failure::CutShort),
            }
        }
    }
}

impl StreamItem {
    fn read(event: RawEvent) -> Result<Self, Failure> {
        #[derive(Deserialize)]
        struct Head {
            r#type: String,
            sequence_number: u64,
        }
        if event.data == "[DONE]" {
            return Ok(Self::Done);
        }
        let head: Head =
            serde_json::from_str(&event.data).map_err(|wrong| Failure::Malformed(format!("in the stream: {wrong}")))?;
        let (kind, sequence_number) = (head.r#type, head.sequence_number);
        Ok(Self::Event(StreamEvent { kind, sequence_number, data: event.data }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_known_by_its_type_and_number() {
        let data = r#"{"type":"response.created","sequence_number":0,"response":{}}"#.to_owned();
        let read = StreamItem::read(RawEvent { kind: String::new(), data: data.clone() });
        let event = StreamEvent { kind: "response.created".to_owned(), sequence_number: 0, data };
        assert_eq!(read.unwrap(), StreamItem::Event(event));
    }

    #[test]
    fn an_event_without_a_number_is_not_understood() {
        let read = StreamItem::read(RawEvent { kind: String::new(), data: r#"{"type":"x"}"#.to_owned() });
        assert!(matches!(read, Err(Failure::Malformed(_))));
    }
}
