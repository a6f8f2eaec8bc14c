"""Refusals: each has its status, the four keys of an error, and a request id."""

import pytest

import node

HI = {"model": "echo", "input": "hi"}
UNKNOWN = "0" * 48
REFUSED = {
    "a body that is no JSON": (400, "POST", "/responses", {"content": b"{"}),
    "a body that is no object": (400, "POST", "/responses", {"json": [1]}),
    "no model": (400, "POST", "/responses", {"json": {"input": "hi"}}),
    "an item of an unknown type": (400, "POST", "/responses", {"json": {**HI, "input": [{"type": "riddle"}]}}),
    "a number as input": (400, "POST", "/responses", {"json": {**HI, "input": 7}}),
    "metadata that is too much": (
        400,
        "POST",
        "/conversations",
        {"json": {"metadata": {str(n): "v" for n in range(17)}}},
    ),
    "a metadata key that is too long": (400, "POST", "/conversations", {"json": {"metadata": {"k" * 65: "v"}}}),
    "a metadata value that is too long": (400, "POST", "/conversations", {"json": {"metadata": {"k": "v" * 513}}}),
    "an unknown order": (400, "GET", "/conversations?order=sideways", {}),
    "an unknown conversation": (404, "GET", f"/conversations/conv_{UNKNOWN}", {}),
    "a conversation id of no shape": (404, "GET", "/conversations/nonsense", {}),
    "an unknown response": (404, "GET", f"/responses/resp_{UNKNOWN}", {}),
    "a turn in an unknown conversation": (
        404,
        "POST",
        "/responses",
        {"json": {**HI, "conversation": f"conv_{UNKNOWN}"}},
    ),
    "an unknown model's page": (404, "GET", "/models/nobody", {}),
    "a path that is not there": (404, "GET", "/nowhere", {}),
    "compaction, which is not offered": (404, "POST", "/responses/compact", {"json": HI}),
    "no credential": (401, "GET", "/models", {"headers": {"Authorization": ""}}),
    "a credential that is not ours": (401, "GET", "/models", {"headers": {"Authorization": "Bearer nonsense"}}),
    "a credential in the address": (
        401,
        "GET",
        "/models?access_token=nonsense",
        {"headers": {"Authorization": ""}},
    ),
}


@pytest.mark.parametrize(("status", "method", "path", "request_options"), REFUSED.values(), ids=REFUSED.keys())
def test_is_refused_with_a_whole_error(http, status, method, path, request_options):
    answer = http.request(method, path, **request_options)
    assert answer.status_code == status, answer.text
    assert_whole_error(answer)


def test_an_unknown_model_is_refused(http):
    answer = http.post("/responses", json={**HI, "model": "nobody"})
    assert answer.status_code in (400, 404), answer.text
    assert_whole_error(answer)
    assert answer.json()["error"]["param"] == "model"


def test_a_wrong_credential_has_its_own_code(http):
    answer = http.get("/models", headers={"Authorization": f"Bearer {node.token()}x"})
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"


def test_a_good_answer_has_a_request_id_too(http):
    assert http.get("/models").headers["x-request-id"]


def assert_whole_error(answer):
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.headers["x-request-id"]
    assert set(answer.json()) == {"error"}
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["type"]
