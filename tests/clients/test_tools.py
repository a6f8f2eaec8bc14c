"""Function tools: the call, its stream, its result; and items that are named instead of sent."""

import json

import pytest

from reading import text_of, types_once
from weather import ANSWER, QUESTION, TOOL


def ask(ann, **options):
    return ann.responses.create(model="tools", input=QUESTION, tools=[TOOL], **options)


def result_of(call):
    return {"type": "function_call_output", "call_id": call.call_id, "output": '{"degrees": 21}'}


def the_call(response):
    calls = [item for item in response.output if item.type == "function_call"]
    assert len(calls) == 1
    return calls[0]


def test_a_tool_is_called_with_arguments(ann):
    asked = ask(ann)
    call = the_call(asked)
    assert asked.status == "completed"
    assert (call.name, call.status) == ("get_weather", "completed")
    assert json.loads(call.arguments) == {"city": "Paris"}
    assert asked.tools[0].name == "get_weather"


def test_the_result_of_a_call_goes_on_the_chain(ann):
    asked = ask(ann)
    answered = ann.responses.create(
        model="tools", previous_response_id=asked.id, input=[result_of(the_call(asked))], tools=[TOOL]
    )
    assert answered.output_text == ANSWER


def test_a_call_and_its_result_stay_in_the_conversation(ann, conversation):
    call = the_call(ask(ann, conversation=conversation.id))
    ann.responses.create(model="tools", conversation=conversation.id, input=[result_of(call)], tools=[TOOL])
    question, called, result, answer = ann.conversations.items.list(conversation.id, order="asc")
    assert text_of(question) == QUESTION
    assert (called.type, called.call_id, called.id) == ("function_call", call.call_id, call.id)
    assert (result.type, result.call_id, result.output) == (
        "function_call_output",
        call.call_id,
        '{"degrees": 21}',
    )
    assert text_of(answer) == ANSWER


def test_a_call_and_its_result_may_come_in_one_input(ann):
    call = the_call(ask(ann))
    answered = ann.responses.create(
        model="tools",
        tools=[TOOL],
        input=[
            {"role": "user", "content": QUESTION},
            {"type": "function_call", "call_id": call.call_id, "name": call.name, "arguments": call.arguments},
            result_of(call),
        ],
    )
    assert answered.output_text == ANSWER


def test_a_streamed_call_shows_its_arguments(ann):
    told = list(ask(ann, stream=True))
    assert types_once(told) == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]
    pieces = "".join(event.delta for event in told if event.type == "response.function_call_arguments.delta")
    whole = next(event for event in told if event.type == "response.function_call_arguments.done")
    call = the_call(told[-1].response)
    assert pieces == whole.arguments == call.arguments
    assert whole.item_id == call.id


@pytest.mark.parametrize("within", ["the same conversation", "another conversation"])
def test_an_item_can_be_named_by_its_id(ann, conversation, within):
    said = ann.responses.create(model="echo", conversation=conversation.id, input="Remember this.").output[0]
    place = conversation.id if within == "the same conversation" else ann.conversations.create().id
    made = ann.responses.create(
        model="echo",
        conversation=place,
        input=[{"type": "item_reference", "id": said.id}, {"role": "user", "content": "And now?"}],
    )
    assert made.output_text == "And now?"
    items = ann.conversations.items.list(place, order="asc", limit=100)
    assert [text_of(item) for item in items][-3:].count("Remember this.") >= 1


def test_an_item_can_be_named_without_a_conversation(ann):
    said = ann.responses.create(model="echo", input="Remember this.").output[0]
    made = ann.responses.create(
        model="echo",
        input=[{"type": "item_reference", "id": said.id}, {"role": "user", "content": "And now?"}],
    )
    assert made.output_text == "And now?"
