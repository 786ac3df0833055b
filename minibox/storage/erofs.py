"""Layers as EROFS images: read-only file systems, one file each, stacked by overlayfs.

A layer is a single file. Nothing can change it by accident, and it uses only one inode of the disk. It contains the
layer in overlayfs's form, so everything else works as in `minibox.storage.overlay`. Only the host's root may mount
it. Source: https://docs.kernel.org/filesystems/erofs.html, mkfs.erofs(1).

On disk under ``root``:

    erofs/<hex>.erofs        a layer; <hex> is its chain ID. A directory if no image can be made of the layer
    erofs/unfinished-<hex>/  a layer that is being made; whoever makes it holds a lock on the directory
"""

from __future__ import annotations

import errno
import os

from minibox.base.files import closing
from minibox.base.lines import lines_of
from minibox.errors import MiniboxError, StoreError, Unsupported, kernel_says, trying
from minibox.linux.removal import remove_directory
from minibox.storage.layers import chain_ids_in, link_layer, links_in
from minibox.storage.overlay import Overlay
from minibox.storage.snapshot import container_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from minibox.image.layer.unpack import LayerSource

SUFFIX = ".erofs"
NO_UUID = "00000000-0000-0000-0000-000000000000"
LATEST_TIME = "99999999999"  # the build time of the image, later than any file's, so that all files keep their times
NAME_BYTES_MAX, PATH_BYTES_MAX = 255, 4096
MOUNT_REFUSED = {
    errno.EPERM: "the kernel lets only the host's root mount an EROFS image",
    errno.ENODEV: "the kernel has no EROFS (CONFIG_EROFS_FS)",
}
OTHER_HINT = "choose another: --storage-driver overlay"


class Erofs(Overlay):
    """Keeps layers as EROFS images under ``root``; see `minibox.storage.drivers.Snapshotter`."""

    __slots__ = ()
    driver = "erofs"

    def layer_path(self, chain_id: str) -> str:
        """Return the path of a layer's image."""
        return f"{self.root}/erofs/{chain_id[7:]}{SUFFIX}"

    def unpack(self, sources: Sequence[LayerSource], on_progress: Callable[[str], None] | None = None) -> None:
        from minibox.image.layer.unpack import unpack_apart

        if self.is_unpacked(tuple(source.chain_id for source in sources)):
            return
        os.makedirs(f"{self.root}/tmp", 0o700, exist_ok=True)
        if why := refusal(f"{self.root}/tmp"):
            raise Unsupported(f"use the storage driver erofs: {why}", OTHER_HINT)
        unpack_apart(
            f"{self.root}/erofs", sources, lambda chain_id: f"{chain_id[7:]}{SUFFIX}", self.open_lower,
            seal=_seal, on_progress=on_progress,
        )  # fmt: skip

    def open_lower(self, path: str) -> int:
        from minibox.linux.erofs import open_image

        with trying(Unsupported, f"mount the EROFS image {path}", OTHER_HINT):
            return open_image(path)

    def commit(self, key: str, chain_id: str, place: str, memory_fd: int = -1) -> None:
        self._clone_upper(key, f"{place}/layer/diff", memory_fd)
        _seal(f"{place}/layer/diff", f"{place}/image")
        os.rename(f"{place}/image", self.layer_path(chain_id))

    def adopt(self, key: str, chain_id: str) -> None:
        from minibox.storage.layers import move_layer

        # A layer may be a directory, and making an image of it would take longer than most commands of a build.
        move_layer(f"{container_directory(self.root, key)}/upper", self.layer_path(chain_id))

    def alias(self, chain_id: str, layer: str) -> None:
        link_layer(self.layer_path(chain_id), f"{layer[7:]}{SUFFIX}")

    def aliases(self) -> dict[str, str]:
        return links_in(f"{self.root}/erofs", SUFFIX)

    def _stat_lower(self, path: str) -> os.stat_result:
        with closing(self.open_lower(path)) as fd:
            return os.stat(fd)

    def layers(self) -> list[str]:
        return chain_ids_in(f"{self.root}/erofs", SUFFIX)

    def remove_layer(self, chain_id: str) -> None:
        remove_directory(self.layer_path(chain_id))

    def layer_bytes(self, chain_id: str) -> int:
        from minibox.storage.usage import file_bytes, tree_bytes

        path = self.layer_path(chain_id)
        if os.path.islink(path):
            return 0
        return tree_bytes(path) if os.path.isdir(path) else file_bytes(path)


def _seal(tree: str, path: str) -> None:
    """Turn a layer's directory into an image. A layer that mkfs.erofs can't handle stays a directory."""
    if _is_beyond(tree):
        os.rename(tree, path)
        return
    make_image(tree, path)
    remove_directory(tree)


def _is_beyond(tree: str) -> bool:
    """Tell whether mkfs.erofs 1.5 would damage or refuse a tree.

    It cuts a name of 255 bytes to 254, opens files by their whole paths, which may be too long, and turns a time before
    1970 into one in the far future.
    """
    waiting = [os.fsencode(os.path.abspath(tree))]
    while waiting:
        directory = waiting.pop()
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    if len(entry.name) >= NAME_BYTES_MAX or len(entry.path) >= PATH_BYTES_MAX:
                        return True
                    if entry.stat(follow_symlinks=False).st_mtime < 0:
                        return True
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            return True
    return False


def make_image(tree: str, path: str) -> None:
    """Make the EROFS image ``path`` of a directory tree. Equal trees, by stat(2) and xattr(7), give equal bytes.

    It isn't compressed: each container has its own page cache for its layers, and would decompress them again.

    Raises:
        Unsupported: mkfs.erofs is missing.
        StoreError: mkfs.erofs failed.
    """
    import subprocess

    # A fixed UUID, and extended inodes, since a short one can't hold full times.
    options = ["--quiet", "-U", NO_UUID, "-Eforce-inode-extended"]
    path_of_root = os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"
    environ = {**os.environ, "PATH": path_of_root, "SOURCE_DATE_EPOCH": LATEST_TIME}
    try:
        done = subprocess.run(
            ["mkfs.erofs", *options, path, tree], capture_output=True, text=True, check=False, env=environ
        )
    except (FileNotFoundError, PermissionError) as error:
        raise Unsupported("make an EROFS image: mkfs.erofs is not installed", "apt-get install erofs-utils") from error
    if done.returncode:
        said = lines_of((done.stderr or done.stdout).strip())
        raise StoreError(f"make an EROFS image of {tree}: {said[-1] if said else f'status {done.returncode}'}")


def refusal(directory: str) -> str:
    """Try to make and mount an EROFS image in ``directory``; return why that fails, or ""."""
    from minibox.linux.erofs import open_image

    probe = f"{directory}/erofs-probe-{os.getpid()}-{os.urandom(4).hex()}"  # several threads may try
    try:
        os.makedirs(f"{probe}/empty")
        make_image(f"{probe}/empty", f"{probe}/image")
        os.close(open_image(f"{probe}/image"))
    except MiniboxError as error:
        return f"{error}" + (f" ({error.hint})" if error.hint else "")
    except OSError as error:
        return MOUNT_REFUSED.get(error.errno or 0, "") or f"mount an EROFS image: {kernel_says(error)}"
    finally:
        remove_directory(probe)
    return ""
