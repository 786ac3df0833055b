"""Seccomp programs: from the cache on the hot path, compiled by libseccomp the first time.

A Spec says in one of three ways which filter it has. ``linux.seccomp.program`` contains the filter. The annotation
`SECCOMP_ANNOTATION` with the value `DEFAULT_PROFILE` means the default profile, which depends only on the bounding
capabilities. Neither means no filter. The annotation saves the hot path from building, hashing and compiling 400
rules: the cache's key is the profile's version, the machine and the capability mask.
"""

from __future__ import annotations

import os

from minibox.base.files import read_file, replace_file
from minibox.errors import suppress
from minibox.linux.capabilities import mask_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from minibox.oci.runtime import LinuxSeccomp, Spec

SECCOMP_ANNOTATION = "io.minibox.seccomp"
DEFAULT_PROFILE = "default"
#: Increase this with every change to what the default profile compiles to: it is part of the cache's key.
PROFILE_VERSION = 3

_MAGIC = b"mbseccmp"
_DIGEST_SIZE = 16
_BYTES_MAX = 8 << 20
_INSTRUCTION_SIZE = 8  # struct sock_filter


def has_default(spec: Spec) -> bool:
    """Tell whether a Spec uses the default profile, which always denies keyctl(2), add_key(2) and request_key(2)."""
    named = (spec.get("annotations") or {}).get(SECCOMP_ANNOTATION) == DEFAULT_PROFILE
    return named and spec.get("linux", {}).get("seccomp") is None


def program_of(spec: Spec, root: str) -> bytes | None:
    """Return the program of a Spec's filter, None if it has no filter; see `program`."""
    profile = spec.get("linux", {}).get("seccomp")
    if profile is not None:
        return program(profile, (), root)
    if not has_default(spec):
        return None
    process = spec.get("process")
    capabilities = process.get("capabilities", {}).get("bounding", []) if process else []
    return program(DEFAULT_PROFILE, capabilities, root)


def program(profile: str | LinuxSeccomp, capabilities: Iterable[str], root: str) -> bytes:
    """Return the BPF program for seccomp(2), ``struct sock_filter`` after ``struct sock_filter``.

    Args:
        profile: `DEFAULT_PROFILE`, or an OCI ``linux.seccomp.program``.
        capabilities: the container's bounding set; the default profile allows the calls that these capabilities are
            for.
        root: the cache is in ``root/cache/seccomp``. A damaged or missing entry is compiled again; it is no error if
            the entry can't be written.

    Raises:
        ConfigError: the profile can't be compiled.
        Unsupported: libseccomp is missing.
    """
    machine = os.uname().machine
    if isinstance(profile, str):
        name = f"{profile}-{PROFILE_VERSION}-{machine}-{mask_of(capabilities):x}"
    else:
        name = f"{_digest_of(profile)}-{machine}"
    path = f"{root}/cache/seccomp/{name}.bpf"
    found = _cached(path)
    if found is not None:
        return found
    from minibox.linux.seccomp.compile import compile_filter

    if isinstance(profile, str):
        from minibox.linux.seccomp.default_profile import default_profile

        profile = default_profile(capabilities)
    compiled = compile_filter(profile)
    _store(path, compiled)
    return compiled


def _digest_of(profile: LinuxSeccomp) -> str:
    from _blake2 import blake2b

    from minibox.base.json_text import dumps

    text = dumps(profile, "")
    return str(blake2b(text.encode(), digest_size=_DIGEST_SIZE).hexdigest())


def _sealed(data: bytes) -> bytes:
    from _blake2 import blake2b

    return bytes(blake2b(data, digest_size=_DIGEST_SIZE).digest())


def _cached(path: str) -> bytes | None:
    try:
        data = read_file(path, _BYTES_MAX)
    except OSError:
        return None
    start = len(_MAGIC) + _DIGEST_SIZE
    found = data[start:]
    if not found or len(found) % _INSTRUCTION_SIZE or data[:start] != _MAGIC + _sealed(found):
        return None
    return found


def _store(path: str, compiled: bytes) -> None:
    data = _MAGIC + _sealed(compiled) + compiled
    if len(data) > _BYTES_MAX:
        return
    with suppress(OSError):  # without the cache it only takes longer
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        replace_file(path, data)
