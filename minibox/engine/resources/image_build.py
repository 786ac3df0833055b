"""Make an image of one layer from a directory or an archive with a root file system."""

from __future__ import annotations

import os
from tempfile import TemporaryFile
from typing import BinaryIO

from minibox.base.home import Home
from minibox.base.json_text import dumps
from minibox.engine.resources.archives import import_tar
from minibox.errors import StoreError, kernel_says
from minibox.image.layer.pack import LayerWriter
from minibox.image.layer.stack import Stack
from minibox.record import record


@record
class ImageProcess:
    """The process settings of an image."""

    command: tuple[str, ...]
    entrypoint: tuple[str, ...]
    env: dict[str, str]
    workdir: str
    user: str
    labels: dict[str, str]


def build(home: Home, source: str, reference: str, process: ImageProcess, *, driver: str = "") -> str:
    """Make the image and return its id.

    Args:
        source: a directory, or a tar, plain or compressed.

    Raises:
        UsageError: ``reference`` or a value of ``process`` is malformed.
        StoreError: ``source`` can't be read, isn't a sound tar, or the disk is full.
    """

    def add(tar: str | BinaryIO) -> str:
        made = import_tar(home, tar, reference, driver=driver, changes=_changes(process))
        return made.config_digest

    if not os.path.isdir(source):
        return add(source)
    os.makedirs(f"{home.root}/tmp", 0o700, exist_ok=True)
    with TemporaryFile(dir=f"{home.root}/tmp") as file:
        try:
            _pack(source, file)
        except OSError as error:
            where = f" ({os.fsdecode(error.filename)})" if error.filename else ""
            raise StoreError(f"pack {source}{where}: {kernel_says(error)}") from error
        file.seek(0)
        return add(file)


def _pack(directory: str, file: BinaryIO) -> None:
    with Stack([os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)], "") as stack:
        writer = LayerWriter(file)
        writer.add_below(stack.root)
        writer.close()
        file.flush()


def _changes(process: ImageProcess) -> list[str]:
    """Return the settings as Dockerfile instructions."""
    found = [f"ENV {name}={_quoted(value)}" for name, value in process.env.items()]
    found += [f"LABEL {_quoted(name)}={_quoted(value)}" for name, value in process.labels.items()]
    if process.entrypoint:
        found.append(f"ENTRYPOINT {dumps(list(process.entrypoint), '')}")
    if process.command:
        found.append(f"CMD {dumps(list(process.command), '')}")
    if process.workdir:
        found.append(f"WORKDIR {process.workdir}")
    if process.user:
        found.append(f"USER {process.user}")
    return found


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$") + '"'
