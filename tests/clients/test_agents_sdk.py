"""The OpenAI Agents SDK over the Responses API: conversations, a streamed run, a tool, and its session."""

import asyncio
import contextlib

import pytest
from agents import (
    Agent,
    OpenAIConversationsSession,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)

import node
from weather import ANSWER, QUESTION

# It would send traces to its vendor.
set_tracing_disabled(True)


@contextlib.asynccontextmanager
async def an_agent(model: str, **options):
    """An agent that answers through one of the node's models, and the client it uses."""
    async with node.strict_async_client() as client:
        responder = OpenAIResponsesModel(model=model, openai_client=client)
        yield Agent(name="Ann's agent", instructions="Be brief.", model=responder, **options), client


async def texts_in(client, conversation_id) -> list[str]:
    page = client.conversations.items.list(conversation_id, order="asc")
    return ["".join(part.text for part in item.content) async for item in page if item.type == "message"]


def test_an_agent_holds_a_conversation():
    async def hold():
        async with an_agent("echo") as (agent, client):
            conversation = await client.conversations.create()
            for text in ("one", "two"):
                run = await Runner.run(agent, text, conversation_id=conversation.id)
                assert run.final_output == text
            return await texts_in(client, conversation.id)

    assert asyncio.run(hold()) == ["one", "one", "two", "two"]


def test_an_agent_goes_on_a_chain():
    async def hold():
        async with an_agent("echo") as (agent, _):
            first = await Runner.run(agent, "one")
            second = await Runner.run(agent, "two", previous_response_id=first.last_response_id)
            return first, second

    first, second = asyncio.run(hold())
    assert (first.final_output, second.final_output) == ("one", "two")
    assert first.last_response_id != second.last_response_id


def test_an_agent_sends_the_whole_history_itself():
    async def hold():
        async with an_agent("echo") as (agent, _):
            first = await Runner.run(agent, "one")
            history = first.to_input_list() + [{"role": "user", "content": "two"}]
            return await Runner.run(agent, history)

    assert asyncio.run(hold()).final_output == "two"


def test_an_agents_run_is_streamed():
    async def stream():
        async with an_agent("echo") as (agent, _):
            run = Runner.run_streamed(agent, "one two three")
            raw = [event.data async for event in run.stream_events() if event.type == "raw_response_event"]
            return raw, run.final_output

    raw, output = asyncio.run(stream())
    pieces = [event.delta for event in raw if event.type == "response.output_text.delta"]
    assert "".join(pieces) == output == "one two three"
    assert raw[-1].type == "response.completed"


@pytest.mark.parametrize("memory", ["whole history", "chain", "conversation"])
@pytest.mark.parametrize("streamed", [False, True], ids=["waited for", "streamed"])
def test_an_agent_uses_a_tool(memory, streamed):
    cities = []

    @function_tool
    def get_weather(city: str) -> str:
        """The weather in a city."""
        cities.append(city)
        return '{"degrees": 21}'

    async def ask():
        async with an_agent("tools", tools=[get_weather]) as (agent, client):
            options = {
                "whole history": {},
                "chain": {"auto_previous_response_id": True},
                "conversation": {"conversation_id": (await client.conversations.create()).id},
            }[memory]
            if not streamed:
                return await Runner.run(agent, QUESTION, **options)
            run = Runner.run_streamed(agent, QUESTION, **options)
            async for _ in run.stream_events():
                pass
            return run

    run = asyncio.run(ask())
    assert run.final_output == ANSWER
    assert cities == ["Paris"]
    assert len(run.raw_responses) == 2


def test_a_session_keeps_its_history_in_a_conversation():
    async def hold():
        async with an_agent("echo") as (agent, client):
            session = OpenAIConversationsSession(openai_client=client)
            for text in ("one", "two"):
                run = await Runner.run(agent, text, session=session)
                assert run.final_output == text
            kept = await texts_in(client, session.session_id)
            newest = await session.get_items(limit=1)
            popped = await session.pop_item()
            rest = await session.get_items()
            await session.clear_session()
            return kept, newest, popped, rest

    kept, newest, popped, rest = asyncio.run(hold())
    assert kept == ["one", "one", "two", "two"]
    assert newest == [popped]
    assert len(rest) == 3


def test_a_session_keeps_calls_and_their_results():
    @function_tool
    def get_weather(city: str) -> str:
        """The weather in a city."""
        return city

    async def hold():
        async with an_agent("tools", tools=[get_weather]) as (agent, client):
            session = OpenAIConversationsSession(openai_client=client)
            await Runner.run(agent, QUESTION, session=session)
            return [item["type"] for item in await session.get_items()]

    assert asyncio.run(hold()) == ["message", "function_call", "function_call_output", "message"]
