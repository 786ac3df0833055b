"""The host's file system as directories to stack overlays on.

Every mount of a real file system gets an overlay of its own, since an overlay doesn't show the mounts below its lower
directory. What the kernel generates (/proc, /sys, /dev) a container has of its own.

An ordinary user's mounts are locked together (mount_namespaces(7)): the kernel gives out no directory without the mounts
below it, since that could show what they hide. So a directory with mounts below it, such as the root, becomes a
skeleton: a directory of ours with the same names, where each subdirectory without mounts has an overlay. And overlayfs
can't copy up a directory of another user, so the directories where users write have an overlay each.
"""

from __future__ import annotations

import os
import stat

from minibox.base.files import closing
from minibox.base.lines import lines_of
from minibox.errors import Unsupported, UsageError, kernel_says, suppress
from minibox.linux.mount_table import MOUNTINFO, unescaped
from minibox.plan.operations import NOEXEC, NOSUID, RDONLY
from minibox.record import record

LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
#: What a container has of its own.
OWN = ("/proc", "/sys", "/dev")
KERNEL_MADE = frozenset(
    "proc sysfs cgroup cgroup2 devpts devtmpfs mqueue securityfs debugfs tracefs bpf configfs pstore efivarfs binfmt_misc "
    "fusectl hugetlbfs rpc_pipefs autofs nsfs selinuxfs".split()
)
# overlayfs can't stack on file systems that ignore the case of names. They hold no sockets and no FIFOs.
READ_ONLY = frozenset("vfat msdos exfat ntfs ntfs3 hfsplus".split())
ATTRIBUTES = {"ro": RDONLY, "nosuid": NOSUID, "noexec": NOEXEC}
PARTS_MAX = 400
COPIED_BYTES_MAX = 16 << 20


@record
class Mounted:
    """A mount of the host.

    Attributes:
        path: its mount point.
        fstype: in the kernel's words.
        attributes: of mount_setattr(2).
        is_directory: otherwise a single file.
        is_regular: otherwise, if it is no directory, a socket, a FIFO or a device.
        is_visible: no other mount covers it, and the caller can reach it.
    """

    path: str
    fstype: str
    attributes: int = 0
    is_directory: bool = True
    is_regular: bool = False
    is_visible: bool = True


@record
class Part:
    """A directory with an overlay.

    Attributes:
        path: below the command's root, "/" for the root itself.
        lower: the host's directory; "" for the skeleton.
        attributes: as in `Mounted`.
    """

    path: str
    lower: str
    attributes: int = 0


@record
class HostTree:
    """How the host's files are shown to a command.

    Attributes:
        over: the directory that is its root.
        parts: the root first, each directory before those below it.
        bones: what the skeleton consists of, as paths below the root, with symlinks' targets.
        read_only: files and directories to bind read-only.
        hidden: what can't be shown, with the reason.
    """

    over: str
    parts: tuple[Part, ...]
    bones: tuple[tuple[str, str], ...] = ()
    read_only: tuple[str, ...] = ()
    hidden: tuple[tuple[str, str], ...] = ()

    def host_path(self, path: str) -> str:
        """Return the host's path for one below the command's root."""
        return path if self.over == "/" else self.over + path.rstrip("/")

    def has_vanished(self) -> bool:
        """Tell whether a directory or a mounted file has been removed from the host since."""
        return not (
            all(os.path.isdir(part.lower) for part in self.parts if part.lower)
            and all(os.path.lexists(self.host_path(path)) for path in self.read_only)
        )


def find_tree(over: str, writable: tuple[str, ...] = ()) -> HostTree:
    """Look at the host's mounts.

    Args:
        over: the directory that becomes the root.
        writable: directories where the caller, an ordinary user, may want to write; () for root.

    Raises:
        UsageError: ``over`` is no directory.
        Unsupported: an ordinary user's tree would need too many overlays.
    """
    over = os.path.realpath(over)
    if not os.path.isdir(over):
        raise UsageError(f"try over {over}: not a directory")
    return _Finder(over, _mounts_below(over)).find(writable)


class _Finder:
    def __init__(self, over: str, mounts: list[Mounted]) -> None:
        self.over = over
        self.attributes = 0
        self.mounts: dict[str, Mounted] = {}
        self.parts: list[Part] = []
        self.bones: list[tuple[str, str]] = []
        self.read_only: list[str] = []
        self.hidden: list[tuple[str, str]] = []
        self.points: list[str] = []
        for mounted in mounts:
            path = below(over, mounted.path)
            if path == "/":
                self.attributes = mounted.attributes if mounted.is_visible else self.attributes
                continue
            self.points.append(path)
            if mounted.is_visible and not _is_own(path) and mounted.fstype not in KERNEL_MADE:
                self.mounts[path] = mounted

    def find(self, writable: tuple[str, ...]) -> HostTree:
        if not os.geteuid():
            self.parts.append(Part("/", self.over, self.attributes))
            for path, mounted in sorted(self.mounts.items()):
                if not (mounted.is_directory or mounted.is_regular):
                    self.hidden.append((path, "neither a directory nor a regular file is mounted there"))
                elif mounted.is_regular or mounted.fstype in READ_ONLY:
                    self.read_only.append(path)
                else:
                    self.parts.append(Part(path, mounted.path, mounted.attributes))
        else:
            inside = {below(self.over, each) for each in writable if each == self.over or is_below(each, self.over)}
            self._build("/", self.attributes, sorted(inside - {"/"}))
        return HostTree(self.over, tuple(self.parts), tuple(self.bones), tuple(self.read_only), tuple(self.hidden))

    def _build(self, path: str, attributes: int, writable: list[str]) -> None:
        """Add what an ordinary user can have of a directory, in which no mount is hidden."""
        host = self._host(path)
        if not any(is_below(point, path) for point in self.points):
            self.parts.append(Part(path, host, attributes))
            for each in writable:
                if is_below(each, path):
                    self.parts.append(Part(each, self._host(each), attributes))
            if len(self.parts) > PARTS_MAX:
                raise Unsupported(
                    f"try over {self.over}: it needs more than {PARTS_MAX} overlays, since mounts lie below {host}",
                    "name a directory without mounts: --over DIR",
                )
            return
        if path == "/":
            self.parts.append(Part("/", "", attributes))
        else:
            self.bones.append((path, ""))
        try:
            entries = sorted(os.scandir(host), key=lambda entry: entry.name)
        except (PermissionError, FileNotFoundError):
            return  # the command couldn't list it either
        except OSError as error:
            self.hidden.append((path, kernel_says(error)))
            return
        for entry in entries:
            with suppress(FileNotFoundError):  # it was removed since
                self._child(f"{path.rstrip('/')}/{entry.name}", entry, attributes, writable)

    def _child(self, path: str, entry: os.DirEntry[str], attributes: int, writable: list[str]) -> None:
        mounted = self.mounts.get(path)
        if entry.is_symlink():
            self.bones.append((path, os.readlink(entry.path)))
        elif entry.is_dir(follow_symlinks=False):
            if _is_own(path) or (path in self.points and not mounted):
                self.bones.append((path, ""))
            elif mounted and mounted.fstype in READ_ONLY:
                self.bones.append((path, ""))
                self.read_only.append(path)
            else:
                if not any(is_below(point, path) for point in self.points):
                    self.bones.append((path, ""))
                self._build(path, mounted.attributes if mounted else attributes, writable)
        elif entry.is_file(follow_symlinks=False):
            if mounted or entry.stat(follow_symlinks=False).st_size > COPIED_BYTES_MAX:
                self.read_only.append(path)
            self.bones.append((path, ""))

    def _host(self, path: str) -> str:
        return path if self.over == "/" else self.over + path.rstrip("/")


def make_skeleton(tree: HostTree, directory: str) -> None:
    """Make the directories, symlinks and small files of an ordinary user's skeleton.

    Raises:
        OSError: the disk is full.
    """
    os.makedirs(directory, 0o700, exist_ok=True)
    closed = [("/", directory)]
    for path, target in tree.bones:
        made, host = directory + path, tree.host_path(path)
        if target:
            os.symlink(target, made)
        elif os.path.isdir(host):
            os.mkdir(made, 0o700)
            closed.append((path, made))
        else:
            _copy(host, made, empty=path in tree.read_only)
    for path, made in reversed(closed):
        with suppress(FileNotFoundError):  # the attempt fails and is repeated
            os.chmod(made, directory_mode(os.stat(tree.host_path(path))))


def directory_mode(status: os.stat_result) -> int:
    """Return the mode for a directory of the user's that stands for one of the host's.

    We must be able to read ours. What is in the host's stays closed, since overlayfs asks for the user's rights there.
    """
    return mode_for_user(status) | 0o500


def mode_for_user(status: os.stat_result) -> int:
    """Return a mode that gives the owner what the user may do with a file of the host."""
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid == os.geteuid():
        return mode
    groups = {os.getegid(), *os.getgroups()}
    granted = mode >> 3 if status.st_gid in groups else mode
    return mode & 0o777 & ~0o700 | (granted & 0o7) << 6


def _copy(source: str, path: str, *, empty: bool) -> None:
    """Copy a file whose directory can't have an overlay."""
    with open(path, "xb", buffering=0) as file:
        try:
            with open(source, "rb", buffering=0) as data:
                status = os.fstat(data.fileno())
                while not empty and (chunk := data.read(1 << 20)):
                    file.write(chunk)
        except (PermissionError, FileNotFoundError):  # the command couldn't read it either
            os.fchmod(file.fileno(), 0)
            return
        os.fchmod(file.fileno(), mode_for_user(status) & 0o777)
        os.utime(file.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))


def _mounts_below(over: str) -> list[Mounted]:
    """Return the mounts at ``over`` and below it."""
    with open(MOUNTINFO, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        lines = lines_of(file.read())
    found = []
    for line in lines:
        fields = line.split(" ")  # names may contain other blanks
        path, end = unescaped(fields[4]), fields.index("-", 6)
        if path != over and not is_below(path, over):
            continue
        try:
            fd = os.open(path, LOOK)
        except OSError:
            found.append(Mounted(path, fields[end + 1], is_visible=False))
            continue
        with closing(fd):
            is_visible = _mount_id(fd) == fields[0]
            mode = os.fstat(fd).st_mode
        options = {*fields[5].split(","), *fields[end + 3].split(",")}
        attributes = sum(flag for word, flag in ATTRIBUTES.items() if word in options)
        found.append(Mounted(path, fields[end + 1], attributes, stat.S_ISDIR(mode), stat.S_ISREG(mode), is_visible))
    return found


def _mount_id(fd: int) -> str:
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
        return next(line.split()[1] for line in file if line.startswith("mnt_id:"))


def below(over: str, path: str) -> str:
    """Return a host's path as the command sees it."""
    return "/" + path[len(over) :].strip("/")


def is_below(path: str, directory: str) -> bool:
    """Tell whether a path lies in a directory, and isn't the directory itself."""
    return path != directory and path.startswith(directory.rstrip("/") + "/")


def _is_own(path: str) -> bool:
    """Tell whether a container has its own instead of the host's."""
    return any(path == each or is_below(path, each) for each in OWN)
