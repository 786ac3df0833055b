"""What a command has changed on its overlays, compared with the host's files below them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from errno import ELOOP, ENOENT, ENOTDIR
from typing import Any

from minibox.base.files import closing, open_regular, read_fd
from minibox.engine.files.tree import MOUNT_POINTS
from minibox.engine.trial.host_storage import lower_of, part_directory
from minibox.engine.trial.host_tree import HostTree, Part
from minibox.errors import MiniboxError, kernel_says, on_failure, suppress
from minibox.image.layer.changes import changes
from minibox.image.layer.owners import CAPABILITY
from minibox.image.layer.stack import Node, Stack, own_marks
from minibox.linux.files import open_beneath
from minibox.record import record

LOOK = os.O_PATH | os.O_NOFOLLOW
OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
ABSENT = (ENOENT, ENOTDIR, ELOOP)
TEXT_BYTES_MAX = 256 << 10
READ_NOW = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

#: What `before` of a file consists of.
IDENTITY = ("Device", "Inode", "Mode", "Uid", "Gid", "Bytes", "Modified", "Changed")


@record
class Found:
    """One changed path.

    Attributes:
        kind: A, C or D.
        path: below the command's root.
        part: the number of the part that it is in.
        mode: type and permissions that the command gave to the new file; 0 for ``D``.
        size_bytes: of a new regular file.
        before: the host's file as it was; None if there was none. See `IDENTITY`.
        privilege: what the new file would let others do, such as "set-user-ID"; "" for nothing.
    """

    kind: str
    path: str
    part: int
    mode: int
    size_bytes: int
    before: tuple[int, ...] | None
    privilege: str


class Overlays:
    """The parts of a trial that has ended, as stacks; use it in a ``with`` statement."""

    def __init__(self, tree: HostTree, directory: str) -> None:
        """
        Args:
            directory: the container's own, or that of a kept trial.

        Raises:
            MiniboxError: the root of the trial was removed, or a symlink is in its place.
        """
        self.tree, self._directory, self._marks = tree, directory, own_marks()
        self._news: dict[int, Stack] = {}
        self.over_fd = _open_over(tree.over)

    def __enter__(self) -> Overlays:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._news.values():
            each.__exit__()
        os.close(self.over_fd)

    def find_all(self) -> list[Found]:
        """Compare all parts. Return the changes sorted by path, so that a directory comes before what is in it.

        Raises:
            OSError: a directory can't be read.
        """
        found = [each for number, part in enumerate(self.tree.parts) for each in self._of_part(number, part)]
        return sorted(found, key=lambda each: (each.path.count("/") > 0, each.path.split("/")))

    def _of_part(self, number: int, part: Part) -> list[Found]:
        found = []
        upper = f"{part_directory(self._directory, number)}/upper"
        modes = {_joined(part.path, path): mode for path, mode in _open_closed(upper).items()}
        root_differs = _root_differs(upper, lower_of(self._directory, part), modes.get(part.path))
        if not root_differs and not os.listdir(upper):
            return []
        made = MOUNT_POINTS if part.path == "/" else frozenset()
        with self._old(part) as old, self._new(number) as new:
            for change in changes(old, new, descends=True, made=made):
                if change.path == "/" and not root_differs:
                    continue
                if change.kind == "C" and change.node and _is_on_the_way(old, change.node):
                    continue
                path = _joined(part.path, change.path)
                before = identity(status_of(self.over_fd, path))
                node = change.node
                mode, size = (node.status.st_mode, node.status.st_size) if node else (0, 0)
                size, mode = size if stat.S_ISREG(mode) else 0, modes.get(path, mode)
                found.append(Found(change.kind, path, number, mode, size, before, privilege_of(node)))
        return found

    @contextmanager
    def opened(self, found: Found) -> Iterator[Node]:
        """Open the new file of a change for a ``with`` block.

        Raises:
            OSError: it can't be read.
        """
        if found.part not in self._news:
            self._news[found.part] = self._new(found.part)
        above = self.tree.parts[found.part].path.rstrip("/")
        inner = found.path[len(above) :].lstrip("/")
        stack = self._news[found.part]
        node = stack.find(inner, follow=False) if inner else stack.root
        if node is None:
            raise FileNotFoundError(ENOENT, os.strerror(ENOENT), found.path)
        try:
            yield node
        finally:
            if node is not stack.root:
                node.close()

    def difference(self, found: Found) -> list[str]:
        """Return the unified diff of a text that has changed; nothing for other files."""
        if found.kind != "C" or not stat.S_ISREG(found.mode) or not found.before or found.size_bytes > TEXT_BYTES_MAX:
            return []
        with suppress(OSError, UnicodeDecodeError):
            with closing(open_beneath(self.over_fd, found.path[1:], LOOK)) as look:
                with closing(open_regular(look, READ_NOW, found.path)) as fd:
                    old = read_fd(fd, TEXT_BYTES_MAX, found.path).decode()
            with self.opened(found) as node, closing(node.open(READ_NOW)) as fd:
                new = read_fd(fd, TEXT_BYTES_MAX, found.path).decode()
            if "\0" in old + new:
                return []
            import difflib

            lines = old.splitlines(), new.splitlines()
            return list(difflib.unified_diff(*lines, found.path, found.path, lineterm=""))
        return []

    def _old(self, part: Part) -> Stack:
        return Stack(self._lower(part), self._marks)

    def _new(self, number: int) -> Stack:
        upper = os.open(f"{part_directory(self._directory, number)}/upper", OPEN_DIRECTORY | os.O_NOFOLLOW)
        with on_failure(os.close, upper):
            return Stack([upper, *self._lower(self.tree.parts[number])], self._marks)

    def _lower(self, part: Part) -> list[int]:
        """Open what a part is stacked on; nothing if it was removed from the host since."""
        if not part.lower:
            return [os.open(lower_of(self._directory, part), OPEN_DIRECTORY)]
        try:
            return [open_beneath(self.over_fd, part.path[1:] or ".", OPEN_DIRECTORY)]
        except OSError as error:
            if error.errno in ABSENT:
                return []
            raise


def _open_over(over: str) -> int:
    """Open the root of a trial. Its path had no symlink; who owns a directory above it may have made one since."""
    try:
        with closing(os.open("/", OPEN_DIRECTORY | os.O_PATH)) as root:
            return open_beneath(root, over[1:] or ".", OPEN_DIRECTORY | os.O_PATH)
    except OSError as error:
        raise MiniboxError(
            f"open {over}: {kernel_says(error)}", "it is not the directory any more over which the command ran"
        ) from error


def status_of(over_fd: int, path: str) -> os.stat_result | None:
    """Return the status of a file of the host, without following symlinks; None if it doesn't exist.

    Raises:
        OSError: the kernel refused.
    """
    try:
        with closing(open_beneath(over_fd, path[1:], LOOK)) as fd:
            return os.fstat(fd)
    except OSError as error:
        if error.errno in ABSENT:
            return None
        raise


def identity(status: os.stat_result | None) -> tuple[int, ...] | None:
    """Return what tells whether a file is still the same; see `IDENTITY`."""
    if status is None:
        return None
    return (
        status.st_dev,
        status.st_ino,
        status.st_mode,
        status.st_uid,
        status.st_gid,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def privilege_of(node: Node | None) -> str:
    """Return which privilege a new file would give to who uses it; "" for none."""
    if node is None:
        return ""
    mode = node.status.st_mode
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        return f"device {os.major(node.status.st_rdev)}:{os.minor(node.status.st_rdev)}"
    if not stat.S_ISREG(mode):
        return ""
    words = [f"set-user-ID {node.owner[0]}"] if mode & stat.S_ISUID else []
    words += [f"set-group-ID {node.owner[1]}"] if mode & stat.S_ISGID and mode & stat.S_IXGRP else []
    words += ["file capabilities"] if CAPABILITY in node.xattrs() else []
    return ", ".join(words)


def as_json(found: Found) -> dict[str, Any]:
    """Return a change for `--json`."""
    more: dict[str, Any] = {"Privilege": found.privilege} if found.privilege else {}
    size = {"Bytes": found.size_bytes} if stat.S_ISREG(found.mode) else {}
    return {"Kind": found.kind, "Path": found.path, **size, **more}


def _is_on_the_way(old: Stack, node: Node) -> bool:
    """Tell whether a directory is only listed because something below it has changed."""
    if not node.is_directory or not node.path:
        return False
    was = old.find(node.path, follow=False)
    if was is None or not was.is_directory:
        return False
    with was:
        attributes = (was.status.st_mode, was.owner, was.xattrs())
        return attributes == (node.status.st_mode, node.owner, node.xattrs())


def _root_differs(upper: str, lower: str, mode: int | None) -> bool:
    """Tell whether the command has changed the attributes of a part's root directory.

    ``mode`` is the mode that it gave it, if `_open_closed` has changed that. An ordinary user's upperdir can't have the owner of another user's directory, nor its mode.
    """
    try:
        now, was = os.stat(upper), os.stat(lower)
    except FileNotFoundError:
        return False
    return (mode or now.st_mode, now.st_uid, now.st_gid) != (was.st_mode, was.st_uid, was.st_gid) and (
        now.st_uid == was.st_uid or not os.geteuid()
    )


def _open_closed(upper: str) -> dict[str, int]:
    """Let an ordinary user read all that his command wrote, whatever modes it set.

    Returns:
        The modes as the command set them, by path below ``upper``; "/" is ``upper`` itself.
    """
    modes: dict[str, int] = {}
    if not os.geteuid():
        return modes
    status = os.stat(upper)
    if not status.st_mode & stat.S_IRUSR or not status.st_mode & stat.S_IXUSR:
        modes["/"] = status.st_mode
        os.chmod(upper, 0o700)
    for place, directories, names, fd in os.fwalk(upper, follow_symlinks=False):
        for name in (*directories, *names):
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            needs = {stat.S_IFDIR: 0o500, stat.S_IFREG: 0o400}.get(stat.S_IFMT(status.st_mode), 0)
            if status.st_mode & needs != needs:
                modes[f"{place[len(upper) :]}/{name}"] = status.st_mode
                os.chmod(name, stat.S_IMODE(status.st_mode) | needs, dir_fd=fd)
    return modes


def _joined(above: str, path: str) -> str:
    return above.rstrip("/") + path if path != "/" else above
