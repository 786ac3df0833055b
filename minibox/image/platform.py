"""Platforms in OCI's form, ``linux/arm64`` or ``linux/arm/v7``, and which of those in an index a machine can run.

Source: OCI image-spec 1.1, image-index.md ("platform"); the words are Go's GOOS and GOARCH.
"""

from __future__ import annotations

import os

from minibox.errors import UsageError
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

# What uname and users call an architecture, and OCI's name for it, with a variant if that matters.
ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv8l": ("arm", "v7"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "armv5tel": ("arm", "v5"),
    "loongarch64": ("loong64", ""),
}
ARM_VARIANTS = ("v8", "v7", "v6", "v5")
# What else an architecture's processors can run, best first.
ALSO_RUNS = {"amd64": (("386", ""),), "arm64": tuple(("arm", variant) for variant in ARM_VARIANTS)}
DEFAULT_VARIANTS = {"arm64": "v8", "arm": "v7"}
WORD = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._-")


@record
class Platform:
    """An operating system and an architecture; ``variant`` is "" if the architecture has no variants."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return f"{self.os}/{self.architecture}" + (f"/{self.variant}" if self.variant else "")

    def document(self) -> dict[str, str]:
        """As in an index's descriptor and in an image config; the reverse of `platform_of`."""
        values = {"architecture": self.architecture, "os": self.os, "variant": self.variant}
        return {key: text for key, text in values.items() if text}


def host_platform() -> Platform:
    """Return this machine's platform."""
    return _platform("linux", os.uname().machine, "")


def parse_platform(text: str) -> Platform:
    """Parse ``OS/ARCH[/VARIANT]``, or ``ARCH`` alone.

    Raises:
        UsageError: it is neither.
    """
    words = text.lower().split("/")
    if len(words) == 1:
        words = ["linux", *words]
    if len(words) > 3 or not all(word and WORD.issuperset(word) for word in words):
        raise UsageError(
            f"invalid platform {ascii(text)}", "write OS/ARCH[/VARIANT], such as linux/arm64 or linux/arm/v7"
        )
    return _platform(words[0], words[1], words[2] if len(words) == 3 else "")


def platform_of(value: Mapping[str, Any]) -> Platform:
    """Return the platform in an index's descriptor (its ``platform``) or in an image config."""
    texts = [value.get(name) for name in ("os", "architecture", "variant")]
    return Platform(*(text if isinstance(text, str) else "" for text in texts))


def runs(wanted: Platform, offered: Platform) -> bool:
    """Tell whether a machine of the platform ``wanted`` can run an image for ``offered``."""
    return _rank(wanted, offered) is not None


def best(wanted: Platform, offered: Iterable[Platform]) -> int | None:
    """Return the position of the best match for ``wanted``, or None. An exact match is better than others that run."""
    ranked = [(rank, index) for index, item in enumerate(offered) if (rank := _rank(wanted, item)) is not None]
    return min(ranked)[1] if ranked else None


def _platform(system: str, architecture: str, variant: str) -> Platform:
    architecture, usual = ARCHITECTURES.get(architecture, (architecture, ""))
    return Platform(system, architecture, variant or usual)


def _rank(wanted: Platform, offered: Platform) -> int | None:
    """Return 0 for the best match, more for a worse one, None for no match."""
    if offered.os != wanted.os:
        return None
    name, variant = offered.architecture, offered.variant
    if (name, variant) == ("amd64", "v1"):
        variant = ""
    found = (name, variant or DEFAULT_VARIANTS.get(name, ""))
    choices = _choices(wanted)
    return choices.index(found) if found in choices else None


def _choices(wanted: Platform) -> list[tuple[str, str]]:
    """Return what ``wanted`` can run, as (architecture, variant), best first."""
    name, variant = wanted.architecture, wanted.variant or DEFAULT_VARIANTS.get(wanted.architecture, "")
    own = [(name, variant)]
    if name == "arm" and variant in ARM_VARIANTS:
        own = [(name, lower) for lower in ARM_VARIANTS[ARM_VARIANTS.index(variant) :]]
    elif variant not in ("", DEFAULT_VARIANTS.get(name)):
        own += [(name, DEFAULT_VARIANTS.get(name, ""))]  # amd64/v3 runs plain amd64
    return own + list(ALSO_RUNS.get(name, ()))
