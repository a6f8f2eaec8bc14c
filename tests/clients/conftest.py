"""Fixtures that every suite shares: the clients of the three callers, and plain HTTP."""

import pytest

import node


def pytest_configure(config):
    missing = node.missing_variables()
    if missing:
        raise pytest.UsageError(f"these say which node to test, and are not set: {', '.join(missing)}")


@pytest.fixture(scope="session")
def ann():
    return node.strict_client("KLATCH_TOKEN")


@pytest.fixture(scope="session")
def other():
    """Another user of the same tenant."""
    return node.strict_client("KLATCH_TOKEN_OTHER")


@pytest.fixture(scope="session")
def other_tenant():
    return node.strict_client("KLATCH_TOKEN_OTHER_TENANT")


@pytest.fixture(scope="session")
def http():
    with node.plain_http() as client:
        yield client


@pytest.fixture
def conversation(ann):
    """A new, empty conversation of ann's."""
    return ann.conversations.create()
