"""What `commit` gives to an image: how the container was run."""

from __future__ import annotations

from typing import Any

import pytest

from minibox.engine.spec.options import RunOptions
from minibox.engine.state.container_config import container_config, mounts_of

IMAGE = {"Env": ["PATH=/bin", "KEPT=1"], "Entrypoint": ["/entry"], "Cmd": ["all"], "User": "7", "Volumes": {"/v": {}},
         "ExposedPorts": {"80/tcp": {}}}  # fmt: skip
ENV = ["PATH=/bin", "HOSTNAME=box", "HOME=/root", "TERM=xterm", "KEPT=1", "A=b"]


def config(image=IMAGE, env=ENV, labels=None, volumes=(), **options):
    return container_config(RunOptions(image="i", **options), image, env, labels or {}, volumes)


def test_the_images_own_where_nothing_was_said():
    assert config() == {**IMAGE, "Env": ["PATH=/bin", "KEPT=1", "A=b"]}
    assert config({}, ["PATH=/bin", "HOME=/"]) == {"Env": ["PATH=/bin"]}


@pytest.mark.parametrize(
    ("options", "entrypoint", "command"),
    [
        ({"command": ("x", "y")}, ["/entry"], ["x", "y"]),
        ({"entrypoint": "/other"}, ["/other"], None),
        ({"entrypoint": "/other", "command": ("x",)}, ["/other"], ["x"]),
        ({"entrypoint": ""}, None, None),
    ],
)
def test_entrypoint_and_command(options, entrypoint, command):
    found = config(**options)
    assert (found.get("Entrypoint"), found.get("Cmd")) == (entrypoint, command)


def test_what_the_user_said_goes_before_the_image():
    found = config(user="1:2", workdir="/w", stop_signal="INT", labels={"a": "b"}, volumes=["/x"])
    assert (found["User"], found["WorkingDir"], found["StopSignal"]) == ("1:2", "/w", "INT")
    assert found["Labels"] == {"a": "b"} and found["Volumes"] == {"/v": {}, "/x": {}}


def test_names_that_every_container_has_are_kept_when_somebody_meant_them():
    found = config(env=("HOME=/root", "TERM=xterm", "HOSTNAME=box"), image={"Env": ["TERM=xterm"]})
    assert found["Env"] == ["TERM=xterm"]


def test_mounts_are_those_of_the_user():
    mounts: Any = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/etc/hosts", "type": "bind", "source": "/r/containers/c/hosts"},
        {"destination": "/dev/null", "type": "bind", "source": "/dev/null"},
        {"destination": "/a", "type": "bind", "source": "/r/containers/c/volumes/v/_data", "options": ["rbind"]},
        {"destination": "/b", "type": "bind", "source": "/home", "options": ["rbind", "rro"]},
    ]
    assert mounts_of(mounts, "/r/containers/c") == [
        {"Source": "/r/containers/c/volumes/v/_data", "Destination": "/a", "ReadOnly": False},
        {"Source": "/home", "Destination": "/b", "ReadOnly": True},
    ]
