//! What answers: the responders that a configuration names, and the two that are always there.
//!
//! [`build`] is called once, when the node starts; it refuses what could only fail later. Responders keep nothing of a
//! conversation: what they have to remember travels in `End::memory`.

pub mod echo;
pub mod eliza;
pub mod eliza_script;
pub mod openai;
mod pieces;

use std::collections::BTreeMap;
use std::sync::Arc;

use klatch_actors::Responder;
use klatch_actors::responder::Responders;
use serde::{Deserialize, Serialize};

use self::echo::{Echo, EchoOptions};
use self::eliza::{BUILT_IN_SCRIPT, Eliza, ElizaOptions};
use self::eliza_script::{Script, ScriptError};
use self::openai::{ApiKey, OpenAi, OpenAiOptions};

/// Answers where a request names no model.
pub const DEFAULT_MODEL: &str = "eliza";

/// One `[[responder]]` of the configuration. `kind` says which; each kind has its own keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum ResponderOptions {
    /// A bot that needs nothing else.
    Eliza(ElizaOptions),
    /// For tests and load.
    Echo(EchoOptions),
    /// vLLM, Ollama, llama.cpp, OpenAI and all that speak `/v1/chat/completions` with streaming.
    OpenAi(Box<OpenAiOptions>),
}

impl ResponderOptions {
    pub fn name(&self) -> &str {
        match self {
            ResponderOptions::Eliza(options) => &options.name,
            ResponderOptions::Echo(options) => &options.name,
            ResponderOptions::OpenAi(options) => &options.name,
        }
    }

    fn fallback(&self) -> Option<&str> {
        match self {
            ResponderOptions::OpenAi(options) => options.fallback.as_deref(),
            ResponderOptions::Eliza(_) | ResponderOptions::Echo(_) => None,
        }
    }
}

/// A configuration that is refused: it names the responder, and what would be right.
#[derive(Debug, thiserror::Error)]
pub enum ResponderConfigError {
    #[error("a responder has an empty `name`: requests name it as their `model`")]
    NameEmpty,
    #[error("two responders are named `{0}`: names must differ")]
    NameTwice(String),
    #[error("responder `{responder}`: there is no responder `{fallback}` to fall back to")]
    FallbackMissing { responder: String, fallback: String },
    #[error("responder `{0}`: its chain of fallbacks leads back to it")]
    FallbackCircle(String),
    #[error("responder `{responder}`: the environment variable `{variable}` (its `api_key_env`) is not set, or empty")]
    ApiKeyMissing { responder: String, variable: String },
    #[error("responder `{responder}`: the value of `{variable}` (its `api_key_env`) cannot be sent in a header")]
    ApiKeyUnfit { responder: String, variable: String },
    #[error("responder `{responder}`: `{key}` {must}")]
    Value { responder: String, key: &'static str, must: &'static str },
    #[error("responder `{responder}`: the script {path} cannot be read")]
    ScriptUnreadable { responder: String, path: String, source: std::io::Error },
    #[error("responder `{responder}`: the script is wrong")]
    Script { responder: String, source: ScriptError },
    #[error("responder `{responder}`: no HTTP client can be made")]
    Client { responder: String, source: reqwest::Error },
}

/// The responders of a configuration, with `eliza` and `echo`, which are there unless the configuration has its own.
/// API keys are read from the environment here, once.
pub fn build(options: &[ResponderOptions]) -> Result<Responders, ResponderConfigError> {
    build_with(options, |variable| std::env::var(variable).ok())
}

/// [`build`] in an environment of the caller's own.
pub fn build_with(
    options: &[ResponderOptions],
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Responders, ResponderConfigError> {
    let options = by_name(options)?;
    for (name, own) in &options {
        check_fallbacks(name, own, &options)?;
    }
    let mut built = Responders::new();
    while built.len() < options.len() {
        // No chain of fallbacks is a circle, so each round builds one at least.
        for (name, own) in &options {
            let fallback = own.fallback().map(|fallback| built.get(fallback).cloned());
            if !built.contains_key(*name) && !matches!(fallback, Some(None)) {
                built.insert((*name).to_owned(), build_one(own, fallback.flatten(), &variable)?);
            }
        }
    }
    Ok(built)
}

fn by_name(options: &[ResponderOptions]) -> Result<BTreeMap<&str, ResponderOptions>, ResponderConfigError> {
    let mut named = BTreeMap::new();
    for own in options {
        if own.name().trim().is_empty() {
            return Err(ResponderConfigError::NameEmpty);
        }
        if named.insert(own.name(), own.clone()).is_some() {
            return Err(ResponderConfigError::NameTwice(own.name().to_owned()));
        }
    }
    named.entry("eliza").or_insert_with(|| ResponderOptions::Eliza(ElizaOptions::named("eliza")));
    named.entry("echo").or_insert_with(|| ResponderOptions::Echo(EchoOptions::named("echo")));
    Ok(named)
}

fn check_fallbacks<'a>(
    name: &str,
    mut own: &'a ResponderOptions,
    options: &'a BTreeMap<&str, ResponderOptions>,
) -> Result<(), ResponderConfigError> {
    for _ in 0..options.len() {
        let Some(fallback) = own.fallback() else { return Ok(()) };
        let missing = || ResponderConfigError::FallbackMissing {
            responder: own.name().to_owned(),
            fallback: fallback.to_owned(),
        };
        own = options.get(fallback).ok_or_else(missing)?;
    }
    Err(ResponderConfigError::FallbackCircle(name.to_owned()))
}

fn build_one(
    options: &ResponderOptions,
    fallback: Option<Arc<dyn Responder>>,
    variable: &impl Fn(&str) -> Option<String>,
) -> Result<Arc<dyn Responder>, ResponderConfigError> {
    Ok(match options {
        ResponderOptions::Eliza(options) => Arc::new(Eliza::new(script(options)?)),
        ResponderOptions::Echo(options) => Arc::new(Echo::new(options.clone())),
        ResponderOptions::OpenAi(options) => {
            let key = api_key(options, variable)?;
            Arc::new(OpenAi::new(options, key, fallback)?)
        }
    })
}

fn script(options: &ElizaOptions) -> Result<Script, ResponderConfigError> {
    let responder = || options.name.clone();
    let text = match &options.script {
        None => BUILT_IN_SCRIPT.to_owned(),
        Some(path) => std::fs::read_to_string(path).map_err(|source| {
            let path = path.display().to_string();
            ResponderConfigError::ScriptUnreadable { responder: responder(), path, source }
        })?,
    };
    Script::parse(&text).map_err(|source| ResponderConfigError::Script { responder: responder(), source })
}

fn api_key(
    options: &OpenAiOptions,
    variable: &impl Fn(&str) -> Option<String>,
) -> Result<Option<ApiKey>, ResponderConfigError> {
    let Some(name) = &options.api_key_env else { return Ok(None) };
    let (responder, named) = (options.name.clone(), name.clone());
    match variable(name).map(|key| key.trim().to_owned()).filter(|key| !key.is_empty()) {
        None => Err(ResponderConfigError::ApiKeyMissing { responder, variable: named }),
        Some(key) => match ApiKey::new(&key) {
            None => Err(ResponderConfigError::ApiKeyUnfit { responder, variable: named }),
            key => Ok(key),
        },
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use klatch_actors::responder::Ask;
    use klatch_protocol::item::Body;
    use klatch_protocol::{ConversationId, Item};

    use klatch_actors::trace::Traced;

    use super::*;

    pub fn item(body: Body) -> Item {
        Item { ordinal: 0, client_id: None, body: body.into() }
    }

    pub fn ask(text: &str) -> Ask {
        Ask {
            conversation: ConversationId([7; 16]),
            model: "m".into(),
            turn: 3,
            attempt: 1,
            request: "{}".into(),
            history: Vec::new(),
            input: vec![item(Body::user(text))],
            partial: String::new(),
            memory: None,
            traced: Traced::default(),
        }
    }

    #[derive(Deserialize)]
    struct Config {
        responder: Vec<ResponderOptions>,
    }

    fn read(toml: &str) -> Result<Vec<ResponderOptions>, String> {
        toml::from_str::<Config>(toml).map(|config| config.responder).map_err(|error| error.to_string())
    }

    fn refusal(toml: &str) -> String {
        let options = read(toml).expect("the options can be read");
        build_with(&options, |_| None).err().expect("the options are refused").to_string()
    }

    fn openai(name: &str, more: &str) -> String {
        format!("[[responder]]\nkind = 'openai'\nname = '{name}'\nbase_url = 'http://127.0.0.1:1/v1'\n{more}\n")
    }

    #[test]
    fn eliza_and_echo_are_always_there() {
        let built = build_with(&[], |_| None).expect("nothing is refused");
        assert_eq!(built.keys().collect::<Vec<_>>(), ["echo", "eliza"]);
        assert!(built[DEFAULT_MODEL].answers_at_once());
    }

    #[test]
    fn a_configured_echo_takes_the_place_of_the_built_in_one() {
        let options = read("[[responder]]\nkind = 'echo'\nname = 'echo'\ndelay_ms = 5").expect("readable");
        let built = build_with(&options, |_| None).expect("nothing is refused");
        assert!(!built["echo"].answers_at_once());
    }

    #[test]
    fn options_have_defaults_and_durations_have_units() {
        let options = read(&openai("m", "connect_timeout = '250ms'\ncontinue = 'prefill'")).expect("readable");
        let [ResponderOptions::OpenAi(options)] = options.as_slice() else { panic!("one of kind openai") };
        assert_eq!(options.connect_timeout, Duration::from_millis(250));
        assert_eq!(options.idle_timeout, Duration::from_secs(30));
        assert_eq!((options.concurrency, options.queue, options.retries), (64, 256, 2));
        assert_eq!(options.carry_on, openai::CarryOn::Prefill);
    }

    #[test]
    fn options_written_are_read_back() {
        let options = read(&openai("m", "fallback = 'echo'")).expect("readable");
        let written = serde_json::to_string(&options).expect("writable");
        assert_eq!(serde_json::from_str::<Vec<ResponderOptions>>(&written).expect("readable"), options);
    }

    #[test]
    fn unknown_keys_and_kinds_are_refused() {
        assert!(read(&openai("m", "idle_timout = '3s'")).is_err_and(|error| error.contains("idle_timout")));
        assert!(read("[[responder]]\nkind = 'echo'\nname = 'x'\nx = 1").is_err());
        assert!(read("[[responder]]\nkind = 'eliza'\nname = 'x'\nx = 1").is_err());
        assert!(read("[[responder]]\nkind = 'oracle'\nname = 'x'").is_err_and(|error| error.contains("eliza")));
    }

    #[test]
    fn a_refusal_names_the_responder_and_what_would_be_right() {
        let twice = "[[responder]]\nkind = 'echo'\nname = 'x'\n".repeat(2);
        assert_eq!(refusal(&twice), "two responders are named `x`: names must differ");
        assert!(refusal("[[responder]]\nkind = 'echo'\nname = ' '").contains("empty `name`"));
        assert_eq!(refusal(&openai("m", "fallback = 'n'")), "responder `m`: there is no responder `n` to fall back to");
        assert_eq!(
            refusal(&openai("m", "api_key_env = 'KEY'")),
            "responder `m`: the environment variable `KEY` (its `api_key_env`) is not set, or empty"
        );
        assert_eq!(refusal(&openai("m", "concurrency = 0")), "responder `m`: `concurrency` must be at least 1");
        let missing = refusal("[[responder]]\nkind = 'eliza'\nname = 'e'\nscript = '/nowhere/at/all'");
        assert_eq!(missing, "responder `e`: the script /nowhere/at/all cannot be read");
    }

    #[test]
    fn a_circle_of_fallbacks_is_refused_and_a_chain_is_built() {
        let circle = openai("a", "fallback = 'b'") + &openai("b", "fallback = 'c'") + &openai("c", "fallback = 'b'");
        assert!(refusal(&circle).ends_with("its chain of fallbacks leads back to it"));
        assert!(refusal(&openai("a", "fallback = 'a'")).contains("leads back"));
        let chain = openai("a", "fallback = 'b'") + &openai("b", "fallback = 'c'") + &openai("c", "fallback = 'eliza'");
        let built = build_with(&read(&chain).expect("readable"), |_| None).expect("nothing is refused");
        assert_eq!(built.len(), 5);
    }

    #[test]
    fn a_script_of_ones_own_is_read() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "hello: hi\nbye: bye\nnone:\nsay: Own.").expect("written");
        let options = ElizaOptions { name: "own".into(), script: Some(file.path().into()) };
        let built = build_with(&[ResponderOptions::Eliza(options)], |_| None).expect("nothing is refused");
        let answered = built["own"].answer(&ask("x"));
        assert_eq!(answered.pieces.text(), "Own.");
    }
}
