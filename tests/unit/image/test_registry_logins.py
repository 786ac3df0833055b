"""Pulling where a login is wanted, and where the registry sends us elsewhere: a password goes to nobody else."""

from __future__ import annotations

import json

import pytest

from minibox.errors import Unauthorized
from minibox.image.registry.credentials import Credential
from tests.registries import Answer
from tests.registry_pulls import BLOBS, MANIFESTS, assert_sound, refused
from tests.stores import remove_name


def wants_login(registry, header='Basic realm="r"'):
    registry.rule(".* /v2/app", lambda request: None if "authorization" in request.headers else Answer(401, WWW_Authenticate=header))  # fmt: skip


ALICE = Credential("alice", "secret", "the test")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_login_does_not_follow_to_another_host(pull, store, image, registry, elsewhere, status):
    wants_login(registry)
    elsewhere.blobs = registry.blobs
    registry.rule(BLOBS, lambda request: Answer(status, Location=f"http://{elsewhere.host}{request.path}?signed=1"))
    elsewhere.rule("GET", lambda request: Answer(200, elsewhere.blobs[request.path.split("/")[-1].partition("?")[0]]))
    pull(credential=ALICE)
    assert len(elsewhere.requests) == 3
    assert all("authorization" not in item.headers for item in elsewhere.requests)
    assert_sound(store, f"{registry.host}/app:1")


def test_host_that_we_are_sent_to_cannot_ask_for_the_login(pull, store, image, registry, elsewhere):
    wants_login(registry)
    registry.rule(BLOBS, Answer(302, Location=f"http://{elsewhere.host}/x"))
    elsewhere.rule("GET", Answer(401, WWW_Authenticate='Basic realm="r"'))
    refused(pull, store, "answers 401", credential=ALICE, kind=Unauthorized)
    assert all("authorization" not in item.headers for item in elsewhere.requests)


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("file:///etc/passwd", "not a valid URL"),
        ("http://a:b@127.0.0.1/", "not a valid URL"),
        ("http://[::1", "not a valid URL"),
        ("/v2/app/manifests/1", "redirected more than 5 times"),
    ],
)
def test_redirect_to_nowhere(pull, store, image, registry, target, says):
    registry.rule(MANIFESTS, Answer(302, Location=target))
    refused(pull, store, says, registry.host)


def token_server(registry, *, expires_after=1 << 30, user=None):
    """Give out tokens, and take each for so many requests."""
    uses: dict[str, int] = {}

    def token(request):
        if user and request.headers.get("authorization") != user:
            return Answer(401)
        uses[f"t{len(uses)}"] = 0
        return Answer(200, json.dumps({"token": f"t{len(uses) - 1}"}).encode())

    def check(request):
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if given in uses and uses[given] < expires_after:
            uses[given] += 1
            return None
        realm = f'Bearer realm="http://{registry.host}/token",service="the registry",scope="repository:app:pull"'
        return Answer(401, WWW_Authenticate=realm)

    registry.rule("GET /token", token)
    registry.rule(".* /v2/app", check)


def test_token_is_got_once_and_used(pull, store, image, registry):
    token_server(registry)
    pull()
    (asked,) = registry.asked("GET /token")
    assert asked.path == "/token?service=the+registry&scope=repository%3Aapp%3Apull"
    assert "authorization" not in asked.headers


def test_token_that_expires_is_got_anew(pull, store, image, registry):
    token_server(registry, expires_after=2)
    pull()
    assert 2 <= len(registry.asked("GET /token")) <= 4
    assert_sound(store, f"{registry.host}/app:1")


def test_token_server_wants_the_password(pull, store, image, registry):
    token_server(registry, user="Basic YWxpY2U6c2VjcmV0")
    refused(pull, store, "anonymous users get none", kind=Unauthorized)
    refused(pull, store, "user name or password is wrong", kind=Unauthorized, credential=Credential("alice", "x"))
    pull(credential=ALICE)
    assert "account=alice" in registry.asked("GET /token")[-1].path


def test_identity_token_is_exchanged(pull, store, image, registry):
    token_server(registry)
    bodies = []

    def exchange(request):
        bodies.append(request.read().decode())
        return Answer(200, b'{"access_token": "t0"}')

    registry.rule("POST /token", exchange)
    pull()  # after which t0 is known
    remove_name(store.layout, f"{registry.host}/app:1")
    pull(credential=Credential("<token>", "refresh me"))
    assert "grant_type=refresh_token" in bodies[0] and "refresh_token=refresh+me" in bodies[0]


@pytest.mark.parametrize(
    "answer", [Answer(200, b"no JSON"), Answer(200, b"[]"), Answer(200, b'{"token": "a\\nb"}'), Answer(500)]
)
def test_token_server_that_gives_none(pull, store, image, registry, answer):
    registry.rule("GET /token", answer)
    token_server(registry)
    refused(pull, store, f"get a token for {registry.host}")


@pytest.mark.parametrize("realm", ["", "file:///etc/passwd", "http://a:b@h/", "x"])
def test_token_from_nowhere(pull, store, image, registry, realm):
    wants_login(registry, f'Bearer realm="{realm}"')
    refused(pull, store, "not a URL", registry.host)


def test_token_server_that_is_busy_is_asked_again(pull, store, image, registry):
    registry.rule("GET /token", Answer(503), times=1)
    registry.rule("GET /token", Answer(200, b'{"token": "t', cut_after=5), times=1)
    token_server(registry)
    pull()
    assert len(registry.asked("GET /token")) == 3


def test_password_is_not_sent_unencrypted_over_the_network(pull, store, image, registry):
    wants_login(registry, 'Bearer realm="http://192.0.2.1/token"')
    refused(pull, store, "http://192.0.2.1/token", "not encrypted", credential=ALICE)


def test_wrong_password_is_tried_once(pull, store, image, registry):
    registry.rule(".* /v2/app", Answer(401, WWW_Authenticate='Basic realm="r"'))
    error = refused(pull, store, "refuses the login of 'alice' in the test", credential=ALICE, kind=Unauthorized)
    assert error.hint == f"minibox login {registry.host}"
    assert len(registry.asked(MANIFESTS)) == 2
