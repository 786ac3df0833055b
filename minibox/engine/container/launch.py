"""Start a container, from its claim to the moment when its command runs, and undo the start at its end."""

from __future__ import annotations

import os

from minibox.base.files import replace_file
from minibox.engine.files import rootfs_setup
from minibox.engine.host import id_map_support, ids
from minibox.engine.process import steps
from minibox.engine.process.execution import ExecFailed, Execution, Resources
from minibox.engine.process.undo import AT_ONCE, undo
from minibox.engine.process.undo_list import MORE, encode, read_more
from minibox.engine.resources import container_network
from minibox.engine.spec.compile import FILES, Identity, IdentitySteps, needs_user_namespace, prepare
from minibox.engine.spec.healthcheck import healthcheck, parse_healthcheck
from minibox.engine.spec.image_config import checked_config
from minibox.engine.state import containers, events, names
from minibox.errors import MiniboxError, StepError, UsageError, kernel_says, trying
from minibox.plan import parent
from minibox.plan.namespaces import namespace_flags, on_host
from minibox.plan.parent import undo_list
from minibox.storage.snapshot import note_in_memory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from minibox.base.home import Home
    from minibox.engine.spec.compile import CompiledRun
    from minibox.engine.spec.mount_options import Volume
    from minibox.engine.spec.options import RunOptions
    from minibox.engine.state.claim import Claim
    from minibox.image.layout.image import ResolvedImage
    from minibox.image.store import ImageStore
    from minibox.linux.supervisor import Supervisor
    from minibox.oci.runtime import Spec
    from minibox.plan.operations import Op
    from minibox.plan.start import Start
    from minibox.storage.drivers import Snapshotter

    Trace = Callable[[list[dict[str, Any]]], None]
    Note = Callable[[str], None]
    Later = Callable[[Callable[[], object]], None]


class Launch:
    """One start of a container.

    Attributes:
        config: its image's, from `checked_config`.
        health_check: its health check; None for none.
        prepared: the result of `prepare`.
        compile: the function that compiles it, from `engine.spec.compile` or, faster for many starts, from
            `engine.spec.plan_cache`.
        execution: of its plan, once `execute` has been called.
        is_interrupted: an exception, such as from a signal handler, interrupted the start. We can't know what it left,
            so `removal.collect` looks for it by name.
    """

    prepared: CompiledRun
    compile = staticmethod(prepare)

    def __init__(
        self,
        home: Home,
        options: RunOptions,
        store: ImageStore,
        storage: Snapshotter,
        image: ResolvedImage,
        claim: Claim,
        on_note: Note | None,
    ) -> None:
        """
        Raises:
            ConfigError, UsageError: the health check of the image or the options is invalid.
        """
        self.home, self.options, self.store, self.image, self.claim = home, options, store, image, claim
        self.storage = storage
        self._on_note, self.note = on_note, on_note or (lambda _: None)
        self.config = checked_config(image.config)
        self.health_check = parse_healthcheck({"Healthcheck": healthcheck(options, self.config)})
        self.execution: Execution | None = None
        self.is_interrupted = False
        self._missing: list[Callable[[], None]] = []
        self._connection: container_network.Connection | None = None
        self._held: list[Op] = []  # operations that were done before there was a plan

    def prepare(
        self, terminal: tuple[int, int] | None, *, new: bool, once: bool = False, late: bool = False, socket: str = ""
    ) -> None:
        """Make the files that it needs, and compile its plan.

        Args:
            socket: the path where its supervisor accepts clients; "" for none.
            terminal: rows and columns of its terminal; None for no terminal.
            new: make its root file system; otherwise it exists from an earlier start.
            once: it will never be started again, so nothing needs to reach the disk.
            late: leave making its files to `execute`, which does it while the kernel makes the namespaces.
        """
        rootfs_setup.unpack(self.storage, self.store, self.image)
        identity = self._identity(socket)
        self._missing = [self._make_snapshot] if new else []
        if self.options.disk_bytes:  # the plan depends on the layer
            self._make_missing()
        self.prepared = self.compile(
            self.options, self.config, self.storage, self.image.chain_ids, identity, terminal, once=once
        )
        self._missing.append(self._write_files)
        if not late or self.prepared.volumes:
            self._make_missing()
            self._make_volumes()

    def _make_snapshot(self) -> None:
        rootfs_setup.prepare(self.storage, self.claim.id, self.image.chain_ids)
        if self.options.disk_bytes:
            note_in_memory(self.home.root, self.claim.id)

    def _make_missing(self) -> None:
        """Make the files that `prepare` has left for later."""
        while self._missing:
            self._missing.pop(0)()

    @property
    def owner(self) -> tuple[int, int]:
        """The uid and gid on the host of the container's process."""
        user, linux = self.prepared.spec["process"]["user"], self.prepared.spec["linux"]
        return (
            on_host(user["uid"], linux.get("uidMappings", ())),
            on_host(user["gid"], linux.get("gidMappings", ())),
        )

    @property
    def address(self) -> str | None:
        """The container's IPv4 address on its first network; None if it has none."""
        return self._connection.address if self._connection else None

    def execute(
        self,
        streams: tuple[int, int, int],
        on_trace: Trace | None = None,
        supervisor: Supervisor | None = None,
    ) -> Execution:
        """Execute the plan. Then the command runs.

        Args:
            streams: descriptors of its standard input, output and error.
            supervisor: makes its first process, if it must outlive this process.

        Raises:
            CommandNotFound, CommandNotExecutable: the command is at fault.
            StepError: a step failed.
        """
        prepared = self.prepared
        self.execution = execution = Execution(
            prepared.plan,
            Resources(
                streams=streams,
                container_id=self.claim.id,
                home=self.home,
                group=prepared.group if prepared.group.directories else None,
                supervisor=supervisor,
                make_files=self._make_missing,
            ),
        )
        self.claim.note_undo(encode(execution.undo_list))
        try:
            steps.run(execution)
        except ExecFailed as error:
            raise error.diagnosed(self.prepared.spec["process"]) from None
        finally:
            if on_trace:
                from minibox.plan.explain import trace_rows

                on_trace(trace_rows(steps.trace(execution), execution.failed))
        if execution.disk_fd >= 0:
            note_in_memory(self.home.root, self.claim.id, execution.disk_fd)
        return execution

    def exec_context(self) -> dict[str, Any]:
        """What `engine.container.exec` needs to start another process like the first, as JSON."""
        return exec_context(self.prepared.spec, self.prepared.start)

    def record(self) -> dict[str, Any]:
        """The members of its state.json, except its status; see `containers.write`."""
        from minibox.engine.spec.options import given
        from minibox.engine.spec.runtime_spec import labels
        from minibox.engine.state.container_config import container_config, mounts_of

        spec = self.prepared.spec
        named = labels(self.options, self.config)
        anonymous = [volume.destination for volume in self.prepared.volumes if volume.anonymous]
        return {
            "Id": self.claim.id,
            "Name": self.claim.name,
            "Image": self.options.image,
            "ImageDigest": self.image.digest,
            "ImageId": self.image.config_digest,
            "Driver": self.storage.driver,
            "Command": spec["process"]["args"],
            "Labels": spec.get("annotations", {}),
            "Config": container_config(self.options, self.config, spec["process"]["env"], named, anonymous),
            "ReadOnly": self.options.read_only,
            "Mounts": mounts_of(spec["mounts"], self.claim.directory),
            "Options": given(self.options),
        }

    def emit(self, *actions: str, **more: str) -> None:
        """Write events of this container; see `events.note`."""
        from minibox.engine.spec.runtime_spec import labels

        attributes = labels(self.options, self.config)
        attributes |= {"image": self.options.image, "name": self.claim.name, **more}
        events.note(self.home.runroot, events.CONTAINER, self.claim.id, attributes, *actions)

    def release(self) -> None:
        """Let go of the container without ending it: another process owns it now."""
        if self.execution:
            self.execution.release()
            self.execution = None

    def after_fork(self) -> None:
        """Let go of the container in the child after a fork, so that the child doesn't hold its lock and ports."""
        self.claim.hand_over()
        if self.execution:
            self.execution.close_held()

    def close(self, *, keep: bool, later: Later | None = None) -> None:
        """End the container and undo its start. If a part fails, do the rest and leave the claim to `removal.collect`.

        Args:
            keep: keep its files for `commit` and `start`.
            later: called with a function that removes its cgroup and its files, to run it later; that raises nothing
                here. The first process must have ended.
        """
        at_once = undo(step for step in self._undo_list() if step.name in AT_ONCE) if later else None

        def finish() -> None:
            undone = self._undo()
            removed = _tried(lambda: self._remove_files(keep))
            failure = at_once or undone or removed
            self.claim.release(finished=failure is None and not self.is_interrupted)
            if failure:
                raise failure

        if later and not at_once:
            later(finish)
        else:
            finish()

    # ---- before ---------------------------------------------------------------------------------

    def _identity(self, socket: str) -> Identity:
        euid = os.geteuid()
        mappings, refused = None, list[str]()

        def refusal() -> str:
            refused[:] = [id_map_support.refusal(self.home.root, self.storage.driver)]
            return refused[0]

        if needs_user_namespace(self.options, euid, refusal):
            mappings = ids.own_ids() if euid else ids.lease_range(self.home.root, self.claim.id)
            if mappings.lease:
                self._held.append(parent.hold_ids(mappings.lease, self.claim.id))
        elif refused:
            self._warn(
                f"no user namespace, root inside is root outside: {refused[0]} in {self.home.root}; see minibox doctor"
            )
        network = container_network.choose(self.options, euid, self.home.root, self.claim.directory)
        wanted, discarded = container_network.ports_to_publish(self.options, self.config, network)
        for note in (ids.note(mappings) if mappings and euid else "", network.note, discarded):
            if note:
                self.note(note)
        self._connection = connection = container_network.Connection(network, self.home.runroot, self.claim.id, wanted)
        self._held += connection.held
        own = IdentitySteps(
            tuple(self._held),
            (*connection.reserved, *((parent.listen(socket),) if socket else ())),
            tuple(connection.wiring),
            tuple(connection.published(self.claim.directory)),
        )
        return Identity(self.claim.id, self.claim.directory, mappings, network.mode, own)

    def _warn(self, text: str) -> None:
        """Warn that its isolation is weaker than by default."""
        if self._on_note:
            self._on_note(text)
        else:
            from warnings import warn

            from minibox.errors import IsolationWarning

            warn(text, IsolationWarning, stacklevel=2)

    def _write_files(self) -> None:
        """Write the container's /etc/hosts, /etc/hostname and /etc/resolv.conf."""
        assert self._connection
        texts = self._connection.texts(self.prepared.spec["hostname"], self.options)
        for path, file in FILES.items():
            place = f"{self.claim.directory}/{file}"
            with trying(MiniboxError, f"write {place}"):
                replace_file(place, texts[path].encode(), mode=0o644)  # an earlier start may have left one
        names = (self.claim.name, self.options.hostname, self.claim.id[:12])
        self._connection.announce(f"{self.claim.directory}/{FILES['/etc/hosts']}", names)

    def _make_volumes(self) -> None:
        """Make the volumes that don't exist yet, with the image's content."""
        if self.prepared.volumes:
            from minibox.engine.resources.volume_claims import provide

            provide(self.prepared.volumes, self.home.root, self.claim.id, self._make_volume)

    def _make_volume(self, volume: Volume) -> None:
        from functools import partial

        from minibox.engine.files.volume_content import make_volume, opened
        from minibox.engine.host.user_namespace import run_inside

        with opened(self.storage, self.storage.describe(self.claim.id, self.image.chain_ids)) as directories:
            layers = directories if volume.copy else ()
            new = not os.path.isdir(volume.path)
            run_inside(partial(make_volume, volume.path, layers, volume.destination, durable=not volume.anonymous))
            if new and not volume.anonymous:
                events.note_volume(self.home.runroot, volume.name, "create")

    # ---- after ----------------------------------------------------------------------------------

    def end_processes(self) -> None:
        """Kill the processes that still run in it. You can call it twice."""
        if self.execution:
            self.execution.close()

    def _undo_list(self) -> tuple[Op, ...]:
        return self.execution.undo_list if self.execution else undo_list(self._held)

    def _undo(self) -> Exception | None:
        """Kill its processes and undo its start. Return the first failure."""
        if not self.execution or not self.execution.done:
            return undo(undo_list(self._held))
        failure = steps.unwind(self.execution)
        more = read_more(self.claim.directory) if os.path.exists(f"{self.claim.directory}/{MORE}") else ()
        return failure or undo(more)

    def _remove_files(self, keep: bool) -> None:
        if not keep:
            # A container without a name may have been given one since.
            named = self.options.name or containers.is_written(self.home.root, self.claim.id)
            rootfs_setup.remove(self.home.root, self.claim.id, self.storage)
            if named:
                names.drop(self.home.root, self.claim.id, "")


def _tried(*steps: Callable[[], object]) -> Exception | None:
    """Call all the functions, even if some fail. Return the first failure."""
    failure: Exception | None = None
    for step in steps:
        try:
            step()
        except (MiniboxError, OSError) as error:
            failure = failure or error
    return failure


def exec_context(spec: Spec, start: Start) -> dict[str, Any]:
    """See `Launch.exec_context`; `engine.container.exec` reads it."""
    process = {key: value for key, value in spec["process"].items() if key != "args"}
    return {
        "Process": process,
        "Namespaces": namespace_flags(spec),
        "Seccomp": start.seccomp.hex(),
        "SeccompFlags": start.seccomp_flags,
        "DeniesKeys": start.denies_keys,
        "SetGroups": start.setgroups,
    }


class IdFile:
    """The file of ``--cidfile``. It is removed if the container couldn't be started."""

    def __init__(self, path: str, container_id: str) -> None:
        """Write the file.

        Raises:
            UsageError: it exists, or can't be written.
        """
        self.path = path
        if not path:
            return
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            raise UsageError(f"container ID file {path} exists", "remove it, or choose another name") from None
        except OSError as error:
            raise UsageError(f"write container ID file {path}: {kernel_says(error)}") from error
        os.write(fd, container_id.encode())
        os.close(fd)

    def __enter__(self) -> IdFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self.path and isinstance(error, StepError):
            os.unlink(self.path)
