"""Layers as EROFS images: read-only file systems, one file each, stacked by overlayfs.

A layer is one file that nothing can change by accident, and that takes no inodes of the disk's. It
holds the layer in overlayfs's form, so all else is as with `minibox.storage.overlay`. Only the host's
root may mount it. Source: https://docs.kernel.org/filesystems/erofs.html, mkfs.erofs(1).

On disk under ``root``:

    erofs/<hex>.erofs        a layer; <hex> is its chain ID
    erofs/unfinished-<hex>/  one that is being made, under the lock erofs.lock
"""

from __future__ import annotations

import errno
import os

from minibox.errors import MiniboxError, StoreError, Unsupported, kernel_says
from minibox.storage.overlay import Overlay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from minibox.image.layer import LayerSource

SUFFIX = ".erofs"
UNFINISHED = "unfinished-"
NO_UUID = "00000000-0000-0000-0000-000000000000"
MOUNT_REFUSED = {
    errno.EPERM: "the kernel lets only the host's root mount an EROFS image",
    errno.ENODEV: "the kernel has no EROFS (CONFIG_EROFS_FS)",
}
OTHER_HINT = "choose another: --storage-driver overlay"


class Erofs(Overlay):
    """The snapshotter of EROFS images under ``root``; see `minibox.storage.Snapshotter`."""

    __slots__ = ()
    driver = "erofs"

    def layer_path(self, chain_id: str) -> str:
        """The image of one layer."""
        return f"{self.root}/erofs/{chain_id[7:]}{SUFFIX}"

    def unpack(self, sources: Sequence[LayerSource], on_progress: Callable[[str], None] | None = None) -> None:
        if self.is_unpacked(tuple(source.chain_id for source in sources)):
            return
        from minibox.image.layout import locked

        os.makedirs(f"{self.root}/erofs", 0o700, exist_ok=True)
        with locked(f"{self.root}/erofs.lock"):
            if why := refusal(f"{self.root}/erofs"):
                raise Unsupported(f"use the storage driver erofs: {why}", OTHER_HINT)
            for source in sources:
                if not os.access(self.layer_path(source.chain_id), os.F_OK):
                    self._collect_unfinished()
                    try:
                        self._make_image(source)
                    finally:
                        self._collect_unfinished()
                    if on_progress:
                        on_progress(source.chain_id)

    def _make_image(self, source: LayerSource) -> None:
        from minibox.image.layer import unpack
        from minibox.image.layout import disk_error

        directory = f"{self.root}/erofs/{UNFINISHED}{source.chain_id[7:]}"
        try:
            os.makedirs(f"{directory}/diff")
            os.chmod(f"{directory}/diff", 0o755)  # not left to the umask: it is the container's root directory
            with open(source.blob_path, "rb") as blob:
                unpack(blob, f"{directory}/diff", diff_id=source.diff_id)
            make_image(f"{directory}/diff", f"{directory}/image")
            os.rename(f"{directory}/image", self.layer_path(source.chain_id))
        except OSError as error:
            raise disk_error(f"unpack layer {source.diff_id}", error) from error

    def _collect_unfinished(self) -> None:
        from minibox.storage.removal import remove_directory

        for name in os.listdir(f"{self.root}/erofs"):
            if name.startswith(UNFINISHED):
                remove_directory(f"{self.root}/erofs/{name}")

    def open_lower(self, path: str) -> int:
        from minibox.linux.images import open_image

        try:
            return open_image(path)
        except OSError as error:
            raise Unsupported(f"mount the EROFS image {path}: {kernel_says(error)}", OTHER_HINT) from error

    def layers(self) -> list[str]:
        from minibox.storage.layers import chain_ids_in

        return chain_ids_in(f"{self.root}/erofs", SUFFIX)

    def remove_layer(self, chain_id: str) -> None:
        from minibox.storage.removal import remove_directory

        remove_directory(self.layer_path(chain_id))

    def layer_bytes(self, chain_id: str) -> int:
        try:
            return os.stat(self.layer_path(chain_id)).st_blocks * 512
        except FileNotFoundError:
            return 0


def make_image(tree: str, path: str) -> None:
    """Make the EROFS image ``path`` of a directory tree: all that stat(2) and xattr(7) tell, the same bytes for the same.

    Not compressed: every container has a page cache of its own for its layers, and would decompress anew.

    Raises:
        Unsupported: there is no mkfs.erofs.
        StoreError: it failed.
    """
    import subprocess

    # A fixed UUID, and times in full, not as far as they fit in a short inode.
    options = ["--quiet", "-U", NO_UUID, "-Eforce-inode-extended"]
    environ = {**os.environ, "PATH": os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"}
    try:
        done = subprocess.run(
            ["mkfs.erofs", *options, path, tree], capture_output=True, text=True, check=False, env=environ
        )
    except (FileNotFoundError, PermissionError) as error:
        raise Unsupported("make an EROFS image: there is no mkfs.erofs", "apt-get install erofs-utils") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise StoreError(f"make an EROFS image of {tree}: {said[-1] if said else f'status {done.returncode}'}")


def refusal(directory: str) -> str:
    """Why layers can't be EROFS images in ``directory``, "" when they can: one is made and mounted."""
    from minibox.linux.images import open_image
    from minibox.storage.removal import remove_directory

    probe = f"{directory}/{UNFINISHED}probe-{os.getpid()}"
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
