"""Containers: made, run, started again."""

from __future__ import annotations

from minibox.engine import removal, state
from minibox.engine.launch import Launch
from minibox.engine.ownership import Claim
from minibox.engine.streams import ClosedEnds
from minibox.errors import ConfigError, ImageNotFound, NameTaken, StoreError, UsageError
from minibox.image.store import ImageStore
from minibox.storage import snapshotter, snapshotter_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from minibox.engine.launch import Note, Trace
    from minibox.engine.options import RunOptions
    from minibox.image.store import ResolvedImage

    Pull = Callable[[str, str], None]


def run(
    options: RunOptions,
    *,
    root: str,
    runroot: str,
    storage_driver: str = "",
    on_trace: Trace | None = None,
    on_note: Note | None = None,
    pull: Pull | None = None,
) -> int:
    """Run a container in the foreground and wait for its end.

    Args:
        storage_driver: see `minibox.storage.snapshotter`.
        on_note: called with a line that the user should know of: what the container has to do
            without, before it starts; that it ran out of memory, after it has ended.
        on_trace: called with the plan's steps and their times when the container has ended or
            could not be started.
        pull: pulls an image, of a platform or of this machine's for "", in the caller's way;
            None for `engine.registry.pull`.

    Returns:
        The exit status: the command's own, or 128 + the number of the signal that ended it; 125 for a
        command that succeeded and whose output could not be written.

    Raises:
        CommandNotFound, CommandNotExecutable: the command is at fault.
        MiniboxError: everything else; nothing is left behind.
    """
    from minibox.engine.foreground import Foreground

    ends = ClosedEnds()
    try:
        container = Foreground(_new(options, root, runroot, storage_driver, on_note, pull))
        try:
            return container.run(on_trace)
        finally:
            container.close()
    finally:
        ends.close()


def run_detached(
    options: RunOptions,
    *,
    root: str,
    runroot: str,
    storage_driver: str = "",
    on_trace: Trace | None = None,
    on_note: Note | None = None,
    pull: Pull | None = None,
) -> str:
    """Run a container that outlives this process, looked after by a supervisor; its id.

    Arguments and errors as of `run`.
    """
    from minibox.engine.detached import Detached

    launch = _new(options, root, runroot, storage_driver, on_note, pull)
    Detached(launch, new=True).start(on_trace)
    return launch.claim.id


def create(
    options: RunOptions,
    *,
    root: str,
    runroot: str,
    storage_driver: str = "",
    on_note: Note | None = None,
    pull: Pull | None = None,
) -> str:
    """Make a container that `start` can start; its id. Arguments and errors as of `run`."""
    from time import time

    from minibox.engine.launch import IdFile

    launch = _new(options, root, runroot, storage_driver, on_note, pull)
    keep = False
    try:
        launch.prepare((24, 80) if options.tty else None, new=True)
        with IdFile(options.cidfile, launch.claim.id):
            state.write(root, {**launch.record(), "Status": "created", "Created": time()}, durable=True)
        keep = True
    finally:
        launch.close(keep=keep)
    return launch.claim.id


def start(
    name_or_id: str, *, root: str, runroot: str, on_note: Note | None = None, claim: Claim | None = None
) -> tuple[str, bool]:
    """Start a container again that was created or has ended.

    Args:
        claim: of a caller that has it already.

    Returns:
        Its id, and whether it was started: False when it runs already.

    Raises:
        MiniboxError: it can't be; its state says so too.
    """
    from minibox.engine.detached import Detached

    if claim is None:
        removal.collect(root, runroot)
    found = state.find(root, name_or_id)
    container_id: str = found["Id"]
    launch = _again(found, root, runroot, on_note, claim)
    if launch is None:
        return container_id, False
    Detached(launch, new=False).start()
    return container_id, True


def _new(
    options: RunOptions,
    root: str,
    runroot: str,
    storage_driver: str,
    on_note: Note | None,
    pull: Pull | None,
) -> Launch:
    """Claim a new container."""
    if options.pull not in ("missing", "never", "always"):
        raise UsageError(f"unknown pull policy {options.pull!r}", "one of always, missing, never")
    store = ImageStore(root)
    image, claim = _claim_image(store, runroot, options, pull)
    return Launch(options, store, snapshotter(root, storage_driver), image, claim, runroot, on_note)


def _again(found: dict[str, Any], root: str, runroot: str, on_note: Note | None, claim: Claim | None) -> Launch | None:
    """Claim a container that is there; None when it runs already."""
    from minibox.engine.options import from_given

    container_id: str = found["Id"]
    if not isinstance(found.get("Options"), dict):
        raise ConfigError(f"container {container_id[:12]} can't be started: its state is {found['Status']}",
                          "minibox rm removes it")  # fmt: skip
    options = from_given(found["Options"])
    claim = claim or Claim.of(root, container_id, found["Name"], remove=options.rm)
    if claim is None:
        return None
    store = ImageStore(root)
    try:
        image = store.resolve(found["ImageDigest"])
        claim.note_image(options.image, image)
    except BaseException as error:
        claim.release()
        if isinstance(error, StoreError):
            error.hint = "its image was removed; minibox export saves what it wrote"
        raise
    return Launch(options, store, snapshotter_of(root, container_id), image, claim, runroot, on_note)


def _claim_image(
    store: ImageStore, runroot: str, options: RunOptions, pull: Pull | None
) -> tuple[ResolvedImage, Claim]:
    """The image, and a claim that has it on record: from then on nobody removes the image or its layers.

    First the record, then a look whether the store is still as it was: who removes changes the store first, and then
    looks for records (`engine.images`). So one of the two sees the other, and no lock is needed.
    """
    image = _find_image(store, options, pull)
    claim = _claim(store.root, runroot, options)
    try:
        claim.note_image(options.image, image)
        while not store.is_unchanged():
            image = store.resolve(options.image)
            claim.note_image(options.image, image)
    except BaseException:
        claim.release()
        raise
    return image, claim


def _find_image(store: ImageStore, options: RunOptions, pull: Pull | None) -> ResolvedImage:
    """The image in the store, pulled before if it has to be."""
    if options.pull != "always" and not options.platform:
        try:
            return store.resolve(options.image)
        except ImageNotFound:
            if options.pull == "never":
                raise
    from minibox.engine.registry import resolve_pulling

    return resolve_pulling(store, options, pull)


def _claim(root: str, runroot: str, options: RunOptions) -> Claim:
    """A claim; a name that belongs to a container whose owner was killed is free when that is collected."""
    try:
        return Claim.new(root, options.name, remove=options.rm)
    except NameTaken:
        if not removal.collect(root, runroot):
            raise
        return Claim.new(root, options.name, remove=options.rm)
