"""Unpack layers, each on its own: root/layers/<chain id hex>/diff, or what another driver makes of it.

A layer is unpacked into ``unfinished-<chain id hex>`` and then renamed, so a layer that exists is complete. Whoever
works in the unfinished directory holds a lock on it (`minibox.image.layer.lock`).

Before the rename we sync the file system (syncfs(2)), once for all layers that are ready together. Otherwise a power
failure
in the next half minute could leave a layer with empty files, and nobody would notice: later we only check that the
directory exists. Calling fsync(2) for each file would take several times as long.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from functools import partial
from heapq import heappop, heappush
from typing import Any

from minibox.base.files import open_to_read
from minibox.base.lines import lines_of
from minibox.errors import MiniboxError, StoreError
from minibox.image.layer.compression import Pump, Readable
from minibox.image.layer.extract import Extractor
from minibox.image.layer.lock import Claim, collect_unfinished
from minibox.image.layer.size import note
from minibox.image.layer.tar import TarReader
from minibox.image.layer.tree import Directory
from minibox.image.layer.whiteouts import OPEN_DIRECTORY, Lowers, merge_into_stack
from minibox.image.layout.layout import disk_error
from minibox.linux.files import sync_file_system
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.image.layer.attributes import OwnerPolicy
    from minibox.image.layer.extract import Form


NOTES = "notes"
OWNERS_LOST = "owners are lost: it was unpacked by a user with a single id"


@record
class LayerSource:
    """A layer to unpack.

    Attributes:
        blob_path: the tar, plain or compressed.
        diff_id: the digest of the plain tar, verified while unpacking.
        chain_id: identifies this layer with all below it; names the directory.
        coming: done when the blob's download has ended, well or not; None if the blob is there already.
    """

    blob_path: str
    diff_id: str
    chain_id: str
    coming: Future[Any] | None = None


def wait_for_blobs(sources: Sequence[LayerSource]) -> Sequence[LayerSource]:
    """Wait for the blob of the first source; return it and those after it whose blobs have arrived without a gap.

    Raises:
        MiniboxError: any of the downloads failed.
    """
    waiting = {source.coming for source in sources if source.coming}
    while sources[0].coming in waiting:
        from concurrent.futures import FIRST_COMPLETED, wait

        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        for future in done:
            future.result()
    count = next((index for index, source in enumerate(sources) if source.coming in waiting), len(sources))
    return sources[:count]


@record
class Unpacked:
    """The result of unpacking a layer.

    Attributes:
        directories: the root of the layer's tree, with only the parts that depend on the layers below; see
            `whiteouts.merge_into_stack`.
        file_bytes: the total size of its regular files.
        skipped_devices: names of device nodes that we couldn't make.
        owner_kept: files have the owners from the layer.
    """

    directories: Directory
    file_bytes: int
    skipped_devices: tuple[bytes, ...]
    owner_kept: bool

    @property
    def needs_lowers(self) -> bool:
        """Whether it is incomplete until it is merged with the layers below."""
        return self.directories.needs_lowers


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
        diff_id: the expected digest of the plain tar.
        owner_policy: ``keep`` the owners in the tar, ``ignore`` them, or ``auto``: keep them if we are
            root (also in a user namespace). See `extract.Extractor`.
        form: ``overlay`` fills an empty directory; ``apply`` changes a directory that has all layers below.

    Raises:
        StoreError: the blob is damaged, an entry would leave the directory, or the disk is full.
    """
    what = f"unpack layer {diff_id}" if diff_id else "unpack tar"
    file_bytes = 0
    try:
        with Pump(blob) as pump, Extractor(directory, owner_policy, form) as extractor:
            reader = TarReader(pump.read_chunk)
            while (entry := reader.next()) is not None:
                file_bytes += entry.size
                extractor.extract(entry, reader.content())
            extractor.finish()
            extractor.tree.root.prune()
            found = pump.digest()
    except MiniboxError as error:
        raise StoreError(f"{what}: {error}", error.hint) from error
    except OSError as error:
        raise disk_error(what, error) from error
    if diff_id is not None and found != diff_id:
        raise StoreError(f"{what}: the content has another digest, {found}", "the layer is damaged")
    return Unpacked(
        extractor.tree.root,
        file_bytes,
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
    """Unpack the layers of an image that aren't unpacked yet into directories, and return all their paths."""
    directory = f"{root}/layers"

    def name(chain_id: str) -> str:
        return f"{chain_id[7:]}/diff"

    unpack_apart(directory, sources, name, open_directory, owner_policy=owner_policy, on_progress=on_progress)
    return [f"{directory}/{name(source.chain_id)}" for source in sources]


def open_directory(path: str) -> int:
    """Open a layer's directory to read from it."""
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def unpack_apart(
    directory: str,
    sources: Sequence[LayerSource],
    name: Callable[[str], str],
    open_lower: Callable[[str], int],
    *,
    seal: Callable[[str, str], None] | None = None,
    owner_policy: OwnerPolicy = "auto",
    on_progress: Callable[[str], None] | None = None,
) -> None:
    """Unpack those layers of an image that aren't in ``directory`` yet, as many at once as there are processors.

    Args:
        sources: all layers of the image, bottom first. Unpacking a layer begins once its blob has arrived.
        name: returns the path below ``directory`` for the layer of a chain ID.
        open_lower: opens a layer's directory by its path.
        seal: turns the directory with a layer's files (first path) into the driver's form (second path), and removes
            the directory; None if the directory is the layer.
        on_progress: called with the chain ID of each layer once it is in its place.

    Raises:
        StoreError: a blob is missing or damaged, an entry would leave the directory, or the disk is full. The layers
            below the failed one are in their places if their blobs had arrived.
        MiniboxError: an error of ``seal`` or of a download.
    """
    try:
        # Layers hold set-user-ID programs: nobody else on the host may reach into them.
        os.makedirs(directory, mode=0o700, exist_ok=True)
        collect_unfinished(directory)
        batch = _Batch(directory, sources, name, open_lower, seal, owner_policy, on_progress or (lambda _: None))
        try:
            batch.run()
        finally:
            batch.close()
    except OSError as error:
        raise disk_error(f"unpack layers in {directory}", error) from error


class _Batch:
    """Unpacks layers in several threads, and moves them to their places, each after those below it.

    Two batches never wait for each other: locks are taken bottom up, and a chain ID includes all layers below, so a
    batch that waits for a lock holds only locks further down. A batch that waits for a blob while it holds a lock
    doesn't wait for anybody who needs that lock.
    """

    def __init__(
        self,
        directory: str,
        sources: Sequence[LayerSource],
        name: Callable[[str], str],
        open_lower: Callable[[str], int],
        seal: Callable[[str, str], None] | None,
        owner_policy: OwnerPolicy,
        on_progress: Callable[[str], None],
    ) -> None:
        self._directory, self._root = directory, os.path.dirname(directory)
        self._sources = sources
        self._names = [name(source.chain_id) for source in sources]
        self._open_lower, self._seal = open_lower, seal
        self._owner_policy = owner_policy
        self._on_progress = on_progress
        self._claims: dict[int, Claim] = {}  # by position in the image, like all that follow
        self._there: list[int] = []  # a heap of the positions whose downloads have ended
        self._working = 0
        self._stopped = threading.Event()
        self._unpacked: dict[int, Unpacked] = {}
        self._errors: dict[int, BaseException] = {}
        self._changed = threading.Condition()

    def run(self) -> None:
        for position, source in enumerate(self._sources):
            claim = Claim.take(self._directory, source.chain_id, self._names[position])
            if claim is not None:
                self._claims[position] = claim
        # Threads suffice: decompression, digests and system calls release the GIL.
        count = min(os.cpu_count() or 1, len(self._claims))
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(count)]
        for position in self._claims:
            if (coming := self._sources[position].coming) is None:
                self._came(position)
            else:
                coming.add_done_callback(partial(self._came, position))
        for thread in threads:
            thread.start()
        try:
            self._publish()
        finally:
            with self._changed:
                self._stopped.set()
                self._changed.notify_all()
            for thread in threads:
                thread.join()

    def close(self) -> None:
        """Remove the layers that didn't get to their places."""
        for claim in self._claims.values():
            claim.give_up()

    def _came(self, position: int, _: object = None) -> None:
        with self._changed:
            heappush(self._there, position)
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._there or self._errors or self._stopped.is_set())
                if self._errors or self._stopped.is_set():
                    return
                position = heappop(self._there)
                self._working += 1
            found, failed = None, None
            try:
                found = self._unpack(position)
            except BaseException as error:
                failed = error
            with self._changed:
                self._working -= 1
                if found is not None:
                    self._unpacked[position] = found
                if failed is not None:
                    self._errors[position] = failed
                self._changed.notify_all()

    def _unpack(self, position: int) -> Unpacked:
        source, tree = self._sources[position], self._tree(position)
        if source.coming is not None:
            source.coming.result()
        os.makedirs(os.path.dirname(tree), 0o700, exist_ok=True)
        os.mkdir(tree)
        os.chmod(tree, 0o755)  # whatever the umask is: this becomes the container's root directory
        try:
            blob = open(open_to_read(source.blob_path), "rb", buffering=0)
        except OSError as error:
            raise disk_error(f"read the blob of layer {source.diff_id}", error) from error
        with blob:
            wanted = _Wanted(blob, self._stopped)
            found = unpack(wanted, tree, diff_id=source.diff_id, owner_policy=self._owner_policy)
        if self._seal is not None and not found.needs_lowers:
            self._seal(tree, self._where(position))
        return found

    def _publish(self) -> None:
        """Move layers to their places as they get ready, each after all below it."""
        for ready in self._ready():
            for position in ready:
                self._complete(position)
            sync_file_system(self._claims[ready[0]].descriptor)
            for position in ready:
                self._claims.pop(position).keep(self._names[position])
                note(self._root, self._sources[position].chain_id, self._unpacked[position].file_bytes)
                self._on_progress(self._sources[position].chain_id)

    def _ready(self) -> Iterator[list[int]]:
        waiting = sorted(self._claims)
        while waiting:
            with self._changed:
                self._changed.wait_for(lambda: waiting[0] in self._unpacked or (self._errors and not self._working))
                count = next((index for index, each in enumerate(waiting) if each not in self._unpacked), len(waiting))
                if not count:
                    raise self._errors[min(self._errors)]
            yield waiting[:count]
            del waiting[:count]

    def _complete(self, position: int) -> None:
        """Do what needs the layers below."""
        found, tree = self._unpacked[position], self._tree(position)
        if found.needs_lowers:
            with ExitStack() as stack:
                fds = [os.open(tree, OPEN_DIRECTORY)]
                stack.callback(os.close, fds[0])
                for below in range(position - 1, -1, -1):
                    fds.append(self._open_lower(self._where(below)))
                    stack.callback(os.close, fds[-1])
                merge_into_stack(fds[0], found.directories, Lowers(fds[1:]), owner=found.owner_kept)
            if self._seal is not None:
                self._seal(tree, self._where(position))
        if self._seal is None and (text := notes_text(found)):
            with open(f"{os.path.dirname(tree)}/{NOTES}", "w", encoding="utf-8") as file:
                file.write(text)

    def _tree(self, position: int) -> str:
        return self._where(position) if self._seal is None else f"{self._claims[position].path}/diff"

    def _where(self, position: int) -> str:
        claim = self._claims.get(position)
        return f"{claim.path if claim else self._directory}/{self._names[position]}"


class _Wanted:
    """A blob that raises an error once we stop, so that Ctrl-C doesn't wait for a thread to unpack all of it."""

    def __init__(self, file: Readable, stopped: threading.Event) -> None:
        self._file, self._stopped = file, stopped

    def read(self, size: int, /) -> bytes:
        if self._stopped.is_set():
            raise StoreError("cancelled")
        return self._file.read(size)


def notes_text(found: Unpacked) -> str:
    """Return what a user should know about an unpacked layer, one line each; "" if there is nothing."""
    lines = [] if found.owner_kept else [OWNERS_LOST]
    if found.skipped_devices:
        names = ", ".join(ascii(name)[2:-1] for name in found.skipped_devices[:4])
        more = ", ..." if len(found.skipped_devices) > 4 else ""
        lines.append(f"device nodes are left out, because only root can make them: {names}{more}")
    return "".join(line + "\n" for line in lines)


def notes(root: str, chain_ids: Sequence[str]) -> list[str]:
    """Return the notes from unpacking these layers, each once."""
    found: dict[str, None] = {}
    for chain_id in chain_ids:
        try:
            with open(f"{root}/layers/{chain_id[7:]}/{NOTES}", encoding="utf-8", errors="replace") as file:
                found.update(dict.fromkeys(lines_of(file.read())))
        except OSError:
            continue
    return list(found)
