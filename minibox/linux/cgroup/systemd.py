"""Ask systemd for a scope over D-Bus. Off the hot path: it loads libsystemd.

Sources: org.freedesktop.systemd1(5), sd-bus(3).
"""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from errno import EINTR, ETIMEDOUT
from time import monotonic, sleep

from minibox.base.files import AutoClose
from minibox.errors import MiniboxError, Unsupported, kernel_says, suppress
from minibox.linux.cgroup.scope import HOLDER, Property, addresses
from minibox.linux.process import exit_status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any


TIMEOUT_S, RETRY_S = 20.0, 0.05
_DESTINATION, _PATH = b"org.freedesktop.systemd1", b"/org/freedesktop/systemd1"
_MANAGER = b"org.freedesktop.systemd1.Manager"


class HeldScope:
    """A scope that another process made and handed over.

    Attributes:
        unit: its name.
    """

    def __init__(self, directory: str) -> None:
        """``directory`` is its cgroup."""
        self.unit = os.path.basename(directory)
        self._procs = f"{directory}/{HOLDER}/cgroup.procs"

    def hand_over(self) -> None:
        """Do nothing: its holder doesn't end with us."""

    def close(self) -> None:
        """End its holder. systemd removes the scope once it is empty."""
        with suppress(OSError):  # the holder is gone
            with open(self._procs) as procs:
                for pid in procs.read().split():
                    os.kill(int(pid), signal.SIGKILL)


def attach(unit: str, place: str, pid: int) -> None:
    """Make systemd move the process ``pid`` from anywhere to the cgroup ``place`` below a unit's.

    Raises:
        MiniboxError: systemd refused.
    """
    with Manager() as manager:
        manager.attach(unit, place, pid)


class Scope(HeldScope):
    """A scope that systemd made for us, and the process that holds it."""

    def __init__(self, directory: str, unit: str, slice_name: str, properties: Iterable[Property]) -> None:
        """Ask systemd for the scope.

        Raises:
            MiniboxError: systemd refused; has its message.
            Unsupported: libsystemd is missing.
        """
        super().__init__(directory)
        self.unit = unit
        self._holder = _Holder()
        self._heir = 0
        try:
            with Manager() as manager:
                self._start(manager, slice_name, tuple(properties))
            # A cgroup can have processes, or children with limits, but not both.
            os.mkdir(f"{directory}/{HOLDER}")
            with open(f"{directory}/{HOLDER}/cgroup.procs", "wb", 0) as procs:
                procs.write(b"%d" % self._holder.pid)
        except BaseException as error:
            self._holder.close()
            if isinstance(error, OSError):
                raise MiniboxError(f"cgroup {directory}: {kernel_says(error)}") from error
            raise

    def hand_over(self) -> None:
        """For a detached container, let a process hold the scope that doesn't end with us, until `HeldScope.close`.

        Raises:
            MiniboxError: systemd refused.
        """
        null = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDWR, 0), *((os.POSIX_SPAWN_DUP2, 0, n) for n in (1, 2))]
        self._heir = os.posix_spawnp("sleep", ["sleep", "infinity"], {}, file_actions=null, setsid=True)
        with Manager() as manager:
            manager.attach(self.unit, f"/{HOLDER}", self._heir)
        self._holder.close()

    def close(self) -> None:
        """End the holder. systemd removes the scope once it is empty."""
        self._holder.close()
        if self._heir:
            os.kill(self._heir, signal.SIGKILL)
            exit_status(self._heir)
            self._heir = 0

    def _start(self, manager: Manager, slice_name: str, properties: tuple[Property, ...]) -> None:
        """Start the scope. If a container is restarted, wait until systemd has removed its old scope of this name."""
        deadline = monotonic() + TIMEOUT_S
        while True:
            try:
                return manager.start_scope(self.unit, slice_name, properties, self._holder.pid)
            except UnitExists:
                if monotonic() > deadline:
                    raise
            sleep(RETRY_S)


class UnitExists(MiniboxError):
    """systemd has a unit of this name."""


class _Holder:
    """A process that does nothing, and ends when we do, in whatever way, because its standard input closes."""

    def __init__(self) -> None:
        reader, self._writer = os.pipe2(os.O_CLOEXEC)
        try:
            files = [(os.POSIX_SPAWN_DUP2, reader, 0), (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0)]
            # Its own process group, because Ctrl-C is for the container.
            self.pid = os.posix_spawnp("cat", ["cat"], {}, file_actions=files, setpgroup=0, setsigdef=[signal.SIGPIPE])
        except BaseException:
            os.close(self._writer)
            raise
        finally:
            os.close(reader)

    def close(self) -> None:
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1
            exit_status(self.pid)


class Manager(AutoClose):
    """A connection to this user's systemd, or for root to the system's."""

    def __init__(self) -> None:
        try:
            from minibox._systemd import ffi

            self._ffi: Any = ffi
            self._lib: Any = ffi.dlopen("libsystemd.so.0")
        except (ImportError, OSError) as error:
            raise Unsupported(f"open libsystemd.so.0: {error}", "apt install libsystemd0") from error
        self._bus: Any = self._connect()

    def close(self) -> None:
        """Close the connection."""
        self._lib.sd_bus_flush_close_unref(self._bus)

    def start_scope(self, unit: str, slice_name: str, properties: Iterable[Property], pid: int) -> None:
        """Make a transient, delegated scope for the process ``pid``, and wait until it exists."""
        self._hear()
        wanted = (
            Property("Description", "s", "container of minibox", ""),
            Property("Slice", "s", slice_name, ""),
            Property("Delegate", "b", 1, ""),
            Property("CollectMode", "s", "inactive-or-failed", ""),
            *properties,
        )
        with self._message(b"StartTransientUnit") as message:
            self._append(message, "ss", unit, "fail")
            with self._array(message, b"(sv)"):
                self._append_properties(message, wanted)
                self._append(message, "(sv)", "PIDs", "au", 1, pid)
            self._append(message, "a(sa(sv))", 0)
            job = self._call(message, f"make the scope {unit}", "o")
        self._wait(job, unit)

    def set_properties(self, unit: str, properties: Iterable[Property]) -> None:
        """Give a unit other limits, until it ends."""
        with self._message(b"SetUnitProperties") as message:
            self._append(message, "sb", unit, 1)
            with self._array(message, b"(sv)"):
                self._append_properties(message, properties)
            self._call(message, f"change the limits of {unit}", "")

    def attach(self, unit: str, below: str, pid: int) -> None:
        """Move a process to the cgroup ``below`` the unit's."""
        with self._message(b"AttachProcessesToUnit") as message:
            self._append(message, "ssau", unit, below, 1, pid)
            self._call(message, f"move process {pid} to {unit}", "")

    # ---- below ----------------------------------------------------------------------------------

    def _connect(self) -> Any:
        result = 0
        for path, is_bus in addresses(os.geteuid(), os.environ):
            holder = self._ffi.new("sd_bus **")
            self._check(self._lib.sd_bus_new(holder), "connect to systemd")
            bus = holder[0]
            self._lib.sd_bus_set_address(bus, f"unix:path={path}".encode())
            self._lib.sd_bus_set_bus_client(bus, is_bus)
            result = self._lib.sd_bus_start(bus)
            if result >= 0:
                self._is_bus = is_bus
                return bus
            self._lib.sd_bus_flush_close_unref(bus)
        self._check(result, "connect to systemd")
        raise AssertionError("addresses() has two")

    @contextmanager
    def _message(
        self, member: bytes, destination: tuple[bytes, bytes, bytes] = (_DESTINATION, _PATH, _MANAGER)
    ) -> Iterator[Any]:
        message = self._ffi.new("sd_bus_message **")
        made = self._lib.sd_bus_message_new_method_call(self._bus, message, *destination, member)
        self._check(made, "connect to systemd")
        try:
            yield message[0]
        finally:
            self._lib.sd_bus_message_unref(message[0])

    @contextmanager
    def _array(self, message: Any, types: bytes) -> Iterator[None]:
        self._check(self._lib.sd_bus_message_open_container(message, b"a", types), "speak to systemd")
        yield
        self._check(self._lib.sd_bus_message_close_container(message), "speak to systemd")

    def _hear(self) -> None:
        """A bus hands on the signals that it is asked for."""
        if not self._is_bus:
            return
        bus = b"org.freedesktop.DBus", b"/org/freedesktop/DBus", b"org.freedesktop.DBus"
        with self._message(b"AddMatch", bus) as message:
            self._append(message, "s", f"type='signal',interface='{_MANAGER.decode()}',member='JobRemoved'")
            self._call(message, "tell when it is done", "")

    def _append_properties(self, message: Any, properties: Iterable[Property]) -> None:
        for each in properties:
            values = (len(each.value), *each.value) if isinstance(each.value, bytes) else (each.value,)
            self._append(message, "(sv)", each.name, each.signature, *values)

    def _append(self, message: Any, types: str, *values: int | str) -> None:
        """Append values. In C they are variadic, so each needs its exact width: 64 bits for "t", 32 bits for others."""
        wide = "t" in values
        arguments = [
            self._ffi.new("char[]", value.encode())
            if isinstance(value, str)
            else self._ffi.cast("uint64_t" if wide else "unsigned int", value)
            for value in values
        ]
        self._check(self._lib.sd_bus_message_append(message, types.encode(), *arguments), "speak to systemd")

    def _call(self, message: Any, what: str, answer: str) -> str:
        """Call a method; return the object path in its answer if ``answer`` is "o"."""
        reply, error = self._ffi.new("sd_bus_message **"), self._ffi.new("sd_bus_error *")
        result = self._lib.sd_bus_call(self._bus, message, int(TIMEOUT_S * 1e6), error, reply)
        if result < 0:
            words, name = self._text(error.message) or kernel_says(-result), self._text(error.name)
            self._lib.sd_bus_error_free(error)
            kind = UnitExists if name == "org.freedesktop.systemd1.UnitExists" else MiniboxError
            raise kind(f"ask systemd to {what}: {words}", "see: journalctl --boot --unit=init.scope")
        try:
            return self._read(reply[0], answer)[0] if answer else ""
        finally:
            self._lib.sd_bus_message_unref(reply[0])

    def _wait(self, job: str, unit: str) -> None:
        """Wait until systemd removes a job, which it does when the job is done, and signals to us."""
        deadline = monotonic() + TIMEOUT_S
        while True:
            message = self._ffi.new("sd_bus_message **")
            moved = self._lib.sd_bus_process(self._bus, message)
            if message[0] != self._ffi.NULL:
                try:
                    if self._lib.sd_bus_message_is_signal(message[0], _MANAGER, b"JobRemoved") > 0:
                        path, result = self._removed(message[0])
                        if path == job and result != "done":
                            raise MiniboxError(
                                f"systemd could not make the scope {unit}: {result}", f"systemctl status {unit}"
                            )
                        if path == job:
                            return
                finally:
                    self._lib.sd_bus_message_unref(message[0])
            self._check(moved, f"wait for the scope {unit}")
            left_us = int((deadline - monotonic()) * 1e6)
            if left_us <= 0:
                raise MiniboxError(f"wait for the scope {unit}: {kernel_says(ETIMEDOUT)}")
            if moved == 0 and (waited := self._lib.sd_bus_wait(self._bus, left_us)) < 0 and waited != -EINTR:
                self._check(waited, f"wait for the scope {unit}")

    def _removed(self, message: Any) -> tuple[str, str]:
        """Return the path of a job, and its result."""
        number, unit, job, result = self._ffi.new("uint32_t *"), *(self._ffi.new("char **") for _ in range(3))
        self._check(self._lib.sd_bus_message_read(message, b"uoss", number, job, unit, result), "understand systemd")
        return self._text(job[0]), self._text(result[0])

    def _read(self, message: Any, types: str) -> list[str]:
        values = [self._ffi.new("char **") for _ in types]
        self._check(self._lib.sd_bus_message_read(message, types.encode(), *values), "understand systemd")
        return [self._text(value[0]) for value in values]

    def _text(self, text: Any) -> str:
        return "" if text == self._ffi.NULL else str(self._ffi.string(text).decode(errors="replace"))

    def _check(self, result: int, what: str) -> None:
        if result < 0:
            raise MiniboxError(f"{what}: {kernel_says(-result)}")
