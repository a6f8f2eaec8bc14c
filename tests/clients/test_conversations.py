"""Conversations: made, read, changed, listed, forked and deleted."""

import uuid

import openai
import pytest

from reading import history


def test_a_new_conversation_can_be_read_back(ann):
    made = ann.conversations.create(metadata={"topic": "coffee"})
    assert made.id.startswith("conv_")
    assert made.metadata == {"topic": "coffee"}
    assert ann.conversations.retrieve(made.id) == made


def test_a_conversation_may_begin_with_items(ann):
    made = ann.conversations.create(
        items=[
            {"role": "system", "content": "Be brief."},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello."}]},
        ]
    )
    assert history(ann, made.id) == [("system", "Be brief."), ("user", "Hello.")]


def test_an_empty_list_of_items_is_a_conversation_without_items(ann):
    made = ann.conversations.create(items=[])
    assert history(ann, made.id) == []


def test_an_update_replaces_the_whole_metadata(ann):
    made = ann.conversations.create(metadata={"a": "1", "b": "2"})
    changed = ann.conversations.update(made.id, metadata={"b": "3"})
    assert changed.metadata == {"b": "3"}
    assert ann.conversations.retrieve(made.id).metadata == {"b": "3"}


def test_a_deleted_conversation_is_gone_with_its_items(ann):
    made = ann.conversations.create(items=[{"role": "user", "content": "Forget me."}])
    item = ann.conversations.items.list(made.id).data[0]
    gone = ann.conversations.delete(made.id)
    assert (gone.id, gone.deleted) == (made.id, True)
    with pytest.raises(openai.NotFoundError):
        ann.conversations.retrieve(made.id)
    with pytest.raises(openai.NotFoundError):
        ann.conversations.items.retrieve(item.id, conversation_id=made.id)


def test_a_list_goes_on_behind_a_conversation_that_is_gone(ann, http):
    mark = uuid.uuid4().hex
    made = [ann.conversations.create(metadata={"mark": mark}).id for _ in range(3)]
    ann.conversations.delete(made[1])
    answer = http.get("/conversations", params={"metadata[mark]": mark, "order": "asc", "after": made[1]})
    assert [each["id"] for each in answer.json()["data"]] == made[2:]


def test_conversations_are_listed_by_page_and_by_metadata(ann, http):
    mark = uuid.uuid4().hex
    made = [ann.conversations.create(metadata={"mark": mark, "n": str(n)}).id for n in range(3)]

    def listed(**query):
        answer = http.get("/conversations", params={"metadata[mark]": mark, **query})
        assert answer.status_code == 200, answer.text
        return answer.json()

    first = listed(order="asc", limit=2)
    assert first["object"] == "list"
    assert [each["id"] for each in first["data"]] == made[:2]
    assert (first["first_id"], first["last_id"], first["has_more"]) == (made[0], made[1], True)

    rest = listed(order="asc", limit=2, after=first["last_id"])
    assert [each["id"] for each in rest["data"]] == made[2:]
    assert rest["has_more"] is False

    assert [each["id"] for each in listed(order="desc")["data"]] == made[::-1]
    nothing = listed(**{"metadata[mark]": "no such mark"})
    assert nothing == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


def test_a_fork_goes_its_own_way(ann, http):
    made = ann.conversations.create()
    ann.responses.create(model="echo", conversation=made.id, input="one")
    forked = fork(http, made.id)
    assert forked != made.id
    ann.responses.create(model="echo", conversation=forked, input="two")
    assert history(ann, made.id) == [("user", "one"), ("assistant", "one")]
    assert history(ann, forked) == [("user", "one"), ("assistant", "one"), ("user", "two"), ("assistant", "two")]


def test_a_fork_after_an_item_ends_with_that_item(ann, http):
    made = ann.conversations.create(items=[{"role": "user", "content": text} for text in ("one", "two", "three")])
    second = ann.conversations.items.list(made.id, order="asc").data[1]
    assert history(ann, fork(http, made.id, after=second.id)) == [("user", "one"), ("user", "two")]


def fork(http, conversation_id, **body) -> str:
    answer = http.post(f"/conversations/{conversation_id}/fork", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["object"] == "conversation"
    return answer.json()["id"]
