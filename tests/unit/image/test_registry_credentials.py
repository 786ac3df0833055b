"""Credentials in the files of Docker and Podman, helper programs, and what a registry asks for."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minibox.config import RegistryConfig
from minibox.engine.resources.registry import registry_host
from minibox.errors import ConfigError, InvalidReference, RegistryError, UsageError
from minibox.image.reference import parse
from minibox.image.registry.challenge import Challenge, parse_challenges
from minibox.image.registry.credentials import Credential, CredentialStore
from minibox.image.registry.endpoint import endpoints, is_loopback
from minibox.image.registry.transport import Transport, certificate_files
from minibox.image.registry.validation import read_config, read_document
from tests.registries import INDEX, MANIFEST, MadeImage

HELPER = """#!/bin/sh
case "$1 $(cat)" in
"get full.example") echo '{"ServerURL": "full.example", "Username": "helped", "Secret": "s"}' ;;
"get odd.example") echo 'what?' ;;
"get broken.example") echo "no keychain" >&2; exit 1 ;;
"get "*) echo "credentials not found in native keychain"; exit 1 ;;
*) echo "$@" >> "$HOME/calls" ;;
esac
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "bin").mkdir()
    helper = tmp_path / "bin/docker-credential-test"
    helper.write_text(HELPER)
    helper.chmod(0o755)
    return {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run"), "PATH": f"{tmp_path}/bin:/usr/bin:/bin"}


@pytest.fixture
def credentials(environ) -> CredentialStore:
    return CredentialStore(environ)


def write(path: Path, **document) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


def entry(username: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}


def test_login_is_kept_as_docker_keeps_it(credentials, tmp_path):
    path = credentials.put("localhost:5000", "me", "secret:with:colons")
    assert path == str(tmp_path / ".docker/config.json")
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert json.loads(Path(path).read_text()) == {"auths": {"localhost:5000": entry("me", "secret:with:colons")}}
    assert credentials.get("localhost:5000", "any/thing") == Credential("me", "secret:with:colons", path)
    assert credentials.get("localhost:5001") is None
    assert credentials.remove("localhost:5000") == [path]
    assert credentials.get("localhost:5000") is None
    assert credentials.remove("localhost:5000") == []


def test_what_others_wrote_stays(credentials, tmp_path):
    write(tmp_path / ".docker/config.json", auths={"a.example": entry("a", "b")}, HttpHeaders={"X": "y"})
    credentials.put("b.example", "me", "secret")
    credentials.remove("b.example")
    document = json.loads((tmp_path / ".docker/config.json").read_text())
    assert document == {"auths": {"a.example": entry("a", "b")}, "HttpHeaders": {"X": "y"}}


def test_docker_hub_has_the_name_that_docker_gave_it(credentials, tmp_path):
    credentials.put("docker.io", "me", "secret")
    document = json.loads((tmp_path / ".docker/config.json").read_text())
    assert list(document["auths"]) == ["https://index.docker.io/v1/"]
    found = credentials.get("docker.io", "library/debian")
    assert found is not None and found.username == "me"


@pytest.mark.parametrize("key", ["r.example", "https://r.example", "http://r.example/", "https://r.example/v2/"])
def test_spellings_of_a_registry(credentials, tmp_path, key):
    write(tmp_path / ".docker/config.json", auths={key: entry("me", "s")})
    assert credentials.get("r.example") is not None
    credentials.put("r.example", "you", "s")
    assert credentials.get("r.example").username == "you"
    assert credentials.remove("r.example") and credentials.get("r.example") is None


def test_narrowest_key_and_podmans_file_count_most(credentials, tmp_path):
    write(tmp_path / "run/containers/auth.json", auths={
        "r.example": entry("wide", "s"), "r.example/team": entry("team", "s"), "r.example/team/app": entry("app", "s"),
    })  # fmt: skip
    write(tmp_path / ".docker/config.json", auths={"r.example": entry("docker", "s")})
    for repository, user in (("x", "wide"), ("team/x", "team"), ("team/app", "app"), ("teams/app", "wide")):
        assert credentials.get("r.example", repository).username == user
    assert credentials.put("r.example", "new", "s") == str(tmp_path / "run/containers/auth.json")
    assert credentials.get("r.example", "x").username == "new"


def test_chosen_file_alone_counts(environ, tmp_path):
    write(tmp_path / ".docker/config.json", auths={"r.example": entry("docker", "s")})
    chosen = CredentialStore({**environ, "REGISTRY_AUTH_FILE": str(tmp_path / "mine.json")})
    assert chosen.get("r.example") is None
    assert chosen.put("r.example", "me", "s") == str(tmp_path / "mine.json")
    assert CredentialStore({**environ, "DOCKER_CONFIG": str(tmp_path / "x")}).get("r.example") is None


def test_identity_token_and_plain_entries(credentials, tmp_path):
    write(tmp_path / ".docker/config.json", auths={
        "a.example": {"auth": entry("00", "")["auth"], "identitytoken": "refresh"},
        "b.example": {"username": "u", "password": "p"}, "c.example": {}, "d.example": "x",
    })  # fmt: skip
    assert credentials.get("a.example").username == "<token>"
    assert credentials.get("a.example").secret == "refresh"
    assert credentials.get("b.example").secret == "p"
    assert credentials.get("c.example") is None
    assert credentials.get("d.example") is None


def test_helper_programs(credentials, environ, tmp_path):
    write(tmp_path / ".docker/config.json", credHelpers={"full.example": "test", "broken.example": "test",
          "odd.example": "test", "none.example": "missing"}, auths={"other.example": entry("me", "s")})  # fmt: skip
    assert credentials.get("full.example") == Credential("helped", "s", "docker-credential-test")
    assert credentials.get("other.example").username == "me"
    with pytest.raises(ConfigError, match="docker-credential-test get: no keychain"):
        credentials.get("broken.example")
    with pytest.raises(ConfigError, match="not a credential"):
        credentials.get("odd.example")
    with pytest.raises(ConfigError, match="run docker-credential-missing: No such file") as caught:
        credentials.get("none.example")
    assert "credHelpers" in (caught.value.hint or "")
    assert credentials.put("full.example", "me", "s") == "docker-credential-test"
    assert credentials.remove("full.example") == ["docker-credential-test"]
    assert (tmp_path / "calls").read_text().split() == ["store", "erase"]


def test_credentials_store_for_all_falls_back_to_the_file(credentials, tmp_path):
    write(tmp_path / ".docker/config.json", credsStore="test", auths={"r.example": entry("me", "s")})
    assert credentials.get("full.example").username == "helped"
    assert credentials.get("r.example").username == "me"


@pytest.mark.parametrize("text", ["{", "[]", '{"auths": {"r.example": {"auth": "?"}}}', "\udcff"])
def test_damaged_file_is_named(credentials, tmp_path, text):
    path = tmp_path / ".docker/config.json"
    path.parent.mkdir()
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(ConfigError, match=r"config\.json is damaged"):
        credentials.get("r.example")


def test_secret_is_not_in_the_repr():
    assert "hunter2" not in repr(Credential("me", "hunter2", "file"))


@pytest.mark.parametrize(
    ("header", "means"),
    [
        ('Basic realm="a b"', [("basic", {"realm": "a b"})]),
        ("Basic", [("basic", {})]),
        ('Bearer realm="https://a/t",service="s",scope="repository:a:pull,push"',
         [("bearer", {"realm": "https://a/t", "service": "s", "scope": "repository:a:pull,push"})]),
        ('BEARER Realm=https://a/t , service = "x"', [("bearer", {"realm": "https://a/t", "service": "x"})]),
        ('Negotiate, Basic realm="a\\"b", charset=UTF-8, Bearer realm="c"',
         [("negotiate", {}), ("basic", {"realm": 'a"b', "charset": "UTF-8"}), ("bearer", {"realm": "c"})]),
        ("", []),
        ('="x"', []),
    ],
)  # fmt: skip
def test_challenges(header, means):
    assert parse_challenges([header]) == [Challenge(*item) for item in means]


@given(st.lists(st.text(alphabet=st.sampled_from('Basic bearer="\\, realm:/\x00\u00e9'), max_size=60), max_size=3))
def test_any_header_is_read(headers):
    for challenge in parse_challenges(headers):
        assert challenge.scheme == challenge.scheme.lower()


# ---- where a registry is ----------------------------------------------------------------------------


def found(name, **registries):
    return [
        (item.scheme, item.netloc, item.repository, item.credentials_for)
        for item in endpoints(parse(name), {key.replace("_", "."): value for key, value in registries.items()})
    ]


def test_docker_hub_is_asked_where_it_is():
    assert found("debian") == [("https", "registry-1.docker.io", "library/debian", "docker.io")]


@pytest.mark.parametrize("host", ["localhost", "localhost:5000", "127.0.0.1:1", "127.1.2.3", "[::1]:5000"])
def test_only_loopback_may_be_http(host):
    ((scheme, netloc, _, _),) = found(f"{host}/a")
    assert (scheme, netloc) == ("", host)
    ((scheme, _, _, _),) = found("r.example:5000/a")
    assert scheme == "https"


def test_mirrors_come_first_and_location_replaces():
    config = RegistryConfig("real.example/sub", ("m1.example/hub/", "http://10.0.0.1:5000"))
    assert found("debian", docker_io=config) == [
        ("https", "m1.example", "hub/library/debian", "m1.example"),
        ("http", "10.0.0.1:5000", "library/debian", "10.0.0.1:5000"),
        ("https", "real.example", "sub/library/debian", "real.example"),
    ]
    assert [item.netloc for item in endpoints(parse("debian"), {"docker.io": config}, mirrors=False)] == [
        "real.example"
    ]


def test_insecure_is_of_the_host_that_says_so():
    configs = {"docker.io": RegistryConfig(mirrors=("m.example",)), "m.example": RegistryConfig(insecure=True)}
    assert [(item.scheme, item.insecure) for item in endpoints(parse("a"), configs)] == [("", True), ("https", False)]


@pytest.mark.parametrize("text", ["ftp://a", "http://", "a@b", "a:x", "[::1", "//"])
def test_mirror_that_is_no_host(text):
    with pytest.raises(ConfigError, match='registries."docker.io"'):
        endpoints(parse("a"), {"docker.io": RegistryConfig(mirrors=(text,))})


@pytest.mark.parametrize(
    ("text", "host"),
    [("", "docker.io"), ("https://index.docker.io/v1/", "docker.io"), ("localhost:5000", "localhost:5000"),
     ("https://r.example/v2/", "r.example")],
)  # fmt: skip
def test_host_that_a_user_logs_in_to(text, host):
    assert registry_host(text) == host


@pytest.mark.parametrize("text", ["nohost", "a b.example", "-.example", "https://"])
def test_login_to_what_is_no_host(text):
    with pytest.raises(UsageError, match="is not a registry"):
        registry_host(text)


def test_loopback_names():
    assert is_loopback("localhost") and is_loopback("a.localhost") and is_loopback("::1")
    assert not is_loopback("localhost.example") and not is_loopback("128.0.0.1") and not is_loopback("")


@pytest.mark.parametrize(
    ("environ", "netloc", "proxy"),
    [
        ({"HTTPS_PROXY": "http://p:1"}, "r.example", "http://p:1"),
        ({"https_proxy": "p:1"}, "r.example:5000", "http://p:1"),
        ({"HTTP_PROXY": "http://p:1"}, "r.example", ""),
        ({"ALL_PROXY": "http://p:1"}, "r.example", "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": ".example"}, "r.example", ""),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "r.example:5000"}, "r.example:5000", ""),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "ample"}, "r.example", "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1", "no_proxy": "x, 10.0.0.0/8"}, "10.1.2.3:5000", ""),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, "r.example", ""),
        ({"HTTPS_PROXY": "http://p:1"}, "localhost:5000", ""),
        ({"HTTPS_PROXY": "http://p:1"}, "127.0.0.1:5000", ""),
    ],
)
def test_proxies(environ, netloc, proxy):
    assert Transport(environ)._proxy("https", netloc) == proxy


def test_certificates_of_a_registry(tmp_path):
    directory = tmp_path / "containers/certs.d/r.example:5000"
    directory.mkdir(parents=True)
    for name in ("ca.crt", "me.cert", "me.key", "note"):
        (directory / name).touch()
    assert certificate_files("r.example:5000", {"XDG_CONFIG_HOME": str(tmp_path)}) == (
        [f"{directory}/ca.crt"],
        [(f"{directory}/me.cert", f"{directory}/me.key")],
    )
    with pytest.raises(ConfigError, match="is not a certificate|ca.crt"):
        Transport({"XDG_CONFIG_HOME": str(tmp_path)}).send("GET", "https://r.example:5000/", {})


# ---- parsers never fail in other ways ---------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
MADE = MadeImage({"a": b"1"})


@given(st.data())
def test_any_change_of_a_manifest_is_read_or_refused(data):
    """One member, at any depth, becomes anything."""
    value = json.loads(MADE.manifest)
    place = value
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if isinstance(place[key], (dict, list)) and place[key] and data.draw(st.booleans()):
            place = place[key]
            continue
        place[key] = data.draw(JSON)
        break
    try:
        document = read_document(json.dumps(value).encode(), data.draw(st.sampled_from([MANIFEST, INDEX, ""])), "it")
        assert all(len(layer["digest"]) == 71 for layer in document.value["layers"])
    except RegistryError as error:
        assert "it" in str(error)


@given(st.binary(max_size=64) | JSON.map(lambda value: json.dumps(value).encode()), st.integers(0, 3))
def test_anything_is_a_config_or_refused(text, layers):
    try:
        read_config(text, layers, "it")
    except RegistryError as error:
        assert str(error).startswith("it")


@example({"credsStore": "\0"})
@example({"credsStore": "\ud800"})
@given(st.dictionaries(st.sampled_from(["auths", "credHelpers", "credsStore", "x"]), JSON))
def test_any_credentials_file_is_read_or_refused(tmp_path_factory, document):
    path = tmp_path_factory.mktemp("c") / "auth.json"
    path.write_text(json.dumps(document))
    try:
        CredentialStore({"REGISTRY_AUTH_FILE": str(path), "PATH": "/nonexistent"}).get("r.example", "a")
    except ConfigError:
        pass


@given(st.text(alphabet="aA0./:@_-[]sha256%\u00e4 ", max_size=40))
def test_any_reference_is_parsed_to_itself_or_refused(text):
    try:
        reference = parse(text)
    except InvalidReference:
        return
    assert parse(str(reference)) == reference
    assert endpoints(reference, {})
