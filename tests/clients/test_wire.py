"""The bytes of a stream: its frames, its headers, its end, and what a browser's EventSource gets."""

import pytest

from reading import frames

REQUEST = {"model": "echo", "input": "one two three", "stream": True}


@pytest.fixture(scope="module")
def answer(http):
    with_everything = {"Accept": "application/json", "Accept-Encoding": "gzip, br, zstd"}
    return http.post("/responses", json=REQUEST, headers=with_everything)


@pytest.fixture(scope="module")
def response_id(answer):
    return frames(answer.text)[0].json()["response"]["id"]


def test_each_frame_names_its_event_and_holds_one_line_of_json(answer):
    *events, end = frames(answer.text)
    for number, frame in enumerate(events):
        assert frame.event == frame.json()["type"]
        assert frame.json()["sequence_number"] == number
    assert (end.event, end.data) == (None, "[DONE]")


def test_no_frame_has_an_id(answer):
    assert [frame.id for frame in frames(answer.text) if frame.id is not None] == []


def test_a_stream_is_not_kept_nor_gathered_nor_squeezed(answer):
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-accel-buffering"] == "no"
    assert "content-encoding" not in answer.headers


def test_a_replay_is_the_same_bytes(http, answer, response_id):
    replay = http.get(f"/responses/{response_id}", params={"stream": "true"})
    assert frames(replay.text) == frames(answer.text)


def test_past_the_end_there_is_only_the_end(http, response_id):
    replay = http.get(f"/responses/{response_id}", params={"stream": "true", "starting_after": 100_000})
    assert replay.text == "data: [DONE]\n\n"


def test_an_event_source_gets_ids(http, response_id):
    replay = http.get(f"/responses/{response_id}", params={"stream": "true"}, headers={"Accept": "text/event-stream"})
    *events, _ = frames(replay.text)
    assert [frame.id for frame in events] == [str(number) for number in range(len(events))]


def test_an_event_source_goes_on_after_the_last_id_it_saw(http, answer, response_id):
    replay = http.get(
        f"/responses/{response_id}",
        params={"stream": "true"},
        headers={"Accept": "text/event-stream", "Last-Event-ID": "2"},
    )
    assert [frame.data for frame in frames(replay.text)] == [frame.data for frame in frames(answer.text)[3:]]


def test_a_refused_stream_is_an_ordinary_error(http):
    refused = http.post("/responses", json={**REQUEST, "model": "nobody"})
    assert refused.status_code in (400, 404)
    assert refused.headers["content-type"].startswith("application/json")
