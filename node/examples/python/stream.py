"""An answer, shown as it is made."""

import os

from openai import OpenAI

client = OpenAI(base_url=os.environ["KLATCH_URL"] + "/v1", api_key=os.environ["KLATCH_TOKEN"])
model = os.environ.get("KLATCH_MODEL", "eliza")

stream = client.responses.create(model=model, input="I had a strange dream about my computer.", stream=True)
for event in stream:
    if event.type == "response.created":
        print(event.response.id, "has begun")
    elif event.type == "response.output_text.delta":
        print(event.delta, end="", flush=True)
    elif event.type in ("response.completed", "response.incomplete", "response.failed"):
        print(f"\nit is {event.response.status}")

# What was streamed is kept, and can be had again, now or tomorrow.
kept = client.responses.retrieve(event.response.id)
print("kept:", kept.output_text)
