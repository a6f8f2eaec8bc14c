"""What `on_busy` does with a turn that comes while another one runs."""

import openai
import pytest

import node
from reading import history, until_text


@pytest.fixture
def running(ann, conversation):
    """A slow turn in the conversation, which has said its first word."""
    with ann.responses.create(
        model="slow", conversation=conversation.id, input="first", background=True, stream=True
    ) as stream:
        return until_text(stream)[0].response.id


def second(ann, conversation, **on_busy):
    return ann.responses.create(model="echo", conversation=conversation.id, input="second", extra_body=on_busy)


@pytest.mark.parametrize("on_busy", [{}, {"on_busy": "enqueue"}], ids=["by default", "enqueue"])
def test_a_turn_waits_for_the_one_before_it(ann, conversation, running, on_busy):
    assert second(ann, conversation, **on_busy).output_text == "second"
    first = ann.responses.retrieve(running)
    assert first.status == "completed"
    assert history(ann, conversation.id) == [
        ("user", "first"),
        ("assistant", first.output_text),
        ("user", "second"),
        ("assistant", "second"),
    ]


def test_a_waiting_turn_is_streamed_from_the_queue_on(ann, conversation, running):
    told = ann.responses.create(model="echo", conversation=conversation.id, input="second", stream=True)
    assert [event.type for event in told][:3] == ["response.created", "response.queued", "response.in_progress"]


def test_reject_refuses_the_second_turn(ann, conversation, running):
    with pytest.raises(openai.ConflictError) as refused:
        second(ann, conversation, on_busy="reject")
    assert refused.value.code == "conversation_locked"
    assert refused.value.response.headers["x-should-retry"] == "false"
    first = node.ended(ann, running)
    assert history(ann, conversation.id) == [("user", "first"), ("assistant", first.output_text)]


def test_interrupt_ends_the_running_turn_and_keeps_its_text(ann, conversation, running):
    assert second(ann, conversation, on_busy="interrupt").output_text == "second"
    first = ann.responses.retrieve(running)
    assert first.status == "incomplete"
    assert first.output_text
    assert history(ann, conversation.id) == [
        ("user", "first"),
        ("assistant", first.output_text),
        ("user", "second"),
        ("assistant", "second"),
    ]


def test_rollback_ends_the_running_turn_and_leaves_nothing_of_it(ann, conversation, running):
    assert second(ann, conversation, on_busy="rollback").output_text == "second"
    assert ann.responses.retrieve(running).status == "cancelled"
    assert history(ann, conversation.id) == [("user", "second"), ("assistant", "second")]


def test_any_other_word_is_refused(ann, conversation):
    with pytest.raises(openai.BadRequestError):
        second(ann, conversation, on_busy="panic")
