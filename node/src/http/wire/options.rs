//! What a request says about how to answer: checked, brought into the one form in which it is stored, given to the
//! responder as JSON, and shown again in every rendering of the response.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::field::{Field, Wrong};

/// OpenAI's limits of metadata.
pub const METADATA_PAIRS_MAX: usize = 16;
pub const METADATA_KEY_CHARS_MAX: usize = 64;
pub const METADATA_VALUE_CHARS_MAX: usize = 512;
/// Tools of one request: OpenAI's limit.
const TOOLS_MAX: usize = 128;
/// Characters of a function's name.
const NAME_CHARS_MAX: usize = 256;

pub type Metadata = BTreeMap<String, String>;

/// Absent members have the response's defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presence_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frequency_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_logprobs: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tool_calls: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel_tool_calls: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub safety_identifier: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_cache_key: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: Metadata,
}

impl Options {
    /// As it is stored, and given to the responder.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("strings, numbers and JSON values can be written as JSON")
    }

    /// From the stored form; what cannot be read has its default, since an answer is worth more than its echo.
    pub fn from_json(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }

    pub fn check_ranges(&self) -> Result<(), Wrong> {
        within("temperature", self.temperature, 0.0, 2.0)?;
        within("top_p", self.top_p, 0.0, 1.0)?;
        within("presence_penalty", self.presence_penalty, -2.0, 2.0)?;
        within("frequency_penalty", self.frequency_penalty, -2.0, 2.0)?;
        within("top_logprobs", self.top_logprobs.map(|number| number as f64), 0.0, 20.0)?;
        at_least_one("max_output_tokens", self.max_output_tokens)?;
        at_least_one("max_tool_calls", self.max_tool_calls)
    }
}

pub fn within(param: &str, number: Option<f64>, low: f64, high: f64) -> Result<(), Wrong> {
    match number {
        Some(number) if !(low..=high).contains(&number) => {
            Err(Wrong { param: param.to_owned(), message: format!("must be between {low} and {high}") })
        }
        _ => Ok(()),
    }
}

pub fn at_least_one(param: &str, number: Option<u64>) -> Result<(), Wrong> {
    match number {
        Some(0) => Err(Wrong { param: param.to_owned(), message: "must be at least 1".to_owned() }),
        _ => Ok(()),
    }
}

pub fn check_metadata(metadata: &Metadata) -> Result<(), Wrong> {
    let wrong = |param: String, message: String| Err(Wrong { param, message });
    if metadata.len() > METADATA_PAIRS_MAX {
        return wrong("metadata".to_owned(), format!("must have at most {METADATA_PAIRS_MAX} pairs"));
    }
    for (key, value) in metadata {
        if key.chars().count() > METADATA_KEY_CHARS_MAX {
            return wrong(
                "metadata".to_owned(),
                format!("a key must have at most {METADATA_KEY_CHARS_MAX} characters"),
            );
        }
        if value.chars().count() > METADATA_VALUE_CHARS_MAX {
            let message = format!("must have at most {METADATA_VALUE_CHARS_MAX} characters");
            return wrong(format!("metadata.{key}"), message);
        }
    }
    Ok(())
}

/// Function tools, each with all its members: strict readers of the response insist on them.
pub fn read_tools(tools: &Field<'_>) -> Result<Vec<Value>, Wrong> {
    let members = tools.list(TOOLS_MAX)?.unwrap_or_default();
    members.iter().map(|tool| read_function(tool, tool)).collect()
}

/// A tool whose description stands in `function`: itself here, a member of it in chat completions.
pub fn read_function(tool: &Field<'_>, function: &Field<'_>) -> Result<Value, Wrong> {
    if tool.object()?.is_none() {
        return Err(tool.wrong("must be an object"));
    }
    let kind = tool.get("type");
    if kind.required_text()? != "function" {
        return Err(kind.wrong("must be function: there are no built-in tools here"));
    }
    Ok(json!({
        "type": "function",
        "name": function.get("name").sized_text(1..=NAME_CHARS_MAX)?,
        "description": function.get("description").text()?,
        "parameters": function.get("parameters").object()?,
        "strict": function.get("strict").flag()?,
    }))
}

pub fn read_tool_choice(choice: &Field<'_>) -> Result<Option<Value>, Wrong> {
    match choice.value() {
        None => Ok(None),
        Some(Value::String(_)) => Ok(choice.word(&["none", "auto", "required"])?.map(Value::from)),
        Some(_) => match choice.get("type").required_text()? {
            "function" => Ok(Some(json!({
                "type": "function",
                "name": choice.get("name").sized_text(1..=NAME_CHARS_MAX)?,
            }))),
            "allowed_tools" => read_allowed_tools(choice).map(Some),
            _ => Err(choice.get("type").wrong("must be function or allowed_tools")),
        },
    }
}

fn read_allowed_tools(choice: &Field<'_>) -> Result<Value, Wrong> {
    let mut allowed = Vec::new();
    for tool in choice.get("tools").list(TOOLS_MAX)?.unwrap_or_default() {
        allowed.push(json!({"type": "function", "name": tool.get("name").sized_text(1..=NAME_CHARS_MAX)?}));
    }
    let mode = choice.get("mode").word(&["auto", "required"])?.unwrap_or("auto");
    Ok(json!({"type": "allowed_tools", "mode": mode, "tools": allowed}))
}

/// `text`: the format of the answer, with all its members, and how wordy it may be.
pub fn read_text(text: &Field<'_>) -> Result<Option<Value>, Wrong> {
    if text.object()?.is_none() {
        return Ok(None);
    }
    let mut shown = json!({"format": read_format(&text.get("format"), &text.get("format"))?});
    if let Some(verbosity) = text.get("verbosity").word(&["low", "medium", "high"])? {
        shown["verbosity"] = verbosity.into();
    }
    Ok(Some(shown))
}

/// A format whose schema stands in `described`: itself here, a member of it in chat completions.
pub fn read_format(format: &Field<'_>, described: &Field<'_>) -> Result<Value, Wrong> {
    if format.object()?.is_none() {
        return Ok(json!({"type": "text"}));
    }
    let kind = format.get("type").word(&["text", "json_object", "json_schema"])?;
    match kind.ok_or_else(|| format.get("type").wrong("is required"))? {
        "json_schema" => {
            let schema = described.get("schema");
            Ok(json!({
                "type": "json_schema",
                "name": described.get("name").sized_text(1..=NAME_CHARS_MAX)?,
                "description": described.get("description").text()?,
                "schema": schema.object()?.ok_or_else(|| schema.wrong("is required"))?,
                "strict": described.get("strict").flag()?,
            }))
        }
        plain => Ok(json!({"type": plain})),
    }
}

pub fn read_reasoning(reasoning: &Field<'_>) -> Result<Option<Value>, Wrong> {
    if reasoning.object()?.is_none() {
        return Ok(None);
    }
    let efforts = ["none", "minimal", "low", "medium", "high", "xhigh", "max"];
    Ok(Some(json!({
        "effort": reasoning.get("effort").word(&efforts)?,
        "summary": reasoning.get("summary").word(&["auto", "concise", "detailed"])?,
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(value: &Value) -> Field<'_> {
        Field::new("x", Some(value))
    }

    #[test]
    fn metadata_at_its_limits_is_fine_and_one_more_is_not() {
        let pairs = |count: usize| (0..count).map(|n| (n.to_string(), String::new())).collect::<Metadata>();
        assert!(check_metadata(&pairs(16)).is_ok());
        assert!(check_metadata(&pairs(17)).is_err());
        let pair = |key: usize, value: usize| Metadata::from([("k".repeat(key), "v".repeat(value))]);
        assert!(check_metadata(&pair(64, 512)).is_ok());
        assert!(check_metadata(&pair(65, 0)).is_err());
        assert!(check_metadata(&pair(1, 513)).is_err());
    }

    #[test]
    fn a_tool_is_shown_with_all_its_members() {
        let tools = json!([{"type": "function", "name": "nothing"}]);
        let shown = read_tools(&field(&tools)).expect("right");
        let whole =
            json!({"type": "function", "name": "nothing", "description": null, "parameters": null, "strict": null});
        assert_eq!(shown, [whole]);
    }

    #[test]
    fn reasoning_and_text_are_filled_out() {
        let asked = json!({"effort": "low"});
        assert_eq!(read_reasoning(&field(&asked)), Ok(Some(json!({"effort": "low", "summary": null}))));
        let asked = json!({"verbosity": "low"});
        assert_eq!(read_text(&field(&asked)), Ok(Some(json!({"format": {"type": "text"}, "verbosity": "low"}))));
    }

    #[test]
    fn what_is_stored_is_read_again() {
        let options = Options { temperature: Some(0.5), stop: vec!["x".into()], ..Options::default() };
        assert_eq!(Options::from_json(&options.to_json()), options);
        assert_eq!(Options::from_json("{}"), Options::default());
    }
}
