"""Chat as it is often begun: Flask, and Redis with one JSON value for each conversation, which every turn reads, extends and
writes whole. No order between requests, no idempotency, no fence. The same request and the same answer as everywhere here.

Started by gunicorn; REDIS_URL and BASELINE_SECRET are in its environment.
"""

import json
import os
import time
import uuid

import jwt
import redis
from flask import Flask, abort, jsonify, request

SECRET = os.environ["BASELINE_SECRET"]

app = Flask(__name__)
store = redis.Redis.from_url(os.environ["REDIS_URL"])


@app.post("/v1/responses")
def create():
    owner = subject()
    body = request.get_json()
    key = f"conversation:{owner}:{body['conversation']}"
    value = store.get(key)
    if value is None:
        abort(404)
    conversation = json.loads(value)
    reply = echo(conversation["items"], body["input"])
    said = message("user", {"type": "input_text", "text": body["input"]})
    answered = message("assistant", {"type": "output_text", "text": reply, "annotations": [], "logprobs": []})
    conversation["items"] += [said, answered]
    store.set(key, json.dumps(conversation))
    return jsonify(response(body, answered, len(body["input"].split()), len(reply.split())))


def subject():
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    if kind != "Bearer":
        abort(401)
    try:
        return jwt.decode(token, SECRET, algorithms=["HS256"])["sub"]
    except jwt.InvalidTokenError:
        abort(401)


def echo(history, text):
    """What a model would be: it is given the history, and says the input again."""
    return text


def message(role, part):
    return {"type": "message", "id": f"msg_{uuid.uuid4().hex}", "role": role, "status": "completed", "content": [part]}


def response(body, answered, input_tokens, output_tokens):
    now = int(time.time())
    return {
        "id": f"resp_{uuid.uuid4().hex}",
        "object": "response",
        "created_at": now,
        "status": "completed",
        "completed_at": now,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "model": body["model"],
        "output": [answered],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "conversation": {"id": body["conversation"]},
        "reasoning": None,
        "store": True,
        "background": False,
        "temperature": 1.0,
        "top_p": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "top_logprobs": 0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "truncation": "disabled",
        "service_tier": "default",
        "safety_identifier": None,
        "prompt_cache_key": None,
        "metadata": {},
        "usage": {
            "input_tokens": input_tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": input_tokens + output_tokens,
        },
    }
