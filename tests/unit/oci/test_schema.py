"""Foreign JSON against the OCI types: what passes, what is dropped, and what is said of the rest."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, get_args, get_origin, get_type_hints, is_typeddict

import pytest

from minibox.errors import ConfigError
from minibox.oci import runtime
from minibox.oci.schema import PROCESS, RESOURCES, SPEC, checked

MINIMAL: dict[str, Any] = {"ociVersion": "1.2.0", "process": {"cwd": "/", "user": {"uid": 0, "gid": 0}}}


def schema_of(kind: Any) -> Any:
    """What `oci.schema` says of a type of `oci.runtime`."""
    if is_typeddict(kind):
        hints = get_type_hints(kind, include_extras=True)
        return {
            f"{name}!" if kind.__total__ and get_origin(hint) is not NotRequired else name: schema_of(hint)
            for name, hint in hints.items()
        }
    if get_origin(kind) is NotRequired:
        return schema_of(get_args(kind)[0])
    if get_origin(kind) is Literal:
        return str
    if get_origin(kind) is list:
        return [schema_of(get_args(kind)[0])]
    if get_origin(kind) is dict:
        return (schema_of(get_args(kind)[1]),)
    return kind


@pytest.mark.parametrize(
    ("schema", "kind"), [(SPEC, runtime.Spec), (PROCESS, runtime.Process), (RESOURCES, runtime.LinuxResources)]
)
def test_it_is_what_the_types_say(schema: Any, kind: Any) -> None:
    assert schema == schema_of(kind)


def test_what_the_specification_lacks_is_dropped() -> None:
    spec = {**MINIMAL, "vm": {"hypervisor": {}}, "linux": {"new": 1, "namespaces": [{"type": "pid", "x": 1}]}}
    assert checked(spec, SPEC, "config.json") == {**MINIMAL, "linux": {"namespaces": [{"type": "pid"}]}}


def test_null_is_not_set() -> None:
    spec = {**MINIMAL, "mounts": None, "linux": {"sysctl": None, "resources": {"memory": {"limit": None}}}}
    assert checked(spec, SPEC, "config.json") == {**MINIMAL, "linux": {"resources": {"memory": {}}}}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"ociVersion": None}, "config.json: the field ociVersion is missing"),
        ({"ociVersion": 1}, "config.json: ociVersion: expected a string, got an integer"),
        ({"hostname": ["a"]}, "config.json: hostname: expected a string, got a list"),
        ({"process": []}, "config.json: process: expected an object, got a list"),
        ({"mounts": {}}, "config.json: mounts: expected a list, got an object"),
        ({"mounts": [{"source": "/"}]}, r"config.json: mounts\[0\]: the field destination is missing"),
        ({"process": {"cwd": "/", "user": {"uid": True, "gid": 0}}},
         "config.json: process.user.uid: expected an integer, got true or false"),
        ({"process": {**MINIMAL["process"], "args": ["a", None]}},
         r"config.json: process.args\[1\]: expected a string, got null"),
        ({"annotations": {"a": 1}}, "config.json: annotations.a: expected a string, got an integer"),
        ({"linux": {"resources": {"memory": {"limit": 1.5}}}},
         "config.json: linux.resources.memory.limit: expected an integer, got a number"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        checked({**MINIMAL, **change}, SPEC, "config.json")


def test_not_an_object() -> None:
    with pytest.raises(ConfigError, match="config.json: expected an object, got a list"):
        checked([], SPEC, "config.json")
