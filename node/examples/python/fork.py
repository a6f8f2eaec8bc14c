"""Another way from an earlier point: an older response is answered again, and both branches go on."""

import os

from openai import OpenAI
from openai.types.conversations import Conversation

client = OpenAI(base_url=os.environ["KLATCH_URL"] + "/v1", api_key=os.environ["KLATCH_TOKEN"])
model = os.environ.get("KLATCH_MODEL", "eliza")


def say(text, after=None):
    return client.responses.create(model=model, input=text, previous_response_id=after and after.id)


def told(response):
    """What was said up to a response, oldest first."""
    before = told(client.responses.retrieve(response.previous_response_id)) if response.previous_response_id else []
    asked = [item.content[0].text for item in client.responses.input_items.list(response.id)]
    return [*before, *asked, response.output_text]


hello = say("Hello. I am unhappy.")
work = say("It is because of my work.", after=hello)
late = say("I always have to stay late.", after=work)

# Back to the first answer, and another way from there. What both share is stored once.
family = say("It is because of my mother.", after=hello)

print("one branch:", *told(late), sep="\n  ")
print("the other:", *told(family), sep="\n  ")

# A conversation is forked behind one of its items; the SDK has no method for it, as it is Klatch's own.
conversation = client.conversations.create()
for text in ("I am tired.", "I dreamt of my computer."):
    client.responses.create(model=model, conversation=conversation.id, input=text)
items = client.conversations.items.list(conversation.id, order="asc").data
branch = client.post(f"/conversations/{conversation.id}/fork", cast_to=Conversation, body={"after": items[1].id})
client.responses.create(model=model, conversation=branch.id, input="It is because of my brother.")


def asked(conversation):
    items = client.conversations.items.list(conversation.id, order="asc")
    return [item.content[0].text for item in items if item.role == "user"]


print("the conversation:", *asked(conversation))
print("its branch:", *asked(branch))
