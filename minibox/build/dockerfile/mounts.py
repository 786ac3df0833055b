"""``RUN --mount``: a mount's type and options, and what each type allows.

Source: the Dockerfile reference, "RUN --mount".
"""

from __future__ import annotations

from minibox.base.sizes import parse_size
from minibox.base.values import truth
from minibox.build.dockerfile.lines import Problem
from minibox.build.dockerfile.numbers import number_of
from minibox.build.dockerfile.suggest import did_you_mean
from minibox.errors import UsageError
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

TYPES = ("bind", "cache", "tmpfs", "secret", "ssh")
# Options that only some types have; the others go with each, as in BuildKit.
ONLY_FOR = {
    "sharing": ("cache",),
    "mode": ("cache", "secret", "ssh"),
    "uid": ("cache", "secret", "ssh"),
    "gid": ("cache", "secret", "ssh"),
    "required": ("secret", "ssh"),
    "size": ("tmpfs",),
    "env": ("secret",),
    "from": ("bind", "cache", "tmpfs", "ssh"),
}
OPTIONS = ("type", "target", "source", "from", "id", "ro", "rw", *(name for name in ONLY_FOR if name != "from"))
SHARING = ("shared", "private", "locked")
_NAMES = {
    "src": "source",
    "dst": "target",
    "destination": "target",
    "readonly": "ro",
    "readwrite": "rw",
}
_WITHOUT_VALUE = ("ro", "rw", "required")


@record
class Mount:
    """A mount of one RUN. ``source`` is a path in ``from_name`` (a stage, an image, a context; "" is the context).

    ``id`` names a cache, a secret or an agent; ``env`` is the variable that gets a secret. A ``target`` that is not
    absolute is relative to the working directory; for a secret or an agent, "" is the usual place.
    """

    type: str
    target: str = ""
    source: str = ""
    from_name: str = ""
    read_only: bool = False
    id: str = ""
    sharing: str = "shared"
    required: bool = False
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    env: str = ""
    size_bytes: int | None = None


def fields_of(flag: str) -> list[tuple[str, str | None]]:
    """Split a value of --mount, which is a line of CSV, into names and values."""
    if not flag:
        raise Problem("--mount is empty", "write --mount=type=TYPE,target=PATH", at="--mount=")
    fields = []
    for word in _split(flag) if '"' in flag else flag.split(","):
        name, equals, value = word.partition("=")
        fields.append((_NAMES.get(name.lower(), name.lower()), value if equals else None))
    return fields


def _split(flag: str) -> list[str]:
    """Split a line of CSV with quotes."""
    import csv

    try:
        (row,) = csv.reader([flag], strict=True)
    except (csv.Error, ValueError):
        raise Problem(f"invalid mount {flag!r}: a quote has no end, or more follows it", at=flag) from None
    return row


def from_of(flag: str) -> str:
    """The ``from`` of a mount, which can't have variables; "" without one."""
    value = dict(fields_of(flag)).get("from") or ""
    if "$" in value[:-1]:
        hint = "define a stage with FROM and that variable, and name the stage"
        raise Problem(f"--mount from={value} can't use a variable", hint, at=flag)
    return value


def parse_mount(flag: str, expand: Callable[[str], str]) -> Mount:
    """Parse a value of --mount; ``expand`` substitutes the variables in an option's value."""
    fields = [(name, expand(value) if value and name != "from" else value) for name, value in fields_of(flag)]
    from_of(flag)
    kind = next((value.lower() for name, value in fields if name == "type" and value), "bind")
    if kind not in TYPES:
        raise Problem(f"unknown mount type {kind!r}", did_you_mean(kind, TYPES), at=flag)
    options: dict[str, str | None] = {}
    for name, value in fields:
        _check_option(kind, name, value, flag)
        if name in ("ro", "rw"):
            options.pop("ro", None)
            options.pop("rw", None)
        options[name] = value
    return _mount(kind, options, flag)


def _check_option(kind: str, name: str, value: str | None, flag: str) -> None:
    if name not in OPTIONS:
        raise Problem(f"unknown mount option {name!r}", did_you_mean(name, [*OPTIONS, *_NAMES]), at=flag)
    if kind not in ONLY_FOR.get(name, TYPES):
        hint = f"{name} is for mounts of type {' or '.join(ONLY_FOR[name])}"
        raise Problem(f"a mount of type {kind} has no option {name!r}", hint, at=flag)
    if value is None and name not in _WITHOUT_VALUE:
        raise Problem(f"the mount option {name} needs a value", f"write {name}=VALUE", at=flag)


def _mount(kind: str, options: dict[str, str | None], flag: str) -> Mount:
    def number(name: str, base: int) -> int | None:
        value = options.get(name)
        if value is None:
            return None
        parsed = number_of(value, 1 << 32, base)
        if parsed is None:
            raise Problem(f"invalid {name} {value!r} of a mount", f"it is a number to the base {base}", at=flag)
        return parsed

    def flag_of(name: str) -> bool | None:
        if name not in options:
            return None
        value = options[name]
        try:
            return True if value is None else truth(value)
        except ValueError:
            raise Problem(f"invalid {name} {value!r} of a mount", "write true or false", at=flag) from None

    written = flag_of("rw")
    read_only = flag_of("ro") if written is None else not written
    sharing = (options.get("sharing") or "shared").lower()
    if sharing not in SHARING:
        raise Problem(f"unknown sharing {sharing!r} of a cache", did_you_mean(sharing, SHARING), at=flag)
    mount = Mount(
        kind,
        target=options.get("target") or "",
        source=options.get("source") or "",
        from_name=options.get("from") or "",
        read_only=kind == "bind" if read_only is None else read_only,
        id=options.get("id") or "",
        sharing=sharing,
        required=bool(flag_of("required")),
        mode=number("mode", 8),
        uid=number("uid", 10),
        gid=number("gid", 10),
        env=options.get("env") or "",
        size_bytes=_size(options.get("size"), flag),
    )
    _check_whole(mount, flag)
    return mount


def _size(text: str | None, flag: str) -> int | None:
    if text is None:
        return None
    try:
        return parse_size(text)
    except UsageError as error:
        raise Problem(f"{error} of a mount", error.hint, at=flag) from None


def _check_whole(mount: Mount, flag: str) -> None:
    """Check what only all options together tell."""
    if mount.type == "secret":
        if mount.source and mount.id:
            raise Problem("a secret has id or source, not both", "keep id", at=flag)
        if not (mount.source or mount.target or mount.id):
            raise Problem("a mount of type secret needs an id or a target", "add id=NAME", at=flag)
