//! Events of a response's stream, and how one is framed as a server-sent event.
//!
//! Framing is strict, since `openai-python` dies of less: `event`, `data`, and `id` only for a browser's EventSource.

use serde::Serialize;

use super::items::{WireItem, WirePart};
use super::response::Response;

/// The end of every stream.
pub const DONE: &[u8] = b"data: [DONE]\n\n";
/// Tells proxies and clients that the stream lives.
pub const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

#[derive(Serialize)]
pub struct Numbered<'a> {
    #[serde(flatten)]
    pub event: Event<'a>,
    pub sequence_number: u64,
}

#[derive(Serialize)]
#[serde(tag = "type")]
pub enum Event<'a> {
    #[serde(rename = "response.created")]
    Created { response: Response },
    #[serde(rename = "response.queued")]
    Queued { response: Response },
    #[serde(rename = "response.in_progress")]
    InProgress { response: Response },
    #[serde(rename = "response.output_item.added")]
    OutputAdded { output_index: usize, item: WireItem },
    #[serde(rename = "response.content_part.added")]
    PartAdded { item_id: &'a str, output_index: usize, content_index: usize, part: WirePart },
    #[serde(rename = "response.output_text.delta")]
    TextDelta { item_id: &'a str, output_index: usize, content_index: usize, delta: &'a str, logprobs: [u8; 0] },
    #[serde(rename = "response.output_text.done")]
    TextDone { item_id: &'a str, output_index: usize, content_index: usize, text: &'a str, logprobs: [u8; 0] },
    #[serde(rename = "response.content_part.done")]
    PartDone { item_id: &'a str, output_index: usize, content_index: usize, part: WirePart },
    #[serde(rename = "response.function_call_arguments.delta")]
    ArgumentsDelta { item_id: &'a str, output_index: usize, delta: &'a str },
    #[serde(rename = "response.function_call_arguments.done")]
    ArgumentsDone { item_id: &'a str, output_index: usize, name: &'a str, arguments: &'a str },
    #[serde(rename = "response.output_item.done")]
    OutputDone { output_index: usize, item: WireItem },
    #[serde(rename = "response.completed")]
    Completed { response: Response },
    #[serde(rename = "response.incomplete")]
    Incomplete { response: Response },
    #[serde(rename = "response.failed")]
    Failed { response: Response },
}

impl Event<'_> {
    pub fn name(&self) -> &'static str {
        match self {
            Event::Created { .. } => "response.created",
            Event::Queued { .. } => "response.queued",
            Event::InProgress { .. } => "response.in_progress",
            Event::OutputAdded { .. } => "response.output_item.added",
            Event::PartAdded { .. } => "response.content_part.added",
            Event::TextDelta { .. } => "response.output_text.delta",
            Event::TextDone { .. } => "response.output_text.done",
            Event::PartDone { .. } => "response.content_part.done",
            Event::ArgumentsDelta { .. } => "response.function_call_arguments.delta",
            Event::ArgumentsDone { .. } => "response.function_call_arguments.done",
            Event::OutputDone { .. } => "response.output_item.done",
            Event::Completed { .. } => "response.completed",
            Event::Incomplete { .. } => "response.incomplete",
            Event::Failed { .. } => "response.failed",
        }
    }
}

/// Adds the event's frame to `out`.
pub fn write_frame(out: &mut Vec<u8>, event: Event<'_>, sequence_number: u64, with_id: bool) {
    let name = event.name();
    if with_id {
        out.extend_from_slice(format!("id: {sequence_number}\n").as_bytes());
    }
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    serde_json::to_writer(&mut *out, &Numbered { event, sequence_number })
        .expect("memory takes what it is given, and events are plain data");
    out.extend_from_slice(b"\n\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(with_id: bool) -> String {
        let delta = Event::TextDelta {
            item_id: "msg_1",
            output_index: 0,
            content_index: 0,
            delta: "two\nlines \u{2028}\r",
            logprobs: [],
        };
        let mut out = Vec::new();
        write_frame(&mut out, delta, 7, with_id);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_frame_is_two_lines_and_its_data_one() {
        let frame = framed(false);
        let (event, data) = frame.strip_suffix("\n\n").expect("a whole frame").split_once('\n').expect("two lines");
        assert_eq!(event, "event: response.output_text.delta");
        let data: serde_json::Value = serde_json::from_str(data.strip_prefix("data: ").expect("data")).expect("json");
        assert_eq!(data["type"], "response.output_text.delta");
        assert_eq!((&data["sequence_number"], &data["delta"]), (&7.into(), &"two\nlines \u{2028}\r".into()));
    }

    #[test]
    fn an_id_stands_first_where_it_is_wanted() {
        assert!(framed(true).starts_with("id: 7\nevent: "));
    }
}
