//! The body of `POST /responses`: its schema, and what it says once it is checked.

use klatch_actors::request::OnBusy;
use klatch_protocol::{ConversationId, ResponseId};
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::field::{Field, Wrong};
use super::given::{Given, Input, read_input};
use super::options::{Metadata, Options, check_metadata, read_reasoning, read_text, read_tool_choice, read_tools};

#[derive(Deserialize, ToSchema)]
#[schema(example = json!({"model": "echo", "input": "Hello."}))]
pub struct CreateResponse {
    /// Names a responder: see `GET /models`.
    #[schema(value_type = String)]
    model: Option<String>,
    #[schema(value_type = Input)]
    input: Option<Value>,
    /// The id of a conversation, or an object with it. Excludes `previous_response_id`.
    #[schema(value_type = Option<NamedConversation>)]
    conversation: Option<Value>,
    /// Goes on after this response: in its conversation if it is the last one there, else in a fork.
    previous_response_id: Option<String>,
    instructions: Option<String>,
    stream: Option<bool>,
    background: Option<bool>,
    /// Whether the response can be retrieved and chained later; true unless said otherwise.
    store: Option<bool>,
    metadata: Option<Metadata>,
    #[schema(minimum = 1)]
    max_output_tokens: Option<u64>,
    #[schema(minimum = 1)]
    max_tool_calls: Option<u64>,
    #[schema(minimum = 0, maximum = 2)]
    temperature: Option<f64>,
    #[schema(minimum = 0, maximum = 1)]
    top_p: Option<f64>,
    #[schema(minimum = -2, maximum = 2)]
    presence_penalty: Option<f64>,
    #[schema(minimum = -2, maximum = 2)]
    frequency_penalty: Option<f64>,
    #[schema(minimum = 0, maximum = 20)]
    top_logprobs: Option<u64>,
    /// Function tools.
    #[schema(value_type = Option<Vec<Object>>)]
    tools: Option<Value>,
    /// `none`, `auto`, `required`, or an object that names a function or the tools allowed.
    tool_choice: Option<Value>,
    parallel_tool_calls: Option<bool>,
    #[schema(value_type = Option<Object>)]
    text: Option<Value>,
    #[schema(value_type = Option<Object>)]
    reasoning: Option<Value>,
    /// `auto` or `disabled`.
    truncation: Option<String>,
    safety_identifier: Option<String>,
    prompt_cache_key: Option<String>,
    /// What to do while another turn is open: `enqueue` (the default), `reject`, `interrupt` or `rollback`.
    on_busy: Option<String>,
    /// What a client that goes away does to its turn: `continue` (the default) or `cancel`.
    on_disconnect: Option<String>,
}

#[derive(ToSchema)]
#[serde(untagged)]
pub enum NamedConversation {
    Id(String),
    Object { id: String },
}

/// A request for a response, checked as far as it can be without looking anything up.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    pub model: String,
    pub input: Vec<Given>,
    pub place: Place,
    pub stream: bool,
    pub background: bool,
    pub store: bool,
    pub on_busy: OnBusy,
    pub cancel_on_disconnect: bool,
    pub options: Options,
}

/// Where the turn is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A conversation of its own.
    New,
    In(ConversationId),
    After(ResponseId),
}

impl CreateResponse {
    pub fn check(self) -> Result<Wanted, Wrong> {
        let model = Field::new("model", None);
        let wanted = Wanted {
            model: self.model.clone().ok_or_else(|| model.wrong("is required"))?,
            input: read_input(&Field::new("input", self.input.as_ref()))?,
            place: self.place()?,
            stream: self.stream.unwrap_or(false),
            background: self.background.unwrap_or(false),
            store: self.store.unwrap_or(true),
            on_busy: read_on_busy(self.on_busy.as_deref())?,
            cancel_on_disconnect: read_on_disconnect(self.on_disconnect.as_deref())?,
            options: self.options()?,
        };
        if wanted.background && !wanted.store {
            return Err(Field::new("background", None).wrong("needs `store`: who would come back for it?"));
        }
        Ok(wanted)
    }

    fn place(&self) -> Result<Place, Wrong> {
        let named = Field::new("conversation", self.conversation.as_ref());
        match (named.is_absent(), &self.previous_response_id) {
            (true, None) => Ok(Place::New),
            (false, Some(_)) => Err(named.wrong("excludes `previous_response_id`: send one of them")),
            (false, None) => {
                let id = if named.text().is_ok() { named } else { named.get("id") };
                let parsed = id.required_text()?.parse();
                parsed.map(Place::In).map_err(|error: klatch_protocol::IdError| id.wrong(error.to_string()))
            }
            (true, Some(previous)) => {
                let param = Field::new("previous_response_id", None);
                previous
                    .parse()
                    .map(Place::After)
                    .map_err(|error: klatch_protocol::IdError| param.wrong(error.to_string()))
            }
        }
    }

    fn options(self) -> Result<Options, Wrong> {
        let truncation = self.truncation.map(Value::from);
        Field::new("truncation", truncation.as_ref()).word(&["auto", "disabled"])?;
        let options = Options {
            instructions: self.instructions,
            temperature: self.temperature,
            top_p: self.top_p,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            top_logprobs: self.top_logprobs,
            max_output_tokens: self.max_output_tokens,
            max_tool_calls: self.max_tool_calls,
            tools: read_tools(&Field::new("tools", self.tools.as_ref()))?,
            tool_choice: read_tool_choice(&Field::new("tool_choice", self.tool_choice.as_ref()))?,
            parallel_tool_calls: self.parallel_tool_calls,
            text: read_text(&Field::new("text", self.text.as_ref()))?,
            reasoning: read_reasoning(&Field::new("reasoning", self.reasoning.as_ref()))?,
            truncation: truncation.and_then(|word| word.as_str().map(str::to_owned)),
            safety_identifier: self.safety_identifier,
            prompt_cache_key: self.prompt_cache_key,
            stop: Vec::new(),
            metadata: self.metadata.unwrap_or_default(),
        };
        options.check_ranges()?;
        check_metadata(&options.metadata)?;
        Ok(options)
    }
}

fn read_on_busy(word: Option<&str>) -> Result<OnBusy, Wrong> {
    match word {
        None | Some("enqueue") => Ok(OnBusy::Enqueue),
        Some("reject") => Ok(OnBusy::Reject),
        Some("interrupt") => Ok(OnBusy::Interrupt),
        Some("rollback") => Ok(OnBusy::Rollback),
        Some(_) => Err(Field::new("on_busy", None).wrong("must be enqueue, reject, interrupt or rollback")),
    }
}

fn read_on_disconnect(word: Option<&str>) -> Result<bool, Wrong> {
    match word {
        None | Some("continue") => Ok(false),
        Some("cancel") => Ok(true),
        Some(_) => Err(Field::new("on_disconnect", None).wrong("must be continue or cancel")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(body: Value) -> Result<Wanted, Wrong> {
        serde_json::from_value::<CreateResponse>(body).expect("right types").check()
    }

    fn wrong(extra: Value) -> String {
        let mut body = json!({"model": "echo", "input": "hi"});
        for (name, value) in extra.as_object().expect("an object") {
            body[name] = value.clone();
        }
        check(body).expect_err("wrong").param
    }

    #[test]
    fn the_least_request_has_defaults() {
        let wanted = check(json!({"model": "echo", "input": "hi", "shoe_size": 43})).expect("right");
        assert!(wanted.store && !wanted.stream && !wanted.background && !wanted.cancel_on_disconnect);
        assert_eq!((wanted.place, wanted.on_busy), (Place::New, OnBusy::Enqueue));
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(check(json!({"input": "hi"})).expect_err("no model").param, "model");
        assert_eq!(check(json!({"model": "echo"})).expect_err("no input").param, "input");
        assert_eq!(wrong(json!({"temperature": 2.1})), "temperature");
        assert_eq!(wrong(json!({"top_p": -0.1})), "top_p");
        assert_eq!(wrong(json!({"max_output_tokens": 0})), "max_output_tokens");
        assert_eq!(wrong(json!({"on_busy": "panic"})), "on_busy");
        assert_eq!(wrong(json!({"conversation": "nonsense"})), "conversation");
        assert_eq!(wrong(json!({"conversation": {"id": "nonsense"}})), "conversation.id");
        assert_eq!(wrong(json!({"previous_response_id": "nonsense"})), "previous_response_id");
        assert_eq!(wrong(json!({"tools": [{"type": "web_search"}]})), "tools[0].type");
        assert_eq!(wrong(json!({"text": {"format": {"type": "poem"}}})), "text.format.type");
    }

    #[test]
    fn a_conversation_and_a_previous_response_exclude_one_another() {
        let both = json!({
            "conversation": format!("conv_{}", "0".repeat(48)),
            "previous_response_id": format!("resp_{}", "0".repeat(48)),
        });
        assert_eq!(wrong(both), "conversation");
    }

    #[test]
    fn a_conversation_may_be_named_by_an_object() {
        let id = format!("conv_{}", "0".repeat(48));
        for conversation in [json!(id), json!({"id": id})] {
            let wanted = check(json!({"model": "echo", "input": "hi", "conversation": conversation})).expect("right");
            assert_eq!(wanted.place, Place::In(ConversationId([0; 16])));
        }
    }
}
