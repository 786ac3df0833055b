"""crun's annotations, by which a bundle asks for what the specification has no property for. Source: crun(1)."""

from __future__ import annotations

from binascii import a2b_base64

from minibox.errors import ConfigError
from minibox.linux.seccomp.flags import filter_flags
from minibox.linux.seccomp.program import program_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.oci.runtime import Spec

PREFIX = "run.oci."
KEEP_GROUPS = "run.oci.keep_original_groups"
SUBGROUP = "run.oci.systemd.subgroup"
FILTER = "run.oci.seccomp_bpf_data"
KNOWN = (KEEP_GROUPS, FILTER, "run.oci.hooks.stdout", "run.oci.hooks.stderr")
INSTRUCTION_BYTES = 8  # struct sock_filter


def ignored_annotations(spec: Spec) -> list[str]:
    """Those in a Spec that do nothing here. An empty subgroup asks for what there is: a scope is the container's cgroup."""
    asked = spec.get("annotations", {}).items()
    return sorted(
        name
        for name, value in asked
        if name.startswith(PREFIX) and name not in KNOWN and (name, value) != (SUBGROUP, "")
    )


def keeps_groups(spec: Spec) -> bool:
    """Does the process keep the caller's supplementary groups? As ``podman --group-add keep-groups`` asks."""
    return spec.get("annotations", {}).get(KEEP_GROUPS) == "1"


def filter_of(spec: Spec, root: str) -> tuple[bytes, int]:
    """The filter of system calls, b"" for none, and the flags it is loaded with: as `linux.seccomp.program` says, or in its place
    an annotation that gives it as the kernel takes it.

    Args:
        root: of the cache of compiled ones.

    Raises:
        ConfigError: it isn't one.
        Unsupported: see `linux.seccomp.program.program`.
    """
    text = spec.get("annotations", {}).get(FILTER)
    if text is None:
        return program_of(spec, root) or b"", filter_flags(spec["linux"].get("seccomp"))
    try:
        found = a2b_base64(text, strict_mode=True)
    except ValueError as error:
        raise ConfigError(f"annotation {FILTER}: {error}") from None
    if not found or len(found) % INSTRUCTION_BYTES:
        raise ConfigError(f"annotation {FILTER}: {len(found)} bytes are not a number of instructions")
    return found, 0
