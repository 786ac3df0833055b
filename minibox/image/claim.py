"""Who makes a layer: the lock on the directory in which he does.

Two processes never make the same layer at once, and an unfinished directory that can be locked was left by a killed one.
"""

from __future__ import annotations

import fcntl
import os

from minibox.linux.removal import remove_tree

UNFINISHED = "unfinished-"


class Claim:
    """The unfinished directory of a layer, empty at first, and the lock on it: nobody else unpacks the layer.

    Attributes:
        path: of the directory.
        descriptor: of the directory; it has the lock.
    """

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor

    @staticmethod
    def take(directory: str, chain_id: str, name: str) -> Claim | None:
        """Wait for the layer ``name`` in ``directory`` or for the lock on it; None when the layer is there.

        Raises:
            OSError: the directory can't be made, or what a killed process left in it can't be removed.
        """
        path = f"{directory}/{UNFINISHED}{chain_id[7:]}"
        while not os.access(f"{directory}/{name}", os.F_OK):
            try:
                os.mkdir(path, 0o700)
            except FileExistsError:
                pass
            claim = lock(path)
            if claim is None:
                continue  # who had it is done, or gave up
            try:
                # Behind the lock: who had it may have finished.
                if not os.access(f"{directory}/{name}", os.F_OK):
                    for left in os.listdir(path):
                        remove_tree(f"{path}/{left}")
                    return claim
            except BaseException:
                os.close(claim.descriptor)
                raise
            claim.give_up()
        return None

    def keep(self, name: str) -> None:
        """Give the layer its place: what is called ``name``, or the directory that begins so."""
        name = name.partition("/")[0]
        try:
            os.rename(f"{self.path}/{name}", f"{os.path.dirname(self.path)}/{name}")
        finally:
            self.give_up()

    def give_up(self) -> None:
        """Remove the directory; that it can't be is no error, as the next one tries again."""
        try:
            remove_tree(self.path)
        except OSError:
            pass
        os.close(self.descriptor)


def lock(path: str, *, wait: bool = True) -> Claim | None:
    """Lock an unfinished directory; None when it is no more what ``path`` names, or without ``wait`` is another's."""
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
