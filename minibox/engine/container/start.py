"""Containers: made, run, started again."""

from __future__ import annotations

import os

from minibox.engine.container import removal
from minibox.engine.container.launch import Launch
from minibox.engine.process.streams import ClosedEnds
from minibox.engine.state import containers, events
from minibox.engine.state.claim import Claim, owned
from minibox.errors import (
    ContainerNotFound,
    ContainerNotRunning,
    ImageNotFound,
    MiniboxError,
    NameTaken,
    UsageError,
)
from minibox.image.store import ImageStore
from minibox.storage.drivers import snapshotter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from minibox.engine.container.attach import Attachment
    from minibox.engine.container.launch import Note, Trace
    from minibox.engine.spec.options import RunOptions
    from minibox.image.layout.image import ResolvedImage

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
        storage_driver: see `minibox.storage.drivers.snapshotter`.
        on_note: called with a line that the user should know of: what the container has to do
            without, before it starts; that it ran out of memory, after it has ended.
        on_trace: called with the plan's steps and their times when the container has ended or
            could not be started.
        pull: pulls an image, of a platform or of this machine's for "", in the caller's way;
            None for `engine.resources.registry.pull`.

    Returns:
        The exit status: the command's own, or 128 + the number of the signal that ended it; 125 for a
        command that succeeded and whose output could not be written.

    Raises:
        CommandNotFound, CommandNotExecutable: the command is at fault.
        MiniboxError: everything else; nothing is left behind.
    """
    from minibox.engine.container.foreground import Foreground

    ends = ClosedEnds()
    try:
        launch = new_launch(options, root, runroot, storage_driver, on_note, pull)
        if _needs_supervisor(launch):
            return _run_attached(launch, on_trace)
        container = Foreground(launch)
        try:
            return container.run(on_trace)
        except (MiniboxError, OSError):
            raise
        except BaseException:
            launch.is_interrupted = True
            raise
        finally:
            container.close()
    finally:
        ends.close()


def _needs_supervisor(launch: Launch) -> bool:
    options = launch.options
    logged = options.log_driver == "json-file" or options.log_opt
    return bool(options.restart not in ("", "no") or logged or launch.health_check)


def _run_attached(launch: Launch, on_trace: Trace | None) -> int:
    """As `run`, with a supervisor, so that it may go on without us.

    Returns:
        The exit status, of its first end; 0 when the user has detached.
    """
    from minibox.engine.container.attach import Attachment
    from minibox.engine.container.background import Detached, check_life

    options = launch.options
    try:
        check_life(options)
        attachment = Attachment(
            stdin=options.interactive, tty=options.tty, detach_keys=options.detach_keys, sig_proxy=options.sig_proxy
        )
    except BaseException:
        launch.close(keep=False)
        raise
    try:
        Detached(launch, new=True, attachment=attachment).start(on_trace)
        return attachment.follow(launch.root, launch.runroot, launch.claim.id, launch.note)
    finally:
        attachment.close()


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
    from minibox.engine.container.background import Detached, check_life

    check_life(options)
    launch = new_launch(options, root, runroot, storage_driver, on_note, pull)
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

    from minibox.engine.container.background import check_life
    from minibox.engine.container.launch import IdFile

    check_life(options)
    launch = new_launch(options, root, runroot, storage_driver, on_note, pull)
    keep = False
    try:
        launch.prepare((24, 80) if options.tty else None, new=True)
        with IdFile(options.cidfile, launch.claim.id):
            containers.write(root, {**launch.record(), "Status": "created", "Created": time()}, durable=True)
            launch.happened("create")
        keep = True
    finally:
        launch.close(keep=keep)
    return launch.claim.id


def start(
    name_or_id: str,
    *,
    root: str,
    runroot: str,
    on_note: Note | None = None,
    attachment: Attachment | None = None,
) -> bool:
    """Start a container again that was created or has ended.

    Args:
        attachment: is connected before the container writes anything.

    Returns:
        Whether it was started: False when it runs already.

    Raises:
        MiniboxError: it can't be; its state says so too.
    """
    from minibox.engine.container.background import start_claimed
    from minibox.engine.container.lifecycle import stop_path

    container_id = containers.find_id(root, name_or_id)
    removal.collect_one(root, runroot, container_id)
    claim = _claim_ended(root, name_or_id, container_id)
    if claim is None:
        return False
    try:
        os.unlink(stop_path(root, container_id))
    except FileNotFoundError:
        pass
    start_claimed(claim, root=root, runroot=runroot, on_note=on_note, attachment=attachment, by_policy=False)
    return True


def start_attached(
    name_or_id: str,
    *,
    root: str,
    runroot: str,
    stdin: bool,
    detach_keys: str,
    on_note: Note | None = None,
) -> int:
    """As `start`, and `engine.container.attach.attach`, without loss of what it writes in between; the exit status."""
    from minibox.engine.container.attach import attach, attachment_to

    container_id = containers.find_id(root, name_or_id)
    attachment = attachment_to(root, container_id, stdin=stdin, detach_keys=detach_keys, sig_proxy=True)
    try:
        if start(container_id, root=root, runroot=runroot, on_note=on_note, attachment=attachment):
            return attachment.follow(root, runroot, container_id, on_note)
    finally:
        attachment.close()
    return attach(container_id, root=root, runroot=runroot, stdin=stdin, detach_keys=detach_keys, on_note=on_note)


def restart(
    name_or_id: str,
    *,
    root: str,
    runroot: str,
    timeout_s: float | None = None,
    signal_number: int = 0,
    on_note: Note | None = None,
) -> None:
    """Stop a container, and start it again; arguments and errors as of `lifecycle.stop` and `start`.

    Raises:
        UsageError: it would be gone when it has stopped.
    """
    from minibox.engine.container import lifecycle

    container_id = containers.find_id(root, name_or_id)
    if owned(root, container_id) and not containers.is_written(root, container_id):
        raise UsageError(f"container {name_or_id} runs with --rm in the foreground: stopped, it is gone")
    lifecycle.stop(
        container_id,
        root=root,
        runroot=runroot,
        timeout_s=timeout_s,
        signal_number=signal_number,
        mark=lifecycle.RESTARTED,
    )
    start(container_id, root=root, runroot=runroot, on_note=on_note)
    events.note_container(runroot, containers.read(root, container_id), "restart")


def run_in_ended(
    name_or_id: str,
    changed: Callable[[RunOptions], RunOptions],
    *,
    root: str,
    runroot: str,
    on_note: Note | None = None,
) -> int | None:
    """Run something in the foreground on the files of a container that has ended; but for them it is then as it was.

    Args:
        changed: makes options of those that it was made with.

    Returns:
        The exit status, as of `run`; None when the container runs.

    Raises:
        MiniboxError: it can't be started.
    """
    from minibox.engine.container.foreground import Foreground
    from minibox.engine.container.relaunch import launch_again

    container_id = containers.find_id(root, name_or_id)
    removal.collect_one(root, runroot, container_id)
    claim = _claim_ended(root, name_or_id, container_id)
    if claim is None:
        return None
    ends = ClosedEnds()
    try:
        before = containers.read(root, container_id)
        try:
            launch = launch_again(claim, root, runroot, on_note, changed)
        except BaseException:
            claim.release()
            raise
        container = Foreground(launch, new=False)
        try:
            return container.run(None)
        finally:
            containers.change(root, container_id, lambda now: {**before, "Name": now["Name"]})
            container.close()
    finally:
        ends.close()


def _claim_ended(root: str, name_or_id: str, container_id: str) -> Claim | None:
    """Claim a container that doesn't run; None when it does.

    Raises:
        ContainerNotFound: it was removed meanwhile.
        MiniboxError: it is paused; or its owner is busy with it for too long.
    """
    from time import monotonic, sleep

    from minibox.engine.container.lifecycle import LETTING_GO_S, POLL_S, Process

    deadline = monotonic() + LETTING_GO_S
    while (claim := Claim.of(root, container_id, "", remove=False)) is None:
        try:
            with Process(root, container_id, "start") as process:
                if process.group.is_frozen():
                    raise MiniboxError(f"container {name_or_id} is paused", f"minibox unpause {name_or_id}")
                return None
        except ContainerNotRunning:
            live = owned(root, container_id)
        if live and live.supervisor > 0 and live.pid < 0:
            return None  # its restart policy is about to start it
        if monotonic() > deadline:
            raise MiniboxError(f"container {name_or_id} is being started or removed by another command")
        sleep(POLL_S)
    if not os.path.isdir(claim.directory):
        claim.release()
        raise ContainerNotFound(f"container {name_or_id!r} was removed by another command")
    claim.name = containers.read(root, container_id)["Name"]
    return claim


def new_launch(
    options: RunOptions,
    root: str,
    runroot: str,
    storage_driver: str,
    on_note: Note | None,
    pull: Pull | None,
    image: ResolvedImage | None = None,
) -> Launch:
    """Claim a new container.

    Args:
        image: what it is made of, which the caller sees to that nobody removes; None for what the options say.
    """
    if options.pull not in ("missing", "never", "always"):
        raise UsageError(f"unknown pull policy {options.pull!r}", "one of always, missing, never")
    if options.network_alias:
        from minibox.engine.resources.container_network import check_aliases

        check_aliases(options.network_alias)
    if options.publish or options.publish_all:
        from minibox.engine.spec.ports import with_address

        options = with_address(options, os.environ)
    store = ImageStore(root)
    if image is None:
        image, claim = _claim_image(store, runroot, options, pull)
    else:
        claim = _claim_held(root, runroot, options, image)
    try:
        return Launch(options, store, snapshotter(root, storage_driver), image, claim, runroot, on_note)
    except BaseException:
        claim.give_up()
        raise


def _claim_image(
    store: ImageStore, runroot: str, options: RunOptions, pull: Pull | None
) -> tuple[ResolvedImage, Claim]:
    """The image, and a claim that has it on record: from then on nobody removes the image or its layers.

    First the record, then a look whether the store is still as it was: who removes changes the store first, and then
    looks for records (`engine.upkeep.images`). So one of the two sees the other, and no lock is needed.
    """
    image = _find_image(store, options, pull)
    claim = _claim(store.root, runroot, options)
    try:
        claim.note_image(options.image, image)
        while not store.is_unchanged():
            image = store.resolve(options.image)
            claim.note_image(options.image, image)
    except BaseException:
        claim.give_up()
        raise
    return image, claim


def _claim_held(root: str, runroot: str, options: RunOptions, image: ResolvedImage) -> Claim:
    """A claim that has on record an image which nobody removes anyway."""
    claim = _claim(root, runroot, options)
    try:
        claim.note_image(options.image, image)
    except BaseException:
        claim.give_up()
        raise
    return claim


def _find_image(store: ImageStore, options: RunOptions, pull: Pull | None) -> ResolvedImage:
    """The image in the store, pulled before if it has to be."""
    if options.pull != "always" and not options.platform:
        try:
            return store.resolve(options.image)
        except ImageNotFound:
            if options.pull == "never":
                raise
    from minibox.engine.resources.registry import resolve_pulling

    return resolve_pulling(store, options, pull)


def _claim(root: str, runroot: str, options: RunOptions) -> Claim:
    """A claim; a name that belongs to a container whose owner was killed is free when that is collected."""
    try:
        return Claim.new(root, options.name, remove=options.rm)
    except NameTaken:
        if not removal.collect(root, runroot):
            raise
        return Claim.new(root, options.name, remove=options.rm)
