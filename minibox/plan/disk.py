"""A container's own layer in memory, limited in size: a tmpfs instead of a directory on disk.

It is mounted by the process that mounts the overlay, in that process's mount namespace only, so it vanishes with all
its data when the container ends. It isn't id-mapped, since a tmpfs can be only since Linux 6.3. Instead its directories
are made with the ids of the container's root, and so is everything that the overlay makes in them.
"""

from __future__ import annotations

from minibox.plan import operations as op
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.plan.operations import Op

PAGE = 4096
FILES_LEAST = 1024


@record
class Disk:
    """The limit on what a container writes.

    Attributes:
        size_bytes: the size of all files together, in whole pages.
        mode, uid, gid: of the root directory, from the image.
    """

    size_bytes: int
    mode: int = 0o755
    uid: int = 0
    gid: int = 0

    @property
    def files(self) -> int:
        """The number of files and directories: one a page, since empty ones take memory too."""
        return max(FILES_LEAST, self.size_bytes // PAGE)

    def mount(self, stage: str) -> Op:
        """Mount it before the overlay, as a process that may."""
        options = f"mode=0755,size={self.size_bytes},nr_inodes={self.files}"
        why = "the container's own layer, in memory and limited in size"
        return op.mount("tmpfs", op.HOST, f"{stage}/rw", why, source="minibox", options=options)

    def directories(self, stage: str, ids: tuple[int, int]) -> list[Op]:
        """Make the directories that the overlay needs.

        Args:
            ids: the host's ids of the container's root; the caller already uses them for files.
        """
        upper = op.mkdir(op.HOST, f"{stage}/rw/upper", "the container's root directory", self.mode)
        work = op.mkdir(op.HOST, f"{stage}/rw/work", "overlayfs needs it")
        if not (self.uid or self.gid):
            return [upper, work]
        return [
            op.set_fs_ids(ids[0] + self.uid, ids[1] + self.gid, "the owner of the image's root directory"),
            upper,
            op.set_fs_ids(*ids, "back to root inside"),
            work,
        ]
