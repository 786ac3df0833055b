"""The life of a foreground container: claim, prepare, start, wait, remove."""

from __future__ import annotations

import os
from time import time

from minibox.engine import files, id_map_support, ids, networking, state
from minibox.engine.guard import Guard
from minibox.engine.prepare import FILES, INIT, Identity, prepare, wants_own_ids
from minibox.engine.signals import Forwarding
from minibox.engine.start import ExecFailed, Execution, Resources
from minibox.engine.streams import ClosedEnds, Streams
from minibox.errors import ImageNotFound, MiniboxError, NameTaken, StepError, UsageError, kernel_says
from minibox.image.store import ImageStore
from minibox.linux import cgroup
from minibox.network import lease
from minibox.storage import snapshotter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from minibox.engine.options import RunOptions
    from minibox.engine.prepare import Prepared
    from minibox.engine.terminal import Terminal
    from minibox.image.store import ResolvedImage
    from minibox.storage import Snapshotter

    Trace = Callable[[list[dict[str, Any]]], None]
    Note = Callable[[str], None]
    Pull = Callable[[str, str], None]

SIGKILL = 9


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
        storage_driver: one of `minibox.storage.DRIVERS`; "" for the default.
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
    if options.pull not in ("missing", "never", "always"):
        raise UsageError(f"unknown pull policy {options.pull!r}", "one of always, missing, never")
    ends = ClosedEnds()
    try:
        store = ImageStore(root)
        storage = snapshotter(root, storage_driver)
        image, claim = _claim_image(store, runroot, options, pull)
        container = Foreground(options, store, storage, image, claim, runroot, on_note)
        try:
            return container.run(on_trace)
        finally:
            container.close()
    finally:
        ends.close()


def _claim_image(
    store: ImageStore, runroot: str, options: RunOptions, pull: Pull | None
) -> tuple[ResolvedImage, state.Claim]:
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


def _claim(root: str, runroot: str, options: RunOptions) -> state.Claim:
    """A claim; a name that belongs to a container whose owner was killed is free when that is collected."""
    try:
        return state.Claim(root, options.name, remove=options.rm)
    except NameTaken:
        if not collect(root, runroot):
            raise
        return state.Claim(root, options.name, remove=options.rm)


class Foreground:
    """One foreground container, from its claim to its end."""

    def __init__(
        self,
        options: RunOptions,
        store: ImageStore,
        storage: Snapshotter,
        image: ResolvedImage,
        claim: state.Claim,
        runroot: str,
        on_note: Note | None = None,
    ) -> None:
        self.options, self.store, self.image, self.claim, self.runroot = options, store, image, claim, runroot
        self.root, self._storage = store.root, storage
        self._note = on_note or (lambda _: None)
        self._connection: networking.Connection | None = None
        self._execution: Execution | None = None
        self._terminal: Terminal | None = None
        self._streams: Streams | None = None
        self._guard: Guard | None = None
        self._keep = False  # its files outlive it
        self._began = time()

    def run(self, on_trace: Trace | None) -> int:
        """See `run`."""
        options = self.options
        if options.tty:
            from minibox.engine.terminal import Terminal

            self._terminal = Terminal(options.interactive)
        files.unpack(self._storage, self.store, self.image)
        identity = self._identity()
        files.prepare(self._storage, self.claim.id, self.image.chain_ids)
        assert self._connection
        size = self._terminal.size() if self._terminal else None
        prepared = prepare(options, self._storage, self.image, identity, size)
        self._write_files(prepared)
        self._make_volumes(prepared)
        owner = _owner(prepared)
        self._streams = Streams(interactive=options.interactive, tty=options.tty, owner=owner)
        if options.cidfile:
            self._write_cidfile()
        self._execution = execution = Execution(
            prepared.plan,
            Resources(
                spec=prepared.spec,
                streams=self._streams.fds,
                owner=owner,
                make_cgroup=lambda: cgroup.make(
                    prepared.cgroup_host,
                    prepared.cgroup_name,
                    prepared.cgroup_steps,
                    prepared.spec["linux"]["resources"],
                ),
                write_id_maps=ids.write_id_maps,
                wire=self._connection.wire,
            ),
        )
        try:
            with Forwarding() as forwarding:
                execution.run()
                self._keep = not options.rm
                return self._wait(prepared, forwarding)
        except ExecFailed as error:
            self._keep = not options.rm
            raise self._diagnose(error, prepared) from None
        except StepError:
            if options.cidfile:
                os.unlink(options.cidfile)  # there has never been a container of that id
            raise
        finally:
            if on_trace:
                from minibox.plan.explain import trace_rows

                on_trace(trace_rows(execution.trace(), execution.failed))

    # ---- before ---------------------------------------------------------------------------------

    def _identity(self) -> Identity:
        euid = os.geteuid()
        mappings = None
        if wants_own_ids(self.options, euid, self._id_map_refusal):
            mappings = ids.own_ids() if euid else ids.lease_range(self.root, self.claim.id)
        network = networking.choose(self.options, euid)
        for note in (ids.note(mappings) if mappings and euid else "", network.note):
            if note:
                self._note(note)
        self._connection = networking.Connection(network, self.runroot, self.claim.id)
        return Identity(self.claim.id, self.claim.directory, mappings, network.mode)

    def _id_map_refusal(self) -> str:
        """Why this container can't have ids of its own over its layers; the user hears of it once."""
        why, news = id_map_support.refusal(self.root)
        if news:
            self._note(f"no user namespace, root inside is root outside: {why} in {self.root}; see minibox doctor")
        return why

    def _write_files(self, prepared: Prepared) -> None:
        """/etc/hosts, /etc/hostname and /etc/resolv.conf of this container."""
        assert self._connection
        texts = self._connection.texts(prepared.spec["hostname"], self.options)
        for path, file in FILES.items():
            fd = os.open(f"{self.claim.directory}/{file}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            try:
                os.write(fd, texts[path].encode())
                os.fchmod(fd, 0o644)
            finally:
                os.close(fd)

    def _make_volumes(self, prepared: Prepared) -> None:
        """Those that aren't there yet, with the image's content."""
        missing = [volume for volume in prepared.volumes if not os.path.isdir(volume.path)]
        if not missing:
            return
        from functools import partial

        from minibox.engine.user_namespace import run_inside
        from minibox.engine.volume_content import make_volume, opened

        with opened(self._storage, self._storage.describe(self.claim.id, self.image.chain_ids)) as directories:
            for volume in missing:
                layers = directories if volume.copy else ()
                run_inside(partial(make_volume, volume.path, layers, volume.destination))

    def _write_cidfile(self) -> None:
        path = self.options.cidfile
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            raise UsageError(f"container ID file {path} exists", "remove it, or choose another name") from None
        except OSError as error:
            raise UsageError(f"write container ID file {path}: {kernel_says(error)}") from error
        os.write(fd, self.claim.id.encode())
        os.close(fd)

    # ---- while it runs --------------------------------------------------------------------------

    def _wait(self, prepared: Prepared, forwarding: Forwarding) -> int:
        """Copy, forward signals, wait; the exit status."""
        execution = self._execution
        assert execution and execution.init and self._streams
        init = execution.init
        if self._terminal:
            self._terminal.enter_raw()
        self._streams.begin(execution.pty_master)
        self._guard = Guard(INIT, init.pidfd, self.claim.id)
        self.claim.note_process(init.pid, prepared.spec["process"]["args"])
        collect(self.root, self.runroot)
        if self._keep:
            self._write_state(prepared, "running", None, False)
        forwarding.wait(init.pidfd, init.send_signal, self._terminal, execution.pty_master, self.options.stop_timeout_s)
        code = init.wait()
        lost = self._streams.finish()
        if self._terminal:
            self._terminal.restore()
        status = code if code >= 0 else 128 - code
        if lost:
            self._note(f"the container's output could not all be written: {kernel_says(lost)}")
            status = status or MiniboxError.status
        killed = execution.cgroup is not None and execution.cgroup.oom_kills() > 0
        if killed:
            self._note(self._memory_note(code))
        if self._keep:
            self._write_state(prepared, "exited", status, killed)
        return status

    def _memory_note(self, code: int) -> str:
        limit = self.options.memory_bytes
        return (
            "the container ran out of memory"
            + (f": its limit is {limit} bytes (--memory)" if limit else "")
            + ("" if code == -SIGKILL else "; the kernel killed a process of it")
        )

    def _write_state(self, prepared: Prepared, status: str, exit_status: int | None, oom: bool) -> None:
        state.write(
            self.claim.directory,
            {
                "Id": self.claim.id,
                "Name": self.claim.name,
                "Image": self.options.image,
                "ImageDigest": self.image.digest,
                "ImageId": self.image.config_digest,
                "Command": prepared.spec["process"]["args"],
                "Created": self._began,
                "Finished": time() if exit_status is not None else None,
                "Status": status,
                "ExitCode": exit_status,
                "OOMKilled": oom,
                "Labels": prepared.spec.get("annotations", {}),
                **self._as_run(prepared),
            },
        )

    def _as_run(self, prepared: Prepared) -> dict[str, Any]:
        """What `commit`, `cp` and `inspect` ask for."""
        from minibox.engine.container_config import container_config, mounts_of
        from minibox.engine.options import given
        from minibox.engine.spec import labels

        spec, image_config = prepared.spec, self.image.config
        named = labels(self.options, image_config.get("config") or {})
        anonymous = [volume.destination for volume in prepared.volumes if volume.anonymous]
        return {
            "Config": container_config(self.options, image_config, spec["process"]["env"], named, anonymous),
            "ReadOnly": self.options.read_only,
            "Mounts": mounts_of(spec["mounts"], self.claim.directory),
            "Options": given(self.options),
        }

    def _diagnose(self, error: ExecFailed, prepared: Prepared) -> MiniboxError:
        from minibox.engine.diagnosis import diagnose

        process = prepared.spec["process"]
        paths = prepared.plan.ops[-1].args[0]
        assert isinstance(paths, tuple)
        try:
            return diagnose(error.errno, process["args"][0], paths, error.root_fd, process["cwd"])
        finally:
            if error.root_fd >= 0:
                os.close(error.root_fd)

    # ---- after ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Remove what the container had, or keep its files as they are for `commit` and `start`.

        What fails to go doesn't keep the rest: its claim is then left for `collect`.
        """
        failure: Exception | None = None
        for undo in (self._end_processes, self._close_network, self._remove_files):
            try:
                undo()
            except (MiniboxError, OSError) as error:
                failure = failure or error
        self.claim.release(finished=failure is None)
        if failure:
            raise failure

    def _end_processes(self) -> None:
        try:
            if self._execution:
                self._execution.close()
                if self._execution.cgroup:
                    self._execution.cgroup.remove()  # it is empty: the kernel has killed the whole pid namespace
        finally:
            if self._guard:
                self._guard.close()
            if self._streams:
                self._streams.close()
            if self._terminal:
                self._terminal.restore()

    def _close_network(self) -> None:
        if self._connection:
            self._connection.close()

    def _remove_files(self) -> None:
        if not self._keep:
            files.remove(self.root, self.claim.id, self._storage)
            if self.options.name:
                state.drop_name(self.root, self.claim.id, self.claim.name)
        ids.release_range(self.root, self.claim.id)


def _owner(prepared: Prepared) -> tuple[int, int]:
    """The host's ids of the container's process."""
    user, linux = prepared.spec["process"]["user"], prepared.spec["linux"]

    def host(inside: int, mappings: Any) -> int:
        for entry in mappings:
            if entry["containerID"] <= inside < entry["containerID"] + entry["size"]:
                return int(entry["hostID"] + inside - entry["containerID"])
        return inside

    return host(user["uid"], linux.get("uidMappings", ())), host(user["gid"], linux.get("gidMappings", ()))


def collect(root: str, runroot: str) -> list[str]:
    """End and remove what containers left whose owner was killed; their ids.

    One that resists is left to the next command: it mustn't cost whoever comes by his own container.
    """
    collected = []
    for container_id, remove_files, _ in state.orphans(root):
        try:
            _remove_traces(root, runroot, container_id, remove_files)
            os.unlink(f"{root}/live/{container_id}")
        except (MiniboxError, OSError):
            continue
        collected.append(container_id)
    return collected


def _remove_traces(root: str, runroot: str, container_id: str, remove_files: bool) -> None:
    cgroup.remove_leftover(cgroup.detect(), f"minibox-{container_id}")
    lease.collect(runroot, lambda holder: holder != container_id)
    ids.release_range(root, container_id)
    if remove_files or not os.path.exists(f"{root}/containers/{container_id}/state.json"):
        files.remove(root, container_id)
        state.drop_name(root, container_id, "")
        return
    found = state.read(root, container_id)
    if found["Status"] == "running":
        state.write(f"{root}/containers/{container_id}", {**found, "Status": "exited", "ExitCode": 128 + SIGKILL})


def list_containers(*, root: str, runroot: str) -> list[dict[str, Any]]:
    """All containers that run or have left files, newest first."""
    collect(root, runroot)
    return sorted(state.containers(root), key=lambda each: -(each.get("Created") or time()))


def remove(name_or_id: str, *, force: bool = False, root: str, runroot: str) -> str:
    """Remove an ended container's files; its id.

    Raises:
        ContainerNotFound: there is none of that name or id.
        UsageError: it runs, and ``force`` isn't given.
    """
    collect(root, runroot)
    found = state.find(root, name_or_id)
    container_id: str = found["Id"]
    if state.is_live(root, container_id):
        if not force:
            raise UsageError(f"container {name_or_id} is running", f"to kill it too: minibox rm --force {name_or_id}")
        _kill(root, container_id)
    files.remove(root, container_id)
    state.drop_name(root, container_id, found["Name"])
    return container_id


def _kill(root: str, container_id: str) -> None:
    """Kill a container's first process, and with it all others; wait until its owner has let go of it."""
    from time import monotonic, sleep

    deadline = monotonic() + 10
    while pid := state.live_process(root, container_id):
        if pid > 0:
            try:
                os.kill(pid, SIGKILL)
            except ProcessLookupError:
                pass
        if monotonic() > deadline:
            raise MiniboxError(f"container {container_id[:12]} was killed and its owner still holds it")
        sleep(0.005)
