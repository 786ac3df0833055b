"""The threads that copy a container's streams."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

from minibox.engine.process.streams import CHUNK, Copy


def test_a_full_pipe_is_drained_while_a_part_is_on_its_way(tmp_path: Path) -> None:
    """When the command ends, the copier may hold what it has just read, and the pipe may be full again."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, CHUNK)
    has_read, is_drained = threading.Event(), threading.Event()

    def move(source: int, target: int) -> int:
        data = os.read(source, CHUNK)
        has_read.set()
        is_drained.wait()
        return os.write(target, data)

    with open(tmp_path / "out", "wb") as target:
        copy = Copy(reader, target.fileno(), move=move)
        os.write(writer, b"a" * CHUNK)
        has_read.wait()
        os.write(writer, b"b" * CHUNK)
        draining = threading.Thread(target=copy.drain)
        draining.start()
        while not copy._draining:
            pass
        is_drained.set()
        draining.join()
    os.close(writer)
    assert (tmp_path / "out").read_bytes() == b"a" * CHUNK + b"b" * CHUNK
