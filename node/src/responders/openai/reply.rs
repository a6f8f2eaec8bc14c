//! A reply out of the chunks of a chat completion. Pure: one event's bytes in, what is said out.
//!
//! Lenient where servers differ (indexes left out, arguments as an object, the answer of a server that does not
//! stream), strict where something would be lost: what is not understood fails the reply.

use klatch_actors::responder::{End, Said};
use klatch_protocol::event::Call;
use klatch_protocol::turn::{Incomplete, OUTPUTS_MAX, Usage};
use serde::Deserialize;
use serde_json::Value;

use super::failure::Failure;

/// Name and arguments of all calls of one reply together. They are held until they are complete.
const CALL_BYTES_MAX: usize = 1 << 20;

#[derive(Debug)]
pub struct Reply {
    /// Begins ids that are made up, where the server gives none.
    call_ids: String,
    calls: Vec<PartialCall>,
    call_bytes: usize,
    usage: Option<Usage>,
    /// In case the server counts nothing.
    estimate: Usage,
    incomplete: Option<Incomplete>,
    begun: bool,
    finished: bool,
    done: bool,
}

#[derive(Debug)]
struct PartialCall {
    index: Option<u64>,
    id: String,
    name: String,
    arguments: String,
}

#[derive(Deserialize)]
struct Chunk {
    choices: Option<Vec<Choice>>,
    usage: Option<UsageChunk>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    index: u64,
    delta: Option<Delta>,
    /// In place of `delta` in an answer that is not streamed.
    message: Option<Delta>,
    finish_reason: Option<String>,
}

#[derive(Default, Deserialize)]
struct Delta {
    content: Option<Value>,
    refusal: Option<String>,
    /// What a model thinks is not said; it shows that the model is at work. Servers use either name, or both.
    reasoning: Option<Value>,
    reasoning_content: Option<Value>,
    tool_calls: Option<Vec<CallDelta>>,
}

#[derive(Deserialize)]
struct CallDelta {
    index: Option<u64>,
    id: Option<String>,
    function: Option<FunctionDelta>,
}

#[derive(Deserialize)]
struct FunctionDelta {
    name: Option<String>,
    arguments: Option<Value>,
}

#[derive(Deserialize)]
struct UsageChunk {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<PromptDetails>,
    completion_tokens_details: Option<CompletionDetails>,
}

#[derive(Deserialize)]
struct PromptDetails {
    cached_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct CompletionDetails {
    reasoning_tokens: Option<u64>,
}

impl Reply {
    pub fn new(call_ids: String, input_tokens: u64) -> Self {
        Self {
            call_ids,
            calls: Vec::new(),
            call_bytes: 0,
            usage: None,
            estimate: Usage { input: input_tokens, ..Usage::default() },
            incomplete: None,
            begun: false,
            finished: false,
            done: false,
        }
    }

    /// The model has begun to produce something: from here on the call is not made again.
    pub fn begun(&self) -> bool {
        self.begun
    }

    /// The reply is whole; only its usage may be missing.
    pub fn finished(&self) -> bool {
        self.finished
    }

    /// Nothing follows.
    pub fn done(&self) -> bool {
        self.done
    }

    pub fn event(&mut self, bytes: &[u8]) -> Result<Vec<Said>, Failure> {
        if bytes.trim_ascii() == b"[DONE]" {
            self.done = true;
            return Ok(Vec::new());
        }
        let chunk: Chunk = serde_json::from_slice(bytes).map_err(|_| Failure::Malformed("a chunk is no completion"))?;
        if chunk.error.is_some_and(|error| !error.is_null()) {
            return Err(Failure::Reported);
        }
        if chunk.choices.is_none() && chunk.usage.is_none() {
            return Err(Failure::Malformed("a chunk has no `choices`"));
        }
        self.usage = chunk.usage.map(Usage::from).or(self.usage);
        let mut said = Vec::new();
        for choice in chunk.choices.unwrap_or_default() {
            // Only one choice is asked for.
            if choice.index == 0 {
                self.choice(choice, &mut said)?;
            }
        }
        Ok(said)
    }

    /// The whole answer of a server that does not stream.
    pub fn whole(&mut self, bytes: &[u8]) -> Result<Vec<Said>, Failure> {
        let mut said = self.event(bytes)?;
        (self.finished, self.done) = (true, true);
        said.extend(self.end()?);
        Ok(said)
    }

    /// The server says no more: the calls, and the end.
    pub fn end(&mut self) -> Result<Vec<Said>, Failure> {
        let whole = self.finished || (self.done && self.begun);
        if !whole {
            return Err(Failure::Interrupted);
        }
        let mut said = Vec::new();
        for (index, call) in std::mem::take(&mut self.calls).into_iter().enumerate() {
            said.push(Said::Call(self.complete(index, call)?));
        }
        let usage = self.usage.unwrap_or(self.estimate);
        said.push(Said::End(End { usage, incomplete: self.incomplete, memory: None }));
        Ok(said)
    }

    fn choice(&mut self, choice: Choice, said: &mut Vec<Said>) -> Result<(), Failure> {
        let reason = choice.finish_reason.filter(|reason| !reason.is_empty());
        let delta = choice.delta.or(choice.message);
        if delta.is_none() && reason.is_none() {
            return Err(Failure::Malformed("a choice has no `delta`"));
        }
        self.delta(delta.unwrap_or_default(), said)?;
        let Some(reason) = reason else { return Ok(()) };
        match reason.as_str() {
            "length" => self.incomplete = Some(Incomplete::MaxOutputTokens),
            "content_filter" => self.incomplete = Some(Incomplete::ContentFilter),
            "error" => return Err(Failure::Reported),
            // `stop`, `tool_calls`, and names that some servers have for them.
            _ => {}
        }
        self.finished = true;
        Ok(())
    }

    fn delta(&mut self, delta: Delta, said: &mut Vec<Said>) -> Result<(), Failure> {
        let mut text = delta.content.map(text_of).unwrap_or_default();
        text.push_str(&delta.refusal.unwrap_or_default());
        let thoughts = [delta.reasoning, delta.reasoning_content];
        let thought = thoughts.into_iter().flatten().any(|thought| !text_of(thought).is_empty());
        let calls = delta.tool_calls.unwrap_or_default();
        let anything = !text.is_empty() || thought || !calls.is_empty();
        self.begun |= anything;
        self.estimate.output += u64::from(anything);
        if !text.is_empty() {
            said.push(Said::Text(text));
        }
        calls.into_iter().try_for_each(|call| self.call(call))
    }

    fn call(&mut self, delta: CallDelta) -> Result<(), Failure> {
        let id = delta.id.unwrap_or_default();
        let function = delta.function.unwrap_or(FunctionDelta { name: None, arguments: None });
        let name = function.name.unwrap_or_default();
        let arguments = match function.arguments {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text,
            Some(object) => object.to_string(),
        };
        self.call_bytes += id.len() + name.len() + arguments.len();
        if self.call_bytes > CALL_BYTES_MAX || self.calls.len() >= OUTPUTS_MAX as usize {
            return Err(Failure::TooLarge);
        }
        match self.begun_call(delta.index, &id) {
            Some(call) => {
                if call.name.is_empty() {
                    call.name = name;
                }
                call.arguments.push_str(&arguments);
            }
            None => self.calls.push(PartialCall { index: delta.index, id, name, arguments }),
        }
        Ok(())
    }

    /// The call that a delta goes on with: of the same index, and not of another id. Some servers leave the index
    /// out, or give all calls the same.
    fn begun_call(&mut self, index: Option<u64>, id: &str) -> Option<&mut PartialCall> {
        let call = match index {
            Some(_) => self.calls.iter_mut().rev().find(|call| call.index == index),
            None => self.calls.last_mut(),
        };
        call.filter(|call| id.is_empty() || call.id == id)
    }

    fn complete(&self, index: usize, call: PartialCall) -> Result<Call, Failure> {
        if call.name.is_empty() {
            return Err(Failure::Malformed("a tool call has no name"));
        }
        let made_up = || format!("{}_{index}", self.call_ids);
        let call_id = if call.id.is_empty() { made_up() } else { call.id };
        let arguments = if call.arguments.is_empty() { "{}".to_owned() } else { call.arguments };
        Ok(Call { call_id, name: call.name, arguments })
    }
}

impl From<UsageChunk> for Usage {
    fn from(usage: UsageChunk) -> Self {
        Usage {
            input: usage.prompt_tokens.unwrap_or(0),
            input_cached: usage.prompt_tokens_details.and_then(|details| details.cached_tokens).unwrap_or(0),
            output: usage.completion_tokens.unwrap_or(0),
            output_reasoning: usage.completion_tokens_details.and_then(|details| details.reasoning_tokens).unwrap_or(0),
        }
    }
}

/// Text, or the texts of a list of parts.
fn text_of(content: Value) -> String {
    match content {
        Value::String(text) => text,
        Value::Array(parts) => parts.iter().filter_map(|part| part.get("text")?.as_str()).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn reply() -> Reply {
        Reply::new("call_3_1".into(), 10)
    }

    fn read(chunks: &[Value]) -> Result<Vec<Said>, Failure> {
        let (mut reply, mut said) = (reply(), Vec::new());
        for chunk in chunks {
            said.extend(reply.event(chunk.to_string().as_bytes())?);
        }
        said.extend(reply.end()?);
        Ok(said)
    }

    fn delta(delta: Value) -> Value {
        json!({"choices": [{"index": 0, "delta": delta}]})
    }

    fn finish(reason: &str) -> Value {
        json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    }

    fn calls(said: Vec<Said>) -> Vec<(String, String, String)> {
        let call = |said| match said {
            Said::Call(Call { call_id, name, arguments }) => Some((call_id, name, arguments)),
            Said::Text(_) | Said::End(_) => None,
        };
        said.into_iter().filter_map(call).collect()
    }

    fn text(text: &str) -> Said {
        Said::Text(text.into())
    }

    #[test]
    fn each_chunk_with_text_is_a_piece() {
        let usage = json!({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2,
            "prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": {"reasoning_tokens": 1}}});
        let role = delta(json!({"role": "assistant", "content": ""}));
        let chunks = [role, delta(json!({"content": "Hel"})), delta(json!({"content": "lo"})), finish("stop"), usage];
        let usage = Usage { input: 7, input_cached: 4, output: 2, output_reasoning: 1 };
        let end = Said::End(End { usage, ..End::default() });
        assert_eq!(read(&chunks), Ok(vec![text("Hel"), text("lo"), end]));
    }

    #[test]
    fn a_reply_that_is_not_whole_says_why() {
        let why = |reason| match read(&[delta(json!({"content": "x"})), finish(reason)]).map(|said| said[1].clone()) {
            Ok(Said::End(end)) => end.incomplete,
            other => panic!("{other:?}"),
        };
        assert_eq!(why("stop"), None);
        assert_eq!(why("eos"), None);
        assert_eq!(why("length"), Some(Incomplete::MaxOutputTokens));
        assert_eq!(why("content_filter"), Some(Incomplete::ContentFilter));
        assert_eq!(read(&[finish("error")]), Err(Failure::Reported));
    }

    #[test]
    fn a_call_is_put_together_by_its_index() {
        let part = |index: u64, id: Value, name: Value, arguments: &str| {
            delta(
                json!({"tool_calls": [{"index": index, "id": id, "function": {"name": name, "arguments": arguments}}]}),
            )
        };
        let chunks = [
            part(0, json!("a"), json!("f"), ""),
            part(1, json!(null), json!("g"), ""),
            part(0, json!(null), json!(null), "{\"x\""),
            part(1, json!(""), json!(""), "{}"),
            part(0, json!("a"), json!(null), ":1}"),
            finish("tool_calls"),
        ];
        let made_up = ("call_3_1_1".to_owned(), "g".to_owned(), "{}".to_owned());
        let given = ("a".to_owned(), "f".to_owned(), "{\"x\":1}".to_owned());
        assert_eq!(calls(read(&chunks).expect("it is a reply")), [given, made_up]);
    }

    #[test]
    fn calls_without_an_index_or_with_the_same_one_are_told_apart_by_their_ids() {
        for index in [json!(null), json!(0)] {
            let call = |id: &str| json!({"index": index, "id": id, "function": {"name": "f", "arguments": {"x": 1}}});
            let said = read(&[delta(json!({"tool_calls": [call("a"), call("b")]})), finish("tool_calls")]);
            let calls = calls(said.expect("it is a reply"));
            assert_eq!(calls.iter().map(|call| call.0.as_str()).collect::<Vec<_>>(), ["a", "b"]);
            assert_eq!(calls[0].2, "{\"x\":1}");
        }
    }

    #[test]
    fn a_call_without_a_name_fails_the_reply() {
        let nameless = delta(json!({"tool_calls": [{"index": 0, "id": "a"}]}));
        assert_eq!(read(&[nameless, finish("stop")]), Err(Failure::Malformed("a tool call has no name")));
    }

    #[test]
    fn calls_have_a_limit() {
        let part =
            delta(json!({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "x".repeat(1 << 18)}}]}));
        assert!(read(&[part.clone(), part.clone(), part.clone(), finish("stop")]).is_ok());
        assert_eq!(read(&vec![part; 4]), Err(Failure::TooLarge));
        let many = json!({"tool_calls": vec![json!({"id": "x", "function": {"name": "f"}}); 1]});
        let chunk = |id: u64| {
            let mut chunk = many.clone();
            chunk["tool_calls"][0]["id"] = json!(id.to_string());
            delta(chunk)
        };
        assert_eq!(read(&(0..=OUTPUTS_MAX).map(chunk).collect::<Vec<_>>()), Err(Failure::TooLarge));
    }

    #[test]
    fn a_refusal_is_text_and_a_thought_is_none() {
        let thought = delta(json!({"reasoning_content": "hm", "reasoning": "hm"}));
        let chunks = [thought, delta(json!({"refusal": "No."})), finish("stop")];
        assert_eq!(read(&chunks).map(|said| said[0].clone()), Ok(text("No.")));
        let mut thinking = reply();
        assert_eq!(thinking.event(chunks[0].to_string().as_bytes()), Ok(vec![]));
        assert!(thinking.begun());
    }

    #[test]
    fn without_an_end_it_is_interrupted() {
        assert_eq!(read(&[delta(json!({"content": "x"}))]), Err(Failure::Interrupted));
        let mut only_done = reply();
        assert_eq!(only_done.event(b"[DONE]"), Ok(vec![]));
        assert_eq!(only_done.end(), Err(Failure::Interrupted));
        let mut done = reply();
        assert!(done.event(delta(json!({"content": "x"})).to_string().as_bytes()).is_ok());
        assert!(done.event(b" [DONE]").is_ok() && done.end().is_ok());
    }

    #[test]
    fn usage_that_the_server_does_not_tell_is_estimated() {
        let said = read(&[delta(json!({"content": "x"})), finish("stop")]).expect("it is a reply");
        let Said::End(end) = &said[1] else { panic!("{said:?}") };
        assert_eq!(end.usage, Usage { input: 10, output: 1, ..Usage::default() });
    }

    #[test]
    fn an_answer_that_is_not_streamed_is_a_reply_too() {
        let message = json!({"role": "assistant", "content": [{"type": "text", "text": "Hi"}], "tool_calls": null});
        let answer = json!({"choices": [{"index": 0, "message": message, "finish_reason": "length"}]});
        let said = reply().whole(answer.to_string().as_bytes()).expect("it is a reply");
        assert_eq!(said[0], text("Hi"));
        assert!(matches!(&said[1], Said::End(End { incomplete: Some(Incomplete::MaxOutputTokens), .. })));
    }

    #[test]
    fn what_is_no_completion_fails_the_reply() {
        let fails = |bytes: &[u8]| reply().event(bytes).expect_err("it is wrong");
        assert_eq!(fails(b"{not json"), Failure::Malformed("a chunk is no completion"));
        assert_eq!(
            fails(b"{\"choices\":[{\"delta\":{\"content\":\"\xff\"}}]}"),
            Failure::Malformed("a chunk is no completion")
        );
        assert_eq!(fails(b"{\"id\":1}"), Failure::Malformed("a chunk has no `choices`"));
        assert_eq!(fails(b"{\"choices\":[{}]}"), Failure::Malformed("a choice has no `delta`"));
        assert_eq!(fails(b"{\"error\":{\"message\":\"secret\"}}"), Failure::Reported);
        assert_eq!(fails(b"{\"error\":\"secret\",\"choices\":[]}"), Failure::Reported);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(chunks in proptest::collection::vec(
            "(\\{\"choices\":\\[\\{(\"delta\":\\{(\"content\":(\"x\"|1|null|\\[\\])|\"tool_calls\":\\[\\{\"index\":(0|1|-1)\\}\\])\\})?\\}\\]\\}|\\[DONE\\]|.{0,9})",
            0..6,
        )) {
            let mut reply = reply();
            let read = chunks.iter().try_for_each(|chunk| reply.event(chunk.as_bytes()).map(drop));
            if read.is_ok() { let _ = reply.end(); }
        }
    }
}
