"""Tars for tests, kind and hostile."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from minibox.image.layer.unpack import unpack
from minibox.image.layer.whiteouts import Lowers, merge_into_stack


def tar_of(files: Mapping[str, bytes]) -> io.BytesIO:
    """A tar of regular files."""
    return tar(entry(name, content=content) for name, content in files.items())


def entry(name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", **more: Any) -> tuple[tarfile.TarInfo, bytes]:
    """A header and its content; ``more`` are attributes of `tarfile.TarInfo`."""
    header = tarfile.TarInfo(name)
    header.type, header.size = kind, len(content)
    for attribute, value in more.items():
        setattr(header, attribute, value)
    return header, content


def directory(name: str, mode: int = 0o755, **more: Any) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, tarfile.DIRTYPE, mode=mode, **more)


def symlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, tarfile.SYMTYPE, linkname=target)


def hard_link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, tarfile.LNKTYPE, linkname=target)


def tar(entries: Iterable[tuple[tarfile.TarInfo, bytes]]) -> io.BytesIO:
    """A tar of ``entries``, ready to be read."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8") as archive:
        for header, content in entries:
            archive.addfile(header, io.BytesIO(content))
    file.seek(0)
    return file


def unpack_upon(layer: io.BytesIO, directory: Path, *lowers: Path) -> None:
    """Unpack a layer into a directory, to be stacked on others, topmost first."""
    found = unpack(layer, str(directory), owner_policy="ignore")
    with ExitStack() as stack:
        fds = [os.open(path, os.O_RDONLY) for path in (directory, *lowers)]
        for fd in fds:
            stack.callback(os.close, fd)
        merge_into_stack(fds[0], found.directories, Lowers(fds[1:]), owner=False)
