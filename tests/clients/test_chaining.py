"""Chains of responses by `previous_response_id`, and what an older link does."""

import openai
import pytest

from reading import history


def test_a_chain_goes_on_in_the_conversation_it_began_in(ann, conversation):
    first = ann.responses.create(model="echo", conversation=conversation.id, input="one")
    second = ann.responses.create(model="echo", previous_response_id=first.id, input="two")
    assert second.previous_response_id == first.id
    assert history(ann, conversation.id) == [
        ("user", "one"),
        ("assistant", "one"),
        ("user", "two"),
        ("assistant", "two"),
    ]


def test_a_chain_needs_no_conversation_of_its_own(ann):
    link = ann.responses.create(model="echo", input="0")
    for text in ("1", "2"):
        following = ann.responses.create(model="echo", previous_response_id=link.id, input=text)
        assert (following.previous_response_id, following.output_text) == (link.id, text)
        link = following


def test_a_chain_from_an_older_response_forks(ann, conversation):
    older = ann.responses.create(model="echo", conversation=conversation.id, input="one")
    ann.responses.create(model="echo", conversation=conversation.id, input="two")
    before = history(ann, conversation.id)
    branch = ann.responses.create(model="echo", previous_response_id=older.id, input="another two")
    assert (branch.status, branch.output_text) == ("completed", "another two")
    assert history(ann, conversation.id) == before

    longer = ann.responses.create(model="echo", previous_response_id=branch.id, input="three")
    assert longer.previous_response_id == branch.id
    assert history(ann, conversation.id) == before


def test_a_response_that_is_not_stored_cannot_be_chained(ann):
    unstored = ann.responses.create(model="echo", input="hi", store=False)
    with pytest.raises(openai.BadRequestError):
        ann.responses.create(model="echo", previous_response_id=unstored.id, input="again")


def test_a_chain_from_an_unknown_response_is_not_found(ann):
    made = ann.responses.create(model="echo", input="hi")
    ann.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        ann.responses.create(model="echo", previous_response_id=made.id, input="again")


def test_a_conversation_and_a_previous_response_exclude_one_another(ann, conversation):
    made = ann.responses.create(model="echo", conversation=conversation.id, input="hi")
    with pytest.raises(openai.BadRequestError):
        ann.responses.create(model="echo", conversation=conversation.id, previous_response_id=made.id, input="again")
