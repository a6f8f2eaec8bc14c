"""Responses in the background: polled, resumed and cancelled."""

import node
from reading import as_sent, until_text


def test_a_background_response_is_answered_at_once_and_ends_by_itself(ann):
    made = ann.responses.create(model="slow", input="hi", background=True)
    assert made.background is True
    assert made.status in ("queued", "in_progress")
    ended = node.ended(ann, made.id)
    assert ended.status == "completed"
    assert ended.output_text


def test_a_background_stream_can_be_resumed_after_a_lost_connection(ann):
    with ann.responses.create(model="slow", input="hi", background=True, stream=True) as stream:
        begun = until_text(stream)
    rest = list(ann.responses.retrieve(begun[0].response.id, stream=True, starting_after=begun[-1].sequence_number))
    assert rest[-1].type == "response.completed"
    numbers = [event.sequence_number for event in begun + rest]
    assert numbers == list(range(len(numbers)))
    assert as_sent(begun) + as_sent(rest) == as_sent(ann.responses.retrieve(begun[0].response.id, stream=True))


def test_a_background_response_without_a_stream_can_be_streamed_later(ann):
    made = ann.responses.create(model="slow", input="hi", background=True)
    told = list(ann.responses.retrieve(made.id, stream=True))
    assert told[0].sequence_number == 0
    assert told[-1].response.output_text == node.ended(ann, made.id).output_text


def test_a_background_response_can_be_cancelled(ann):
    made = ann.responses.create(model="slow", input="hi", background=True)
    assert ann.responses.cancel(made.id).id == made.id
    assert node.ended(ann, made.id).status == "cancelled"


def test_a_cancelled_stream_ends_as_incomplete_with_the_status_cancelled(ann):
    with ann.responses.create(model="slow", input="hi", stream=True) as stream:
        begun = until_text(stream)
        ann.responses.cancel(begun[0].response.id)
        told = begun + list(stream)
    assert told[-1].type == "response.incomplete"
    assert told[-1].response.status == "cancelled"
    assert ann.responses.retrieve(begun[0].response.id) == told[-1].response


def test_a_conversation_goes_on_after_a_cancelled_turn(ann, conversation):
    made = ann.responses.create(model="slow", conversation=conversation.id, input="hi", background=True)
    ann.responses.cancel(made.id)
    following = ann.responses.create(model="echo", conversation=conversation.id, input="still there?")
    assert following.output_text == "still there?"
