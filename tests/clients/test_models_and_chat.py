"""The list of models, and chat completions, which keep nothing."""

import openai
import pytest

HELLO = [{"role": "user", "content": "Hello to you."}]


def test_the_models_are_listed(ann):
    assert {"eliza", "echo", "slow", "tools"} <= {model.id for model in ann.models.list()}


def test_a_model_can_be_read_by_its_name(ann):
    assert ann.models.retrieve("echo").id == "echo"
    with pytest.raises(openai.NotFoundError):
        ann.models.retrieve("nobody")


def test_a_chat_completion_is_answered(ann):
    made = ann.chat.completions.create(model="echo", messages=HELLO)
    assert made.choices[0].message.content == "Hello to you."
    assert made.choices[0].finish_reason == "stop"
    assert made.usage.total_tokens == made.usage.prompt_tokens + made.usage.completion_tokens


def test_a_chat_completion_is_streamed(ann):
    chunks = list(ann.chat.completions.create(model="echo", messages=HELLO, stream=True))
    told = [chunk for chunk in chunks if chunk.choices]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in told) == "Hello to you."
    assert told[-1].choices[0].finish_reason == "stop"
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_chat_completion_may_call_a_tool(ann):
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
    made = ann.chat.completions.create(model="tools", messages=HELLO, tools=[tool])
    assert made.choices[0].finish_reason == "tool_calls"
    assert made.choices[0].message.tool_calls[0].function.name == "get_weather"


def test_a_chat_without_messages_is_refused(ann):
    with pytest.raises(openai.BadRequestError):
        ann.chat.completions.create(model="echo", messages=[])
