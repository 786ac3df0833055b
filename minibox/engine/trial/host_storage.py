"""The storage of a trial: the host's files below, and a directory for what is written over each part of them."""

from __future__ import annotations

import os

from minibox.base.files import closing
from minibox.engine.trial.host_tree import HostTree, Part, directory_mode, make_skeleton
from minibox.errors import StoreError, kernel_says
from minibox.image.layer.attributes import copy_attributes
from minibox.storage.overlay import Overlay
from minibox.storage.snapshot import Snapshot, container_directory, write_record

SKELETON = "skeleton"
OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class HostStorage(Overlay):
    """Stacks overlays on the host's directories instead of an image's layers; see `Snapshotter`."""

    __slots__ = ("tree",)

    def __init__(self, root: str, tree: HostTree) -> None:
        super().__init__(root)
        self.tree = tree

    def is_unpacked(self, chain_ids: tuple[str, ...]) -> bool:
        return True

    def describe(self, key: str, chain_ids: tuple[str, ...]) -> Snapshot:
        directory, (first, *others) = f"{self.root}/containers/{key}", self.tree.parts
        below = [
            (part.path, part.lower, part_directory(directory, number), part.attributes)
            for number, part in enumerate(others, 1)
        ]
        return Snapshot(self.driver, (lower_of(directory, first),), f"{directory}/upper", tuple(below), of_host=True)

    def open_lower(self, path: str) -> int:
        """Open the host's root instead: users are looked up in its /etc, which a skeleton doesn't have."""
        return super().open_lower(self.tree.over)

    def prepare(self, key: str, chain_ids: tuple[str, ...]) -> Snapshot:
        directory, snapshot = container_directory(self.root, key), self.describe(key, chain_ids)
        try:
            self._check_file_system()
            os.makedirs(directory, mode=0o700, exist_ok=True)
            write_record(directory, self.driver, ())
            if not self.tree.parts[0].lower:
                make_skeleton(self.tree, f"{directory}/{SKELETON}")
            for number, part in enumerate(self.tree.parts):
                own = part_directory(directory, number)
                os.makedirs(f"{own}/upper")
                os.mkdir(f"{own}/work")
                _adopt(lower_of(directory, part), f"{own}/upper")
        except OSError as error:
            raise StoreError(f"prepare {directory}: {kernel_says(error)}") from error
        return snapshot


def part_directory(directory: str, number: int) -> str:
    """Return the directory with a part's ``upper`` and ``work``, in that of the container."""
    return f"{directory}/parts/{number}" if number else directory


def lower_of(directory: str, part: Part) -> str:
    """Return what a part is stacked on."""
    return part.lower or f"{directory}/{SKELETON}"


def _adopt(lower: str, upper: str) -> None:
    """Give an upperdir the attributes of the directory that it covers, as far as the caller may."""
    status = os.stat(lower)
    ordinary = bool(os.geteuid())
    if not ordinary or status.st_uid == os.geteuid():
        try:
            with closing(os.open(lower, OPEN_DIRECTORY)) as below, closing(os.open(upper, OPEN_DIRECTORY)) as above:
                copy_attributes(below, above, owner=not ordinary)
            return
        except PermissionError:
            pass  # a directory of the user's that he can't list
    os.chmod(upper, directory_mode(status))
