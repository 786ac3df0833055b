"""Image references: what Docker's users write, and one clear line for what can't be meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibox.errors import InvalidReference
from minibox.image.reference import is_digest, parse

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("base", "docker.io/library/base:latest", "base:latest"),
        ("debian:12", "docker.io/library/debian:12", "debian:12"),
        ("library/debian", "docker.io/library/debian:latest", "debian:latest"),
        ("docker.io/debian", "docker.io/library/debian:latest", "debian:latest"),
        ("index.docker.io/library/debian", "docker.io/library/debian:latest", "debian:latest"),
        ("team/app:v1.2-rc_3", "docker.io/team/app:v1.2-rc_3", "team/app:v1.2-rc_3"),
        ("a/b/c/d", "docker.io/a/b/c/d:latest", "a/b/c/d:latest"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost:5000/app", "localhost:5000/app:latest", "localhost:5000/app:latest"),
        ("[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000/app:latest"),
        ("Registry.example/app", "Registry.example/app:latest", "Registry.example/app:latest"),
        ("quay.io/a/b__c--d.e:T", "quay.io/a/b__c--d.e:T", "quay.io/a/b__c--d.e:T"),
        (f"debian@sha256:{HEX}", f"docker.io/library/debian@sha256:{HEX}", f"debian@sha256:{HEX}"),
        (f"debian:12@sha256:{HEX}", f"docker.io/library/debian:12@sha256:{HEX}", f"debian:12@sha256:{HEX}"),
    ],
)
def test_reference_means_what_docker_takes_it_for(text, full, familiar):
    reference = parse(text)
    assert str(reference) == full
    assert reference.familiar == familiar
    assert parse(str(reference)) == reference


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("Debian", "lower case"),
        ("Bad Ref", "can't be in a name"),
        ("debian:", "tag is empty"),
        ("debian:a b", "not a tag"),
        ("debian:" + "x" * 129, "longer than 128"),
        ("debian:.x", "not a tag"),
        ("-debian", "not a name"),
        ("debian-", "end with"),
        ("a___b", "not a name"),
        ("a..b", "not a name"),
        ("a._b", "not a name"),
        ("a//b", "empty"),
        ("/a", "empty"),
        ("a/", "empty"),
        ("../../etc", "not a "),
        ("a/../b", "not a name"),
        ("exa_mple.com:80/a", "host name"),
        ("-x.com/a", "host name"),
        ("host:port/a", "port"),
        ("[::1/a", "address"),
        ("debian@sha256:12", "64"),
        ("debian@md5:" + HEX, "not a digest"),
        (f"debian@sha256:{HEX.upper()}", "lower-case"),
        (HEX, "an image's digest"),
        ("x" * 300, "longer than 255"),
        ("é", "can't be in a name"),
        ("a\nb", "can't be in a name"),
        ("a\0b", "can't be in a name"),
        ("a b", "can't be in a name"),
    ],
)
def test_malformed_reference_is_one_clear_line(text, why):
    with pytest.raises(InvalidReference) as caught:
        parse(text)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_hint_keeps_a_tag_as_it_is():
    with pytest.raises(InvalidReference) as caught:
        parse("localhost:5000/Team/App:RC1")
    assert caught.value.hint == "write localhost:5000/team/app:RC1"


@given(st.text())
def test_any_text_is_a_reference_or_an_error(text):
    try:
        reference = parse(text)
    except InvalidReference as error:
        assert "\n" not in str(error)
        return
    assert parse(str(reference)) == reference
    assert parse(reference.familiar) == reference
    assert ".." not in str(reference).split("/")


COMPONENT = st.from_regex(r"[a-z0-9]{1,6}(([._]|__|-{1,3})[a-z0-9]{1,4}){0,2}", fullmatch=True)
NAME = st.lists(COMPONENT, min_size=1, max_size=3).map("/".join)


@given(NAME, st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True))
def test_whatever_the_grammar_makes_is_taken(name, tag):
    # With the registry said: a first part with a dot would be taken for one.
    reference = parse(f"docker.io/{name}:{tag}")
    assert reference.tag == tag
    assert reference.name == f"docker.io/{name if '/' in name else f'library/{name}'}"


@pytest.mark.parametrize(
    ("text", "answer"),
    [("sha256:" + HEX, True), ("sha256:" + "../" * 21 + "x", False), (HEX, False), ("sha256:" + HEX.upper(), False)],
)
def test_only_a_digest_is_a_digest(text, answer):
    assert is_digest(text) is answer
