"""Check that a container has its command, with the messages that engines expect.

Docker and Podman turn "executable file not found in $PATH" and "no such file or directory" into exit status 127, and
"permission denied" into 126.
"""

from __future__ import annotations

import os
from errno import EACCES, ECANCELED, ENOENT, ENOTDIR
from stat import S_ISREG

from minibox.base.files import closing
from minibox.errors import CommandNotExecutable, CommandNotFound, MiniboxError, kernel_says
from minibox.linux.files import open_in_root
from minibox.plan.process import candidates, environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from minibox.errors import ExecFailed
    from minibox.oci.runtime import Process


def failed_command(process: Process, errno: int) -> MiniboxError:
    """Return the error for a failed execve(2)."""
    name = process["args"][0]
    what = os.strerror(errno).lower()
    if errno in (ENOENT, ENOTDIR) and "/" not in name:
        what = "executable file not found in $PATH"
    elif errno == ENOENT:
        what = f"stat {name}: {what}"
    kind = CommandNotFound if errno in (ENOENT, ENOTDIR) else CommandNotExecutable
    return kind(f'unable to start container process: exec: "{name}": {what}')


def failed_exec(error: ExecFailed, process: Process) -> MiniboxError:
    """Return the error for a failed exec."""
    return failed_command(process, error.errno)


def failed_step(steps: Sequence[str], process: Process, index: int, errno: int, detail: int) -> MiniboxError:
    """Return the error for a failed step after the gate, as reported by `gate.open_gate`.

    Args:
        steps: the names of all steps of the process.
    """
    step = steps[index]
    if step == "exec":
        return failed_command(process, errno)
    what = "error running startContainer hook" if step == "hook" else step
    ended = errno == ECANCELED and (f"signal {detail & 0x7F}" if detail & 0x7F else f"exit status {detail >> 8}")
    return MiniboxError(f"unable to start container process: {what}: {ended or kernel_says(errno)}")


def check_command(process: Process, pid: int) -> None:
    """Look for the command of a process that waits to execute it.

    Raises:
        CommandNotFound, CommandNotExecutable: the exec would fail.
    """
    try:
        root_fd = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return  # we may not look; the exec will tell
    found = ENOENT
    with closing(root_fd):
        for path in candidates(process["args"][0], environment(process)):
            errno = _executable(root_fd, os.path.join(process["cwd"], path))
            if not errno:
                return
            found = errno if errno == EACCES else found
    raise failed_command(process, found)


def _executable(root_fd: int, path: str) -> int:
    """Return 0, or the errno that an exec of the file would fail with."""
    try:
        fd = open_in_root(root_fd, path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        return (
            error.errno if error.errno in (ENOENT, ENOTDIR, EACCES) else 0
        )  # only exec itself follows a link of /proc
    mode = os.fstat(fd).st_mode
    os.close(fd)
    return 0 if S_ISREG(mode) and mode & 0o111 else EACCES
