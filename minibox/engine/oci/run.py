"""`run`: make and run a container, in the foreground or detached."""

from __future__ import annotations

import os

from minibox.engine.oci import life
from minibox.engine.oci.create import CreateOptions, Creation, create
from minibox.engine.process.signals import SignalForwarder, block
from minibox.errors import HookFailed, MiniboxError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.engine.process.streams import Streams
    from minibox.engine.process.terminal import Terminal


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
    return _Foreground(container_id, options).run(keep=keep)


class _Foreground:
    """A container that we wait for."""

    def __init__(self, container_id: str, options: CreateOptions) -> None:
        self._options = options
        self._creation = Creation(container_id, options, gated=False)
        self._terminal: Terminal | None = None
        self._streams: Streams | None = None

    def run(self, *, keep: bool) -> int:
        """Run it and return its exit status."""
        try:
            with SignalForwarder() as forwarding:
                with self._creation as creation:
                    creation.execute(self._open_terminal())
                    creation.leave()
                try:
                    status = self._wait(forwarding)
                except HookFailed:
                    self._delete()
                    raise
        finally:
            if self._streams:
                self._streams.close()
            if self._terminal:
                self._terminal.restore()
        if not keep:
            self._delete()
        return status

    def _delete(self) -> None:
        container = self._creation.container
        life.end(container)
        container.lock()
        life.destroy(container, self._options.note)

    def _open_terminal(self) -> tuple[int, int]:
        if not self._creation.terminal:
            return 0, 0
        from minibox.engine.process.streams import Streams
        from minibox.engine.process.terminal import Terminal

        self._terminal = Terminal(os.isatty(0))
        self._streams = Streams(interactive=True, tty=True, owner=(os.geteuid(), os.getegid()))
        return self._terminal.size()

    def _pass_on_readiness(self) -> None:
        """Pass on the readiness message in a thread, while we wait for the end."""
        ready = self._creation.ready
        assert ready
        if not ready.is_awaited:
            return
        from _thread import start_new_thread

        def wait() -> None:
            block()
            try:
                ready.wait()
            except MiniboxError as error:
                self._options.note(str(error))

        start_new_thread(wait, ())

    def _wait(self, forwarding: SignalForwarder) -> int:
        execution = self._creation.execution
        assert execution
        init = execution.launched
        init.let_go()  # it survives this process if that is killed, as under runc
        try:
            if self._terminal and self._streams:
                self._terminal.enter_raw()
                self._streams.begin(execution.pty_master)
            self._pass_on_readiness()
            life.started(self._creation.container)
            forwarding.wait(init.pidfd, init.send_signal, self._terminal, execution.pty_master)
            code = init.wait()
            if self._streams:
                self._streams.finish()
            return code if code >= 0 else 128 - code
        finally:
            execution.close()
