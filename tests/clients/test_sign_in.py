"""Signing in with a name and a password: the tokens, their renewal, and their end."""

import httpx
import openai
import pytest

import node

ANN = {"username": "ann", "password": "correct horse battery staple"}


@pytest.fixture
def door():
    """The sign-in routes, which need no credential."""
    with httpx.Client(base_url=f"{node.url()}/auth", timeout=node.PATIENCE_SECONDS) as client:
        yield client


@pytest.fixture
def tokens(door):
    answer = door.post("/login", json=ANN)
    assert answer.status_code == 200, answer.text
    return answer.json()


def renew(door, refresh_token):
    return door.post("/refresh", json={"refresh_token": refresh_token})


def assert_refused(answer):
    assert answer.status_code == 401, answer.text
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_a_name_and_a_password_give_a_token_that_opens_the_api(tokens):
    assert tokens["token_type"].lower() == "bearer"
    assert tokens["expires_in"] > 0
    client = openai.OpenAI(base_url=node.api(), api_key=tokens["access_token"], max_retries=0)
    assert client.responses.create(model="echo", input="hi").output_text == "hi"


def test_what_is_made_with_one_token_is_there_with_another_of_the_same_user(ann, tokens):
    made = ann.conversations.create()
    client = openai.OpenAI(base_url=node.api(), api_key=tokens["access_token"], max_retries=0)
    assert client.conversations.retrieve(made.id) == made


def test_a_refresh_token_is_good_once(door, tokens):
    renewed = renew(door, tokens["refresh_token"])
    assert renewed.status_code == 200, renewed.text
    assert renewed.json()["refresh_token"] != tokens["refresh_token"]
    assert renewed.json()["access_token"]


def test_a_client_whose_answer_was_lost_gets_the_same_tokens_again(door, tokens):
    renewed = renew(door, tokens["refresh_token"]).json()
    again = renew(door, tokens["refresh_token"]).json()
    assert again["refresh_token"] == renewed["refresh_token"]


def test_an_older_refresh_token_used_again_ends_its_whole_family(door, tokens):
    renewed = renew(door, tokens["refresh_token"]).json()
    newest = renew(door, renewed["refresh_token"]).json()
    assert_refused(renew(door, tokens["refresh_token"]))
    assert_refused(renew(door, newest["refresh_token"]))


def test_a_refresh_token_ends_with_the_sign_out(door, tokens):
    out = door.post(
        "/logout",
        json={"refresh_token": tokens["refresh_token"]},
        headers={"Authorization": f"Bearer {tokens['access_token']}"},
    )
    assert out.is_success, out.text
    assert_refused(renew(door, tokens["refresh_token"]))


def test_the_public_keys_are_shown():
    keys = httpx.get(f"{node.url()}/.well-known/jwks.json").json()["keys"]
    assert keys
    assert all(key["kid"] and "d" not in key for key in keys)


def test_a_wrong_password_and_an_unknown_name_are_told_the_same(door):
    wrong = door.post("/login", json={**ANN, "password": "guess"})
    unknown = door.post("/login", json={"username": "nobody", "password": "guess"})
    assert_refused(wrong)
    assert_refused(unknown)
    assert wrong.json() == unknown.json()
