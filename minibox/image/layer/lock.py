"""The lock on the unfinished directory of a layer, held by the process that makes the layer.

Two processes never make the same layer at once. If you can lock an unfinished directory, a killed process left it.
"""

from __future__ import annotations

import fcntl
import os

from minibox.errors import on_failure, suppress
from minibox.linux.removal import remove_tree

UNFINISHED = "unfinished-"


class Claim:
    """The unfinished directory of a layer, empty at first, with its lock: nobody else unpacks the layer.

    Attributes:
        path: the directory.
        descriptor: the open directory, which holds the lock.
    """

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor

    @staticmethod
    def take(directory: str, chain_id: str, name: str) -> Claim | None:
        """Wait for the lock on the layer ``name`` in ``directory``; return None if another process made the layer.

        Raises:
            OSError: the directory can't be made, or we can't remove what a killed process left in it.
        """
        path = f"{directory}/{UNFINISHED}{chain_id[7:]}"
        while not os.access(f"{directory}/{name}", os.F_OK):
            with suppress(FileExistsError):
                os.mkdir(path, 0o700)
            claim = lock(path)
            if claim is None:
                continue  # its holder finished or gave up
            with on_failure(os.close, claim.descriptor):
                # Look again, now that we have the lock: its last holder may have finished.
                if not os.access(f"{directory}/{name}", os.F_OK):
                    for left in os.listdir(path):
                        remove_tree(f"{path}/{left}")
                    return claim
            claim.give_up()
        return None

    def keep(self, name: str) -> None:
        """Move the layer to its place: ``name`` or, if it has a slash, the directory before that."""
        name = name.partition("/")[0]
        try:
            os.rename(f"{self.path}/{name}", f"{os.path.dirname(self.path)}/{name}")
        finally:
            self.give_up()

    def give_up(self) -> None:
        """Remove the directory. It is no error if that fails: the next process tries again."""
        with suppress(OSError):
            remove_tree(self.path)
        os.close(self.descriptor)


def lock(path: str, *, wait: bool = True) -> Claim | None:
    """Lock an unfinished directory; None if ``path`` is another one by now, or, without ``wait``, if it is locked."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), os.stat(path)):
            return Claim(path, descriptor)
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def collect_unfinished(directory: str) -> None:
    """Remove the unfinished directories in ``directory`` that killed processes left.

    Raises:
        OSError: the directory can't be read.
    """
    for name in os.listdir(directory):
        if name.startswith(UNFINISHED):
            claim = lock(f"{directory}/{name}", wait=False)
            if claim is not None:
                claim.give_up()
