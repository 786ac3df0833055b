"""Whether a line's layer survived a power loss: layers aren't synced one by one, but all at the end of a build.

``root/build/synced`` has the time of the last such sync. A layer that was made after it, before this machine was started,
may have lost its files.
"""

from __future__ import annotations

import os

from minibox.base.files import replace_file
from minibox.errors import suppress
from minibox.linux.files import sync_file_system
from minibox.storage.snapshot import kept_path

NS_A_SECOND = 1_000_000_000


def sync(root: str) -> None:
    """Write everything under ``root`` to the disk, and note that.

    Raises:
        OSError: the disk is full or fails.
    """
    note = f"{root}/build/synced"
    os.makedirs(os.path.dirname(note), 0o700, exist_ok=True)
    replace_file(f"{note}-begun", b"")
    begun_ns = os.stat(f"{note}-begun").st_mtime_ns  # by the file system's clock
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync_file_system(fd)
    finally:
        os.close(fd)
    replace_file(note, b"%d\n" % begun_ns)


def is_sound(root: str, driver: str, layer: str) -> bool:
    """Tell whether a layer has all its files, as far as a power loss is concerned."""
    try:
        made_ns = os.stat(kept_path(root, driver, layer)).st_mtime_ns
    except OSError:
        return True  # it isn't a line's
    return made_ns > _boot_ns() or made_ns < _synced_ns(root)


def _synced_ns(root: str) -> int:
    with suppress(OSError, ValueError):
        with open(f"{root}/build/synced", "rb") as file:
            return int(file.read(32))
    return 0


def _boot_ns() -> int:
    """The time of the machine's start; proc_stat(5)."""
    with open("/proc/stat", "rb") as file:
        line = next(line for line in file if line.startswith(b"btime "))
    return int(line.split()[1]) * NS_A_SECOND
