"""The facts about the host and the caller that a Spec depends on, as one value.

`make_spec` depends on nothing else, so a test can state the facts. `host_facts` collects the real ones.
"""

from __future__ import annotations

import os

from minibox.base.files import content_of
from minibox.base.paths import working_directory
from minibox.linux.capabilities import last_cap
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@record
class HostFacts:
    """Facts about the host and the caller.

    Attributes:
        environ: the caller's environment; ``-e NAME`` takes its value from here.
        cwd: the caller's working directory, for relative bind sources; "" if it was removed.
        hostname: the host's name; containers on the host's network get it.
        cpus: the number of CPUs.
        last_cap: the last capability that the kernel knows.
        swap_limit: whether a memory limit gets a default swap limit.
        stat, lstat, read, list_dir: access to the host's files, for ``--device``, bind sources, ``--env-file`` and
        seccomp profiles.
    """

    environ: Mapping[str, str]
    cwd: str = "/"
    hostname: str = "localhost"
    cpus: int = 1
    last_cap: int = 40
    swap_limit: bool = True
    stat: Callable[[str], os.stat_result] = os.stat
    lstat: Callable[[str], os.stat_result] = os.lstat
    read: Callable[[str], bytes] = content_of
    list_dir: Callable[[str], list[str]] = os.listdir


def host_facts(*, swap_limit: bool = True) -> HostFacts:
    """Collect the facts about this host and process."""
    return HostFacts(
        environ=os.environ,
        cwd=working_directory(),
        hostname=os.uname().nodename,
        cpus=os.cpu_count() or 1,
        last_cap=last_cap(),
        swap_limit=swap_limit,
    )
