"""A stream that goes on where its connection broke: `starting_after`, with no hole and no repeat.

The answer is made whether or not somebody reads it, and its events have numbers that never change.
"""

import os
import uuid

import httpx2
from openai import APIConnectionError, DefaultHttpxClient, OpenAI


def events(client, **turn):
    """The events of one turn, each once and in order, over as many connections as it takes."""
    key = {"Idempotency-Key": str(uuid.uuid4())}
    response, last, failures = None, -1, 0
    while True:
        try:
            if response is None:
                # Under its key the turn is made once, however often it is sent.
                stream = client.responses.create(**turn, stream=True, extra_headers=key)
            else:
                stream = client.responses.retrieve(response, stream=True, starting_after=last)
            for event in stream:
                if event.type == "response.created":
                    response = event.response.id
                last, failures = event.sequence_number, 0
                yield event
            return
        except APIConnectionError:
            failures += 1
            if failures > 10:
                raise
            print(f" [the connection broke after event {last}] ", end="", flush=True)


class Breaking(httpx2.SyncByteStream):
    """For this example: what is read of a connection, until it breaks."""

    def __init__(self, connection, size):
        self.connection, self.left = connection, size

    def __iter__(self):
        for piece in self.connection:
            yield piece[: self.left]
            self.left -= len(piece)
            if self.left <= 0:
                raise httpx2.ReadError("the cable was pulled")

    def close(self):
        self.connection.close()


def pull_the_cable(response):
    """The first two connections break, each in the middle of an event."""
    if cuts:
        response.stream = Breaking(response.stream, cuts.pop(0))


cuts = [3_000, 2_000]
client = OpenAI(
    base_url=os.environ["KLATCH_URL"] + "/v1",
    api_key=os.environ["KLATCH_TOKEN"],
    http_client=DefaultHttpxClient(event_hooks={"response": [pull_the_cable]}),
)
model = os.environ.get("KLATCH_MODEL", "echo")
question = "Count with me: " + " ".join(f"{n}," for n in range(1, 31)) + " done."

seen = []
for event in events(client, model=model, input=question):
    seen.append(event)
    if event.type == "response.output_text.delta":
        print(event.delta, end="", flush=True)
print()

numbers = [event.sequence_number for event in seen]
whole = numbers == list(range(len(numbers)))
print(f"events 0 to {numbers[-1]}:", "none is missing, none came twice" if whole else f"WRONG: {numbers}")
text = "".join(event.delta for event in seen if event.type == "response.output_text.delta")
print("the text is", "whole" if text == seen[-1].response.output_text else "NOT WHOLE")
