"""Connections that are used again: a refusal that comes before the body was read must not break them."""

import socket
import ssl
from contextlib import contextmanager
from http.client import HTTPResponse
from urllib.parse import urlsplit

import pytest

import node

BODY = b'{"model": "echo", "input": "' + b"x" * 20_000 + b'"}'
TIMES = 50


def answer(connection, path, headers):
    """The status of a POST whose head and body are sent one after the other."""
    head = f"POST {path} HTTP/1.1\r\nHost: klatch\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}\r\n"
    connection.sendall((head + headers + "\r\n").encode())
    connection.sendall(BODY)
    response = HTTPResponse(connection)
    response.begin()
    response.read()
    return response.status, response.headers.get("connection")


@contextmanager
def connected(url):
    with socket.create_connection((url.hostname, url.port), timeout=node.PATIENCE_SECONDS) as plain:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if url.scheme == "http":
            yield plain
        else:
            with ssl.create_default_context().wrap_socket(plain, server_hostname=url.hostname) as connection:
                yield connection


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/v1/nowhere", "", 404),
        ("/v1/responses/compact", f"Authorization: Bearer {node.token()}\r\n", 404),
        ("/v1/models", f"Authorization: Bearer {node.token()}\r\n", 405),
        ("/v1/responses", "", 401),
    ],
)
def test_a_refusal_leaves_the_connection_as_it_was(path, headers, status):
    with connected(urlsplit(node.api())) as connection:
        for _ in range(TIMES):
            seen, kept = answer(connection, path, headers)
            # NGINX says what HTTP/1.1 means anyway.
            assert (seen, kept) in [(status, None), (status, "keep-alive")]
