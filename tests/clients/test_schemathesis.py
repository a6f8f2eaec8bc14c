"""Schemathesis: what `/openapi.json` promises is kept, whatever is sent.

It makes requests out of the document itself, right ones and wrong ones, and follows ids from one
answer to the next request. An event stream is read to its end, and each of its events, as an object of
`event` and `data`, must fit the schema of `text/event-stream`. The sign-in routes stand aside: a storm
of guesses is what they slow down on purpose; `test_sign_in.py` looks at those.
"""

import subprocess
import sys

import node

LONGEST_RUN_SECONDS = 180

CHECKS = ",".join(
    [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_schema_conformance",
    ]
)


def test_the_node_keeps_to_its_own_description(tmp_path):
    run = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{node.url()}/openapi.json"),
            *("--url", node.url()),
            *("--header", f"Authorization: Bearer {node.token()}"),
            *("--checks", CHECKS),
            *("--exclude-path-regex", "/auth/"),
            *("--max-examples", "20"),
            *("--request-timeout", str(node.PATIENCE_SECONDS)),
            *("--suppress-health-check", "all"),
            "--generation-deterministic",
            "--no-color",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
        timeout=LONGEST_RUN_SECONDS,
    )
    assert run.returncode == 0, run.stdout
