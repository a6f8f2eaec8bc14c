"""Streamed responses through the SDK: their events, and how a stream is taken up again."""

import pytest

from reading import as_sent, history, types_once, until_text

TEXT_STREAM = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]


@pytest.fixture(scope="module")
def told(ann):
    """A stream of several words, read to its end."""
    return list(ann.responses.create(model="echo", input="one two three four five", stream=True))


def test_a_stream_tells_its_life_in_order(told):
    assert types_once(told) == TEXT_STREAM
    assert [event.sequence_number for event in told] == list(range(len(told)))


def test_the_pieces_make_up_the_text(told):
    pieces = [event.delta for event in told if event.type == "response.output_text.delta"]
    whole = next(event.text for event in told if event.type == "response.output_text.done")
    assert len(pieces) > 1
    assert "".join(pieces) == whole == told[-1].response.output_text == "one two three four five"


def test_the_last_event_holds_the_response_as_it_is_read_later(ann, told):
    last = told[-1].response
    assert (last.status, last.error) == ("completed", None)
    assert last.usage.output_tokens > 0
    assert ann.responses.retrieve(last.id) == last


def test_a_finished_stream_is_told_again_as_it_was(ann, told):
    again = ann.responses.retrieve(told[0].response.id, stream=True)
    assert as_sent(again) == as_sent(told)


def test_a_finished_stream_goes_on_after_any_event(ann, told):
    for after in range(len(told)):
        rest = ann.responses.retrieve(told[0].response.id, stream=True, starting_after=after)
        assert as_sent(rest) == as_sent(told[after + 1 :])


def test_a_stream_that_is_left_can_be_taken_up_while_it_runs(ann):
    with ann.responses.create(model="slow", input="hi", stream=True) as stream:
        begun = until_text(stream)
    response_id, after = begun[0].response.id, begun[-1].sequence_number
    rest = list(ann.responses.retrieve(response_id, stream=True, starting_after=after))
    assert rest[-1].type == "response.completed"
    whole = ann.responses.retrieve(response_id, stream=True)
    assert as_sent(begun) + as_sent(rest) == as_sent(whole)


def test_two_readers_see_the_same_stream(ann):
    with ann.responses.create(model="slow", input="hi", stream=True) as stream:
        begun = until_text(stream)
        second = as_sent(ann.responses.retrieve(begun[0].response.id, stream=True))
        first = as_sent(begun) + as_sent(stream)
    assert first == second


def test_a_streamed_turn_enters_its_conversation(ann, conversation):
    list(ann.responses.create(model="echo", conversation=conversation.id, input="hi", stream=True))
    assert history(ann, conversation.id) == [("user", "hi"), ("assistant", "hi")]


def test_a_client_that_leaves_does_not_end_its_turn(ann, conversation):
    with ann.responses.create(model="slow", conversation=conversation.id, input="hi", stream=True) as stream:
        response_id = until_text(stream)[0].response.id
    last = list(ann.responses.retrieve(response_id, stream=True))[-1]
    assert last.type == "response.completed"
    assert len(history(ann, conversation.id)) == 2


def test_a_failing_model_ends_the_stream_with_one_failed_event(ann):
    told = list(ann.responses.create(model="failing", input="hi", stream=True))
    assert told[-1].type == "response.failed"
    assert told[-1].response.status == "failed"
    assert told[-1].response.error.code == "server_error"
    assert "error" not in [event.type for event in told]


def test_the_sdk_gathers_a_stream(ann):
    with ann.responses.stream(model="echo", input="one two three") as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_text == "one two three"
