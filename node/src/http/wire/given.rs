//! Items as clients send them: a string, the easy form of a message, whole items, references. Read into the stored
//! form, each with the path that names it in an error.
//!
//! Does not look anything up: whether an id is known is decided in `inputs`.

use klatch_protocol::{Body, Part, Role, Status};
use utoipa::ToSchema;

use super::field::{Field, Wrong};

/// Items of one input. An agent sends its whole history again and again; a body of 1 MiB holds about as many.
pub const INPUT_ITEMS_MAX: usize = 2_000;
/// Items added to a conversation by one call: OpenAI's limit.
pub const ADDED_ITEMS_MAX: usize = 20;
/// Parts of one message; nobody says a sentence in more.
const PARTS_MAX: usize = 1_000;
/// Characters of an id that a client makes up.
const ID_CHARS_MAX: usize = 128;
/// Characters of a function's name and of a call's id.
const NAME_CHARS_MAX: usize = 256;

/// One item of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Given {
    /// Its path in the body.
    pub param: String,
    pub id: Option<String>,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq)]
pub enum What {
    Body(Body),
    /// Another item, by the id.
    Reference,
}

/// The input of a response: one user message as a string, or a list of items.
#[derive(ToSchema)]
#[serde(untagged)]
pub enum Input {
    Text(String),
    Items(Vec<InputItem>),
}

/// A message (`type` may be left out), `function_call`, `function_call_output` or `item_reference`; `reasoning` items
/// are accepted and ignored.
#[derive(ToSchema)]
pub struct InputItem {
    /// `message`, `function_call`, `function_call_output`, `item_reference` or `reasoning`.
    pub r#type: Option<String>,
    /// The same id with the same content a second time is ignored.
    pub id: Option<String>,
    /// Of a message: `user`, `assistant`, `system` or `developer`.
    pub role: Option<String>,
    /// Of a message: a string, or a list of `input_text`, `output_text`, `refusal` and `input_image` parts.
    #[schema(value_type = Option<Content>)]
    pub content: Option<Content>,
    pub status: Option<String>,
    pub call_id: Option<String>,
    pub name: Option<String>,
    pub arguments: Option<String>,
    /// Of a `function_call_output`: a string, or a list of parts.
    #[schema(value_type = Option<Content>)]
    pub output: Option<Content>,
}

#[derive(ToSchema)]
#[serde(untagged)]
pub enum Content {
    Text(String),
    #[schema(value_type = Vec<Object>)]
    Parts(Vec<serde_json::Value>),
}

/// The input of a response.
pub fn read_input(input: &Field<'_>) -> Result<Vec<Given>, Wrong> {
    if let Some(serde_json::Value::String(text)) = input.value() {
        let what = What::Body(Body::user(text));
        return Ok(vec![Given { param: input.path().to_owned(), id: None, what }]);
    }
    if !matches!(input.value(), Some(serde_json::Value::Array(_))) {
        return Err(input.wrong("is required, and must be a string or a list of items"));
    }
    let items = read_items(input, INPUT_ITEMS_MAX)?;
    if items.is_empty() {
        return Err(input.wrong("must have at least one item"));
    }
    Ok(items)
}

/// A list of items; `reasoning` items are left out, since they say nothing that a responder here could use.
pub fn read_items(list: &Field<'_>, items_max: usize) -> Result<Vec<Given>, Wrong> {
    let members = list.list(items_max)?.unwrap_or_default();
    members.iter().filter_map(|item| read_item(item).transpose()).collect()
}

fn read_item(item: &Field<'_>) -> Result<Option<Given>, Wrong> {
    if item.object()?.is_none() {
        return Err(item.wrong("must be an object"));
    }
    let kind = item.get("type");
    let implied =
        if item.get("role").is_absent() && !item.get("id").is_absent() { "item_reference" } else { "message" };
    let what = match kind.text()?.unwrap_or(implied) {
        "message" => What::Body(read_message(item)?),
        "function_call" => What::Body(read_call(item)?),
        "function_call_output" => What::Body(read_call_output(item)?),
        "item_reference" => What::Reference,
        "reasoning" => return Ok(None),
        _ => {
            let known = "message, function_call, function_call_output, item_reference or reasoning";
            return Err(kind.wrong(format!("must be {known}")));
        }
    };
    let id = item.get("id");
    let id = match (id.is_absent(), &what) {
        (true, What::Body(_)) => None,
        _ => Some(id.sized_text(1..=ID_CHARS_MAX)?.to_owned()),
    };
    Ok(Some(Given { param: item.path().to_owned(), id, what }))
}

fn read_message(item: &Field<'_>) -> Result<Body, Wrong> {
    let role = item.get("role");
    let role = match role.word(&["user", "assistant", "system", "developer"])? {
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some("system") => Role::System,
        Some(_) => Role::Developer,
        None => return Err(role.wrong("is required: user, assistant, system or developer")),
    };
    Ok(Body::Message { role, status: read_status(item)?, content: read_content(&item.get("content"), role)? })
}

fn read_content(content: &Field<'_>, role: Role) -> Result<Vec<Part>, Wrong> {
    match content.value() {
        Some(serde_json::Value::String(text)) => Ok(vec![said_by(role, text)]),
        Some(serde_json::Value::Array(_)) => {
            let parts = content.list(PARTS_MAX)?.unwrap_or_default();
            parts.iter().map(|part| read_part(part, role)).collect()
        }
        _ => Err(content.wrong("is required, and must be a string or a list of parts")),
    }
}

fn read_part(part: &Field<'_>, role: Role) -> Result<Part, Wrong> {
    if part.object()?.is_none() {
        return Err(part.wrong("must be an object"));
    }
    let kind = part.get("type");
    match kind.required_text()? {
        "input_text" | "output_text" | "text" => Ok(said_by(role, part.get("text").required_text()?)),
        "refusal" => Ok(Part::Refusal(part.get("refusal").required_text()?.to_owned())),
        "input_image" => {
            let url = part.get("image_url").required_text()?.to_owned();
            let detail = part.get("detail").word(&["auto", "low", "high", "original"])?.unwrap_or("auto");
            Ok(Part::InputImage { url, detail: detail.to_owned() })
        }
        _ => Err(kind.wrong("must be input_text, output_text, refusal or input_image")),
    }
}

/// The kind of a text part follows from who said it, whatever the client called it: strict readers insist.
fn said_by(role: Role, text: &str) -> Part {
    match role {
        Role::Assistant => Part::OutputText(text.to_owned()),
        Role::User | Role::System | Role::Developer => Part::InputText(text.to_owned()),
    }
}

fn read_call(item: &Field<'_>) -> Result<Body, Wrong> {
    Ok(Body::FunctionCall {
        call_id: item.get("call_id").sized_text(1..=NAME_CHARS_MAX)?.to_owned(),
        name: item.get("name").sized_text(1..=NAME_CHARS_MAX)?.to_owned(),
        arguments: item.get("arguments").required_text()?.to_owned(),
        status: read_status(item)?,
    })
}

fn read_call_output(item: &Field<'_>) -> Result<Body, Wrong> {
    let output = item.get("output");
    let text = match output.value() {
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(serde_json::Value::Array(_)) => read_output_parts(&output)?,
        _ => return Err(output.wrong("is required, and must be a string or a list of parts")),
    };
    Ok(Body::FunctionCallOutput {
        call_id: item.get("call_id").sized_text(1..=NAME_CHARS_MAX)?.to_owned(),
        output: text,
        status: read_status(item)?,
    })
}

/// What is stored is text: the parts' texts joined, or, where there is more than text, the whole list as JSON.
fn read_output_parts(output: &Field<'_>) -> Result<String, Wrong> {
    let mut texts = Vec::new();
    let parts = output.list(PARTS_MAX)?.unwrap_or_default();
    for part in &parts {
        match part.get("type").word(&["input_text", "output_text", "text", "input_image", "input_file"])? {
            Some("input_text" | "output_text" | "text") => texts.push(part.get("text").required_text()?),
            Some(_) => {}
            None => return Err(part.get("type").wrong("is required")),
        }
    }
    match output.value() {
        Some(whole) if texts.len() < parts.len() => Ok(whole.to_string()),
        _ => Ok(texts.join("\n")),
    }
}

fn read_status(item: &Field<'_>) -> Result<Status, Wrong> {
    Ok(match item.get("status").word(&["completed", "incomplete", "in_progress"])? {
        Some("incomplete") => Status::Incomplete,
        Some("in_progress") => Status::InProgress,
        _ => Status::Completed,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn read(input: &Value) -> Result<Vec<Given>, Wrong> {
        read_input(&Field::new("input", Some(input)))
    }

    fn bodies(input: Value) -> Vec<Body> {
        let given = read(&input).expect("right");
        given
            .into_iter()
            .filter_map(|given| match given.what {
                What::Body(body) => Some(body),
                What::Reference => None,
            })
            .collect()
    }

    fn param(input: Value) -> String {
        read(&input).expect_err("wrong").param
    }

    #[test]
    fn a_string_is_what_the_user_says() {
        assert_eq!(bodies(json!("hi")), [Body::user("hi")]);
        assert_eq!(bodies(json!([{"role": "user", "content": "hi"}])), [Body::user("hi")]);
    }

    #[test]
    fn the_kind_of_a_part_follows_its_role() {
        let content = json!([{"type": "text", "text": "hi"}]);
        let [Body::Message { content: said, .. }] = &bodies(json!([{"role": "assistant", "content": content}]))[..]
        else {
            panic!("one message")
        };
        assert_eq!(said[..], [Part::OutputText("hi".into())]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(param(json!(7)), "input");
        assert_eq!(param(json!([])), "input");
        assert_eq!(param(json!(["hi"])), "input[0]");
        assert_eq!(param(json!([{"type": "riddle"}])), "input[0].type");
        assert_eq!(param(json!([{"role": "user"}])), "input[0].content");
        assert_eq!(param(json!([{"role": "king", "content": "hi"}])), "input[0].role");
        let part = json!({"role": "user", "content": [{"type": "smell"}]});
        assert_eq!(param(json!([{"role": "user", "content": "a"}, part])), "input[1].content[0].type");
        assert_eq!(param(json!([{"type": "function_call_output", "output": "x"}])), "input[0].call_id");
        assert_eq!(param(json!([{"type": "item_reference"}])), "input[0].id");
    }

    #[test]
    fn reasoning_is_accepted_and_left_out() {
        assert_eq!(bodies(json!([{"type": "reasoning", "summary": []}, {"role": "user", "content": "hi"}])).len(), 1);
    }

    #[test]
    fn the_output_of_a_call_may_be_parts() {
        let output = |output: Value| {
            let call = json!([{"type": "function_call_output", "call_id": "c", "output": output}]);
            match bodies(call).pop() {
                Some(Body::FunctionCallOutput { output, .. }) => output,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(output(json!([{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}])), "a\nb");
        assert!(output(json!([{"type": "input_image", "image_url": "x"}])).contains("input_image"));
    }

    #[test]
    fn an_image_keeps_its_address() {
        let part = json!({"type": "input_image", "image_url": "data:x"});
        let [Body::Message { content, .. }] = &bodies(json!([{"role": "user", "content": [part]}]))[..] else {
            panic!("one message")
        };
        assert_eq!(content[..], [Part::InputImage { url: "data:x".into(), detail: "auto".into() }]);
    }

    /// JSON that looks a little like items, so that the reading gets far.
    fn garbage() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "\\PC{0,8}".prop_map(Value::from),
            proptest::sample::select(vec![
                "message",
                "user",
                "assistant",
                "function_call",
                "input_text",
                "input_image"
            ])
            .prop_map(Value::from),
        ];
        let key = proptest::sample::select(vec![
            "type",
            "role",
            "content",
            "id",
            "text",
            "call_id",
            "name",
            "arguments",
            "output",
            "status",
            "image_url",
        ]);
        leaf.prop_recursive(4, 64, 8, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::hash_map(key.clone().prop_map(str::to_owned), inner, 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn garbage_is_refused_by_name_or_read(input in garbage()) {
            if let Err(wrong) = read(&input) {
                prop_assert!(wrong.param.starts_with("input"), "{}", wrong.param);
                prop_assert!(!wrong.message.is_empty());
            }
        }
    }
}
