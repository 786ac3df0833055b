"""Work on files of other ids: as root of a user namespace that has them.

A rootless container's files belong to ids that its user may not even unlink from outside
(user_namespaces(7)): layers are unpacked, and such files read and removed, by a child in a namespace with
the same ids. What a running container sees is read and written by a child in the container's own, so that
owners are what they are inside. Off the hot path: nothing here runs in a start whose layers are unpacked.
"""

from __future__ import annotations

import os

from minibox import errors
from minibox.engine.ids import own_ids, single, write_id_maps
from minibox.errors import MiniboxError, StoreError
from minibox.linux.process import die_with_parent, new_user_namespace, set_user_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn, TypeVar

    T = TypeVar("T")


def run_inside(function: Callable[[], T]) -> T:
    """Call ``function`` as root of a user namespace that has all ids of the caller's; what it returned.

    With one id only there is nothing to gain: it is called here. Its result must be of what marshal takes.

    Raises:
        MiniboxError: ``function`` failed so, or the namespace can't be made.
        OSError: ``function`` failed so.
    """
    mappings = own_ids()
    spec: Any = {"linux": {"uidMappings": list(mappings.uids), "gidMappings": list(mappings.gids)}}
    if os.geteuid() == 0 or single(spec):
        return function()
    return _in_child(function, new_user_namespace, lambda pid: write_id_maps(pid, spec))


def run_as_root_of(pid: int, function: Callable[[], T]) -> T:
    """Call ``function`` as root of the user namespace of a process; here if that is the caller's. As `run_inside`."""
    try:
        namespace = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise MiniboxError(f"enter the user namespace of process {pid}: {errors.kernel_says(error)}") from error
    try:
        if os.path.samestat(os.fstat(namespace), os.stat("/proc/self/ns/user")):
            return function()
        return _in_child(function, lambda: set_user_namespace(namespace), lambda _: None)
    finally:
        os.close(namespace)


def _in_child(function: Callable[[], T], enter: Callable[[], None], map_ids: Callable[[int], None]) -> T:
    """Call ``function`` in a child that calls ``enter`` before; ``map_ids`` is called here with its id in between."""
    from marshal import loads

    ready, is_ready = os.pipe2(os.O_CLOEXEC)
    mapped, is_mapped = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        os.close(ready)
        os.close(is_mapped)
        _child(function, enter, is_ready, mapped)
    os.close(is_ready)
    os.close(mapped)
    try:
        report = _map_and_wait(lambda: map_ids(pid), ready, is_mapped)
    finally:
        os.close(ready)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not report:
        raise StoreError(f"a process in a user namespace ended with status {status}")
    kind, *values = loads(report)
    if kind == "result":
        result: T = values[0]
        return result
    if kind == "OSError":
        raise OSError(*values)
    raise getattr(errors, kind, StoreError)(*values)


def _map_and_wait(map_ids: Callable[[], None], ready: int, is_mapped: int) -> bytes:
    """The parent's part; closes ``is_mapped``, without which the child ends. What the child reported."""
    try:
        start = os.read(ready, 1)
        if start == b"r":
            map_ids()
            os.write(is_mapped, b"m")
            start = b""
    finally:
        os.close(is_mapped)
    report = [start]
    while part := os.read(ready, 1 << 16):
        report.append(part)
    return b"".join(report)


def _child(function: Callable[[], Any], enter: Callable[[], None], is_ready: int, mapped: int) -> NoReturn:
    """Call and report; a report begins with a byte that is not ``r``."""
    from marshal import dumps

    report: tuple[Any, ...] = ()
    try:
        die_with_parent()
        enter()
        os.write(is_ready, b"r")
        if os.read(mapped, 1) == b"m":
            _become_root()
            report = ("result", function())
    except MiniboxError as error:
        report = (type(error).__name__, str(error), error.hint)
    except OSError as error:
        filename = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else None
        report = ("OSError", error.errno or 0, error.strerror or str(error), filename)
    except BaseException as error:
        report = ("StoreError", f"work in a user namespace: {type(error).__name__}: {error}", None)
    finally:
        try:
            if report:
                with open(is_ready, "wb") as file:
                    file.write(dumps(report))
        finally:
            os._exit(0 if report[:1] == ("result",) else 1)


def _become_root() -> None:
    try:
        os.setgroups([])
    except PermissionError:  # in a namespace of one id (user_namespaces(7), "setgroups")
        pass
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    die_with_parent()  # a change of ids forgets it
