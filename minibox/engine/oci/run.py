"""`run`: make and run a container, in the foreground or detached."""

from __future__ import annotations

import os

from minibox.engine.oci import life
from minibox.engine.oci.create import CreateOptions, Creation, create
from minibox.engine.process.foreground import Foreground
from minibox.engine.process.signals import block
from minibox.errors import HookFailed, MiniboxError
from minibox.linux.process import status_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.engine.oci.life import Note
    from minibox.engine.oci.state import Container


def run(container_id: str, options: CreateOptions, *, keep: bool, subreaper: bool) -> int:
    """Make a container and run it; return its exit status, or 0 if it is left running.

    Args:
        keep: don't delete it when it has ended.
        subreaper: adopt processes of the container that lose their parent.

    Raises: as `create.create`.
    """
    if options.detach:
        # Use the gate, as create and start do: otherwise we could miss the message that it is ready.
        create(container_id, options)
        try:
            life.start(options.root, container_id)
        except BaseException:
            life.delete(options.root, container_id, force=True, note=options.note)
            raise
        return 0
    if subreaper:
        from minibox.linux.process import become_subreaper

        become_subreaper()
    return _run_in_foreground(container_id, options, keep=keep)


def _run_in_foreground(container_id: str, options: CreateOptions, *, keep: bool) -> int:
    creation = Creation(container_id, options, gated=False)
    container, note = creation.container, options.note
    with Foreground(tty=creation.terminal, interactive=True, raw=os.isatty(0)) as foreground, foreground.signals:
        with creation:
            creation.execute(foreground.size or (0, 0))
            creation.leave()
        assert creation.execution
        try:
            with creation.execution as execution:
                execution.launched.let_go()  # it survives this process if that is killed, as under runc
                foreground.begin(execution)
                _pass_on_readiness(creation, note)
                life.started(container)
                status = status_of(foreground.follow(execution))
        except HookFailed:
            _delete(container, note)
            raise
    if not keep:
        _delete(container, note)
    return status


def _delete(container: Container, note: Note) -> None:
    life.end(container)
    container.lock()
    life.destroy(container, note)


def _pass_on_readiness(creation: Creation, note: Note) -> None:
    """Pass on the readiness message in a thread, while we wait for the end."""
    ready = creation.ready
    assert ready
    if not ready.is_awaited:
        return
    from _thread import start_new_thread

    def wait() -> None:
        block()
        try:
            ready.wait()
        except MiniboxError as error:
            note(str(error))

    start_new_thread(wait, ())
