"""Run a command of the host on overlays over the host's files, and find out what it changed."""

from __future__ import annotations

import os
from time import clock_gettime_ns

from minibox.base.home import Home
from minibox.docker_words.mounts import MountRequest
from minibox.docker_words.pairs import parse_variable
from minibox.docker_words.security import parse_security_option
from minibox.engine.container import collection
from minibox.engine.container.foreground_run import run_in_foreground
from minibox.engine.container.run import Run
from minibox.engine.host.ids import IdMappings
from minibox.engine.process.streams import StandardDescriptors
from minibox.engine.spec.options import RunOptions
from minibox.engine.state.claim import Claim
from minibox.engine.trial.apply import Applied, Apply, Conflict, conflicts
from minibox.engine.trial.host_storage import HostStorage
from minibox.engine.trial.host_tree import HostTree, find_tree
from minibox.engine.trial.kept import Trial
from minibox.errors import MiniboxError, kernel_says
from minibox.image.layout.image import ResolvedImage
from minibox.image.store import ImageStore
from minibox.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from minibox.engine.container.run import Note

TRIES = 20  # directories of the host may vanish while the overlays are made
COARSE = 5  # CLOCK_REALTIME_COARSE of linux/time.h, by which the kernel stamps files
#: What stands for an image in listings.
HOST = "host"
NO_DIGEST = "sha256:" + 64 * "0"
ABSTRACT_SOCKETS = "with --network host the command could reach the abstract sockets of this host"


class TrialRun(Run):
    """The run of a trial: an ordinary user keeps the own ids instead of becoming root."""

    place = "on this host"

    def map_ids(self) -> IdMappings:
        uids = {"containerID": os.geteuid(), "hostID": os.geteuid(), "size": 1}
        gids = {"containerID": os.getegid(), "hostID": os.getegid(), "size": 1}
        return IdMappings((uids,), (gids,))  # type: ignore[arg-type]


def try_command(
    home: Home,
    options: RunOptions,
    over: str,
    decide: Callable[[Trial], None],
    on_note: Note,
) -> int:
    """Run a command on overlays over the host's files.

    Args:
        options: the command, its network, limits and so on; its files and user are set here.
        over: the directory that is its root.
        decide: called with the trial once the command has ended. Its overlays are gone afterwards, unless
            `kept.keep` was called.

    Returns:
        The exit status of the command.

    Raises:
        MiniboxError: it can't be run, or ``decide`` failed.
    """
    for left in reversed(range(TRIES)):
        tree = find_tree(over, _writable() if os.geteuid() else ())
        attempt = _Attempt(home, tree, on_note)
        try:
            return attempt.run(options, decide)
        except MiniboxError:
            if not left or attempt.has_run or not tree.has_vanished():
                raise
    raise AssertionError("the last attempt returns or raises")


class _Attempt:
    """One attempt to run a command on the host's files as they are now."""

    def __init__(self, home: Home, tree: HostTree, on_note: Note) -> None:
        self._home, self._tree, self._note = home, tree, on_note
        self.has_run = False

    def run(self, options: RunOptions, decide: Callable[[Trial], None]) -> int:
        options = _options(options, self._tree, self._home)
        ends = StandardDescriptors()
        try:
            run = _new_run(self._home, options, self._tree, self._note)
            try:
                began_ns = clock_gettime_ns(COARSE)
                status = run_in_foreground(run)
                self.has_run = True
                self._tell(options)
                run.end_processes()
                decide(_ended(self._tree, run.claim.directory, options, began_ns, status))
                return status
            finally:
                run.close()
        finally:
            ends.close()

    def _tell(self, options: RunOptions) -> None:
        """Tell what of the host the command did not see as it is."""
        tree = self._tree
        for path, why in tree.hidden:
            self._note(f"{tree.host_path(path)} was not shown to the command: {why}")
        if tree.read_only:
            paths = ", ".join(tree.host_path(path) for path in tree.read_only)
            self._note(f"read-only for the command, since overlayfs can't stack on that: {paths}")
        if options.network == "host":
            self._note(ABSTRACT_SOCKETS)


def _ended(tree: HostTree, directory: str, options: RunOptions, began_ns: int, status: int) -> Trial:
    trial = Trial("", directory, tree, options.command, began_ns, status, ())
    try:
        with trial.overlays() as overlays:
            found = overlays.find_all()
    except OSError as error:
        raise MiniboxError(f"compare {error.filename or directory}: {kernel_says(error)}") from error
    return replace(trial, found=tuple(found))


def find_conflicts(trial: Trial) -> list[Conflict]:
    """Return the files of the host that changed since the command saw them.

    Raises:
        MiniboxError: a file can't be looked at.
    """
    try:
        with trial.overlays() as overlays:
            return conflicts(overlays, trial.found, trial.began_ns)
    except OSError as error:
        raise MiniboxError(f"look at {error.filename}: {kernel_says(error)}") from error


def apply(trial: Trial, *, privileged: bool) -> Applied:
    """Apply a trial's changes to the host, whatever has changed there.

    Args:
        privileged: also set-user-ID bits, file capabilities and devices.

    Raises:
        MiniboxError: the kernel refused; a part of the changes is applied.
    """
    with trial.overlays() as overlays:
        return Apply(overlays, privileged=privileged).all(list(trial.found))


def _new_run(home: Home, options: RunOptions, tree: HostTree, on_note: Note) -> Run:
    image = ResolvedImage(HOST, NO_DIGEST, {}, (NO_DIGEST,), NO_DIGEST)
    collection.collect_some(home)
    claim = Claim.new(home.root, options.name, remove=True)
    try:
        claim.note_image(HOST, image)
        return TrialRun(home, options, ImageStore(home.root), HostStorage(home.root, tree), image, claim, on_note)
    except BaseException:
        claim.give_up()
        raise


def _options(options: RunOptions, tree: HostTree, home: Home) -> RunOptions:
    """Complete the options: the caller's ids, environment and directory, and nothing of minibox's own files."""
    euid = os.geteuid()
    groups = () if euid else tuple(str(gid) for gid in os.getgroups() if gid != os.getegid())
    hidden = [MountRequest("tmpfs", "", path, ("size=4k",)) for path in _own_directories(tree, home)]
    bound = [
        MountRequest("bind", tree.host_path(path), path, ("bind", "ro", "nosuid", "nodev")) for path in tree.read_only
    ]
    cwd = os.getcwd() if tree.over == "/" else "/"
    changed: RunOptions = replace(
        options,
        image=HOST,
        env=(*(parse_variable(f"{name}={value}") for name, value in os.environ.items()), *options.env),
        workdir=options.workdir or cwd,
        user=f"{euid}:{os.getegid()}",
        group_add=groups,
        rm=True,
        interactive=True,
        hostname=options.hostname or _hostname(),
        mount=(*options.mount, *bound),
        tmpfs=(*options.tmpfs, *hidden),
        network=_network(options.network),
        userns="" if euid else "host",
        cap_drop=(*options.cap_drop, "MKNOD"),
        security_opt=(*options.security_opt, parse_security_option("no-new-privileges")),
    )
    return changed


def _network(mode: str) -> str:
    """Return the network of a trial: none unless asked for; what an ordinary user has instead of a bridge."""
    if os.geteuid() and mode == "bridge":
        return ""
    return mode or "none"


def _hostname() -> str:
    name = os.uname().nodename
    plain = name.replace("-", "").replace("_", "").replace(".", "")
    return name if plain.isascii() and plain.isalnum() and len(name) <= 64 else ""


def _own_directories(tree: HostTree, home: Home) -> list[str]:
    """Return minibox's own directories as the command sees them: the overlays themselves are in one."""
    found = []
    for path in (home.root, home.runroot):
        real = os.path.realpath(path)
        if os.path.isdir(real) and real.startswith(tree.over.rstrip("/") + "/"):
            found.append("/" + real[len(tree.over) :].lstrip("/"))
    return found


def _writable() -> tuple[str, ...]:
    """Return directories where an ordinary user writes, although others own the directories above them."""
    wanted = (os.path.expanduser("~"), os.getcwd(), "/tmp", "/var/tmp", "/dev/shm", f"/run/user/{os.geteuid()}")
    return tuple(dict.fromkeys(real for path in wanted if os.access(real := os.path.realpath(path), os.W_OK)))
