//! A model server that does as it is told: `/v1/chat/completions`, streamed or not, well behaved or not. Started within
//! a test ([`ModelServer::start`]) or as a program of its own (`fake-model`).
//!
//! It is told by the request's `model`, by its last user message, or by both: directives with commas between them. A
//! message is read so only if all of it is directives; a model's name may hold words that mean nothing here.
//!
//! | directive | the server |
//! |---|---|
//! | (none) | answers `You said: ` and the last user message, word by word |
//! | `words N` | answers with N words, `w1 w2 …`, the same each time |
//! | `tool` | calls the first function with `{"city":"Paris"}`; given its output, says `It is 21 degrees in Paris.` |
//! | `slow:MS` | waits before each token |
//! | `salted` | marks each word with the number of its call, so that no two calls say the same: `You~7 said:~7 …` |
//! | `wait:MS` | waits before it answers at all |
//! | `length`, `filter`, `refusal` | stops after 3 words for that reason; refuses |
//! | `json` | does not stream, whatever was asked |
//! | `no-done` | leaves out `[DONE]` |
//! | `status:CODE` | refuses with an error; 429 with `retry-after: 1` |
//! | `too-long` | refuses as a server does that cannot read so much |
//! | `flaky:N` | refuses the first N calls with these messages: with 500, 429, 500, … |
//! | `stall`, `stall:N` | after N tokens says nothing more, and keeps the connection |
//! | `comments` | as `stall`, with a comment every 10 ms |
//! | `eof:N`, `disconnect:N` | ends after N tokens with nothing to say so; breaks the connection |
//! | `garbage`, `garbage:N`, `error:N` | sends something that is no chunk, or an error, after N tokens |
//! | `huge-line` | sends an event that never ends |
//! | `html` | answers with a page |
//!
//! With `continue_final_message` it goes on exactly behind the assistant's message. It notices when its client goes
//! away, and keeps a record of its newest calls: [`ModelServer::calls`], `GET /calls`.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use futures::stream;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Records that are kept; older ones are forgotten.
const RECORDS_MAX: usize = 4_096;
/// Conversations whose failures are counted.
const FLAKY_MAX: usize = 4_096;
/// Above what a long conversation weighs.
const BODY_BYTES_MAX: usize = 16 << 20;
/// Of a request's body that is kept in its record.
const RECORDED_BYTES_MAX: usize = 16 << 10;
const WORDS_MAX: u64 = 1_000_000;
/// How long [`ModelServer::calls_when`] waits before it gives up.
const PATIENCE: Duration = Duration::from_secs(20);
const HUGE_LINE_PART: usize = 64 << 10;

/// A running server. Dropped, it accepts no more connections; those that it has live as long as the runtime.
pub struct ModelServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CallRecord {
    /// Counts calls, from 0.
    pub n: u64,
    pub model: String,
    /// The last user message.
    pub user: String,
    pub stream: bool,
    /// Since the server's start.
    pub started_ms: u64,
    pub tokens: u64,
    pub outcome: Outcome,
    /// Of the request: an `Authorization` header was there. Its value is kept by nobody.
    pub authorized: bool,
    /// One connection's calls have the same.
    pub client: SocketAddr,
    /// The request's body; null where it is large.
    pub body: Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Open,
    /// The server said all that it was going to say, refusals and faults included.
    Finished,
    /// The client went away before that.
    CutOff,
}

impl ModelServer {
    /// On a port of its own, without delays.
    pub async fn start() -> anyhow::Result<Self> {
        Self::bind("127.0.0.1:0", Duration::ZERO).await
    }

    pub async fn bind(address: &str, token_delay: Duration) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::new(token_delay));
        let app = router(shared.clone());
        let serving = tokio::spawn(async move {
            // It ends with its listener, and that with the program.
            let _ = axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await;
        });
        Ok(Self { address, shared, serving })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What a client of OpenAI is given as its base URL.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// The newest calls, oldest first.
    pub fn calls(&self) -> Vec<CallRecord> {
        self.shared.calls()
    }

    /// The calls once they are as the caller expects; panics if they never are.
    pub async fn calls_when(&self, expected: impl Fn(&[CallRecord]) -> bool) -> Vec<CallRecord> {
        let mut changes = self.shared.changes.subscribe();
        let wait = changes.wait_for(|_| expected(&self.calls()));
        let met = tokio::time::timeout(PATIENCE, wait).await.is_ok();
        let calls = self.calls();
        assert!(met, "the model server's calls are not as expected: {calls:#?}");
        calls
    }

    /// Until the server ends, which it does not by itself.
    pub async fn serve(mut self) {
        let _ = (&mut self.serving).await;
    }
}

impl Drop for ModelServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

struct Shared {
    token_delay: Duration,
    start: Instant,
    records: Mutex<Records>,
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct Records {
    calls: VecDeque<CallRecord>,
    next: u64,
    /// By conversation: how often it has failed.
    flaky: HashMap<String, u64>,
}

impl Shared {
    fn new(token_delay: Duration) -> Self {
        let (changes, _) = watch::channel(0);
        Self { token_delay, start: Instant::now(), records: Mutex::default(), changes }
    }

    fn records(&self) -> std::sync::MutexGuard<'_, Records> {
        self.records.lock().expect("nothing panics while it holds the records")
    }

    fn calls(&self) -> Vec<CallRecord> {
        self.records().calls.iter().cloned().collect()
    }

    fn begin(self: &Arc<Self>, ask: &Ask, client: SocketAddr, authorized: bool) -> Recorder {
        let mut records = self.records();
        let n = records.next;
        records.next += 1;
        if records.calls.len() >= RECORDS_MAX {
            records.calls.pop_front();
        }
        let body = if ask.body.to_string().len() > RECORDED_BYTES_MAX { Value::Null } else { ask.body.clone() };
        records.calls.push_back(CallRecord {
            n,
            model: ask.model.clone(),
            user: ask.user.clone(),
            stream: ask.stream,
            started_ms: u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX),
            tokens: 0,
            outcome: Outcome::Open,
            authorized,
            client,
            body,
        });
        drop(records);
        self.changes.send_modify(|changes| *changes += 1);
        Recorder { shared: self.clone(), n }
    }

    fn change(&self, n: u64, change: impl FnOnce(&mut CallRecord)) {
        let mut records = self.records();
        if let Some(record) = records.calls.iter_mut().rev().find(|record| record.n == n) {
            change(record);
        }
        drop(records);
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// Which status a flaky call fails with, if it does.
    fn flake(&self, ask: &Ask, failures: u64) -> Option<u16> {
        let mut records = self.records();
        if records.flaky.len() >= FLAKY_MAX {
            records.flaky.clear();
        }
        let failed = records.flaky.entry(ask.body["messages"].to_string()).or_default();
        if *failed >= failures {
            return None;
        }
        *failed += 1;
        Some(if failed.is_multiple_of(2) { 429 } else { 500 })
    }
}

/// Travels with an answer: dropped before the answer is finished, it says that the client went away.
struct Recorder {
    shared: Arc<Shared>,
    n: u64,
}

impl Recorder {
    fn token(&self) {
        self.shared.change(self.n, |record| record.tokens += 1);
    }

    fn finished(&self) {
        self.shared.change(self.n, |record| record.outcome = Outcome::Finished);
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.shared.change(self.n, |record| {
            if record.outcome == Outcome::Open {
                record.outcome = Outcome::CutOff;
            }
        });
    }
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(complete))
        .route("/v1/models", get(models))
        .route("/calls", get(calls))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(shared)
}

async fn models() -> Json<Value> {
    Json(
        json!({"object": "list", "data": [{"id": "fake", "object": "model", "created": 0, "owned_by": "klatch-tests"}]}),
    )
}

async fn calls(State(shared): State<Arc<Shared>>) -> Json<Vec<CallRecord>> {
    Json(shared.calls())
}

async fn complete(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    let ask = Ask::new(body);
    let recorder = shared.begin(&ask, client, headers.contains_key("authorization"));
    let script = Script::new(&ask, shared.token_delay, recorder.n);
    tokio::time::sleep(script.wait).await;
    let flaked = script.flaky.and_then(|failures| shared.flake(&ask, failures));
    let refusal = flaked.or(script.status).map(refuse).or_else(|| script.page());
    if let Some(refusal) = refusal {
        recorder.finished();
        return refusal;
    }
    if ask.stream && !script.json {
        return streamed(script, recorder);
    }
    let answer = script.whole(&recorder).await;
    recorder.finished();
    Json(answer).into_response()
}

fn refuse(status: u16) -> Response {
    let code = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let error = json!({"error": {"message": "upstream words that nobody should see", "type": "error", "code": status}});
    match status {
        429 => (code, [("retry-after", "1")], Json(error)).into_response(),
        // Whoever follows it is caught: it leads here again.
        300..400 => (code, [("location", "/v1/chat/completions")], Json(error)).into_response(),
        _ => (code, Json(error)).into_response(),
    }
}

fn streamed(script: Script, recorder: Recorder) -> Response {
    let said = stream::unfold((script.steps(), recorder, script), |(mut steps, recorder, script)| async move {
        let step = steps.pop_front()?;
        let bytes = carry_out(&step, &script, &recorder).await;
        if let Step::Repeat { .. } = step {
            steps.push_front(step);
        }
        if steps.is_empty() {
            recorder.finished();
        }
        Some((bytes, (steps, recorder, script)))
    });
    ([(CONTENT_TYPE, "text/event-stream; charset=utf-8")], Body::from_stream(said)).into_response()
}

async fn carry_out(step: &Step, script: &Script, recorder: &Recorder) -> Result<Bytes, std::io::Error> {
    match step {
        Step::Token(text) => {
            // A timer of zero still costs a millisecond.
            if !script.delay.is_zero() {
                tokio::time::sleep(script.delay).await;
            }
            recorder.token();
            Ok(Bytes::from(event(&chunk(json!({"content": text}), None))))
        }
        Step::Send(text) => Ok(Bytes::from(text.clone())),
        Step::Repeat { text, every } => {
            tokio::time::sleep(*every).await;
            Ok(Bytes::from(text.clone()))
        }
        Step::Stall => match std::future::pending::<Infallible>().await {},
        Step::Break => {
            recorder.finished();
            // What was said so far is on its way before the connection breaks.
            tokio::task::yield_now().await;
            Err(std::io::Error::other("the connection breaks, as it was told to"))
        }
    }
}

/// What one request says.
struct Ask {
    body: Value,
    model: String,
    user: String,
    stream: bool,
}

impl Ask {
    fn new(body: Value) -> Self {
        let messages = body["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
        let user = messages.iter().rev().find(|message| message["role"] == "user");
        let user = user.map(|message| text_of(&message["content"])).unwrap_or_default();
        let model = body["model"].as_str().unwrap_or_default().to_owned();
        Self { model, user, stream: body["stream"] == true, body }
    }

    fn last(&self) -> &Value {
        self.body["messages"].as_array().and_then(|messages| messages.last()).unwrap_or(&Value::Null)
    }

    /// The text to go on behind.
    fn prefill(&self) -> String {
        let prefilled = self.body["continue_final_message"] == true && self.last()["role"] == "assistant";
        if prefilled { text_of(&self.last()["content"]) } else { String::new() }
    }

    fn max_tokens(&self) -> Option<u64> {
        self.body["max_completion_tokens"].as_u64().or_else(|| self.body["max_tokens"].as_u64())
    }
}

fn text_of(content: &Value) -> String {
    match content {
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        _ => content.as_str().unwrap_or_default().to_owned(),
    }
}

/// What the server does at its next token.
#[derive(Clone)]
enum Step {
    Token(String),
    Send(String),
    /// For ever.
    Repeat {
        text: String,
        every: Duration,
    },
    Stall,
    Break,
}

/// What one answer is to be.
#[derive(Clone, Default)]
struct Script {
    words: Option<u64>,
    tool: bool,
    salted: bool,
    delay: Duration,
    wait: Duration,
    /// Why it ends, after 3 words or for want of `max_tokens`.
    reason: Option<&'static str>,
    refusal: bool,
    json: bool,
    no_done: bool,
    html: bool,
    too_long: bool,
    status: Option<u16>,
    flaky: Option<u64>,
    fault: Option<(u64, Fault)>,
    /// The answer's pieces, and the call in place of them.
    tokens: Vec<String>,
    call: Option<Value>,
    given: u64,
}

#[derive(Clone, Copy)]
enum Fault {
    Stall,
    Comments,
    End,
    Break,
    Garbage,
    Error,
    HugeLine,
}

impl Script {
    /// `n`: number of the call.
    fn new(ask: &Ask, delay: Duration, n: u64) -> Self {
        let mut script = Self { delay, ..Self::default() };
        for directive in ask.model.split(',') {
            script.read(directive.trim());
        }
        let mut told = script.clone();
        if ask.user.split(',').all(|directive| told.read(directive.trim())) {
            script = told;
        }
        script.compose(ask, n);
        script
    }

    /// Whether it is a directive.
    fn read(&mut self, directive: &str) -> bool {
        let (name, number) = directive.split_once([':', ' ']).unwrap_or((directive, "0"));
        let Ok(number) = number.parse::<u64>() else { return false };
        match name {
            "words" => self.words = Some(number.min(WORDS_MAX)),
            "tool" => self.tool = true,
            "salted" => self.salted = true,
            "slow" => self.delay = Duration::from_millis(number),
            "wait" => self.wait = Duration::from_millis(number),
            "length" => self.reason = Some("length"),
            "filter" => self.reason = Some("content_filter"),
            "refusal" => self.refusal = true,
            "json" => self.json = true,
            "no-done" => self.no_done = true,
            "html" => self.html = true,
            "too-long" => self.too_long = true,
            "status" => self.status = u16::try_from(number).ok(),
            "flaky" => self.flaky = Some(number),
            _ => return self.read_fault(name, number),
        }
        true
    }

    fn read_fault(&mut self, name: &str, after: u64) -> bool {
        let fault = match name {
            "stall" => Fault::Stall,
            "comments" => Fault::Comments,
            "eof" => Fault::End,
            "disconnect" => Fault::Break,
            "garbage" => Fault::Garbage,
            "error" => Fault::Error,
            "huge-line" => Fault::HugeLine,
            _ => return false,
        };
        self.fault = Some((after, fault));
        true
    }

    fn compose(&mut self, ask: &Ask, n: u64) {
        self.given = ask.body["messages"].to_string().len() as u64 / 4;
        if self.tool && ask.last()["role"] != "tool" {
            let name = ask.body["tools"][0]["function"]["name"].as_str().unwrap_or("get_weather");
            self.call = Some(json!({"name": name, "arguments": "{\"city\":\"Paris\"}"}));
            return;
        }
        let text = match self.words {
            Some(words) => (1..=words).map(|word| format!("w{word} ")).collect::<String>().trim_end().to_owned(),
            None if self.tool => "It is 21 degrees in Paris.".to_owned(),
            None if self.refusal => "I would rather not.".to_owned(),
            None => format!("You said: {}", ask.user),
        };
        let prefill = ask.prefill();
        if self.salted {
            // What another call said is not this one's, but for the number of words.
            let left = text.split(' ').skip(prefill.split_inclusive(' ').count());
            let left = left.map(|word| format!("{word}~{n}")).collect::<Vec<_>>().join(" ");
            self.tokens = left.split_inclusive(' ').map(str::to_owned).collect();
        } else {
            let rest = text.strip_prefix(&prefill).unwrap_or(&text);
            self.tokens = rest.split_inclusive(' ').map(str::to_owned).collect();
        }
        if self.reason.is_some() {
            self.tokens.truncate(3);
        }
        if let Some(max) = ask.max_tokens().filter(|max| *max < self.tokens.len() as u64) {
            self.tokens.truncate(usize::try_from(max).unwrap_or(usize::MAX));
            self.reason = Some("length");
        }
    }

    fn page(&self) -> Option<Response> {
        if self.too_long {
            let message = "This model's maximum context length is 10 tokens. upstream words that nobody should see";
            let error = json!({"error": {"message": message, "type": "BadRequestError", "code": 400}});
            return Some((StatusCode::BAD_REQUEST, Json(error)).into_response());
        }
        let page = "<html><body>upstream words that nobody should see</body></html>";
        self.html.then(|| ([(CONTENT_TYPE, "text/html")], page).into_response())
    }

    fn steps(&self) -> VecDeque<Step> {
        let mut steps = VecDeque::from([send(&chunk(json!({"role": "assistant", "content": ""}), None))]);
        let tokens = self.tokens.iter().cloned();
        if self.refusal {
            steps.extend(tokens.map(|text| send(&chunk(json!({"refusal": text}), None))));
        } else {
            steps.extend(tokens.map(Step::Token));
        }
        steps.extend(self.call_chunks().iter().map(send));
        if let Some((after, fault)) = self.fault {
            steps.truncate(usize::try_from(after).unwrap_or(usize::MAX).saturating_add(1));
            steps.extend(fault_step(fault));
            return steps;
        }
        steps.push_back(send(&chunk(json!({}), Some(self.finish_reason()))));
        steps.push_back(send(&json!({"object": "chat.completion.chunk", "choices": [], "usage": self.usage()})));
        if !self.no_done {
            steps.push_back(Step::Send("data: [DONE]\n\n".to_owned()));
        }
        steps
    }

    /// The call as servers send it: its name first, then its arguments in parts.
    fn call_chunks(&self) -> Vec<Value> {
        let Some(call) = &self.call else { return Vec::new() };
        let (begin, end) = call["arguments"].as_str().unwrap_or_default().split_at(5);
        let function = json!({"name": call["name"], "arguments": ""});
        let first = json!({"index": 0, "id": "call_fake_1", "type": "function", "function": function});
        let part = |arguments: &str| json!({"index": 0, "function": {"arguments": arguments}});
        [first, part(begin), part(end)].map(|delta| chunk(json!({"tool_calls": [delta]}), None)).into()
    }

    fn finish_reason(&self) -> &'static str {
        self.reason.unwrap_or(if self.call.is_some() { "tool_calls" } else { "stop" })
    }

    fn usage(&self) -> Value {
        let said = self.tokens.len() as u64 + u64::from(self.call.is_some());
        json!({
            "prompt_tokens": self.given, "completion_tokens": said, "total_tokens": self.given + said,
            "prompt_tokens_details": {"cached_tokens": 1}, "completion_tokens_details": {"reasoning_tokens": 0},
        })
    }

    /// The answer of a server that does not stream.
    async fn whole(&self, recorder: &Recorder) -> Value {
        for _ in &self.tokens {
            tokio::time::sleep(self.delay).await;
            recorder.token();
        }
        let text = self.tokens.concat();
        let message = match &self.call {
            Some(function) => {
                let call = json!({"id": "call_fake_1", "type": "function", "function": function});
                json!({"role": "assistant", "content": null, "tool_calls": [call]})
            }
            None if self.refusal => json!({"role": "assistant", "content": null, "refusal": text}),
            None => json!({"role": "assistant", "content": text}),
        };
        let choice = json!({"index": 0, "message": message, "finish_reason": self.finish_reason()});
        json!({"id": "chatcmpl-fake", "object": "chat.completion", "created": 0, "model": "fake", "choices": [choice],
            "usage": self.usage()})
    }
}

fn fault_step(fault: Fault) -> Option<Step> {
    Some(match fault {
        Fault::Stall => Step::Stall,
        Fault::Comments => Step::Repeat { text: ": still here\n\n".to_owned(), every: Duration::from_millis(10) },
        Fault::Break => Step::Break,
        Fault::Garbage => Step::Send("data: {\"upstream words that nobody should see\n\n".to_owned()),
        Fault::Error => {
            Step::Send("data: {\"error\":{\"message\":\"upstream words that nobody should see\"}}\n\n".to_owned())
        }
        Fault::HugeLine => Step::Repeat { text: "x".repeat(HUGE_LINE_PART), every: Duration::ZERO },
        Fault::End => return None,
    })
}

fn chunk(delta: Value, finish_reason: Option<&str>) -> Value {
    let choice = json!({"index": 0, "delta": delta, "finish_reason": finish_reason});
    json!({"id": "chatcmpl-fake", "object": "chat.completion.chunk", "created": 0, "model": "fake", "choices": [choice]})
}

fn send(chunk: &Value) -> Step {
    Step::Send(event(chunk))
}

fn event(chunk: &Value) -> String {
    format!("data: {chunk}\n\n")
}
