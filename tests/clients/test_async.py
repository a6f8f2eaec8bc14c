"""The asynchronous client: many conversations at once, and a stream."""

import asyncio

import node
from reading import texts


def test_many_conversations_are_held_at_once():
    async def hold(client, n):
        conversation = await client.conversations.create(metadata={"n": str(n)})
        for text in (f"{n} one", f"{n} two"):
            made = await client.responses.create(model="echo", conversation=conversation.id, input=text)
            assert made.output_text == text
        items = [item async for item in client.conversations.items.list(conversation.id, order="asc")]
        return [text for _, text in texts(items)]

    async def hold_all():
        async with node.strict_async_client() as client:
            return await asyncio.gather(*(hold(client, n) for n in range(10)))

    assert asyncio.run(hold_all()) == [[f"{n} one"] * 2 + [f"{n} two"] * 2 for n in range(10)]


def test_a_stream_is_read_asynchronously():
    async def read():
        async with node.strict_async_client() as client:
            stream = await client.responses.create(model="echo", input="one two", stream=True)
            return [event async for event in stream]

    told = asyncio.run(read())
    assert [event.sequence_number for event in told] == list(range(len(told)))
    assert told[-1].response.output_text == "one two"
