"""``RUN --mount``: turn each mount into options of the container, and make what it needs on this machine.

Caches lie in ``root/build/caches/<hex>/data``, where <hex> is the digest of the cache's id. Secrets, agents' sockets and
copies of other stages' files lie in a directory of the line, which goes with it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from contextlib import ExitStack
from errno import EEXIST, EINVAL, ENOTEMPTY

from minibox.docker_words.pairs import Variable, parse_variable
from minibox.engine.files.tree import Directories, Tree
from minibox.engine.host.user_namespace import run_inside
from minibox.errors import BuildError, kernel_says
from minibox.image.layer.attributes import unmapped
from minibox.image.layout.layout import locked
from minibox.linux.removal import remove_directory
from minibox.record import record
from minibox.storage.clone import fill, make_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from minibox.build.dockerfile.heredocs import Heredoc
    from minibox.build.dockerfile.mounts import Mount
    from minibox.build.options import BuildOptions
    from minibox.build.steps.step import Place

SECRETS, AGENTS = "/run/secrets", "/run/buildkit/ssh_agent"
SECRET_BYTES_MAX = 500 << 10  # Docker's limit


@record
class Mounted:
    """What a RUN's mounts add to its container's options.

    Attributes:
        mount: values for ``--mount``; ``tmpfs``: for ``--tmpfs``.
        env: variables that the command gets, and nothing else does.
        points: the mount points.
    """

    mount: tuple[str, ...]
    tmpfs: tuple[str, ...]
    env: tuple[Variable, ...]
    points: tuple[str, ...]


class RunMounts:
    """The mounts of one RUN, until `close`."""

    def __init__(
        self, place: Place, options: BuildOptions, files_of: Callable[[Mount], tuple[str, tuple[str, ...]]]
    ) -> None:
        """
        Args:
            files_of: returns what a bind or cache mount takes its files from: the path of a directory, or else the
                layers of a root file system.
        """
        self._place, self._options, self._files_of = place, options, files_of
        self._stack = ExitStack()
        self._directory = ""

    def __enter__(self) -> RunMounts:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the caches and remove what belongs to the line."""
        self._stack.close()

    def prepare(self, mounts: tuple[Mount, ...], absolute: Callable[[str], str]) -> Mounted:
        """Make what the mounts need.

        Args:
            absolute: makes a path absolute in the container.

        Raises:
            BuildError: a source or a secret is missing.
        """
        found: list[str] = []
        tmpfs: list[str] = []
        env: list[Variable] = []
        points: list[str] = []
        for number, mount in enumerate(mounts):
            usual_place = mount.type in ("secret", "ssh") and not mount.target
            target = "" if usual_place else absolute(mount.target or ".")
            try:
                if mount.type == "tmpfs":
                    size = f":size={mount.size_bytes}" if mount.size_bytes else ""
                    tmpfs.append(target + size)
                elif mount.type == "secret":
                    target = self._secret(mount, target, number, found, env)
                elif mount.type == "ssh":
                    target = self._agent(mount, target, number, found, env)
                else:
                    make = self._cache if mount.type == "cache" else self._bind
                    found.append(_words(make(mount, number), target, mount.read_only))
            except OSError as error:
                if error.errno == EINVAL and (mount.uid or mount.gid):
                    raise unmapped(f"the mount {mount.type}", mount.uid or 0, mount.gid or 0) from error
                raise BuildError(f"make the mount {mount.type}: {kernel_says(error)}") from error
            if target:
                points.append(target)
        return Mounted(tuple(found), tuple(tmpfs), tuple(env), tuple(points))

    def script(self, script: Heredoc) -> tuple[str, ...]:
        """Make a heredoc a program of its own, as its first line asks for: ``/dev/pipes/NAME``."""
        path = self._own(-1)

        def write() -> None:
            with open(path, "xb") as file:
                file.write(script.text.encode("utf-8", "surrogateescape"))
                os.fchmod(file.fileno(), 0o755)

        run_inside(write)
        return (_words(path, f"/dev/pipes/{script.name}", True),)

    def _own(self, number: int) -> str:
        """A path of the line's own for something, on the state root's disk."""
        if not self._directory:
            os.makedirs(f"{self._place.root}/tmp", 0o700, exist_ok=True)
            from tempfile import mkdtemp

            self._directory = mkdtemp(dir=f"{self._place.root}/tmp")
            lock = os.open(self._directory, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(lock, fcntl.LOCK_EX)  # tells `Layout` that the owner is alive
            directory = self._directory
            self._stack.callback(os.close, lock)
            self._stack.callback(lambda: run_inside(lambda: remove_directory(directory)))
        return f"{self._directory}/{number}"

    def _bind(self, mount: Mount, number: int) -> str:
        directory, chain_ids = self._files_of(mount)
        source = mount.source.strip("/")
        if directory and mount.read_only:
            path = os.path.realpath(f"{directory}/{source}")
            if path != directory and not path.startswith(f"{directory.rstrip('/')}/"):
                raise BuildError(f"the mount's source {mount.source!r} leaves the context")
            if not os.path.exists(path):
                raise BuildError(f"the mount's source {mount.source!r} is not in the context")
            return path
        return self._copied(directory, chain_ids, source, self._own(number), share=mount.read_only)

    def _copied(self, directory: str, chain_ids: tuple[str, ...], source: str, target: str, *, share: bool) -> str:
        """Copy files for a mount: what the command changes there is dropped."""

        def copy() -> bool:
            if directory:
                from minibox.image.layer.stack import Stack

                stack = Stack([os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)], "")
                return _clone(stack, source, target, share=False)
            with Directories(self._place.root) as directories:
                return _clone(directories.stack(Tree(self._place.driver, chain_ids)), source, target, share=share)

        try:
            if not run_inside(copy):
                raise BuildError(f"the mount's source {source or '/'!r} doesn't exist")
        except OSError as error:
            raise BuildError(f"copy the mount's source {source or '/'!r}: {kernel_says(error)}") from error
        return target

    def _cache(self, mount: Mount, number: int) -> str:
        name = hashlib.sha256((mount.id or mount.target).encode("utf-8", "surrogateescape")).hexdigest()
        top = f"{self._place.root}/build/caches"
        os.makedirs(top, 0o700, exist_ok=True)
        directory = self._locked_cache(f"{top}/{name}", mount.sharing)
        data = f"{directory}/data"
        if not os.path.isdir(data):
            with locked(f"{directory}/filling"):  # a rename would replace an empty one that another stage has mounted
                if not os.path.isdir(data):
                    self._fill_cache(mount, data)
        return data

    def _locked_cache(self, path: str, sharing: str) -> str:
        """Lock a cache's directory: ``shared`` beside others, ``locked`` alone, ``private`` alone or else another."""
        for number in range(1 << 16):
            directory = path if not number else f"{path}-{number}"
            os.makedirs(directory, 0o700, exist_ok=True)
            fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
            try:
                how = fcntl.LOCK_SH if sharing == "shared" else fcntl.LOCK_EX
                fcntl.flock(fd, how | (fcntl.LOCK_NB if sharing == "private" else 0))
            except BlockingIOError:
                os.close(fd)
                continue
            except BaseException:
                os.close(fd)
                raise
            self._stack.callback(os.close, fd)
            return directory
        raise BuildError("a private cache has too many users")

    def _fill_cache(self, mount: Mount, data: str) -> None:
        new = f"{data}-{os.getpid()}"
        if mount.from_name or mount.source:
            directory, chain_ids = self._files_of(mount)
            self._copied(directory, chain_ids, mount.source.strip("/"), new, share=False)

        def make() -> None:
            if not os.path.isdir(new):
                os.mkdir(new)
            try:
                os.chmod(new, 0o755 if mount.mode is None else mount.mode)
                os.chown(new, mount.uid or 0, mount.gid or 0)
                os.rename(new, data)
            except OSError as error:
                remove_directory(new)
                if error.errno not in (ENOTEMPTY, EEXIST):  # another build was faster
                    raise

        run_inside(make)

    def _secret(self, mount: Mount, target: str, number: int, found: list[str], env: list[Variable]) -> str:
        name = mount.id or os.path.basename(mount.source) or os.path.basename(mount.target)
        content = self._content(name)
        if content is None:
            if mount.required:
                raise BuildError(f"the secret {name!r} is required", f"--secret id={name},src=FILE")
            return ""
        if mount.env:
            env.append(parse_variable(f"{mount.env}={content.decode('utf-8', 'surrogateescape')}"))
            if not mount.target:
                return ""
        path, target = self._own(number), target or f"{SECRETS}/{name}"

        def write() -> None:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(fd, "wb") as file:
                os.fchown(fd, mount.uid or 0, mount.gid or 0)
                os.fchmod(fd, 0o400 if mount.mode is None else mount.mode)
                file.write(content)

        run_inside(write)
        found.append(_words(path, target, True))
        return target

    def _content(self, name: str) -> bytes | None:
        from minibox.base.files import FileTooLarge, read_file

        for secret, kind, source in self._options.secrets:
            if secret != name:
                continue
            if kind == "env":
                value = os.environb.get(os.fsencode(source))
                if value is None:
                    raise BuildError(f"the secret {name!r}: the variable {source} is not set")
                return value
            try:
                return read_file(source, SECRET_BYTES_MAX)
            except FileTooLarge:
                raise BuildError(f"the secret {name!r} is larger than {SECRET_BYTES_MAX} bytes") from None
            except OSError as error:
                raise BuildError(f"read the secret {name!r} from {source}: {kernel_says(error)}") from error
        return None

    def _agent(self, mount: Mount, target: str, number: int, found: list[str], env: list[Variable]) -> str:
        name = mount.id or "default"
        path = dict(self._options.ssh).get(name)
        if path is None:
            if mount.required:
                raise BuildError(f"the ssh agent {name!r} is required", f"--ssh {name}")
            return ""
        from minibox.build.steps.agent import AgentSocket

        own, target = self._own(number), target or f"{AGENTS}.{number}"
        self._stack.callback(AgentSocket(own, path).close)
        os.chmod(own, 0o600 if mount.mode is None else mount.mode)
        run_inside(lambda: os.chown(own, mount.uid or 0, mount.gid or 0))
        found.append(_words(own, target, True))
        env.append(Variable("SSH_AUTH_SOCK", target))
        return target


def _clone(stack: object, source: str, target: str, *, share: bool) -> bool:
    from minibox.image.layer.stack import Stack

    assert isinstance(stack, Stack)
    with stack:
        node = stack.find(source)
        if node is None:
            return False
        if not node.is_directory:
            with open(node.open(os.O_RDONLY), "rb") as reader, open(target, "xb") as writer:
                while data := reader.read(1 << 20):
                    writer.write(data)
                os.fchmod(writer.fileno(), node.status.st_mode & 0o7777)
                os.fchown(writer.fileno(), *node.owner)
            return True
        make_directory(target)
        fill(node, target, share=share)
        return True


def _words(source: str, target: str, read_only: bool) -> str:
    words = ["type=bind", f"source={source}", f"target={target}", *(["readonly"] if read_only else [])]
    return ",".join(_quoted(word) for word in words)


def _quoted(word: str) -> str:
    return '"' + word.replace('"', '""') + '"' if "," in word or '"' in word else word
