"""Work on files of other ids, as root of a user namespace that maps them.

A rootless container's files belong to ids whose files its user can't even unlink from outside (user_namespaces(7)). So
a child in a namespace with the same ids unpacks layers, and reads and removes such files. Files inside a running
container are read and written by a child in the container's own namespace, so that owners are the same as inside. Off
the hot path: a start with unpacked layers uses none of this.
"""

from __future__ import annotations

import os
from errno import EINVAL

from minibox import errors
from minibox.base.files import close_descriptors
from minibox.engine.host.ids import own_ids, write_id_maps
from minibox.errors import MiniboxError, StoreError, suppress
from minibox.linux.process import (
    die_with_parent,
    exit_status,
    new_user_namespace,
    open_pidfd,
    set_user_namespace,
)
from minibox.linux.requests import read_from
from minibox.plan.namespaces import has_one_group

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Generic, NoReturn, TypeVar

    from minibox.oci.runtime import Spec

    T = TypeVar("T")
else:  # typing takes 2 ms
    T = None

    class Generic:
        __class_getitem__ = classmethod(lambda cls, _: cls)


def run_inside(function: Callable[[], T]) -> T:
    """Call ``function`` as root of a user namespace with all the caller's ids, and return its value.

    If the caller has only one id, a namespace would gain nothing, and ``function`` is called directly. Its value must
    be one that marshal can encode.

    Raises:
        MiniboxError: ``function`` raised it, or the namespace can't be made.
        OSError: ``function`` raised it.
    """
    return function() if _own_namespace() is None else Work(function).result()


class Work(Generic[T]):
    """A function called in a child, as by `run_inside`, while the caller does something else."""

    def __init__(self, function: Callable[[], T], pid: int = 0) -> None:
        """Start the child.

        Args:
            pid: call it as root of this process's user namespace; 0: of a new one with the caller's ids.

        Raises:
            MiniboxError: the process has ended.
        """
        namespace, spec = -1, None
        if pid:
            namespace = open_namespace(pid)
        else:
            spec = _own_namespace()
        ready = is_ready = mapped = is_mapped = -1
        try:
            ready, is_ready = os.pipe2(os.O_CLOEXEC)
            mapped, is_mapped = os.pipe2(os.O_CLOEXEC)
            parent = os.getpid()
            self._pid = os.fork()
        except BaseException:
            close_descriptors(ready, is_ready, mapped, is_mapped, namespace)
            raise
        if self._pid == 0:
            close_descriptors(ready, is_mapped)
            _child(parent, function, lambda: enter(namespace, spec is not None), is_ready, mapped)
        close_descriptors(is_ready, mapped, namespace)
        self._ready, self._pidfd = ready, -1
        self._report = b""
        try:
            self._pidfd = open_pidfd(self._pid)
            os.set_blocking(ready, False)
            self._report = read_from(ready, self._pidfd)
            if self._report == b"r":
                self._report = b""
                if spec is not None:
                    write_id_maps(self._pid, spec)
                os.write(is_mapped, b"m")
        except BaseException:
            os.close(is_mapped)  # closing it without writing ends the child
            is_mapped = -1
            self._wait()
            raise
        finally:
            if is_mapped >= 0:
                os.close(is_mapped)

    def result(self) -> T:
        """Wait for the child and return the function's value.

        Raises:
            MiniboxError, OSError: the function raised it, or the namespace can't be made.
        """
        report = [self._report]
        try:
            while part := read_from(self._ready, self._pidfd):
                report.append(part)
        finally:
            status = self._wait()
        data = b"".join(report)
        if not data:
            raise StoreError(f"a helper process in a user namespace ended with status {status}")
        result: T = value_of(data)
        return result

    def _wait(self) -> int | None:
        close_descriptors(self._ready, self._pidfd)
        return exit_status(self._pid)


def _own_namespace() -> Spec | None:
    """Return the id maps of a user namespace with all the caller's ids; None if it would gain nothing."""
    mappings = own_ids()
    spec: Any = {"linux": {"uidMappings": list(mappings.uids), "gidMappings": list(mappings.gids)}}
    return None if os.geteuid() == 0 or has_one_group(spec) else spec


def open_namespace(pid: int) -> int:
    """Open the user namespace of a process; -1 if it is the caller's."""
    try:
        fd = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise MiniboxError(f"enter the user namespace of process {pid}: {errors.kernel_says(error)}") from error
    if os.path.samestat(os.fstat(fd), os.stat("/proc/self/ns/user")):
        os.close(fd)
        return -1
    return fd


def enter(namespace: int, new: bool) -> Callable[[], None]:
    """Enter a user namespace, or make one; return what is left to do once its ids are mapped."""
    if namespace >= 0:
        set_user_namespace(namespace)
    elif new:
        new_user_namespace()
    return _become_root if new or namespace >= 0 else lambda: None


def _child(
    parent: int, function: Callable[[], Any], enter: Callable[[], Callable[[], None]], is_ready: int, mapped: int
) -> NoReturn:
    """Call the function and write the report; any report begins with a byte other than ``r``."""

    def call() -> Any:
        die_with_parent(parent)
        become_root = enter()
        os.write(is_ready, b"r")
        if os.read(mapped, 1) != b"m":
            os._exit(1)  # the caller failed
        become_root()
        return function()

    end_with(report_of(call), is_ready)


def report_of(function: Callable[[], Any]) -> bytes:
    """Call the function and return a report of its value or error, for `value_of`."""
    from marshal import dumps

    report: tuple[Any, ...]
    try:
        report = ("result", function())
    except MiniboxError as error:
        kind = "StoreError" if isinstance(error, errors.Unreadable) else type(error).__name__
        report = (kind, str(error), error.hint)
    except OSError as error:
        filename = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else None
        kind = "NotFromKernel" if getattr(error, "not_from_kernel", False) else "OSError"
        report = (kind, error.errno or 0, error.strerror or str(error), filename)
    except BaseException as error:
        report = ("StoreError", f"work in a user namespace: {type(error).__name__}: {error}", None)
    return dumps(report)


def end_with(report: bytes, fd: int) -> NoReturn:
    """Write a report and end this process."""
    try:
        with open(fd, "wb") as file:
            file.write(report)
    finally:
        os._exit(0)


def value_of(report: bytes) -> Any:
    """Return the value in a report.

    Raises:
        MiniboxError, OSError: the function raised it.
    """
    from marshal import loads

    kind, *values = loads(report)
    if kind == "result":
        return values[0]
    if kind == "OSError":
        raise OSError(*values)
    raise getattr(errors, kind, StoreError)(*values)


def _become_root() -> None:
    parent = os.getppid()
    with suppress(PermissionError):  # in a namespace with a single id (user_namespaces(7), "setgroups")
        os.setgroups([])
    try:
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    except OSError as error:
        if error.errno != EINVAL:  # there is no root in it: its only user, the caller, has all rights, too
            raise
    die_with_parent(parent)  # a change of ids resets it
