"""The ``config`` member of an image's config, checked: how the image wants its containers run.

An image can come from anywhere, so types are checked before use. The checks are written by hand because importing a
validator would take longer than the start itself.
"""

from __future__ import annotations

from minibox.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TEXTS = ("User", "WorkingDir", "StopSignal")
_LISTS = ("Env", "Entrypoint", "Cmd")
_OBJECTS = ("Volumes", "Labels")


def checked_config(image_config: dict[str, Any]) -> dict[str, Any]:
    """Return the ``config`` member of an OCI image config; {} if it has none.

    Raises:
        ConfigError: a member that minibox uses has the wrong type.
    """
    config = image_config.get("config")
    if config is None:
        return {}
    if not isinstance(config, dict):
        raise ConfigError("the image's config is not an object", hint="pull or build the image again")
    for keys, kind in ((_TEXTS, str), (_LISTS, list), (_OBJECTS, dict)):
        for key in keys:
            value = config.get(key)
            if value is not None and not (isinstance(value, kind) and (kind is not list or _texts(value))):
                raise ConfigError(f"the image's {key} has the wrong type", hint="pull or build the image again")
    labels = config.get("Labels")
    if labels and not _texts(labels.values()):
        raise ConfigError("the image's Labels are not strings", hint="pull or build the image again")
    return config


def _texts(values: Any) -> bool:
    return {str}.issuperset(map(type, values))
