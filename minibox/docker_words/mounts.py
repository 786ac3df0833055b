"""``-v``, ``--mount`` and ``--tmpfs``, in Docker's syntax."""

from __future__ import annotations

from minibox.base.sizes import parse_size
from minibox.base.values import truth
from minibox.errors import Unsupported, UsageError
from minibox.record import record

PROPAGATION = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_BIND_WORDS = ("ro", "rw", "z", "Z", "nocopy", "noidmap", "rbind", "bind", "nosuid", "nodev", "noexec")
_TMPFS_FLAGS = (
    "ro", "rw", "nosuid", "suid", "nodev", "dev", "noexec", "exec", "nodiratime", "diratime", "relatime",
    "norelatime", "strictatime", "nostrictatime", "noatime", "atime", "sync", "async", "dirsync", "mand", "nomand",
)  # fmt: skip
_TMPFS_VALUES = ("size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol")
_NAME_ALPHABET = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")


@record
class MountRequest:
    """One requested mount.

    Attributes:
        kind: bind, volume or tmpfs.
        source: a path of the host, which may be relative, or the name of a volume; "" for an anonymous volume.
        word: what the user wrote; "" if it wasn't a word.
    """

    kind: str
    source: str
    destination: str
    options: tuple[str, ...] = ()
    word: str = ""

    def __str__(self) -> str:
        if self.word:
            return self.word
        source = f",source={self.source}" if self.source else ""
        return ",".join((f"type={self.kind}{source},target={self.destination}", *self.options))


def destination_path(path: str, word: str) -> str:
    """Check and normalise a destination; ``word`` is quoted in errors.

    Raises:
        UsageError: relative, the root directory, or with ``..`` or a NUL byte.
    """
    if not path.startswith("/"):
        raise UsageError(f"invalid mount {word!r}: destination {path!r} is not absolute", hint="begin it with /")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise UsageError(
            f"invalid mount {word!r}: destination {path!r} contains '..'", hint="write the path without .."
        )
    if "\0" in path:
        raise UsageError(f"invalid mount {word!r}: destination contains a NUL byte")
    if not parts:
        raise UsageError(f"invalid mount {word!r}: destination can't be '/'", hint="mount on a directory below it")
    return "/" + "/".join(parts)


def parse_volume(word: str) -> MountRequest:
    """Parse ``[SRC:]DST[:options]`` of ``-v``."""
    parts = word.split(":")
    if len(parts) > 3 or not all(parts):
        raise UsageError(f"invalid volume {word!r}", hint="write SOURCE:DESTINATION[:OPTIONS] or DESTINATION")
    if len(parts) == 1:
        return MountRequest("volume", "", destination_path(word, word), (), word)
    source, destination = parts[0], parts[1]
    if len(parts) == 2 and not destination.startswith("/") and source.startswith("/") and _known(destination):
        raise UsageError(f"invalid volume {word!r}: options without a source", hint="write SOURCE:DESTINATION:OPTIONS")
    options = checked_options(parts[2], word) if len(parts) == 3 else ()
    path = destination_path(destination, word)
    if is_path(source):
        return MountRequest("bind", source, path, options, word)
    return MountRequest("volume", volume_name(source, word), path, options, word)


def is_path(source: str) -> bool:
    """Tell whether the source of ``-v`` is a path of the host; otherwise it is the name of a volume."""
    return source.startswith(("/", "./", "../")) or source in (".", "..")


def checked_options(text: str, word: str) -> tuple[str, ...]:
    """Split and check the options of a mount; ``word`` is quoted in errors.

    Raises:
        UsageError: an unknown option, or two that contradict each other.
    """
    options = tuple(text.split(","))
    for option in options:
        if not _known(option):
            raise UsageError(
                f"invalid volume {word!r}: unknown option {option!r}",
                hint=f"options are {', '.join((*_BIND_WORDS, *PROPAGATION))}",
            )
    if "ro" in options and "rw" in options:
        raise UsageError(f"invalid volume {word!r}: both ro and rw")
    if sum(option in PROPAGATION for option in options) > 1:
        raise UsageError(f"invalid volume {word!r}: more than one propagation")
    return options


def _known(option: str) -> bool:
    return option in _BIND_WORDS or option in PROPAGATION


def volume_name(name: str, word: str) -> str:
    """Check the name of a volume; ``word`` is quoted in errors.

    Raises:
        UsageError: an invalid name.
    """
    if len(name) < 2 or len(name) > 255 or not name[0].isalnum() or not _NAME_ALPHABET.issuperset(name):
        raise UsageError(
            f"invalid volume name {name!r}" + (f" in {word!r}" if word != name else ""),
            hint="a name has two or more letters, digits, '_', '.' and '-'; "
            "for a directory of the host write an absolute path",
        )
    return name


def parse_mount(word: str) -> MountRequest:
    """Parse ``type=...,source=...,target=...`` of ``--mount``."""
    fields = _csv(word)
    kind = fields.pop("type", "volume")
    if kind == "image":
        raise Unsupported("mounts of type image are not supported", hint="copy the files, or use the image itself")
    if kind not in ("bind", "volume", "tmpfs"):
        raise UsageError(f"invalid mount {word!r}: unknown type {kind!r}", hint="types are bind, volume and tmpfs")
    source = _alias(fields, word, "source", "src")
    target = _alias(fields, word, "target", "destination", "dst")
    if not target:
        raise UsageError(f"invalid mount {word!r}: no target", hint="add target=/path/in/the/container")
    options = ["ro"] if _flag(fields, word, "readonly", "ro") else []
    fields.pop("consistency", None)  # concerns macOS file sharing only
    if kind == "tmpfs":
        options = _mount_tmpfs(fields, word, source, options)
    else:
        options += _mount_bind(fields, word, kind)
    if fields:
        raise UsageError(f"invalid mount {word!r}: unexpected key {next(iter(fields))!r} for type {kind}")
    destination = destination_path(target, word)
    if kind == "volume" and source:
        source = volume_name(source, word)
    elif kind == "bind":
        if not source.startswith("/"):
            raise UsageError(f"invalid mount {word!r}: source {source!r} is not absolute", hint="write the whole path")
    return MountRequest(kind, source, destination, tuple(options), word)


def _mount_bind(fields: dict[str, str], word: str, kind: str) -> list[str]:
    options = []
    if not _flag(fields, word, "idmap", default=True):
        options.append("noidmap")
    if kind == "volume":
        if fields.pop("volume-driver", "local") != "local":
            raise Unsupported(f"mount {word!r} asks for a volume driver", hint="minibox has local volumes only")
        fields.pop("volume-label", None)
        return [*options, "nocopy"] if _flag(fields, word, "volume-nocopy") else options
    propagation = fields.pop("bind-propagation", "")
    if propagation and propagation not in PROPAGATION:
        raise UsageError(
            f"invalid mount {word!r}: unknown propagation {propagation!r}", hint=f"one of {', '.join(PROPAGATION)}"
        )
    recursive = fields.pop("bind-recursive", "enabled")
    if recursive not in ("enabled", "disabled", "writable", "readonly"):
        raise UsageError(f"invalid mount {word!r}: bind-recursive must be enabled, disabled, writable or readonly")
    if _flag(fields, word, "bind-nonrecursive") or recursive == "disabled":
        options.append("bind")
    if recursive == "writable":
        options.append("ro-top")
    return [*options, propagation] if propagation else options


def _mount_tmpfs(fields: dict[str, str], word: str, source: str, options: list[str]) -> list[str]:
    if source:
        raise UsageError(f"invalid mount {word!r}: a tmpfs has no source")
    result = ["nosuid", "nodev", "noexec", *options]
    if size := fields.pop("tmpfs-size", ""):
        result.append(f"size={parse_size(size, 'tmpfs-size')}")
    if mode := fields.pop("tmpfs-mode", ""):
        if len(mode) > 5 or not mode.isascii() or set(mode) - set("01234567"):
            raise UsageError(f"invalid mount {word!r}: tmpfs-mode {mode!r} is not an octal mode")
        result.append(f"mode={mode}")
    return result


def _csv(word: str) -> dict[str, str]:
    """Split ``key=value`` fields; a field in double quotes may contain commas."""
    fields: dict[str, str] = {}
    rest = word
    while rest:
        if rest[0] == '"':
            field, quote, rest = rest[1:].partition('"')
            if not quote or (rest and rest[0] != ","):
                raise UsageError(f"invalid mount {word!r}: a quote isn't closed")
            rest = rest[1:]
        else:
            field, _, rest = rest.partition(",")
        key, equals, value = field.partition("=")
        key = key.strip().lower()
        if not key or (not equals and key not in ("readonly", "ro", "volume-nocopy", "bind-nonrecursive")):
            raise UsageError(f"invalid mount {word!r}: {field!r} is not key=value")
        if key in fields:
            raise UsageError(f"invalid mount {word!r}: key {key!r} is given twice")
        if "\0" in value:
            raise UsageError(f"invalid mount {word!r}: {key!r} contains a NUL byte")
        fields[key] = value
    return fields


def _alias(fields: dict[str, str], word: str, *keys: str) -> str:
    given = [fields.pop(key) for key in keys if key in fields]
    if len(given) > 1:
        raise UsageError(f"invalid mount {word!r}: {' and '.join(keys)} are the same key")
    return given[0] if given else ""


def _flag(fields: dict[str, str], word: str, *keys: str, default: bool = False) -> bool:
    found = default
    for key in keys:
        if key in fields:
            value = fields.pop(key)
            try:
                found = not value or truth(value)
            except ValueError:
                raise UsageError(f"invalid mount {word!r}: {key} must be true or false, not {value!r}") from None
    return found


def parse_tmpfs(word: str) -> MountRequest:
    """Parse ``DST[:options]`` of ``--tmpfs``."""
    path, _, text = word.partition(":")
    options = {"noexec": "", "nosuid": "", "nodev": ""}
    for option in text.split(",") if text else ():
        name, equals, value = option.partition("=")
        if not (name in _TMPFS_VALUES and value if equals else name in _TMPFS_FLAGS) or "\0" in option:
            raise UsageError(
                f"invalid tmpfs {word!r}: unknown option {option!r}",
                hint="for example --tmpfs /run:rw,size=64m,mode=1777",
            )
        value = _tmpfs_value(name, value, word)
        # The last one wins: "exec" removes the default "noexec".
        options.pop(name.removeprefix("no") if name.startswith("no") else "no" + name, None)
        options[name] = f"={value}" if equals else ""
    if "rw" in options:
        options.pop("ro", None)
    return MountRequest("tmpfs", "", destination_path(path, word), tuple(k + v for k, v in options.items()), word)


def _tmpfs_value(name: str, value: str, word: str) -> str:
    """Check the value of a tmpfs option and return it in the kernel's format; tmpfs(5)."""
    if name == "size" and not (value.endswith("%") and value[:-1].isdecimal()):
        size = parse_size(value, f"size in --tmpfs {word!r}:")
        return str(size) if value[-1] in "bB" else value
    digits = {"mode": "01234567", "uid": "0123456789", "gid": "0123456789"}.get(name)
    if digits and (set(value) - set(digits) or len(value) > 10):
        raise UsageError(f"invalid tmpfs {word!r}: {name} is {value!r}", hint="for example uid=1000,gid=1000,mode=1777")
    return value
