//! A place in a JSON value that knows its path, so that whatever is wrong there is named: `input[2].content[0].type`.
//!
//! For the parts of requests that may have several shapes; fixed shapes are read by serde. `null` counts as absent,
//! as the SDKs send it.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

/// A field and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    pub param: String,
    pub message: String,
}

#[derive(Clone, Debug)]
pub struct Field<'a> {
    path: Cow<'a, str>,
    value: Option<&'a Value>,
}

impl<'a> Field<'a> {
    pub fn new(path: impl Into<Cow<'a, str>>, value: Option<&'a Value>) -> Self {
        Self { path: path.into(), value: value.filter(|value| !value.is_null()) }
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn value(&self) -> Option<&'a Value> {
        self.value
    }

    pub fn is_absent(&self) -> bool {
        self.value.is_none()
    }

    /// A member of this object; absent where this is none.
    pub fn get(&self, name: &str) -> Field<'a> {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        Field::new(path, self.value.and_then(|value| value.get(name)))
    }

    pub fn wrong(&self, message: impl Into<String>) -> Wrong {
        Wrong { param: self.path.clone().into_owned(), message: message.into() }
    }

    pub fn text(&self) -> Result<Option<&'a str>, Wrong> {
        match self.value {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong("must be a string")),
        }
    }

    pub fn required_text(&self) -> Result<&'a str, Wrong> {
        self.text()?.ok_or_else(|| self.wrong("is required, and must be a string"))
    }

    /// A text of so many characters.
    pub fn sized_text(&self, characters: RangeInclusive<usize>) -> Result<&'a str, Wrong> {
        let text = self.required_text()?;
        if characters.contains(&text.chars().count()) {
            return Ok(text);
        }
        Err(self.wrong(format!("must have {} to {} characters", characters.start(), characters.end())))
    }

    pub fn flag(&self) -> Result<Option<bool>, Wrong> {
        match self.value {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(self.wrong("must be true or false")),
        }
    }

    pub fn object(&self) -> Result<Option<&'a Map<String, Value>>, Wrong> {
        match self.value {
            None => Ok(None),
            Some(Value::Object(members)) => Ok(Some(members)),
            Some(_) => Err(self.wrong("must be an object")),
        }
    }

    /// The members of a list.
    pub fn list(&self, length_max: usize) -> Result<Option<Vec<Field<'a>>>, Wrong> {
        let members = match self.value {
            None => return Ok(None),
            Some(Value::Array(members)) => members,
            Some(_) => return Err(self.wrong("must be a list")),
        };
        if members.len() > length_max {
            return Err(self.wrong(format!("must have at most {length_max} members; it has {}", members.len())));
        }
        let member = |(n, value): (usize, &'a Value)| Field {
            path: format!("{}[{n}]", self.path).into(),
            value: Some(value).filter(|value| !value.is_null()),
        };
        Ok(Some(members.iter().enumerate().map(member).collect()))
    }

    /// One of the words that are allowed here.
    pub fn word(&self, allowed: &[&'static str]) -> Result<Option<&'static str>, Wrong> {
        let Some(text) = self.text()? else { return Ok(None) };
        let found = allowed.iter().find(|word| **word == text);
        found.map(|word| Some(*word)).ok_or_else(|| self.wrong(format!("must be one of: {}", allowed.join(", "))))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_wrong_field_is_named_by_its_path() {
        let value = json!({"content": [{"type": "input_text"}, {"type": 7}]});
        let content = Field::new("input[2]", Some(&value)).get("content").list(10).expect("a list").expect("there");
        let wrong = content[1].get("type").required_text().expect_err("a number");
        assert_eq!(wrong.param, "input[2].content[1].type");
    }

    #[test]
    fn null_is_absent() {
        let value = json!({"a": null});
        assert!(Field::new("", Some(&value)).get("a").is_absent());
    }

    #[test]
    fn a_list_at_its_limit_is_fine_and_one_more_is_not() {
        let value = json!([1, 2]);
        assert!(Field::new("x", Some(&value)).list(2).is_ok());
        assert!(Field::new("x", Some(&value)).list(1).is_err());
    }
}
