"""crun's annotations, for what the specification has no property for. Source: crun(1)."""

from __future__ import annotations

from binascii import a2b_base64

from minibox.errors import ConfigError
from minibox.linux.seccomp import filter_flags
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
    """Return the annotations that have no effect here. An empty subgroup is what we do anyway."""
    asked = spec.get("annotations", {}).items()
    return sorted(
        name
        for name, value in asked
        if name.startswith(PREFIX) and name not in KNOWN and (name, value) != (SUBGROUP, "")
    )


def keeps_groups(spec: Spec) -> bool:
    """Return whether the process keeps the caller's supplementary groups, as ``podman --group-add keep-groups`` asks."""
    return spec.get("annotations", {}).get(KEEP_GROUPS) == "1"


def filter_of(spec: Spec, root: str) -> tuple[bytes, int]:
    """Return the seccomp filter (b"" for none) and the flags to load it with. The filter comes from
    `linux.seccomp.program`, or ready for the kernel from an annotation.

    Args:
        root: the directory of the cache of compiled filters.

    Raises:
        ConfigError: the annotation isn't a filter.
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
        raise ConfigError(f"annotation {FILTER}: {len(found)} bytes are not a whole number of instructions")
    return found, 0
