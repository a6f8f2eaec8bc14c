"""A key for every request, so that a turn that the SDK sends again is made once."""

import os
import uuid

import httpx2
from openai import DefaultHttpxClient, OpenAI


def lose_the_answer(response):
    """For this example: the first answer to a turn is lost on its way, when all is done at the server."""
    if lost["turns"] == 0 and response.request.url.path.endswith("/responses"):
        lost["turns"] += 1
        response.read()
        raise httpx2.ReadError("the answer was lost")


def turns_after_a_lost_answer(client):
    lost["turns"] = 0
    conversation = client.conversations.create()
    # The SDK does not see the answer, waits a little, and sends the turn again.
    client.responses.create(model=model, conversation=conversation.id, input="Order one pizza.")
    return len(client.conversations.items.list(conversation.id).data) // 2


lost = {"turns": 0}
model = os.environ.get("KLATCH_MODEL", "eliza")
client = OpenAI(
    base_url=os.environ["KLATCH_URL"] + "/v1",
    api_key=os.environ["KLATCH_TOKEN"],
    http_client=DefaultHttpxClient(event_hooks={"response": [lose_the_answer]}),
)
print("without keys, turns made:", turns_after_a_lost_answer(client))

# The line that turns them on: each call has a key, and the SDK's retries of that call the same one. A client that
# `with_options` makes of this one needs the line again.
client._idempotency_header = "Idempotency-Key"

print("with keys, turns made:", turns_after_a_lost_answer(client))

# A retry of your own, perhaps after a restart of your program, has the key of what it is about.
order = {"Idempotency-Key": f"order-{uuid.uuid4()}"}
first = client.responses.create(model=model, input="Order one pizza.", extra_headers=order)
again = client.responses.with_raw_response.create(model=model, input="Order one pizza.", extra_headers=order)
print("sent again: the same response", again.parse().id == first.id, "- replayed", again.headers["Idempotent-Replayed"])
