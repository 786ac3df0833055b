"""What the attackers attack: files, processes, keys and services made for it, and a neighbour container.

All of it goes with this process, or with the neighbour's files, which the next command removes if this one is killed.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import subprocess
import sys
from contextlib import ExitStack
from fcntl import ioctl
from threading import Thread

from minibox.base.files import AutoClose
from minibox.errors import MiniboxError, suppress
from minibox.lab.attacks.attackers import SESSION_KEYRING, SYS_KEYCTL, libc
from minibox.lab.attacks.runner import Runner
from minibox.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.base.home import Home
    from minibox.engine.spec.options import RunOptions

SYS_ADD_KEY = {"x86_64": 248, "aarch64": 217}
KEYCTL_JOIN_SESSION_KEYRING, KEYCTL_SETPERM = 1, 5
ALL_BUT_OTHERS, OTHERS_READ = 0x3F3F0000, 0x3  # of others: view and read; keyctl_setperm(3)
IPC_PRIVATE, IPC_RMID, SHM_OTHERS = 0, 0, 0o1666
LOOP_CTL_GET_FREE, LOOP_CONFIGURE, LOOP_READ_ONLY, LOOP_AUTOCLEAR = 0x4C82, 0x4C0A, 1, 4  # linux/loop.h
LOOP_TRIES = 16
SETTING = "/proc/sys/kernel/printk_ratelimit_burst"  # no message of this kernel is worth more than another
MEGABYTE = 1 << 20
WORK_BYTES = 40 * MEGABYTE
MORE_BYTES, MORE_PROCESSES = 96 * MEGABYTE, 40  # what the neighbour has in addition to the container's limits
SMALL_BYTES, SMALL_PROCESSES = 256 * MEGABYTE, 256  # a larger limit isn't tried out
SHARED = "/shared"  # where the container sees the directory that it shares with the neighbour
#: A process that says that it runs, and ends with us, however we end.
WAITS = "import sys; print(flush=True); sys.stdin.read()"
GUARD = f"""
import fcntl, sys
print(flush=True)
with open({SETTING!r}, "r+") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    value = file.read()
    print(value, end="", flush=True)
    sys.stdin.read()
    file.seek(0)
    file.write(value)
"""


class StandIns(AutoClose):
    """All of them, for one container's attackers at a time.

    Attributes:
        neighbour: the other container.
        directory: of the neighbour, below ``root/containers``: only root of the host can enter it.
        shared: the directory that it shares with the attackers' container.
    """

    def __init__(self, home: Home, options: RunOptions, storage_driver: str) -> None:
        """
        Args:
            options: of the container that is attacked from.
        """
        self._stack = ExitStack()
        self._tokens: dict[str, str] = {}
        self._victim: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self.options = options
        try:
            self.neighbour = self._stack.enter_context(Runner(home, _neighbour(options), storage_driver))
            self.directory = self.neighbour.box.directory
            self.shared = f"{self.directory}/shared"
            os.mkdir(self.shared, 0o755)
            self._stack.callback(self._end_victim)
            self._stack.callback(self.end_guard)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Remove all of them."""
        self._stack.close()

    def token(self, name: str) -> str:
        """Return the secret of that name, which nothing else on this machine contains."""
        return self._tokens.setdefault(name, f"secret-{os.urandom(8).hex()}")

    # ---- files ----------------------------------------------------------------------------------

    def private_file(self) -> str:
        """Make a file of root's that nobody else may read, where nobody else may enter. Return its path."""
        return self._file(f"{self.directory}/private", self.token("private"))

    def file_of_neighbour(self) -> str:
        """Make a file of root's in the shared directory. Return its path in the container."""
        self._file(f"{self.shared}/private", self.token("shared"))
        return f"{SHARED}/private"

    def _file(self, path: str, text: str) -> str:
        if not os.path.exists(path):
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            os.write(fd, text.encode())
            os.close(fd)
        return path

    def handle_of(self, path: str) -> tuple[int, str]:
        """Return type and bytes of a file's handle, as `attackers.open_by_handle` takes them."""
        size = 128
        buffer = ctypes.create_string_buffer(struct.pack("Ii", size, 0) + bytes(size))
        mount = ctypes.c_int()
        if libc.name_to_handle_at(-100, path.encode(), buffer, ctypes.byref(mount), 0):
            raise _refused("ask for the handle of a file")
        length, kind = struct.unpack_from("Ii", buffer)
        return kind, buffer.raw[8 : 8 + length].hex()

    def disk(self) -> tuple[int, int]:
        """Make a disk with a secret on it: a file as a loop device. Return its major and minor number."""
        path = self._file(f"{self.directory}/disk", self.token("disk").ljust(4096, "\0"))
        with ExitStack() as stack:
            control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
            stack.callback(os.close, control)
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, file)
            for _ in range(LOOP_TRIES):
                device = os.open(f"/dev/loop{ioctl(control, LOOP_CTL_GET_FREE)}", os.O_RDONLY | os.O_CLOEXEC)
                info = bytearray(232)
                struct.pack_into("I", info, 52, LOOP_READ_ONLY | LOOP_AUTOCLEAR)  # struct loop_info64: lo_flags
                with suppress(OSError):  # somebody else was quicker
                    ioctl(device, LOOP_CONFIGURE, struct.pack("II", file, 0) + bytes(info) + bytes(64))
                    self._stack.callback(os.close, device)  # the kernel lets go of the file then
                    number = os.fstat(device).st_rdev
                    return os.major(number), os.minor(number)
                os.close(device)
        raise MiniboxError("there is no free loop device")

    # ---- processes and services -----------------------------------------------------------------

    def victim(self) -> subprocess.Popen[bytes]:
        """Return a process of the host with passwords on its command line and in its environment; a new one if it was
        killed."""
        if self._victim is None or self._victim.poll() is not None:
            words = [f"--password={self.token('password')}"]
            self._victim = _start(WAITS, *words, env={"PASSWORD": self.token("environment")})
        return self._victim

    def has_lost_victim(self, wait_s: float) -> bool:
        """Was the process killed? Wait for that if somebody says so."""
        with suppress(subprocess.TimeoutExpired):
            return self._victim is not None and self._victim.wait(wait_s) != 0
        return False

    def _end_victim(self) -> None:
        if self._victim:
            self._victim.kill()
            self._victim.communicate()

    def service(self, address: str, token: str, *, root_only: bool = False) -> None:
        """Listen at an address of a Unix socket, and send a token to everybody who connects.

        Args:
            root_only: only to root, as the kernel tells who that is; unix(7), SO_PEERCRED.
        """
        listener = self._stack.enter_context(socket.socket(socket.AF_UNIX))
        if address.startswith("@"):
            listener.bind("\0" + address[1:])
        else:
            _bind_at(listener, address)
        listener.listen()

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                with client, suppress(OSError):
                    credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
                    client.sendall(b"no" if root_only and struct.unpack("3i", credentials)[1] else token.encode())

        Thread(target=serve, daemon=True).start()
        self._stack.callback(listener.shutdown, socket.SHUT_RDWR)

    def shared_memory(self) -> int:
        """Make a System V shared memory segment with a secret, which everybody may read. Return its number."""
        segment = libc.shmget(IPC_PRIVATE, 4096, SHM_OTHERS)
        if segment < 0:
            raise _refused("make shared memory")
        libc.shmat.restype = ctypes.c_void_p
        at = libc.shmat(segment, None, 0)
        libc.shmctl(segment, IPC_RMID, None)  # it goes with us, however we end; until then its number is good
        if at in (None, ctypes.c_void_p(-1).value):
            raise _refused("attach shared memory")
        self._stack.callback(libc.shmdt, ctypes.c_void_p(at))
        ctypes.memmove(at, self.token("shm").encode() + b"\0", 24)
        return int(segment)

    # ---- the kernel's ---------------------------------------------------------------------------

    def guard_setting(self) -> str:
        """Guard a setting of the kernel until `end_guard`. Return its value.

        A process of its own sets it back, also if we are killed, and has a lock on it: others may attack it as well.
        """
        assert self._guard is None
        self._guard = _start(GUARD)
        assert self._guard.stdout
        return self._guard.stdout.readline().decode().strip()

    def end_guard(self) -> None:
        """Have the setting set back."""
        guard, self._guard = self._guard, None
        if guard:
            guard.communicate()


def _bind_at(listener: socket.socket, path: str) -> None:
    """Bind a socket to a path, which may be longer than its address can be, and let everybody connect."""
    directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listener.bind(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
    finally:
        os.close(directory)
    os.chmod(path, 0o777)


def _start(code: str, *words: str, **options: Any) -> subprocess.Popen[bytes]:
    """Start a Python program, and wait until it runs: its command line is there only then."""
    argv = [sys.executable, "-I", "-S", "-c", code, *words]
    started = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, **options)
    assert started.stdout
    started.stdout.readline()
    return started


def session_key(name: str, secret: str) -> int:
    """Add a key to the session keyring. Return its number."""
    number = libc.syscall(
        SYS_ADD_KEY[os.uname().machine], b"user", name.encode(), secret.encode(), len(secret), SESSION_KEYRING
    )
    if number < 0:
        raise _refused("add a key to the session keyring")
    return int(number)


def let_others_read(key: int) -> None:
    """Let everybody read a key, as its owner may have done."""
    if _keyctl(KEYCTL_SETPERM, key, ALL_BUT_OTHERS | OTHERS_READ) < 0:
        raise _refused("change who may read a key")


def new_session_keyring() -> None:
    """Leave the caller's keys alone."""
    if _keyctl(KEYCTL_JOIN_SESSION_KEYRING, None) < 0:
        raise _refused("join a new session keyring")


def _keyctl(*words: object) -> int:
    return int(libc.syscall(SYS_KEYCTL[os.uname().machine], *words))


def _refused(what: str) -> MiniboxError:
    return MiniboxError(f"{what}: {os.strerror(ctypes.get_errno())}")


def _neighbour(options: RunOptions) -> RunOptions:
    """The neighbour's options: limits that leave room for the container that is put into its cgroup."""
    alone = type(options)(options.image, rm=True, network="none")
    if os.geteuid():
        return alone
    limited: RunOptions = replace(
        alone,
        memory_bytes=_more(options.memory_bytes, SMALL_BYTES, MORE_BYTES),
        pids_limit=_more(options.pids_limit, SMALL_PROCESSES, MORE_PROCESSES),
    )
    return limited


def _more(limit: int | None, small: int, more: int) -> int:
    return more + (limit if limit and 0 < limit <= small else small)


def is_small(limit: int | None, small: int) -> bool:
    """Can it be tried out whether that limit holds? None is no limit: then the neighbour's is reached."""
    return limit is None or 0 < limit <= small
