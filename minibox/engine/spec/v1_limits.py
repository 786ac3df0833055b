"""Limits that only cgroup v1 has, or only some kernels: what this host lacks is left out with a warning, as in Docker."""

from __future__ import annotations

import os

from minibox.linux import cgroup
from minibox.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.engine.spec.options import RunOptions

#: By option: its field, the controller and the file that it needs, and what it is called.
NEEDS = (
    ("memory_swappiness", "memory", "memory.swappiness", "memory swappiness"),
    ("oom_kill_disable", "memory", "memory.oom_control", "turning the out-of-memory killer off"),
    ("cpu_rt_period_us", "cpu", "cpu.rt_period_us", "the limit of real-time processes"),
    ("cpu_rt_runtime_us", "cpu", "cpu.rt_runtime_us", "the limit of real-time processes"),
    ("kernel_memory_bytes", "", "", "a limit of kernel memory"),
)
FIELDS = tuple(field for field, *_ in NEEDS)


def supported(options: RunOptions) -> tuple[RunOptions, list[str]]:
    """Return the options without those that this host can't set, and a warning for each of these."""
    v1 = cgroup.detect().v1
    without: dict[str, Any] = {}
    warnings = []
    for field, controller, file, words in NEEDS:
        default = getattr(type(options), field)
        if getattr(options, field) in (default, -1):
            continue
        if not file or controller not in v1 or not os.path.exists(f"{v1[controller]}/{file}"):
            without[field] = default
            warnings.append(f"this host can't do {words}: --{_name(field)} has no effect")
    if options.oom_kill_disable and not without.get("oom_kill_disable") and options.memory_bytes is None:
        warnings.append("--oom-kill-disable without --memory: the host's own processes may be killed instead")
    return replace(options, **without) if without else options, warnings


def _name(field: str) -> str:
    return field.removesuffix("_us").removesuffix("_bytes").replace("_", "-")
