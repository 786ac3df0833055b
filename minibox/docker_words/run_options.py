"""The options of a run that have a syntax of their own: from Docker's words to typed values and back."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any


def typed(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Parse the words among the fields of `engine.spec.options.RunOptions`; the other fields stay as they are.

    Raises:
        UsageError: a word is invalid.
    """
    found = dict(fields)
    for name, words in fields.items():
        if words and (parse := _parser(name)):
            found[name] = tuple(map(parse, words))
    return found


def _parser(field: str) -> Callable[[str], Any] | None:
    """Import only what is needed: most runs have none of these options."""
    if field in ("volume", "mount", "tmpfs"):
        from minibox.docker_words import mounts

        return {"volume": mounts.parse_volume, "mount": mounts.parse_mount, "tmpfs": mounts.parse_tmpfs}[field]
    if field == "publish":
        from minibox.docker_words.ports import parse_publish

        return parse_publish
    if field == "ulimit":
        from minibox.docker_words.limits import parse_ulimit

        return parse_ulimit
    if field in ("label", "sysctl", "add_host"):
        from minibox.docker_words import pairs

        return {"label": pairs.parse_label, "sysctl": pairs.parse_sysctl, "add_host": pairs.parse_add_host}[field]
    return None
