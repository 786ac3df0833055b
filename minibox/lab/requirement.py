"""What a lab asks for, one thing at a time."""

from __future__ import annotations


class Missing(Exception):
    """A lab isn't done yet: what is missing, in words for the student."""


def require(met: object, missing: str) -> None:
    """
    Raises:
        Missing: it isn't met.
    """
    if not met:
        raise Missing(missing)
