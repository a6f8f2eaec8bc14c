"""Responses that are waited for: made, read back, deleted; what is stored of them, and what is not."""

import openai
import pytest

from reading import history, texts


def test_a_response_answers_and_can_be_read_back(ann):
    made = ann.responses.create(model="echo", input="Good morning.")
    assert (made.status, made.output_text, made.model) == ("completed", "Good morning.", "echo")
    assert made.completed_at >= made.created_at
    assert made.usage.total_tokens == made.usage.input_tokens + made.usage.output_tokens
    assert ann.responses.retrieve(made.id) == made


def test_the_default_bot_answers(ann):
    made = ann.responses.create(model="eliza", input="I am unhappy.")
    assert made.status == "completed"
    assert made.output_text


def test_what_was_asked_is_told_again(ann):
    made = ann.responses.create(
        model="echo",
        input="hi",
        instructions="Be brief.",
        metadata={"k": "v"},
        max_output_tokens=100,
        temperature=0.5,
        top_p=0.9,
        parallel_tool_calls=False,
        reasoning={"effort": "low", "summary": "auto"},
    )
    assert made.instructions == "Be brief."
    assert made.metadata == {"k": "v"}
    assert (made.max_output_tokens, made.temperature, made.top_p) == (100, 0.5, 0.9)
    assert made.parallel_tool_calls is False
    assert (made.reasoning.effort, made.reasoning.summary) == ("low", "auto")


def test_a_field_that_nobody_knows_is_ignored(ann):
    made = ann.responses.create(model="echo", input="hi", extra_body={"shoe_size": 43})
    assert made.status == "completed"


def test_a_turn_puts_its_input_and_its_output_into_the_conversation(ann, conversation):
    for text in ("one", "two"):
        made = ann.responses.create(model="echo", conversation=conversation.id, input=text)
        assert made.conversation.id == conversation.id
    assert history(ann, conversation.id) == [
        ("user", "one"),
        ("assistant", "one"),
        ("user", "two"),
        ("assistant", "two"),
    ]


def test_a_conversation_may_be_named_by_an_object(ann, conversation):
    made = ann.responses.create(model="echo", conversation={"id": conversation.id}, input="hi")
    assert made.conversation.id == conversation.id


def test_instructions_are_never_stored(ann, conversation):
    ann.responses.create(model="echo", conversation=conversation.id, input="hi", instructions="Be brief.")
    assert history(ann, conversation.id) == [("user", "hi"), ("assistant", "hi")]


def test_input_items_are_what_was_sent(ann):
    made = ann.responses.create(
        model="echo",
        input=[{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "hi"}],
    )
    listed = ann.responses.input_items.list(made.id, order="asc")
    assert texts(listed) == [("developer", "Be brief."), ("user", "hi")]


def test_input_items_come_by_page(ann):
    made = ann.responses.create(model="echo", input=[{"role": "user", "content": str(n)} for n in range(5)])
    page = ann.responses.input_items.list(made.id, order="asc", limit=2)
    assert len(page.data) == 2
    assert [text for _, text in texts(page)] == ["0", "1", "2", "3", "4"]


def test_a_deleted_response_is_gone(ann):
    made = ann.responses.create(model="echo", input="hi")
    ann.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        ann.responses.retrieve(made.id)


def test_a_deletion_says_what_was_deleted(ann, http):
    made = ann.responses.create(model="echo", input="hi")
    answer = http.delete(f"/responses/{made.id}")
    assert answer.json() == {"id": made.id, "object": "response", "deleted": True}


def test_a_response_that_is_not_stored_cannot_be_read(ann):
    made = ann.responses.create(model="echo", input="hi", store=False)
    assert (made.status, made.output_text, made.store) == ("completed", "hi", False)
    with pytest.raises(openai.NotFoundError):
        ann.responses.retrieve(made.id)


def test_a_failing_model_ends_the_response_as_failed(ann):
    made = ann.responses.create(model="failing", input="hi")
    assert made.status == "failed"
    assert made.error.code == "server_error"
    assert made.error.message
