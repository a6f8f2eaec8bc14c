"""The programs of node/examples/python, as they stand: each is run, and every line that it prints is looked at.

`examples.json` says what they print, line by line as regular expressions, here and in JavaScript; and which model they
are given where the one that every node has will not do.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "node/examples/python"
EXPECTED = json.loads((Path(__file__).parent / "examples.json").read_text())
# Each makes a handful of requests; one that is stuck is ended.
RUN_SECONDS = 120


def test_every_example_has_its_expectation():
    assert sorted(path.stem for path in EXAMPLES.glob("*.py")) == sorted(EXPECTED)


@pytest.mark.parametrize("theme", EXPECTED)
def test_an_example_prints_what_it_says(theme):
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("KLATCH_MODEL", None)
    if "model" in EXPECTED[theme]:
        environment["KLATCH_MODEL"] = EXPECTED[theme]["model"]
    command = [sys.executable, EXAMPLES / f"{theme}.py"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=RUN_SECONDS)
    assert (ran.returncode, ran.stderr) == (0, "")
    printed = ran.stdout.splitlines()
    expected = EXPECTED[theme]["lines"]
    assert len(printed) == len(expected), printed
    for line, pattern in zip(printed, expected):
        assert re.fullmatch(pattern, line), f"{line!r} is not {pattern!r}"
