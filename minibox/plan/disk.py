"""A container's own layer in memory: a tmpfs of a size, in place of the directory on disk that knows none.

It is mounted by who mounts the overlay, and in that process's mount namespace only: when the container ends it is gone,
with all that was written. It isn't id-mapped, which a tmpfs can be since Linux 6.3 only: its directories are made in the
name of the container's root, and so is all that the overlay makes in them.
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
    """How much a container may write.

    Attributes:
        size_bytes: of what its files hold, in whole pages.
        mode, uid, gid: of its root directory, as the image has them.
    """

    size_bytes: int
    mode: int = 0o755
    uid: int = 0
    gid: int = 0

    @property
    def files(self) -> int:
        """How many files and directories: a page each, since empty ones take memory as well."""
        return max(FILES_LEAST, self.size_bytes // PAGE)

    def mount(self, stage: str) -> Op:
        """Mount it, before the overlay is, by who may."""
        options = f"mode=0755,size={self.size_bytes},nr_inodes={self.files}"
        why = "the container's own layer, in memory: it can't grow beyond its size"
        return op.mount("tmpfs", op.HOST, f"{stage}/rw", why, source="minibox", options=options)

    def directories(self, stage: str, ids: tuple[int, int]) -> list[Op]:
        """Make what the overlay needs in it.

        Args:
            ids: those on the host of the container's root, as whom the caller acts on files already.
        """
        upper = op.mkdir(op.HOST, f"{stage}/rw/upper", "the container's root directory", self.mode)
        work = op.mkdir(op.HOST, f"{stage}/rw/work", "overlayfs's own")
        if not (self.uid or self.gid):
            return [upper, work]
        return [
            op.set_fs_ids(ids[0] + self.uid, ids[1] + self.gid, "the owner of the image's root directory"),
            upper,
            op.set_fs_ids(*ids, "as before"),
            work,
        ]
