"""The state of a container: the directory ``root/<id>``.

    state.json    the OCI state and what else we need, written atomically
    spec          the Spec as of the container's creation, and a second record of its cgroup
    notify        the directory of its socket for sd_notify(3), if it has one: `engine.oci.notify`
    gate          the pipe at which its first process waits for `start`; then removed: `engine.process.gate`

The status isn't recorded, but found out: from the process (and its start time, since pids are reused), the gate, and
the freezer of its cgroup. Whoever changes a container holds flock(2) on the directory.

`minibox.errors` is imported only where an error is raised: see `oci_cli.main`.
"""

from __future__ import annotations

import fcntl
import os
from errno import EEXIST, ENAMETOOLONG, ENOENT, ENOTDIR

from minibox.base.files import read_file, remove_all, replace_file
from minibox.base.json_text import dumps, loads
from minibox.base.shape import PID, check

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from minibox.linux.cgroup import Cgroup
    from minibox.oci.runtime import Spec

VERSION = "1.3.0"  # of the specification
CREATING, CREATED, RUNNING, PAUSED, STOPPED = "creating", "created", "running", "paused", "stopped"
ID_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")
BYTES_MAX = 64 << 20  # the largest file to write or read
# The fields of state.json, which has no kind and no format number, since hooks and engines may read it.
FIELDS = {
    **dict.fromkeys(("ociVersion", "bundle", "rootfs", "created"), str),
    "pid": PID,
    "id?": str,
    "startTime?": int,
    "annotations?": {str: str},
    "cgroup_paths?": {str: str},
    "systemd?": bool,
    "hooks?": [str],
    "steps?": [str],
    "undo?": [{"Operation": str, "Arguments": [object]}],
    "shared_root?": {"path": str, "dev": int, "ino": int, "mount": int},
}
# The fields of the file ``spec``.
KEPT = {
    "Kind": str,
    "Format": int,
    "Spec": {"process?": dict, "linux?": dict, "hooks?": (dict, None)},
    "Cgroups": {str: str},
}
FORMAT = 1
GATE = "gate"  # engine.process.gate.FIFO, which `state` needn't import
SHARED_ROOT = "shared_root"  # in state.json: `engine.shared_root`
MARSHAL_DICT, MARSHAL_STRING = (
    (b"{", b"\xfb"),
    (b"z", b"Z", b"a", b"A", b"u", b"t", b"\xfa", b"\xda", b"\xe1", b"\xc1", b"\xf5", b"\xf4"),
)
REMOVED = "removed:"  # ids have no colon


def is_rootless() -> bool:
    """Return whether we are an ordinary user, or root of a user namespace only, as below a rootless Podman."""
    return bool(os.geteuid()) or in_user_namespace()


def default_root(environ: Mapping[str, str]) -> str:
    """Return the default directory of containers."""
    directory = environ.get("XDG_RUNTIME_DIR")
    # Root of a user namespace counts as an ordinary user, for example under Podman.
    if directory and (os.geteuid() or (in_user_namespace() and environ.get("USER") != "root")):
        return f"{directory}/minibox-oci"
    return "/run/minibox-oci"


def in_user_namespace() -> bool:
    """Return whether our user namespace isn't the host's."""
    try:
        with open("/proc/self/uid_map", encoding="ascii") as file:
            return file.read().split() != ["0", "0", "4294967295"]
    except FileNotFoundError:  # a kernel without user namespaces
        return False


def check_id(container_id: str) -> None:
    """Refuse an id that isn't a plain file name.

    Raises:
        UsageError: the id is invalid.
    """
    if not container_id or container_id in (".", "..") or not ID_CHARACTERS.issuperset(container_id):
        from minibox.errors import UsageError

        raise UsageError(f"invalid container ID format: {container_id!r}", "use letters, digits, and _ + - .")


class Container:
    """One container.

    Attributes:
        fields: the content of state.json.
    """

    def __init__(self, root: str, container_id: str) -> None:
        check_id(container_id)
        self.root, self.id = root, container_id
        self.directory = f"{root}/{container_id}"
        self.fields: dict[str, Any] = {}
        self._lock_fd = -1

    @classmethod
    def new(cls, root: str, container_id: str) -> Container:
        """Take the id, and return the container locked.

        Raises:
            UsageError: the id is invalid.
            ContainerExists: the id is taken.
            MiniboxError: ``root`` can't be written, or another user owns it.
        """
        from minibox.base.directories import claim_directory

        container = cls(root, container_id)
        claim_directory(root)
        try:
            os.mkdir(container.directory, 0o700)  # config.json may have secrets; it is mounted by descriptor
        except OSError as error:
            from minibox.errors import ContainerExists, MiniboxError, kernel_says

            if error.errno == EEXIST and error.filename == container.directory:
                raise ContainerExists(f"container with id exists: {container_id}") from None
            raise MiniboxError(f"make {error.filename}: {kernel_says(error)}") from error
        container.lock()
        return container

    @classmethod
    def find(cls, root: str, container_id: str, *, locked: bool = False) -> Container:
        """Return the container of that id.

        Raises:
            UsageError: the id is invalid.
            ContainerNotFound: there is no such container.
            Damaged: its state.json is damaged.
        """
        container = cls(root, container_id)
        if locked:
            container.lock()
        try:
            container.fields = container._read("state.json", FIELDS)
            if container.fields["pid"] > 0 and "startTime" not in container.fields:
                raise container._damaged("state.json", "it has no startTime")
        except OSError as error:
            from minibox.errors import ContainerNotFound

            container.unlock()
            if error.errno not in (ENOENT, ENAMETOOLONG, ENOTDIR):
                raise container._damaged("state.json", error) from None
            raise ContainerNotFound("container does not exist") from None
        except BaseException:
            container.unlock()
            raise
        return container

    def _read(self, name: str, shape: dict[str, Any]) -> dict[str, Any]:
        path = f"{self.directory}/{name}"
        try:
            found = loads(read_file(path, BYTES_MAX))
            check(found, shape)
        except (ValueError, RecursionError) as error:
            raise self._damaged(name, error) from None
        return dict(found)

    def _damaged(self, name: str, error: Exception | str) -> Exception:
        from minibox.errors import Damaged, kernel_says

        why = kernel_says(error) if isinstance(error, OSError) else str(error)
        return Damaged(f"{self.directory}/{name}", why, f"minibox-oci delete --force {self.id} ends and removes it")

    def lock(self) -> None:
        """Wait for others that change the container, and lock it. The lock ends with this process."""
        try:
            fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            if error.errno not in (ENOENT, ENAMETOOLONG):
                raise
            from minibox.errors import ContainerNotFound

            raise ContainerNotFound("container does not exist") from None
        fcntl.flock(fd, fcntl.LOCK_EX)
        self._lock_fd = fd

    def unlock(self) -> None:
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def __enter__(self) -> Container:
        return self

    def __exit__(self, *_: object) -> None:
        self.unlock()

    @property
    def pid(self) -> int:
        """The pid of its first process; 0 if that has ended."""
        pid: int = self.fields.get("pid", 0)
        began = start_time(pid) if pid else 0
        return pid if began and began == self.fields["startTime"] else 0

    def status(self) -> str:
        """Return the container's status."""
        if not self.fields.get("pid"):
            return CREATING if self._is_locked() else STOPPED
        if not self.pid:
            return STOPPED
        if self.is_frozen():
            return PAUSED
        return CREATED if os.path.exists(f"{self.directory}/{GATE}") else RUNNING

    def is_frozen(self) -> bool:
        """Return whether its cgroup is frozen. With two hierarchies, one of them knows."""
        paths = self.fields.get("cgroup_paths", {})
        for path, word in (
            (f"{paths.get('')}/cgroup.events", b"frozen 1"),
            (f"{paths.get('')}/cgroup.freeze", b"1"),
            (f"{paths.get('freezer')}/freezer.state", b"FR"),
        ):
            try:
                with open(path, "rb", 0) as file:
                    if any(line.startswith(word) for line in file.readall().split(b"\n")):
                        return True
            except OSError:
                continue
        return False

    def refuse_frozen(self) -> None:
        """Raise MiniboxError if the processes are frozen, since they couldn't pass the gate."""
        if self.is_frozen():
            from minibox.errors import MiniboxError

            raise MiniboxError("the container was paused while it was started", "resume it: its command runs then")

    def _is_locked(self) -> bool:
        fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def write(self, **fields: Any) -> None:
        """Change fields of state.json.

        Raises:
            MiniboxError: it can't be written.
        """
        self.fields = {**self.fields, **fields}
        self._write("state.json", dumps(self.fields).encode())

    def write_spec(self, spec: Spec) -> None:
        """Record the Spec for `spec`. Raises as `write`."""
        cgroups = self.fields.get("cgroup_paths", {})
        kept = {"Kind": "spec", "Format": FORMAT, "Spec": dict(spec), "Cgroups": cgroups}
        self._write("spec", dumps(kept, "").encode())

    def spec(self) -> Spec:
        """Return the Spec that it was created from, with the changes of `update`.

        Raises:
            Damaged, NewerFormat: the file can't be used.
        """
        spec: Spec = self._kept()["Spec"]
        return spec

    def _kept(self) -> dict[str, Any]:
        from minibox.errors import NewerFormat

        try:
            if (before := self._spec_of_before()) is not None:
                return before
            found = self._read("spec", KEPT)
        except OSError as error:
            raise self._damaged("spec", error) from None
        if found["Format"] > FORMAT:
            raise NewerFormat(f"{self.directory}/spec", found["Format"], FORMAT)
        return found

    def _spec_of_before(self) -> dict[str, Any] | None:
        """Read the older marshal format; None if it isn't that."""
        data = read_file(f"{self.directory}/spec", BYTES_MAX)
        if data[:1] not in MARSHAL_DICT or data[1:2] not in MARSHAL_STRING:
            return None
        import marshal

        try:
            return {"Spec": marshal.loads(data), "Cgroups": self.fields.get("cgroup_paths", {})}
        except (ValueError, EOFError, TypeError) as error:
            raise self._damaged("spec", error) from None

    def recover(self) -> None:
        """Fill in what is known from elsewhere, to end and remove a container whose state.json is damaged."""
        from minibox.errors import MiniboxError

        try:
            kept = self._kept()
            self.fields = {"cgroup_paths": kept["Cgroups"], "hooks": sorted(kept["Spec"].get("hooks") or {})}
        except MiniboxError:
            self.fields = {}

    def _write(self, name: str, data: bytes) -> None:
        path = f"{self.directory}/{name}"
        try:
            replace_file(path, data, mode=0o644)
        except OSError as error:
            from minibox.errors import MiniboxError, kernel_says

            raise MiniboxError(f"write {path}: {kernel_says(error)}") from error

    def group(self) -> Cgroup:
        """Its cgroup."""
        from minibox.linux.cgroup.group import of_paths

        return of_paths(self.fields.get("cgroup_paths", {}))

    def remove(self) -> None:
        """Forget it."""
        gone = f"{self.root}/{REMOVED}{self.id}:{os.getpid()}"
        try:
            os.rename(self.directory, gone)
        except FileNotFoundError:
            gone = ""
        self.unlock()
        if gone:
            remove_all(gone)


def containers(root: str, tell: Callable[[str], None] = lambda _: None) -> Iterator[Container]:
    """Yield the containers of a root, sorted by id.

    Args:
        tell: called with the error of each damaged container, which is left out.
    """
    from minibox.errors import ContainerNotFound, Unreadable, UsageError

    try:
        names = sorted(os.listdir(root))
    except FileNotFoundError:
        return
    for name in names:
        try:
            yield Container.find(root, name)
        except (ContainerNotFound, UsageError):
            continue  # being made or removed, or not a container
        except Unreadable as error:
            tell(f"{error}; {error.hint}")


def oci_state(container: Container, status: str = "") -> dict[str, Any]:
    """Return the state for hooks and for seccomp's listener; runtime.md, "State"."""
    fields = container.fields
    status = status or container.status()
    # The specification has no status for paused.
    found = {"ociVersion": VERSION, "id": container.id, "status": RUNNING if status == PAUSED else status}
    if status != STOPPED:
        found["pid"] = fields["pid"]
    found["bundle"] = fields["bundle"]
    if fields.get("annotations"):
        found["annotations"] = fields["annotations"]
    return found


def summary(container: Container, owner: str = "") -> dict[str, Any]:
    """Return the output of `state`, with runc's fields in runc's order."""
    fields, status = container.fields, container.status()
    annotations = fields.get("annotations")
    return {
        "ociVersion": fields["ociVersion"],
        "id": container.id,
        "pid": 0 if status == STOPPED else fields["pid"],
        "status": status,
        "bundle": fields["bundle"],
        "rootfs": fields["rootfs"],
        "created": fields["created"],
        **({"annotations": dict(sorted(annotations.items()))} if annotations else {}),
        "owner": owner,
    }


def start_time(pid: int) -> int:
    """Return when a process began, in clock ticks since boot; 0 if it has ended, even if it is still a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb", 0) as file:
            fields = file.readall().rpartition(b")")[2].split()
    except OSError:
        return 0
    return int(fields[19]) if fields[0] not in (b"Z", b"X") else 0
