"""One run of a container, from its claim to its end: start it, measure it, write down how it ended, undo the start."""

from __future__ import annotations

import os
from time import time

from minibox.base.files import make_file
from minibox.engine.container import collection
from minibox.engine.files import rootfs_setup
from minibox.engine.host import id_map_support, ids
from minibox.engine.process import steps
from minibox.engine.process.execution import Execution, Resources
from minibox.engine.process.undo import AT_ONCE, undo
from minibox.engine.process.undo_list import MORE, encode, read_more
from minibox.engine.process.usage import Measurement, measure, with_oom_end
from minibox.engine.resources import container_network
from minibox.engine.spec.compile import FILES, Identity, needs_user_namespace, prepare
from minibox.engine.spec.healthcheck import healthcheck, parse_healthcheck
from minibox.engine.spec.image_config import checked_config
from minibox.engine.state import containers, events, names
from minibox.engine.verdict.end_kinds import WALL_TIME
from minibox.errors import ExecFailed, MiniboxError, StepError, suppress, trying
from minibox.linux import launcher
from minibox.linux.process import SIGKILL
from minibox.plan import parent
from minibox.plan.namespaces import namespace_flags, on_host
from minibox.plan.parent import undo_list
from minibox.record import replace
from minibox.storage.snapshot import note_in_memory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from minibox.base.home import Home
    from minibox.engine.spec.compile import CompiledRun
    from minibox.engine.spec.options import RunOptions
    from minibox.engine.state.claim import Claim
    from minibox.image.layout.image import ResolvedImage
    from minibox.image.store import ImageStore
    from minibox.linux.supervisor import Supervisor
    from minibox.plan.operations import Op
    from minibox.storage.drivers import Snapshotter

    Trace = Callable[[list[dict[str, Any]]], None]
    Note = Callable[[str], None]
    Stop = Callable[[Execution, int], None]
    Later = Callable[[Callable[[], object]], None]


class Run:
    """One run. Always call `close` at the end, or `hand_over`.

    Attributes:
        config: its image's, from `checked_config`.
        health_check: its health check; None for none.
        prepared: the result of `prepare`.
        compile: the function that compiles it, from `engine.spec.compile` or, faster for many starts, from
            `engine.spec.plan_cache`.
        on_stop: for a plan that stops, as in `Resources`.
        execution: of its plan, once `execute` has been called.
        place: where its files are, for messages about its command.
        keep: keep the container's files after its end, for `commit` and `start`.
        kept: the members of its state that another start leaves as they are.
        began: when it began, in seconds since the epoch.
        measured: what it had used at the last call of `measure`.
        ended_for: the limit for which it was killed; see `cause.Facts`.
        is_interrupted: an exception, such as from a signal handler, interrupted the start. We can't know what it left,
            so `collection.collect` looks for it by name.
    """

    prepared: CompiledRun
    compile = staticmethod(prepare)
    on_stop: Stop | None = None
    place = "in the image"

    def __init__(
        self,
        home: Home,
        options: RunOptions,
        store: ImageStore,
        storage: Snapshotter,
        image: ResolvedImage,
        claim: Claim,
        on_note: Note | None,
        *,
        new: bool = True,
    ) -> None:
        """
        Args:
            new: it has no root file system yet.

        Raises:
            ConfigError, UsageError: the health check of the image or the options is invalid.
        """
        self.home, self.options, self.store, self.image, self.claim = home, options, store, image, claim
        self.storage = storage
        self._on_note, self.note = on_note, on_note or (lambda _: None)
        self.config = checked_config(image.config)
        self.health_check = parse_healthcheck({"Healthcheck": healthcheck(options, self.config)})
        self.execution: Execution | None = None
        self.new, self.keep, self._once = new, not new, False
        self.kept: tuple[str, ...] = ("Name", "Created", "Options")
        self.began = time()
        self.measured = Measurement()
        self.ended_for = ""
        self.crowded = self.is_interrupted = False
        self._layer_is_made, self._files_are_made = not new, False
        self._connection: container_network.Connection | None = None
        self._held: list[Op] = []  # operations that were done before there was a plan
        self._exec_context: dict[str, Any] = {}

    def prepare(
        self, terminal: tuple[int, int] | None = None, *, child: bool = False, late: bool = False, socket: str = ""
    ) -> None:
        """Make the files that it needs, and compile its plan.

        Args:
            terminal: rows and columns of its terminal; None for no terminal.
            child: its process will be a child of our launcher, so with --rm nothing needs to reach the disk.
            late: leave making its files to `execute`, which does it while the kernel makes the namespaces.
            socket: the path where its supervisor accepts clients; "" for none.
        """
        if child:
            self._once = self.options.rm
            with suppress(OSError):  # `execute` raises the error
                launcher.make_ready()  # it starts meanwhile
        rootfs_setup.unpack(self.storage, self.store, self.image)
        identity = self._identity(socket)
        if self.options.disk_bytes:  # the plan depends on the layer
            self._make_layer()
        self.prepared = self.compile(
            self._options_of_host(),
            self.config,
            self.storage,
            self.image.chain_ids,
            identity,
            terminal,
            once=self._once,
        )
        if not late or self.prepared.volumes:
            self.make_files()
            if self.prepared.volumes:
                from minibox.engine.resources.volume_claims import make_volumes

                layers = self.storage.describe(self.claim.id, self.image.chain_ids)
                make_volumes(self.home, self.claim.id, self.prepared.volumes, self.storage, layers)

    def make_files(self) -> None:
        """Make its root file system, and its /etc/hosts and the like, unless it is done."""
        self._make_layer()
        if not self._files_are_made:
            self._files_are_made = True
            self._write_files()
            self.exec_context()  # for `note_running`: here the kernel makes the namespaces meanwhile

    def _make_layer(self) -> None:
        if not self._layer_is_made:
            self._layer_is_made = True
            lacks = self._connection.lacks if self._connection else str
            rootfs_setup.prepare(self.storage, self.claim.id, self.image.chain_ids, lacks)
            if self.options.disk_bytes:
                note_in_memory(self.home.root, self.claim.id)

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
        self, streams: tuple[int, int, int], on_trace: Trace | None = None, supervisor: Supervisor | None = None
    ) -> Execution:
        """Execute the plan. Then the command runs; call `note_running`.

        Args:
            streams: descriptors of its standard input, output and error.
            supervisor: makes its first process, if it must outlive this process.

        Raises:
            CommandNotFound, CommandNotExecutable: the command is at fault. A new container is kept, as in Docker.
            StepError: a step failed.
        """
        prepared = self.prepared
        resources = Resources(
            streams=streams,
            container_id=self.claim.id,
            home=self.home,
            group=prepared.group if prepared.group.directories else None,
            supervisor=supervisor,
            make_files=self.make_files,
            on_stop=self.on_stop,
        )
        self.execution = execution = Execution(prepared.plan, resources)
        self.claim.note_undo(encode(execution.undo_list))
        self.write_id_file()
        try:
            steps.run(execution)
        except ExecFailed as failed:
            from minibox.engine.process.diagnosis import diagnose_exec

            error = diagnose_exec(failed, prepared.spec["process"], self.place)
            if self.new and not self.options.rm:
                self.keep = True
                self.write_state(Status="created", ExitCode=error.status, Error=str(error), Hint=error.hint)
                self.emit("create")
            raise error from None
        except StepError:
            if self.options.cidfile:
                os.unlink(self.options.cidfile)
            raise
        finally:
            if on_trace:
                from minibox.plan.explain import trace_rows

                on_trace(trace_rows(steps.trace(execution), execution.failed))
        if execution.disk_fd >= 0:
            note_in_memory(self.home.root, self.claim.id, execution.disk_fd)
        return execution

    def note_running(self, supervisor: int = 0) -> None:
        """Write down that it runs, before anybody can see its output.

        Args:
            supervisor: the pid of its supervisor, if it has one.
        """
        execution = self.execution
        assert execution and execution.init
        pid = execution.init.pid
        self.claim.note_process(pid, self.prepared.spec["process"]["args"], self.exec_context(), supervisor)
        self.keep = self.keep or not self.options.rm
        if supervisor:
            self.write_state(Status="running", Pid=pid, Supervised=True)
        else:
            collection.collect_some(self.home)
            if self.keep:
                self.write_state(durable=False, Status="running", Pid=pid)
        self.emit(*(("create", "start") if self.new else ("start",)))

    def keep_files(self) -> None:
        """Keep its files after its end."""
        if not self.keep and self.execution and self.execution.init:
            self.keep = True
            options: RunOptions = replace(self.options, rm=False)
            self.options = options  # its next start must keep them, too
            self.write_state(durable=False, Status="running", Pid=self.execution.init.pid)

    def exec_context(self) -> dict[str, Any]:
        """What `engine.container.exec` needs to start another process like the first, as JSON."""
        if self._exec_context:
            return self._exec_context
        spec, start = self.prepared.spec, self.prepared.start
        self._exec_context = {
            "Process": {key: value for key, value in spec["process"].items() if key != "args"},
            "Namespaces": namespace_flags(spec),
            "Seccomp": start.seccomp.hex(),
            "SeccompFlags": start.seccomp_flags,
            "DeniesKeys": start.denies_keys,
            "SetGroups": start.setgroups,
        }
        return self._exec_context

    def write_state(self, *, durable: bool = True, **fields: object) -> None:
        """Write its state.json with these members beside those of `record`."""
        fresh = {**self.record(), "Created": self.began, "Started": self.began, **fields}
        if self.new:
            containers.write(self.home.root, fresh, durable=durable)
            return

        def changed(found: dict[str, Any]) -> dict[str, Any]:
            return {**fresh, **{key: found[key] for key in self.kept if key in found}}

        containers.change(self.home.root, self.claim.id, changed, durable=durable)

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

    def write_id_file(self) -> None:
        """Write the file of ``--cidfile``; see `id_file.write`."""
        if self.options.cidfile:
            from minibox.engine.container import id_file

            id_file.write(self.options.cidfile, self.claim.id)

    def emit(self, *actions: str, **more: str) -> None:
        """Write events of this container; see `events.note`."""
        events.note_container(self.home.runroot, self._actor(), *actions, **more)

    def _actor(self) -> dict[str, Any]:
        """As much of its state as its events need; with --rm it has no other."""
        from minibox.engine.spec.runtime_spec import labels

        named = {"Labels": labels(self.options, self.config)}
        return {"Id": self.claim.id, "Name": self.claim.name, "Image": self.options.image, "Config": named}

    # ---- its end ----------------------------------------------------------------------------------

    def measure(self, *, thoroughly: bool = False, ended: bool = False) -> None:
        """Measure what it has used, while its cgroup exists; see `usage.measure`.

        Args:
            ended: its first process has ended.
        """
        if self.execution:
            thoroughly = thoroughly or bool(self.options.pids_limit)
            self.measured = measure(self.execution, thoroughly=thoroughly)
            if ended and self.execution.init and self.measured.oom_kills:
                options, ran_s = {"init": self.options.init}, time() - self.began
                self.measured = with_oom_end(self.measured, self.execution.init.pid, ran_s, options)

    @property
    def oom_killed(self) -> bool:
        """Did the kernel kill one of its processes because memory ran out?"""
        return self.measured.oom_kills > 0

    def kill(self, limit: str) -> None:
        """Kill it because it has reached a limit. If this is called twice, the first limit counts."""
        execution = self.execution
        if execution and execution.init:
            if not self.ended_for:
                from minibox.linux.cgroup.usage_meter import tally

                self.crowded = execution.cgroup is not None and tally(execution.cgroup).crowded
                self.ended_for = limit
            execution.init.send_signal(SIGKILL)

    def note_end(self, code: int, status: int, *, relayed: int, forwarded: Sequence[int] = ()) -> None:
        """Write down how it ended. Call `measure` before.

        Args:
            code: of its first process, as returned by `Child.wait`.
            relayed: see `LaunchedChild.relayed`.
            status: the exit status to write down.
        """
        self.claim.note_ended(status)
        how = {
            **self.measured.record(),
            "ExitCode": status,
            "Signal": max(0, -code),
            "Relayed": relayed,
            "EndedFor": self.ended_for,
            "Crowded": self.crowded,
            "TimedOut": self.ended_for == WALL_TIME,
            "Forwarded": list(forwarded),
            "Finished": time(),
        }
        containers.note_end(self.home, self._actor(), how, *(() if self.keep else ("destroy",)), kept=self.keep)

    def hand_over(self) -> None:
        """Let go of the container without ending it: its supervisor owns it now."""
        if self.execution:
            self.execution.release()
            self.execution = None
        self.claim.hand_over()

    def after_fork(self) -> None:
        """Let go of the container in the child after a fork, so that the child doesn't hold its lock and ports."""
        self.claim.hand_over()
        if self.execution:
            self.execution.close_held()

    def close(self, later: Later | None = None) -> None:
        """End the container, undo its start, and remove its files unless ``keep`` is set.

        If a part fails, do the rest and leave the claim to `collection.collect`.

        Args:
            later: called with a function that removes its cgroup and its files, to run it later; that raises nothing
                here. The first process must have ended.
        """
        if self.keep and self._once:
            self.end_processes()
            rootfs_setup.make_lasting(self.home.root, self.claim.id)
        at_once = undo(step for step in self._undo_list() if step.name in AT_ONCE) if later else None

        def finish() -> None:
            undone = self._undo()
            removed = self._remove_files()
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
            mappings = self.map_ids()
            if mappings.lease:
                if self.options.large_ids:
                    mappings = ids.with_large_ids(mappings)
                self._held.append(parent.hold_ids(mappings.lease, self.claim.id))
        elif refused:
            self._warn(
                f"no user namespace, root inside is root outside: {refused[0]} in {self.home.root}; see minibox doctor"
            )
        network = container_network.choose(self.options, euid, self.home.root, "" if self.new else self.claim.directory)
        wanted, discarded = container_network.ports_to_publish(self.options, self.config, network)
        for note in (network.note, discarded):
            if note:
                self.note(note)
        self._connection = connection = container_network.Connection(network, self.home.runroot, self.claim.id, wanted)
        self._held += connection.held
        own = connection.steps(self.claim.directory, self._held, socket)
        return Identity(self.claim.id, self.claim.directory, mappings, network.mode, own)

    def _options_of_host(self) -> RunOptions:
        """The options without limits that this host doesn't have; says so."""
        options = self.options
        if options.needs_v1:
            from minibox.engine.spec.v1_limits import supported

            options, warnings = supported(options)
            for each in warnings:
                self.note(each)
        return options

    def map_ids(self) -> ids.IdMappings:
        """Return the ids of its user namespace."""
        if os.geteuid():
            mappings = ids.own_ids()
            if note := ids.note(mappings):
                self.note(note)
            return mappings
        return ids.lease_range(self.home.root, self.claim.id)

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
        texts = self._connection.texts(self.prepared.spec.get("hostname") or os.uname().nodename, self.options)
        for path, file in FILES.items():
            place = f"{self.claim.directory}/{file}"
            with trying(MiniboxError, f"write {place}"):
                make_file(place, texts[path].encode(), mode=0o644)  # an earlier start may have left one
        self._connection.announce((self.claim.name, self.options.hostname, self.claim.id[:12]))

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

    def _remove_files(self) -> Exception | None:
        """Remove its files unless ``keep`` is set. Return why that failed."""
        try:
            if not self.keep:
                # A container without a name may have been given one since.
                named = self.options.name or containers.is_written(self.home.root, self.claim.id)
                rootfs_setup.remove(self.home.root, self.claim.id, self.storage)
                if named:
                    names.drop(self.home.root, self.claim.id, "")
        except (MiniboxError, OSError) as error:
            return error
        return None
