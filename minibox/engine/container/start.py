"""Create, run, start and restart containers."""

from __future__ import annotations

import os

from minibox.base.home import Home
from minibox.engine.container import collection
from minibox.engine.container.run import Run
from minibox.engine.process.streams import StandardDescriptors
from minibox.engine.state import containers, events
from minibox.engine.state.claim import Claim, read_owner
from minibox.errors import (
    ContainerNotFound,
    ContainerNotRunning,
    ImageNotFound,
    MiniboxError,
    NameTaken,
    UsageError,
    suppress,
)
from minibox.image.store import ImageStore
from minibox.storage.drivers import snapshotter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from minibox.engine.container.attach import Attachment
    from minibox.engine.container.run import Note, Trace
    from minibox.engine.spec.options import RunOptions
    from minibox.image.layout.image import ResolvedImage
    from minibox.image.reference import ImageName

    Pull = Callable[[ImageName, str], None]


def run(
    home: Home,
    options: RunOptions,
    *,
    storage_driver: str = "",
    on_trace: Trace | None = None,
    on_note: Note | None = None,
    pull: Pull | None = None,
) -> int:
    """Run a container in the foreground and wait for its end.

    Args:
        storage_driver: see `minibox.storage.drivers.snapshotter`.
        on_note: called with a line for the user: before the start, what the container has to do without; after the end,
            for example that it ran out of memory.
        on_trace: called with the plan's steps and their times, when the container has started or failed to start.
        pull: called with an image and a platform ("" for this machine's) to pull it; None uses
            `engine.resources.registry.pull`.

    Returns:
        The exit status: the command's own, or 128 + the number of the signal that ended it; 125 if the command
        succeeded but its output couldn't be written.

    Raises:
        CommandNotFound, CommandNotExecutable: the command is at fault.
        MiniboxError: it can't be run for another reason. Nothing is left behind.
    """
    from minibox.engine.container.foreground_run import run_in_foreground

    ends = StandardDescriptors()
    try:
        run = new_run(home, options, storage_driver, on_note, pull)
        if _needs_supervisor(run):
            return _run_attached(run, on_trace)
        try:
            return run_in_foreground(run, on_trace)
        finally:
            run.close()
    finally:
        ends.close()


def _needs_supervisor(run: Run) -> bool:
    options = run.options
    logged = options.log_driver == "json-file" or options.log_opt
    return bool((options.restart and options.restart.name != "no") or logged or run.health_check)


def _run_attached(run: Run, on_trace: Trace | None) -> int:
    """Like `run`, but with a supervisor, so that the container can run on without us.

    Returns:
        The exit status of its first end; 0 if the user has detached.
    """
    from minibox.engine.container.attach import Attachment
    from minibox.engine.container.background import start_in_background

    options = run.options
    try:
        attachment = Attachment(
            stdin=options.interactive, tty=options.tty, detach_keys=options.detach_keys, sig_proxy=options.sig_proxy
        )
    except BaseException:
        run.close()
        raise
    try:
        start_in_background(run, on_trace, attachment)
        return attachment.follow(run.home, run.claim.id, run.note)
    finally:
        attachment.close()


def run_detached(
    home: Home,
    options: RunOptions,
    *,
    storage_driver: str = "",
    on_trace: Trace | None = None,
    on_note: Note | None = None,
    pull: Pull | None = None,
) -> str:
    """Run a container in the background, under a supervisor. Return its id. Arguments and errors are those of `run`."""
    from minibox.engine.container.background import start_in_background

    run = new_run(home, options, storage_driver, on_note, pull)
    start_in_background(run, on_trace)
    return run.claim.id


def create(
    home: Home, options: RunOptions, *, storage_driver: str = "", on_note: Note | None = None, pull: Pull | None = None
) -> str:
    """Create a container without starting it; see `start`. Return its id. Arguments and errors are those of `run`."""
    run = new_run(home, options, storage_driver, on_note, pull)
    try:
        run.prepare((24, 80) if options.tty else None)
        run.write_id_file()
        containers.write(home.root, {**run.record(), "Status": "created", "Created": run.began}, durable=True)
        run.emit("create")
        run.keep = True
    finally:
        run.close()
    return run.claim.id


def start(home: Home, name_or_id: str, *, on_note: Note | None = None, attachment: Attachment | None = None) -> bool:
    """Start a container that was created or has ended.

    Args:
        attachment: connected before the container writes anything.

    Returns:
        Whether it was started; False if it runs already.

    Raises:
        MiniboxError: it can't be started. The error is also written to its state.
    """
    from minibox.engine.container.background import start_claimed
    from minibox.engine.container.lifecycle import stop_path

    claim = _claim_ended(home, name_or_id)
    if claim is None:
        return False
    with suppress(FileNotFoundError):
        os.unlink(stop_path(home.root, claim.id))
    start_claimed(home, claim, on_note=on_note, attachment=attachment, by_policy=False)
    return True


def start_attached(home: Home, name_or_id: str, *, stdin: bool, detach_keys: str, on_note: Note | None = None) -> int:
    """`start` and `attach.attach` in one, so that no output is lost in between. Return the exit status."""
    from minibox.engine.container.attach import attach, attachment_to

    container_id = containers.find_id(home.root, name_or_id)
    attachment = attachment_to(home.root, container_id, stdin=stdin, detach_keys=detach_keys, sig_proxy=True)
    try:
        if start(home, container_id, on_note=on_note, attachment=attachment):
            return attachment.follow(home, container_id, on_note)
    finally:
        attachment.close()
    return attach(home, container_id, stdin=stdin, detach_keys=detach_keys, on_note=on_note)


def restart(
    home: Home, name_or_id: str, *, timeout_s: float | None = None, signal_number: int = 0, on_note: Note | None = None
) -> None:
    """Stop a container and start it again. Arguments and errors are those of `lifecycle.stop` and `start`.

    Raises:
        UsageError: it would be removed at the stop.
    """
    from minibox.engine.container import lifecycle

    container_id = containers.find_id(home.root, name_or_id)
    if read_owner(home.root, container_id) and not containers.is_written(home.root, container_id):
        raise UsageError(f"container {name_or_id} runs with --rm in the foreground: a stop would remove it")
    lifecycle.stop(home, container_id, timeout_s=timeout_s, signal_number=signal_number, mark=lifecycle.RESTARTED)
    start(home, container_id, on_note=on_note)
    events.note_container(home.runroot, containers.read(home.root, container_id), "restart")


def run_in_ended(
    home: Home, name_or_id: str, changed: Callable[[RunOptions], RunOptions], *, on_note: Note | None = None
) -> int | None:
    """Run a command in the foreground on the files of a container that has ended. Its state stays as it is.

    Args:
        changed: changes the container's options for this run.

    Returns:
        The exit status, as in `run`; None if the container is running.

    Raises:
        MiniboxError: it can't be started.
    """
    from minibox.engine.container.foreground_run import run_in_foreground
    from minibox.engine.container.relaunch import run_again

    claim = _claim_ended(home, name_or_id)
    if claim is None:
        return None
    ends = StandardDescriptors()
    try:
        before = containers.read(home.root, claim.id)
        try:
            run = run_again(home, claim, on_note, changed)
        except BaseException:
            claim.release()
            raise
        try:
            return run_in_foreground(run)
        finally:
            containers.change(home.root, claim.id, lambda now: {**before, "Name": now["Name"]})
            run.close()
    finally:
        ends.close()


def _claim_ended(home: Home, name_or_id: str) -> Claim | None:
    """Claim a container that doesn't run; return None if it runs.

    Raises:
        ContainerNotFound: it was removed meanwhile.
        MiniboxError: it is paused, or another command is busy with it for too long.
    """
    from time import monotonic, sleep

    from minibox.engine.container.lifecycle import LETTING_GO_S, POLL_S, Process

    root, container_id = home.root, containers.find_id(home.root, name_or_id)
    collection.collect_one(home, container_id)
    deadline = monotonic() + LETTING_GO_S
    while (claim := Claim.of(root, container_id, "", remove=False)) is None:
        try:
            with Process(root, container_id, "start") as process:
                process.refuse_paused(name_or_id)
                return None
        except ContainerNotRunning:
            live = read_owner(root, container_id)
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


def new_run(
    home: Home,
    options: RunOptions,
    storage_driver: str,
    on_note: Note | None,
    pull: Pull | None,
    image: ResolvedImage | None = None,
) -> Run:
    """Claim a new container and make its run.

    Args:
        image: its image, which the caller must keep from being removed; None takes it from the options.
    """
    if options.pull not in ("missing", "never", "always"):
        raise UsageError(f"unknown pull policy {options.pull!r}", "use one of always, missing, never")
    if options.restart:
        from minibox.engine.container import restart_policy

        restart_policy.check(options)
    if options.network_alias:
        from minibox.engine.resources.container_network import check_aliases

        check_aliases(options.network_alias)
    if options.publish or options.publish_all:
        from minibox.engine.spec.ports import with_publish_address

        options = with_publish_address(options, os.environ)
    store = ImageStore(home.root)
    if image is None:
        image, claim = _claim_image(home, store, options, pull)
    else:
        claim = _claim_held(home, options, image)
    try:
        return Run(home, options, store, snapshotter(home.root, storage_driver), image, claim, on_note)
    except BaseException:
        claim.give_up()
        raise


def _claim_image(home: Home, store: ImageStore, options: RunOptions, pull: Pull | None) -> tuple[ResolvedImage, Claim]:
    """Find the image and claim a container that records it. From then on nobody removes the image or its layers.

    We write the record first and then check whether the store has changed. A command that removes images changes the
    store first and then looks for records (`engine.upkeep.images`). So one of the two sees the other, without a lock.
    """
    image = _find_image(store, options, pull)
    claim = _claim(home, options)
    try:
        claim.note_image(options.image, image)
        while not store.is_unchanged():
            image = store.resolve(options.image)
            claim.note_image(options.image, image)
    except BaseException:
        claim.give_up()
        raise
    return image, claim


def _claim_held(home: Home, options: RunOptions, image: ResolvedImage) -> Claim:
    """Claim a container whose image can't be removed meanwhile."""
    claim = _claim(home, options)
    try:
        claim.note_image(options.image, image)
    except BaseException:
        claim.give_up()
        raise
    return claim


def _find_image(store: ImageStore, options: RunOptions, pull: Pull | None) -> ResolvedImage:
    """Find the image in the store. Pull it if needed."""
    in_store = options.pull != "always" and not options.platform
    if in_store and (image := store.cached(options.image)):
        return image
    from minibox.image.reference import parse_name

    name, missing = parse_name(options.image), None
    if in_store:
        try:
            return store.find(name)
        except ImageNotFound as error:
            if options.pull == "never":
                raise
            missing = error
    from minibox.engine.resources.registry import resolve_pulling

    return resolve_pulling(store, name, options, pull, missing)


def _claim(home: Home, options: RunOptions) -> Claim:
    """Make a claim. If the name is taken, try again after collecting: its container may have lost its owner."""
    try:
        return Claim.new(home.root, options.name, remove=options.rm)
    except NameTaken:
        if not collection.collect(home):
            raise
        return Claim.new(home.root, options.name, remove=options.rm)
