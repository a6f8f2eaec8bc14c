"""Short ways to say what an answer holds: texts of items, facts of streams, frames of raw streams."""

import json
from dataclasses import dataclass


def text_of(item) -> str:
    """The text of a message item, all parts together."""
    return "".join(part.text for part in item.content)


def texts(items) -> list[tuple[str, str]]:
    """(role, text) of each message."""
    return [(item.role, text_of(item)) for item in items]


def history(client, conversation_id) -> list[tuple[str, str]]:
    """What a conversation holds, oldest first."""
    return texts(client.conversations.items.list(conversation_id, order="asc", limit=100))


def until_text(stream) -> list:
    """Reads a stream up to its first piece of text, and leaves it open."""
    seen = []
    for event in stream:
        seen.append(event)
        if event.type == "response.output_text.delta":
            return seen
    raise AssertionError(f"the stream ended without text: {[event.type for event in seen]}")


def types_once(events) -> list[str]:
    """The types of a stream in the order in which each came first; a turn may or may not have been queued."""
    return [kind for kind in dict.fromkeys(event.type for event in events) if kind != "response.queued"]


def as_sent(events) -> list[dict]:
    """Events as the node wrote them, fields that the SDK does not know included."""
    return [event.to_dict(mode="json") for event in events]


@dataclass
class Frame:
    """One block of a raw event stream."""

    event: str | None
    id: str | None
    data: str

    def json(self) -> dict:
        return json.loads(self.data)


def frames(body: str) -> list[Frame]:
    """The blocks of a whole raw stream; blocks that hold only comments are left out."""
    assert body.endswith("\n\n"), f"the stream ends in the middle of a block: {body[-80:]!r}"
    found = []
    for block in body.removesuffix("\n\n").split("\n\n"):
        lines = [line for line in block.split("\n") if not line.startswith(":")]
        if lines:
            found.append(frame(lines))
    return found


def frame(lines: list[str]) -> Frame:
    fields = dict(line.split(": ", 1) for line in lines)
    assert len(fields) == len(lines), f"a field stands twice in {lines}"
    assert set(fields) <= {"event", "id", "data"}, f"unexpected fields in {lines}"
    assert "data" in fields, f"a block without data: {lines}"
    return Frame(fields.get("event"), fields.get("id"), fields["data"])
