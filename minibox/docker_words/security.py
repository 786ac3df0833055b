"""``--security-opt`` in Docker's syntax: ``NAME``, ``NAME=VALUE``, or the old ``NAME:VALUE``."""

from __future__ import annotations

from minibox.base.values import truth
from minibox.errors import Unsupported, UsageError
from minibox.record import record


@record
class SecurityOption:
    """One option.

    Attributes:
        name: a member of `engine.spec.security.Security`, or "label", which only says that there is none.
        word: what the user wrote.
    """

    name: str
    value: str | bool
    word: str

    def __str__(self) -> str:
        return self.word


def parse_security_option(word: str) -> SecurityOption:
    """Parse one ``--security-opt``.

    Raises:
        UsageError: an unknown option or value.
        Unsupported: an SELinux label.
    """
    name, equals, value = word.partition("=")
    if not equals:
        name, equals, value = word.partition(":")
    if name == "no-new-privileges" or (name == "writable-cgroups" and equals):
        return SecurityOption(name.replace("-", "_"), _boolean(value, word), word)
    if name == "seccomp" and value and "\0" not in value:
        return SecurityOption(name, "default" if value == "builtin" else value, word)
    if name == "apparmor" and value and "\0" not in value:
        return SecurityOption(name, "" if value == "unconfined" else value, word)
    if name == "systempaths" and value == "unconfined":
        return SecurityOption("system_paths", False, word)
    if name != "label":
        raise UsageError(
            f"invalid security option {word!r}",
            hint="use apparmor=PROFILE, no-new-privileges, seccomp=FILE|unconfined, systempaths=unconfined, "
            "writable-cgroups=true",
        )
    if value != "disable":
        raise Unsupported(f"security option {word!r} is not supported", hint="minibox doesn't set SELinux labels")
    return SecurityOption(name, False, word)


def _boolean(value: str, word: str) -> bool:
    try:
        return not value or truth(value)
    except ValueError:
        raise UsageError(f"invalid security option {word!r}: {value!r} is neither true nor false") from None
