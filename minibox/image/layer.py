"""Unpacked layers: root/layers/<chain id hex>/diff.

A layer is unpacked in ``unfinished-<chain id hex>`` beside its place and renamed into it: a directory that is there
is whole. Who works in an unfinished directory holds a lock on it, so that two processes never unpack the same layer;
one that can be locked was left by a killed process.

Before the rename the file system is synced (syncfs(2)), once for all layers that are ready together: else a power
failure within the next half minute would leave a layer with empty files, and the directory's name is all that anybody
checks later. fsync(2) of each file would take several times as long.
"""

from __future__ import annotations

import fcntl
import os
import threading

from minibox.errors import MiniboxError, StoreError
from minibox.image.compression import Pump
from minibox.image.extract import Extractor, adopt_directories, hide_all_below
from minibox.image.layout import disk_error
from minibox.image.tar import TarReader
from minibox.linux.files import sync_file_system
from minibox.record import record
from minibox.storage.removal import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from minibox.image.attributes import OwnerPolicy
    from minibox.image.compression import Readable
    from minibox.image.extract import Form

UNFINISHED = "unfinished-"
NOTES = "notes"
OWNERS_LOST = "owners are lost: it was unpacked by a user with a single id"


@record
class LayerSource:
    """A layer that waits to be unpacked.

    Attributes:
        blob_path: the tar, plain or compressed.
        diff_id: digest of the plain tar, verified while unpacking.
        chain_id: of this layer with all below it; names the directory.
    """

    blob_path: str
    diff_id: str
    chain_id: str


@record
class Unpacked:
    """What unpacking a layer found.

    Attributes:
        implied: directories without an entry of their own; see `extract.adopt_directories`.
        hides_all_below: whether the root directory is opaque; see `extract.hide_all_below`.
        skipped_devices: names of device nodes that could not be made.
        owner_kept: whether files have the owners that the layer says.
    """

    implied: frozenset[bytes]
    hides_all_below: bool
    skipped_devices: tuple[bytes, ...]
    owner_kept: bool


def unpack(
    blob: Readable,
    directory: str,
    *,
    diff_id: str | None = None,
    owner_policy: OwnerPolicy = "auto",
    form: Form = "overlay",
) -> Unpacked:
    """Unpack a layer's tar into ``directory``. Nothing is synced.

    Args:
        blob: the tar, plain or compressed by gzip, zstd, bzip2 or xz.
        diff_id: what the plain tar's digest must be.
        owner_policy: ``keep`` the owners in the tar, ``ignore`` them, or ``auto``: keep when we are
            root (in a user namespace too). See `extract.Extractor`.
        form: ``overlay`` fills an empty directory, whiteouts in overlayfs's form; ``apply`` changes a
            directory that has all layers below, whiteouts remove.

    Raises:
        StoreError: the blob is damaged, an entry would leave the directory, the disk is full.
    """
    what = f"unpack layer {diff_id}" if diff_id else "unpack tar"
    try:
        with Pump(blob) as pump, Extractor(directory, owner_policy, form) as extractor:
            reader = TarReader(pump.read_chunk)
            while (entry := reader.next()) is not None:
                extractor.extract(entry, reader.content())
            extractor.finish()
            found = pump.digest()
    except MiniboxError as error:
        raise StoreError(f"{what}: {error}", error.hint) from error
    except OSError as error:
        raise disk_error(what, error) from error
    if diff_id is not None and found != diff_id:
        raise StoreError(f"{what}: the content has another digest, {found}", "the layer is damaged")
    return Unpacked(
        frozenset(extractor.implied),
        extractor.hides_all_below,
        tuple(extractor.skipped_devices),
        extractor.keeps_owner,
    )


def unpack_layers(
    root: str,
    sources: Sequence[LayerSource],
    *,
    owner_policy: OwnerPolicy = "auto",
    on_progress: Callable[[str], None] | None = None,
) -> list[str]:
    """Unpack the layers of an image, those that are not yet, several at once; their ``diff`` directories.

    Args:
        sources: all layers of the image, bottom first.
        on_progress: called with the chain ID of each layer that was unpacked and is in its place.

    Raises:
        StoreError: a blob is missing or damaged, an entry would leave the directory, the disk is full. The layers
            below the one that failed are in their places.
    """
    layers_path = f"{root}/layers"
    paths = [f"{layers_path}/{source.chain_id[7:]}/diff" for source in sources]
    try:
        # Layers hold set-user-ID programs: nobody else on the host may reach into them.
        os.makedirs(layers_path, mode=0o700, exist_ok=True)
        collect_unfinished(layers_path)
        batch = _Batch(layers_path, sources, owner_policy, on_progress)
        try:
            batch.run()
        finally:
            batch.close()
    except OSError as error:
        raise disk_error(f"unpack layers in {layers_path}", error) from error
    return paths


def unpack_layer(root: str, source: LayerSource, owner_policy: OwnerPolicy = "auto") -> str:
    """`unpack_layers` for a single one."""
    return unpack_layers(root, [source], owner_policy=owner_policy)[0]


class _Batch:
    """Unpacks layers by several threads and gives them their places, each after those below it.

    Locks are taken bottom up and a lower layer's chain ID is part of each above it: who waits for a lock holds only
    locks that are further down, so that two batches never wait for each other.
    """

    def __init__(
        self,
        layers_path: str,
        sources: Sequence[LayerSource],
        owner_policy: OwnerPolicy,
        on_progress: Callable[[str], None] | None,
    ) -> None:
        self._layers_path = layers_path
        self._sources = sources
        self._owner_policy = owner_policy
        self._on_progress = on_progress or (lambda _: None)
        self._claims: dict[int, Claim] = {}  # by position in the image
        self._waiting: list[int] = []
        self._unpacked: dict[int, Unpacked] = {}
        self._errors: dict[int, BaseException] = {}
        self._changed = threading.Condition()

    def run(self) -> None:
        for position, source in enumerate(self._sources):
            claim = Claim.take(self._layers_path, source.chain_id)
            if claim is not None:
                self._claims[position] = claim
        self._waiting = sorted(self._claims, reverse=True)
        # Threads and not processes: decompression, digests and system calls let the others run.
        count = min(os.cpu_count() or 1, len(self._claims))
        if count <= 1:
            self._work()
            self._publish()
            return
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(count)]
        for thread in threads:
            thread.start()
        try:
            self._publish()
        finally:
            with self._changed:
                self._waiting.clear()
            for thread in threads:
                thread.join()

    def close(self) -> None:
        """Remove what has not got its place."""
        for claim in self._claims.values():
            claim.give_up()

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._waiting or self._errors:
                    return
                position = self._waiting.pop()
            try:
                found = self._unpack(position)
            except BaseException as error:
                with self._changed:
                    self._errors[position] = error
                    self._changed.notify()
                return
            with self._changed:
                self._unpacked[position] = found
                self._changed.notify()

    def _unpack(self, position: int) -> Unpacked:
        source = self._sources[position]
        diff_path = f"{self._claims[position].path}/diff"
        os.mkdir(diff_path)
        os.chmod(diff_path, 0o755)  # not left to the umask: it is the container's root directory
        try:
            blob = open(source.blob_path, "rb", buffering=0)
        except OSError as error:
            raise disk_error(f"read the blob of layer {source.diff_id}", error) from error
        with blob:
            return unpack(blob, diff_path, diff_id=source.diff_id, owner_policy=self._owner_policy)

    def _publish(self) -> None:
        """Give layers their places as they get ready, each when all below it have theirs."""
        for ready in self._ready():
            for position in ready:
                self._complete(position)
            sync_file_system(self._claims[ready[0]].descriptor)
            for position in ready:
                chain_id = self._sources[position].chain_id
                self._claims.pop(position).keep(f"{self._layers_path}/{chain_id[7:]}")
                self._on_progress(chain_id)

    def _ready(self) -> Iterator[list[int]]:
        waiting = sorted(self._claims)
        while waiting:
            with self._changed:
                while waiting[0] not in self._unpacked and waiting[0] not in self._errors:
                    self._changed.wait()
                count = next((index for index, each in enumerate(waiting) if each not in self._unpacked), len(waiting))
                if not count:
                    raise self._errors[waiting[0]]
            yield waiting[:count]
            del waiting[:count]

    def _complete(self, position: int) -> None:
        found = self._unpacked[position]
        path = self._claims[position].path
        lowers = [f"{self._where(below)}/diff" for below in range(position - 1, -1, -1)]
        if found.hides_all_below:
            hide_all_below(f"{path}/diff", lowers)
        if found.implied:
            adopt_directories(f"{path}/diff", found.implied, lowers, owner=found.owner_kept)
        if text := notes_text(found):
            with open(f"{path}/{NOTES}", "w", encoding="utf-8") as file:
                file.write(text)

    def _where(self, position: int) -> str:
        claim = self._claims.get(position)
        return claim.path if claim else f"{self._layers_path}/{self._sources[position].chain_id[7:]}"


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
    def take(layers_path: str, chain_id: str) -> Claim | None:
        """Wait for the layer or for the lock on it; None when the layer is there.

        Raises:
            OSError: the directory can't be made, or what a killed process left in it can't be removed.
        """
        path = f"{layers_path}/{UNFINISHED}{chain_id[7:]}"
        while not os.access(f"{layers_path}/{chain_id[7:]}/diff", os.F_OK):
            try:
                os.mkdir(path, 0o700)
            except FileExistsError:
                pass
            claim = _lock(path)
            if claim is None:
                continue  # it was renamed into its place, or collected
            try:
                # Behind the lock: who had it may have finished.
                if not os.access(f"{layers_path}/{chain_id[7:]}/diff", os.F_OK):
                    for name in os.listdir(path):
                        remove_tree(f"{path}/{name}")
                    return claim
            except BaseException:
                os.close(claim.descriptor)
                raise
            claim.give_up()
        return None

    def keep(self, layer_path: str) -> None:
        """Give the layer its place."""
        os.rename(self.path, layer_path)
        os.close(self.descriptor)

    def give_up(self) -> None:
        """Remove the directory; that it can't be is no error, as the next one tries again."""
        try:
            remove_tree(self.path)
        except OSError:
            pass
        os.close(self.descriptor)


def _lock(path: str, *, wait: bool = True) -> Claim | None:
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


def collect_unfinished(layers_path: str) -> None:
    """Remove the unfinished directories that killed processes left.

    Raises:
        OSError: the directory can't be read.
    """
    for name in os.listdir(layers_path):
        if name.startswith(UNFINISHED):
            claim = _lock(f"{layers_path}/{name}", wait=False)
            if claim is not None:
                claim.give_up()


def notes_text(found: Unpacked) -> str:
    """What a user should know of an unpacked layer, a line each; "" for nothing."""
    lines = [] if found.owner_kept else [OWNERS_LOST]
    if found.skipped_devices:
        names = ", ".join(ascii(name)[2:-1] for name in found.skipped_devices[:4])
        more = ", ..." if len(found.skipped_devices) > 4 else ""
        lines.append(f"device nodes are left out, which only root can make: {names}{more}")
    return "".join(line + "\n" for line in lines)


def notes(root: str, chain_ids: Sequence[str]) -> list[str]:
    """What was noted when these layers were unpacked, each once."""
    found: dict[str, None] = {}
    for chain_id in chain_ids:
        try:
            with open(f"{root}/layers/{chain_id[7:]}/{NOTES}", encoding="utf-8", errors="replace") as file:
                found.update(dict.fromkeys(file.read().splitlines()))
        except OSError:
            continue
    return list(found)
