"""Run the hooks of an OCI Spec that run in minibox's own namespaces: prestart, createRuntime, poststart, poststop.

Source: OCI runtime spec, config.md, "POSIX-platform Hooks".
"""

from __future__ import annotations

import os

from minibox.base.files import close_descriptors, closing, wait_readable
from minibox.base.json_text import dumps
from minibox.errors import HookFailed, kernel_says, suppress
from minibox.linux.process import IGNORED_BY_PYTHON, SIGKILL, exit_status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from minibox.oci.runtime import Hook

SAID_BYTES_MAX = 1000
OUTPUTS = ("run.oci.hooks.stdout", "run.oci.hooks.stderr")  # crun(1)


def run_hooks(kind: str, hooks: Iterable[Hook], state: Mapping[str, Any]) -> None:
    """Run hooks one after the other, up to the first that fails; see `run_hook`."""
    for number, hook in enumerate(hooks):
        argv, env = tuple(hook.get("args") or [hook["path"]]), tuple(hook["env"]) if "env" in hook else None
        run_hook(kind, number, hook["path"], argv, env, hook.get("timeout", -1), state)


def run_hook(
    kind: str,
    number: int,
    path: str,
    argv: tuple[str, ...],
    env: tuple[str, ...] | None,
    timeout_s: int,
    state: Mapping[str, Any],
) -> None:
    """Run one hook in the bundle's directory.

    Args:
        kind, number: the list ("prestart") and the hook's index in it, for the error.
        env: None for our own environment.
        timeout_s: -1 for no limit.
        state: the container's OCI state, which the hook reads from standard input.

    Raises:
        HookFailed
    """
    environ = os.environ if env is None else dict(word.partition("=")[::2] for word in env)
    outputs = open_outputs(state)
    try:
        why = _run(path, argv, environ, timeout_s, dumps(state, "").encode(), str(state["bundle"]), outputs)
    finally:
        close_outputs(outputs)
    if why:
        raise HookFailed(f"error running {kind} hook #{number}: {path}: {why}")


def open_outputs(state: Mapping[str, Any]) -> tuple[int, int]:
    """Open the files for the hooks' standard output and error that the container's annotations name; -1 for none.

    Raises:
        HookFailed: a file can't be opened.
    """
    found: list[int] = []
    for name in OUTPUTS:
        path = state.get("annotations", {}).get(name)
        if path is None:
            found.append(-1)
            continue
        try:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOCTTY | os.O_CLOEXEC
            found.append(os.open(os.path.join(state["bundle"], path) if path else "", flags, 0o600))
        except OSError as error:
            close_outputs(found)
            raise HookFailed(f"open {path!r} from the annotation {name}: {kernel_says(error)}") from error
    return found[0], found[1]


def close_outputs(outputs: Iterable[int]) -> None:
    """Close the files that `open_outputs` opened."""
    close_descriptors(*outputs)


def state_file(state: Mapping[str, Any]) -> int:
    """A read-only descriptor of the container's state, for the hooks that run inside the container."""
    with closing(_file(dumps(state, "").encode())) as writable:
        return os.open(f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC)


def _run(
    path: str,
    argv: tuple[str, ...],
    environ: Mapping[str, str],
    timeout_s: int,
    state: bytes,
    directory: str,
    outputs: tuple[int, int],
) -> str:
    """Run a hook. Return why it failed and what it wrote (unless that went to ``outputs``); "" if it succeeded."""
    # Use files in memory instead of pipes, so that we needn't read and write while the hook runs.
    stdin, output = _file(state), _file(b"")
    try:
        streams = [
            (os.POSIX_SPAWN_DUP2, source, fd)
            for fd, source in enumerate((stdin, *(output if each < 0 else each for each in outputs)))
        ]
        try:
            pid = _spawn_in(directory, path, argv, environ, streams)
        except OSError as error:
            return kernel_says(error)
        if timeout_s >= 0 and not _ends(pid, timeout_s):
            os.killpg(pid, SIGKILL)
            exit_status(pid)
            return f"it was killed after {timeout_s} s"
        code = exit_status(pid)
        if code is None:
            return "its exit status is unknown: this process ignores SIGCHLD, or waits for any child"
        if not code:
            return ""
        said = os.pread(output, SAID_BYTES_MAX, 0).decode(errors="replace").strip()
        return (f"exit status {code}" if code > 0 else f"signal {-code}") + (f": {said}" if said else "")
    finally:
        os.close(stdin)
        os.close(output)


def _spawn_in(directory: str, path: str, argv: tuple[str, ...], environ: Mapping[str, str], streams: Any) -> int:
    """posix_spawn(3) can't set a directory, so change ours for a moment. The bundle may be gone, as at `delete`."""
    before = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(FileNotFoundError):
            os.chdir(directory)
        return os.posix_spawn(path, argv, environ, file_actions=streams, setpgroup=0, setsigdef=IGNORED_BY_PYTHON)
    finally:
        os.fchdir(before)
        os.close(before)


def _file(data: bytes) -> int:
    fd = os.memfd_create("minibox-hook", os.MFD_CLOEXEC)
    os.pwrite(fd, data, 0)
    return fd


def _ends(pid: int, timeout_s: float) -> bool:
    """Wait for a child. Return whether it ended in time."""
    with closing(os.pidfd_open(pid)) as pidfd:
        return wait_readable(pidfd, timeout_s)
