"""openresponses-types: responses and every event of their streams fit the specification's own models."""

import openresponses_types
import pytest
from openresponses_types import ResponseResource

from reading import frames
from weather import QUESTION, TOOL

# The package's event models by the type they are for: `response.created` -> ResponseCreatedStreamingEvent.
EVENTS = {
    str(next(iter(model.model_fields["type"].annotation))): model
    for name, model in vars(openresponses_types).items()
    if name.endswith("StreamingEvent")
}

ECHO = {"model": "echo", "input": "one two three"}
REQUESTS = {
    "text": (ECHO, "completed"),
    "every option": (
        {
            **ECHO,
            "instructions": "Be brief.",
            "metadata": {"k": "v"},
            "max_output_tokens": 100,
            "temperature": 0.5,
            "top_p": 0.9,
            "parallel_tool_calls": False,
            "reasoning": {"effort": "low"},
            "text": {"verbosity": "low"},
            "tools": [{"type": "function", "name": "nothing"}],
            "tool_choice": "none",
            "truncation": "disabled",
            "store": False,
        },
        "completed",
    ),
    "a tool call": ({"model": "tools", "input": QUESTION, "tools": [TOOL]}, "completed"),
    "a failure": ({"model": "failing", "input": "hi"}, "failed"),
}


@pytest.fixture(params=REQUESTS.values(), ids=REQUESTS.keys())
def asked(request):
    return request.param


def test_a_response_fits(http, asked):
    body, status = asked
    answer = http.post("/responses", json=body)
    assert answer.status_code == 200, answer.text
    assert ResponseResource.model_validate_json(answer.text).status == status


def test_every_event_of_a_stream_fits(http, asked):
    body, status = asked
    told = fitting_events(http.post("/responses", json={**body, "stream": True}).text)
    assert told[-1].type == f"response.{status}"


def test_a_response_that_is_read_fits(http):
    made = http.post("/responses", json=ECHO).json()
    read = http.get(f"/responses/{made['id']}")
    assert ResponseResource.model_validate_json(read.text).status == "completed"


@pytest.mark.parametrize(("on_busy", "status"), [("interrupt", "incomplete"), ("rollback", "cancelled")])
def test_every_event_of_a_stream_that_is_cut_short_fits(http, on_busy, status):
    conversation = http.post("/conversations", json={}).json()["id"]
    slow = {"model": "slow", "conversation": conversation, "input": "hi", "stream": True}
    with http.stream("POST", "/responses", json=slow) as stream:
        pieces = stream.iter_text()
        body = body_until_text(pieces)
        http.post("/responses", json={**ECHO, "conversation": conversation, "on_busy": on_busy})
        body += "".join(pieces)
    last = fitting_events(body)[-1]
    assert (last.type, last.response.status) == ("response.incomplete", status)


def test_a_waiting_turn_fits(http):
    conversation = http.post("/conversations", json={}).json()["id"]
    slow = {"model": "slow", "conversation": conversation, "input": "hi", "background": True}
    first = http.post("/responses", json=slow)
    assert ResponseResource.model_validate_json(first.text).background is True
    second = http.post("/responses", json={**ECHO, "conversation": conversation, "stream": True})
    assert fitting_events(second.text)[1].type == "response.queued"


def body_until_text(pieces) -> str:
    body = ""
    for piece in pieces:
        body += piece
        if "response.output_text.delta" in body:
            return body
    raise AssertionError(f"the stream ended without text: {body}")


def fitting_events(body: str) -> list:
    *events, end = frames(body)
    assert end.data == "[DONE]"
    return [EVENTS[frame.event].model_validate_json(frame.data) for frame in events]
