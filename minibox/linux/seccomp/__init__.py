"""System call filters: the default profile, a user's profile, and compiling them with libseccomp. Which of them a
container gets is decided in `minibox.engine.spec.security`.

Here is what every start needs: the flags of seccomp(2) that a profile needs, and whether it passes calls to a listener.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.oci.runtime import LinuxSeccomp

_FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 0,  # not needed: a single thread loads the filter
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 0x20,
}
NEW_LISTENER = 8
_OF_A_LISTENER = 0x20
NOTIFY = "SCMP_ACT_NOTIFY"


def filter_flags(profile: LinuxSeccomp | None) -> int:
    """Return the ``SECCOMP_FILTER_FLAG_`` bits of a profile for seccomp(2); unknown names are left out."""
    flags = (profile.get("flags") if profile else None) or []
    found = sum(_FLAGS.get(name, 0) for name in set(flags))
    if profile and any(rule["action"] == NOTIFY for rule in profile.get("syscalls") or ()):
        return found | NEW_LISTENER
    return found & ~_OF_A_LISTENER


def flag_names() -> list[str]:
    """Return the flags that a profile may have."""
    return list(_FLAGS)
