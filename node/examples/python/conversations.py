"""A conversation with a name and things in it: metadata, items, paging, finding it again, and its end."""

import os
import uuid

from openai import NotFoundError, OpenAI

client = OpenAI(base_url=os.environ["KLATCH_URL"] + "/v1", api_key=os.environ["KLATCH_TOKEN"])
model = os.environ.get("KLATCH_MODEL", "eliza")

# What was said elsewhere can be put in at the beginning.
ticket = f"ticket-{uuid.uuid4()}"
conversation = client.conversations.create(
    metadata={"ticket": ticket, "state": "open"},
    items=[
        {"type": "message", "role": "user", "content": "My printer is on fire."},
        {"type": "message", "role": "assistant", "content": "Please go on."},
    ],
)
client.responses.create(model=model, conversation=conversation.id, input="It is still burning.")

# Something that a colleague adds, without asking for an answer.
client.conversations.items.create(
    conversation.id, items=[{"type": "message", "role": "user", "content": "It has burned down."}]
)

# Two items a page; the SDK gets the next page by itself.
for item in client.conversations.items.list(conversation.id, order="asc", limit=2):
    print(f"{item.role}: {item.content[0].text}")

# The whole of the metadata is replaced.
client.conversations.update(conversation.id, metadata={"ticket": ticket, "state": "closed"})

# Klatch lists conversations too, which the SDK has no method for.
found = client.get("/conversations", cast_to=object, options={"params": {"metadata[ticket]": ticket}})
print("found again:", *[one["metadata"]["state"] for one in found["data"]])

print("deleted:", client.conversations.delete(conversation.id).deleted)
try:
    client.conversations.retrieve(conversation.id)
except NotFoundError as gone:
    print("and gone:", gone.status_code)
