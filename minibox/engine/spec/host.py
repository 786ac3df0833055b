"""What making a Spec needs to know of the host and of the caller, as one value.

`make_spec` is pure in it: a test states the facts. `host_facts` collects the real ones.
"""

from __future__ import annotations

import os

from minibox.base.paths import working_directory
from minibox.linux.capabilities import last_cap
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def read_file(path: str) -> bytes:
    """The content of a file of the host."""
    with open(path, "rb", 0) as file:
        return file.readall()


@record
class HostFacts:
    """The host and the caller.

    Attributes:
        environ: the caller's environment; ``-e NAME`` takes from it.
        cwd: the caller's working directory, where relative bind sources start; "" when it was removed.
        hostname: the host's; a container with the host's network shows it.
        cpus: how many CPUs the host has.
        last_cap: the kernel's last capability.
        swap_limit: whether a default swap limit can be set beside a memory limit.
        stat, lstat, read, list_dir: how to look at the host's files: ``--device``, bind sources,
            ``--env-file`` and seccomp profiles name some.
    """

    environ: Mapping[str, str]
    cwd: str = "/"
    hostname: str = "localhost"
    cpus: int = 1
    last_cap: int = 40
    swap_limit: bool = True
    stat: Callable[[str], os.stat_result] = os.stat
    lstat: Callable[[str], os.stat_result] = os.lstat
    read: Callable[[str], bytes] = read_file
    list_dir: Callable[[str], list[str]] = os.listdir


def host_facts(*, swap_limit: bool = True) -> HostFacts:
    """The facts of the running host and process."""
    return HostFacts(
        environ=os.environ,
        cwd=working_directory(),
        hostname=os.uname().nodename,
        cpus=os.cpu_count() or 1,
        last_cap=last_cap(),
        swap_limit=swap_limit,
    )
