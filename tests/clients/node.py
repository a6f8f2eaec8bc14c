"""The node under test: where it is, who speaks to it, and how long a test waits for it.

The environment names the node; a variable that is missing ends the run. The node serves the models
`eliza`, `echo`, `slow` (forty tokens in about two seconds), `tools` (calls the first function that it
is offered, then answers in words) and `failing` (every answer fails).
"""

import os
import time
from collections.abc import Callable
from typing import TypeVar

import httpx
from openai import AsyncOpenAI, OpenAI

VARIABLES = (
    "KLATCH_URL",
    "KLATCH_TOKEN",
    "KLATCH_TOKEN_OTHER",
    "KLATCH_TOKEN_OTHER_TENANT",
    "KLATCH_WEBHOOK_URL",
    "KLATCH_WEBHOOK_SECRET",
)

# The longest answer takes about two seconds; ten times that is a node that is stuck.
PATIENCE_SECONDS = 20.0
POLL_SECONDS = 0.05

ENDED = {"completed", "failed", "cancelled", "incomplete"}

Found = TypeVar("Found")


def missing_variables() -> list[str]:
    return [name for name in VARIABLES if not os.environ.get(name)]


def url() -> str:
    return os.environ["KLATCH_URL"].rstrip("/")


def api() -> str:
    return f"{url()}/v1"


def token() -> str:
    return os.environ["KLATCH_TOKEN"]


def strict_client(variable: str) -> OpenAI:
    """The official client, which here refuses an answer that is not what its types say, and retries nothing."""
    return OpenAI(
        base_url=api(),
        api_key=os.environ[variable],
        max_retries=0,
        timeout=PATIENCE_SECONDS,
        _strict_response_validation=True,
    )


def strict_async_client() -> AsyncOpenAI:
    return AsyncOpenAI(
        base_url=api(),
        api_key=token(),
        max_retries=0,
        timeout=PATIENCE_SECONDS,
        _strict_response_validation=True,
    )


def plain_http() -> httpx.Client:
    """For what the SDK has no method for, and for the bytes themselves."""
    return httpx.Client(
        base_url=api(),
        headers={"Authorization": f"Bearer {token()}"},
        timeout=PATIENCE_SECONDS,
    )


def until(look: Callable[[], Found], holds: Callable[[Found], bool]) -> Found:
    """Looks again and again until what it sees holds, and fails with what it saw last."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        seen = look()
        if holds(seen):
            return seen
        assert time.monotonic() < deadline, f"waited {PATIENCE_SECONDS} s, and saw last: {seen}"
        time.sleep(POLL_SECONDS)


def ended(client: OpenAI, response_id: str):
    """The response, once it has ended in whatever way."""
    return until(lambda: client.responses.retrieve(response_id), lambda seen: seen.status in ENDED)
