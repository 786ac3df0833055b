"""Tars for tests, kind and hostile."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from minibox.image.layer import unpack
from minibox.image.whiteouts import Lowers, merge_into_stack


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


# ---- unusual layers: entries in any order, and names in any form ---------------------------------

PARTS = st.sampled_from(["a", "b", "c"])
PATHS = st.lists(PARTS, min_size=1, max_size=3).map("/".join)
FORMS = st.sampled_from(["{}", "./{}", "/{}", ".//{}", "{}/."])
WHITEOUTS = st.builds(lambda above, name: "/".join([*above, name]), st.lists(PARTS, max_size=2),
                      st.sampled_from([".wh.a", ".wh.b", ".wh.c", ".wh..wh..opq"]))  # fmt: skip
TIMES = st.integers(1, 9)


def _named(form: str, path: str) -> str:
    return form.format(path)


unusual_entries = st.one_of(
    st.builds(lambda name, content, when: entry(name, content=content, mtime=when), st.builds(_named, FORMS, PATHS),
              st.binary(min_size=1, max_size=2), TIMES),
    st.builds(lambda name, mode, when: directory(name, mode, mtime=when), st.builds(_named, FORMS, PATHS),
              st.sampled_from([0o755, 0o711]), TIMES),
    st.builds(symlink, PATHS, st.sampled_from(["a", "../b", "/a/b", "nowhere"])),
    st.builds(hard_link, PATHS, PATHS),
    st.builds(lambda name: entry(name, tarfile.FIFOTYPE), PATHS),
    st.builds(lambda name: entry(name, tarfile.CHRTYPE, devmajor=0, devminor=0), PATHS),
    st.builds(entry, st.builds(_named, FORMS.filter(lambda form: not form.endswith(".")), WHITEOUTS)),
    st.builds(entry, WHITEOUTS),
    st.just(directory("./", 0o750, mtime=3)),
)  # fmt: skip
#: Layers of an image, the bottom first.
unusual_layers = st.lists(st.lists(unusual_entries, max_size=6), min_size=1, max_size=4)
