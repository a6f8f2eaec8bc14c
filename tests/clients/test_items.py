"""Items of a conversation: added, read by page, and taken away."""

import openai
import pytest

from reading import history, text_of


@pytest.fixture
def five(ann):
    """A conversation of five messages, named for their order."""
    return ann.conversations.create(items=[{"role": "user", "content": str(n)} for n in range(5)])


def test_added_items_are_answered_in_order_and_stay(ann, conversation):
    added = ann.conversations.items.create(
        conversation.id,
        items=[
            {"type": "message", "role": "user", "content": "What is the time?"},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Noon."}]},
        ],
    )
    assert [text_of(item) for item in added.data] == ["What is the time?", "Noon."]
    assert (added.first_id, added.last_id) == (added.data[0].id, added.data[1].id)
    assert [item.status for item in added.data] == ["completed", "completed"]
    assert history(ann, conversation.id) == [("user", "What is the time?"), ("assistant", "Noon.")]


def test_an_item_can_be_read_by_its_id(ann, five):
    item = ann.conversations.items.list(five.id).data[0]
    assert ann.conversations.items.retrieve(item.id, conversation_id=five.id) == item


def test_items_are_listed_newest_first_unless_asked_otherwise(ann, five):
    assert [text_of(item) for item in ann.conversations.items.list(five.id)] == ["4", "3", "2", "1", "0"]
    assert [text_of(item) for item in ann.conversations.items.list(five.id, order="asc")] == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_the_sdk_pages_through_all_items(ann, five, order):
    page = ann.conversations.items.list(five.id, order=order, limit=2)
    assert len(page.data) == 2
    assert page.has_next_page()
    seen = [text_of(item) for item in page]
    assert seen == sorted("01234", reverse=order == "desc")


def test_a_page_begins_after_the_item_that_is_named(ann, five):
    oldest_first = ann.conversations.items.list(five.id, order="asc").data
    page = ann.conversations.items.list(five.id, order="asc", after=oldest_first[2].id)
    assert [text_of(item) for item in page.data] == ["3", "4"]
    assert page.has_more is False


def test_a_deleted_item_is_gone_and_the_conversation_is_answered(ann, five):
    item = ann.conversations.items.list(five.id, order="asc").data[1]
    answered = ann.conversations.items.delete(item.id, conversation_id=five.id)
    assert answered.id == five.id
    assert [text for _, text in history(ann, five.id)] == ["0", "2", "3", "4"]
    with pytest.raises(openai.NotFoundError):
        ann.conversations.items.retrieve(item.id, conversation_id=five.id)


def test_the_same_item_a_second_time_is_ignored(ann, conversation):
    item = {"id": "msg_once", "type": "message", "role": "user", "content": "Only once."}
    ann.conversations.items.create(conversation.id, items=[item])
    ann.conversations.items.create(conversation.id, items=[item])
    assert history(ann, conversation.id) == [("user", "Only once.")]


def test_twenty_items_at_a_time_and_no_more(ann, conversation):
    def add(count):
        return ann.conversations.items.create(
            conversation.id, items=[{"role": "user", "content": str(n)} for n in range(count)]
        )

    assert len(add(20).data) == 20
    with pytest.raises(openai.BadRequestError):
        add(21)


@pytest.mark.parametrize("limit", [0, 101])
def test_a_page_has_one_to_a_hundred_items(ann, conversation, limit):
    with pytest.raises(openai.BadRequestError):
        ann.conversations.items.list(conversation.id, limit=limit)


def test_an_image_keeps_its_address(ann, conversation):
    address = "data:image/png;base64,iVBORw0KGgo="
    content = [{"type": "input_text", "text": "Look:"}, {"type": "input_image", "image_url": address}]
    added = ann.conversations.items.create(conversation.id, items=[{"role": "user", "content": content}])
    image = added.data[0].content[1]
    assert (image.type, image.image_url, image.detail) == ("input_image", address, "auto")
