"""Packing a layer: the same content gives the same bytes, and so the same digest.

Entries are sorted by name, owners are numbers, times are the caller's (0 unless said), nothing of
the machine or of the moment gets in. Written as PAX, which has room for any name and any xattr.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile

from minibox.image.extract import XATTR_HEADER_PREFIX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

    Owner = tuple[int, int]


class LayerWriter:
    """Writes one layer's tar to ``file``; `close` gives its diff ID.

    Entries come out in the order they are added. Modes are as for chmod(2), times in seconds.
    """

    def __init__(self, file: BinaryIO, *, mtime_s: int = 0) -> None:
        self._hashing = _HashingWriter(file)
        self._mtime_s = mtime_s
        self._tar = tarfile.open(  # type: ignore[call-overload]
            fileobj=self._hashing,
            mode="w|",
            bufsize=1 << 20,
            format=tarfile.PAX_FORMAT,
            encoding="utf-8",
            errors="surrogateescape",
        )

    def add_directory(self, name: str, mode: int = 0o755, owner: Owner = (0, 0)) -> None:
        self._tar.addfile(self._header(name, tarfile.DIRTYPE, mode, owner))

    def add_file(self, name: str, content: bytes, mode: int = 0o644, owner: Owner = (0, 0)) -> None:
        header = self._header(name, tarfile.REGTYPE, mode, owner)
        header.size = len(content)
        self._tar.addfile(header, io.BytesIO(content))

    def add_symlink(self, name: str, target: str) -> None:
        header = self._header(name, tarfile.SYMTYPE, 0o777, (0, 0))
        header.linkname = target
        self._tar.addfile(header)

    def add_tree(self, directory: str, owner_of: Callable[[str, os.stat_result], Owner] | None = None) -> None:
        """Add all that is below ``directory``, sorted; its own times are kept.

        Args:
            owner_of: (name, status) -> (uid, gid); default: as on disk.
        """
        inodes: dict[tuple[int, int], str] = {}
        for name in _names_below(directory):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            owner = owner_of(name, status) if owner_of else (status.st_uid, status.st_gid)
            header = self._header(name, tarfile.REGTYPE, stat.S_IMODE(status.st_mode), owner)
            header.mtime = int(status.st_mtime)
            first = inodes.setdefault((status.st_dev, status.st_ino), name)
            if stat.S_ISDIR(status.st_mode):
                header.type = tarfile.DIRTYPE
            elif stat.S_ISLNK(status.st_mode):
                header.type, header.linkname = tarfile.SYMTYPE, os.readlink(path)
            elif first != name:
                header.type, header.linkname = tarfile.LNKTYPE, first
            elif stat.S_ISREG(status.st_mode):
                header.size = status.st_size
            elif stat.S_ISFIFO(status.st_mode):
                header.type = tarfile.FIFOTYPE
            elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
                header.type = tarfile.CHRTYPE if stat.S_ISCHR(status.st_mode) else tarfile.BLKTYPE
                header.devmajor, header.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
            else:
                continue  # a socket: means nothing without its process
            if header.type in (tarfile.REGTYPE, tarfile.DIRTYPE):
                header.pax_headers = _xattrs(path)
            if header.isreg():
                with open(path, "rb") as file:
                    self._tar.addfile(header, file)
            else:
                self._tar.addfile(header)

    def close(self) -> tuple[str, int]:
        """Finish the tar: (diff ID, size in bytes)."""
        self._tar.close()
        return "sha256:" + self._hashing.hasher.hexdigest(), self._hashing.size_bytes

    def _header(self, name: str, kind: bytes, mode: int, owner: Owner) -> tarfile.TarInfo:
        header = tarfile.TarInfo(name)
        header.type, header.mode, header.mtime = kind, mode, self._mtime_s
        header.uid, header.gid = owner
        return header


class _HashingWriter:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.hasher = hashlib.sha256()
        self.size_bytes = 0

    def write(self, data: bytes) -> int:
        self.hasher.update(data)
        self.size_bytes += len(data)
        return self._file.write(data)


def _names_below(directory: str) -> list[str]:
    """All names below ``directory``, relative, each after its parent, sorted by component."""
    names = []
    waiting = [""]
    while waiting:
        relative = waiting.pop()
        with os.scandir(os.path.join(directory, relative)) as entries:
            for entry in entries:
                name = os.path.join(relative, entry.name)
                names.append(name)
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(name)
    return sorted(names, key=lambda name: name.split("/"))


def _xattrs(path: str) -> dict[str, str]:
    headers = {}
    try:
        for name in sorted(os.listxattr(path, follow_symlinks=False)):
            if name == "security.capability" or (name.startswith("user.") and not name.startswith("user.overlay.")):
                value = os.getxattr(path, name, follow_symlinks=False)
                headers[XATTR_HEADER_PREFIX + name] = value.decode("utf-8", "surrogateescape")
    except OSError:
        return headers
    return headers
