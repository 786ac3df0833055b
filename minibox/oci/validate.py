"""Check foreign JSON against the OCI types. Off the hot path: it imports msgspec."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from minibox.errors import ConfigError
from minibox.oci.image import ImageConfig, Index, Manifest
from minibox.oci.runtime import Spec, State

T = TypeVar("T")


def spec(data: bytes | dict[str, Any], name: str = "config.json") -> Spec:
    """A runtime Spec from JSON text or a dict; fields the specification lacks are dropped.

    Raises:
        ConfigError: not JSON, a field of the wrong type or missing, with the field's path; or a
            version of the specification that is not 1.x.
    """
    found = _checked(data, Spec, name)
    if not found["ociVersion"].startswith("1."):
        raise ConfigError(
            f"{name}: ociVersion {found['ociVersion']!r} is not supported", hint="minibox reads versions 1.0 to 1.2"
        )
    return found


def state(data: bytes | dict[str, Any], name: str = "state.json") -> State:
    """A container's state; raises ConfigError as `spec`."""
    return _checked(data, State, name)


def image_config(data: bytes | dict[str, Any], name: str = "image config") -> ImageConfig:
    """An image's config; raises ConfigError as `spec`."""
    return _checked(data, ImageConfig, name)


def manifest(data: bytes | dict[str, Any], name: str = "image manifest") -> Manifest:
    """An image's manifest; raises ConfigError as `spec`."""
    return _checked(data, Manifest, name)


def index(data: bytes | dict[str, Any], name: str = "index.json") -> Index:
    """An image index; raises ConfigError as `spec`."""
    return _checked(data, Index, name)


def _checked(data: bytes | dict[str, Any], kind: type[T], name: str) -> T:
    try:
        if isinstance(data, bytes):
            return msgspec.json.decode(data, type=kind)
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        # "Expected `int`, got `str` - at `$.process.user.uid`"
        what, _, path = str(error).partition(" - at `$")
        where = path.rstrip("`").lstrip(".")
        raise ConfigError(f"{name}: {where + ': ' if where else ''}{what[:1].lower()}{what[1:]}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name} is not JSON: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{name}: nested too deep") from error
