"""What belongs to ann is not there for anybody else: another user, or another tenant."""

import openai
import pytest

from reading import history


class Belongings:
    """One conversation of ann's with one finished turn."""

    def __init__(self, ann):
        self.conversation = ann.conversations.create(metadata={"owner": "ann"}).id
        made = ann.responses.create(model="echo", conversation=self.conversation, input="secret")
        self.response = made.id
        self.item = made.output[0].id


ATTEMPTS = {
    "reading the conversation": lambda c, its: c.conversations.retrieve(its.conversation),
    "changing the conversation": lambda c, its: c.conversations.update(its.conversation, metadata={"owner": "me"}),
    "deleting the conversation": lambda c, its: c.conversations.delete(its.conversation),
    "forking the conversation": lambda c, its: c.post(
        f"/conversations/{its.conversation}/fork", body={}, cast_to=object
    ),
    "listing the items": lambda c, its: c.conversations.items.list(its.conversation),
    "adding an item": lambda c, its: c.conversations.items.create(
        its.conversation, items=[{"role": "user", "content": "mine"}]
    ),
    "reading an item": lambda c, its: c.conversations.items.retrieve(its.item, conversation_id=its.conversation),
    "deleting an item": lambda c, its: c.conversations.items.delete(its.item, conversation_id=its.conversation),
    "reading the response": lambda c, its: c.responses.retrieve(its.response),
    "streaming the response": lambda c, its: list(c.responses.retrieve(its.response, stream=True)),
    "cancelling the response": lambda c, its: c.responses.cancel(its.response),
    "deleting the response": lambda c, its: c.responses.delete(its.response),
    "listing the input items": lambda c, its: c.responses.input_items.list(its.response),
    "a turn in the conversation": lambda c, its: c.responses.create(
        model="echo", conversation=its.conversation, input="hi"
    ),
    "a streamed turn in the conversation": lambda c, its: list(
        c.responses.create(model="echo", conversation=its.conversation, input="hi", stream=True)
    ),
    "going on the chain": lambda c, its: c.responses.create(
        model="echo", previous_response_id=its.response, input="hi"
    ),
    "naming the item in a turn": lambda c, its: c.responses.create(
        model="echo", input=[{"type": "item_reference", "id": its.item}, {"role": "user", "content": "hi"}]
    ),
    "naming the item in a new conversation": lambda c, its: c.conversations.create(
        items=[{"type": "item_reference", "id": its.item}]
    ),
}


@pytest.fixture(scope="module")
def anns(ann):
    return Belongings(ann)


@pytest.fixture(params=["other", "other_tenant"])
def stranger(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS.keys())
def test_is_not_found_for_a_stranger(stranger, anns, attempt):
    with pytest.raises(openai.NotFoundError):
        attempt(stranger, anns)


def test_a_stranger_is_told_the_same_as_of_what_never_was(stranger, anns):
    def refusal(conversation_id):
        with pytest.raises(openai.NotFoundError) as refused:
            stranger.conversations.retrieve(conversation_id)
        return {**refused.value.body, "message": refused.value.message.replace(conversation_id, "ID")}

    assert refusal(anns.conversation) == refusal("conv_" + "0" * 48)


def test_a_strangers_list_does_not_show_it(stranger, anns):
    listed = stranger.get("/conversations?limit=100", cast_to=object)
    assert anns.conversation not in [each["id"] for each in listed["data"]]


def test_all_attempts_left_everything_as_it_was(ann, stranger, anns):
    for attempt in ATTEMPTS.values():
        with pytest.raises(openai.NotFoundError):
            attempt(stranger, anns)
    assert ann.conversations.retrieve(anns.conversation).metadata == {"owner": "ann"}
    assert history(ann, anns.conversation) == [("user", "secret"), ("assistant", "secret")]
    assert ann.responses.retrieve(anns.response).status == "completed"
