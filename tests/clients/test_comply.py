"""llm-comply: the thirteen checks of the Open Responses specification, against the node.

What each check needs of the node, beyond answers and events that fit the bundled schema:

  basic-response, response-output-phase-schema   a message and its usage
  system-prompt, multi-turn, assistant-phase     `developer` and `assistant` messages whose content is a
                                                 string, and `phase`, are accepted
  tool-calling                                   a `function_call`; a tool sent without `strict` is answered
                                                 with every key of a tool
  streaming-response, streaming-usage            created first, a final event last, numbers that rise, usage
  image-input                                    an `input_image` of 20 kB without `detail` is accepted
  reasoning-summary                              `reasoning` is answered as it was asked
  compact-response, compact-missing-model        404, since compaction is not offered (405 would fail)
  error-handling                                 400 for a request without `model`

From its command line the tool skips reasoning-summary unless the model's name is that of a reasoning
model; the skip is lifted here, so that all thirteen run. It has one model for all checks and echo calls
no tools, so tool-calling is given another one.
"""

import dataclasses
from importlib.resources import files

import pytest
from llm_comply import result, runner
from llm_comply.config import ComplianceConfig
from llm_comply.schema import SpecLoader
from llm_comply.tests import get_tests

import node

CHECKS = get_tests("open-responses")
SPECIFICATION = files("llm_comply") / "specs" / "openresponses.json"


def test_there_are_thirteen_checks():
    assert len(CHECKS) == 13


@pytest.mark.parametrize("check", CHECKS, ids=[check.id for check in CHECKS])
def test_the_node_passes(check):
    config = ComplianceConfig(
        base_url=node.api(),
        api_key=node.token(),
        model="tools" if check.id == "tool-calling" else "echo",
        timeout=node.PATIENCE_SECONDS,
    )
    comply = runner.TestRunner(config, [check], SpecLoader(str(SPECIFICATION)))
    outcome = comply.run_one(dataclasses.replace(check, skip_reason=None))
    assert (outcome.status, outcome.errors) == (result.TestStatus.PASSED, [])
