"""`Idempotency-Key`: the same request again is the same answer, and another request is refused."""

import uuid

import openai
import pytest

from reading import as_sent, history, until_text

REPLAYED = "Idempotent-Replayed"


@pytest.fixture
def key():
    return {"Idempotency-Key": f"key-{uuid.uuid4()}"}


def test_the_same_response_is_answered_again(ann, conversation, key):
    def send():
        return ann.responses.with_raw_response.create(
            model="echo", conversation=conversation.id, input="once", extra_headers=key
        )

    first, again = send(), send()
    assert REPLAYED not in first.headers
    assert again.headers[REPLAYED] == "true"
    assert again.parse() == first.parse()
    assert history(ann, conversation.id) == [("user", "once"), ("assistant", "once")]


def test_a_quoted_key_is_the_same_key(ann, key):
    quoted = {"Idempotency-Key": f'"{key["Idempotency-Key"]}"'}
    first = ann.responses.create(model="echo", input="once", extra_headers=key)
    assert ann.responses.create(model="echo", input="once", extra_headers=quoted).id == first.id


def test_the_same_conversation_is_answered_again(ann, key):
    def send():
        return ann.conversations.with_raw_response.create(metadata={"made": "once"}, extra_headers=key)

    first, again = send(), send()
    assert again.headers[REPLAYED] == "true"
    assert again.parse().id == first.parse().id


def test_the_same_chained_response_does_not_fork(ann, conversation, key):
    link = ann.responses.create(model="echo", conversation=conversation.id, input="one")

    def send():
        return ann.responses.create(model="echo", previous_response_id=link.id, input="two", extra_headers=key)

    assert send().id == send().id
    assert len(history(ann, conversation.id)) == 4


def test_a_finished_stream_is_told_again_from_its_beginning(ann, key):
    def send():
        return as_sent(ann.responses.create(model="echo", input="one two", stream=True, extra_headers=key))

    assert send() == send()


def test_a_running_stream_is_joined(ann, key):
    def send():
        return ann.responses.create(model="slow", input="hi", stream=True, extra_headers=key)

    with send() as first:
        begun = until_text(first)
        joined = as_sent(send())
        assert as_sent(begun) + as_sent(first) == joined


def test_another_body_under_the_same_key_is_refused(ann, key):
    ann.responses.create(model="echo", input="this", extra_headers=key)
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        ann.responses.create(model="echo", input="that", extra_headers=key)
    assert refused.value.code == "idempotency_key_reused"


def test_a_request_that_was_refused_leaves_its_key_free(ann, key):
    with pytest.raises(openai.BadRequestError):
        ann.responses.create(model="echo", input="hi", metadata={"k": "v" * 513}, extra_headers=key)
    assert ann.responses.create(model="echo", input="now right", extra_headers=key).status == "completed"


def test_a_key_does_not_open_the_answer_to_another_user(ann, other, key):
    def send(client):
        return client.responses.create(model="echo", input="mine", extra_headers=key)

    mine = send(ann)
    try:
        theirs = send(other)
    except openai.APIStatusError as refused:
        assert refused.status_code < 500
    else:
        assert theirs.id != mine.id
