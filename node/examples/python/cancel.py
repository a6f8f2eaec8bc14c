"""A turn in the background, looked at while it runs, and stopped. Needs a model that takes its time."""

import os

from openai import OpenAI

client = OpenAI(base_url=os.environ["KLATCH_URL"] + "/v1", api_key=os.environ["KLATCH_TOKEN"])
model = os.environ.get("KLATCH_MODEL", "slow")

started = client.responses.create(model=model, input="Write me a very long story.", background=True)
print(started.id, "is", started.status)

# Anybody who knows the id may read along. Leaving does not stop a turn; cancelling does.
words = 0
with client.responses.retrieve(started.id, stream=True) as stream:
    for event in stream:
        if event.type == "response.output_text.delta":
            print(event.delta, end="", flush=True)
            words += 1
        if words == 3:
            break
print(" … that is enough")

client.responses.cancel(started.id)

# The stream ends when the turn does, so that nobody has to poll.
for event in client.responses.retrieve(started.id, stream=True):
    pass
stopped = event.response
print(stopped.id, "is", stopped.status, "- it said:", stopped.output_text)
