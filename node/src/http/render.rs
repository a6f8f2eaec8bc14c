//! A turn as the wire shows it: a response, and the events of its stream. Pure functions of (ids, turn): rendered
//! on any node, at any time, the same turn is the same bytes.

use klatch_protocol::stream::Step;
use klatch_protocol::turn::{Incomplete, Output, Usage};
use klatch_protocol::{Outcome, ResponseId, Role, Status, Turn};

use super::wire::events::{Event, write_frame};
use super::wire::items::{WireItem, WirePart};
use super::wire::options::Options;
use super::wire::response::{
    ConversationRef, Fault, IncompleteDetails, InputTokens, OutputTokens, Own, Response, ResponseStatus,
    Usage as WireUsage,
};

/// The response as it is now.
pub fn response(id: ResponseId, turn: &Turn) -> Response {
    let mut response = snapshot(id, turn, status(turn));
    response.output = (0..turn.outputs.len()).map(|output| output_item(id, turn, output)).collect();
    let Some(outcome) = &turn.outcome else { return response };
    match outcome {
        Outcome::Completed { usage } => {
            response.completed_at = Some(turn.ended_at_ms / 1_000);
            response.usage = Some(wire_usage(*usage));
        }
        Outcome::Incomplete { why, usage } => {
            response.usage = Some(wire_usage(*usage));
            response.incomplete_details = incomplete_details(*why);
            response.klatch.incomplete_reason = Some(incomplete_reason(*why));
        }
        Outcome::Failed { code, message } => response.error = Some(fault(code, message)),
        Outcome::Cancelled { .. } => {}
    }
    response
}

/// The response as it was before anything was said: the same whenever it is rendered.
fn snapshot(id: ResponseId, turn: &Turn, status: ResponseStatus) -> Response {
    let parameters = &turn.accepted.parameters;
    let options = Options::from_json(&parameters.request);
    let conversation = id.conversation.to_string();
    Response {
        id: id.to_string(),
        object: "response",
        created_at: turn.accepted.at_ms / 1_000,
        status,
        completed_at: None,
        error: None,
        incomplete_details: None,
        instructions: options.instructions,
        max_output_tokens: options.max_output_tokens,
        max_tool_calls: options.max_tool_calls,
        model: parameters.model.to_string(),
        output: Vec::new(),
        parallel_tool_calls: options.parallel_tool_calls.unwrap_or(true),
        previous_response_id: parameters.previous.map(|previous| previous.to_string()),
        conversation: parameters.conversation_named.then(|| ConversationRef { id: conversation.clone() }),
        reasoning: options.reasoning,
        store: parameters.store,
        background: parameters.background,
        temperature: options.temperature.unwrap_or(1.0),
        top_p: options.top_p.unwrap_or(1.0),
        presence_penalty: options.presence_penalty.unwrap_or(0.0),
        frequency_penalty: options.frequency_penalty.unwrap_or(0.0),
        top_logprobs: options.top_logprobs.unwrap_or(0),
        text: options.text,
        tool_choice: options.tool_choice,
        tools: options.tools,
        truncation: options.truncation.unwrap_or_else(|| "disabled".to_owned()),
        service_tier: "default",
        safety_identifier: options.safety_identifier,
        prompt_cache_key: options.prompt_cache_key,
        metadata: options.metadata,
        usage: None,
        klatch: Own { conversation, incomplete_reason: None },
    }
}

fn status(turn: &Turn) -> ResponseStatus {
    match &turn.outcome {
        None if turn.accepted.queued && turn.attempts.is_empty() => ResponseStatus::Queued,
        None => ResponseStatus::InProgress,
        Some(Outcome::Completed { .. }) => ResponseStatus::Completed,
        Some(Outcome::Incomplete { .. }) => ResponseStatus::Incomplete,
        Some(Outcome::Failed { .. }) => ResponseStatus::Failed,
        Some(Outcome::Cancelled { .. }) => ResponseStatus::Cancelled,
    }
}

/// Adds the frame of one step of the turn's stream to `out`.
pub fn write_step(out: &mut Vec<u8>, id: ResponseId, turn: &Turn, sequence: u64, step: Step, with_id: bool) {
    let content_index = 0;
    let item_id = |output: usize, prefix: &str| id.conversation.item(turn.output_ordinal(output)).text(prefix);
    let event = match step {
        Step::Created => {
            let status = if turn.accepted.queued { ResponseStatus::Queued } else { ResponseStatus::InProgress };
            Event::Created { response: snapshot(id, turn, status) }
        }
        Step::Queued => Event::Queued { response: snapshot(id, turn, ResponseStatus::Queued) },
        Step::InProgress => Event::InProgress { response: snapshot(id, turn, ResponseStatus::InProgress) },
        Step::OutputAdded { output } => Event::OutputAdded { output_index: output, item: begun_item(id, turn, output) },
        Step::PartAdded { output } => {
            let (item_id, part) = (&item_id(output, "msg_"), WirePart::output_text(""));
            let event = Event::PartAdded { item_id, output_index: output, content_index, part };
            return write_frame(out, event, sequence, with_id);
        }
        Step::TextDelta { output, from, to } => {
            let item_id = &item_id(output, "msg_");
            let delta = message_text(turn, output).get(from..to).unwrap_or_default();
            let event = Event::TextDelta { item_id, output_index: output, content_index, delta, logprobs: [] };
            return write_frame(out, event, sequence, with_id);
        }
        Step::TextDone { output } => {
            let (item_id, text) = (&item_id(output, "msg_"), message_text(turn, output));
            let event = Event::TextDone { item_id, output_index: output, content_index, text, logprobs: [] };
            return write_frame(out, event, sequence, with_id);
        }
        Step::PartDone { output } => {
            let (item_id, part) = (&item_id(output, "msg_"), WirePart::output_text(message_text(turn, output)));
            let event = Event::PartDone { item_id, output_index: output, content_index, part };
            return write_frame(out, event, sequence, with_id);
        }
        Step::ArgumentsDelta { output } => {
            let item_id = &item_id(output, "fc_");
            let event = Event::ArgumentsDelta { item_id, output_index: output, delta: call(turn, output).1 };
            return write_frame(out, event, sequence, with_id);
        }
        Step::ArgumentsDone { output } => {
            let item_id = &item_id(output, "fc_");
            let (name, arguments) = call(turn, output);
            let event = Event::ArgumentsDone { item_id, output_index: output, name, arguments };
            return write_frame(out, event, sequence, with_id);
        }
        Step::OutputDone { output } => Event::OutputDone { output_index: output, item: output_item(id, turn, output) },
        Step::Ended => ended(response(id, turn)),
    };
    write_frame(out, event, sequence, with_id);
}

fn ended(response: Response) -> Event<'static> {
    match response.status {
        ResponseStatus::Failed => Event::Failed { response },
        ResponseStatus::Incomplete | ResponseStatus::Cancelled => Event::Incomplete { response },
        ResponseStatus::Completed | ResponseStatus::Queued | ResponseStatus::InProgress => {
            Event::Completed { response }
        }
    }
}

fn message_text(turn: &Turn, output: usize) -> &str {
    match turn.outputs.get(output) {
        Some(Output::Message { text, .. }) => text,
        Some(Output::Call(_)) | None => "",
    }
}

/// Name and arguments.
fn call(turn: &Turn, output: usize) -> (&str, &str) {
    match turn.outputs.get(output) {
        Some(Output::Call(call)) => (&call.name, &call.arguments),
        Some(Output::Message { .. }) | None => ("", ""),
    }
}

/// The item as it is now; its status agrees with [`Turn::output_items`] once the turn has ended.
fn output_item(id: ResponseId, turn: &Turn, output: usize) -> WireItem {
    let complete = matches!(turn.outcome, Some(Outcome::Completed { .. })) || output + 1 < turn.outputs.len();
    let status = match (complete, turn.outcome.is_some()) {
        (true, _) => Status::Completed,
        (false, true) => Status::Incomplete,
        (false, false) => Status::InProgress,
    };
    let text = || vec![WirePart::output_text(message_text(turn, output))];
    item(id, turn, output, status, text, call(turn, output).1)
}

/// The item as it was before anything of it was said.
fn begun_item(id: ResponseId, turn: &Turn, output: usize) -> WireItem {
    item(id, turn, output, Status::InProgress, Vec::new, "")
}

fn item(
    id: ResponseId,
    turn: &Turn,
    output: usize,
    status: Status,
    content: impl FnOnce() -> Vec<WirePart>,
    arguments: &str,
) -> WireItem {
    let item_id = |prefix| id.conversation.item(turn.output_ordinal(output)).text(prefix);
    let status = status.into();
    match turn.outputs.get(output) {
        Some(Output::Call(call)) => WireItem::FunctionCall {
            id: item_id("fc_"),
            call_id: call.call_id.clone(),
            name: call.name.clone(),
            arguments: arguments.to_owned(),
            status,
        },
        Some(Output::Message { .. }) | None => {
            WireItem::Message { id: item_id("msg_"), role: Role::Assistant.into(), status, content: content() }
        }
    }
}

fn wire_usage(usage: Usage) -> WireUsage {
    WireUsage {
        input_tokens: usage.input,
        input_tokens_details: InputTokens { cached_tokens: usage.input_cached, cache_write_tokens: 0 },
        output_tokens: usage.output,
        output_tokens_details: OutputTokens { reasoning_tokens: usage.output_reasoning },
        total_tokens: usage.input.saturating_add(usage.output),
    }
}

/// Strict clients know four reasons; where none fits there are no details.
fn incomplete_details(why: Incomplete) -> Option<IncompleteDetails> {
    let reason = match why {
        Incomplete::MaxOutputTokens => "max_output_tokens",
        Incomplete::ContentFilter => "content_filter",
        Incomplete::Interrupted => "steered",
        Incomplete::TakenOver => return None,
    };
    Some(IncompleteDetails { reason })
}

fn incomplete_reason(why: Incomplete) -> &'static str {
    match why {
        Incomplete::MaxOutputTokens => "max_output_tokens",
        Incomplete::ContentFilter => "content_filter",
        Incomplete::Interrupted => "interrupted",
        Incomplete::TakenOver => "taken_over",
    }
}

/// The codes are a closed set to strict clients.
fn fault(code: &str, message: &str) -> Fault {
    let code = match code {
        "rate_limit_exceeded" => "rate_limit_exceeded",
        "invalid_prompt" => "invalid_prompt",
        _ => "server_error",
    };
    Fault { code, message: message.to_owned(), r#type: code, param: None }
}

#[cfg(test)]
pub(crate) mod tests {
    use klatch_protocol::event::{Accepted, Attempt, AttemptReason, Call, Parameters};
    use klatch_protocol::stream::Cursor;
    use klatch_protocol::turn::Change;
    use klatch_protocol::{Body, ConversationId, Item};
    use serde_json::{Value, json};

    use super::*;

    pub fn id() -> ResponseId {
        ConversationId([7; 16]).response(3)
    }

    pub fn turn(request: &str) -> Turn {
        let parameters = Parameters {
            model: "echo".into(),
            background: false,
            store: true,
            conversation_named: true,
            previous: None,
            cancel_on_disconnect: false,
            start_by_ms: None,
            request: request.into(),
        };
        let accepted = Accepted {
            turn: 3,
            input: vec![Item { ordinal: 0, client_id: None, body: Body::user("hi").into() }],
            key: None,
            attempt: None,
            fingerprint: [0; 16],
            parameters,
            queued: false,
            at_ms: 1_500,
        };
        Turn::new(accepted, 100)
    }

    pub fn ended_turn(outcome: Outcome) -> Turn {
        let mut turn = turn("{}");
        turn.apply(Change::Attempt(Attempt { n: 1, incarnation: 1, reason: AttemptReason::First }));
        turn.apply(Change::Pieces { pieces: ["one ", "two"].into() });
        turn.apply(Change::Call(Call { call_id: "c".into(), name: "f".into(), arguments: "{}".into() }));
        turn.apply(Change::Ended { outcome, at_ms: 2_500 });
        turn
    }

    fn events(turn: &Turn) -> Vec<Value> {
        let (mut cursor, mut out) = (Cursor::default(), Vec::new());
        while let Some((sequence, step)) = cursor.step(turn) {
            write_step(&mut out, id(), turn, sequence, step, false);
        }
        let text = String::from_utf8(out).expect("text");
        let data = |frame: &str| serde_json::from_str(frame.split_once("data: ").expect("data").1).expect("json");
        text.split_terminator("\n\n").map(data).collect()
    }

    #[test]
    fn a_response_has_every_field_at_every_moment() {
        let fields = |turn: &Turn| {
            let shown = serde_json::to_value(response(id(), turn)).expect("json");
            shown.as_object().expect("an object").keys().cloned().collect::<Vec<_>>()
        };
        assert_eq!(fields(&turn("{}")), fields(&ended_turn(Outcome::Completed { usage: Usage::default() })));
        assert_eq!(fields(&turn("not json")).len(), 33);
    }

    #[test]
    fn a_stream_tells_a_whole_life() {
        let told = events(&ended_turn(Outcome::Completed { usage: Usage { input: 1, output: 2, ..Usage::default() } }));
        let types: Vec<&str> = told.iter().filter_map(|event| event["type"].as_str()).collect();
        assert_eq!(
            types,
            [
                "response.created",
                "response.in_progress",
                "response.output_item.added",
                "response.content_part.added",
                "response.output_text.delta",
                "response.output_text.delta",
                "response.output_text.done",
                "response.content_part.done",
                "response.output_item.done",
                "response.output_item.added",
                "response.function_call_arguments.delta",
                "response.function_call_arguments.done",
                "response.output_item.done",
                "response.completed",
            ]
        );
        assert_eq!(told[4]["delta"], "one ");
        assert_eq!(told[6]["text"], "one two");
        assert_eq!(told[8]["item"]["status"], "completed");
        assert_eq!(told[13]["response"]["usage"]["total_tokens"], 3);
        assert_eq!(told[13]["response"]["output"][0]["id"], told[4]["item_id"]);
    }

    #[test]
    fn the_first_snapshots_do_not_know_the_end() {
        let told = events(&ended_turn(Outcome::Completed { usage: Usage::default() }));
        let begun = events(&turn("{}"));
        assert_eq!(told[0], begun[0]);
        for snapshot in &told[..2] {
            let response = &snapshot["response"];
            assert_eq!(response["status"], "in_progress");
            assert_eq!((&response["output"], &response["usage"]), (&json!([]), &Value::Null));
        }
    }

    #[test]
    fn each_outcome_has_its_last_event_and_status() {
        let last = |outcome| {
            let event = events(&ended_turn(outcome)).pop().expect("a last event");
            (
                event["type"].clone(),
                event["response"]["status"].clone(),
                event["response"]["output"][1]["status"].clone(),
            )
        };
        let usage = Usage::default();
        let as_json = |kind: &str, status: &str, item: &str| (json!(kind), json!(status), json!(item));
        let why = Incomplete::TakenOver;
        assert_eq!(last(Outcome::Completed { usage }), as_json("response.completed", "completed", "completed"));
        assert_eq!(
            last(Outcome::Incomplete { why, usage }),
            as_json("response.incomplete", "incomplete", "incomplete")
        );
        assert_eq!(last(Outcome::Cancelled { keep: true }), as_json("response.incomplete", "cancelled", "incomplete"));
        let failed = Outcome::Failed { code: "odd".into(), message: "it broke".into() };
        assert_eq!(last(failed), as_json("response.failed", "failed", "incomplete"));
    }

    #[test]
    fn strict_clients_know_every_code_and_reason() {
        assert_eq!(fault("odd", "m").code, "server_error");
        assert_eq!(fault("rate_limit_exceeded", "m").code, "rate_limit_exceeded");
        assert_eq!(incomplete_details(Incomplete::TakenOver), None);
        assert_eq!(incomplete_details(Incomplete::Interrupted), Some(IncompleteDetails { reason: "steered" }));
    }

    #[test]
    fn what_was_asked_is_told_again() {
        let asked = response(id(), &turn(r#"{"instructions":"Be brief.","temperature":0.5,"metadata":{"k":"v"}}"#));
        assert_eq!(asked.instructions.as_deref(), Some("Be brief."));
        assert_eq!((asked.temperature, asked.top_p), (0.5, 1.0));
        assert_eq!(asked.metadata["k"], "v");
    }
}
