"""`minibox-oci features`: what this runtime supports; OCI runtime spec, features.md and features-linux.md."""

from __future__ import annotations

from minibox.engine.host.version import version_text
from minibox.engine.oci.state import VERSION
from minibox.linux import capabilities
from minibox.linux.seccomp import compile, flag_names
from minibox.plan import mounts, scheduling
from minibox.plan.namespaces import NAMESPACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")

# libseccomp's names
ARCHITECTURES = (
    "SCMP_ARCH_X86", "SCMP_ARCH_X86_64", "SCMP_ARCH_X32", "SCMP_ARCH_ARM", "SCMP_ARCH_AARCH64", "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64", "SCMP_ARCH_MIPS64N32", "SCMP_ARCH_MIPSEL", "SCMP_ARCH_MIPSEL64", "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PPC", "SCMP_ARCH_PPC64", "SCMP_ARCH_PPC64LE", "SCMP_ARCH_S390", "SCMP_ARCH_S390X", "SCMP_ARCH_RISCV64",
)  # fmt: skip


def features() -> dict[str, Any]:
    """As data."""
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": VERSION,
        "hooks": list(HOOKS),
        "mountOptions": mounts.option_names(),
        "linux": {
            "namespaces": sorted(NAMESPACES),
            "capabilities": list(capabilities.NAMES[: capabilities.last_cap() + 1]),
            "cgroup": {"v1": True, "v2": True, "systemd": True, "systemdUser": True, "rdma": True},
            "seccomp": {
                "enabled": True,
                "actions": compile.action_names(),
                "operators": compile.operator_names(),
                "archs": list(ARCHITECTURES),
                "knownFlags": flag_names(),
                "supportedFlags": flag_names(),
            },
            "apparmor": {"enabled": True},  # even if the host lacks it, as the specification demands
            "selinux": {"enabled": True},
            "intelRdt": {"enabled": False, "schemata": False, "monitoring": False},
            "memoryPolicy": {"modes": list(scheduling.MEMORY_MODES), "flags": list(scheduling.MEMORY_FLAGS)},
            "mountExtensions": {"idmap": {"enabled": True}},
            "netDevices": {"enabled": True},
        },
        "annotations": {"io.minibox.version": version_text()},
        "potentiallyUnsafeConfigAnnotations": [],
    }
