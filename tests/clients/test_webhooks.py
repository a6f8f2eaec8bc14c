"""Webhooks, as an application that is built on the official SDK takes them: `client.webhooks.unwrap`."""

import os
import queue
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from openai import InvalidWebhookSignatureError

import node

SECRET = os.environ.get("KLATCH_WEBHOOK_SECRET", "")


class Receiver(ThreadingHTTPServer):
    """Takes every event, or refuses the first deliveries of each."""

    allow_reuse_address = True

    def __init__(self):
        address = urlsplit(os.environ["KLATCH_WEBHOOK_URL"])
        super().__init__((address.hostname, address.port), Handler)
        self.deliveries = queue.Queue()
        self.refuse = 0
        self.seen = {}

    def next_of(self, response_id, client):
        """The next event of this response; those of other tests are passed over."""
        while True:
            headers, body, status = self.deliveries.get(timeout=node.PATIENCE_SECONDS)
            event = client.webhooks.unwrap(body, headers, secret=SECRET)
            if event.data.id == response_id:
                return event, headers, body, status


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        name = self.headers["webhook-id"]
        self.server.seen[name] = self.server.seen.get(name, 0) + 1
        status = 500 if self.server.seen[name] <= self.server.refuse else 204
        self.server.deliveries.put((dict(self.headers.items()), body, status))
        self.send_response(status)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def receiver():
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_completed_response_is_told_and_can_be_fetched_by_the_id_in_the_event(receiver, other_tenant):
    made = other_tenant.responses.create(model="slow", input="hi", background=True)
    event, _, _, _ = receiver.next_of(made.id, other_tenant)
    assert (event.object, event.type) == ("event", "response.completed")
    assert event.id.startswith("evt_")
    response = other_tenant.responses.retrieve(event.data.id)
    assert response.status == "completed"
    assert abs(event.created_at - response.created_at) <= node.PATIENCE_SECONDS


def test_each_end_has_its_type(receiver, other_tenant):
    failed = other_tenant.responses.create(model="failing", input="hi", background=True)
    assert receiver.next_of(failed.id, other_tenant)[0].type == "response.failed"
    cancelled = other_tenant.responses.create(model="long", input="hi", background=True)
    other_tenant.responses.cancel(cancelled.id)
    assert receiver.next_of(cancelled.id, other_tenant)[0].type == "response.cancelled"


def test_a_refused_event_comes_again_as_it_was(receiver, other_tenant):
    receiver.refuse = 2
    made = other_tenant.responses.create(model="echo", input="hi")
    told = [receiver.next_of(made.id, other_tenant) for _ in range(3)]
    assert [status for _, _, _, status in told] == [500, 500, 204]
    assert len({body for _, _, body, _ in told}) == 1
    assert len({headers["webhook-id"] for _, headers, _, _ in told}) == 1


def test_an_event_that_was_changed_on_the_way_is_not_taken_for_the_nodes(receiver, other_tenant):
    made = other_tenant.responses.create(model="echo", input="hi")
    _, headers, body, _ = receiver.next_of(made.id, other_tenant)
    with pytest.raises(InvalidWebhookSignatureError):
        other_tenant.webhooks.unwrap(body.replace("completed", "failed"), headers, secret=SECRET)


def test_nobody_is_told_of_another_tenants_responses(receiver, ann, other_tenant):
    untold = ann.responses.create(model="echo", input="hi")
    told = other_tenant.responses.create(model="echo", input="hi")
    while True:
        headers, body, _ = receiver.deliveries.get(timeout=node.PATIENCE_SECONDS)
        assert untold.id not in body
        if told.id in body:
            break
