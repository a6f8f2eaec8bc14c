//! The body of a chat completion out of an [`Ask`]. Pure.
//!
//! What the request says in the *Responses* form is said in the *chat* form; what has none there is left out. The
//! history is cut to what the model can read, and no call of a function is ever sent without its output, nor an output without
//! its call: model servers refuse the whole request then.

use std::collections::{HashMap, VecDeque};

use klatch_actors::responder::Ask;
use klatch_protocol::item::{Body, Part, Role};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// How to go on behind what was said already, when another node takes a turn over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CarryOn {
    /// The partial text is the last message, to be continued (`continue_final_message`): exact, where the server knows
    /// it. vLLM does; OpenAI refuses it.
    Prefill,
    /// The partial text is given with the instruction to go on. Works everywhere; the seam may show.
    #[default]
    Context,
    /// The turn ends as `incomplete`, with what was said.
    Incomplete,
}

/// The field that `max_output_tokens` becomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MaxTokensField {
    #[default]
    MaxTokens,
    MaxCompletionTokens,
}

/// What of the configuration shapes a body.
pub struct Shape<'a> {
    pub model: &'a str,
    pub carry_on: CarryOn,
    pub context_tokens: usize,
    pub max_tokens_field: MaxTokensField,
}

pub struct Request {
    pub body: Value,
    /// A rough count of what the model is given, for servers that tell no usage.
    pub input_tokens: usize,
}

/// English has about four bytes to a token, and most else has fewer, rarely under three.
const BYTES_PER_TOKEN: usize = 4;
/// Role, separators and ids around each message.
const TOKENS_PER_MESSAGE: usize = 4;
/// What vision models make of one image, whatever its URL weighs.
const TOKENS_PER_IMAGE: usize = 1_000;

const CARRY_ON: &str = "Your last message was cut off by a fault. Go on from its very last character as if there had been \
                        no break: repeat none of it, greet nobody, and do not mention the break.";

/// Fields that mean the same in both forms.
const SAME_IN_CHAT: [&str; 6] =
    ["temperature", "top_p", "presence_penalty", "frequency_penalty", "stop", "parallel_tool_calls"];

impl Request {
    pub fn new(shape: &Shape, ask: &Ask) -> Self {
        let wanted: Map<String, Value> = serde_json::from_str(&ask.request).unwrap_or_default();
        let (messages, input_tokens) = messages(shape, ask, &wanted);
        let mut body = Map::new();
        body.insert("model".into(), shape.model.into());
        body.insert("messages".into(), messages.into());
        body.insert("stream".into(), true.into());
        body.insert("stream_options".into(), json!({"include_usage": true}));
        body.extend(parameters(&wanted));
        body.extend(max_tokens(shape, ask, &wanted));
        if !ask.partial.is_empty() && shape.carry_on == CarryOn::Prefill {
            body.insert("continue_final_message".into(), true.into());
            body.insert("add_generation_prompt".into(), false.into());
        }
        Self { body: body.into(), input_tokens }
    }
}

fn parameters(wanted: &Map<String, Value>) -> Map<String, Value> {
    let mut chat: Map<String, Value> = Map::new();
    let present = |name: &&str| wanted.get(*name).filter(|value| !value.is_null()).cloned();
    chat.extend(SAME_IN_CHAT.iter().filter_map(|name| Some(((*name).to_owned(), present(name)?))));
    let tools: Vec<Value> =
        wanted.get("tools").and_then(Value::as_array).into_iter().flatten().filter_map(tool).collect();
    if tools.is_empty() {
        // Servers refuse it where there is nothing to call.
        chat.remove("parallel_tool_calls");
    } else {
        chat.extend(wanted.get("tool_choice").and_then(tool_choice).map(|choice| ("tool_choice".to_owned(), choice)));
        chat.insert("tools".into(), tools.into());
    }
    let format = wanted.get("text").and_then(|text| response_format(text.get("format")?));
    chat.extend(format.map(|format| ("response_format".to_owned(), format)));
    let effort =
        wanted.get("reasoning").and_then(|reasoning| reasoning.get("effort")).filter(|effort| effort.is_string());
    chat.extend(effort.map(|effort| ("reasoning_effort".to_owned(), effort.clone())));
    chat
}

/// What was said already counts against the limit; a model has to be allowed one token at least.
fn max_tokens(shape: &Shape, ask: &Ask, wanted: &Map<String, Value>) -> Option<(String, Value)> {
    let max = wanted.get("max_output_tokens")?.as_u64()?;
    let left = max.saturating_sub(tokens(ask.partial.len()) as u64).max(1);
    let field = match shape.max_tokens_field {
        MaxTokensField::MaxTokens => "max_tokens",
        MaxTokensField::MaxCompletionTokens => "max_completion_tokens",
    };
    Some((field.to_owned(), left.into()))
}

/// Functions only: the tools that OpenAI runs itself are unknown to other servers.
fn tool(tool: &Value) -> Option<Value> {
    (tool.get("type")? == "function").then_some(())?;
    let function = pick(tool, &["name", "description", "parameters", "strict"]);
    function.contains_key("name").then(|| json!({"type": "function", "function": function}))
}

fn tool_choice(choice: &Value) -> Option<Value> {
    match choice {
        Value::String(_) => Some(choice.clone()),
        _ if choice.get("type")? == "function" => {
            Some(json!({"type": "function", "function": {"name": choice.get("name")?}}))
        }
        _ => None,
    }
}

fn response_format(format: &Value) -> Option<Value> {
    match format.get("type")?.as_str()? {
        "json_object" => Some(json!({"type": "json_object"})),
        "json_schema" => {
            let schema = pick(format, &["name", "description", "schema", "strict"]);
            Some(json!({"type": "json_schema", "json_schema": schema}))
        }
        _ => None,
    }
}

fn pick(from: &Value, names: &[&str]) -> Map<String, Value> {
    let present = |name: &&str| Some(((*name).to_owned(), from.get(*name).filter(|value| !value.is_null())?.clone()));
    names.iter().filter_map(present).collect()
}

fn messages(shape: &Shape, ask: &Ask, wanted: &Map<String, Value>) -> (Vec<Value>, usize) {
    let instructions = wanted.get("instructions").and_then(Value::as_str).filter(|text| !text.is_empty());
    let tools = wanted.get("tools").map_or(0, |tools| tokens(tools.to_string().len()));
    let fixed = instructions.map_or(0, |text| tokens(text.len()))
        + tools
        + tokens(ask.partial.len())
        + ask.input.iter().map(|item| weight(&item.body)).sum::<usize>();
    let (thread, read) = Thread::cut(ask, shape.context_tokens.saturating_sub(fixed));
    let mut messages: Vec<Value> =
        instructions.map(|text| json!({"role": "system", "content": text})).into_iter().collect();
    messages.extend(thread.messages());
    if !ask.partial.is_empty() {
        messages.push(json!({"role": "assistant", "content": ask.partial}));
        if shape.carry_on == CarryOn::Context {
            messages.push(json!({"role": "user", "content": CARRY_ON}));
        }
    }
    (messages, fixed + read)
}

fn tokens(bytes: usize) -> usize {
    bytes.div_ceil(BYTES_PER_TOKEN)
}

fn weight(body: &Body) -> usize {
    let inside = match body {
        Body::Message { content, .. } => {
            content.iter().map(|part| part.text().map_or(TOKENS_PER_IMAGE, |text| tokens(text.len()))).sum()
        }
        Body::FunctionCall { name, arguments, .. } => tokens(name.len() + arguments.len()),
        Body::FunctionCallOutput { output, .. } => tokens(output.len()),
    };
    TOKENS_PER_MESSAGE + inside
}

/// History and input in one row, and what of it is sent.
struct Thread<'a> {
    bodies: Vec<&'a Body>,
    /// The input begins here; all of it is sent.
    input: usize,
    /// Nothing older is sent, but for calls that the input answers.
    first: usize,
    /// Of a call: where its output stands. Of an output: where its call stands.
    pairs: Vec<Option<usize>>,
}

impl<'a> Thread<'a> {
    /// As much of the newest history as fits `budget`, and how many tokens that is.
    fn cut(ask: &'a Ask, budget: usize) -> (Self, usize) {
        let older = ask.history.iter().map(|item| &*item.body);
        let bodies: Vec<&Body> = older.chain(ask.input.iter().map(|item| &*item.body)).collect();
        let (input, mut first, mut used) = (ask.history.len(), ask.history.len(), 0);
        while first > 0 && used + weight(bodies[first - 1]) <= budget {
            first -= 1;
            used += weight(bodies[first]);
        }
        let pairs = pair(&bodies);
        (Self { bodies, input, first, pairs }, used)
    }

    fn messages(&self) -> Vec<Value> {
        let mut messages = Vec::new();
        let mut calls = Vec::new();
        for (index, body) in self.bodies.iter().enumerate() {
            match body {
                Body::FunctionCall { .. } => calls.extend(self.sends_call(index).then_some(index)),
                Body::FunctionCallOutput { call_id, output, .. } => {
                    self.push_calls(&mut messages, &mut calls);
                    if index >= self.input && self.pairs[index].is_none() {
                        let text = format!("The function call {call_id} returned:\n{output}");
                        messages.push(json!({"role": "user", "content": text}));
                    }
                }
                Body::Message { role, content, .. } => {
                    self.push_calls(&mut messages, &mut calls);
                    messages.extend((index >= self.first).then(|| message(*role, content)).flatten());
                }
            }
        }
        self.push_calls(&mut messages, &mut calls);
        messages
    }

    fn sends_call(&self, call: usize) -> bool {
        self.pairs[call].is_some_and(|output| call >= self.first || output >= self.input)
    }

    /// One message with all calls that were made together, each one's output right behind it, wherever it stood.
    fn push_calls(&self, messages: &mut Vec<Value>, calls: &mut Vec<usize>) {
        if calls.is_empty() {
            return;
        }
        let made: Vec<Value> = calls.iter().filter_map(|call| call_json(self.bodies[*call])).collect();
        match messages.last_mut().filter(|last| last["role"] == "assistant" && last.get("tool_calls").is_none()) {
            Some(said_before) => said_before["tool_calls"] = made.into(),
            None => messages.push(json!({"role": "assistant", "content": null, "tool_calls": made})),
        }
        let outputs = calls.drain(..).filter_map(|call| self.pairs[call]);
        messages.extend(outputs.filter_map(|output| output_json(self.bodies[output])));
    }
}

/// Which output answers which call. Ids may come again in a long conversation: the oldest open call is answered.
fn pair(bodies: &[&Body]) -> Vec<Option<usize>> {
    let mut pairs = vec![None; bodies.len()];
    let mut open: HashMap<&str, VecDeque<usize>> = HashMap::new();
    for (index, body) in bodies.iter().enumerate() {
        match body {
            Body::FunctionCall { call_id, .. } => open.entry(call_id).or_default().push_back(index),
            Body::FunctionCallOutput { call_id, .. } => {
                if let Some(call) = open.get_mut(call_id.as_str()).and_then(VecDeque::pop_front) {
                    (pairs[call], pairs[index]) = (Some(index), Some(call));
                }
            }
            Body::Message { .. } => {}
        }
    }
    pairs
}

fn call_json(body: &Body) -> Option<Value> {
    let Body::FunctionCall { call_id, name, arguments, .. } = body else { return None };
    Some(json!({"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}))
}

fn output_json(body: &Body) -> Option<Value> {
    let Body::FunctionCallOutput { call_id, output, .. } = body else { return None };
    Some(json!({"role": "tool", "tool_call_id": call_id, "content": output}))
}

/// None for a message that says nothing, which some servers refuse.
fn message(role: Role, content: &[Part]) -> Option<Value> {
    let text: String = content.iter().filter_map(Part::text).collect();
    let has_images = content.iter().any(|part| matches!(part, Part::InputImage { .. }));
    let role = match role {
        Role::User if has_images => {
            let parts: Vec<Value> = content.iter().map(part).collect();
            return Some(json!({"role": "user", "content": parts}));
        }
        Role::User => "user",
        Role::Assistant => "assistant",
        // Known to OpenAI alone, which reads `system` as this.
        Role::System | Role::Developer => "system",
    };
    (!text.is_empty()).then(|| json!({"role": role, "content": text}))
}

fn part(part: &Part) -> Value {
    match part {
        Part::InputText(text) | Part::OutputText(text) | Part::Refusal(text) => json!({"type": "text", "text": text}),
        Part::InputImage { url, detail } => json!({"type": "image_url", "image_url": {"url": url, "detail": detail}}),
    }
}

#[cfg(test)]
mod tests {
    use klatch_protocol::item::Status;
    use proptest::prelude::*;

    use super::super::super::tests::{ask, item};
    use super::*;

    const SHAPE: Shape = Shape {
        model: "m",
        carry_on: CarryOn::Context,
        context_tokens: 1_000,
        max_tokens_field: MaxTokensField::MaxTokens,
    };

    fn said(role: Role, text: &str) -> Body {
        let part = if role == Role::Assistant { Part::OutputText(text.into()) } else { Part::InputText(text.into()) };
        Body::Message { role, status: Status::Completed, content: vec![part] }
    }

    fn call(id: &str) -> Body {
        let status = Status::Completed;
        Body::FunctionCall { call_id: id.into(), name: format!("f{id}"), arguments: "{}".into(), status }
    }

    fn output(id: &str) -> Body {
        Body::FunctionCallOutput { call_id: id.into(), output: format!("o{id}"), status: Status::Completed }
    }

    fn asked(history: Vec<Body>, input: Vec<Body>) -> Ask {
        let history = history.into_iter().map(|body| item(body).into()).collect();
        Ask { history, input: input.into_iter().map(item).collect(), ..ask("") }
    }

    /// A line for each message: `u:hello`, `a:text+fa+fb`, `t:a=oa`.
    fn lines(context_tokens: usize, ask: &Ask) -> Vec<String> {
        let body = Request::new(&Shape { context_tokens, ..SHAPE }, ask).body;
        let line = |message: &Value| {
            let role = &message["role"].as_str().expect("a role")[..1];
            let id = message["tool_call_id"].as_str().map(|id| format!("{id}=")).unwrap_or_default();
            let content = message["content"].as_str().unwrap_or_default();
            let calls = message["tool_calls"].as_array().into_iter().flatten();
            let calls: String =
                calls.map(|call| format!("+{}", call["function"]["name"].as_str().expect("a name"))).collect();
            format!("{role}:{id}{content}{calls}")
        };
        body["messages"].as_array().expect("messages").iter().map(line).collect()
    }

    fn request(fields: Value) -> Value {
        Request::new(&SHAPE, &Ask { request: fields.to_string().into(), ..ask("hello") }).body
    }

    #[test]
    fn the_simplest_body() {
        let body = request(
            json!({"temperature": null, "tools": [], "tool_choice": "auto", "text": {"format": {"type": "text"}}}),
        );
        let messages = json!([{"role": "user", "content": "hello"}]);
        let options = json!({"include_usage": true});
        assert_eq!(body, json!({"model": "m", "messages": messages, "stream": true, "stream_options": options}));
    }

    #[test]
    fn parameters_are_said_in_the_chat_form() {
        let schema = json!({"type": "object"});
        let body = request(json!({
            "instructions": "be brief", "temperature": 0.5, "top_p": 1, "max_output_tokens": 9, "stop": ["x"],
            "presence_penalty": 0.1, "frequency_penalty": 0.2, "reasoning": {"effort": "low"}, "parallel_tool_calls": false,
            "tools": [{"type": "function", "name": "f", "description": "d", "parameters": schema, "strict": true}, {"type": "web_search"}],
            "tool_choice": {"type": "function", "name": "f"}, "metadata": {"a": "b"}, "store": true,
            "text": {"format": {"type": "json_schema", "name": "s", "schema": schema, "strict": true}},
        }));
        let function = json!({"name": "f", "description": "d", "parameters": schema, "strict": true});
        let expected = json!({
            "model": "m", "stream": true, "stream_options": {"include_usage": true},
            "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}],
            "temperature": 0.5, "top_p": 1, "max_tokens": 9, "stop": ["x"], "presence_penalty": 0.1, "frequency_penalty": 0.2,
            "reasoning_effort": "low", "parallel_tool_calls": false,
            "tools": [{"type": "function", "function": function}],
            "tool_choice": {"type": "function", "function": {"name": "f"}},
            "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": schema, "strict": true}},
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn without_functions_nothing_is_said_about_calling_them() {
        let body =
            request(json!({"tools": [{"type": "web_search"}], "tool_choice": "required", "parallel_tool_calls": true}));
        assert!(["tools", "tool_choice", "parallel_tool_calls"].iter().all(|name| body.get(name).is_none()));
    }

    #[test]
    fn max_tokens_can_have_its_newer_name() {
        let shape = Shape { max_tokens_field: MaxTokensField::MaxCompletionTokens, ..SHAPE };
        let ask = Ask { request: r#"{"max_output_tokens":5}"#.into(), ..ask("x") };
        let body = Request::new(&shape, &ask).body;
        assert_eq!((body.get("max_completion_tokens"), body.get("max_tokens")), (Some(&json!(5)), None));
    }

    #[test]
    fn roles_images_and_empty_messages() {
        let image = Part::InputImage { url: "data:x".into(), detail: "low".into() };
        let status = Status::Completed;
        let looks = Body::Message { role: Role::User, status, content: vec![Part::InputText("see".into()), image] };
        let older = vec![said(Role::System, "s"), said(Role::Developer, "d"), said(Role::Assistant, "")];
        let shape = Shape { context_tokens: 2_000, ..SHAPE };
        let body = Request::new(&shape, &asked(older, vec![looks])).body;
        let parts = json!([{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "data:x", "detail": "low"}}]);
        let (first, second) = (json!({"role": "system", "content": "s"}), json!({"role": "system", "content": "d"}));
        assert_eq!(body["messages"], json!([first, second, {"role": "user", "content": parts}]).take());
    }

    #[test]
    fn calls_made_together_are_one_message_and_outputs_follow_it() {
        let history = vec![said(Role::User, "q"), said(Role::Assistant, "let me see"), call("a"), call("b")];
        let asked = asked(history, vec![output("b"), output("a")]);
        assert_eq!(lines(1_000, &asked), ["u:q", "a:let me see+fa+fb", "t:a=oa", "t:b=ob"]);
        let body = Request::new(&SHAPE, &asked).body;
        let function = json!({"name": "fa", "arguments": "{}"});
        assert_eq!(body["messages"][1]["tool_calls"][0], json!({"id": "a", "type": "function", "function": function}));
    }

    #[test]
    fn calls_made_one_after_the_other_stay_apart_even_with_one_id() {
        let history = vec![call("a"), output("a"), call("a"), output("a"), said(Role::Assistant, "done")];
        let lines = lines(1_000, &asked(history, vec![Body::user("q")]));
        assert_eq!(lines, ["a:+fa", "t:a=oa", "a:+fa", "t:a=oa", "a:done", "u:q"]);
    }

    #[test]
    fn a_call_without_output_and_an_output_without_call_are_not_sent_as_such() {
        let history = vec![call("a"), said(Role::User, "never mind"), output("old")];
        let lines = lines(1_000, &asked(history, vec![output("b")]));
        assert_eq!(lines, ["u:never mind", "u:The function call b returned:\nob"]);
    }

    #[test]
    fn the_oldest_history_is_cut_and_the_input_never() {
        let history = ["1111", "2222", "3333"].map(|text| said(Role::User, text)).to_vec();
        let asked = asked(history, vec![Body::user("4444")]);
        assert_eq!(lines(20, &asked), ["u:1111", "u:2222", "u:3333", "u:4444"]);
        assert_eq!(lines(19, &asked), ["u:2222", "u:3333", "u:4444"]);
        assert_eq!(lines(0, &asked), ["u:4444"]);
    }

    #[test]
    fn a_cut_parts_no_call_from_its_output() {
        let history = vec![call("a"), output("a"), said(Role::User, "x"), call("b")];
        let asked = asked(history, vec![output("b")]);
        assert_eq!(lines(1_000, &asked), ["a:+fa", "t:a=oa", "u:x", "a:+fb", "t:b=ob"]);
        assert_eq!(lines(22, &asked), ["u:x", "a:+fb", "t:b=ob"]);
        assert_eq!(lines(0, &asked), ["a:+fb", "t:b=ob"]);
    }

    #[test]
    fn a_partial_reply_is_gone_on_with() {
        let ask = Ask { partial: "12345678".into(), request: r#"{"max_output_tokens":5}"#.into(), ..ask("q") };
        let context = Request::new(&SHAPE, &ask).body;
        assert_eq!(context["messages"][1], json!({"role": "assistant", "content": "12345678"}));
        assert_eq!(context["messages"][2], json!({"role": "user", "content": CARRY_ON}));
        assert_eq!((context.get("continue_final_message"), &context["max_tokens"]), (None, &json!(3)));
        let prefill = Request::new(&Shape { carry_on: CarryOn::Prefill, ..SHAPE }, &ask).body;
        assert_eq!(prefill["messages"].as_array().map(Vec::len), Some(2));
        assert_eq!(
            (&prefill["continue_final_message"], &prefill["add_generation_prompt"]),
            (&json!(true), &json!(false))
        );
    }

    fn body() -> impl Strategy<Value = Body> {
        let id = || prop::sample::select(vec!["a", "b"]);
        prop_oneof![
            ".{0,9}".prop_map(Body::user),
            ".{0,9}".prop_map(|text| said(Role::Assistant, &text)),
            id().prop_map(call),
            id().prop_map(output),
        ]
    }

    proptest! {
        #[test]
        fn every_call_that_is_sent_is_followed_by_its_outputs_and_no_output_stands_elsewhere(
            history in proptest::collection::vec(body(), 0..12),
            input in proptest::collection::vec(body(), 0..4),
            context_tokens in 0usize..60,
        ) {
            let body = Request::new(&Shape { context_tokens, ..SHAPE }, &asked(history, input)).body;
            let mut owed: VecDeque<Value> = VecDeque::new();
            for message in body["messages"].as_array().expect("messages") {
                match message["role"].as_str() {
                    Some("tool") => {
                        let owed = owed.pop_front();
                        prop_assert_eq!(owed.as_ref(), message.get("tool_call_id"));
                    }
                    _ => prop_assert!(owed.is_empty()),
                }
                let calls = message.get("tool_calls").and_then(Value::as_array).into_iter().flatten();
                owed.extend(calls.map(|call| call["id"].clone()));
            }
            prop_assert!(owed.is_empty());
        }

        #[test]
        fn whatever_the_request_says_it_has_a_body(request in any::<String>(), field in "(tools|tool_choice|text|reasoning|instructions|max_output_tokens)") {
            for request in [request.clone(), json!({field: request}).to_string()] {
                let body = Request::new(&SHAPE, &Ask { request: request.into(), ..ask("x") }).body;
                prop_assert!(body["messages"].is_array());
            }
        }
    }
}
