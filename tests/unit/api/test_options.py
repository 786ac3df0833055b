"""What the Python API makes of its keyword arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minibox.api.options import run_options
from minibox.engine.spec.options import RunOptions, typed
from minibox.errors import UsageError
from minibox.network.published import Wanted


def made(**keywords: Any) -> RunOptions:
    return run_options("base", (), keywords)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"mounts": ["data:/d:ro", ("data", "/e")]}, {"volume": ("data:/d:ro", "data:/e")}),
        ({"mounts": [(Path("/a"), "/b", "ro,nosuid"), ("/c/d", "/e")]}, {"volume": ("/a:/b:ro,nosuid", "/c/d:/e")}),
        ({"tmpfs": ["/run:size=1m"]}, {"tmpfs": ("/run:size=1m",)}),
        (
            {"ports": {80: 8080, "53/udp": "127.0.0.1:53"}, "network": "bridge"},
            {"publish": ("8080:80", "127.0.0.1:53:53/udp")},
        ),
        ({"ulimits": {"nofile": 64, "core": (0, -1)}}, {"ulimit": ("nofile=64", "core=0:unlimited")}),
        ({"file_size": "1k"}, {"ulimit": ("fsize=1024",)}),
        ({"labels": {"a": "b=c"}, "sysctls": {"net.x": 1}}, {"label": ("a=b=c",), "sysctl": ("net.x=1",)}),
        ({"add_hosts": {"db": "::1"}}, {"add_host": ("db:::1",)}),
    ],
)
def test_values_are_those_of_the_words_of_the_command_line(keywords: Any, words: Any) -> None:
    def values(options: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
        return {key: [{**vars(each), "word": ""} for each in found] for key, found in options.items()}

    options = made(**keywords)
    assert values({key: getattr(options, key) for key in words}) == values(typed(words))


def test_no_character_of_a_path_separates_anything() -> None:
    (mount,) = made(mounts=[("/a,b:c", '/d:"e', "ro")]).volume
    assert (mount.kind, mount.source, mount.destination, mount.options) == ("bind", "/a,b:c", '/d:"e', ("ro",))
    (label,) = made(labels={"a=b": "c"}).label
    assert (label.name, label.value) == ("a=b", "c")


@pytest.mark.parametrize(
    "keywords",
    [{"mounts": [("a b", "/c")]}, {"mounts": [("/a", "c")]}, {"mounts": [("/a", "/b", "so")]}, {"mounts": ["/a:b"]},
     {"mounts": [("/a",)]}, {"ports": {"x": 1}}, {"ports": {80: -1}}, {"tmpfs": ["run"]}],
)  # fmt: skip
def test_what_is_wrong_is_told_before_there_is_a_container(keywords: Any) -> None:
    with pytest.raises(UsageError):
        made(**keywords)


def test_a_port_has_the_default_address_only_where_it_is_published() -> None:
    (found,) = made(ports={80: 8080}, network="bridge").publish
    assert found.ports == (Wanted("", 8080, 8080, 80, "tcp"),)
