"""RUN --mount, COPY --chmod and EXPOSE: each option's value."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minibox.build.dockerfile.chmod import parse_chmod
from minibox.build.dockerfile.lines import Problem
from minibox.build.dockerfile.mounts import Mount, parse_mount
from minibox.build.dockerfile.ports import exposed_ports


@pytest.mark.parametrize(
    ("flag", "mount"),
    [
        ("target=/x", Mount("bind", "/x", read_only=True)),
        ("type=bind,target=/x,rw", Mount("bind", "/x")),
        ("type=bind,dst=/x,src=/s,from=build,readwrite=true", Mount("bind", "/x", "/s", "build")),
        ("type=bind,target=/x,rw,ro", Mount("bind", "/x", read_only=True)),  # the last one counts
        ("type=cache,target=/x", Mount("cache", "/x")),
        (
            "TYPE=Cache,destination=/x,id=a,sharing=LOCKED,mode=0700,uid=1,gid=2,readonly,from=b,source=c",
            Mount("cache", "/x", "c", "b", True, "a", "locked", mode=0o700, uid=1, gid=2),
        ),
        ("type=tmpfs,target=/x,size=1g", Mount("tmpfs", "/x", size_bytes=1 << 30)),
        ("type=secret,id=a", Mount("secret", id="a")),
        ("type=secret,id=a,env=TOKEN,required", Mount("secret", id="a", env="TOKEN", required=True)),
        ("type=secret,target=/run/a,required=false,mode=0400", Mount("secret", "/run/a", mode=0o400)),
        ("type=ssh,required=1,id=x", Mount("ssh", id="x", required=True)),
        ('type=cache,"target=/a,b"', Mount("cache", "/a,b")),
    ],
)
def test_a_mount(flag, mount):
    assert parse_mount(flag, str) == mount


@pytest.mark.parametrize(
    "flag",
    [
        "",
        "type=x,target=/x",
        "type=bind,target",
        "type=bind,foo=bar",
        "type=bind,target=/x,mode=0700",
        "type=bind,target=/x,required",
        "type=bind,target=/x,sharing=locked",
        "type=bind,target=/x,size=1g",
        "type=bind,target=/x,from=$X",
        "type=cache,target=/x,mode=8",
        "type=cache,target=/x,uid=-1",
        "type=cache,target=/x,uid=4294967296",
        "type=cache,target=/x,sharing=none",
        "type=cache,target=/x,ro=maybe",
        "type=tmpfs,target=/x,size=much",
        "type=secret",
        "type=secret,id=a,source=b",
        "type=secret,id=a,from=b",
        "type=secret,env=A",
        "type=ssh,env=A",
        'type=cache,"target=/a',
    ],
)
def test_what_is_no_mount(flag):
    with pytest.raises(Problem):
        parse_mount(flag, str)


@pytest.mark.parametrize(
    ("words", "ports"),
    [
        (("80",), ("80/tcp",)),
        (("53/UDP", "1-3/sctp"), ("53/udp", "1/sctp", "2/sctp", "3/sctp")),
        (("127.0.0.1:80:8080", "[::1]:90:91/udp", "5000:6000"), ("8080/tcp", "91/udp", "6000/tcp")),
    ],
)
def test_ports(words, ports):
    assert exposed_ports(words) == ports


@pytest.mark.parametrize("word", ["", "x", "80/x", "5-1", "65536", "1-2-3", "-1", "80:", "²"])
def test_what_is_no_port(word):
    with pytest.raises(Problem):
        exposed_ports((word,))


@pytest.mark.parametrize("text", ["9", "77777", "u", "u+q", "x=r", "u=r,", "", "rwx", "u+rwg"])
def test_what_is_no_mode(text):
    with pytest.raises(Problem):
        parse_chmod(text)


CLAUSES = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["u", "g", "o", "a", "ug", "uo", "ugo"]),
        st.sampled_from("+-="),
        st.sampled_from(["", "r", "w", "x", "X", "rw", "rx", "rwx", "rX", "s", "t", "st", "u", "g", "o"]),
    ),
)


@settings(max_examples=60, deadline=None)
@given(clauses=st.lists(CLAUSES, min_size=1, max_size=3), mode=st.integers(0, 0o7777), directory=st.booleans())
def test_symbolic_modes_are_chmods(tmp_path_factory, clauses, mode, directory):
    path: Path = tmp_path_factory.mktemp("mode") / "file"
    path.mkdir() if directory else path.touch()
    path.chmod(mode)
    before = path.stat().st_mode & 0o7777
    subprocess.run(["chmod", ",".join(clauses), path], check=True, capture_output=True)
    after = path.stat().st_mode & 0o7777
    os.chmod(path, 0o700)
    assert oct(parse_chmod(",".join(clauses))(before, directory)) == oct(after)
