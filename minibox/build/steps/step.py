"""Carry out one line on the engine: RUN starts a container on the layers so far, COPY and ADD write files.

Either way the line has a container directory of its own, claimed as for ``minibox run --rm``: if this process is
killed, the next command removes it. What the line has written becomes its layer by a rename.
"""

from __future__ import annotations

import os
from _thread import allocate_lock

from minibox.engine.files import rootfs_setup
from minibox.engine.host.user_namespace import run_inside
from minibox.engine.state.claim import Claim
from minibox.errors import MiniboxError
from minibox.image.layout.image import ResolvedImage
from minibox.record import record, replace
from minibox.storage.drivers import snapshotter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from minibox.base.home import Home
    from minibox.engine.container.embedded import Embedded
    from minibox.engine.spec.options import RunOptions

    T = TypeVar("T")

CHUNK_BYTES = 1 << 16
WAIT_S = 0.2  # how often it looks whether the build was ended
SCRATCH = "sha256:" + 60 * "0" + "b01d"  # the empty layer that ``FROM scratch`` begins with


class Cancelled(MiniboxError):
    """The build was ended before this line was done."""


@record
class Place:
    """Where lines are carried out.

    Attributes:
        driver: the storage driver.
        newest_s: see `line_layer.take`.
    """

    home: Home
    driver: str
    newest_s: int | None = None

    @property
    def root(self) -> str:
        return self.home.root


class Running:
    """The containers that run now, so that `cancel` can end them from another thread.

    Attributes:
        when_cancelled: called by `cancel`, too.
    """

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._containers: set[Embedded] = set()
        self.is_cancelled = False
        self.when_cancelled: Callable[[], None] = lambda: None

    def add(self, container: Embedded) -> None:
        with self._lock:
            if self.is_cancelled:
                raise Cancelled("the build was ended")
            self._containers.add(container)

    def remove(self, container: Embedded) -> None:
        with self._lock:
            self._containers.discard(container)

    def check(self) -> None:
        """Raises Cancelled if the build was ended."""
        if self.is_cancelled:
            raise Cancelled("the build was ended")

    def beside(self, ask: Callable[[], T]) -> T:
        """Ask a server in a thread of its own, so that the end of the build needn't wait for the answer.

        Raises:
            Cancelled: the build was ended.
        """
        from concurrent.futures import Future, wait
        from threading import Thread

        answer: Future[T] = Future()

        def work() -> None:
            try:
                answer.set_result(ask())
            except BaseException as error:
                answer.set_exception(error)

        Thread(target=work, name="asking", daemon=True).start()
        while not wait([answer], WAIT_S).done:
            self.check()
        return answer.result()

    def cancel(self) -> None:
        """End the containers that run, and start no more."""
        with self._lock:
            self.is_cancelled = True
            containers = list(self._containers)
        for each in containers:
            if each.main:
                each.main.send_signal(9)
        self.when_cancelled()


@record
class Ended:
    """How a command ended: its status as a shell shows it, the verdict in words, and whether it made a layer."""

    status: int
    summary: str
    hint: str
    made_layer: bool


def run(
    place: Place,
    chain_ids: tuple[str, ...],
    layer: str,
    options: RunOptions,
    config: dict[str, Any],
    *,
    running: Running,
    on_output: Callable[[bytes], None],
    on_note: Callable[[str], None],
    made: tuple[str, ...] = (),
    failed_layer: str = "",
) -> Ended:
    """Run a command on the layers ``chain_ids`` and make ``layer`` of what it has written, if it succeeds.

    Args:
        config: the execution part of the image config.
        made: mount points of the command's own mounts.
        failed_layer: keep what it has written under this name if it fails; "" drops it.

    Raises:
        MiniboxError: it can't be started, the disk is full, or the build was ended.
    """
    from minibox.engine.container.embedded import Embedded

    image = ResolvedImage(options.image, "", {"config": config}, chain_ids, "")
    container = Embedded(
        place.home,
        options,
        storage_driver=place.driver,
        on_note=on_note,
        image=image,
    )
    reader, writer = os.pipe2(os.O_CLOEXEC)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        running.add(container)
        try:
            command = container.start((null, writer, writer))
        finally:
            os.close(writer)
        running.check()
        while data := os.read(reader, CHUNK_BYTES):
            on_output(data)
        code = command.reap()
        running.check()
        container.end_processes()
        if code:
            verdict = container.verdict(("",))
            kept = False
            if failed_layer:
                try:
                    kept = _take(place, container.id, chain_ids, failed_layer, made)
                except MiniboxError as error:  # such as a full disk, which may be why the command has failed
                    on_note(f"what the command left is not kept: {error}")
            return Ended(code if code > 0 else 128 - code, verdict.summary, verdict.hint or "", kept)
        return Ended(0, "", "", _take(place, container.id, chain_ids, layer, made))
    finally:
        running.remove(container)
        os.close(reader)
        os.close(null)
        container.close()


def _take(place: Place, key: str, chain_ids: tuple[str, ...], layer: str, made: tuple[str, ...]) -> bool:
    from minibox.engine.files import line_layer

    newest_s = place.newest_s
    return line_layer.take(place.root, place.driver, key, chain_ids, layer, made=made, newest_s=newest_s)


def write(place: Place, chain_ids: tuple[str, ...], layer: str, work: Callable[[int], None]) -> bool:
    """Call ``work`` with the root directory that ``chain_ids`` make, and make ``layer`` of what it writes.

    ``work`` runs in a child process if that owns files of other ids (an ordinary user's build).

    Returns:
        Whether it has written anything; otherwise there is no layer.

    Raises:
        MiniboxError, OSError: ``work`` raised it, or the disk is full.
    """
    from minibox.engine.files.writable_rootfs import writable_root  # before the fork: another thread may import, too

    storage = snapshotter(place.root, place.driver)
    image = ResolvedImage("", "", {}, chain_ids, "")
    claim = Claim.new(place.root, "", remove=True)
    try:
        claim.note_image("", image)
        rootfs_setup.prepare(storage, claim.id, chain_ids)

        def inside() -> None:
            with writable_root(place.root, claim.id, (), read_only=False) as root_fd:
                work(root_fd)

        run_inside(inside)
        return _take(place, claim.id, chain_ids, layer, ())
    finally:
        rootfs_setup.remove(place.root, claim.id, storage)
        claim.give_up()


def make_scratch(place: Place) -> tuple[str, ...]:
    """Make the empty layer of ``FROM scratch`` if it doesn't exist; return it as the layers to begin with."""
    from minibox.image.layout.layout import locked
    from minibox.storage.snapshot import keep_layer

    storage = snapshotter(place.root, place.driver)
    if not storage.is_unpacked((SCRATCH,)):
        os.makedirs(f"{place.root}/build", 0o700, exist_ok=True)
        with locked(f"{place.root}/build/scratch.lock"):
            keep_layer(place.root, place.driver, SCRATCH)
            storage.make_empty(SCRATCH)
    return (SCRATCH,)


def with_command(options: RunOptions, words: tuple[str, ...]) -> RunOptions:
    """Return ``options`` for this command, without an entrypoint."""
    changed: RunOptions = replace(options, command=words, entrypoint="")
    return changed
