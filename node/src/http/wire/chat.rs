//! Chat completions: read into items and options, and written from what a responder says.

use klatch_protocol::event::Call;
use klatch_protocol::turn::{Incomplete, Usage};
use klatch_protocol::{Body, Part, Role, Status};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::field::{Field, Wrong};
use super::given::INPUT_ITEMS_MAX;
use super::options::{Options, at_least_one, read_format, read_function};

/// OpenAI's limit.
const STOPS_MAX: usize = 4;
const TOOLS_MAX: usize = 128;
const PARTS_MAX: usize = 1_000;

#[derive(Deserialize, ToSchema)]
#[schema(example = json!({"model": "echo", "messages": [{"role": "user", "content": "Hello."}]}))]
pub struct CreateChatCompletion {
    /// Names a responder: see `GET /models`.
    #[schema(value_type = String)]
    model: Option<String>,
    #[schema(value_type = Vec<ChatMessage>)]
    messages: Option<Value>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    #[schema(minimum = 1)]
    max_completion_tokens: Option<u64>,
    #[schema(minimum = 1)]
    max_tokens: Option<u64>,
    #[schema(minimum = 0, maximum = 2)]
    temperature: Option<f64>,
    #[schema(minimum = 0, maximum = 1)]
    top_p: Option<f64>,
    #[schema(minimum = -2, maximum = 2)]
    presence_penalty: Option<f64>,
    #[schema(minimum = -2, maximum = 2)]
    frequency_penalty: Option<f64>,
    /// Only 1.
    #[schema(minimum = 1, maximum = 1)]
    n: Option<u64>,
    /// A string, or up to four.
    stop: Option<Value>,
    #[schema(value_type = Option<Vec<Object>>)]
    tools: Option<Value>,
    tool_choice: Option<Value>,
    parallel_tool_calls: Option<bool>,
    #[schema(value_type = Option<Object>)]
    response_format: Option<Value>,
}

#[derive(Deserialize, ToSchema)]
pub struct StreamOptions {
    /// A last chunk with the usage.
    include_usage: Option<bool>,
}

#[derive(ToSchema)]
pub struct ChatMessage {
    /// `system`, `developer`, `user`, `assistant` or `tool`.
    pub role: String,
    /// A string, or a list of `text` and `image_url` parts.
    pub content: Option<Value>,
    #[schema(value_type = Option<Vec<Object>>)]
    pub tool_calls: Option<Value>,
    pub tool_call_id: Option<String>,
}

/// A chat, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Chat {
    pub model: String,
    pub messages: Vec<Body>,
    pub stream: bool,
    pub include_usage: bool,
    pub options: Options,
}

#[derive(Serialize, ToSchema)]
pub struct ChatCompletion {
    pub id: String,
    /// Always `chat.completion`.
    #[schema(value_type = String)]
    pub object: &'static str,
    pub created: u64,
    pub model: String,
    pub choices: Vec<Choice>,
    pub usage: ChatUsage,
}

#[derive(Serialize, ToSchema)]
pub struct Choice {
    pub index: u64,
    pub message: Answer,
    #[schema(required, value_type = Option<Object>)]
    pub logprobs: Option<Value>,
    #[schema(value_type = String)]
    pub finish_reason: &'static str,
}

#[derive(Serialize, ToSchema)]
pub struct Answer {
    /// Always `assistant`.
    #[schema(value_type = String)]
    pub role: &'static str,
    /// None where there are only calls.
    #[schema(required)]
    pub content: Option<String>,
    #[schema(required)]
    pub refusal: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Object>, required = false)]
    pub tool_calls: Vec<Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ChatUsage {
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    pub total_tokens: u64,
}

impl From<Usage> for ChatUsage {
    fn from(usage: Usage) -> Self {
        let total_tokens = usage.input.saturating_add(usage.output);
        Self { prompt_tokens: usage.input, completion_tokens: usage.output, total_tokens }
    }
}

impl CreateChatCompletion {
    pub fn check(self) -> Result<Chat, Wrong> {
        let model = self.model.clone().ok_or_else(|| Field::new("model", None).wrong("is required"))?;
        if self.n.is_some_and(|n| n != 1) {
            return Err(Field::new("n", None).wrong("must be 1"));
        }
        Ok(Chat {
            model,
            messages: read_messages(&Field::new("messages", self.messages.as_ref()))?,
            stream: self.stream.unwrap_or(false),
            include_usage: self.stream_options.as_ref().and_then(|options| options.include_usage).unwrap_or(false),
            options: self.options()?,
        })
    }

    fn options(self) -> Result<Options, Wrong> {
        let format = Field::new("response_format", self.response_format.as_ref());
        let text = match format.is_absent() {
            true => None,
            false => Some(json!({"format": read_format(&format, &format.get("json_schema"))?})),
        };
        for (param, number) in [("max_tokens", self.max_tokens), ("max_completion_tokens", self.max_completion_tokens)]
        {
            at_least_one(param, number)?;
        }
        let options = Options {
            temperature: self.temperature,
            top_p: self.top_p,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            max_output_tokens: self.max_completion_tokens.or(self.max_tokens),
            tools: read_tools(&Field::new("tools", self.tools.as_ref()))?,
            tool_choice: read_tool_choice(&Field::new("tool_choice", self.tool_choice.as_ref()))?,
            parallel_tool_calls: self.parallel_tool_calls,
            text,
            stop: read_stop(&Field::new("stop", self.stop.as_ref()))?,
            ..Options::default()
        };
        options.check_ranges()?;
        Ok(options)
    }
}

fn read_tools(tools: &Field<'_>) -> Result<Vec<Value>, Wrong> {
    let members = tools.list(TOOLS_MAX)?.unwrap_or_default();
    members.iter().map(|tool| read_function(tool, &tool.get("function"))).collect()
}

/// In the form of responses: `{"type": "function", "name"}`.
fn read_tool_choice(choice: &Field<'_>) -> Result<Option<Value>, Wrong> {
    match choice.value() {
        None => Ok(None),
        Some(Value::String(_)) => Ok(choice.word(&["none", "auto", "required"])?.map(Value::from)),
        Some(_) => {
            let name = choice.get("function").get("name").required_text()?;
            Ok(Some(json!({"type": "function", "name": name})))
        }
    }
}

fn read_stop(stop: &Field<'_>) -> Result<Vec<String>, Wrong> {
    if let Some(Value::String(text)) = stop.value() {
        return Ok(vec![text.clone()]);
    }
    let members = stop.list(STOPS_MAX)?.unwrap_or_default();
    members.iter().map(|text| text.required_text().map(str::to_owned)).collect()
}

fn read_messages(messages: &Field<'_>) -> Result<Vec<Body>, Wrong> {
    let members = messages.list(INPUT_ITEMS_MAX)?.unwrap_or_default();
    if members.is_empty() {
        return Err(messages.wrong("is required, and must have at least one message"));
    }
    let mut bodies = Vec::with_capacity(members.len());
    for message in &members {
        read_message(message, &mut bodies)?;
    }
    Ok(bodies)
}

fn read_message(message: &Field<'_>, bodies: &mut Vec<Body>) -> Result<(), Wrong> {
    let content = message.get("content");
    let role = message.get("role");
    let role = match role.word(&["system", "developer", "user", "assistant", "tool"])? {
        Some("system") => Role::System,
        Some("developer") => Role::Developer,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some(_) => {
            let call_id = message.get("tool_call_id").required_text()?.to_owned();
            let output = read_content(&content, Role::User)?.iter().filter_map(Part::text).collect();
            bodies.push(Body::FunctionCallOutput { call_id, output, status: Status::Completed });
            return Ok(());
        }
        None => return Err(role.wrong("is required")),
    };
    let calls = message.get("tool_calls").list(TOOLS_MAX)?.unwrap_or_default();
    if !content.is_absent() || calls.is_empty() {
        bodies.push(Body::Message { role, status: Status::Completed, content: read_content(&content, role)? });
    }
    for call in calls {
        let function = call.get("function");
        bodies.push(Body::FunctionCall {
            call_id: call.get("id").required_text()?.to_owned(),
            name: function.get("name").required_text()?.to_owned(),
            arguments: function.get("arguments").required_text()?.to_owned(),
            status: Status::Completed,
        });
    }
    Ok(())
}

fn read_content(content: &Field<'_>, role: Role) -> Result<Vec<Part>, Wrong> {
    let said = |text: &str| match role {
        Role::Assistant => Part::OutputText(text.to_owned()),
        Role::User | Role::System | Role::Developer => Part::InputText(text.to_owned()),
    };
    if let Some(Value::String(text)) = content.value() {
        return Ok(vec![said(text)]);
    }
    let parts = content.list(PARTS_MAX)?.ok_or_else(|| content.wrong("is required"))?;
    let read = |part: &Field<'_>| {
        let kind = part.get("type");
        match kind.required_text()? {
            "text" => Ok(said(part.get("text").required_text()?)),
            "refusal" => Ok(Part::Refusal(part.get("refusal").required_text()?.to_owned())),
            "image_url" => {
                let image = part.get("image_url");
                let detail = image.get("detail").word(&["auto", "low", "high"])?.unwrap_or("auto").to_owned();
                Ok(Part::InputImage { url: image.get("url").required_text()?.to_owned(), detail })
            }
            _ => Err(kind.wrong("must be text, image_url or refusal")),
        }
    };
    parts.iter().map(read).collect()
}

/// A call as chat completions write it.
pub fn tool_call(call: &Call) -> Value {
    json!({"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}})
}

pub fn finish_reason(incomplete: Option<Incomplete>, has_calls: bool) -> &'static str {
    match incomplete {
        Some(Incomplete::MaxOutputTokens) => "length",
        Some(Incomplete::ContentFilter) => "content_filter",
        Some(Incomplete::Interrupted | Incomplete::TakenOver) | None if has_calls => "tool_calls",
        Some(Incomplete::Interrupted | Incomplete::TakenOver) | None => "stop",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: Value) -> Result<Chat, Wrong> {
        serde_json::from_value::<CreateChatCompletion>(body).expect("right types").check()
    }

    fn messages(messages: Value) -> Result<Vec<Body>, Wrong> {
        check(json!({"model": "echo", "messages": messages})).map(|chat| chat.messages)
    }

    #[test]
    fn messages_become_items() {
        let read = messages(json!([
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "c", "content": "21"},
        ]))
        .expect("right");
        let status = Status::Completed;
        let call = Body::FunctionCall { call_id: "c".into(), name: "f".into(), arguments: "{}".into(), status };
        let output = Body::FunctionCallOutput { call_id: "c".into(), output: "21".into(), status };
        assert_eq!(read, [Body::user("hi"), call, output]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let param = |value| messages(value).expect_err("wrong").param;
        assert_eq!(param(json!([])), "messages");
        assert_eq!(param(json!([{"role": "user"}])), "messages[0].content");
        assert_eq!(param(json!([{"content": "hi"}])), "messages[0].role");
        assert_eq!(param(json!([{"role": "tool", "content": "hi"}])), "messages[0].tool_call_id");
        assert_eq!(param(json!([{"role": "user", "content": [{"type": "smell"}]}])), "messages[0].content[0].type");
        let many = json!({"model": "echo", "messages": [{"role": "user", "content": "hi"}], "n": 2});
        assert_eq!(check(many).expect_err("two answers").param, "n");
        let none = json!({"model": "echo", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 0});
        let wrong = check(none).expect_err("no answer");
        assert_eq!((wrong.param.as_str(), wrong.message.as_str()), ("max_tokens", "must be at least 1"));
    }

    #[test]
    fn tools_are_brought_into_the_form_of_responses() {
        let chat = check(json!({
            "model": "tools", "messages": [{"role": "user", "content": "hi"}],
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
            "tool_choice": {"type": "function", "function": {"name": "f"}},
            "stop": "x", "max_tokens": 7,
        }))
        .expect("right");
        assert_eq!(chat.options.tools[0]["name"], "f");
        assert_eq!(chat.options.tool_choice, Some(json!({"type": "function", "name": "f"})));
        assert_eq!((chat.options.stop, chat.options.max_output_tokens), (vec!["x".to_owned()], Some(7)));
    }
}
